"""Products of dual arrays: ``matmul``, ``einsum`` and the other bilinear functions."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.array_functions import unwrap
from pararnn_solvers.autodiff.dual import Dual
from pararnn_solvers.autodiff.registry import ARRAY_FUNCTIONS, UFUNCS, implements
from pararnn_solvers.autodiff.tangents import Array, full, lift
from pararnn_solvers.errors import NotDifferentiable

__all__ = ["matmul"]


def _total(out: Any, terms: list[Any]) -> Array:
    return Dual(out, reduce(np.add, terms))


def _fill(tangent: Any, axis: int, size: int) -> Any:
    """Broadcast one negative axis: a sum over it must count every entry."""
    if tangent.shape[axis] == size:
        return tangent
    shape = list(tangent.shape)
    shape[axis] = size
    return np.broadcast_to(tangent, shape)


def matmul(a: Any, b: Any) -> Array:
    """Equal ``a @ b``, for every pair of ranks that ``np.matmul`` accepts."""
    va, vb = unwrap(a), unwrap(b)
    out = np.matmul(va, vb)
    terms = []
    with np.errstate(all="ignore"):
        if isinstance(a, Dual):
            terms.append(_matmul_left(_fill(a.tangent, -1, va.shape[-1]), vb))
        if isinstance(b, Dual):
            terms.append(
                _matmul_right(va, _fill(b.tangent, -1 if vb.ndim == 1 else -2, va.shape[-1]))
            )
    return _total(out, terms)


def _matmul_left(t: Any, b: Any) -> Any:
    if b.ndim == 1:
        return t @ b
    if b.ndim == 2:  # one product for all directions and leading axes together
        return (t.reshape(-1, t.shape[-1]) @ b).reshape(*t.shape[:-1], b.shape[-1])
    if t.ndim == 2:  # a vector times a stack of matrices
        return (lift(t[:, None], b.ndim) @ b)[..., 0, :]
    return lift(t, b.ndim) @ b


def _matmul_right(a: Any, t: Any) -> Any:
    if t.ndim == 2:  # of a vector: its directions are the columns of a matrix
        return np.moveaxis(a @ t.T, -1, 0)
    return a @ (t if a.ndim == 1 else lift(t, a.ndim))


def _vecdot(a: Any, b: Any) -> Any:
    return np.sum(a * b, axis=-1)


def _matvec(a: Any, b: Any) -> Any:
    return (a @ b[..., None])[..., 0]


def _vecmat(a: Any, b: Any) -> Any:
    return (a[..., None, :] @ b)[..., 0, :]


UFUNCS["matmul", "__call__"] = matmul
UFUNCS["vecdot", "__call__"] = _vecdot
UFUNCS["matvec", "__call__"] = _matvec
UFUNCS["vecmat", "__call__"] = _vecmat


def _by_direction(function: Any) -> Any:
    def implementation(a: Any, b: Any, *args: Any, **kwargs: Any) -> Array:
        va, vb = unwrap(a), unwrap(b)
        terms = []
        if isinstance(a, Dual):
            tangents = full(a.tangent, a.shape)
            terms.append(np.stack([function(t, vb, *args, **kwargs) for t in tangents]))
        if isinstance(b, Dual):
            tangents = full(b.tangent, b.shape)
            terms.append(np.stack([function(va, t, *args, **kwargs) for t in tangents]))
        return _total(function(va, vb, *args, **kwargs), terms)

    return implementation


for _function in (
    *(np.inner, np.outer, np.vdot, np.tensordot, np.kron, np.cross, np.convolve, np.correlate),
    *(np.linalg.cross, np.linalg.tensordot, np.linalg.outer),
):
    ARRAY_FUNCTIONS[_function] = _by_direction(_function)

ARRAY_FUNCTIONS[np.linalg.matmul] = matmul


@implements(np.linalg.vecdot)
def _linalg_vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return np.sum(x1 * x2, axis=axis)


@implements(np.dot)
def _dot(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    return matmul(a, b) if np.ndim(b) <= 2 else _by_direction(np.dot)(a, b)


@implements(np.linalg.multi_dot)
def _multi_dot(arrays: Any) -> Any:
    return reduce(np.matmul, arrays)


@implements(np.linalg.matrix_power)
def _matrix_power(a: Array, n: int) -> Any:
    if n < 0:
        return _matrix_power(np.linalg.inv(a), -n)
    if n == 0:
        return np.linalg.matrix_power(a.value, 0)
    return reduce(np.matmul, [a] * n)


@implements(np.einsum)
def _einsum(subscripts: Any, *operands: Any, optimize: Any = False) -> Array:
    if not isinstance(subscripts, str):
        raise NotDifferentiable(
            "numpy.einsum has a derivative rule for a string of subscripts only"
        )
    inputs, output = _parse(subscripts)
    direction = next(
        c for c in "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts
    )
    values = unwrap(operands)
    terms = []
    for i, operand in enumerate(operands):
        if isinstance(operand, Dual):
            term = [*inputs[:i], direction + inputs[i], *inputs[i + 1 :]]
            tangent = _fill_labels(operand, i, inputs, output)
            args = (*values[:i], tangent, *values[i + 1 :])
            subs = f"{','.join(term)}->{direction}{output}"
            terms.append(np.einsum(subs, *args, optimize=optimize))
    return _total(np.einsum(subscripts, *values, optimize=optimize), terms)


def _parse(subscripts: str) -> tuple[list[str], str]:
    """Split subscripts, with NumPy's implicit output: letters which occur once, in order."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        output = ("..." if "..." in left else "") + "".join(once)
    return left.split(","), output


def _fill_labels(operand: Dual, i: int, inputs: list[str], output: str) -> Any:
    """Tangent of an operand, broadcast along labels which are summed or repeated in it alone."""
    tangent, labels = operand.tangent, inputs[i]
    head, _, tail = labels.partition("...")
    others = "".join(inputs[:i] + inputs[i + 1 :]) + output
    shape = list(tangent.shape)
    offset = operand.ndim - len(tail)
    for axis, label in (*enumerate(head), *((offset + j, c) for j, c in enumerate(tail))):
        if label not in others or labels.count(label) > 1:
            shape[1 + axis] = operand.shape[axis]
    return np.broadcast_to(tangent, shape)
