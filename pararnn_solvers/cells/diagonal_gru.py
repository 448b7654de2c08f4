"""A GRU whose recurrent weights are diagonal (ParaGRU): channels do not couple.

With drives ``u = B x + b`` and componentwise products::

    z  = sigmoid(a_z h + u_z)
    r  = sigmoid(a_r h + u_r)
    c  = tanh(a_c h r + u_c)
    h' = (1 - z) h + z c

``B`` is block diagonal: each of its heads maps a part of the inputs to a part of the channels.

Source: Danieli et al. 2025 (arXiv 2510.21450), section 4; Cho et al. 2014.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.outputs import whole_state, whole_state_vjp
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
    """Parameters: ``a (3, n)`` acts in the recurrence, ``B`` and ``b (3, n)`` in the drives.

    ``B`` has shape (3, heads, m/heads, n/heads).
    """

    a: Array
    B: Array
    b: Array


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., n) from states (..., n) and drives (..., 3 n)."""
    n, a = h.shape[-1], theta.a
    z = sigmoid(a[0] * h + u[..., :n])
    r = sigmoid(a[1] * h + u[..., n : 2 * n])
    c = np.tanh(a[2] * h * r + u[..., 2 * n :])
    return h + z * (c - h)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``B`` and ``b`` are zero here: they act through `project`.
    """
    n, a = h.shape[-1], theta.a
    z = sigmoid(a[0] * h + u[..., :n])
    r = sigmoid(a[1] * h + u[..., n : 2 * n])
    c = np.tanh(a[2] * h * r + u[..., 2 * n :])
    dz = lam * (c - h) * z * (1 - z)
    dc = lam * z * (1 - c * c)
    dr = dc * a[2] * h * r * (1 - r)
    dh = lam * (1 - z) + dz * a[0] + dr * a[1] + dc * a[2] * r
    da = np.stack([summed(v * h) for v in (dz, dr, dc * r)])
    zeros = Theta(da, np.zeros_like(theta.B), np.zeros_like(theta.b))
    return dh, np.concatenate([dz, dr, dc], axis=-1), zeros


recurrence = Recurrence(step, block_size=1, vjp=vjp)
output, output_vjp = whole_state, whole_state_vjp


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw parameters for inputs of size m and n channels, both divisible by `heads`.

    ``a`` is normal with deviation ``2 / sqrt(5 n)``, ``B`` Xavier uniform in each head, ``b_z``
    falls linearly from 0 to -1 over the channels, the other biases are 0.
    """
    require_heads(heads, inputs=inputs, channels=channels)
    return Theta(
        recurrent_weights(rng, 3, channels, dtype),
        head_matrices(rng, 3, inputs, channels, heads, dtype),
        gate_biases(3, channels, dtype),
    )


def clip_recurrent(theta: Theta, bound: float) -> Theta:
    """Return theta with ``|a| <= bound``.

    The authors train with 0.9, on all tasks but parity.
    """
    return theta._replace(a=clipped(theta.a, bound))


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 3 n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    dx, dB, db = project_inputs_vjp(x, theta.B, du)
    return dx, Theta(np.zeros_like(theta.a), dB, db)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, n)."""
    return zero_state(theta.a.shape[-1], theta.a, batch)
