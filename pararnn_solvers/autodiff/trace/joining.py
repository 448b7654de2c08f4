"""NumPy functions which create, join, split and select traced arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from pararnn_solvers.autodiff import array_functions, joining  # noqa: F401  (they register)
from pararnn_solvers.autodiff.registry import ARRAY_FUNCTIONS as DUAL_FUNCTIONS
from pararnn_solvers.autodiff.trace.arrays import ARRAY_FUNCTIONS, Traced, elementwise
from pararnn_solvers.autodiff.trace.functions import context_of, implements
from pararnn_solvers.errors import NotTraceable

__all__: list[str] = []

_function: Any

# Written for dual arrays in terms of indexing and other functions, so true of any array.
for _function in (np.split, np.array_split, np.hsplit, np.vsplit, np.select, np.polyval):
    ARRAY_FUNCTIONS[_function] = DUAL_FUNCTIONS[_function]


@implements(np.concatenate, np.concat)
def _concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Traced:
    context = context_of(arrays)
    parts: list[Any] = [context.array(a) for a in arrays]
    if axis is None:
        parts, axis = [np.ravel(part) for part in parts], 0
    if len({part.channel for part in parts}) > 1:
        raise NotTraceable("step joins an array of components with one that is not")
    cells: Any = np.concatenate([part.cells for part in parts], axis)
    cells.flat = context.graph.alike(cells.ravel())
    return Traced(context, cells, parts[0].channel)


@implements(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    context = context_of(arrays)
    parts: list[Any] = [context.array(a) for a in arrays]
    if len({part.shape for part in parts}) > 1:
        raise ValueError("all input arrays must have the same shape")
    return np.concatenate([np.expand_dims(part, axis) for part in parts], axis)


@implements(getattr(np, "unstack", None))  # NumPy 2.1
def _unstack(x: Traced, /, *, axis: int = 0) -> tuple[Any, ...]:
    before = (slice(None),) * normalize_axis_index(axis, x.ndim)
    return tuple(x[(*before, i)] for i in range(x.shape[axis]))


def _filled(value: float) -> Callable[..., Any]:
    def implementation(a: Traced, dtype: Any = None, **_: Any) -> Traced:
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise NotTraceable(f"step creates an array of {np.dtype(dtype)} like a traced one")
        out: Traced = _full_like(a if dtype is None else a.astype(a.context.dtype), value)
        return out

    return implementation


for _function, _value in ((np.zeros_like, 0.0), (np.ones_like, 1.0), (np.empty_like, 0.0)):
    ARRAY_FUNCTIONS[_function] = _filled(_value)


@implements(np.full_like)
def _full_like(a: Any, fill_value: Any) -> Traced:
    context = context_of([a, fill_value])
    like, value = context.array(a), context.array(fill_value)
    cells = np.empty(like.extent, object)
    cells.fill(context.graph.constant(like.dtype.type(0)))
    out = Traced(context, cells, like.channel)
    out[...] = value
    return out


@implements(np.copy)
def _copy(a: Traced, order: str = "K", subok: bool = False) -> Traced:
    return a.copy()


@implements(np.real)
def _real(val: Traced) -> Traced:
    return val


# --- selecting ---------------------------------------------------------------------------------


@implements(np.where)
def _where(condition: Any, *branches: Any) -> Traced:
    if len(branches) != 2:
        raise NotTraceable("step calls numpy.where with a condition only")
    return elementwise(context_of(condition, branches), "where", condition, *branches)


@implements(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low = min if a_min is None else a_min
    high = max if a_max is None else a_max
    out = a if low is None else np.maximum(a, low)
    return out if high is None else np.minimum(out, high)
