"""The recurrences of the cases, each written once for all array libraries.

A step is ``step(library, h, u, weights)``: the state and the drives are tuples of arrays, one for
each component and each gate, so that no library needs to cut or join arrays within a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence

Parts = tuple[Any, ...]


class Library(NamedTuple):
    """What a step needs of an array library besides arithmetic."""

    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]


class Model(NamedTuple):
    """A recurrence: for this package, and for the others; components of a state, gates."""

    recurrence: Recurrence
    step: Callable[[Library, Parts, Parts, Parts], Parts]
    components: int
    gates: int


NUMPY = Library(sigmoid, np.tanh)


def gru(library: Library, h: Parts, u: Parts, weights: Parts) -> Parts:
    """Return the next state of `cells.diagonal_gru`; weights ``(a,)``."""
    (a,), (state,) = weights, h
    z = library.sigmoid(a[0] * state + u[0])
    r = library.sigmoid(a[1] * state + u[1])
    c = library.tanh(a[2] * state * r + u[2])
    return (state + z * (c - state),)


def lstm(library: Library, h: Parts, u: Parts, weights: Parts) -> Parts:
    """Return the next state of `cells.diagonal_lstm`; weights ``(a, p)``."""
    (a, p), (c, y) = weights, h
    f = library.sigmoid(a[0] * y + p[0] * c + u[0])
    g = library.tanh(a[1] * y + u[1])
    c_new = f * c + (1 - f) * g
    o = library.sigmoid(a[2] * y + p[1] * c_new + u[2])
    return c_new, o * library.tanh(c_new)


def dense(library: Library, h: Parts, u: Parts, weights: Parts) -> Parts:
    """Return the next state of PyTorch's GRU; weights ``(W, b)``, W (d, 3 d) and b (d,).

    Drives hold what depends on the input, and all biases but that within the reset gate.
    """
    (W, b), (state,) = weights, h
    d = state.shape[-1]
    products = state @ W
    r = library.sigmoid(u[0] + products[..., :d])
    z = library.sigmoid(u[1] + products[..., d : 2 * d])
    c = library.tanh(u[2] + r * (products[..., 2 * d :] + b))
    return (c + z * (state - c),)


def logistic(library: Library, h: Parts, u: Parts, weights: Parts) -> Parts:
    """Return ``r x (1 - x)``, chaotic at r = 3.9; weights ``(r,)``."""
    (state,), (r,) = h, weights
    return (r * state * (1 - state),)


def dense_step(h: Any, u: Any, theta: Any) -> Any:
    """Return the next states (..., d) of PyTorch's GRU from drives (..., 3 d)."""
    d = h.shape[-1]
    return dense(NUMPY, (h,), (u[..., :d], u[..., d : 2 * d], u[..., 2 * d :]), theta)[0]


def logistic_step(h: Any, u: Any, theta: Any) -> Any:
    """Return the next states of the logistic map."""
    return logistic(NUMPY, (h,), (), theta)[0]


MODELS = {
    "gru": Model(diagonal_gru.recurrence, gru, 1, 3),
    "lstm": Model(diagonal_lstm.recurrence, lstm, 2, 3),
    "dense": Model(Recurrence(dense_step), dense, 1, 3),
    "logistic": Model(Recurrence(logistic_step, block_size=1), logistic, 1, 0),
}
