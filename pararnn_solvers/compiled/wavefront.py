"""Newton's method on a whole trajectory in one pass: all iterations go through time together.

The iterates are those of one iteration after another. That leaves alone what has converged from the
beginning on, so that each iterate is the one before it up to some step. How many iterations it
takes, and at which step each begins, shows as time goes on: a few steps are done first, then as
many again, and so on; where the last iterate has not converged, the same steps are done once more,
with another that begins there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.compiled.numba_kernels import divide_rows, flat, kernel, parts, vector_size
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.typing import Array

FEWEST_STEPS = 64
FIRST_SHARE = 64  # of the steps are done with the guess alone, then with one iteration ...
MOST_ITERATIONS = 8  # that go together

Lanes = tuple[int, int, int, int]
Allowed = Callable[[Array], Array]


class Front(NamedTuple):
    """What the iterations led to.

    Attributes
    ----------
    h : array, shape (T, B, d)
    norms : array, shape (n_iter + 1, B)
        Greatest residual of each iterate.
    evaluations : int
        Steps of one sequence.
    finite : bool
        False if a drive may not be: then look.
    """

    h: Array
    norms: Array
    evaluations: int
    finite: bool


def pays(program: Program, shape: tuple[int, ...]) -> bool:
    """Tell whether rows fill vectors, and occupy the threads that there is work for."""
    T, B, d = shape
    numbers = T * B * d
    enough = numbers > 0 and program.n >= vector_size(program) and T >= FEWEST_STEPS
    return enough and len(divide_rows(program, B, numbers)) == len(parts(numbers, numbers))


def iterate(
    program: Program,
    x: Array | None,
    h0: Array,
    guess: Array | None,
    h: Array,
    allowed: Allowed,
    max_iter: int,
) -> Front | None:
    """Return what Newton's method converges to, or None where that takes many iterations.

    Parameters
    ----------
    guess : array, shape (T, B, d), optional
        By default ``f(0, x)``.
    h : array, shape (T, B, d)
        Is filled.
    allowed : callable
        From ``|h_t|`` to the greatest residual allowed there.

    Notes
    -----
    Cost: an evaluation of f and A for each iterate and step, some steps twice, and of f for the
    default guess; one pass over x and h.
    """
    most, front = min(max_iter, MOST_ITERATIONS), _Wavefront(program, x, h0, guess, h)
    T, B, _ = h.shape
    each = divide_rows(program, B, h.size)
    states = [_first(program, h0, lanes, 0) for lanes in each]
    since = np.full(most + 2, T)
    far, solved = np.zeros((1, B), h.dtype), np.ones((1, B), bool)
    start, stop = 0, -(-T // FIRST_SHARE)
    while start < T:
        p = len(far) - 1
        left, norms = front.advance(each, states, since, (start, stop))
        if not np.isfinite(norms).all():
            return None
        done = norms[:, 0] <= allowed(norms[:, 1])  # (p + 1, steps, B)
        converged = int(arrays.leading(done[p].all(axis=-1)))
        if converged == stop - start:
            far, solved = np.maximum(far, norms[:, 0].max(axis=1)), solved & done.all(axis=1)
            states, start, stop = left, stop, min(T, 2 * stop)
        elif p == most:
            return None
        else:
            since[p + 1] = start + converged
            states = [_repeating_last(iterates) for iterates in states]
            far, solved = _repeating_last(far), _repeating_last(solved)
    _close(front, far, solved, since, h0)
    return Front(h, far, front.evaluations, front.finite)


def _repeating_last(values: Array) -> Array:
    return np.concatenate([values, values[-1:]])


def _first(program: Program, h0: Array, lanes: Lanes, p: int) -> Array:
    """Return what is known before the first step: 0, and ``h_0`` for p iterates and two more."""
    b0, b1, c0, c1 = lanes
    own = h0.reshape(len(h0), program.k, program.n)[b0:b1, :, c0:c1]
    return np.concatenate([np.zeros_like(own)[None], *[own[None]] * (p + 2)])


def _close(front: _Wavefront, far: Array, solved: Array, since: Array, h0: Array) -> None:
    """Give sequences that converged before others did the first iterate that had."""
    needed = solved.argmax(axis=0)
    for p in range(len(far) - 1):
        early = np.flatnonzero(needed == p)
        if not len(early):
            continue
        far[p:, early] = far[p, early]
        each = [(int(b), int(b) + 1, 0, front.program.n) for b in early]
        begun = since.copy()
        begun[p + 1 :] = len(front.h)
        states = [_first(front.program, h0, lanes, p) for lanes in each]
        front.advance(each, states, begun, (0, len(front.h)))


class _Wavefront:
    """A problem, and the kernel that takes iterates of it through time."""

    def __init__(
        self, program: Program, x: Array | None, h0: Array, guess: Array | None, h: Array
    ) -> None:
        self.program, self.h = program, h
        T, B, _ = h.shape
        self.shape = (B, 0 if x is None else x.shape[-1], program.n)
        self.arrays = (flat(x, h.dtype), program.theta, flat(guess, h.dtype), flat(h, h.dtype))
        self.evaluations, self.finite = 0, True
        self.fresh = guess is None

    def advance(
        self, each: list[Lanes], states: list[Array], since: Array, steps: tuple[int, int]
    ) -> tuple[list[Array], Array]:
        """Do some steps; return the states after them, and the norms (p + 1, 2, steps, B)."""
        B, count = self.shape[0], steps[1] - steps[0]
        levels = len(states[0]) - 2
        shared = B > 1  # threads have rows of their own
        norms = self._zeros((1 if shared else len(each), levels, 2, count * B))
        rows = [self._zeros((2, *iterates.shape)) for iterates in states]
        spoiled = self._zeros((len(each), vector_size(self.program)))
        compute = kernel(self.program, "row", "wavefront", self.program.k)
        calls = []
        for i, lanes in enumerate(each):
            rows[i][0] = states[i]
            own = (rows[i].reshape(-1), since, norms[0 if shared else i], spoiled[i])
            calls.append(partial(compute, *self.arrays, *own, self.shape, steps, lanes, levels - 1))
        threads.run(calls)
        sequences = sum(b1 - b0 for b0, b1, _, _ in each) if shared else 1
        self.evaluations += (levels + self.fresh) * count * sequences
        self.finite &= bool(np.isfinite(spoiled).all())
        return [row[0] for row in rows], norms.max(axis=0).reshape(levels, 2, count, B)

    def _zeros(self, shape: tuple[int, ...]) -> Array:
        return alignment.zeros(shape, self.h.dtype)
