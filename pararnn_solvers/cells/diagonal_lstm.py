"""An LSTM with diagonal recurrent weights, coupled gates and peepholes (ParaLSTM).

The state is ``[c | y]``, two components a channel. With drives ``u = B x + b``::

    f  = sigmoid(a_f y + p_f c + u_f)
    g  = tanh(a_g y + u_g)
    c' = f c + (1 - f) g
    o  = sigmoid(a_o y + p_o c' + u_o)
    y' = o tanh(c')

``B`` is block diagonal: each of its heads maps a part of the inputs to a part of the channels.

Source: Danieli et al. 2025 (arXiv 2510.21450), section 4; Greff et al. 2017 for the coupled
input and forget gate; Gers & Schmidhuber 2000 for peepholes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.outputs import last_of
from pararnn_solvers.cells.parameters import (
    clipped,
    gate_biases,
    head_matrices,
    project_inputs,
    project_inputs_vjp,
    recurrent_weights,
    require_heads,
    summed,
    zero_state,
)
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array


class Theta(NamedTuple):
    """Parameters: ``a (3, n)``, ``p (2, n)`` act in the recurrence, ``B`` and ``b`` in drives.

    ``B`` has shape (3, heads, m/heads, n/heads), ``b`` (3, n).
    """

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
    dtheta = Theta(
        np.stack([summed(df * y), summed(dg * y), summed(do * y)]),
        np.stack([summed(df * c), summed(do * c_new)]),
        np.zeros_like(theta.B),
        np.zeros_like(theta.b),
    )
    return np.concatenate([dc, dy], axis=-1), np.concatenate([df, dg, do], axis=-1), dtheta


recurrence = Recurrence(step, block_size=2, vjp=vjp)
output, output_vjp = last_of(2)


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw parameters for inputs of size m and n channels, both divisible by `heads`.

    ``a`` and ``p`` are normal with deviation ``2 / sqrt(5 n)``, ``B`` Xavier uniform in each head,
    ``b_f`` falls linearly from 0 to -1 over the channels, the other biases are 0.
    """
    require_heads(heads, inputs=inputs, channels=channels)
    return Theta(
        recurrent_weights(rng, 3, channels, dtype),
        recurrent_weights(rng, 2, channels, dtype),
        head_matrices(rng, 3, inputs, channels, heads, dtype),
        gate_biases(3, channels, dtype),
    )


def clip_recurrent(theta: Theta, bound: float) -> Theta:
    """Return theta with ``|a| <= bound`` and ``|p| <= bound``.

    The authors train with 0.9, on all tasks but parity.
    """
    return theta._replace(a=clipped(theta.a, bound), p=clipped(theta.p, bound))


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 3 n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    dx, dB, db = project_inputs_vjp(x, theta.B, du)
    return dx, Theta(np.zeros_like(theta.a), np.zeros_like(theta.p), dB, db)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, 2 n)."""
    return zero_state(2 * theta.a.shape[-1], theta.a, batch)
