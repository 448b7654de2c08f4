"""How a method prints: as the call that makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import Any

from pararnn_solvers.solvers.step_length import Tuned


def describe(value: Any) -> str:
    """Write a parameter as the name or the call that makes it."""
    if isinstance(value, Tuned):
        return describe_call(describe(value.function), (), dict(value.parameters))
    if isinstance(value, partial):
        return describe_call(describe(value.func), value.args, value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return describe_call(type(value).__name__, *parameters(value))
    return getattr(value, "__name__", None) or str(value)


def describe_call(name: str, positional: Sequence[Any], named: Mapping[str, Any]) -> str:
    """Write ``name(positional, ..., key=named, ...)``."""
    words = [f"{key}={describe(value)}" for key, value in named.items()]
    return f"{name}({', '.join([*map(describe, positional), *words])})"


def parameters(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the fields of a dataclass without default, and those that differ from theirs."""
    required, changed = [], {}
    for f in fields(value):
        chosen = getattr(value, f.name)
        if f.default is MISSING:
            required.append(chosen)
        elif repr(chosen) != repr(f.default):  # also of what has no truth value, an array
            changed[f.name] = chosen
    return required, changed
