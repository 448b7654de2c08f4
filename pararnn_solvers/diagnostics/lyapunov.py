"""Lyapunov exponents of a trajectory, one step after another or by products over chunks of time.

Both work on the product of the Jacobians ``A_T ... A_1``. It is associative: chunks of steps are
multiplied side by side, and what is left is a loop over chunks. Products of many Jacobians align
with the direction that grows most, so that a spectrum needs short chunks: smaller exponents keep
digits while ``exp(chunk * (largest - smallest))`` is well below ``1 / eps``.

Source: Benettin et al. 1980; Eckmann & Ruelle 1985, section III and V; for products in parallel
Gonzalez et al. 2025 (arXiv 2508.16817).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.checks import require_whole
from pararnn_solvers.diagnostics.jacobians import linearized, matrices, products
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.growth import growth_rate, start_vector
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import make_system


def lyapunov_exponent(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    h: Any = None,
    chunk: int = 1,
    discard: int = 0,
) -> Array:
    """Return the largest Lyapunov exponent: the mean logarithm of a perturbation's growth a step.

    Below 0 a recurrence forgets, and Newton's method converges in a number of iterations that
    hardly depends on T; above 0 it takes about as many as there are steps.

    Parameters
    ----------
    recurrence, x, h0, theta, steps
        Those of :func:`pararnn_solvers.solve`.
    h : array, shape (T, *batch, d), optional
        The trajectory, if it is known; otherwise it is rolled out.
    chunk : int
        1 carries one perturbation along the rollout. More multiplies the Jacobians of so many
        steps, for all chunks at once; about ``sqrt(T)`` makes the fewest steps one after another.
    discard : int
        Leave so many steps at the start out of the mean: a transient.

    Returns
    -------
    array, shape (*batch), natural logarithms per step

    Raises
    ------
    InvalidInput

    Notes
    -----
    Cost: ``chunk=1``: T evaluations with one tangent, one after another. Otherwise the blocks of
    all steps, held in memory, and ``T k^3 n`` multiplications in `chunk` products and ``T/chunk``
    products with a vector.

    Examples
    --------
    >>> import numpy as np
    >>> rate = lyapunov_exponent(lambda h, x, r: r * h * (1 - h), None, [0.3], 4.0, steps=4000)
    >>> print(f"{rate:.2f}, {np.log(2):.2f}")
    0.69, 0.69
    """
    system = make_system(recurrence, x, h0, theta, steps)
    T = checked_steps(system.shape[0], chunk, discard)
    if chunk == 1 and h is None:
        return growth_rate(system, T, discard)
    blocks = linearized(system, h)
    v = start_vector(system.h0)
    for A in blocks[:discard]:
        v = normalized(block_matvec(A, v))[0]
    growth = np.zeros(system.h0.shape[:-1])
    for G, scale in zip(*products(blocks[discard:], chunk, shared=True), strict=True):
        v, norm = normalized(block_matvec(G, v))
        with np.errstate(divide="ignore"):  # of a perturbation that is gone
            growth += np.log(norm) + scale[..., 0]
    rate: Array = growth / (T - discard)
    return rate


def normalized(v: Array) -> tuple[Array, Array]:
    """Return vectors of unit length, those that are 0 as they are, and their norms (*batch)."""
    norm = np.linalg.norm(v, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norm[..., None] > 0, v / norm[..., None], v), norm


def lyapunov_spectrum(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    h: Any = None,
    chunk: int = 1,
    discard: int = 0,
) -> Array:
    """Return all d Lyapunov exponents, from the largest to the smallest, per step.

    Their sum is the mean of ``log |det A_t|``: how volumes change. Parameters are those of
    :func:`lyapunov_exponent`; one QR factorization is made for each chunk.

    Returns
    -------
    array, shape (*batch, d), natural logarithms per step; -inf for directions that vanish

    Notes
    -----
    Cost: the blocks of all steps, `chunk` products of them, ``T/chunk`` factorizations of k x k
    matrices for each channel. ``chunk=1`` is the accurate choice.

    Examples
    --------
    >>> import numpy as np
    >>> R = np.array([[0.5, 3.0], [0.0, 0.25]])
    >>> np.exp(lyapunov_spectrum(lambda h, x, R: h @ R.T, None, np.ones(2), R, steps=200)).round(2)
    array([0.5 , 0.25])
    """
    system = make_system(recurrence, x, h0, theta, steps)
    T = checked_steps(system.shape[0], chunk, discard)
    blocks = linearized(system, h)
    k, n = blocks.shape[-2:]
    Q = np.broadcast_to(np.eye(k), (*system.h0.shape[:-1], n, k, k))
    for A in blocks[:discard]:
        Q = np.linalg.qr(matrices(A) @ Q)[0]
    logs = np.zeros(Q.shape[:-1])
    for G, scale in zip(*products(blocks[discard:], chunk), strict=True):
        Q, R = np.linalg.qr(matrices(G) @ Q)
        with np.errstate(divide="ignore"):
            logs += np.log(np.abs(np.diagonal(R, axis1=-2, axis2=-1))) + scale[..., None]
    rates = logs.reshape(*logs.shape[:-2], n * k) / (T - discard)
    descending: Array = -np.sort(-rates, axis=-1)
    return descending


def checked_steps(T: int, chunk: int, discard: int) -> int:
    """Return T, if it leaves something to average over."""
    require_whole("chunk", chunk)
    require_whole("discard", discard, least=0)
    if discard >= T:
        raise InvalidInput(f"discard is {discard} of {T} steps; expected fewer than all")
    return T
