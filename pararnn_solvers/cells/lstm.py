"""The LSTM with PyTorch's conventions: equal to ``torch.nn.LSTM``.

The state is ``[c | y]``. With drives ``u = W_ih x + b_ih`` and ``q = u + W_hh y + b_hh``, gates in
the order i, f, g, o::

    i  = sigmoid(q_i)
    f  = sigmoid(q_f)
    g  = tanh(q_g)
    o  = sigmoid(q_o)
    c' = f c + i g
    y' = o tanh(c')

Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000 for the forget gate.
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
from pararnn_solvers.cells.outputs import last_of
from pararnn_solvers.cells.parameters import zero_state
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

__all__ = [
    "Theta",
    "blocks",
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

GATES = 4


def gates(h: Any, u: Any, theta: Theta) -> tuple[Any, ...]:
    """Return ``i, f, g, o`` and ``c'`` of states (..., 2 n) and drives (..., 4 n)."""
    n = h.shape[-1] // 2
    q = u + recurrent(h[..., n:], theta)
    i, f = sigmoid(q[..., :n]), sigmoid(q[..., n : 2 * n])
    g, o = np.tanh(q[..., 2 * n : 3 * n]), sigmoid(q[..., 3 * n :])
    return i, f, g, o, f * h[..., :n] + i * g


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., 2 n) from states (..., 2 n) and drives (..., 4 n)."""
    _, _, _, o, c_new = gates(h, u, theta)
    return np.concatenate([c_new, o * np.tanh(c_new)], axis=-1)


def slopes(h: Array, u: Array, theta: Theta) -> tuple[Array, Array, list[Array], Array]:
    """Return the derivatives that compose those of `step`.

    Returns
    -------
    by_c : array, shape (..., n)
        Of c' by c: the forget gate.
    y_by_c : array, shape (..., n)
        Of y' by c'.
    by_gates : list of three arrays, shape (..., n)
        Of c' by ``q_i, q_f, q_g``.
    by_o : array, shape (..., n)
        Of y' by ``q_o``.
    """
    i, f, g, o, c_new = gates(h, u, theta)
    squashed, c = np.tanh(c_new), h[..., : f.shape[-1]]
    by_gates = [g * i * (1 - i), c * f * (1 - f), i * (1 - g * g)]
    return f, o * (1 - squashed * squashed), by_gates, squashed * o * (1 - o)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``weight_ih`` and ``bias_ih`` are zero here: they act through `project`.
    """
    n = h.shape[-1] // 2
    by_c, y_by_c, by_gates, by_o = slopes(h, u, theta)
    dc_new = lam[..., :n] + lam[..., n:] * y_by_c
    du = np.concatenate([*(dc_new * slope for slope in by_gates), lam[..., n:] * by_o], axis=-1)
    dy, dtheta = recurrent_vjp(h[..., n:], theta, du)
    return np.concatenate([dc_new * by_c, dy], axis=-1), du, dtheta


recurrence = Recurrence(step, vjp=vjp)
output, output_vjp = last_of(2)


def jacobian(h: Array, u: Array, theta: Theta) -> Array:
    """Return df/dh, matrices (..., 2 n, 2 n)."""
    by_c, y_by_c, by_gates, by_o = slopes(h, u, theta)
    none = np.zeros_like(by_o)
    c_by_y = scaled_weights([*by_gates, none], theta)
    y_by_y = y_by_c[..., None] * c_by_y + scaled_weights([none, none, none, by_o], theta)
    upper = np.concatenate([on_diagonal(by_c), c_by_y], axis=-1)
    lower = np.concatenate([on_diagonal(y_by_c * by_c), y_by_y], axis=-1)
    return np.concatenate([upper, lower], axis=-2)


def blocks(h: Array, u: Array, theta: Theta) -> Array:
    """Return what df/dh couples within channels, (..., 2, 2, n): ``block_diagonal(2, blocks)``."""
    by_c, y_by_c, by_gates, by_o = slopes(h, u, theta)
    none = np.zeros_like(by_o)
    c_by_y = scaled_diagonals([*by_gates, none], theta)
    y_by_y = y_by_c * c_by_y + scaled_diagonals([none, none, none, by_o], theta)
    upper = np.stack([by_c, c_by_y], axis=-2)
    return np.stack([upper, np.stack([y_by_c * by_c, y_by_y], axis=-2)], axis=-3)


def diagonal(h: Array, u: Array, theta: Theta) -> Array:
    """Return the diagonal of df/dh, shape (..., 2 n): ``block_diagonal(1, diagonal)`` takes it."""
    within = blocks(h, u, theta)
    return np.concatenate([within[..., 0, 0, :], within[..., 1, 1, :]], axis=-1)


def init(rng: np.random.Generator, inputs: int, channels: int, dtype: Any = np.float64) -> Theta:
    """Draw parameters uniformly between ``-1/sqrt(n)`` and ``1/sqrt(n)``, as PyTorch does."""
    return draw(rng, GATES, inputs, channels, dtype)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, 2 n)."""
    return zero_state(2 * theta.weight_hh.shape[-1], theta.weight_hh, batch)


def from_state_dict(
    state: Mapping[str, Any], prefix: str = "", dtype: Any = None
) -> list[tuple[Theta, ...]]:
    """Return the parameters in the state dict of a ``torch.nn.LSTM`` or ``LSTMCell``.

    See :func:`pararnn_solvers.cells.state_dicts.from_state_dict`.
    """
    return state_dicts.from_state_dict(state, GATES, prefix, dtype)
