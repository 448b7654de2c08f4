"""A GRU whose recurrent weights are dense within heads: heads do not couple.

The n heads have k channels each, and a state is component-major: ``h.reshape(k, n)[:, j]`` is the
state of head j. With drives ``u = B x + b`` and, per head, k x k matrices ``A``::

    z  = sigmoid(A_z h + u_z)
    r  = sigmoid(A_r h + u_r)
    c  = tanh(A_c (r h) + u_c)
    h' = (1 - z) h + z c

For k = 1 this is the diagonal GRU; for one head, the GRU as first published. Kernels exist up to
k = 8.

Source: Cho et al. 2014 (arXiv 1406.1078), eqs. 5-8, with z for 1 - z; heads as in Beck et al. 2024
(arXiv 2405.04517).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.outputs import whole_state, whole_state_vjp
from pararnn_solvers.cells.parameters import (
    gate_biases,
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
    """Parameters: ``A (3, k, k, n)`` acts in the recurrence, ``B`` and ``b`` in the drives.

    ``A[g, i, j]`` weighs, in gate g, component j for component i of each head; ``B`` has shape
    (3, 1, m, k n), ``b`` (3, k n).
    """

    A: Array
    B: Array
    b: Array


def within_heads(A: Any, h: Any) -> Any:
    """Return the products (..., k, n) of matrices (k, k, n) with states (..., k, n)."""
    return np.einsum("ijn,...jn->...in", A, h)


def gates(h: Any, u: Any, A: Any) -> tuple[Any, ...]:
    """Return the state as (..., k, n), and ``z, r, c`` of these shapes."""
    k, n = A.shape[-2], A.shape[-1]
    h = h.reshape(*h.shape[:-1], k, n)
    u_z, u_r, u_c = (
        u[..., g * k * n : (g + 1) * k * n].reshape(*u.shape[:-1], k, n) for g in range(3)
    )
    z = sigmoid(within_heads(A[0], h) + u_z)
    r = sigmoid(within_heads(A[1], h) + u_r)
    return h, z, r, np.tanh(within_heads(A[2], r * h) + u_c)


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., k n) from states (..., k n) and drives (..., 3 k n)."""
    parts, z, _, c = gates(h, u, theta.A)
    return (parts + z * (c - parts)).reshape(h.shape)


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta summed over all states.

    The gradients of ``B`` and ``b`` are zero here: they act through `project`.
    """
    A = theta.A
    parts, z, r, c = gates(h, u, A)
    lam = lam.reshape(parts.shape)
    dz = lam * (c - parts) * z * (1 - z)
    dc = lam * z * (1 - c * c)
    drh = within_heads(A[2].swapaxes(0, 1), dc)
    dr = drh * parts * r * (1 - r)
    dh = lam * (1 - z) + drh * r
    dh += within_heads(A[0].swapaxes(0, 1), dz) + within_heads(A[1].swapaxes(0, 1), dr)
    k, n = A.shape[-2:]
    pairs = ((dz, parts), (dr, parts), (dc, r * parts))
    dA = [
        np.einsum("tin,tjn->ijn", v.reshape(-1, k, n), seen.reshape(-1, k, n)) for v, seen in pairs
    ]
    du = np.concatenate([v.reshape(h.shape) for v in (dz, dr, dc)], axis=-1)
    zeros = Theta(np.stack(dA), np.zeros_like(theta.B), np.zeros_like(theta.b))
    return dh.reshape(h.shape), du, zeros


def recurrence(theta: Theta) -> Recurrence:
    """Return the recurrence of heads of the size for which theta is made."""
    return Recurrence(step, block_size=theta.A.shape[-2], vjp=vjp)


output, output_vjp = whole_state, whole_state_vjp


def init(
    rng: np.random.Generator, inputs: int, channels: int, heads: int = 1, dtype: Any = np.float64
) -> Theta:
    """Draw parameters for inputs of size m and k n channels in n `heads`.

    ``A`` is normal with deviation ``sqrt(2 / (5 k))`` (the small initialization of Nguyen &
    Salazar 2019, arXiv 1910.05895), ``B`` Xavier uniform; every head sees all inputs. ``b_z`` falls
    linearly from 0 to -1 over the channels, the other biases are 0.
    """
    require_heads(1, inputs=inputs)
    require_heads(heads, channels=channels)
    k = channels // heads
    A = np.sqrt(2 / (5 * k)) * rng.standard_normal((3, k, k, heads))
    B = head_matrices(rng, 3, inputs, channels, 1, dtype)
    return Theta(A.astype(dtype), B, gate_biases(3, channels, dtype))


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 3 k n) of inputs (..., m), for all steps at once."""
    return project_inputs(x, theta.B, theta.b)


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    dx, dB, db = project_inputs_vjp(x, theta.B, du)
    return dx, Theta(np.zeros_like(theta.A), dB, db)


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, k n)."""
    return zero_state(theta.b.shape[-1], theta.A, batch)
