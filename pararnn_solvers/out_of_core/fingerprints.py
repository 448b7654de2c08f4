"""A few characters for what decides the numbers of a solve: the same in every process.

Functions count by their code, their defaults and what they refer to; comments and names of
variables do not matter. Objects count by their class, with its bases, and by what a copy of them
would hold. What is in an installed package counts by its name and the version of the package. Not
seen is what a function reaches otherwise: a file, or NumPy's global generator of random numbers.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

import pararnn_solvers
from pararnn_solvers import arrays, tree

TAIL = 64
"""Steps at the end of a chunk by which it is known again."""

PLAIN = (bool, int, float, complex, str, bytes, type(None))
KNOWN = {"numpy", "numba", "pararnn_solvers", *sys.stdlib_module_names}
"""Packages whose versions are those of :func:`versions`."""


def fingerprint(value: Any) -> str:
    """Return a plain value as it is written, and 16 hexadecimal digits for any other.

    Examples
    --------
    >>> fingerprint(0.5), fingerprint(np.zeros(2)) == fingerprint(np.zeros(3))
    ('0.5', False)
    """
    if isinstance(value, PLAIN):
        return repr(value)
    return _digest(value, {}).hex()


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


def _digest(value: Any, known: dict[int, tuple[Any, bytes]], depth: int = 0) -> bytes:
    """Return 8 bytes that say what an object consists of.

    Parameters
    ----------
    known : dict
        By identity, objects that were met, which are kept alive, and their digests.
    depth : int
        How many objects it is within: what an object finds that refers to one it is within.
    """
    value = arrays.imported(value)
    if id(value) in known:
        return known[id(value)][1]
    known[id(value)] = value, b"%d" % depth
    found = hashlib.blake2b(type(value).__qualname__.encode(), digest_size=8)
    if isinstance(value, (*PLAIN, np.generic)):
        found.update(repr(value).encode())
    elif isinstance(value, np.ndarray) or arrays.is_device_array(value):
        found.update(f"{value.dtype} {value.shape}".encode())
        found.update(np.ascontiguousarray(arrays.on_host(value)).tobytes())
    else:
        for child in _children(value):
            found.update(_digest(child, known, depth + 1))
    known[id(value)] = value, found.digest()
    return found.digest()


def _children(value: Any) -> Iterable[Any]:
    """Return what an object consists of or refers to."""
    keys, children, build = tree.open_container(value)
    if build is not None:
        return [type(value), repr(keys), *children]
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
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, ModuleType):
        return [value.__name__]
    return _of_object(value)


def _of_object(value: Any) -> Iterable[Any]:
    """Return what a function, a class or an object consists of; its name, where that says it."""
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", getattr(value, "__name__", None))
    borrowed = "__name__" in getattr(value, "__dict__", {})  # as np.vectorize has its function's
    if name and not borrowed and (version := _version(module)) is not None:
        return [module, name, version, getattr(value, "__closure__", None)]
    if isinstance(value, FunctionType):
        found = [value.__code__, value.__defaults__, value.__kwdefaults__, vars(value)]
        return [*found, value.__closure__, _globals_of(value)]
    if isinstance(value, type):
        says = {name: item for name, item in vars(value).items() if _says(name, item)}
        return [module, value.__qualname__, value.__bases__, says]
    if hasattr(value, "__wrapped__"):
        return [value.__wrapped__]
    return [type(value), *_content(value)]


def _version(module: str) -> str | None:
    """Return the version of the installed package that a module is in; None of the user's own."""
    package = module.partition(".")[0]
    if package in KNOWN:
        return ""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    if {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts):
        return None
    return str(getattr(sys.modules[package], "__version__", ""))


def _says(name: str, value: Any) -> bool:
    """Tell whether an attribute of a class has to do with what it does."""
    return isinstance(value, FunctionType) or not name.startswith("__")


def _content(value: Any) -> Iterable[Any]:
    """Return what a copy of an object would be made of; nothing, where there is no copy."""
    try:
        found = value.__reduce_ex__(4)
    except Exception:  # a lock, a file, a module of C: each says it in its own way
        return []
    return [list(part) if isinstance(part, Iterator) else part for part in found]


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """Return what a function may refer to by names, those in modules of the user's included."""
    names, known = sorted(_names(function.__code__)), function.__globals__
    found = {name: known[name] for name in names if name in known}
    for module in list(found.values()):
        if isinstance(module, ModuleType) and _version(module.__name__) is None:
            inside = {f"{module.__name__}.{name}": name for name in names if name in vars(module)}
            found |= {path: vars(module)[name] for path, name in inside.items()}
    return found


def _names(code: CodeType) -> set[str]:
    """Return the names in a code, and in those within it."""
    inner = (_names(item) for item in code.co_consts if isinstance(item, CodeType))
    return set(code.co_names).union(*inner)
