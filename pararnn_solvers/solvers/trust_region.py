"""Levenberg-Marquardt: the step that minimizes a damped linear model, taken or refused."""

from __future__ import annotations

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.checks import require_number
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.iterate import Iterate, sequence_norm
from pararnn_solvers.solvers.step_length import negligible
from pararnn_solvers.typing import Array


def damped_least_squares(matrix: BlockBidiagonal, residual: Array, damping: Array) -> Array:
    """Minimize ``|M delta + F|^2 + damping |delta|^2``, one damping for each sequence.

    The normal equations ``(M^T M + damping I) delta = -M^T F`` are block tridiagonal: the diagonal
    blocks are ``(1 + damping) I + A_{t+1}^T A_{t+1}``, those beside it ``-A_{t+1}``. Each lane
    (channel of a sequence) is a band matrix of half-width ``2k - 1`` and is factored by LAPACK's
    banded Cholesky, in float64 because the product squares the condition of M. A lane that is not
    positive definite to rounding, or not finite, gets a NaN step, which the caller refuses.

    Parameters
    ----------
    matrix : BlockBidiagonal
        blocks (T, batch, k, k, n)
    residual : array, shape (T, batch, k*n)
    damping : array, shape (batch,)

    Returns
    -------
    array, shape (T, batch, k*n)

    Notes
    -----
    Cost: ``O(T k^3)`` operations and ``O(T k^2)`` memory a lane. It is the estimate of a Kalman
    smoother with unit process noise and pseudo-observations of variance ``1/damping``.

    Source: Levenberg 1944; Marquardt 1963; Särkkä & Svensson 2020 for the smoother's form.
    """
    from scipy.linalg import LinAlgError, solveh_banded

    T, batch, k, _, n = matrix.blocks.shape
    delta = np.empty((T, batch, k, n))
    rhs = -matrix.rmatvec(residual).reshape(delta.shape).astype(np.float64)
    A = matrix.blocks.astype(np.float64)
    for b, c in np.ndindex(batch, n):
        bands = normal_bands(A[:, b, :, :, c], float(damping[b]))
        right = rhs[:, b, :, c].ravel()
        try:  # what is not finite ends in NaN
            solved = solveh_banded(bands, right, lower=True, overwrite_ab=True, check_finite=False)
        except LinAlgError:  # not positive definite
            solved = np.full(T * k, np.nan)
        delta[:, b, :, c] = solved.reshape(T, k)
    return delta.reshape(residual.shape).astype(residual.dtype)


def normal_bands(A: Array, damping: float) -> Array:
    """Return the lower bands of ``M^T M + damping I`` for blocks A of shape (T, k, k).

    Row r of the result holds the r-th subdiagonal, as ``scipy.linalg.solveh_banded`` wants it; a
    single step has only those of its block.
    """
    T, k = A.shape[:2]
    D = np.zeros((T, k, k))
    D[:-1] = np.swapaxes(A[1:], 1, 2) @ A[1:]
    D += (1 + damping) * np.eye(k)
    bands = np.zeros((2 * k, T, k))
    for j in range(k):
        for i in range(j, k):
            bands[i - j, :, j] = D[:, i, j]
        for i in range(k):  # row i of the next block, column j of this one
            bands[k + i - j, :-1, j] = -A[1:, i, j]
    return bands.reshape(2 * k, T * k)[: T * k]


def require_damping(name: str, value: float) -> None:
    """Raise InvalidInput unless `value` is a damping that can be multiplied up."""
    require_number(name, value, lambda damping: damping > 0, "a finite number > 0, such as 1e-2")


def trust_region(
    iterate: Iterate,
    scan: Scan,
    *,
    initial: float = 1e-2,
    factor: float = 4.0,
    largest: float = 1e12,
) -> Iterate:
    """Try the damped least-squares step; take it where the residual falls as the model says.

    With gain ratio ``rho = (phi(h) - phi(h + delta)) / (phi(h) - model(delta))`` a step is taken
    when ``rho > 1e-4``; the damping is divided by `factor` when ``rho > 1/4`` and multiplied by it
    after a refusal. Each sequence has its own. A sequence whose damping exceeds `largest` is
    reported as stalled.

    Raises
    ------
    InvalidInput
        For arrays on a device: the band matrices are LAPACK's.

    Source: Moré 1978; Madsen, Nielsen & Tingleff 2004, section 3.2. As a parallel method for
    recurrences: Gonzalez et al. 2024 (arXiv 2407.19115), ELK, with ``damping = 1/sigma^2``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(step_length=prs.trust_region)).n_iter
    5
    """
    require_damping("initial", initial)
    require_damping("largest", largest)
    require_number("factor", factor, lambda factor: factor > 1, "a number > 1, such as 4")
    if arrays.is_device_array(iterate.h):
        raise InvalidInput(
            "Levenberg-Marquardt solves band matrices by LAPACK, on the host, and the arrays are "
            f"on {arrays.place(iterate.h)}; use windowed(newton(), length) or damped_newton(), or "
            "pass host arrays: a.get()"
        )
    F, damping = iterate.residual, iterate.damping
    if damping is None:
        damping = np.full(F.shape[1], float(initial))
    delta = damped_least_squares(iterate.matrix, F, damping)
    trial = iterate.h + delta
    trial_f = iterate.system.evaluate(iterate.system.previous(trial))
    before, after = sequence_norm(F), sequence_norm(trial - trial_f)
    model = sequence_norm(F + iterate.matrix.matvec(delta))
    rho = (1 - (after / before) ** 2) / (1 - (model / before) ** 2)
    taken = rho > 1e-4  # False for NaN
    damping = np.where(taken, np.where(rho > 0.25, damping / factor, damping), damping * factor)
    h = np.where(taken[:, None], trial, iterate.h)
    f = np.where(taken[:, None], trial_f, iterate.f)
    stalled = (damping > largest) | (taken & negligible(delta, iterate.h))
    return iterate.moved(h, f, damping=damping, stalled=stalled)
