"""The linear recurrence on a CUDA device, through CuPy: which kernel, and how it is cut.

Blocks of up to 4 x 4 go through ``kernels/scan.cu``, which reads ``blocks`` and ``rhs`` once and
writes ``h`` once: ``k*k + 2k`` numbers a step and lane, against ``k*k + k`` multiply-adds. Every
kernel is therefore bound by memory: at 4 TB/s, 3 numbers of float32 move in 3 ps, while one
multiply-add takes 0.03 ps. What is moved beside that, and which share of a copy's bandwidth this
analysis allows (counting each array once, without the three launches' 10 us; no GPU has measured
it yet):

=======================  ==========================================================  =============
lanes                    beside each array once                                      share of copy
=======================  ==========================================================  =============
enough to fill the GPU   nothing: a thread walks through a lane                      0.9
fewer                    per tile of ``S`` steps and lane: ``k`` to ``k*k + k``      0.8 to 0.9
                         numbers published, two flags; after it 8 bytes a lane
1                        the same with ``S = 2048`` (float32, ``k = 1``); up to      0.6 to 0.8
                         ``group`` maps read again from L2 by each tile
=======================  ==========================================================  =============

With time split, a tile composes maps: ``k**3 + k*k`` multiply-adds a step, and about ``10`` maps
more for each thread of ``STEPS`` steps. For ``k = 4`` that is 500 a step, where float32 could do
800 while the step's 96 bytes are moved.

Sources: Blelloch 1990, section 1.4, and Martin & Cundy 2018 (linear recurrences are scans of
maps); Merrill & Garland 2016 (single pass with decoupled look-back).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import cuda, cupy_dense
from pararnn_solvers.linear.arguments import check_shapes

KERNELS = ("maps.cu", "scan.cu")
LARGEST_TEMPLATE = 4

STORED = {
    "float64": ("double", np.float64),
    "float32": ("float", np.float32),
    "float16": ("Half", np.float32),
    "bfloat16": ("BFloat16", np.float32),
}
"""Name of a dtype -> its type in the kernels, and the dtype in which it is computed."""

AHEAD = {1: 16, 2: 8, 3: 4, 4: 2}
"""``k`` -> steps that a thread has under way when it walks through a lane."""

WIDEST = {1: 32, 2: 32, 3: 16, 4: 8}
"""``k`` -> lanes of a tile at most; their maps lie in 48 KiB of shared memory beside the tile."""

THREADS = 128
TILE_BYTES = 24 << 10
"""Blocks and right-hand sides of a tile: several blocks share a multiprocessor's 227 KiB."""

IN_FLIGHT_BYTES = 40 << 10
"""Loads under way that occupy the memory of one multiprocessor: 36 GB/s for about 1 us."""

GROUP_BYTES = 8 << 20
"""What the GPU moves while a state goes from one group of tiles to the next: about 2 us."""

LINE_BYTES, SECTOR_BYTES, MANY_LANES = 128, 32, 2048
"""A tile's rows are whole cache lines for many lanes; else sectors, and more chunks of time."""


def require_available() -> None:
    """Raise BackendUnavailable unless there are CuPy and a device."""
    cuda.cupy()


