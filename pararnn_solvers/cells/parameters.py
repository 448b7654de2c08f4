"""What the cells share: drawing parameters, projecting inputs by heads, states of zeros."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.checks import require_number, require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array


def require_heads(heads: int, **sizes: int) -> None:
    """Raise InvalidInput unless all sizes are whole numbers which `heads` divides.

    Examples
    --------
    >>> require_heads(4, inputs=8, channels=6)
    Traceback (most recent call last):
    pararnn_solvers.errors.InvalidInput: channels is 6, not a multiple of heads = 4; ...
    """
    require_whole("heads", heads)
    for name, size in sizes.items():
        require_whole(name, size)
        if size % heads:
            raise InvalidInput(
                f"{name} is {size}, not a multiple of heads = {heads}; "
                f"pass {name}={-(-size // heads) * heads}, or heads that divide {size}"
            )


def require_inputs(x: Array, expected: int) -> None:
    """Raise InvalidInput unless the inputs have the size for which the parameters are."""
    if x.ndim == 0 or x.shape[-1] != expected:
        raise InvalidInput(
            f"x has shape {x.shape}; expected (..., {expected}), the inputs for which theta was "
            f"made: pass inputs={x.shape[-1] if x.ndim else 1} to init, or other inputs"
        )


def head_matrices(
    rng: np.random.Generator, gates: int, inputs: int, channels: int, heads: int, dtype: Any
) -> Array:
    """Draw the input matrices of a cell, Xavier uniform per head: (gates, heads, m/heads, n/heads).

    Source: Glorot & Bengio 2010, eq. 16.
    """
    m, n = inputs // heads, channels // heads
    bound = np.sqrt(6 / (m + n))
    B: Array = rng.uniform(-bound, bound, size=(gates, heads, m, n)).astype(dtype)
    return B


def recurrent_weights(rng: np.random.Generator, rows: int, channels: int, dtype: Any) -> Array:
    """Draw recurrent weights from N(0, (2 / sqrt(5 n))^2), shape (rows, n).

    Source: the initialization of Danieli et al. 2025 (arXiv 2510.21450).
    """
    scale = 2 / np.sqrt(5 * channels)
    a: Array = (scale * rng.standard_normal((rows, channels))).astype(dtype)
    return a


def gate_biases(gates: int, channels: int, dtype: Any) -> Array:
    """Return biases (gates, n): the first gate's fall linearly from 0 to -1, the others are 0."""
    b = np.zeros((gates, channels), dtype)
    b[0] = np.linspace(0, -1, channels)
    return b


def clipped(weights: Array, bound: float) -> Array:
    """Return the weights, none of them greater than `bound` in absolute value."""
    require_number("bound", bound, lambda value: value > 0, "a number > 0")
    result: Array = np.clip(weights, -bound, bound)
    return result


def zero_state(size: int, like: Array, batch: tuple[int, ...]) -> Array:
    """Return zeros (*batch, size) of the dtype of a parameter."""
    return np.zeros((*batch, size), like.dtype)


def project_inputs(x: Array, B: Array, b: Array) -> Array:
    """Return the drives ``u = B x + b``, shape (..., gates * n), gates one after another.

    Parameters
    ----------
    x : array, shape (..., m)
    B : array, shape (gates, heads, m/heads, n/heads)
        Each head of the inputs drives its own part of the channels.
    b : array, shape (gates, n)

    Notes
    -----
    Cost: one matrix product a head.
    """
    gates, heads, m, n = B.shape
    require_inputs(x, heads * m)
    u = by_heads(x, heads) @ joined_gates(B)
    rows = u.shape[1]
    u = u.reshape(heads, rows, gates, n).transpose(1, 2, 0, 3).reshape(rows, gates, heads * n)
    return (u + b).reshape(*x.shape[:-1], gates * heads * n)


def project_inputs_vjp(x: Array, B: Array, du: Array) -> tuple[Array, Array, Array]:
    """Return du times the derivatives of `project_inputs` by x, by B and by b.

    Parameters
    ----------
    x : array, shape (..., m)
    B : array, shape (gates, heads, m/heads, n/heads)
    du : array, shape (..., gates * n)

    Returns
    -------
    dx, dB, db : arrays
        Shapes of x, of B, and (gates, n); the latter two are sums over the leading axes.
    """
    gates, heads, m, n = B.shape
    parts = du.reshape(-1, gates, heads, n)
    along = parts.transpose(2, 0, 1, 3).reshape(heads, len(parts), gates * n)
    dB = by_heads(x, heads).transpose(0, 2, 1) @ along
    dx = (along @ joined_gates(B).transpose(0, 2, 1)).transpose(1, 0, 2).reshape(x.shape)
    db = parts.sum(axis=0).reshape(gates, heads * n)
    return dx, dB.reshape(heads, m, gates, n).transpose(2, 0, 1, 3), db


def by_heads(x: Array, heads: int) -> Array:
    """Return inputs (..., m) as (heads, all leading axes in one, m/heads)."""
    rows = math.prod(x.shape[:-1])  # which -1 could not tell where there are no inputs
    return x.reshape(rows, heads, x.shape[-1] // heads).transpose(1, 0, 2)


def joined_gates(B: Array) -> Array:
    """Return input matrices (gates, heads, m, n) as (heads, m, gates * n)."""
    gates, heads, m, n = B.shape
    return B.transpose(1, 2, 0, 3).reshape(heads, m, gates * n)


def summed(v: Array) -> Array:
    """Return the sum of (..., n) over the leading axes."""
    total: Array = v.reshape(-1, v.shape[-1]).sum(axis=0)
    return total
