"""A GRU whose recurrent weights are diagonal (ParaGRU): channels do not couple.

With drives ``u = B x + b`` and componentwise products::

    z  = sigmoid(a_z h + u_z)
    r  = sigmoid(a_r h + u_r)
    c  = tanh(a_c h r + u_c)
    h' = (1 - z) h + z c

Source: Danieli et al. 2025 (arXiv 2510.21450), section 4; Cho et al. 2014.
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
    """Parameters: ``a (3, n)`` acts in the recurrence, ``B`` and ``b (3, n)`` in the drives."""

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
    da = np.stack([(v * h).reshape(-1, n).sum(axis=0) for v in (dz, dr, dc * r)])
    zeros = Theta(da, np.zeros_like(theta.B), np.zeros_like(theta.b))
    return dh, np.concatenate([dz, dr, dc], axis=-1), zeros


recurrence = Recurrence(step, block_size=1, vjp=vjp)


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw parameters for inputs of size m and n channels, both divisible by `heads`."""
    return Theta(
        recurrent_weights(rng, 3, channels, dtype),
        head_matrices(rng, 3, inputs, channels, heads, dtype),
        gate_biases(3, channels, dtype),
    )


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 3 n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)
