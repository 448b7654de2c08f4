"""Rows times a matrix, as matrix libraries do it, for a kernel that has many other things to do.

The matrix is cut in panels of one or two vectors of columns and laid out panel by panel, so that it
is read in order. A few rows times one panel are vectors of sums that stay in registers while the
panel passes by. What lies ahead is asked for early: from the third level of caches a matrix comes
more slowly than it is used. On a processor with AVX-512 that it does not know, OpenBLAS takes 2.3
times as long (64 rows of 128 times 128 x 384, float32, one thread: 60 microseconds against 26); it
has threads of its own, and costs a call for each product.

Each entry is summed in order of the rows of the matrix, fused, however many rows there are: a row
gives the same bits alone and among others.

Source: Goto & van de Geijn (2008), "Anatomy of high-performance matrix multiplication".
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, misc, assignment"
from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from pararnn_solvers.compiled.addresses import prefetch
from pararnn_solvers.compiled.arithmetic import Emit, broadcast
from pararnn_solvers.linear.simd import BYTES, VectorType
from pararnn_solvers.typing import Array

__all__ = ["aligned", "multiply", "pack", "padded"]

_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
# Vectors in a row of a panel; rows that are multiplied at once, so that their sums stay in
# registers (32 with AVX-512, 16 of half the size with AVX2); and where there are fewer rows.
VECTORS, ROWS, FEWER = (2, 8, 4) if "+avx512f" in _FEATURES else (1, 6, 3)
AHEAD = 8192  # bytes of a panel that are asked for before they are needed: a matrix may be far away
PANELS = 4  # by which a row on its own is multiplied at once


def aligned(size: int, dtype: Any) -> Array:
    """Return zeros, as many as `size`, that begin where a vector may."""
    raw = np.zeros(size * np.dtype(dtype).itemsize + BYTES, np.uint8)
    start = -raw.ctypes.data % BYTES
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)


def panel(dtype: Any) -> int:
    """Return the number of columns in a panel."""
    return VECTORS * BYTES // int(np.dtype(dtype).itemsize)


def padded(columns: int, dtype: Any) -> int:
    """Return the number of columns in whole panels."""
    return -(-columns // panel(dtype)) * panel(dtype)


def pack(matrix: Array, out: Array) -> None:
    """Lay a matrix (K, N) out in panels, the last one filled up with zeros.

    Parameters
    ----------
    out : array, shape (K * padded(N),)
    """
    K, N = matrix.shape
    size = panel(matrix.dtype)
    whole = N // size
    panels = out.reshape(-1, K, size)
    panels[:whole] = matrix[:, : whole * size].reshape(K, whole, size).swapaxes(0, 1)
    if N % size:
        panels[whole, :, : N % size] = matrix[:, whole * size :]
        panels[whole, :, N % size :] = 0


def _tile(rows: int, panels: int) -> Any:
    """Return what multiplies rows by panels: ``tile(a, i, lda, w, j, K, out, o, ldo)``."""
    index = types.uint64

    @intrinsic
    def tile(
        typing: Any, a: Any, i: Any, lda: Any, w: Any, j: Any, K: Any, out: Any, o: Any, ldo: Any
    ) -> tuple[Any, Emit]:
        vector, number, width = VectorType(a.dtype), a.dtype.bitwidth // 8, panels * VECTORS

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(vector)
            left, i, lda, right, j, K, to, o, ldo = args
            left, right, to = (
                context.make_array(array)(context, builder, value).data
                for array, value in ((a, left), (w, right), (out, to))
            )

            def times(r: int, stride: Any) -> Any:
                return builder.mul(stride, ir.Constant(stride.type, r))

            def vector_at(pointer: Any, *terms: Any) -> Any:
                place = reduce(builder.add, terms)
                return builder.bitcast(builder.gep(pointer, [place]), kind.as_pointer())

            zero = ir.Constant(kind, [0.0] * kind.count)
            sums = [cgutils.alloca_once_value(builder, zero) for _ in range(rows * width)]
            starts = [builder.add(i, times(r, lda)) for r in range(rows)]
            size = VECTORS * kind.count
            offsets = [ir.Constant(i.type, v * kind.count) for v in range(width)]
            with cgutils.for_range(builder, K, intp=i.type) as loop:
                columns = [
                    vector_at(right, j, times(p * size, K), times(size, loop.index), offset)
                    for p in range(panels)
                    for offset in offsets[:VECTORS]
                ]
                for column in columns:
                    line = builder.bitcast(column, ir.IntType(8).as_pointer())
                    prefetch(builder, builder.gep(line, [ir.Constant(i.type, AHEAD)]), level=2)
                loaded = [builder.load(column, align=number) for column in columns]
                for r, start in enumerate(starts):
                    entry = builder.load(builder.gep(left, [builder.add(start, loop.index)]))
                    row = broadcast(builder, entry, kind)
                    for column, total in zip(loaded, sums[r * width :], strict=False):
                        product = builder.fmul(row, column, flags=("contract",))
                        new = builder.fadd(product, builder.load(total), flags=("contract",))
                        builder.store(new, total)
            for r in range(rows):
                for offset, total in zip(offsets, sums[r * width :], strict=False):
                    place = vector_at(to, o, times(r, ldo), offset)
                    builder.store(builder.load(total), place, align=number)
            return context.get_dummy_value()

        return types.void(a, index, index, w, index, index, out, index, index), emit

    return tile


_rows_by_panel = _tile(ROWS, 1)
_fewer_by_panel = _tile(FEWER, 1)
_row_by_panels = _tile(1, PANELS)
_row_by_panel = _tile(1, 1)


def multiply(
    rows: Any,
    a: Any,
    i: Any,
    lda: Any,
    w: Any,
    j: Any,
    K: Any,
    columns: Any,
    out: Any,
    o: Any,
    ldo: Any,
) -> None:
    """Multiply rows by a matrix; to be jitted, with unsigned integers.

    Parameters
    ----------
    rows, K : uint64
        The shape of what is multiplied, ``a[i + r lda + k]``.
    w : flat array
        The matrix from `j` on, as `pack` lays it out.
    columns : uint64
        Of the matrix in whole panels.
    out : flat array
        ``out[o + r ldo + c]``, for so many columns.
    """
    size = uint64(VECTORS * BYTES // a.itemsize)
    most, fewer = uint64(ROWS), uint64(FEWER)
    if rows >= fewer:
        for c in range(uint64(0), columns, size):
            r = uint64(0)
            while r < rows:
                # The last rows may overlap those before.
                if rows >= most and rows - r > fewer:
                    r = min(r, rows - most)
                    _rows_by_panel(a, i + r * lda, lda, w, j + c * K, K, out, o + r * ldo + c, ldo)
                    r += most
                else:
                    r = min(r, rows - fewer)
                    _fewer_by_panel(a, i + r * lda, lda, w, j + c * K, K, out, o + r * ldo + c, ldo)
                    r += fewer
        return
    many = uint64(PANELS) * size
    wide = columns // many * many
    for c in range(uint64(0), wide, many):
        for r in range(rows):
            _row_by_panels(a, i + r * lda, lda, w, j + c * K, K, out, o + r * ldo + c, ldo)
    for c in range(wide, columns, size):
        for r in range(rows):
            _row_by_panel(a, i + r * lda, lda, w, j + c * K, K, out, o + r * ldo + c, ldo)
