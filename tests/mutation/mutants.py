"""All mutants of a module by the operators of cosmic-ray, less those that change nothing.

An arithmetic operator becomes one of the two most like it, a comparison one or two others; numbers
change by one; ``and`` and ``or``, ``True`` and ``False`` are exchanged; ``not`` and signs go or
come; loops run no more; decorators are left out. Annotations, assertions, f-strings (what messages
say) and what is for mypy alone are left as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LEFT_OUT = {"VariableReplacer", "VariableInserter", "ExceptionReplacer"}
ALIKE = {
    "BinaryOperator": {
        "Add": ("Sub", "Mul"),
        "Sub": ("Add", "Mul"),
        "Mul": ("Add", "Div"),
        "Div": ("Mul", "Sub"),
        "FloorDiv": ("Div", "Mul"),
        "Mod": ("FloorDiv", "Mul"),
        "Pow": ("Mul", "Add"),
        "LShift": ("RShift",),
        "RShift": ("LShift",),
        "BitOr": ("BitAnd",),
        "BitAnd": ("BitOr",),
        "BitXor": ("BitAnd",),
    },
    "ComparisonOperator": {
        "Eq": ("NotEq",),
        "NotEq": ("Eq",),
        "Lt": ("LtE", "Gt"),
        "LtE": ("Lt", "Gt"),
        "Gt": ("GtE", "Lt"),
        "GtE": ("Gt", "Lt"),
        "Is": ("IsNot",),
        "IsNot": ("Is",),
        "In": ("NotIn",),
        "NotIn": ("In",),
    },
}


class Mutant(NamedTuple):
    """A module with one change: on which lines, by which operator, and the whole source."""

    path: str
    line: int
    end: int
    operator: str
    source: str

    @property
    def lines(self) -> range:
        """The lines that are changed."""
        return range(self.line, self.end + 1)


def operators() -> dict[str, Any]:
    """Return the operators of cosmic-ray that are used, by name."""
    from cosmic_ray.plugins import get_operator, operator_names

    used = {}
    for full in operator_names():
        name = full.removeprefix("core/")
        match = re.match(r"Replace(BinaryOperator|ComparisonOperator)_([A-Za-z]+)_(\w+)", name)
        unlike = match and match[3] not in ALIKE[match[1]].get(match[2], ())
        if not (unlike or name in LEFT_OUT or re.search(r"UnaryOperator_\w+_(Invert|UAdd)$", name)):
            used[name] = get_operator(full)()
    return used


def mutants(path: str) -> Iterator[Mutant]:
    """Yield the mutants of a module, one for each change that matters.

    Each statement at the top of the module is parsed by itself, which is much faster.
    """
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import mutate_code

    source, line, seen = Path(path).read_text(encoding="utf-8"), 0, set()
    statements = [child.get_code() for child in get_ast(source).children]
    used = operators()
    for number, code in enumerate(statements):
        seen |= {(number, essence(code)), (number, "")}
        for name, places in positions(code, used).items():
            for i, (start, end) in enumerate(places):
                changed = mutate_code(code, used[name], i)
                if (number, essence(changed)) in seen:
                    continue
                seen.add((number, essence(changed)))
                whole = "".join([*statements[:number], changed, *statements[number + 1 :]])
                yield Mutant(path, line + start[0], line + end[0], name, whole)
        line += code.count("\n")


def positions(code: str, used: dict[str, Any]) -> dict[str, list[Any]]:
    """Return where each operator changes something, in one walk."""
    from cosmic_ray.ast import Visitor, get_ast

    found: dict[str, list[Any]] = {}

    class Find(Visitor):  # type: ignore[misc]
        def visit(self, node: Any) -> Any:
            for name, operator in used.items():
                found.setdefault(name, []).extend(operator.mutation_positions(node))
            return node

    Find().walk(get_ast(code))
    return found


def essence(code: str) -> str:
    """Return what a statement does: what a change must change to be one; "" if it is no Python."""
    try:
        tree = Essence().visit(ast.parse(code))
    except SyntaxError:
        return ""
    return ast.dump(tree)


class Essence(ast.NodeTransformer):
    """Takes out what says nothing to the computer, or is only said to the reader."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(0)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if "TYPE_CHECKING" in ast.dump(node.test) else self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        alias = isinstance(target, ast.Name) and re.match("[A-Z].*[a-z]", target.id)
        return ast.Pass() if alias else self.generic_visit(node)  # StepLength = Callable[...]

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Pass()

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")
