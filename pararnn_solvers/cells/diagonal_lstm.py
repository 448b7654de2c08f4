"""An LSTM with diagonal recurrent weights, coupled gates and peepholes (ParaLSTM).

The state is ``[c | y]``, two components a channel. With drives ``u = B x + b``::

    f  = sigmoid(a_f y + p_f c + u_f)
    g  = tanh(a_g y + u_g)
    c' = f c + (1 - f) g
    o  = sigmoid(a_o y + p_o c' + u_o)
    y' = o tanh(c')

Source: Danieli et al. 2025 (arXiv 2510.21450), section 4; Greff et al. 2017 for the coupled
input and forget gate; Gers & Schmidhuber 2000 for peepholes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells import (
    gate_biases,
    head_matrices,
    project_inputs,
    recurrent_weights,
)
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array


class Theta(NamedTuple):
    """Parameters: ``a (3, n)``, ``p (2, n)`` act in the recurrence, ``B`` and ``b`` in drives."""

    a: Array
    p: Array
    B: Array
    b: Array


def gates(h: Any, u: Any, theta: Theta) -> tuple[Any, ...]:
    """Return ``f, g, c', o, tanh(c')`` of states (..., 2 n) and drives (..., 3 n)."""
    n = h.shape[-1] // 2
    c, y = h[..., :n], h[..., n:]
    f = sigmoid(theta.a[0] * y + theta.p[0] * c + u[..., :n])
    g = np.tanh(theta.a[1] * y + u[..., n : 2 * n])
    c_new = f * c + (1 - f) * g
    o = sigmoid(theta.a[2] * y + theta.p[1] * c_new + u[..., 2 * n :])
    return f, g, c_new, o, np.tanh(c_new)


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., 2 n) from states (..., 2 n) and drives (..., 3 n)."""
    _, _, c_new, o, squashed = gates(h, u, theta)
    return np.concatenate([c_new, o * squashed], axis=-1)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``B`` and ``b`` are zero here: they act through `project`.
    """
    n = h.shape[-1] // 2
    a, p = theta.a, theta.p
    c, y = h[..., :n], h[..., n:]
    f, g, c_new, o, squashed = gates(h, u, theta)
    do = lam[..., n:] * squashed * o * (1 - o)
    dc_new = lam[..., :n] + lam[..., n:] * o * (1 - squashed * squashed) + do * p[1]
    df = dc_new * (c - g) * f * (1 - f)
    dg = dc_new * (1 - f) * (1 - g * g)
    dc = dc_new * f + df * p[0]
    dy = df * a[0] + dg * a[1] + do * a[2]

    def total(v: Array) -> Array:
        result: Array = v.reshape(-1, n).sum(axis=0)
        return result

    dtheta = Theta(
        np.stack([total(df * y), total(dg * y), total(do * y)]),
        np.stack([total(df * c), total(do * c_new)]),
        np.zeros_like(theta.B),
        np.zeros_like(theta.b),
    )
    return np.concatenate([dc, dy], axis=-1), np.concatenate([df, dg, do], axis=-1), dtheta


recurrence = Recurrence(step, block_size=2, vjp=vjp)


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw parameters for inputs of size m and n channels, both divisible by `heads`."""
    return Theta(
        recurrent_weights(rng, 3, channels, dtype),
        recurrent_weights(rng, 2, channels, dtype),
        head_matrices(rng, 3, inputs, channels, heads, dtype),
        gate_biases(3, channels, dtype),
    )


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 3 n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)
