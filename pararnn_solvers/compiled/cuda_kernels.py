"""What CUDA kernels do with whole arrays: evaluate, linearize, roll out, iterate, pull back.

The functions have the names, arguments and results of those of :mod:`.numba_kernels` and
:mod:`.gradients`, on device arrays: those of a :class:`~pararnn_solvers.system.System` with one
batch axis, C-contiguous. Everything runs on the current stream of the arrays' device; what comes to
the host is a number or two.

How they are launched says :mod:`.cuda_launch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.checks import all_finite
from pararnn_solvers.compiled.cuda_launch import (
    BACKWARD,
    THREADS,
    WARP,
    Launch,
    Padding,
    Stream,
    block_size,
    drives,
    drives_stream,
    linear_chunk,
    padding,
    plan,
    run,
    states_stream,
)
from pararnn_solvers.compiled.cuda_program import CudaProgram
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

MOST_ACROSS = 65535  # blocks along the second axis of a grid, and along the third


def iterates(_: CudaProgram) -> bool:
    """Tell whether a kernel makes whole Newton iterations: always."""
    return True


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
    deep = -(-across // MOST_ACROSS)
    grid = (-(-rows // height), -(-across // deep), deep)
    cuda.launch(kernel, grid, (width, height), [*arrays, *sizes])
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
