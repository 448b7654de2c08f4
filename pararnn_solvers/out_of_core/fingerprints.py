"""A few characters for what decides the numbers of a solve: the same in every process.

Functions count by their code, their defaults and what they refer to; comments and names of
variables do not matter. Not seen is what a function reaches otherwise: a file, a generator of
random numbers, an object with ``__slots__``.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

import pararnn_solvers
from pararnn_solvers import arrays, tree

TAIL = 64
"""Steps at the end of a chunk by which it is known again."""

PLAIN = (bool, int, float, complex, str, bytes, type(None))
BY_NAME = {"numpy", "scipy", "numba", "pararnn_solvers", *sys.stdlib_module_names}
"""Packages whose functions count by name, and by what they enclose: a version says the rest."""


def fingerprint(value: Any) -> str:
    """Return a plain value as it is written, and 16 hexadecimal digits for any other.

    Examples
    --------
    >>> fingerprint(0.5), fingerprint(np.zeros(2)) == fingerprint(np.zeros(3))
    ('0.5', False)
    """
    if isinstance(value, PLAIN):
        return repr(value)
    found = hashlib.blake2b(digest_size=8)
    for part in _parts(value, ()):
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()


def tail(chunk: Any) -> str:
    """Return the fingerprint of the end of a chunk of x; of a number of steps, the same for all."""
    return fingerprint(arrays.from_any(chunk[-TAIL:])) if hasattr(chunk, "__len__") else ""


def versions() -> dict[str, str]:
    """Return the versions of what computes.

    Examples
    --------
    >>> sorted(versions())
    ['numba', 'numpy', 'pararnn_solvers', 'python']
    """
    return {
        "python": platform.python_version(),
        "pararnn_solvers": pararnn_solvers.__version__,
        **{name: metadata.version(name) for name in ("numpy", "numba")},
    }


def _parts(value: Any, above: tuple[Any, ...]) -> Iterator[bytes]:
    """Yield what an object consists of, as bytes; `above` are those that it is within."""
    value = arrays.imported(value)
    yield type(value).__qualname__.encode()
    if isinstance(value, (*PLAIN, np.generic)):
        yield repr(value).encode()
    elif isinstance(value, np.ndarray) or arrays.is_device_array(value):
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(arrays.on_host(value)).tobytes()
    elif circles := [depth for depth, other in enumerate(above) if other is value]:
        yield str(circles[0]).encode()
    else:
        for child in _children(value):
            yield from _parts(child, (*above, value))


def _children(value: Any) -> Iterable[Any]:
    """Return what an object consists of or refers to."""
    keys, children, build = tree.open_container(value)
    if build is not None:
        return [repr(keys), *children]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, value.co_consts]
    if isinstance(value, CellType):
        return [value.cell_contents] if value != CellType() else []
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, ModuleType):
        return [value.__name__]
    return _of_object(value)


def _of_object(value: Any) -> Iterable[Any]:
    """Return what a function, a class or an object consists of; its name, where that says it."""
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", getattr(value, "__name__", None))
    if name and module.partition(".")[0] in BY_NAME:
        return [module, name, getattr(value, "__closure__", None)]
    if isinstance(value, FunctionType):
        found = [value.__code__, value.__defaults__, value.__kwdefaults__, vars(value)]
        return [*found, value.__closure__, _globals_of(value)]
    if isinstance(value, type):
        return [module, name, *(item for item in vars(value).values() if _is_function(item))]
    if hasattr(value, "__wrapped__"):
        return [value.__wrapped__]
    return [type(value), vars(value)] if hasattr(value, "__dict__") else [module, name]


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType)


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """Return what a function may refer to by names, those in modules of the user's included."""
    names, known = sorted(_names(function.__code__)), function.__globals__
    found = {name: known[name] for name in names if name in known}
    for module in list(found.values()):
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] not in BY_NAME:
            inside = {f"{module.__name__}.{name}": name for name in names if name in vars(module)}
            found |= {path: vars(module)[name] for path, name in inside.items()}
    return found


def _names(code: CodeType) -> set[str]:
    """Return the names in a code, and in those within it."""
    inner = (_names(item) for item in code.co_consts if isinstance(item, CodeType))
    return set(code.co_names).union(*inner)
