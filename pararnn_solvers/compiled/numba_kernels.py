"""What compiled kernels do with whole arrays: evaluate, linearize, roll out, iterate, pull back.

Rows of many channels and rows of few have kernels of their own (:mod:`.row_kernels`,
:mod:`.tile_kernels`); the functions here choose, and share the work between threads. Arrays are
those of a :class:`~pararnn_solvers.system.System` with one batch axis, C-contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from pararnn_solvers.compiled import (
    cache,
    row_kernels,
    row_passes,
    row_wavefront,
    tile_kernels,
    tile_passes,
)
from pararnn_solvers.compiled.program import Program, compile_source
from pararnn_solvers.compiled.tile_kernels import STEPS
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.linear.jit import jitted
from pararnn_solvers.linear.simd import BYTES
from pararnn_solvers.typing import Array

WORTH_A_THREAD = 1 << 15  # numbers that a thread should have to compute, 50 µs at least
FEW_SEQUENCES = 4  # fewer do not fill a tile
APART = 2  # vectors: processors fetch cache lines in pairs, and threads must not write to one
TILE_BYTES = 1 << 15  # of drives: with the states they stay in the first-level cache

BUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("row", "sweep"): row_kernels.sweep,
    ("row", "alone"): row_kernels.alone,
    ("row", "meet"): row_kernels.meet,
    ("row", "apply"): row_passes.apply,
    ("row", "newton"): row_passes.newton,
    ("row", "wavefront"): row_wavefront.wavefront,
    ("row", "adjoint"): row_passes.adjoint,
    ("tile", "sweep"): tile_kernels.sweep,
    ("tile", "meet"): tile_kernels.meet,
    ("tile", "apply"): tile_passes.apply,
    ("tile", "adjoint"): tile_passes.adjoint,
}
"""What makes a kernel of a step's functions, for rows of many channels and of few."""

_known: dict[tuple[Any, ...], Any] = {}
_lock = Lock()


def vector_size(program: Program) -> int:
    """Return how many numbers a vector holds."""
    return BYTES // program.dtype.itemsize


def in_rows(program: Program) -> bool:
    """Tell whether a row fills vectors, so that they need not be filled from several rows."""
    return program.n >= vector_size(program)


def iterates(program: Program) -> bool:
    """Tell whether a kernel makes whole Newton iterations: where rows fill vectors."""
    return in_rows(program)


