"""Where I - S A has its entries."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.plotting.theme import GREY, axes, colorbar, diverging, tidy
from pararnn_solvers.typing import Array

MOST_ROWS = 480
"""Rows of the matrix that a picture of this size can show."""


def plot_sparsity(blocks: Any, ax: Any = None, *, steps: int = 6) -> Any:
    """Draw the entries of ``I - S A`` for the first steps: the identity, and -A below it.

    Parameters
    ----------
    blocks : array, shape (T, *batch, k, k, n)
        As ``System.linearize`` returns them. Of several sequences, the first is drawn.
    ax : matplotlib axes, optional
    steps : int
        How many steps are drawn.

    Returns
    -------
    The axes, with a scale of the entries. Thin lines separate the steps.

    Examples
    --------
    >>> ax = plot_sparsity(np.full((9, 2, 2, 3), 0.5), steps=4)
    >>> ax.images[0].get_array().shape
    (24, 24)
    """
    blocks = arrays.on_host(blocks)
    if blocks.ndim < 4 or blocks.shape[-3] != blocks.shape[-2]:
        raise InvalidInput(
            f"blocks has shape {blocks.shape}; expected (T, *batch, k, k, n), such as "
            "sol.system.linearize(sol.h)"
        )
    blocks = blocks.reshape(len(blocks), -1, *blocks.shape[-3:])[:steps, 0]
    matrix = assembled(blocks)
    if len(matrix) > MOST_ROWS:
        d = blocks.shape[-1] * blocks.shape[-2]
        raise InvalidInput(
            f"{len(blocks)} steps of {d} states are {len(matrix)} rows; expected at most "
            f"{MOST_ROWS}: pass steps={max(1, MOST_ROWS // d)}"
        )
    ax = axes(ax)
    size, d = len(matrix), len(matrix) // max(1, len(blocks))
    most = max(1.0, float(np.abs(matrix[np.isfinite(matrix)]).max(initial=0)))
    edge = 0.5 - 0.5
    image = ax.imshow(
        matrix, cmap=diverging(ax), vmin=-most, vmax=most, interpolation="nearest",
        extent=(edge, size, size, edge),
    )  # fmt: skip
    for step in range(1, len(blocks)):
        ax.axhline(step * d, color=GREY, alpha=0.4, linewidth=0.5)
        ax.axvline(step * d, color=GREY, alpha=0.4, linewidth=0.5)
    middle = (np.arange(len(blocks)) + 0.5) * d
    ax.set_xticks(middle, [str(t + 1) for t in range(len(blocks))])
    ax.set_yticks(middle, [str(t + 1) for t in range(len(blocks))])
    ax.tick_params(length=0)
    colorbar(ax, image, "entry")
    return tidy(ax, "step of the unknown", "step of the equation", grid="")


def assembled(blocks: Array) -> Array:
    """Return ``I - S A`` as a matrix (T d, T d) from blocks (T, k, k, n).

    Examples
    --------
    >>> assembled(np.full((3, 1, 1, 1), 0.5))
    array([[ 1. ,  0. ,  0. ],
           [-0.5,  1. ,  0. ],
           [ 0. , -0.5,  1. ]])
    """
    T, k, _, n = blocks.shape
    matrix = np.eye(T * k * n, dtype=blocks.dtype).reshape(T, k, n, T, k, n)
    t, c = np.arange(1, T)[:, None], np.arange(n)
    for i, j in np.ndindex(k, k):
        matrix[t, i, c, t - 1, j, c] = -blocks[1:, i, j]
    return matrix.reshape(T * k * n, T * k * n)
