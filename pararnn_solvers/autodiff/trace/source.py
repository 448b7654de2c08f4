"""A graph written as straight-line source, one assignment for each value that is used twice.

What occurs once is written where it is used, as long as a line remains readable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.trace.graph import Node, reachable
from pararnn_solvers.autodiff.trace.lowering import lower

__all__ = ["PYTHON", "Dialect", "Source", "function_calls", "operation_count", "source"]

WIDTH = 60  # of an expression that is written into another

# Infix operators, and how closely they bind: as in Python, which C's agree with as used here. No
# comparison is an operand of another, since they compare numbers.
_INFIX = {
    "logical_or": ("|", 2),
    "logical_xor": ("^", 3),
    "logical_and": ("&", 4),
    "less": ("<", 1),
    "less_equal": ("<=", 1),
    "equal": ("==", 1),
    "not_equal": ("!=", 1),
    "add": ("+", 5),
    "subtract": ("-", 5),
    "multiply": ("*", 6),
    "divide": ("/", 6),
}
_LOOSEST, _NEGATIVE, _ATOM = 0, 7, 9
_LEAVES = ("input", "constant")
_RENAMED = {"absolute": "abs", "power": "pow"}


def python_literal(value: float | bool, dtype: np.dtype[Any]) -> str:
    """Write a constant so that it has this type: ``0.5``, or ``np.float32(0.5)``."""
    if isinstance(value, bool):
        return repr(value)
    with np.errstate(over="ignore", under="ignore"):
        text = str(dtype.type(value))
    text = text.replace("inf", "np.inf").replace("nan", "np.nan")
    return text if dtype == np.float64 else f"np.{dtype.name}({text})"


@dataclass(frozen=True)
class Dialect:
    """How a language writes what languages write differently.

    Attributes
    ----------
    literal : callable
        ``literal(value, dtype)`` is a constant, a float or a bool.
    choice : str
        ``where``, with ``{condition}``, ``{a}`` and ``{b}``.
    negation : str
        ``logical_not``, with ``{a}``.
    argument : str
        A constant ``{a}`` that a function is called with.
    number, truth : str
        Assignment of ``{value}`` to the new variable ``{name}``.
    """

    literal: Callable[[Any, np.dtype[Any]], str] = python_literal
    choice: str = "{a} if {condition} else {b}"
    negation: str = "not {a}"
    argument: str = "{a}"
    number: str = "{name} = {value}"
    truth: str = "{name} = {value}"


PYTHON = Dialect()


@dataclass(frozen=True)
class Source:
    """Assignments which compute results from arguments.

    Attributes
    ----------
    lines : tuple of str
        One assignment each.
    results : tuple of str
        The variables which hold the outputs, in the order given.
    arguments : tuple of Node
        Inputs that occur: ``h``, ``x``, ``theta``, ``adjoint``, each in order. Their ``value`` is
        an :class:`~pararnn_solvers.autodiff.inputs.Input`.
    functions : tuple of str
        Names that are called, sorted; as NumPy's, except ``abs`` and ``pow``.
    operations : int
        Scalar operations, with each function call as one.
    """

    lines: tuple[str, ...]
    results: tuple[str, ...]
    arguments: tuple[Node, ...]
    functions: tuple[str, ...]
    operations: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arguments."""
        return tuple(str(node.value) for node in self.arguments)

    def function(self, name: str) -> str:
        """Write a Python function which returns the results."""
        lines = [f"def {name}({', '.join(self.names)}):"]
        lines += [f"    {line}" for line in self.lines]
        return "\n".join([*lines, f"    return {', '.join(self.results)}", ""])


def source(outputs: Mapping[str, Node], dtype: Any, dialect: Dialect = PYTHON) -> Source:
    """Write the source of some nodes.

    Parameters
    ----------
    outputs : mapping of str to Node
        The variable which gets each result. Names ``v0``, ``v1``, ... are taken.
    dtype : dtype
        float32 or float64, of all numbers.
    dialect : Dialect, optional

    Returns
    -------
    Source

    Examples
    --------
    >>> from pararnn_solvers.autodiff.trace.graph import Graph
    >>> h = Graph().input("h")
    >>> print(*source({"f": np.where(h > 0, h, np.exp(h) - 1)}, np.float64).lines)
    f = h if 0.0 < h else exp(h) - 1.0
    """
    dtype = np.dtype(dtype)
    nodes = dict(zip(outputs, lower(list(outputs.values()), dtype), strict=True))
    order = reachable(nodes.values())
    writer = _Writer(nodes, order, dtype, dialect)
    for node in order:
        writer.write(node)
    writer.write_aliases()
    return Source(
        tuple(writer.lines),
        tuple(outputs),
        arguments(order),
        function_calls(order),
        operation_count(order),
    )


