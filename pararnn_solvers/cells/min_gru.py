"""A GRU whose gate and candidate do not see the state (minGRU): linear, one Newton iteration.

With drives ``u = B x + b``::

    z  = sigmoid(u_z)
    h' = (1 - z) h + z u_h

This is the plain form; the authors' form in logarithms also makes the candidate positive.

Source: Feng et al. 2024 (arXiv 2410.01201), section 3.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.outputs import whole_state, whole_state_vjp
from pararnn_solvers.cells.parameters import (
    head_matrices,
    project_inputs,
    project_inputs_vjp,
    require_heads,
    zero_state,
)
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array


class Theta(NamedTuple):
    """Parameters of the drives: ``B (2, heads, m/heads, n/heads)`` and ``b (2, n)``."""

    B: Array
    b: Array


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., n) from states (..., n) and drives (..., 2 n)."""
    n = h.shape[-1]
    return h + sigmoid(u[..., :n]) * (u[..., n:] - h)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta (zero)."""
    n = h.shape[-1]
    z = sigmoid(u[..., :n])
    du = np.concatenate([lam * (u[..., n:] - h) * z * (1 - z), lam * z], axis=-1)
    return lam * (1 - z), du, Theta(np.zeros_like(theta.B), np.zeros_like(theta.b))


recurrence = Recurrence(step, block_size=1, vjp=vjp)
output, output_vjp = whole_state, whole_state_vjp


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw ``B`` Xavier uniform in each head, for m inputs and n channels divisible by `heads`."""
    require_heads(heads, inputs=inputs, channels=channels)
    B = head_matrices(rng, 2, inputs, channels, heads, dtype)
    return Theta(B, np.zeros((2, channels), dtype))


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 2 n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    dx, dB, db = project_inputs_vjp(x, theta.B, du)
    return dx, Theta(dB, db)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, n)."""
    return zero_state(theta.b.shape[-1], theta.b, batch)
