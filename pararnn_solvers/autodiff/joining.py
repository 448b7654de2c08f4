"""NumPy functions which join arrays and split them, applied to dual arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from pararnn_solvers.autodiff.array_functions import unwrap
from pararnn_solvers.autodiff.dual import Dual
from pararnn_solvers.autodiff.registry import implements
from pararnn_solvers.autodiff.tangents import Array

__all__: list[str] = []


@implements(np.concatenate, np.concat)
def _concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Array:
    if axis is None:
        arrays, axis = [np.ravel(a) for a in arrays], 0
    one = next(a.value for a in arrays if isinstance(a, Dual))
    values = [
        np.asarray(a, like=one) if isinstance(a, (int, float, list)) else unwrap(a) for a in arrays
    ]
    value = np.concatenate(values, axis)
    axis = normalize_axis_index(axis, value.ndim) + 1
    tangents = [a.tangent if isinstance(a, Dual) else None for a in arrays]
    # Unit axes stay only where every part has them.
    common = np.broadcast_shapes(*_with_unit(tangents, axis))
    parts = []
    for part, tangent in zip(values, tangents, strict=True):
        shape = (*common[:axis], part.shape[axis - 1], *common[axis + 1 :])
        zero = np.zeros_like(value, shape=(1,) * len(shape))
        parts.append(np.broadcast_to(zero if tangent is None else tangent, shape))
    return Dual(value, np.concatenate(parts, axis))


def _with_unit(tangents: Sequence[Any], axis: int) -> list[tuple[int, ...]]:
    """Shapes of the tangents with size 1 along ``axis``."""
    return [(*t.shape[:axis], 1, *t.shape[axis + 1 :]) for t in tangents if t is not None]


@implements(np.append)
def _append(arr: Array, values: Array, axis: int | None = None) -> Array:
    return _concatenate([arr, values], axis)


@implements(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Array:
    shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
    if any(np.shape(a) != shape for a in arrays):
        raise ValueError("all input arrays must have the same shape")
    return _concatenate([np.expand_dims(a, axis) for a in arrays], axis)


@implements(np.vstack)
def _vstack(tup: Sequence[Any]) -> Array:
    return _concatenate([np.atleast_2d(a) for a in tup], 0)


@implements(np.hstack)
def _hstack(tup: Sequence[Any]) -> Array:
    return _concatenate([np.atleast_1d(a) for a in tup], int(np.ndim(tup[0]) > 1))


@implements(np.dstack)
def _dstack(tup: Sequence[Any]) -> Array:
    return _concatenate([np.atleast_3d(a) for a in tup], 2)


@implements(np.column_stack)
def _column_stack(tup: Sequence[Any]) -> Array:
    return _concatenate([a if np.ndim(a) > 1 else np.reshape(a, (-1, 1)) for a in tup], 1)


@implements(np.array_split)
def _array_split(ary: Array, indices_or_sections: Any, axis: int = 0) -> Array:
    axis = normalize_axis_index(axis, ary.ndim)
    size = ary.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        each, larger = divmod(size, int(indices_or_sections))
        cuts = [i * each + min(i, larger) for i in range(int(indices_or_sections) + 1)]
    else:
        cuts = [0, *(int(i) for i in indices_or_sections), size]
    before = (slice(None),) * axis
    return [ary[(*before, slice(*ends))] for ends in zip(cuts[:-1], cuts[1:], strict=True)]


@implements(np.split)
def _split(ary: Array, indices_or_sections: Any, axis: int = 0) -> Array:
    if isinstance(indices_or_sections, (int, np.integer)):
        if ary.shape[axis] % indices_or_sections:
            raise ValueError("array split does not result in an equal division")
    return _array_split(ary, indices_or_sections, axis)


@implements(np.hsplit)
def _hsplit(ary: Array, indices_or_sections: Any) -> Array:
    return _split(ary, indices_or_sections, int(ary.ndim > 1))


@implements(np.vsplit)
def _vsplit(ary: Array, indices_or_sections: Any) -> Array:
    return _split(ary, indices_or_sections, 0)


@implements(np.dsplit)
def _dsplit(ary: Array, indices_or_sections: Any) -> Array:
    return _split(ary, indices_or_sections, 2)


@implements(getattr(np, "unstack", None))  # NumPy 2.1
def _unstack(x: Array, /, *, axis: int = 0) -> tuple[Any, ...]:
    return tuple(np.moveaxis(x, axis, 0))