def scan(blocks: Any, rhs: Any, *, adjoint: bool = False) -> Any:
    """Return ``h`` with ``h_1 = b_1``, ``h_t = A_t h_{t-1} + b_t``; or solve the adjoint.

    The same system as :func:`pararnn_solvers.linear.sequential.scan`, with CuPy's arrays.

    Parameters
    ----------
    blocks : cupy.ndarray, shape (T, *batch, k, k, n)
        float64, float32, float16 or bfloat16. ``blocks[..., i, j, :]`` is ``dh_i/dh_j`` per
        channel; ``blocks[0]`` is not used.
    rhs : cupy.ndarray, shape (T, *batch, k * n), same dtype and device
        Right-hand sides, component-major.
    adjoint : bool
        Solve the transposed system.

    Returns
    -------
    cupy.ndarray, of the shape and dtype of ``rhs``
        New and C-contiguous, on the device of ``rhs``, written on that device's current stream.
        float16 and bfloat16 are computed in float32. Equal input gives equal bits.

    Raises
    ------
    InvalidInput
        Arrays on the host or on different devices, shapes or dtypes that do not fit.
    InsufficientMemory
        The device has no room for the result.

    Notes
    -----
    Cost for ``k <= 4``: one pass over all arrays; see the module. Arrays that are not contiguous
    are copied first, on the device. The first call with a dtype and ``k`` compiles for about a
    second. Larger ``k``: see :mod:`pararnn_solvers.linear.cupy_dense`.

    Where time is split, products of several blocks may vanish where the step by step product would
    not: an absolute error of the smallest normal number times the state before. Where they
    overflow and the states do not, one thread walks through that lane from there on, at some 40 ns
    a step (an estimate: 16 steps in each latency of memory).
    """
    cupy = cuda.cupy()
    _check_placement(blocks, rhs)
    _check_dtypes(blocks, rhs)
    check_shapes(blocks, rhs)
    T, *batch, _ = rhs.shape
    *_, k, n = blocks.shape
    B = math.prod(batch)
    task = f"a scan of {blocks.nbytes + 2 * rhs.nbytes:.3g} bytes, T = {T} steps of {B * n} lanes,"
    with rhs.device, cuda.device_memory(task, "solve shorter pieces, or fewer sequences at a time"):
        A = cupy.ascontiguousarray(blocks).reshape(T, B, k, k, n)
        b = cupy.ascontiguousarray(rhs).reshape(T, B, k, n)
        h = cupy.empty(b.shape, b.dtype)
        if h.size:
            solve = solve_unrolled if k <= LARGEST_TEMPLATE else cupy_dense.solve
            solve(A, b, h, adjoint)
        return h.reshape(rhs.shape)


