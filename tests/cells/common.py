"""The cells with parameters of every kind, and derivatives by complex step, for their tests."""

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import cells

M, N = 6, 4  # inputs, channels
OPTIONS = {
    "block_gru": {"heads": 2},
    "diagonal_gru": {"heads": 2},
    "diagonal_lstm": {"heads": 2},
    "slstm": {"heads": 2},
    "min_gru": {"heads": 2},
    "selective_ssm": {"states": 3, "rank": 2},
}
DENSE = ("elman", "gru", "lstm")
CHANNELWISE = tuple(name for name in cells.CELLS if name not in DENSE)
LINEAR = ("selective_ssm", "min_gru")
CLIPPED = ("diagonal_gru", "diagonal_lstm", "slstm")


class Drawn(NamedTuple):
    cell: Any
    recurrence: Any
    theta: Any
    x: np.ndarray
    u: np.ndarray
    h0: np.ndarray


def draw(name, T=9, batch=(2,), dtype=np.float64, seed=0) -> Drawn:
    """Return a cell, its parameters, none of them zero, and data."""
    rng = np.random.default_rng(seed)
    cell = cells.load(name)
    theta = cell.init(rng, M, N, dtype=dtype, **OPTIONS.get(name, {}))
    theta = type(theta)(*(v + dtype(0.1) * rng.standard_normal(v.shape, dtype) for v in theta))
    x = rng.standard_normal((T, *batch, M)).astype(dtype)
    h0 = cell.initial_state(theta, batch)
    h0 += rng.uniform(-1, 1, h0.shape).astype(dtype)
    return Drawn(cell, cells.recurrence_of(cell, theta), theta, x, cell.project(x, theta), h0)


def directional(function, at, along, eps=1e-30):
    """Return the derivative of a function of one array, or of a theta, by complex step."""
    if isinstance(at, tuple):
        shifted = type(at)(*(a + 1j * eps * v for a, v in zip(at, along, strict=True)))
    else:
        shifted = at + 1j * eps * along
    return function(shifted).imag / eps


def matrix(function, h):
    """Return the Jacobian (..., d, d) of a function of states by complex step."""
    d = h.shape[-1]
    return np.stack([directional(function, h, np.eye(d)[j]) for j in range(d)], axis=-1)


def like(rng, at):
    """Return random directions of the shape of an array, or of a theta."""
    if isinstance(at, tuple):
        return type(at)(*(rng.standard_normal(leaf.shape) for leaf in at))
    return rng.standard_normal(at.shape)


def inner(a, b):
    """Return the inner product of two arrays, or of two thetas."""
    if isinstance(a, tuple):
        return sum(np.vdot(v, w) for v, w in zip(a, b, strict=True))
    return np.vdot(a, b)


def sigma(v):
    return 1 / (1 + np.exp(-v))
