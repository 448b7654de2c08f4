"""What was drawn, printed as source that makes it again."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.testing.expressions import SmoothStep, source_of


def source(value: Any) -> str:
    """Write a value as Python: arrays with all their digits, functions by module and name.

    ``np``, ``Recurrence`` and modules, by the last part of their names, are taken for imported.

    Examples
    --------
    >>> source((np.float32([0.5, 0.25]), None, Recurrence(np.tanh, 1)))
    '(np.array([0.5 , 0.25], dtype=np.float32), None, Recurrence(np.tanh, block_size=1))'
    """
    if isinstance(value, np.ndarray):
        with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
            return "np." + repr(value).replace("dtype=float32", "dtype=np.float32")
    if isinstance(value, Recurrence):
        return recurrence_source(value)
    if isinstance(value, SmoothStep):
        return source_of(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [f"{name}={source(part)}" for name, part in zip(value._fields, value, strict=True)]
        return f"{named(type(value))}({', '.join(parts)})"
    if isinstance(value, tuple):
        parts = [source(part) for part in value]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    return named(value) if callable(value) else repr(value)


def recurrence_source(recurrence: Recurrence) -> str:
    """Write a recurrence, with what is said of it."""
    said = {name: getattr(recurrence, name) for name in ("block_size", "jacobian", "vjp")}
    parts = [f"{name}={source(value)}" for name, value in said.items() if value is not None]
    return f"Recurrence({', '.join([source(recurrence.step), *parts])})"


def named(thing: Any) -> str:
    """Write a function or a class as ``module.name``."""
    if isinstance(thing, np.ufunc):
        return f"np.{thing.__name__}"
    return f"{thing.__module__.rpartition('.')[2]}.{thing.__qualname__}"
