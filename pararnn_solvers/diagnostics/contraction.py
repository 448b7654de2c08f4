"""Contraction along a trajectory, and the conditioning of ``I - S A`` that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararnn_solvers.bidiagonal import BlockBidiagonal, block_matmul
from pararnn_solvers.checks import require_whole
from pararnn_solvers.diagnostics.jacobians import linearized, matrices, rescaled
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import load as load_scan
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import make_system

EXACT_SIZE = 256  # unknowns of one sequence up to which singular values are computed
PRECISION = 1e-4


def contraction_rate(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    h: Any = None,
    span: int = 1,
    norm: float = 2,
) -> float:
    """Return the greatest ``|A_{t+span-1} ⋯ A_t|^(1/span)`` along the trajectory.

    Below 1, any perturbation is smaller `span` steps later, wherever it happened: the recurrence
    contracts. The logarithm is not below the largest Lyapunov exponent, and approaches it for long
    spans where growth is uniform in time.

    Parameters
    ----------
    recurrence, x, h0, theta, steps
        Those of :func:`pararnn_solvers.solve`.
    h : array, shape (T, *batch, d), optional
        The trajectory, if it is known; otherwise it is rolled out.
    span : int
        At most T.
    norm : {2, numpy.inf, 1}
        Of the matrices.

    Returns
    -------
    float, per step; the greatest of all sequences

    Raises
    ------
    InvalidInput

    Notes
    -----
    Cost: the blocks of all steps, and ``span - 1`` products of all of them at once.

    Source: Lohmiller & Slotine 1998, "On contraction analysis for non-linear systems".

    Examples
    --------
    >>> R = np.array([[0.5, 3.0], [0.0, 0.5]])  # of spectral radius 0.5
    >>> [round(contraction_rate(lambda h, x, R: h @ R.T, None, np.ones(2), R, steps=60, span=span),
    ...        2) for span in (1, 10, 60)]
    [3.08, 0.75, 0.55]
    """
    system = make_system(recurrence, x, h0, theta, steps)
    require_whole("span", span)
    T = system.shape[0]
    if span > T:
        raise InvalidInput(f"span is {span}; expected at most the {T} steps there are")
    blocks = linearized(system, h)
    G, logarithms = rescaled(blocks[: T - span + 1])
    for s in range(1, span):
        G, scale = rescaled(block_matmul(blocks[s : T - span + 1 + s], G))
        logarithms += scale
    with np.errstate(divide="ignore"):
        size = np.log(np.linalg.norm(matrices(G), norm, axis=(-2, -1))) + logarithms
    return float(np.exp(size.max() / span))


@dataclass(frozen=True)
class Conditioning:
    """The norms of ``M = I - S A`` and of its inverse, in the Euclidean norm.

    ``|M^-1|`` says by how much the error of a trajectory can exceed its residual, to first order.

    Examples
    --------
    >>> import numpy as np
    >>> found = conditioning(lambda h, x, a: a * h, None, np.ones(1), 0.5, steps=3)
    >>> round(found.inverse_norm, 2)
    1.47
    """

    norm: float
    inverse_norm: float

    @property
    def number(self) -> float:
        """The condition number ``|M| |M^-1|``."""
        return self.norm * self.inverse_norm


def conditioning(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    h: Any = None,
    backend: str = "numba",
) -> Conditioning:
    """Return the norms of the Newton matrix ``I - S A`` at a trajectory, and of its inverse.

    Where perturbations shrink by r each step the inverse is at most ``1 / (1 - r)``, whatever T;
    where they are kept it grows with T, and where they grow it grows exponentially.

    Parameters
    ----------
    recurrence, x, h0, theta, steps
        Those of :func:`pararnn_solvers.solve`.
    h : array, shape (T, *batch, d), optional
        The trajectory, if it is known; otherwise it is rolled out.
    backend : str
        What solves the linear recurrences.

    Returns
    -------
    Conditioning
        Of the worst sequence; infinite where the inverse overflows.

    Notes
    -----
    Cost: singular values of a dense matrix up to 256 unknowns; beyond, some ten to a few hundred
    linear recurrences forwards and as many backwards, by Lanczos' method, to a relative precision
    of about 1e-4 from below.

    Source: Golub & Van Loan, "Matrix Computations", section 10.4; Gonzalez et al. 2025
    (arXiv 2508.16817), section 4, for the role of this matrix.

    Examples
    --------
    >>> M = conditioning(lambda h, x, a: a * h, None, np.ones(1), 0.9, steps=200)
    >>> round(M.norm, 1), round(M.inverse_norm)
    (1.9, 10)
    """
    system = make_system(recurrence, x, h0, theta, steps)
    matrix = BlockBidiagonal(linearized(system, h))
    return matrix_conditioning(matrix, system.shape, load_scan(backend))


def matrix_conditioning(matrix: BlockBidiagonal, shape: tuple[int, ...], scan: Any) -> Conditioning:
    """Return the norms of a matrix that acts on trajectories of this shape, and of its inverse.

    Examples
    --------
    >>> import numpy as np
    >>> from pararnn_solvers.linear import load
    >>> matrix = BlockBidiagonal(np.full((3, 1, 1, 1), 0.5))
    >>> round(matrix_conditioning(matrix, (3, 1), load('sequential')).inverse_norm, 2)
    1.47
    """

    def norm(forwards: Callable[[Array], Array], backwards: Callable[[Array], Array]) -> float:
        return operator_norm(
            lambda v: forwards(v.reshape(shape)).ravel(),
            lambda v: backwards(v.reshape(shape)).ravel(),
            int(np.prod(shape)),
        )

    return Conditioning(
        norm(matrix.matvec, matrix.rmatvec),
        norm(lambda v: matrix.solve(v, scan), lambda v: matrix.solve_adjoint(v, scan)),
    )


def operator_norm(
    forwards: Callable[[Array], Array], backwards: Callable[[Array], Array], size: int
) -> float:
    """Return the largest singular value of an operator on vectors, given with its adjoint."""
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    if size <= EXACT_SIZE:
        columns = np.stack([forwards(unit) for unit in np.eye(size)])
        return float(np.linalg.norm(columns, 2)) if np.isfinite(columns).all() else np.inf
    v = np.random.default_rng(0).standard_normal(size)
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(backwards(forwards(v))).all():
            return np.inf
        gram = LinearOperator((size, size), lambda v: backwards(forwards(v)), dtype=np.float64)
        try:
            largest = eigsh(gram, k=1, v0=v, tol=PRECISION, return_eigenvectors=False)
        except ArpackError:  # it overflowed on the way
            return np.inf
    return float(np.sqrt(largest[0]))