def arguments(order: Iterable[Node]) -> tuple[Node, ...]:
    """Return the inputs among nodes, those of one group together, in the order of their arrays."""
    inputs = [node for node in order if node.op == "input"]
    groups = ["h", "x", "theta", "adjoint", "direction"]

    def place(node: Node) -> tuple[Any, ...]:
        i = node.value
        return (
            (groups.index(i.group), i.leaf, i.position) if hasattr(i, "group") else (len(groups),)
        )

    return tuple(sorted(inputs, key=place))


def function_calls(order: Iterable[Node]) -> tuple[str, ...]:
    """Return the names of the functions that nodes call, sorted."""
    inline = {*_INFIX, *_LEAVES, "negative", "where", "logical_not"}
    return tuple(sorted({_RENAMED.get(n.op, n.op) for n in order if n.op not in inline}))


def operation_count(order: Iterable[Node]) -> int:
    """Count the operations among nodes."""
    return sum(node.op not in _LEAVES for node in order)


@dataclass
class _Writer:
    """The lines so far, and the text of every node: an expression, and how closely it binds."""

    outputs: dict[str, Node]
    order: list[Node]
    dtype: np.dtype[Any]
    dialect: Dialect
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.texts: dict[int, tuple[str, int]] = {}
        self.uses = Counter(arg.id for node in self.order for arg in node.args)
        self.results: dict[int, str] = {}
        for name, node in self.outputs.items():
            if node.op not in _LEAVES:
                self.results.setdefault(node.id, name)
        self.variables = 0

    def write(self, node: Node) -> None:
        """Find the text of a node, and assign it to a variable if it is needed again."""
        text, binds = self.express(node)
        if node.op not in _LEAVES:
            name = self.results.get(node.id)
            if name is None and (self.uses[node.id] > 1 or len(text) > WIDTH):
                name, self.variables = f"v{self.variables}", self.variables + 1
            if name is not None:
                template = self.dialect.truth if node.boolean else self.dialect.number
                self.lines.append(template.format(name=name, value=text))
                text, binds = name, _ATOM
        self.texts[node.id] = text, binds

    def write_aliases(self) -> None:
        """Assign the outputs that are arguments, constants or equal to another output."""
        for name, node in self.outputs.items():
            if self.results.get(node.id) != name:
                text = self.texts[node.id][0]
                self.lines.append(self.dialect.number.format(name=name, value=text))

    def express(self, node: Node) -> tuple[str, int]:
        """Return the expression of a node in terms of the texts of its arguments."""
        if node.op == "input":
            return str(node.value), _ATOM
        if node.op == "constant":
            return self.dialect.literal(node.value, self.dtype), _ATOM
        if node.op in _INFIX:
            sign, binds = _INFIX[node.op]
            left, right = self.operand(node.args[0], binds), self.operand(node.args[1], binds + 1)
            return f"{left} {sign} {right}", binds
        if node.op == "negative":
            return f"-{self.operand(node.args[0], _NEGATIVE + 1)}", _NEGATIVE
        if node.op == "logical_not":
            return self.dialect.negation.format(a=self.operand(node.args[0], _ATOM)), _LOOSEST
        if node.op == "where":
            texts = (self.operand(arg, _LOOSEST + 1) for arg in node.args)
            named = dict(zip(("condition", "a", "b"), texts, strict=True))
            return self.dialect.choice.format(**named), _LOOSEST
        inside = ", ".join(self.argument(arg) for arg in node.args)
        return f"{_RENAMED.get(node.op, node.op)}({inside})", _ATOM

    def argument(self, node: Node) -> str:
        """Return the text of an argument of a function."""
        text = self.operand(node, _LOOSEST)
        return self.dialect.argument.format(a=text) if node.op == "constant" else text

    def operand(self, node: Node, least: int) -> str:
        """Return the text of an argument, in parentheses if it binds less closely."""
        text, binds = self.texts[node.id]
        return text if binds >= least else f"({text})"
