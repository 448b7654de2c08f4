"""An LSTM with exponential gates (xLSTM's sLSTM), its memory mixed within each channel.

With drives ``u = B x + b``, the cell of the paper is::

    i  = exp(i~),         i~ = a_i y + u_i         C' = f C + i z
    f  = sigmoid(f~),     f~ = a_f y + u_f         N' = f N + i
    z  = tanh(a_z y + u_z)                         y' = o C' / N'
    o  = sigmoid(a_o y + u_o)

whose C and N overflow. The paper scales both by ``exp(-m)`` with ``m' = max(log f + m, i~)``, one
of many scales with the same y. Here the scale is the normalizer itself, ``m = log N``, and the
state ``[c | m | y]`` with ``c = C / N``, a weighted mean of all z so far::

    m' = log(exp(log f + m) + exp(i~))
    w  = exp(i~ - m')     the weight of the newcomer
    c' = c + w (z - c)
    y' = o c'

The trajectory of y is the same. Newton's method prefers this form: it is smooth, divides by
nothing, and converges in 5 to 16 iterations where the one with the maximum takes 6 to 38 or
diverges (16 channels, 64 to 2048 steps, biases of the forget gates from 0 to 6).

Recurrent weights are diagonal: the memory mixing of the paper with as many heads as channels. Of
its two forget gates this is the sigmoid.

Source: Beck et al. 2024 (arXiv 2405.04517), section 2.2 and appendix A.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.outputs import last_of
from pararnn_solvers.cells.parameters import (
    clipped,
    head_matrices,
    project_inputs,
    project_inputs_vjp,
    require_heads,
    summed,
    zero_state,
)
from pararnn_solvers.functions import sigmoid, softplus
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

EMPTY = -1e4  # log N of an empty memory, finite since residuals are to be


class Theta(NamedTuple):
    """Parameters: ``a (4, n)`` acts in the recurrence, ``B`` and ``b (4, n)`` in the drives.

    ``B`` has shape (4, heads, m/heads, n/heads); gates in the order i, f, z, o.
    """

    a: Array
    B: Array
    b: Array


def gates(h: Any, u: Any, a: Any) -> tuple[Any, ...]:
    """Return ``i~, f~, z, o`` of states (..., 3 n) and drives (..., 4 n)."""
    n = h.shape[-1] // 3
    y = h[..., 2 * n :]
    i, f, z, o = (a[g] * y + u[..., g * n : (g + 1) * n] for g in range(4))
    return i, f, np.tanh(z), sigmoid(o)


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., 3 n) from states (..., 3 n) and drives (..., 4 n)."""
    n = h.shape[-1] // 3
    i, f, z, o = gates(h, u, theta.a)
    kept = h[..., n : 2 * n] - softplus(-f)  # log(f N)
    c = h[..., :n]
    c_new = c + sigmoid(i - kept) * (z - c)
    return np.concatenate([c_new, i + softplus(kept - i), o * c_new], axis=-1)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``B`` and ``b`` are zero here: they act through `project`.
    """
    n, a = h.shape[-1] // 3, theta.a
    c, m, y = h[..., :n], h[..., n : 2 * n], h[..., 2 * n :]
    i, f, z, o = gates(h, u, a)
    w = sigmoid(i - (m - softplus(-f)))
    dc_new = lam[..., :n] + lam[..., 2 * n :] * o
    dw = dc_new * (z - c) * w * (1 - w)
    di = lam[..., n : 2 * n] * w + dw
    dm = lam[..., n : 2 * n] * (1 - w) - dw
    df = dm * sigmoid(-f)
    dz = dc_new * w * (1 - z * z)
    do = lam[..., 2 * n :] * (c + w * (z - c)) * o * (1 - o)
    dy = di * a[0] + df * a[1] + dz * a[2] + do * a[3]
    da = np.stack([summed(v * y) for v in (di, df, dz, do)])
    dh = np.concatenate([dc_new * (1 - w), dm, dy], axis=-1)
    zeros = Theta(da, np.zeros_like(theta.B), np.zeros_like(theta.b))
    return dh, np.concatenate([di, df, dz, do], axis=-1), zeros


recurrence = Recurrence(step, block_size=3, vjp=vjp)
output, output_vjp = last_of(3)


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw parameters for inputs of size m and n channels, both divisible by `heads`.

    As the authors' program does, recurrent weights start at 0 and the biases of the forget gates
    rise linearly from 3 to 6; ``B`` is Xavier uniform in each head.
    """
    require_heads(heads, inputs=inputs, channels=channels)
    B = head_matrices(rng, 4, inputs, channels, heads, dtype)
    b = np.zeros((4, channels), dtype)
    b[1] = np.linspace(3, 6, channels)
    return Theta(np.zeros((4, channels), dtype), B, b)


def clip_recurrent(theta: Theta, bound: float) -> Theta:
    """Return theta with ``|a| <= bound``."""
    return theta._replace(a=clipped(theta.a, bound))


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 4 n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    dx, dB, db = project_inputs_vjp(x, theta.B, du)
    return dx, Theta(np.zeros_like(theta.a), dB, db)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return the states (*batch, 3 n) of memories that weigh nothing: c = y = 0, m = -1e4."""
    n = theta.a.shape[-1]
    h = zero_state(3 * n, theta.a, batch)
    h[..., n : 2 * n] = EMPTY
    return h
