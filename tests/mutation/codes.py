"""The codes of functions that a mutant changes, where a process can exchange them."""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant

KNOWN = {"property", "cached_property", "staticmethod", "classmethod", "contextmanager"}
KNOWN |= {"implements", "cache", "lru_cache"}  # the first registers; what is cached is forgotten


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code and all that it contains."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def itself(code: types.CodeType) -> Any:
    """Return a code without what it contains."""
    inner = tuple(c for c in code.co_consts if not isinstance(c, types.CodeType))
    return code.co_qualname, code.co_code, repr(inner), code.co_names


def exchanged(mutant: Mutant) -> dict[types.CodeType, types.CodeType]:
    """Return the codes of functions to exchange; none where the import runs what has changed."""
    file, source = str(Path(mutant.path).resolve()), Path(mutant.path).read_text(encoding="utf-8")
    if decorated(source, mutant.line):
        return {}
    pairs = [codes(compile(s, file, "exec", dont_inherit=True)) for s in (source, mutant.source)]
    try:
        found = [(old, new) for old, new in zip(*pairs, strict=True) if old != new]
    except ValueError:  # a function more, or less
        return {}
    optimized = 0x2  # the flag of functions, not of modules and classes
    if any(itself(a) != itself(b) and not a.co_flags & optimized for a, b in found):
        return {}
    if any(a.co_freevars != b.co_freevars for a, b in found):  # live closures have others
        return {}
    return {old: new for old, new in found if old.co_flags & optimized}


def decorated(source: str, line: int) -> bool:
    """Tell whether a line is in a function that its decorator may have compiled."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0):
            names = (ast.unparse(d).partition("(")[0].split(".")[-1] for d in node.decorator_list)
            if not KNOWN.issuperset(names):
                return True
    return False
