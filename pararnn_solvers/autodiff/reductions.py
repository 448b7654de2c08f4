"""Sums, products, extrema and norms of dual arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from pararnn_solvers.autodiff.dual import Dual
from pararnn_solvers.autodiff.registry import UFUNCS, implements
from pararnn_solvers.autodiff.tangents import Array, full
from pararnn_solvers.errors import NotDifferentiable

__all__: list[str] = []


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    return tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)


def _sum_tangent(t: Any, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Any:
    """Sum a tangent over axes of its value; a unit axis counts as often as the value has it."""
    axes = _axes(axis, len(shape))
    count = math.prod(shape[i] for i in axes if t.shape[i + 1] == 1)
    out = np.sum(t, tuple(i + 1 for i in axes), keepdims=keepdims)
    return out if count == 1 else out * count


@implements(np.sum)
def _sum(a: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    value = np.sum(a.value, axis, keepdims=keepdims)
    return Dual(value, _sum_tangent(a.tangent, a.shape, axis, keepdims))


@implements(np.nansum)
def _nansum(a: Array, axis: Any = None, *, keepdims: bool = False) -> Any:
    return np.sum(np.where(np.isnan(a), 0, a), axis, keepdims=keepdims)


@implements(np.mean)
def _mean(a: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    axes = tuple(i + 1 for i in _axes(axis, a.ndim))
    value = np.mean(a.value, axis, keepdims=keepdims)
    return Dual(value, np.mean(a.tangent, axes, keepdims=keepdims))


@implements(np.var)
def _var(a: Array, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Array:
    value = np.var(a.value, axis, ddof=ddof, keepdims=keepdims)
    axes = _axes(axis, a.ndim)
    centred = a.value - np.mean(a.value, axes, keepdims=True)
    slope = 2 * centred / (math.prod(a.shape[i] for i in axes) - ddof)
    return Dual(value, _sum_tangent(slope * a.tangent, a.shape, axes, keepdims))


@implements(np.std)
def _std(a: Array, axis: Any = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.sqrt(_var(a, axis, ddof=ddof, keepdims=keepdims))


def _last(a: Any, axis: Any) -> Any:
    """Move the reduced axes to the end and merge them into one."""
    axes = _axes(axis, a.ndim)
    moved = np.moveaxis(a, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[: a.ndim - len(axes)], -1)


def _reduced(value: Any, tangent: Any) -> Array:
    """Give the tangent, of shape (p, *kept axes), the unit axes of ``keepdims``."""
    return Dual(value, tangent.reshape(tangent.shape[0], *value.shape))


def _extremum(function: Any, where_is: Any) -> Any:
    def implementation(a: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
        rows = _last(a, axis)
        index = where_is(rows.value, axis=-1)[..., None]
        tangent = np.take_along_axis(full(rows.tangent, rows.shape), index[None], -1)
        return _reduced(function(a.value, axis, keepdims=keepdims), tangent)

    return implementation


_max = implements(np.max, np.amax)(_extremum(np.max, np.argmax))
_min = implements(np.min, np.amin)(_extremum(np.min, np.argmin))


@implements(np.ptp)
def _ptp(a: Array, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _max(a, axis, keepdims=keepdims) - _min(a, axis, keepdims=keepdims)


@implements(np.prod)
def _prod(a: Array, axis: Any = None, *, keepdims: bool = False) -> Array:
    rows = _last(a, axis)
    one = np.ones_like(rows.value[..., :1])
    # The product of the other factors from both sides, without a division: factors may be zero.
    before = np.cumprod(np.concatenate([one, rows.value[..., :-1]], -1), -1)
    after = np.cumprod(np.concatenate([one, rows.value[..., :0:-1]], -1), -1)[..., ::-1]
    tangent = np.sum(before * after * rows.tangent, -1)
    return _reduced(np.prod(a.value, axis, keepdims=keepdims), tangent)


@implements(np.cumprod)
def _cumprod(a: Array, axis: int | None = None) -> Any:
    if axis is None:
        a, axis = np.ravel(a), 0
    rows = np.moveaxis(a, axis, 0)
    out = [rows[0]]
    for row in rows[1:]:
        out.append(out[-1] * row)
    return np.stack(out, normalize_axis_index(axis, a.ndim))


def _logsumexp(a: Array, axis: Any = 0, *, keepdims: bool = False) -> Array:
    """``np.logaddexp.reduce``: its derivative is the softmax."""
    axes = _axes(axis, a.ndim)
    value = np.logaddexp.reduce(_last(a.value, axes), -1)
    with np.errstate(all="ignore"):
        kept = np.expand_dims(value, axes)
        tangent = _sum_tangent(np.exp(a.value - kept) * a.tangent, a.shape, axes, keepdims)
    return Dual(kept if keepdims else value, tangent)


def _reduce(implementation: Any) -> Any:
    """Give a function the default of ``ufunc.reduce``: the first axis."""

    def reduce(a: Array, axis: Any = 0, *, keepdims: bool = False) -> Any:
        return implementation(a, axis, keepdims=keepdims)

    return reduce


UFUNCS["add", "reduce"] = _reduce(_sum)
UFUNCS["multiply", "reduce"] = _reduce(_prod)
UFUNCS["maximum", "reduce"] = _reduce(_max)
UFUNCS["minimum", "reduce"] = _reduce(_min)
UFUNCS["logaddexp", "reduce"] = _logsumexp
UFUNCS["add", "accumulate"] = lambda a, axis=0: np.cumsum(a, axis)
UFUNCS["multiply", "accumulate"] = lambda a, axis=0: np.cumprod(a, axis)


@implements(np.linalg.norm)
def _norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    axes = _axes(axis, x.ndim)
    vector = len(axes) == 1
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and vector):
        value = np.linalg.norm(x.value, ord, axis, keepdims)
        return Dual(value, _euclidean_tangent(x, value, axes, keepdims))
    if vector and ord == 1:
        return np.sum(np.abs(x), axes, keepdims=keepdims)
    if vector and ord in (np.inf, -np.inf):
        return (np.max if ord > 0 else np.min)(np.abs(x), axes, keepdims=keepdims)
    raise NotDifferentiable(f"numpy.linalg.norm with ord={ord!r} has no derivative rule here")


def _euclidean_tangent(x: Array, value: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    total = _sum_tangent(x.value * x.tangent, x.shape, axes, keepdims)
    with np.errstate(all="ignore"):
        return np.where(value == 0, 0, total / value)
