"""What the dense cells share: PyTorch's parameters, their drives, products with W_hh."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.parameters import require_inputs, summed
from pararnn_solvers.checks import require_whole
from pararnn_solvers.typing import Array


class Theta(NamedTuple):
    """PyTorch's parameters of one layer and direction, gates one after another along the rows.

    ``weight_hh (g n, n)`` and ``bias_hh (g n)`` act in the recurrence, ``weight_ih (g n, m)`` and
    ``bias_ih (g n)`` in the drives.
    """

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array
    bias_hh: Array


def draw(rng: np.random.Generator, gates: int, inputs: int, channels: int, dtype: Any) -> Theta:
    """Draw all parameters uniformly between ``-1/sqrt(n)`` and ``1/sqrt(n)``, as PyTorch does."""
    require_whole("inputs", inputs)
    require_whole("channels", channels)
    bound, rows = 1 / np.sqrt(channels), gates * channels
    shapes = ((rows, inputs), (rows, channels), (rows,), (rows,))
    return Theta(*(rng.uniform(-bound, bound, size=shape).astype(dtype) for shape in shapes))


def project(x: Array, theta: Theta) -> Array:
    """Return the drives ``W_ih x + b_ih`` (..., g n) of inputs (..., m), for all steps at once."""
    require_inputs(x, theta.weight_ih.shape[-1])
    return product(x, theta.weight_ih.T) + theta.bias_ih


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    by_weight = du.reshape(-1, du.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    zeros = np.zeros_like(theta.weight_hh), np.zeros_like(theta.bias_hh)
    return product(du, theta.weight_ih), Theta(by_weight, zeros[0], summed(du), zeros[1])


def product(a: Array, W: Array) -> Array:
    """Return ``a @ W`` as one product of matrices, where NumPy makes one for each leading index."""
    result: Array = a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) @ W
    return result.reshape(*a.shape[:-1], W.shape[-1])


def recurrent(y: Any, theta: Theta) -> Any:
    """Return ``W_hh y + b_hh``, shape (..., g n), of outputs y (..., n)."""
    return y @ theta.weight_hh.T + theta.bias_hh


def recurrent_vjp(y: Array, theta: Theta, dq: Array) -> tuple[Array, Theta]:
    """Return dq times the derivatives of `recurrent` by y, and by theta summed over all states."""
    by_weight = dq.reshape(-1, dq.shape[-1]).T @ y.reshape(-1, y.shape[-1])
    zeros = np.zeros_like(theta.weight_ih), np.zeros_like(theta.bias_ih)
    return product(dq, theta.weight_hh), Theta(zeros[0], by_weight, zeros[1], summed(dq))


def scaled_weights(slopes: list[Array], theta: Theta) -> Array:
    """Return ``sum_g diag(s_g) W_g``, shape (..., n, n), of slopes s_g (..., n).

    This is how an elementwise function of ``W_hh y`` depends on y.
    """
    n = theta.weight_hh.shape[-1]
    blocks = theta.weight_hh.reshape(len(slopes), n, n)
    products = [s[..., None] * W for s, W in zip(slopes, blocks, strict=True)]
    return functools.reduce(np.add, products)


def scaled_diagonals(slopes: list[Array], theta: Theta) -> Array:
    """Return the diagonal of `scaled_weights`, shape (..., n), without the rest."""
    n = theta.weight_hh.shape[-1]
    diagonals = theta.weight_hh.reshape(len(slopes), n, n).diagonal(axis1=1, axis2=2)
    products = [s * w for s, w in zip(slopes, diagonals, strict=True)]
    return functools.reduce(np.add, products)


def on_diagonal(v: Array) -> Array:
    """Return diagonal matrices (..., n, n) of vectors (..., n)."""
    result: Array = v[..., None] * np.eye(v.shape[-1], dtype=v.dtype)
    return result
