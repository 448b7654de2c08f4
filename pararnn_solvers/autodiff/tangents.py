"""The arithmetic of tangents: arrays with a leading axis of ``p`` directions.

A tangent has the rank of its value plus one. Each further axis has the value's size, or size 1
where the tangent does not vary along it.
"""

from __future__ import annotations

import math
from types import EllipsisType, NoneType
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Array",
    "accumulate",
    "direction_last",
    "full",
    "index_tangent",
    "is_basic",
    "lift",
    "reshape_tangent",
    "scaled",
    "shift",
]

Array: TypeAlias = Any  # of NumPy, of CuPy, or dual: what NumPy's functions dispatch on

_BASIC_INDICES = frozenset({int, slice, NoneType, EllipsisType})


def shift(axis: Any) -> Any:
    """Axis, or tuple of axes, of a tangent; negative axes count from the end and stay."""
    if not hasattr(axis, "__index__"):
        return tuple(shift(a) for a in axis)
    return axis + 1 if axis >= 0 else axis


def lift(tangent: Any, ndim: int) -> Any:
    """Insert unit axes after the first, for a value of rank ``ndim``."""
    missing = ndim + 1 - tangent.ndim
    return tangent[(slice(None), *(None,) * missing)] if missing else tangent


def full(tangent: Any, shape: tuple[int, ...]) -> Any:
    """Broadcast a tangent to ``(p, *shape)``, without a copy."""
    if tangent.shape[1:] == shape:
        return tangent
    return np.broadcast_to(tangent, (tangent.shape[0], *shape))


def scaled(tangent: Any, factor: Any, out: Any, values: list[Any]) -> Any:
    """Product of a tangent with a partial derivative, in the type of the function's value ``out``.

    A boolean factor selects. The memory of a new factor is used again where it suffices: large new
    arrays cost more than the arithmetic.
    """
    dtype = getattr(factor, "dtype", None)
    if dtype is None:
        return factor * tangent
    if dtype.kind == "b":
        return np.where(factor, tangent, 0)
    if dtype != out.dtype:
        factor = factor.astype(out.dtype)
    new = type(factor) is np.ndarray and all(factor is not a for a in (out, *values))
    if new and tangent.shape[0] == 1 and factor.shape == out.shape:
        return np.multiply(factor, tangent[0], out=factor)[None]
    return factor * tangent


def accumulate(total: Any, term: Any, owned: bool, out: Any) -> tuple[Any, bool]:
    """Sum of ``total``, a pair (array or None, owned), and ``term``, in owned memory if it fits."""
    if total is None:
        return term, owned
    for target, other, own in ((total[0], term, total[1]), (term, total[0], owned)):
        if own and target.shape[1:] == out.shape and target.dtype == other.dtype:
            return np.add(target, other, out=target), True
    return total[0] + term, True


def reshape_tangent(t: Any, old: tuple[int, ...], new: tuple[int, ...]) -> Any:
    """Reshape a tangent, keeping its unit axes where the shape does not change around them."""
    if t.shape[1:] == old:
        return t.reshape(t.shape[0], *new)
    limit = min(len(old), len(new))
    head = next((i for i in range(limit) if old[i] != new[i]), limit)
    tail = next((i for i in range(limit - head) if old[-1 - i] != new[-1 - i]), limit - head)
    sizes = t.shape[1:]
    middle = sizes[head : len(old) - tail]
    if math.prod(middle) == 1:
        changed = (1,) * (len(new) - head - tail)
    else:
        middle = old[head : len(old) - tail]
        changed = new[head : len(new) - tail]
    kept = sizes[:head], sizes[len(old) - tail :]
    t = np.broadcast_to(t, (t.shape[0], *kept[0], *middle, *kept[1]))
    return t.reshape(t.shape[0], *kept[0], *changed, *kept[1])


def is_basic(index: tuple[Any, ...]) -> bool:
    """Whether an index holds integers, slices, ``None`` and ``...`` only, so gives a view."""
    return all(type(i) in _BASIC_INDICES or isinstance(i, np.integer) for i in index)


def direction_last(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """``index`` for an array with one more axis, which it leaves alone, at the end.

    At the end, NumPy's placement of advanced indices is the same with that axis as without it.
    """
    return (*index, slice(None))


def index_tangent(t: Any, index: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """Apply basic indices to a tangent: its axes of size 1 are kept or dropped, never cut."""
    if t.shape[1:] == shape:
        return t[(slice(None), *index)]
    spread: list[Any] = []
    consumed = sum(i is not None and i is not Ellipsis for i in index)
    for i in index:
        spread += [slice(None)] * (len(shape) - consumed) if i is Ellipsis else [i]
    axis, out = 1, [slice(None)]
    for i in spread:
        if i is not None:
            i = (slice(None) if isinstance(i, slice) else 0) if t.shape[axis] == 1 else i
            axis += 1
        out.append(i)
    return t[tuple(out)]
