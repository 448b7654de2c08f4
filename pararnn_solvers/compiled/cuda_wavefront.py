"""Newton's method on a whole trajectory by CUDA kernels: all iterations go through time together.

The method is that of :mod:`.wavefront`. A thread has one lane and keeps all its iterates in
registers, so that the drives are read once and the states written once, however many iterations
there are. That pays where lanes alone fill the device. Two launches and one look do some steps:
``front`` takes the iterates through them, ``judge`` says where the last one has not converged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.compiled import cuda_launch
from pararnn_solvers.compiled.cuda_program import CudaProgram
from pararnn_solvers.compiled.wavefront import (
    FEWEST_STEPS,
    MOST_ITERATIONS,
    Front,
    Seen,
    follow,
    repeating_last,
)
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

__all__ = ["iterate", "pays"]

GROWTH = 8  # times as many steps at a time: a launch and a look take as long as many steps
BUILT = 4  # kernels, of so many numbers of iterations, are compiled at a time
LARGEST = 2  # components: nine iterates of more would not stay in registers


def pays(program: CudaProgram, shape: tuple[int, ...]) -> bool:
    """Tell whether lanes alone hide the latency of loads, so that one chunk of time is enough."""
    T, B, d = shape
    enough = B * d > 0 and T >= FEWEST_STEPS and program.k <= LARGEST
    return enough and cuda_launch.linear_chunk(program, T, B) >= T


def iterate(
    program: CudaProgram, x: Array | None, h0: Array, guess: Array | None, h: Array, stopping: Any
) -> Front | None:
    """Return what Newton's method converges to, or None where that takes many iterations.

    Parameters, result and cost are those of :func:`~.wavefront.iterate`, with device arrays; the
    norms are on the host.
    """
    front = _Wavefront(program, x, h0, guess, h, stopping.bounds(h.dtype))
    norms = follow(front, stopping.max_iter, GROWTH)
    return None if norms is None else Front(h, norms, front.evaluations, front.finite)


class _Wavefront:
    """A problem, and the kernel that takes iterates of it through time."""

    def __init__(
        self,
        program: CudaProgram,
        x: Array | None,
        h0: Array,
        guess: Array | None,
        h: Array,
        bounds: tuple[float, float],
    ) -> None:
        self.program, self.x, self.h0, self.guess = program, x, h0, guess
        self.h, self.bounds = h, bounds
        self.evaluations, self.finite = 0, True

    def first(self, p: int) -> Array:
        """Return the states of p + 1 iterates before the first step."""
        states: Array = cuda.cupy().stack([self.h0] * (p + 1))
        return states

    def repeated(self, states: Array) -> Array:
        """Return the states with those of another iterate, the last one so far."""
        return repeating_last(states)

    def redo(self, sequences: Array, p: int, since: Array) -> None:
        """Make p iterations alone, of some sequences."""
        chosen = cuda.cupy().asarray(sequences)
        x, guess = (None if a is None else a[:, chosen] for a in (self.x, self.guess))
        h = cuda.cupy().empty((len(self.h), len(sequences), self.h.shape[-1]), self.h.dtype)
        part = _Wavefront(self.program, x, self.h0[chosen], guess, h, self.bounds)
        part.advance(part.first(p), since, (0, len(h)))
        self.h[:, chosen] = h
        self.evaluations += part.evaluations

    def advance(self, states: Array, since: Array, steps: tuple[int, int]) -> tuple[Array, Seen]:
        """Do some steps; return the states after them, and what is seen there."""
        xp, program, now = cuda.cupy(), self.program, slice(*steps)
        h = self.h[now]
        shape, iterates = h.shape, len(states)
        given = self.guess is not None
        x, guess = (None if a is None else a[now] for a in (self.x, self.guess))
        width, group = cuda_launch.padding(program.n)
        norms = xp.empty((width // group, iterates, 2, *shape[:2]), h.dtype)
        left, spoiled = xp.empty_like(states), xp.zeros(1, np.uint64)
        state = cuda_launch.states_stream(program)
        streams = (cuda_launch.drives_stream(program, x), state, state._replace(numbers=0))
        launched = cuda_launch.plan(program, shape, shape[0], streams, width=width, deepest=1)
        arrays = (
            cuda_launch.drives(program, x),
            program.theta,
            h if guess is None else xp.ascontiguousarray(guess),
            states,
            xp.asarray(since[:iterates]),
            left,
            h,
            norms,
            spoiled,
        )
        types = [f", {p}, {str(given).lower()}" for p in range(MOST_ITERATIONS + 1)]
        p, extra = iterates - 1, (np.int64(width), np.int32(group), np.int64(steps[0]))
        together = tuple(types[p // BUILT * BUILT :][:BUILT])
        cuda_launch.run(
            program, "front", launched, shape, arrays, *extra, types=types[p], together=together
        )
        self.evaluations += (iterates + (not given)) * shape[0] * shape[1]
        return left, self._seen(norms, spoiled)

    def _seen(self, norms: Array, spoiled: Array) -> Seen:
        xp = cuda.cupy()
        groups, iterates, _, T, B = norms.shape
        far = xp.zeros((iterates, B), norms.dtype)
        account = xp.zeros(2 + iterates * B, np.uint64)
        account[0] = T
        rows = iterates * T * B
        threads = cuda_launch.block_size(rows)
        sizes = map(np.int64, (groups, iterates, T, B))
        bounds = map(norms.dtype.type, self.bounds)
        kernel = cuda.kernel(self.program.code, "judge")
        cuda.launch(kernel, -(-rows // threads), threads, [norms, far, account, *sizes, *bounds])
        converged, lost, *left = account.get().tolist()
        self.finite &= not int(spoiled[0])
        solved = np.reshape(left, (iterates, B)) == 0
        return Seen(far.get(), solved, converged, not lost)
