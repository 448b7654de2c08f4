"""What a trace depends on: the same again, and it need not be made again.

A function's result depends on its arguments and on what its names refer to. Where all of that can
be found and none of it can change unnoticed, two equal signatures have equal traces.
"""

from __future__ import annotations

import builtins
import dis
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree

__all__ = ["Unknown", "signature"]

PURE = ("numpy", "scipy.special", "math", "operator", "pararnn_solvers.functions")
"""Modules whose functions are taken as they are: they compute from their arguments alone."""

IMPURE = ("numpy.random",)

BUILTINS = set(
    "abs bool complex divmod enumerate float int len list max min pow range reversed round slice "
    "sorted sum tuple zip".split()
)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, type, np.ufunc, type(np.where))
_VALUES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)
_REACHES_OUT = {"IMPORT_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"}


class Unknown(Exception):  # noqa: N818
    """Something can change without being seen."""


class _Record(NamedTuple):
    field: None


_OF_A_RECORD = set(vars(_Record)) - {"field"}


class Same(NamedTuple):
    """One object, whatever it equals: as long as this is kept, no other has its number."""

    identity: int
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.identity == other.identity

    def __hash__(self) -> int:
        return self.identity


class Names(NamedTuple):
    """What the code of a function asks for by name, and whether it could do anything else.

    That is to import, to set a global, or to catch the error by which a traced array says no.
    """

    names: tuple[str, ...]
    reaches_out: bool


class Asked(NamedTuple):
    """What all functions together ask for by name, and the tuples that they may ask for it."""

    names: set[str]
    containers: list[Any]


def signature(step: Callable[..., Any], h: Any, x: Any, theta: Any, k: int) -> tuple[Any, ...]:
    """Return what the trace of a step depends on; compare with ``==``.

    Parameters
    ----------
    step, h, x, theta, k
        As of :func:`~pararnn_solvers.autodiff.trace.tracing.trace`.

    Raises
    ------
    Unknown
        `step` is no plain function, or refers to something that can change: an array, a list, a
        method of an object, a generator of random numbers, a class of the user's other than a
        NamedTuple that has fields only.

    Notes
    -----
    Cost: about a microsecond for each name in `step`.
    """
    drives = None if x is None else (x.shape[-1], x.dtype)
    shapes = (k, type(h), h.shape[-1], h.dtype, drives)
    leaves, asked = tree.flatten(theta)[0], Asked(set(), [])
    references = tuple(_function(step, {}, asked))
    names = asked.names
    for container in asked.containers:  # by all names: a helper may ask what was met before it
        _kind(container, names)
    return shapes, tuple(_containers(theta, names)), tuple(map(_leaf, leaves)), references


def _function(function: Any, seen: dict[Any, int], asked: Asked) -> Iterator[Any]:
    if id(function) in seen:
        yield seen[id(function)]  # which of them: two that are alike may have changed places
        return
    seen[id(function)] = len(seen)
    if not isinstance(function, FunctionType):
        raise Unknown(f"{function!r} is no function in Python")
    if getattr(function, "__wrapped__", function) is not function or function.__dict__:
        raise Unknown(f"{function!r} has attributes")
    yield Same(id(function.__code__), function.__code__)
    wanted = _names(function.__code__)
    if wanted.reaches_out:
        raise Unknown(f"{function!r} imports modules, sets globals or catches errors")
    asked.names.update(wanted.names)
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _value(value, wanted.names, seen, asked)
    for cell in function.__closure__ or ():
        yield from _value(cell.cell_contents, wanted.names, seen, asked)
    known, built_in = function.__globals__, vars(builtins)
    for name in wanted.names:
        if name in known:
            yield name
            yield from _value(known[name], wanted.names, seen, asked)
        elif name in built_in:
            if name not in BUILTINS:
                raise Unknown(f"{function!r} may use {name}")
            yield Same(id(built_in[name]), built_in[name])


def _value(
    value: Any, wanted: tuple[str, ...], seen: dict[Any, int], asked: Asked
) -> Iterator[Any]:
    if isinstance(value, _VALUES):
        yield type(value), repr(value)  # -0.0 equals 0.0, and 1 equals True
    elif (isinstance(value, _FUNCTIONS) and _is_pure(value)) or _is_record(value):
        yield Same(id(value), value)
    elif isinstance(value, tuple):
        asked.containers.append(value)
        yield Same(id(type(value)), type(value))
        yield len(value)
        for item in value:
            yield from _value(item, wanted, seen, asked)
    elif isinstance(value, ModuleType):
        yield Same(id(value), value)
        if (id(value), wanted) not in seen:  # another function may want other names of it
            seen[id(value), wanted] = len(seen)
            for name in wanted:
                if name in vars(value):
                    yield name
                    yield from _value(vars(value)[name], wanted, seen, asked)
    else:
        yield from _function(value, seen, asked)


def _is_pure(function: Any) -> bool:
    """Tell whether a function is of a module that is known to compute from arguments alone."""
    if isinstance(function, np.ufunc):
        return True
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return False  # the method of an object, such as a generator of random numbers
    module = getattr(function, "__module__", None) or ""
    return _within(module, PURE) and not _within(module, IMPURE)


def _is_record(kind: Any) -> bool:
    """Tell whether a class is a NamedTuple of fields: no methods, no defaults of its own."""
    if not (isinstance(kind, type) and kind.__bases__ == (tuple,) and hasattr(kind, "_fields")):
        return False
    names = vars(kind)
    return names.get("_field_defaults") == {} and set(names) <= _OF_A_RECORD.union(kind._fields)


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in packages)


@lru_cache(maxsize=1024)
def _names(code: CodeType) -> Names:
    names = dict.fromkeys(code.co_names)
    reaches_out = bool(code.co_exceptiontable) or any(
        i.opname in _REACHES_OUT for i in dis.get_instructions(code)
    )
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _names(constant)
            names.update(dict.fromkeys(inner.names))
            reaches_out |= inner.reaches_out
    return Names(tuple(names), reaches_out)


def _containers(theta: Any, names: set[str]) -> Iterator[Any]:
    """List the kinds and keys of the containers of theta; their methods may compute anything."""
    keys, children, build = tree.open_container(theta)
    if build is None:
        yield theta is None
        return
    yield _kind(theta, names)
    yield tuple(keys)
    for child in children:
        yield from _containers(child, names)


def _kind(container: Any, names: set[str]) -> Same:
    """Return the type of a container, if the step asks for no more than its entries."""
    kind = type(container)
    if kind not in (dict, list, tuple):
        for name in names.difference(tree.open_container(container)[0]):
            if hasattr(kind, name):
                raise Unknown(f"step may call {kind.__name__}.{name}")
    return Same(id(kind), kind)


def _leaf(leaf: Any) -> Any:
    if tree.is_differentiable(leaf):
        return type(leaf), np.shape(leaf), getattr(leaf, "dtype", None)
    if isinstance(leaf, _VALUES):
        return type(leaf), repr(leaf)
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "iub":
        return leaf.shape, leaf.dtype, leaf.tobytes()
    raise Unknown(f"a leaf of theta is {type(leaf).__name__}")
