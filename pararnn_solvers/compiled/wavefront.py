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
from typing import Any, NamedTuple

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
    program: Program, x: Array | None, h0: Array, guess: Array | None, h: Array, stopping: Any
) -> Front | None:
    """Return what Newton's method converges to, or None where that takes many iterations.

    Parameters
    ----------
    guess : array, shape (T, B, d), optional
        By default ``f(0, x)``.
    h : array, shape (T, B, d)
        Is filled.
    stopping : Stopping
        What residual is allowed, and how many iterations.

    Notes
    -----
    Cost: an evaluation of f and A for each iterate and step, some steps twice, and of f for the
    default guess; one pass over x and h.
    """
    front = _Wavefront(program, x, h0, guess, h, stopping.allowed)
    norms = follow(front, stopping.max_iter)
    return None if norms is None else Front(h, norms, front.evaluations, front.finite)


class Seen(NamedTuple):
    """What is known of each iterate on some steps.

    Attributes
    ----------
    far : array, shape (p + 1, B)
        Greatest residuals.
    solved : array of bool, shape (p + 1, B)
        Whether they are all small enough.
    converged : int
        Steps until the last iterate of any sequence is not.
    finite : bool
    """

    far: Array
    solved: Array
    converged: int
    finite: bool


def follow(front: Any, max_iter: int, growth: int = 2) -> Array | None:
    """Take iterates through time, as many as it takes; return the greatest residual of each.

    Parameters
    ----------
    front : object
        ``front.h (T, B, d)`` is filled. ``front.first(p)`` are the states of p + 1 iterates before
        the first step, ``front.advance(states, since, steps)`` those after some steps and what is
        ``Seen`` there, ``front.repeated(states)`` those of one iterate more, which is the last one
        so far; ``front.redo(sequences, since)`` makes the states of some sequences once more.
    growth : int
        How many times as many steps are done at a time as before.
    """
    T, B, _ = front.h.shape
    most = min(max_iter, MOST_ITERATIONS)
    states = front.first(0)
    since = np.full(most + 2, T)
    far, solved = np.zeros((1, B), front.h.dtype), np.ones((1, B), bool)
    start, stop = 0, -(-T // FIRST_SHARE)
    while start < T:
        p = len(far) - 1
        left, seen = front.advance(states, since, (start, stop))
        if not seen.finite:
            return None
        if seen.converged == stop - start:
            far, solved = np.maximum(far, seen.far), solved & seen.solved
            states, start, stop = left, stop, min(T, growth * stop)
        elif p == most:
            return None
        else:
            since[p + 1] = start + seen.converged
            states = front.repeated(states)
            far, solved = repeating_last(far), repeating_last(solved)
    _close(front, far, solved, since)
    return far


def repeating_last(values: Array) -> Array:
    """Return rows with the last of them once more."""
    return np.concatenate([values, values[-1:]])


def _close(front: Any, far: Array, solved: Array, since: Array) -> None:
    """Give sequences that converged before others did the first iterate that had."""
    needed = solved.argmax(axis=0)
    for p in range(len(far) - 1):
        early = np.flatnonzero(needed == p)
        if len(early):
            far[p:, early] = far[p, early]
            front.redo(early, p, since)


class _Wavefront:
    """A problem, and the kernel that takes iterates of it through time."""

    def __init__(
        self,
        program: Program,
        x: Array | None,
        h0: Array,
        guess: Array | None,
        h: Array,
        allowed: Callable[[Array], Array],
    ) -> None:
        self.program, self.h0, self.h, self.allowed = program, h0, h, allowed
        B = len(h0)
        self.shape = (B, 0 if x is None else x.shape[-1], program.n)
        self.arrays = (flat(x, h.dtype), program.theta, flat(guess, h.dtype), flat(h, h.dtype))
        self.each = divide_rows(program, B, h.size)
        self.evaluations, self.finite = 0, True
        self.fresh = guess is None

    def first(self, p: int) -> list[Array]:
        """Return what is known before the first step: 0, and ``h_0`` for p iterates and two more.

        Of each part of the lanes, which threads share.
        """
        blocks = self.h0.reshape(len(self.h0), self.program.k, self.program.n)
        parts = [blocks[b0:b1, :, c0:c1] for b0, b1, c0, c1 in self.each]
        return [np.concatenate([np.zeros_like(own)[None], *[own[None]] * (p + 2)]) for own in parts]

    def repeated(self, states: list[Array]) -> list[Array]:
        """Return the states with those of another iterate, the last one so far."""
        return [repeating_last(iterates) for iterates in states]

    def redo(self, sequences: Array, p: int, since: Array) -> None:
        """Make p iterations alone, of some sequences."""
        every = self.each
        self.each = [(int(b), int(b) + 1, 0, self.program.n) for b in sequences]
        since = since.copy()
        since[p + 1 :] = len(self.h)
        self.advance(self.first(p), since, (0, len(self.h)))
        self.each = every

    def advance(
        self, states: list[Array], since: Array, steps: tuple[int, int]
    ) -> tuple[list[Array], Seen]:
        """Do some steps; return the states after them, and what is seen there."""
        B, count = self.shape[0], steps[1] - steps[0]
        levels = len(states[0]) - 2
        shared = B > 1  # threads have rows of their own
        norms = self._zeros((1 if shared else len(self.each), levels, 2, count * B))
        rows = [self._zeros((2, *iterates.shape)) for iterates in states]
        spoiled = self._zeros((len(self.each), vector_size(self.program)))
        compute = kernel(self.program, "row", "wavefront", self.program.k)
        calls = []
        for i, lanes in enumerate(self.each):
            rows[i][0] = states[i]
            own = (rows[i].reshape(-1), since, norms[0 if shared else i], spoiled[i])
            calls.append(partial(compute, *self.arrays, *own, self.shape, steps, lanes, levels - 1))
        threads.run(calls)
        sequences = sum(b1 - b0 for b0, b1, _, _ in self.each) if shared else 1
        self.evaluations += (levels + self.fresh) * count * sequences
        self.finite &= bool(np.isfinite(spoiled).all())
        seen = self._seen(norms.max(axis=0).reshape(levels, 2, count, B))
        return [row[0] for row in rows], seen

    def _seen(self, norms: Array) -> Seen:
        far, size = norms[:, 0], norms[:, 1]
        done: Any = far <= self.allowed(size)  # (p + 1, steps, B)
        converged = int(arrays.leading(done[-1].all(axis=-1)))
        return Seen(far.max(axis=1), done.all(axis=1), converged, bool(np.isfinite(norms).all()))

    def _zeros(self, shape: tuple[int, ...]) -> Array:
        return alignment.zeros(shape, self.h.dtype)