def solve_unrolled(A: Any, b: Any, h: Any, adjoint: bool, stored: str = "") -> None:
    """Write the solution to ``h``, ``k <= 4``; ``A (T, B, k, k, n)``, ``b`` and ``h (T, B, k, n)``.

    ``stored`` is what the bits are, a key of :data:`STORED`; by default the dtype of ``b``.
    """
    T, B, k, n = b.shape
    if k == 1:  # sequences are only more channels
        B, n = 1, B * n
    stored = stored or b.dtype.name
    numbers = [np.int64(T), np.int64(B), np.int64(n), np.int32(adjoint)]
    under_way = B * n * AHEAD[k] * (k * k + k) * b.itemsize
    if T <= AHEAD[k] or under_way >= cuda.multiprocessors() * IN_FLIGHT_BYTES:
        lanes = _kernel("lanes", stored, k)
        cuda.launch(lanes, -(-B * n // THREADS), THREADS, [A, b, h, *numbers])
    else:
        _solve_tiles(A, b, h, numbers, stored)


def names(stored: str, k: int) -> dict[str, str]:
    """Return the kernels for a key of :data:`STORED`, which are compiled together."""
    name, real = STORED[stored]
    return {
        "lanes": f"lanes<{name}, {k}, {AHEAD[k]}>",
        "tiles": f"tiles<{name}, {k}, {_steps(k, np.dtype(real).itemsize)}, {WIDEST[k]}>",
        "repair": f"repair<{name}, {k}, {AHEAD[k]}>",
    }


def _kernel(which: str, stored: str, k: int) -> Any:
    together = names(stored, k)
    return cuda.kernel(cuda.sources(*KERNELS), together[which], names=tuple(together.values()))


def _solve_tiles(A: Any, b: Any, h: Any, numbers: list[Any], stored: str) -> None:
    """Solve with time split into tiles, then walk through the lanes whose products overflowed."""
    T, B, n, _ = (int(number) for number in numbers)
    k, real = A.shape[2], np.dtype(STORED[stored][1])
    tile = _tile(B, n, k, b.itemsize)
    sequences, channels, width = tile
    lanes, tile_steps = B * n, THREADS // width * _steps(k, real.itemsize)
    tiles = -(-T // tile_steps)
    beside = -(-B // sequences) * -(-n // channels)
    group = min(tiles, _group(tile_steps * lanes * (k * k + 2 * k) * b.itemsize))
    words, *parts = _unpublished(
        1 + lanes,  # tickets given out, and the first wrong step of each lane
        (tiles - 1) * lanes * 4,  # flags at seams
        -(-tiles // group) * k * lanes * real.itemsize,  # states after groups
        (tiles * (k * k + k) * lanes * real.itemsize) if group > 1 else 0,  # maps of tiles
    )
    shape = [np.int32(size) for size in (*tile, group)]
    solve, repair = (_kernel(name, stored, k) for name in ("tiles", "repair"))
    cuda.launch(solve, tiles * beside, THREADS, [A, b, h, *numbers, *shape, words, *parts])
    cuda.launch(repair, -(-lanes // THREADS), THREADS, [A, b, h, *numbers, words])


def _tile(B: int, n: int, k: int, itemsize: int) -> tuple[int, int, int]:
    """Return the sequences and channels of a tile, and the power of two that holds its lanes."""
    row = LINE_BYTES if B * n >= MANY_LANES else SECTOR_BYTES
    widest = min(WIDEST[k], row // itemsize)
    channels = min(n, widest)
    sequences = min(B, widest // channels) if channels == n else 1
    return sequences, channels, 1 << (sequences * channels - 1).bit_length()


def _steps(k: int, itemsize: int) -> int:
    """Return the steps of one thread's chunk: a power of two, from 2 to 16."""
    most = TILE_BYTES // (THREADS * (k * k + k) * itemsize)
    return 1 << max(1, min(4, most.bit_length() - 1))


def _group(nbytes: int) -> int:
    """Return the tiles of a group, where the tiles of all lanes side by side move ``nbytes``."""
    return -(-GROUP_BYTES // nbytes)


def _unpublished(start: int, *nbytes: int) -> list[Any]:
    """Return memory of all ones, and the 8-byte word at which each of its further parts starts.

    One array, because making an array takes the host as long as launching a kernel.
    """
    starts = list(itertools.accumulate((-(-size // 8) for size in nbytes), initial=start))
    words = cuda.cupy().full(starts[-1], -1, np.int64)
    return [words, *(np.int64(at) for at in starts[:-1])]


def _check_placement(blocks: Any, rhs: Any) -> None:
    where = {"blocks": _place(blocks), "rhs": _place(rhs)}
    if any(not place.startswith("device") for place in where.values()):
        raise InvalidInput(
            f"backend 'cupy' takes arrays of CuPy, got blocks on the {where['blocks']}, rhs on the "
            f"{where['rhs']}; move them (cupy.asarray) or choose the backend of their library"
        )
    if where["blocks"] != where["rhs"]:
        raise InvalidInput(
            f"blocks and rhs must be on one device, got {where['blocks']} and {where['rhs']}; "
            "copy one of them (cupy.asarray under the other's device)"
        )


def _place(array: Any) -> str:
    if cuda.is_device_array(array):
        return f"device {array.device.id}"
    return f"host ({type(array).__module__}.{type(array).__qualname__})"


def _check_dtypes(blocks: Any, rhs: Any) -> None:
    if blocks.dtype != rhs.dtype:
        raise InvalidInput(
            f"blocks and rhs must have one dtype, got {blocks.dtype} and {rhs.dtype}; "
            "convert one of them with .astype"
        )
    if rhs.dtype.name not in STORED:
        raise InvalidInput(
            f"blocks and rhs must be float64, float32, float16 or bfloat16, got {rhs.dtype}; "
            "convert them with .astype"
        )
