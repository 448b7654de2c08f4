"""Iterations on the ABC flow, by what is solved for and by how a linear recurrence is summed up.

In exact arithmetic it is all the same. Where perturbations grow, rounding in the linear recurrence
grows as well: of whole states, if they are the unknowns, but only of the updates where these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pararnn_solvers import linear
from pararnn_solvers.bidiagonal import block_matmul, block_matvec
from pararnn_solvers.problems import FLOWS, Problem, flow
from pararnn_solvers.reproduction.anchor import MERIT, Row
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

Solver = Callable[[Array, Array], Array]  # of a linear recurrence


def composed(A: Array, a: Array, B: Array, b: Array) -> tuple[Array, Array]:
    """Return the map ``h -> B (A h + a) + b`` as a matrix and a vector, for many at once."""
    return block_matmul(B, A), block_matvec(B, a) + b


def associative(A: Array, b: Array) -> tuple[Array, Array]:
    """Return the products ``A_t ... A_1`` and the states ``h_t = A_t h_{t-1} + b_t``, from h_0 = 0.

    Neighbours are composed, half as many pairs are solved, and what lies between is filled in:
    the order of ``jax.lax.associative_scan``. Source: Blelloch 1990.
    """
    if len(b) == 1:
        return A, b
    products, h = np.empty_like(A), np.empty_like(b)
    products[0], h[0] = A[0], b[0]
    odd = associative(*composed(A[:-1:2], b[:-1:2], A[1::2], b[1::2]))
    products[1::2], h[1::2] = odd
    inner = len(b[2::2])
    products[2::2], h[2::2] = composed(odd[0][:inner], odd[1][:inner], A[2::2], b[2::2])
    return products, h


def by_pairs(blocks: Array, rhs: Array) -> Array:
    """Return the states of `associative`, with the arguments of a backend.

    Examples
    --------
    >>> by_pairs(np.full((3, 1, 1, 1), 0.5), np.array([[1.0], [0.0], [0.0]])).ravel()
    array([1.  , 0.5 , 0.25])
    """
    with np.errstate(all="ignore"):
        return associative(blocks, rhs)[1]


def by_blocks(blocks: Array, rhs: Array) -> Array:
    """Return the same by the backend of this package, which cuts time into few long pieces."""
    return linear.load("numba")(blocks, rhs)


def updates(system: System, h: Array, f: Array, scan: Solver) -> Array:
    """Return Newton's next iterate, solved for as ``h`` plus an update."""
    return h + scan(system.linearize(h), f - h)


def states(system: System, h: Array, f: Array, scan: Solver) -> Array:
    """Return Newton's next iterate, solved for itself: ``h' = A (h'_{t-1} - h_{t-1}) + f``."""
    blocks = system.linearize(h)
    rhs = f - block_matvec(blocks, system.previous(h))
    rhs[0] = f[0]
    return scan(blocks, rhs)


UNKNOWNS = {"states": states, "updates": updates}
ORDERS: dict[str, Solver] = {"by pairs": by_pairs, "as here": by_blocks}


def iterations(problem: Problem, unknowns: str, order: str) -> int:
    """Count iterations until ``|F|^2 / (2 T)`` of the states they start from is at most `MERIT`."""
    system = System(*problem[:4], problem.steps)
    h, count, merit = np.asarray(problem.guess), 0, np.inf
    while merit > MERIT and count < problem.steps:
        f = system.evaluate(system.previous(h))
        merit = np.square(h - f).sum() / (2 * problem.steps)
        h = UNKNOWNS[unknowns](system, h, f, ORDERS[order])
        count += 1
    return count


def abc() -> Iterator[Row]:
    """Count iterations on the ABC flow four ways, the first of which is the source's."""
    problem, theirs = flow("abc"), FLOWS["abc"].system_iterations
    published = {("states", "by pairs"): str(theirs)}
    for unknowns in UNKNOWNS:
        for order in ORDERS:
            case = (unknowns, order)
            count = iterations(problem, *case)
            same = abs(count - theirs) <= 0.1 * theirs
            agrees = same if case in published else count < 0.9 * theirs
            yield Row(", ".join(case), published.get(case, "-"), str(count), agrees)
