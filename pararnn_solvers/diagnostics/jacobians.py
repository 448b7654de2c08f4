"""The Jacobians along a trajectory, and their products over spans of time."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matmul
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.solvers.sequential import rollout_system
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


def linearized(system: System, h: Any = None) -> Array:
    """Return the blocks (T, *batch, k, k, n) at a trajectory, by default the rollout.

    On the host, in float64, whatever the states are.

    Raises
    ------
    InvalidInput
        The trajectory has another shape, or is not finite.
    """
    if h is None:
        h = system.empty()
        rollout_system(system, h)
    h = arrays.from_any(h)
    if h.shape != system.shape:
        raise InvalidInput(f"h has shape {h.shape}; expected a trajectory, {system.shape}")
    blocks = arrays.on_host(system.linearize(h)).astype(np.float64)
    if not np.isfinite(blocks).all():
        raise InvalidInput("the Jacobians along h are not finite; expected a finite trajectory")
    return blocks


def matrices(blocks: Array) -> Array:
    """View blocks (..., k, k, n) as matrices (..., n, k, k), one for each channel."""
    return np.moveaxis(blocks, -1, -3)


def products(blocks: Array, chunk: int, *, shared: bool = False) -> tuple[Array, Array]:
    """Return ``A_S ... A_1`` of each chunk of S steps, scaled, and the logarithms of the scales.

    Parameters
    ----------
    blocks : array, shape (T, *batch, k, k, n)
        Where S does not divide T the last chunk is shorter.
    shared : bool
        Scale all channels alike, so that a vector over all of them can be multiplied.

    Returns
    -------
    scaled : array, shape (P, *batch, k, k, n)
        No entry exceeds 1 in absolute value.
    logarithms : array, shape (P, *batch, n); of a product that is zero: 0
    """
    T, k = len(blocks), blocks.shape[-2]
    whole = -(-T // chunk)
    identity = np.broadcast_to(np.eye(k)[..., None], (whole * chunk - T, *blocks.shape[1:]))
    steps = np.concatenate([blocks, identity]).reshape(whole, chunk, *blocks.shape[1:])
    G, logarithms = rescaled(steps[:, 0], shared)
    for s in range(1, chunk):
        G, scale = rescaled(block_matmul(steps[:, s], G), shared)
        logarithms += scale
    return G, logarithms


def rescaled(G: Array, shared: bool = False) -> tuple[Array, Array]:
    """Divide matrices by their greatest entry; return that and its logarithm (..., n)."""
    axes = (-3, -2, -1) if shared else (-3, -2)
    size = np.abs(G).max(axis=axes, keepdims=True)
    size = np.where(size > 0, size, 1)
    logarithms = np.broadcast_to(np.log(size[..., 0, 0, :]), (*G.shape[:-3], G.shape[-1]))
    return G / size, logarithms.copy()
