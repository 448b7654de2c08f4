"""The GRU with PyTorch's conventions: equal to ``torch.nn.GRU``.

With drives ``u = W_ih x + b_ih`` and ``q = W_hh h + b_hh``, gates in the order r, z, n::

    r  = sigmoid(u_r + q_r)
    z  = sigmoid(u_z + q_z)
    c  = tanh(u_n + r q_n)
    h' = (1 - z) c + z h

Unlike in the diagonal and in the block GRU, r acts after the matrix product, and z keeps.

Source: Cho et al. 2014 (arXiv 1406.1078); the place of r as in cuDNN and PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pararnn_solvers.cells import state_dicts
from pararnn_solvers.cells.dense import (
    Theta,
    draw,
    on_diagonal,
    project,
    project_vjp,
    recurrent,
    recurrent_vjp,
    scaled_diagonals,
    scaled_weights,
)
from pararnn_solvers.cells.outputs import whole_state, whole_state_vjp
from pararnn_solvers.cells.parameters import zero_state
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

__all__ = [
    "Theta",
    "diagonal",
    "from_state_dict",
    "init",
    "initial_state",
    "jacobian",
    "output",
    "output_vjp",
    "project",
    "project_vjp",
    "recurrence",
    "step",
    "vjp",
]

GATES = 3


def gates(h: Any, u: Any, theta: Theta) -> tuple[Any, ...]:
    """Return ``r, z, c`` and ``q_n`` of states (..., n) and drives (..., 3 n)."""
    n = h.shape[-1]
    q = recurrent(h, theta)
    r = sigmoid(u[..., :n] + q[..., :n])
    z = sigmoid(u[..., n : 2 * n] + q[..., n : 2 * n])
    q_n = q[..., 2 * n :]
    return r, z, np.tanh(u[..., 2 * n :] + r * q_n), q_n


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., n) from states (..., n) and drives (..., 3 n)."""
    _, z, c, _ = gates(h, u, theta)
    return c + z * (h - c)


def slopes(h: Array, u: Array, theta: Theta) -> tuple[Array, Array, list[Array]]:
    """Return z, r, and the derivatives of `step` by ``q_r``, ``q_z`` and ``u_n``."""
    r, z, c, q_n = gates(h, u, theta)
    by_c = (1 - z) * (1 - c * c)
    return z, r, [by_c * q_n * r * (1 - r), (h - c) * z * (1 - z), by_c]


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``weight_ih`` and ``bias_ih`` are zero here: they act through `project`.
    """
    z, r, by_gates = slopes(h, u, theta)
    dr, dz, dc = (lam * slope for slope in by_gates)
    dh, dtheta = recurrent_vjp(h, theta, np.concatenate([dr, dz, dc * r], axis=-1))
    return dh + lam * z, np.concatenate([dr, dz, dc], axis=-1), dtheta


recurrence = Recurrence(step, vjp=vjp)
output, output_vjp = whole_state, whole_state_vjp


def jacobian(h: Array, u: Array, theta: Theta) -> Array:
    """Return df/dh, matrices (..., n, n)."""
    z, r, (by_r, by_z, by_c) = slopes(h, u, theta)
    return on_diagonal(z) + scaled_weights([by_r, by_z, by_c * r], theta)


def diagonal(h: Array, u: Array, theta: Theta) -> Array:
    """Return the diagonal of df/dh, shape (..., n): ``block_diagonal(1, diagonal)`` takes it."""
    z, r, (by_r, by_z, by_c) = slopes(h, u, theta)
    return z + scaled_diagonals([by_r, by_z, by_c * r], theta)


def init(rng: np.random.Generator, inputs: int, channels: int, dtype: Any = np.float64) -> Theta:
    """Draw parameters uniformly between ``-1/sqrt(n)`` and ``1/sqrt(n)``, as PyTorch does."""
    return draw(rng, GATES, inputs, channels, dtype)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, n)."""
    return zero_state(theta.weight_hh.shape[-1], theta.weight_hh, batch)


def from_state_dict(
    state: Mapping[str, Any], prefix: str = "", dtype: Any = None
) -> list[tuple[Theta, ...]]:
    """Return the parameters in the state dict of a ``torch.nn.GRU`` or ``GRUCell``.

    See :func:`pararnn_solvers.cells.state_dicts.from_state_dict`.
    """
    return state_dicts.from_state_dict(state, GATES, prefix, dtype)
