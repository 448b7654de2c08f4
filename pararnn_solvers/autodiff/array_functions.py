"""NumPy functions which create, select or move entries, applied to dual arrays.

Linear functions without a rule of their own act on one direction at a time. Functions of shapes
and predicates act on the value alone, and give plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.dual import Dual, elementwise
from pararnn_solvers.autodiff.registry import ARRAY_FUNCTIONS, PLAIN_ARRAY, TAKE_DTYPE, implements
from pararnn_solvers.autodiff.tangents import Array, full, lift
from pararnn_solvers.errors import NotDifferentiable

__all__ = ["unwrap"]


def unwrap(tree: Any) -> Any:
    """Replace the dual arrays in nested lists, tuples and dicts by their values."""
    if isinstance(tree, Dual):
        return tree.value
    if isinstance(tree, (list, tuple)):
        return type(tree)(unwrap(leaf) for leaf in tree)
    if isinstance(tree, dict):
        return {key: unwrap(leaf) for key, leaf in tree.items()}
    return tree


_function: Any

# --- functions of the value alone -------------------------------------------------------------


def _on_values(function: Any) -> Callable[..., Any]:
    def implementation(*args: Any, **kwargs: Any) -> Any:
        return function(*unwrap(args), **unwrap(kwargs))

    return implementation


for _function in (
    *(np.shape, np.ndim, np.size, np.result_type, np.can_cast),
    *(np.isclose, np.allclose, np.array_equal, np.array_equiv, np.all, np.any, np.count_nonzero),
    *(np.argmax, np.argmin, np.argsort, np.nonzero, np.flatnonzero, np.argwhere, np.searchsorted),
    *(np.iscomplexobj, np.isrealobj, np.iscomplex, np.isreal, np.isposinf, np.isneginf),
    *(np.round, np.around, np.fix, np.digitize, np.imag),
):
    ARRAY_FUNCTIONS[_function] = _on_values(_function)
    TAKE_DTYPE.add(_function)


def _constant_like(function: Any) -> Callable[..., Any]:
    def implementation(a: Any, *args: Any, **kwargs: Any) -> Any:
        value = function(*unwrap((a, *args)), **unwrap(kwargs))
        if not isinstance(a, Dual) or value.dtype.kind not in "fc":
            return value
        # Dual, with zero tangent, so that entries which depend on the state can be written to it.
        p = a.tangent.shape[0]
        return Dual(value, np.zeros_like(value, shape=(p, *(1,) * value.ndim)))

    return implementation


for _function in (np.zeros_like, np.ones_like, np.empty_like):
    ARRAY_FUNCTIONS[_function] = _constant_like(_function)
    TAKE_DTYPE.add(_function)


TAKE_DTYPE.update({np.full_like, np.copyto})


@implements(np.full_like)
def _full_like(a: Any, fill_value: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(fill_value, Dual):
        return _constant_like(np.full_like)(a, fill_value, *args, **kwargs)
    like = np.empty_like(a.value, *args, **kwargs)
    return np.broadcast_to(fill_value, like.shape).astype(like.dtype)


@implements(np.copyto)
def _copyto(dst: Array, src: Array, casting: str = "same_kind") -> None:
    if not isinstance(dst, Dual):
        raise NotDifferentiable(PLAIN_ARRAY)
    dst[...] = src


# --- selecting --------------------------------------------------------------------------------


@implements(np.where)
def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    condition = unwrap(condition)
    if x is None:
        return np.nonzero(condition)
    out = np.where(condition, unwrap(x), unwrap(y))
    branches = [lift(a.tangent, out.ndim) if isinstance(a, Dual) else 0 for a in (x, y)]
    if not any(isinstance(a, Dual) for a in (x, y)):
        return out
    return Dual(out, np.where(condition, *branches))


@implements(np.select)
def _select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    out = default
    for condition, choice in zip(condlist[::-1], choicelist[::-1], strict=True):
        out = np.where(condition, choice, out)
    return out


@implements(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low = min if a_min is None else a_min
    high = max if a_max is None else a_max
    if low is None or high is None:
        out = a if low is None else np.maximum(a, low)
        return out if high is None else np.minimum(out, high)
    return elementwise("clip", np.clip, a, low, high)


@implements(np.nan_to_num)
def _nan_to_num(x: Array, copy: bool = True, **replacements: Any) -> Array:
    value = np.nan_to_num(x.value, **replacements)
    out = Dual(value, np.where(np.isfinite(x.value), x.tangent, 0))
    if copy:
        return out
    x[...] = out
    return x


@implements(np.interp)
def _interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Array:
    if isinstance(xp, Dual) or isinstance(fp, Dual):
        raise NotDifferentiable("numpy.interp has a derivative rule for its first argument only")
    value = np.interp(x.value, xp, fp, left, right)
    xp, fp = np.asarray(xp, like=x.value), np.asarray(fp, like=x.value)
    piece = np.clip(np.searchsorted(xp, x.value, side="right") - 1, 0, len(xp) - 2)
    inside = (x.value >= xp[0]) & (x.value <= xp[-1])
    slope = (np.diff(fp) / np.diff(xp))[piece]
    return Dual(value, np.where(inside, slope, 0) * x.tangent)


@implements(np.polyval)
def _polyval(p: Any, x: Array) -> Array:
    out = np.zeros_like(x)
    for coefficient in p:
        out = out * x + coefficient
    return out


@implements(np.sort)
def _sort(a: Array, axis: int = -1, kind: Any = None, *, stable: Any = None) -> Array:
    options = {} if stable is None else {"stable": stable}  # which CuPy does not know
    return np.take_along_axis(a, np.argsort(a.value, axis, kind, **options), axis)


# --- other linear functions -------------------------------------------------------------------


def _by_direction(function: Any) -> Callable[..., Any]:
    def implementation(a: Any, *args: Any, **kwargs: Any) -> Any:
        value = function(a.value, *args, **kwargs)
        if value is a.value:  # as np.diff of no differences is
            return a
        tangent = [function(t, *args, **kwargs) for t in full(a.tangent, a.shape)]
        return Dual(value, np.stack(tangent))

    return implementation


for _function in (
    *(np.cumsum, np.roll, np.trace, np.linalg.trace, np.tril, np.triu, np.repeat, np.tile),
    *(np.take, np.take_along_axis, np.resize, np.delete),
):
    ARRAY_FUNCTIONS[_function] = _by_direction(_function)


@implements(np.diff)
def _diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Array:
    if n and not (prepend is None and append is None):
        shape = [1 if i == axis % a.ndim else size for i, size in enumerate(a.shape)]
        parts = [part for part in (prepend, a, append) if part is not None]
        a = np.concatenate([p if np.ndim(p) else np.broadcast_to(p, shape) for p in parts], axis)
    return _by_direction(np.diff)(a, n, axis)


@implements(getattr(np, "astype", None))  # NumPy 2.1
def _astype(x: Array, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Array:
    return x.astype(dtype, copy=copy)


@implements(np.diag)
def _diag(v: Array, k: int = 0) -> Array:
    return np.diagonal(v, k) if v.ndim == 2 else _by_direction(np.diag)(v, k)


@implements(np.pad)
def _pad(array: Array, pad_width: Any, mode: str = "constant") -> Array:
    if mode not in ("constant", "edge", "wrap", "reflect", "symmetric"):
        raise NotDifferentiable(f"numpy.pad with mode={mode!r} has no derivative rule here")
    return _by_direction(np.pad)(array, pad_width, mode)
