"""How CUDA kernels of a program are launched: chunks of time, lanes, and what memory is read by.

A thread has one lane (a channel of a sequence), and of it one chunk of time. Lanes that fill warps
are neighbours in memory and are read as they lie; fewer are staged in shared memory, where a warp
transposes the rows of many chunks (``memory.cu``). A step in float32 then moves, in numbers:

| kernel | reads | writes | beside the map |
|---|---|---|---|
| map, rollout, sweep | drives + k | k | 1 |
| newton | drives + k, with chunks twice | k + 2/32 | 1, or less than 2 with chunks |
| front, p iterations | drives | k + 2 (p + 1)/32 | 1 |
| adjoint | drives + 2 k, with chunks twice | drives | |

Where there are enough lanes, one chunk each is enough for the passes that have no chain of steps to
wait for (Newton, the adjoint): see :func:`linear_chunk`. Then all iterations of Newton's method go
through time together (:mod:`.cuda_wavefront`). A rollout has that chain; shooting cuts it
(:mod:`.cuda_shooting`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.compiled.cuda_program import CudaProgram
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

WARP = 32
THREADS = 128  # of a block; parts.cu promises the compiler no more
STAGED_WARPS = 2  # of a block whose rows are staged
STAGED_LANES = 16  # and fewer: at least two chunks a warp
STAGED_TILES = (32, 16, 8)  # steps, the most that fit
STAGED_BYTES = 12 << 10  # of a warp: 18 warps then share a multiprocessor
MOST_STAGED_BYTES = 24 << 10  # of a warp: two make a block
REGISTER_WORDS = 32  # of a thread, for what it has in flight
BUSY = 128  # threads of a multiprocessor that hide the latency of loads
SHORTEST = 64  # steps of a chunk whose map is worth a row of a linear recurrence

FORWARD, BACKWARD = 1, -1


class Stream(NamedTuple):
    """Rows that a kernel reads or writes: numbers of a row and sequence, and of a thread."""

    length: int
    numbers: int


class Launch(NamedTuple):
    """How a kernel is launched on chunks of S steps.

    Attributes
    ----------
    memory : str
        The type in ``memory.cu`` that reads and writes rows.
    P : int
        Chunks.
    room : int
        Numbers of shared memory of a warp.
    """

    memory: str
    S: int
    P: int
    blocks: int
    threads: int
    room: int
    shared: int


class Padding(NamedTuple):
    """Channels of a row in groups of threads that add up what they have."""

    width: int
    group: int


def padding(n: int) -> Padding:
    """Return the groups for n channels: the power of two that holds them, a warp at most."""
    group = min(WARP, 1 << max(0, n - 1).bit_length())
    return Padding(-(-n // group) * group, group)


def plan(
    program: CudaProgram,
    shape: tuple[int, ...],
    S: int,
    streams: tuple[Stream, ...],
    direction: int = FORWARD,
    width: int | None = None,
    deepest: int = 4,
) -> Launch:
    """Return how to launch a kernel on all chunks of all lanes.

    Parameters
    ----------
    shape : tuple of int
        (T, B, d).
    streams : tuple of Stream
        What the kernel reads and writes at each step.
    width : int, optional
        Lanes of a row; n by default.
    deepest : int
        Steps in flight at most.
    """
    T, B, _ = shape
    P, lanes, size = -(-T // S), B * (width or program.n), program.dtype.itemsize
    if lanes <= STAGED_LANES and P > 1:
        most = WARP // lanes
        for tile in STAGED_TILES:
            room = most * sum((tile * B * stream.length) | 1 for stream in streams)
            if room * size <= STAGED_BYTES:
                break
        if room * size <= MOST_STAGED_BYTES:
            blocks = -(-P // (most * STAGED_WARPS))
            shared = STAGED_WARPS * room * size
            memory = f"Staged<{direction}, {tile}>"
            return Launch(memory, S, P, blocks, STAGED_WARPS * WARP, room, shared)
    words = sum(stream.numbers for stream in streams) * size // 4
    tile = deepest
    while tile > 1 and tile * words > REGISTER_WORDS:
        tile //= 2
    threads = block_size(P * lanes)
    return Launch(f"Direct<{direction}, {tile}>", S, P, -(-P * lanes // threads), threads, 0, 0)


def block_size(threads: int) -> int:
    """Return the threads of a block: so many that all multiprocessors have some, if possible."""
    each = -(-threads // (2 * cuda.multiprocessors()))
    return max(WARP, min(THREADS, -(-each // WARP) * WARP))


def linear_chunk(program: CudaProgram, T: int, B: int) -> int:
    """Return how many steps a chunk has in passes that solve a linear recurrence on the way.

    With several chunks everything is evaluated twice, first for what each makes of what comes from
    before it: so only where too few lanes hide the latency of loads.
    """
    wanted = cuda.multiprocessors() * BUSY // max(1, B * program.n)
    if wanted < 2 or T < 2 * SHORTEST:
        return max(1, T)
    return max(SHORTEST, -(-T // wanted))


def drives_stream(program: CudaProgram, x: Array | None) -> Stream:
    """Return what reading the drives takes; nothing where the step uses none."""
    count = len(program.drives)
    return Stream(x.shape[-1] if x is not None and count else 0, count)


def states_stream(program: CudaProgram) -> Stream:
    """Return what reading or writing a state takes."""
    return Stream(program.k * program.n, program.k)


def run(
    program: CudaProgram,
    name: str,
    launched: Launch,
    shape: tuple[int, ...],
    arrays: tuple[Any, ...],
    *more: Any,
    types: str = "",
    together: tuple[str, ...] = (),
) -> None:
    """Launch ``name<memory, types>`` on arrays, with the sizes that all such kernels take.

    `together` are the types of all kernels that are compiled with it, its own included.
    """
    T, B, _ = shape
    m = arrays[0].shape[-1] if arrays[0].ndim > 1 else 0
    sizes = (T, B, m, program.n, launched.S, launched.P, launched.room)
    wanted, *names = (f"{name}<{launched.memory}{each}>" for each in (types, *together))
    arguments = [*arrays, *map(np.int64, sizes), *more]
    kernel = cuda.kernel(program.code, wanted, names=tuple(names))
    cuda.launch(kernel, launched.blocks, launched.threads, arguments, launched.shared)


def drives(program: CudaProgram, x: Array | None) -> Array:
    """Return x as kernels take it: an empty array where the step uses none of it."""
    xp = cuda.cupy()
    used = x is not None and len(program.drives) > 0
    found: Array = xp.ascontiguousarray(x) if used else xp.empty(0, program.dtype)
    return found
