"""What CUDA kernels do with whole arrays: evaluate, linearize, roll out, iterate, pull back.

The functions have the names, arguments and results of those of :mod:`.numba_kernels` and
:mod:`.gradients`, on device arrays: those of a :class:`~pararnn_solvers.system.System` with one
batch axis, C-contiguous. Everything runs on the current stream of the arrays' device; what comes to
the host is a number or two.

Launches
--------
A thread has one lane (a channel of a sequence), and of it one chunk of time. Lanes that fill warps
are neighbours in memory and are read as they lie; fewer are staged in shared memory, where a warp
transposes the rows of many chunks (``memory.cu``). A step in float32 then moves, in numbers:

| kernel | reads | writes | beside the map |
|---|---|---|---|
| map, rollout, sweep | drives + k | k | 1 |
| newton | drives + k, with chunks twice | k + 2/32 | 1, or less than 2 with chunks |
| adjoint | drives + 2 k, with chunks twice | drives | |

Where there are enough lanes, one chunk each is enough for the passes that have no chain of steps to
wait for (Newton, the adjoint): see :func:`linear_chunk`. A rollout has that chain; shooting cuts it
(:mod:`.cuda_shooting`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.checks import all_finite
from pararnn_solvers.compiled.cuda_program import CudaProgram
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

WARP = 32
THREADS = 128  # of a block; fused.cu promises the compiler no more
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


def iterates(_: CudaProgram) -> bool:
    """Tell whether a kernel makes whole Newton iterations: always."""
    return True


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
) -> None:
    """Launch ``name<memory, types>`` on arrays, with the sizes that all such kernels take."""
    T, B, _ = shape
    m = arrays[0].shape[-1] if arrays[0].ndim > 1 else 0
    sizes = (T, B, m, program.n, launched.S, launched.P, launched.room)
    expression = f"{name}<{launched.memory}{types}>"
    arguments = [*arrays, *map(np.int64, sizes), *more]
    kernel = cuda.kernel(program.code, expression)
    cuda.launch(kernel, launched.blocks, launched.threads, arguments, launched.shared)


def drives(program: CudaProgram, x: Array | None) -> Array:
    """Return x as kernels take it: an empty array where the step uses none of it."""
    xp = cuda.cupy()
    used = x is not None and len(program.drives) > 0
    found: Array = xp.ascontiguousarray(x) if used else xp.empty(0, program.dtype)
    return found


def sweep(
    program: CudaProgram,
    x: Array | None,
    starts: Array,
    h: Array,
    S: int,
    spoiled: Array,
    tangents: Array | None = None,
    deepest: int = 4,
) -> Array:
    """Roll chunks of S steps out from ``starts (P, B, d)`` into h; return where they end.

    ``tangents (P, B, k, k, n)`` become the derivatives of ends by starts. ``spoiled``, one number,
    becomes 1 if a drive or a state is not finite.
    """
    xp = cuda.cupy()
    streams = (drives_stream(program, x), states_stream(program))
    launched = plan(program, h.shape, S, streams, deepest=deepest)
    ends: Array = xp.empty(starts.shape, h.dtype)
    components = program.k + (program.k**2 if tangents is not None else 0)
    out = (ends, h if tangents is None else tangents, spoiled)
    arrays = (drives(program, x), program.theta, starts, h, *out)
    run(program, "sweep", launched, h.shape, arrays, types=f", {components}")
    return ends


def rollout(program: CudaProgram, x: Array | None, h0: Array, h: Array) -> bool:
    """Fill ``h (T, B, d)`` one step after another, its channels and sequences side by side.

    Returns False if a drive or a state may not be finite.
    """
    if not h.size:
        return True
    xp = cuda.cupy()
    spoiled = xp.zeros(1, np.uint64)
    sweep(program, x, xp.ascontiguousarray(h0)[None], h, len(h), spoiled, deepest=8)
    return not int(spoiled[0])


def apply(program: CudaProgram, h: Array, x: Array | None, q: int) -> tuple[Array, Array]:
    """Return ``f(h, x)`` and, for ``q = k k``, its blocks, of many states (R, d) at once."""
    xp = cuda.cupy()
    rows, n = len(h), program.n
    f, A = xp.empty(h.shape, h.dtype), xp.empty((rows, q * n), h.dtype)
    given = drives(program, x)
    m = given.shape[-1] if given.ndim > 1 else 0
    across = -(-n // THREADS)  # blocks that share a row
    width = n if across == 1 else -(-n // (across * WARP)) * WARP
    height = max(1, block_size(rows * n) // width)
    arrays = (xp.ascontiguousarray(h), given, program.theta, f, A)
    kernel = cuda.kernel(program.code, f"apply<{q}>")
    sizes = map(np.int64, (rows, m, n))
    cuda.launch(kernel, (-(-rows // height), across), (width, height), [*arrays, *sizes])
    return f, A


def evaluate(program: CudaProgram, h: Array, x: Array | None) -> Array:
    """Return ``f(h, x)`` of states (..., d)."""
    return apply(program, *as_rows(h, x), 0)[0].reshape(h.shape)


def linearize(program: CudaProgram, h: Array, x: Array | None) -> tuple[Array, Array]:
    """Return ``f(h, x)`` and its blocks (..., k, k, n) of states (..., d)."""
    k, n = program.k, program.n
    f, A = apply(program, *as_rows(h, x), k * k)
    return f.reshape(h.shape), A.reshape(*h.shape[:-1], k, k, n)


def as_rows(h: Array, x: Array | None) -> tuple[Array, Array | None]:
    """Return states (R, d) and their drives (R, m)."""
    d = h.shape[-1]
    rows = h.size // d
    return h.reshape(rows, d), None if x is None else x.reshape(rows, x.shape[-1])


def newton_pass(program: CudaProgram, x: Array | None, h0: Array, h: Array) -> tuple[Array, Array]:
    """Return the next Newton iterate, and ``|F_t|`` and ``|h_t|`` of this one, shape (2, T, B).

    Cost: one pass over x and h; where lanes are few, two.
    """
    xp = cuda.cupy()
    T, B, _ = h.shape
    moved = xp.empty(h.shape, h.dtype)
    if not h.size:
        return moved, xp.zeros((2, T, B), h.dtype)
    S = linear_chunk(program, T, B)
    arrays = (drives(program, x), program.theta, xp.ascontiguousarray(h0), xp.ascontiguousarray(h))
    changes = newton_changes(program, x, arrays, S) if T > S else xp.empty(0, h.dtype)
    width, group = padding(program.n)
    norms = xp.empty((width // group, 2, T, B), h.dtype)
    state, norm = states_stream(program), Stream(1, 0)
    streams = (drives_stream(program, x), state, state._replace(numbers=0), norm, norm)
    launched = plan(program, h.shape, S, streams, width=width)
    extra = np.int64(width), np.int32(group)
    run(program, "newton", launched, h.shape, (*arrays, changes, moved, norms), *extra)
    return moved, norms[0] if len(norms) == 1 else norms.max(axis=0)


def newton_changes(
    program: CudaProgram, x: Array | None, arrays: tuple[Array, ...], S: int
) -> Array:
    """Return the change of the last state of each chunk but the last, (P - 1, B, d)."""
    h = arrays[-1]
    streams = (drives_stream(program, x), states_stream(program))
    launched = plan(program, h.shape, S, streams)
    return chunk_ends(program, "newton_maps", launched, h.shape, arrays)


def chunk_ends(
    program: CudaProgram,
    name: str,
    launched: Launch,
    shape: tuple[int, ...],
    arrays: tuple[Array, ...],
) -> Array:
    """Return what each chunk leaves to the next, from the linear map that a kernel finds."""
    from pararnn_solvers.linear import cupy_scan

    xp = cuda.cupy()
    k, n, P, B = program.k, program.n, launched.P, shape[1]
    blocks = xp.empty((P, B, k, k, n), program.dtype)
    rhs = xp.empty((P, B, k * n), program.dtype)
    run(program, name, launched, shape, (*arrays, blocks, rhs))
    blocks, rhs = blocks[: P - 1], rhs[: P - 1]
    found: Array = cupy_scan.scan(blocks, rhs)
    return found if all_finite(found) else without_overflow(blocks, rhs)


def without_overflow(blocks: Array, rhs: Array) -> Array:
    """Solve the recurrence of chunks where the derivatives of a whole chunk overflowed.

    Step after step such a product is never formed: what is 0 before the chunk stays 0. So it is
    passed over where it would multiply 0, and makes NaN of anything else.
    """
    from pararnn_solvers.linear import cupy_scan

    xp = cuda.cupy()
    P, B, k, _, n = blocks.shape
    lost = ~xp.isfinite(blocks)
    blocks = xp.where(lost, blocks.dtype.type(0), blocks)
    before = cupy_scan.scan(blocks, rhs)[:-1].reshape(P - 1, B, 1, k, n)
    multiplied = (lost[1:] & (before != 0)).any(axis=3).reshape(P - 1, B, k * n)
    rhs[1:] = xp.where(multiplied, rhs.dtype.type(np.nan), rhs[1:])
    found: Array = cupy_scan.scan(blocks, rhs)
    return found


def pull_back(
    program: CudaProgram, x: Array | None, h0: Array, h: Array, g: Array, solve: Any = None
) -> tuple[Array | None, Array, Array]:
    """Return the gradients by x, by h0, and by each parameter and channel, shape (q, n).

    Parameters
    ----------
    g : array, shape (T, B, d)
        The gradient by the states.
    solve : callable, optional
        What kernels on the CPU fall back on; here nothing does.

    Notes
    -----
    Cost: one reversed pass over x, h and g; where lanes are few, two. Sums are formed in a fixed
    order, over a thread's steps with compensation, and of threads in float64: the same bits each
    time.
    """
    xp = cuda.cupy()
    n, q = program.n, len(program.parameters)
    T, B, _ = h.shape
    unused = x is not None and len(program.drives) * n != x.shape[-1]
    dx = None if x is None else (xp.zeros if unused else xp.empty)(x.shape, x.dtype)
    if not h.size:
        return dx, xp.zeros(h0.shape, h.dtype), xp.zeros((q, n))
    S = linear_chunk(program, T, B)
    states = map(xp.ascontiguousarray, (h0, h, g))
    arrays = (drives(program, x), program.theta, *states)
    row, state = drives_stream(program, x), states_stream(program)
    inputs, carries = (row, state, state), xp.empty(0, h.dtype)
    if T > S:
        launched = plan(program, h.shape, S, inputs, BACKWARD)
        carries = chunk_ends(program, "adjoint_maps", launched, h.shape, arrays)
    width, group = padding(n) if shared_drives(program) else Padding(n, 1)
    launched = plan(program, h.shape, S, (*inputs, row._replace(numbers=0)), BACKWARD, width)
    dh0 = xp.empty(h0.shape, h.dtype)
    products = xp.empty((2, launched.P, B, q, n), h.dtype)
    groups = width // group if shared_drives(program) else 0
    partial = xp.empty((T, B, shared_drives(program), groups) if groups > 1 else 0, h.dtype)
    out = (products if dx is None else dx, dh0, products, partial)
    extra = np.int64(width), np.int32(group)
    run(program, "adjoint", launched, h.shape, (*arrays, carries, *out), *extra)
    if dx is not None and partial.size:
        for i, place in enumerate(program.drive_places[: shared_drives(program)]):
            dx[..., place.offset] = partial[:, :, i].sum(axis=-1)
    return dx, dh0, products.sum(axis=(0, 1, 2), dtype=np.float64)


def shared_drives(program: CudaProgram) -> int:
    """Return how many drives channels share: they come first."""
    return sum(not i.channels for i in program.drives)
