"""How fast residuals fell, how fast theory lets them fall, and how sharp an error bound is."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.solvers.sequential import rollout_system
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import max_norm
from pararnn_solvers.typing import Array

FREQUENCIES = 512


def convergence_order(residual_norms: Any, *, floor: float | None = None) -> float:
    """Return p of ``e_{i+1} ~ C e_i^p`` at the end of a history: 2 for Newton, 1 for Picard.

    Parameters
    ----------
    residual_norms : array_like, shape (n_iter + 1,)
        Of one sequence, as ``Solution.residual_norms``.
    floor : float, optional
        Norms at or below it are rounding and do not count. Default 1000 eps times the greatest.

    Returns
    -------
    float
        ``log(e_{i+1}/e_i) / log(e_i/e_{i-1})`` of the last three norms above the floor; NaN where
        there are not three that fall.

    Notes
    -----
    Source: Ortega & Rheinboldt 1970, chapter 9.

    Examples
    --------
    >>> round(convergence_order([1e-1, 1e-2, 1e-4, 1e-8, 3e-16]), 1)
    2.0
    """
    logs = falling(residual_norms, floor)
    if len(logs) < 3:
        return float("nan")
    return float((logs[-1] - logs[-2]) / (logs[-2] - logs[-3]))


def convergence_rate(residual_norms: Any, *, floor: float | None = None, last: int = 10) -> float:
    """Return the factor by which the residual fell per iteration, over the `last` ones.

    Parameters are those of :func:`convergence_order`.

    Examples
    --------
    >>> round(convergence_rate([1, 0.5, 0.25, 0.125]), 3)
    0.5
    """
    logs = falling(residual_norms, floor)[-last - 1 :]
    if len(logs) < 2:
        return float("nan")
    return float(np.exp((logs[-1] - logs[0]) / (len(logs) - 1)))


def falling(residual_norms: Any, floor: float | None) -> Array:
    """Return the logarithms of the norms above the floor, since the last that is higher or NaN."""
    norms = np.asarray(residual_norms, float)
    if norms.ndim != 1:
        raise InvalidInput(
            f"residual_norms has shape {norms.shape}; expected those of one sequence, "
            "residual_norms[:, b]"
        )
    broken = np.flatnonzero(~np.isfinite(norms))
    norms = norms[broken[-1] + 1 :] if len(broken) else norms
    least = 1e3 * np.finfo(float).eps * norms.max(initial=0) if floor is None else floor
    logs = np.log(norms[norms > least])
    rises = np.flatnonzero(np.diff(logs) >= 0)
    fallen: Array = logs[rises[-1] + 1 :] if len(rises) else logs
    return fallen


def asymptotic_rate(A: Any, B: Any) -> float:
    """Return the linear rate of an iteration that uses B in place of a constant Jacobian A.

    One iteration maps the error by ``(I - S B)^-1 S (A - B)``. On a long trajectory its powers
    behave like those of its symbol: the rate is the greatest spectral radius of
    ``(z - B)^-1 (A - B)`` on ``|z| = 1``. It holds until the iteration count reaches T, when all
    is exact anyway. With B = 0 (Jacobi) it is the spectral radius of A.

    Parameters
    ----------
    A, B : array_like, shape (d, d)

    Returns
    -------
    float
        1 or more: the iteration does not converge before the exact prefix comes. Infinite where B
        has an eigenvalue on the unit circle, as Picard's ``B = I`` has.

    Notes
    -----
    Source: the symbol of a block Toeplitz operator, Böttcher & Silbermann 1999, chapter 6; the same
    analysis of waveform relaxation, Miekkala & Nevanlinna 1987.

    Examples
    --------
    >>> A = np.array([[0.5, 0.2], [0.2, 0.5]])
    >>> round(asymptotic_rate(A, np.diag(np.diag(A))), 3)  # quasi-Newton: 0.2 / (1 - 0.5)
    0.4
    """
    A, B = np.asarray(A, float), np.asarray(B, float)
    z = np.exp(2j * np.pi * np.arange(FREQUENCIES) / FREQUENCIES)
    try:
        symbol = np.linalg.solve(z[:, None, None] * np.eye(len(A)) - B, A - B)
    except np.linalg.LinAlgError:
        return np.inf
    return float(np.abs(np.linalg.eigvals(symbol)).max())


def effectivity(solution: Solution, h: Any = None) -> Array:
    """Return the ratio of ``solution.error_bound()`` to the true error, at each step.

    At least about 1 where the bound holds; far above 1 where perturbations of different signs
    cancel, which absolute values cannot see.

    Parameters
    ----------
    solution : Solution
    h : array, shape (T, *batch, d), optional
        The exact trajectory, by default the rollout.

    Returns
    -------
    array, shape (T, *batch), of maximum norms; infinite where the error is 0 and the bound is not,
    1 where both are

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> p = prs.problems.load('diagonal_gru', length=50)
    >>> sol = prs.solve(*p[:4], method='chord', atol=1e-6)
    >>> effectivity(sol).shape
    (50,)
    """
    if h is None:
        h = solution.system.empty()
        rollout_system(solution.system, h)
    error, bound = (arrays.on_host(max_norm(v)) for v in (solution.h - h, solution.error_bound()))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = np.where((error == 0) & (bound == 0), 1.0, bound / error)
    return ratio
