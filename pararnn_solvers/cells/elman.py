"""The Elman network with PyTorch's conventions: equal to ``torch.nn.RNN``.

With drives ``u = W_ih x + b_ih``::

    h' = tanh(u + W_hh h + b_hh)

or, as `rectified`, with ``max(., 0)`` in place of tanh (PyTorch's ``nonlinearity="relu"``).

Source: Elman 1990, "Finding structure in time".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pararnn_solvers.cells import state_dicts
from pararnn_solvers.cells.dense import (
    Theta,
    draw,
    project,
    project_vjp,
    recurrent,
    recurrent_vjp,
    scaled_diagonals,
    scaled_weights,
)
from pararnn_solvers.cells.outputs import whole_state, whole_state_vjp
from pararnn_solvers.cells.parameters import zero_state
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
    "rectified",
    "rectified_step",
    "rectified_vjp",
    "recurrence",
    "step",
    "vjp",
]

GATES = 1


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., n) from states (..., n) and drives (..., n)."""
    return np.tanh(u + recurrent(h, theta))


def rectified_step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., n) of the rectified network."""
    return np.maximum(u + recurrent(h, theta), 0)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``weight_ih`` and ``bias_ih`` are zero here: they act through `project`.
    """
    du = lam * (1 - step(h, u, theta) ** 2)
    dh, dtheta = recurrent_vjp(h, theta, du)
    return dh, du, dtheta


def rectified_vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return the products of `rectified_step`."""
    du = lam * (rectified_step(h, u, theta) > 0)
    dh, dtheta = recurrent_vjp(h, theta, du)
    return dh, du, dtheta


recurrence = Recurrence(step, vjp=vjp)
rectified = Recurrence(rectified_step, vjp=rectified_vjp)
output, output_vjp = whole_state, whole_state_vjp


def jacobian(h: Array, u: Array, theta: Theta) -> Array:
    """Return df/dh, matrices (..., n, n)."""
    return scaled_weights([1 - step(h, u, theta) ** 2], theta)


def diagonal(h: Array, u: Array, theta: Theta) -> Array:
    """Return the diagonal of df/dh, shape (..., n): ``block_diagonal(1, diagonal)`` takes it."""
    return scaled_diagonals([1 - step(h, u, theta) ** 2], theta)


def init(rng: np.random.Generator, inputs: int, channels: int, dtype: Any = np.float64) -> Theta:
    """Draw parameters uniformly between ``-1/sqrt(n)`` and ``1/sqrt(n)``, as PyTorch does."""
    return draw(rng, GATES, inputs, channels, dtype)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, n)."""
    return zero_state(theta.weight_hh.shape[-1], theta.weight_hh, batch)


def from_state_dict(
    state: Mapping[str, Any], prefix: str = "", dtype: Any = None
) -> list[tuple[Theta, ...]]:
    """Return the parameters in the state dict of a ``torch.nn.RNN`` or ``RNNCell``.

    See :func:`pararnn_solvers.cells.state_dicts.from_state_dict`. Whether the network is rectified
    is not in its state dict.
    """
    return state_dicts.from_state_dict(state, GATES, prefix, dtype)
