"""Multiple shooting by CUDA kernels: two launches and one look, where chunks forget.

The method is that of :mod:`.shooting`; what there is done with arrays of chunks between kernels is
here done in the kernel that joins them, since launches are expected to take longer than it. So two
launches fill the trajectory: ``sweep`` rolls all chunks out, ``meet`` starts each again at the end
of the one before until it meets what is stored, and says whether anything is left to do.

Source: Bock & Plitt 1984; Gander & Vandewalle 2007.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.compiled import cuda_kernels as kernels
from pararnn_solvers.compiled import cuda_launch
from pararnn_solvers.compiled.cuda_program import CudaProgram
from pararnn_solvers.compiled.shooting import MOST_EVALUATIONS, SHARE, Shot, ended
from pararnn_solvers.compiled.shooting_policy import Memory
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

__all__ = [
    "best_chunk",
    "chunk_length",
    "forgetting",
    "shoot",
    "shoot_newton",
]

MOVED, DOUBTED, DIVERGED = 1, 2, 4  # bits of the status of a sequence, as in shooting.cu
IN_FLIGHT = 512  # threads of a multiprocessor that hide the latency of a step
SHORTEST = 32  # steps of a chunk
ITERATIONS = 4.0  # of Newton's method, about, where chunks do not forget
SETUP = 500.0  # steps, which take as long as launches and looks at what they found
PROBED = 64  # steps at most, of few chunks, and not more than a small part of all
PROBED_CHUNKS, PROBED_SHARE = 8, 2
NEWTON_SHARE = 1 / 2  # of the tolerance: what Newton's method leaves, SHARE of it, may grow to


def chunk_length(T: int, lanes: int, memory: float = 0.0) -> int:
    """Return how many steps a chunk should have: T is not to shoot at all.

    So many chunks that every multiprocessor has IN_FLIGHT threads; but none shorter than what the
    recurrence remembers, since it would not meet what is stored before its end.

    Parameters
    ----------
    lanes : int
        Channels of all sequences.
    memory : float
        Steps after which the recurrence has forgotten where it began.
    """
    wanted = cuda.multiprocessors() * IN_FLIGHT / max(1, lanes)
    steps = max(SHORTEST, memory, T / max(1.0, wanted))
    whole = -(-int(np.ceil(min(steps, T))) // SHORTEST) * SHORTEST
    return T if 2 * whole > T else whole


def best_chunk(program: CudaProgram, B: int, T: int, memory: Memory) -> tuple[int, float]:
    """Return the chunk of :func:`chunk_length`, and what shooting costs as a share of stepping.

    Where threads fill the device, time goes with their number; otherwise with the steps of one.
    """
    lanes, room = B * program.n, cuda.multiprocessors() * IN_FLIGHT
    forgets = memory.steps < T
    S = chunk_length(T, lanes, memory.steps if forgets else 0.0)
    if S >= T or not lanes:
        return max(1, T), 1.0
    busy = max(1.0, lanes * -(-T // S) / room)
    steps = S + memory.steps if forgets else ITERATIONS * S
    return S, (SETUP + busy * steps) / (T * max(1.0, lanes / room))


def forgetting(program: CudaProgram, x: Array | None, h0: Array, T: int) -> Memory:
    """Estimate how soon trajectories meet, from products of Jacobians on a few chunks.

    The largest product of all chunks and lanes tells by which factor close states approach in a
    step, at least.

    Cost: PROBED steps with their tangents, and one number for the host to wait for.
    """
    xp = cuda.cupy()
    P = PROBED_CHUNKS
    S = min(PROBED, T // (P * PROBED_SHARE))
    if S < 2 or not h0.size:
        return Memory(math.inf, math.nan)
    h = xp.empty((P * S, *h0.shape), h0.dtype)
    chunks = Chunks(program, None if x is None else x[: P * S], h0, h, S, None)
    tangents = xp.empty((P, len(h0), program.k, program.k, program.n), h0.dtype)
    chunks.sweep(tangents)
    largest = float(abs(tangents).sum(axis=3).max())
    if largest == 0:
        return Memory(float(S), math.nan)
    rate = math.log(largest) / S if math.isfinite(largest) else math.nan
    if not rate < 0:
        return Memory(math.inf, rate)
    return Memory(math.log(float(np.finfo(h0.dtype).eps)) / rate, rate)


class Chunks:
    """Chunks of S steps of a problem, where they started and ended, and what they report."""

    def __init__(
        self, program: CudaProgram, x: Array | None, h0: Array, h: Array, S: int, guess: Any
    ) -> None:
        xp = cuda.cupy()
        self.program, self.x, self.h, self.S = program, x, h, S
        self.h0 = xp.ascontiguousarray(h0)
        T, B, d = h.shape
        self.P = -(-T // S)
        self.starts = xp.empty((self.P, B, d), h.dtype)
        self.starts[...] = self.h0
        if guess is not None:
            self.starts[1:] = guess[: self.P - 1]
        self.ends = self.starts
        self.account = xp.zeros(B + 2, np.uint64)  # status of each sequence, steps taken, spoiled
        self.right = xp.zeros((B, program.n), np.int64)

    def sweep(self, tangents: Array | None = None) -> None:
        """Roll all chunks out."""
        self.ends = kernels.sweep(
            self.program, self.x, self.starts, self.h, self.S, self.account[-1:], tangents
        )

    def meet(self, jump: Array, left: Array, atol: float, rtol: float) -> Array:
        """Run chunks again until they meet; return the account, and raise ``jump`` and ``left``."""
        xp = cuda.cupy()
        program, h = self.program, self.h
        state = cuda_launch.states_stream(program)
        streams = (cuda_launch.drives_stream(program, self.x), state)
        launched = cuda_launch.plan(program, h.shape, self.S, streams)
        new_ends = xp.empty_like(self.ends)
        arrays = (
            cuda_launch.drives(program, self.x),
            program.theta,
            self.h0,
            self.starts,
            self.ends,
            new_ends,
            self.right,
            h,
            jump,
            left,
            self.account,
            self.account[-1:],
            self.account[-2:-1],
        )
        tolerance = (h.dtype.type(atol), h.dtype.type(rtol))
        cuda_launch.run(program, "meet", launched, h.shape, arrays, *tolerance)
        self.ends = new_ends
        found: Array = self.account.get()
        return found

    def count_right(self) -> None:
        """Find out how many chunks of each lane started right."""
        B, n = self.right.shape
        threads = cuda_launch.block_size(B * n)
        kernel = cuda.kernel(self.program.code, "count_right")
        arrays = (self.h0, self.starts, self.ends, self.right)
        sizes = map(np.int64, (B, n, self.P))
        cuda.launch(kernel, -(-B * n // threads), threads, [*arrays, *sizes])

    def jumps(self) -> Array:
        """Return the greatest jump from the end of a chunk to the start of the next, shape (B,)."""
        found: Array = abs(self.ends[:-1] - self.starts[1:]).max(axis=(0, 2)).get()
        return found


def shoot(
    program: CudaProgram,
    x: Array | None,
    h0: Array,
    h: Array,
    S: int,
    atol: float,
    rtol: float,
    guess: Array | None = None,
) -> Shot:
    """Fill ``h (T, B, d)`` by chunks of S steps that run until they meet.

    Notes
    -----
    Cost: one evaluation of each step, and one more of those before chunks meet.
    """
    chunks = Chunks(program, x, h0, h, S, guess)
    chunks.sweep()
    return join(chunks, None, h.shape[0] * h.shape[1], SHARE * atol, SHARE * rtol)


def join(
    chunks: Chunks, norms: list[Array] | None, evaluations: int, atol: float, rtol: float
) -> Shot:
    """Run chunks again from the ends of those before until nothing changes, or it takes too long.

    `norms` are those of iterations before; None stands for the jumps that are met at first.

    The result depends on no order of threads: each pass starts chunks at ends as they were before
    it, and channels are joined one by one.
    """
    xp = cuda.cupy()
    T, B, _ = chunks.h.shape
    diverged = np.zeros(B, bool)
    first, left = xp.zeros((2, B), chunks.h.dtype)
    jump, most = first, evaluations + (MOST_EVALUATIONS - 1) * T * B
    while True:
        account = chunks.meet(jump, left, atol, rtol)
        status, taken, spoiled = account[:-2], int(account[-2]), bool(account[-1])
        diverged |= (status & DIVERGED) > 0
        settled = (status & (MOVED | DOUBTED)) == 0
        spent = evaluations + -(-taken // chunks.program.n)
        if (settled | diverged).all() or spent > most:
            break
        if (status & DOUBTED).any():
            chunks.count_right()
        chunks.account[:-2], jump = 0, xp.zeros(B, chunks.h.dtype)
    residual = left.get() if settled.all() else np.where(settled, left.get(), chunks.jumps())
    residual[diverged] = np.nan
    finite = not (spoiled or diverged.any())
    before = [first.get()] if norms is None else norms
    shot = np.stack([*before, residual])
    return Shot(shot, np.ones(B, int), settled & ~diverged, diverged, spent, finite)


def shoot_newton(
    program: CudaProgram,
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
    Cost of an iteration: one evaluation of each step with its tangent, and one linear recurrence
    over the chunks. At the end the chunks are joined, as by :func:`shoot`.
    """
    xp = cuda.cupy()
    chunks = Chunks(program, x, h0, h, S, guess)
    T, B, _ = h.shape
    k, n, P = program.k, program.n, chunks.P
    tangents = xp.empty((P, B, k, k, n), h.dtype)
    norms: list[Array] = []
    n_iter = np.zeros(B, int)
    for i in range(max_iter + 1):
        chunks.sweep(tangents)
        ends = chunks.ends[:-1]
        jump = ends - chunks.starts[1:]
        far, allowed = abs(jump).max(axis=2), SHARE * (atol + rtol * abs(ends).max(axis=2))
        norm, joined = arrays.greatest(far, 0), (far <= allowed).all(axis=0)
        norms.append(norm.get())
        open_ = ~joined & xp.isfinite(norm)
        if i == max_iter or not bool(open_.any()):
            break
        n_iter += arrays.on_host(open_)
        change = scan(tangents[:-1], jump)
        chunks.starts[1:] = xp.where(open_[:, None], chunks.starts[1:] + change, chunks.starts[1:])
    evaluations = len(norms) * T * B
    shot = join(chunks, norms[:-1], evaluations, NEWTON_SHARE * atol, NEWTON_SHARE * rtol)
    return shot._replace(n_iter=n_iter, norms=ended(shot.norms, n_iter, shot.norms[-1]))
