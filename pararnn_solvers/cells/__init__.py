"""Recurrent cells: each module has the recurrence, `init` and `project`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.typing import Array


def head_matrices(
    rng: np.random.Generator, gates: int, inputs: int, channels: int, heads: int, dtype: Any
) -> Array:
    """Draw the input matrices of a cell, Xavier uniform per head: (gates, heads, m/heads, n/heads).

    Source: Glorot & Bengio 2010, eq. 16.
    """
    m, n = inputs // heads, channels // heads
    bound = np.sqrt(6 / (m + n))
    B: Array = rng.uniform(-bound, bound, size=(gates, heads, m, n)).astype(dtype)
    return B


def recurrent_weights(rng: np.random.Generator, rows: int, channels: int, dtype: Any) -> Array:
    """Draw recurrent weights from N(0, (2 / sqrt(5 n))^2), shape (rows, n).

    Source: the initialization of Danieli et al. 2025 (arXiv 2510.21450).
    """
    scale = 2 / np.sqrt(5 * channels)
    a: Array = (scale * rng.standard_normal((rows, channels))).astype(dtype)
    return a


def gate_biases(gates: int, channels: int, dtype: Any) -> Array:
    """Return biases (gates, n): the first gate's fall linearly from 0 to -1, the others are 0."""
    b = np.zeros((gates, channels), dtype)
    b[0] = np.linspace(0, -1, channels)
    return b


def project_inputs(x: Array, B: Array, b: Array) -> Array:
    """Return the drives ``u = B x + b``, shape (..., gates * n), gates one after another.

    Each head of x, shape (..., m), sees its own part of the channels.
    """
    gates, heads, m, n = B.shape
    parts = x.reshape(*x.shape[:-1], heads, m)
    u = np.einsum("...hm,ghmn->...ghn", parts, B).reshape(*x.shape[:-1], gates, heads * n)
    drives: Array = (u + b).reshape(*x.shape[:-1], gates * heads * n)
    return drives
