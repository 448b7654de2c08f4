"""NumPy functions which view the same entries in another shape or order, on dual arrays.

Each acts on the value and, with its axes shifted past the direction axis, on the tangent. The
result stays linked to its origin, so that writing into either shows in both, as it does in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from pararnn_solvers.autodiff.dual import Dual
from pararnn_solvers.autodiff.registry import ARRAY_FUNCTIONS, implements
from pararnn_solvers.autodiff.tangents import Array, full, lift, reshape_tangent, shift
from pararnn_solvers.errors import NotDifferentiable

__all__: list[str] = []


@implements(np.reshape)
def _reshape(a: Array, /, shape: Any, order: str = "C", *, copy: bool | None = None) -> Array:
    if order != "C":
        raise NotDifferentiable(f"numpy.reshape with order={order!r} has no derivative rule here")
    options: dict[str, Any] = {} if copy is None else {"copy": copy}  # NumPy 2.1
    value = np.reshape(a.value, shape, **options)
    old, new = a.shape, value.shape
    return a._derive(value, lambda t: reshape_tangent(t, old, new))


@implements(np.ravel)
def _ravel(a: Array, order: str = "C") -> Any:
    return _reshape(a, (-1,), order)


@implements(np.transpose, np.permute_dims)
def _transpose(a: Array, axes: Any = None) -> Array:
    axes = range(a.ndim)[::-1] if axes is None else normalize_axis_tuple(axes, a.ndim)
    return a._derive(np.transpose(a.value, tuple(axes)), lambda t: t.transpose(0, *shift(axes)))


@implements(np.swapaxes)
def _swapaxes(a: Array, axis1: int, axis2: int) -> Array:
    view = np.swapaxes(a.value, axis1, axis2)
    return a._derive(view, lambda t: np.swapaxes(t, shift(axis1), shift(axis2)))


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def _matrix_transpose(x: Array, /) -> Array:
    return _swapaxes(x, -1, -2)


@implements(np.moveaxis)
def _moveaxis(a: Array, source: Any, destination: Any) -> Array:
    view = np.moveaxis(a.value, source, destination)
    return a._derive(view, lambda t: np.moveaxis(t, shift(source), shift(destination)))


@implements(np.rollaxis)
def _rollaxis(a: Array, axis: int, start: int = 0) -> Array:
    return _transpose(a, np.rollaxis(np.empty(range(a.ndim)), axis, start).shape)


@implements(np.expand_dims)
def _expand_dims(a: Array, axis: Any) -> Array:
    return a._derive(np.expand_dims(a.value, axis), lambda t: np.expand_dims(t, shift(axis)))


@implements(np.squeeze)
def _squeeze(a: Array, axis: Any = None) -> Array:
    if axis is None:
        axis = tuple(i for i, size in enumerate(a.shape) if size == 1)
    return a._derive(np.squeeze(a.value, axis), lambda t: np.squeeze(t, shift(axis)))


@implements(np.flip)
def _flip(m: Array, axis: Any = None) -> Array:
    axes = normalize_axis_tuple(range(m.ndim) if axis is None else axis, m.ndim)
    return m._derive(np.flip(m.value, axes), lambda t: np.flip(t, shift(axes)))


@implements(np.flipud)
def _flipud(m: Array) -> Array:
    return _flip(m, 0)


@implements(np.fliplr)
def _fliplr(m: Array) -> Array:
    return _flip(m, 1)


@implements(np.rot90)
def _rot90(m: Array, k: int = 1, axes: Any = (0, 1)) -> Array:
    return m._derive(np.rot90(m.value, k, axes), lambda t: np.rot90(t, k, shift(axes)))


@implements(np.diagonal)
def _diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    shape, axes = a.shape, (shift(axis1), shift(axis2))
    view = np.diagonal(a.value, offset, axis1, axis2)
    return a._derive(view, lambda t: np.diagonal(full(t, shape), offset, *axes))


@implements(np.linalg.diagonal)
def _matrix_diagonal(x: Array, /, *, offset: int = 0) -> Array:
    return _diagonal(x, offset, -2, -1)


@implements(np.broadcast_to)
def _broadcast_to(array: Array, shape: Any) -> Array:
    view = np.broadcast_to(array.value, shape)
    return array._derive(view, lambda t: lift(t, view.ndim))


@implements(np.broadcast_arrays)
def _broadcast_arrays(*args: Any) -> tuple[Any, ...]:
    shape = np.broadcast_shapes(*(np.shape(a) for a in args))
    return tuple(np.broadcast_to(a, shape) for a in args)


def _atleast_nd(function: Any) -> Callable[..., Any]:
    def implementation(*arrays: Any) -> Any:
        out = tuple(
            np.reshape(a, function(a.value).shape) if isinstance(a, Dual) else function(a)
            for a in arrays
        )
        return out[0] if len(out) == 1 else out

    return implementation


for _function in (np.atleast_1d, np.atleast_2d, np.atleast_3d):
    ARRAY_FUNCTIONS[_function] = _atleast_nd(_function)


@implements(np.real, np.conj)
def _real(val: Dual) -> Array:
    return val


@implements(np.copy)
def _copy(a: Array, order: str = "K", subok: bool = False) -> Array:
    return a.copy()
