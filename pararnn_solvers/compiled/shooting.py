"""Multiple shooting by kernels: all chunks of time side by side, then what joins them.

Each chunk is rolled out from a guess of its first state. Where the recurrence forgets, it is
enough to run the chunks again from the true end of the one before *until they meet* what is
stored: the rest of it is the continuation. Where it does not, the states at the ends of chunks
are corrected by Newton's method, with the tangents that were carried along.

Source: Bock & Plitt 1984; Gander & Vandewalle 2007.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.compiled.numba_kernels import flat, kernel, parts
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.typing import Array

SHARE = 1 / 16  # of the tolerance is left where chunks meet, so that seams do not add up
MOST_EVALUATIONS = 4  # of each step, before a recurrence is taken for one that does not forget
IN_FLIGHT = 8  # vectors that hide one another's latency


class Shot(NamedTuple):
    """What became of the chunks.

    Attributes
    ----------
    norms : array, shape (max(n_iter) + 1, batch)
        Greatest jump between chunks; from the end of a sequence on the residual of its states.
    n_iter : array of int, shape (batch,)
        Iterations of each sequence: corrections, or one for chunks that run until they meet.
    joined : array of bool, shape (batch,)
        Whether every residual of a sequence is within the tolerance.
    diverged : array of bool, shape (batch,)
        Whether its trajectory is known to be infinite or NaN somewhere.
    evaluations : int
        Steps of one sequence.
    finite : bool
        False if a drive or a state may not be: then look.
    """

    norms: Array
    n_iter: Array
    joined: Array
    diverged: Array
    evaluations: int
    finite: bool


class Chunks:
    """Chunks of S steps of a problem, and the kernels on them."""

    def __init__(self, program: Program, x: Array | None, h: Array, S: int) -> None:
        self.program, self.h, self.S = program, h, S
        self.T, self.B, self.d = h.shape
        self.P = -(-self.T // S)
        self.m = 0 if x is None else x.shape[-1]
        self.arrays = (flat(x, h.dtype), program.theta)
        self.shape = (self.T, self.B, self.m, program.n)
        self.finite = True
        self.where = "row" if kernels.in_rows(program) else "tile"

    def ends(self) -> Array:
        """Return the last states of all chunks but the last, (P - 1, B, d)."""
        return self.h[self.S - 1 :: self.S][: self.P - 1]

    def tiles(self) -> list[tuple[Any, ...]]:
        """Return the lanes of each thread, S, and how many lanes a tile has."""
        lanes = self.P * self.B
        L = kernels.lanes_of_a_tile(self.program, self.m, lanes)
        return [(piece, self.S, L) for piece in parts(lanes, self.h.size, L)]

    def sweep(self, carry: Array) -> None:
        """Roll all chunks out, from and to ``carry`` (P, B, K n)."""
        k, n = self.program.k, self.program.n
        sweep = kernel(self.program, self.where, "sweep", k, carry.shape[-1] // n)
        arrays = (*self.arrays, carry.reshape(-1), self.h.reshape(-1))
        calls: list[tuple[Any, ...]]
        if self.where == "tile":
            calls = self.tiles()
        else:
            vectors = self.B * -(-n // kernels.vector_size(self.program))
            together = max(1, IN_FLIGHT // max(1, vectors))
            lanes = (0, self.B, 0, n)
            calls = [(piece, self.S, together, lanes) for piece in parts(self.P, self.h.size)]
        spoiled = np.empty((len(calls), kernels.vector_size(self.program)), self.h.dtype)
        pairs = zip(spoiled, calls, strict=True)
        threads.run([partial(sweep, *arrays, bad, self.shape, *call) for bad, call in pairs])
        self.finite &= bool(np.isfinite(spoiled).all())

    def meet(self, starts: Array, atol: float, rtol: float) -> tuple[Array, Array]:
        """Run chunks again until they meet; return the steps taken and what is left.

        ``starts`` (P, B, d) become the states where chunks met, or their ends.
        """
        meet = kernel(self.program, self.where, "meet", self.program.k)
        taken = np.zeros(self.P * self.B, np.int64)
        tolerance = (self.h.dtype.type(atol), self.h.dtype.type(rtol))
        calls: list[tuple[Any, ...]]
        if self.where == "tile":
            calls = self.tiles()
        else:
            lanes = (0, self.B, 0, self.program.n)
            calls = [(p, self.S, lanes) for p in parts(self.P, self.h.size)]
        residual = np.zeros((len(calls), self.B), self.h.dtype)
        spoiled = np.empty((len(calls), kernels.vector_size(self.program)), self.h.dtype)
        given = (*self.arrays, starts.reshape(-1), self.h.reshape(-1))
        threads.run(
            [
                partial(meet, *given, bad, taken, left, self.shape, *call, *tolerance)
                for bad, left, call in zip(spoiled, residual, calls, strict=True)
            ]
        )
        self.finite &= bool(np.isfinite(spoiled).all())
        return taken.reshape(self.P, self.B), residual.max(axis=0, initial=0)


def first_guess(h0: Array, P: int, guess: Array | None) -> Array:
    """Return states to start P chunks from: those of a guess at the ends of chunks, or ``h_0``."""
    starts = np.broadcast_to(h0, (P, *h0.shape)).copy()
    if guess is not None:
        starts[1:] = guess[: P - 1]
    return starts


def same(a: Array, b: Array) -> Any:
    """Tell which states are equal, NaN to NaN."""
    return ((a == b) | ((a != a) & (b != b))).all(axis=-1)


def jumps(ends: Array, starts: Array) -> Array:
    """Return the greatest jump from the end of a chunk to the start of the next, shape (B,)."""
    with np.errstate(invalid="ignore"):
        jump: Array = np.abs(ends - starts).max(axis=(0, 2), initial=0)
    return jump


def shoot(
    program: Program,
    x: Array | None,
    h0: Array,
    h: Array,
    S: int,
    atol: float,
    rtol: float,
    guess: Array | None = None,
) -> Shot:
    """Fill ``h (T, B, d)`` by chunks of S steps that run until they meet.

    Every pass starts each chunk at the end of the one before as it was at the beginning of the
    pass, so that the result depends on no order of threads. Chunks that do not meet within S
    steps change the start of the next: another pass.

    Notes
    -----
    Cost: one evaluation of each step, and one more of those before chunks meet.
    """
    chunks = Chunks(program, x, h, S)
    T, B, _ = h.shape
    starts = first_guess(h0, chunks.P, guess)
    chunks.sweep(alignment.copy(starts))
    norms = [jumps(chunks.ends(), starts[1:])]
    residual, evaluations = np.zeros(B, h.dtype), T * B
    while True:
        true, settled, diverged = joints(h0, chunks.ends(), starts)
        changed = ~same(true, starts).all(axis=0) & ~diverged
        if not changed.any() or evaluations > MOST_EVALUATIONS * T * B:
            residual = np.where(settled, residual, jumps(true, starts))
            residual[diverged] = np.nan
            finite = chunks.finite and not diverged.any()
            once, shot = np.ones(B, int), np.stack([*norms, residual])
            return Shot(shot, once, settled & ~diverged, diverged, evaluations, finite)
        starts = np.where(changed[:, None], true, starts)
        taken, left = chunks.meet(alignment.copy(starts), SHARE * atol, SHARE * rtol)
        residual = np.maximum(residual, left)
        evaluations += int(taken.sum())


def joints(h0: Array, ends: Array, starts: Array) -> tuple[Array, Array, Array]:
    """Return where chunks should start, and which sequences are settled or have diverged.

    A chunk should start at the end of the one before; but not at one that is not finite because
    that chunk itself started wrong, as a guess may overflow where the trajectory does not.

    Returns
    -------
    true : array, shape (P, B, d)
    settled, diverged : arrays of bool, shape (B,)
    """
    true = np.concatenate([h0[None], ends])[: len(starts)]
    right = np.logical_and.accumulate(same(true, starts), axis=0)  # up to this chunk
    finite = np.isfinite(true).all(axis=-1)
    diverged = (right[:-1] & ~finite[1:]).any(axis=0)
    trusted = finite[1:] | right[:-1]
    true[1:] = np.where(trusted[..., None], true[1:], starts[1:])
    settled: Any = right.all(axis=0)
    return true, settled, diverged


def shoot_newton(
    program: Program,
    x: Array | None,
    h0: Array,
    h: Array,
    S: int,
    atol: float,
    rtol: float,
    scan: Any,
    max_iter: int,
    guess: Array | None = None,
) -> Shot:
    """Fill ``h (T, B, d)`` by chunks of S steps whose first states Newton's method corrects.

    Notes
    -----
    Cost of an iteration: one evaluation of each step with its tangent, one more where chunks begin,
    and one linear recurrence over the chunks.
    """
    chunks = Chunks(program, x, h, S)
    T, B, d = h.shape
    k, n, P = program.k, program.n, chunks.P
    starts = first_guess(h0, P, guess)
    identity = np.broadcast_to(np.eye(k, dtype=h.dtype)[:, :, None], (P, B, k, k, n))
    norms: list[Array] = []
    n_iter = np.zeros(B, int)
    for i in range(max_iter + 1):
        carry = alignment.copy(np.concatenate([starts, identity.reshape(P, B, k * k * n)], axis=-1))
        chunks.sweep(carry)
        ends, blocks = chunks.ends(), carry[:-1, :, d:].reshape(P - 1, B, k, k, n)
        with np.errstate(all="ignore"):
            jump = ends - starts[1:]
        norms.append(np.abs(jump).max(axis=(0, 2), initial=0))
        tolerance = SHARE * (atol + rtol * np.abs(ends).max(axis=-1, initial=0))
        joined = (np.abs(jump).max(axis=-1, initial=0) <= tolerance).all(axis=0)
        # A small jump is a large residual where f is steep; what is left is rounding once it rests.
        residual, met = seams(program, x, h, S, atol, rtol)
        rests = norms[-1] >= norms[-2] / 2 if i else norms[-1] == 0
        open_ = ~(joined & (met | rests)) & np.isfinite(norms[-1])
        if not open_.any() or i == max_iter:
            break
        with np.errstate(all="ignore"):
            change = scan(blocks, np.ascontiguousarray(jump))
        starts[1:, open_] += change[:, open_]
        n_iter += open_
    _, _, diverged = joints(h0, ends, starts)
    finite, taken = chunks.finite and bool(joined.all()), len(norms) * T * B
    shot = ended(np.stack(norms), n_iter, residual)
    return Shot(shot, n_iter, met & ~diverged, diverged, taken, finite)


def ended(norms: Array, n_iter: Array, residual: Array) -> Array:
    """Return norms by iteration with the residual where a sequence ended, and from there on."""
    return np.where(np.arange(len(norms))[:, None] < n_iter, norms, residual)


def seams(
    program: Program, x: Array | None, h: Array, S: int, atol: float, rtol: float
) -> tuple[Array, Array]:
    """Return the residual where chunks begin, and whether it is within the tolerance; shape (B,).

    Elsewhere each state is what the step returned.
    """
    first = h[S::S]
    f = kernels.evaluate(program, h[S - 1 :: S][: len(first)], None if x is None else x[S::S])
    with np.errstate(all="ignore"):
        residual = np.abs(first - f).max(axis=-1, initial=0)
        allowed = atol + rtol * np.abs(first).max(axis=-1, initial=0)
    within: Array = np.all(residual <= allowed, axis=0)
    return residual.max(axis=0, initial=0), within


def shoot_either(
    ways: Sequence[Callable[..., Shot]],
    x: Array | None,
    h0: Array,
    h: Array,
    guess: Array | None,
    *,
    max_iter: int,
) -> Shot:
    """Fill ``h`` by the first of two ways, and the sequences that it leaves by the second.

    The second begins at the guess again, in the row of `norms` where the first left a sequence.

    Parameters
    ----------
    ways : pair of callables
        From ``(x, h0, h, guess, max_iter)`` to a :class:`Shot`, on the host or on a device.
    max_iter : int
        Most iterations of a sequence in both; at least one, which is what chunks take that run
        until they meet.
    """
    first, second = ways
    shot = first(x, h0, h, guess, max_iter)
    left = ~(shot.joined | shot.diverged) & (shot.n_iter < max_iter)
    if not left.any():
        return shot
    rest = arrays.positions(left, h)
    h_left = np.ascontiguousarray(h[:, rest], like=h)
    few, guess = (None if a is None else a[:, rest] for a in (x, guess))
    more = max_iter - int(shot.n_iter[left].max())  # if the second counts, all have taken one
    other = second(few, h0[rest], h_left, guess, more)
    h[:, rest] = h_left
    n_iter, joined, diverged = (a.copy() for a in (shot.n_iter, shot.joined, shot.diverged))
    n_iter[left] += other.n_iter
    joined[left], diverged[left] = other.joined, other.diverged
    norms = account(shot, left, other.norms, n_iter.max())
    evaluations = shot.evaluations + other.evaluations
    return Shot(norms, n_iter, joined, diverged, evaluations, shot.finite and other.finite)


def account(shot: Shot, left: Array, further: Array, n_iter: int) -> Array:
    """Return the norms of sequences of which some went on, each from the row where it was left."""
    rows = np.arange(n_iter + 1)[:, None]
    norms: Array = np.take(shot.norms, rows[:, 0], axis=0, mode="clip")
    later = rows - shot.n_iter[left]
    column = np.arange(further.shape[1])
    norms[:, left] = np.where(
        later < 0, norms[:, left], further[np.clip(later, 0, len(further) - 1), column]
    )
    return norms