def lanes_of_a_tile(program: Program, m: int, lanes: int | None = None) -> int:
    """Return how many lanes make a tile that stays in the cache: four vectors at most.

    Of so many ``lanes``, no more than half: two threads should have some. That does not depend on
    how many threads there are, since lanes of a tile run until all meet.
    """
    size = vector_size(program)
    vectors = TILE_BYTES // (STEPS * max(1, m) * size * program.dtype.itemsize)
    half = 4 if lanes is None else -(-lanes // (2 * size))
    return size * max(1, min(4, vectors, half))


def kernel(program: Program, where: str, name: str, *sizes: int) -> Any:
    """Return a kernel of :mod:`.row_kernels` (``where="row"``) or :mod:`.tile_kernels`.

    Compiled once for each step, and kept on disk. ``sizes`` are what the kernel asks for between
    the function and the places.
    """
    options: tuple[Any, ...] = (program.drive_places, program.parameter_places)
    if where == "row":
        options += (program.n % vector_size(program) > 0,)
    # The step and the type of its constants determine its derivatives.
    key = (program.step_source, program.dtype.str, where, name, sizes, options)
    with _lock:
        if key not in _known:
            sources = [getattr(program, function) for function in functions_of(name, sizes)]
            digest = cache.digest(*sources, *map(str, key))
            build = BUILDERS[where, name](*map(compile_source, sources), *sizes, *options)
            _known[key] = jitted(cache.unique(build, digest))
            cache.keep(_known[key], digest)
            cache.keep_source(digest, "\n".join(sources))
        return _known[key]


def functions_of(name: str, sizes: tuple[int, ...]) -> tuple[str, ...]:
    """Return which sources of a program a kernel is built around."""
    if name == "sweep":
        k, K = sizes
        return ("step_source" if k == K else "tangent_source",)
    if name == "apply":
        _, q = sizes
        return ("jacobian_source" if q else "step_source",)
    return {
        "alone": ("step_source",),
        "meet": ("step_source",),
        "adjoint": ("adjoint_source",),
        "newton": ("newton_source",),
        "wavefront": ("newton_source", "step_source"),
    }[name]


def flat(array: Array | None, dtype: Any) -> Array:
    """Return an array as one axis, and nothing as an empty one.

    One that must not be written is another type to Numba, and would be compiled for again.
    """
    if array is None:
        return np.empty(0, dtype)
    one = np.ascontiguousarray(array).reshape(-1)
    return one if one.flags.writeable else alignment.as_writable(one)


def parts(count: int, numbers: int, grain: int = 1) -> list[tuple[int, int]]:
    """Cut ``range(count)`` for threads, at multiples of ``grain``.

    Parameters
    ----------
    numbers : int
        What there is to compute in all.
    """
    most = max(1, min(threads.num_threads(), numbers // WORTH_A_THREAD, -(-count // grain)))
    cuts = [round(count * i / most / grain) * grain for i in range(most)] + [count]
    return [(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if a < b]


def run(call: Callable[[tuple[int, int]], Any], pieces: list[tuple[int, int]]) -> None:
    """Do all pieces, side by side."""
    threads.run([partial(call, piece) for piece in pieces])


def apply(program: Program, h: Array, x: Array | None, q: int) -> tuple[Array, Array]:
    """Return ``f(h, x)`` and, for ``q = k k``, its blocks, of many states (R, d) at once."""
    n, k = program.n, program.k
    rows, m = len(h), 0 if x is None else x.shape[-1]
    f, A = alignment.empty(h.shape, h.dtype), alignment.empty((rows, q * n), h.dtype)
    arrays = (flat(h, h.dtype), flat(x, h.dtype), program.theta, flat(f, h.dtype), flat(A, h.dtype))
    if in_rows(program):
        compute = kernel(program, "row", "apply", k, q)
        run(lambda piece: compute(*arrays, (m, n), piece), parts(rows, h.size))
    else:
        compute = kernel(program, "tile", "apply", k, q)
        L = lanes_of_a_tile(program, m)
        pieces = parts(-(-rows // STEPS), h.size, L)
        run(lambda piece: compute(*arrays, (rows, m, n), piece, L), pieces)
    return f, A


def evaluate(program: Program, h: Array, x: Array | None) -> Array:
    """Return ``f(h, x)`` of states (..., d)."""
    d = h.shape[-1]
    rows = None if x is None else x.reshape(h.size // d, x.shape[-1])
    return apply(program, h.reshape(-1, d), rows, 0)[0].reshape(h.shape)


def linearize(program: Program, h: Array, x: Array | None) -> tuple[Array, Array]:
    """Return ``f(h, x)`` and its blocks (..., k, k, n) of states (..., d)."""
    k, n = program.k, program.n
    rows = None if x is None else x.reshape(h.size // h.shape[-1], x.shape[-1])
    f, A = apply(program, h.reshape(-1, h.shape[-1]), rows, k * k)
    return f.reshape(h.shape), A.reshape(*h.shape[:-1], k, k, n)


def divide_rows(program: Program, B: int, numbers: int) -> list[tuple[int, int, int, int]]:
    """Cut the sequences, or if there is one the channels, for threads: ``b0, b1, c0, c1``."""
    n = program.n
    if B != 1:
        return [(b0, b1, 0, n) for b0, b1 in parts(B, numbers)]
    return [(0, 1, c0, c1) for c0, c1 in parts(n, numbers, APART * vector_size(program))]


def rollout(program: Program, x: Array | None, h0: Array, h: Array) -> bool:
    """Fill ``h (T, B, d)`` one step after another, its channels and sequences side by side.

    Returns False if a drive or a state may not be finite.
    """
    if not h.size:
        return True
    T, B, d = h.shape
    n, k, m = program.n, program.k, 0 if x is None else x.shape[-1]
    start, size = h0.reshape(-1), vector_size(program)
    inputs, states, shape = (flat(x, h.dtype), program.theta), h.reshape(-1), (T, B, m, n)
    if B == 1 and n <= size:
        spoiled = np.empty(size, h.dtype)
        kernel(program, "row", "alone", k)(*inputs, alignment.copy(start), states, spoiled, shape)
        return bool(np.isfinite(spoiled).all())
    calls: list[tuple[Any, ...]]
    if in_rows(program) or B < FEW_SEQUENCES:
        sweep = kernel(program, "row", "sweep", k, k)
        calls = [((0, 1), max(1, T), 1, lanes) for lanes in divide_rows(program, B, h.size)]
    else:
        sweep = kernel(program, "tile", "sweep", k, k)
        L = lanes_of_a_tile(program, m)
        calls = [(piece, max(1, T), L) for piece in parts(B, h.size, L)]
    spoiled = np.empty((len(calls), size), h.dtype)
    tasks = [  # each with a state of its own: it is written at every step
        partial(sweep, *inputs, alignment.copy(start), states, bad, shape, *call)
        for bad, call in zip(spoiled, calls, strict=True)
    ]
    threads.run(tasks)
    return bool(np.isfinite(spoiled).all())


def newton_pass(program: Program, x: Array | None, h0: Array, h: Array) -> tuple[Array, Array]:
    """Return the next Newton iterate, and ``|F_t|`` and ``|h_t|`` of this one, shape (2, T, B).

    Cost: one pass over x and h, in which f and A are evaluated once.
    """
    T, B, d = h.shape
    n, k, m = program.n, program.k, 0 if x is None else x.shape[-1]
    moved = alignment.empty(h.shape, h.dtype)
    iterate = kernel(program, "row", "newton", k)
    lanes = divide_rows(program, B, h.size)
    slabs = parts(T, h.size) if len(lanes) == 1 else [(0, T)]
    norms = np.zeros((len(lanes), 2, T * B), h.dtype)
    arrays = (flat(h, h.dtype), moved.reshape(-1))
    inputs, shape = (flat(x, h.dtype), program.theta), (T, B, m, n)

    def call(norm: Array, steps: tuple[int, int], lane: Any, again: bool) -> None:
        before = h0 if steps[0] == 0 else h[steps[0] - 1]
        change = moved[steps[0] - 1] - before if again else np.zeros_like(h0)
        entry = (alignment.copy(before.reshape(-1)), alignment.copy(change.reshape(-1)))
        iterate(*inputs, *entry, *arrays, norm, shape, steps, lane, again)

    pieces = [(norm, lane) for norm, lane in zip(norms, lanes, strict=True)]
    threads.run([partial(call, norm, slab, lane, False) for norm, lane in pieces for slab in slabs])
    for slab in slabs[1:]:  # which began as if nothing had changed before
        with np.errstate(all="ignore"):
            call(norms[0], slab, lanes[0], True)
    return moved, norms.max(axis=0).reshape(2, T, B)
