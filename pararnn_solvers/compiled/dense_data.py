"""The inputs and parameters of a dense recurrence, laid out for its kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.autodiff.trace.matrix_products import Column
from pararnn_solvers.autodiff.trace.staged import Product, StagedTrace
from pararnn_solvers.autodiff.trace.stages import Stored
from pararnn_solvers.compiled.dense import STRIDES, DenseProgram, array_of, multiplier
from pararnn_solvers.compiled.dense_product import ROWS, aligned, pack, padded
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import threads
from pararnn_solvers.typing import Array

__all__ = ["Data", "in_blocks", "prepare"]

SLAB = 256  # rows that are multiplied by one panel after another, from the cache
BUSY = 1e7  # operations from which a second thread is worth its start


@dataclass(frozen=True, eq=False)
class Data:
    """What a kernel reads, beside states.

    Attributes
    ----------
    program : DenseProgram
    given : nested containers
        Theta as it was given.
    steps, batch : int
    place : array of uint64
        Distances of rows in the arrays of ``STRIDES``, then where each input of each stage begins.
    shapes : array of uint64
        Of each product: where its row begins, and its matrix; rows and columns of that; where its
        results begin.
    x, y : flat arrays
        Inputs, and products of them, each in the order (T, batch, ...).
    theta, matrices : flat arrays
        Parameters, and packed matrices.
    widths : (int, int)
        Entries of a row of operands, and of products.
    """

    program: DenseProgram
    given: Any
    steps: int
    batch: int
    place: Array
    shapes: Array
    x: Array
    y: Array
    theta: Array
    matrices: Array
    widths: tuple[int, int]

    @property
    def d(self) -> int:
        """Size of the state."""
        return self.program.trace.components * self.program.trace.channels

    @property
    def cost(self) -> float:
        """Operations of one step of one row, about."""
        sizes = (product.shape for _, product in self.program.in_step)
        return 2.0 * sum(K * N for K, N in sizes) + 100.0 * self.d


def prepare(program: DenseProgram, x: Array | None, h0: Array, theta: Any, steps: int) -> Data:
    """Lay out inputs (T, batch, m), and parameters.

    Notes
    -----
    Cost: the products with inputs, at all steps; their memory.
    """
    trace, dtype = program.trace, program.trace.dtype
    expected = trace.components * trace.channels, trace.inputs
    if (h0.shape[-1], None if x is None else x.shape[-1]) != expected:
        raise InvalidInput(
            f"h0 has shape {h0.shape}, x {None if x is None else x.shape}; the program was made "
            f"for trailing sizes {expected}; trace step again"
        )
    weights = trace.weights(theta)
    batch = len(h0)
    rows = np.empty((steps * batch, 0), dtype)
    if x is not None:
        rows = np.ascontiguousarray(x.reshape(steps * batch, x.shape[-1]), dtype)
    places = _places(program, tuple(weights[i].shape for i in trace.parameters))
    y = _hoisted(trace, rows, weights, places.starts, places.ldy)
    theta_flat = _side_by_side([weights[i].ravel() for i in trace.parameters], dtype)
    matrices = _matrices(program, weights, places.shapes)
    flat = rows.reshape(-1)
    flat.flags.writeable = False  # always, so that the kernel is compiled for one type
    return Data(
        program, theta, steps, batch, places.place, places.shapes, flat, y, theta_flat, matrices,
        places.widths,
    )  # fmt: skip


class _Places(NamedTuple):
    """Where things are, whatever their values: `Data`, and the distance of rows in ``y``."""

    place: Array
    shapes: Array
    widths: tuple[int, int]
    starts: list[int]
    ldy: int


@lru_cache(maxsize=64)
def _places(program: DenseProgram, sizes: tuple[tuple[int, ...], ...]) -> _Places:
    """Lay out what depends on no values, for parameters of these shapes."""
    trace = program.trace
    products, starts, ldy = _layout(trace, trace.dtype)
    ends = np.cumsum([0, *map(math.prod, sizes)]).tolist()
    parameters = dict(zip(trace.parameters, zip(ends, sizes, strict=False), strict=True))

    def begin(value: Any) -> int:
        where = array_of(value, trace)
        if isinstance(value, Stored):
            return value.number * trace.channels
        if isinstance(value, Column):
            number, first = trace.place(value)
            return starts[number] + first
        *index, last = value.position or (0,)
        last *= value.channels or 1
        if where != "theta":
            return int(last)
        first, shape = parameters[value.leaf]
        return int(first + np.ravel_multi_index((*index, last), shape or (1,)))

    inputs = [begin(node.value) for stage in program.stages for node in stage.inputs]
    widths = program.stored * trace.channels, products
    strides = dict(
        h=trace.components * trace.channels, x=trace.inputs or 0, y=ldy, operands=widths[0],
        products=widths[1],
    )  # fmt: skip
    place = np.array([*(strides[name] for name in STRIDES), *inputs], np.uint64)
    return _Places(place, _shapes(program, starts), widths, starts, ldy)


def _layout(trace: StagedTrace, dtype: Any) -> tuple[int, list[int], int]:
    """Return the width of a row of products, where each begins, and the width of those hoisted."""
    ends, starts = [0, 0], []
    for product in trace.products:
        of_step = int(product.level > 0)
        starts.append(ends[of_step])
        ends[of_step] += padded(product.shape[1], dtype)
    return ends[1], starts, ends[0]


def _side_by_side(parts: list[Array], dtype: Any) -> Array:
    whole, start = aligned(sum(part.size for part in parts), dtype), 0
    for part in parts:
        whole[start : start + part.size] = part
        start += part.size
    return whole


def _shapes(program: DenseProgram, starts: list[int]) -> Array:
    trace, rows, size = program.trace, list[list[int]](), 0
    for number, product in program.in_step:
        first = program.operands.get(number)
        begin = product.operand[0].value.position[0] if first is None else first
        columns = padded(product.shape[1], trace.dtype)
        rows.append([begin * trace.channels, size, product.shape[0], columns, starts[number]])
        size += product.shape[0] * columns
    return np.array(rows, np.uint64).reshape(-1)


def _matrices(program: DenseProgram, weights: dict[int, Array], shapes: Array) -> Array:
    rows = shapes.reshape(-1, 5).tolist()
    matrices = aligned(sum(K * columns for _, _, K, columns, _ in rows), program.trace.dtype)
    for (_, product), (_, start, K, columns, _) in zip(program.in_step, rows, strict=True):
        pack(weights[product.matrix], matrices[start : start + K * columns])
    return matrices


def _hoisted(
    trace: StagedTrace, x: Array, weights: dict[int, Array], starts: list[int], ldy: int
) -> Array:
    """Return the products in which the state does not enter, at all steps, side by side."""
    y = aligned(len(x) * ldy, trace.dtype)
    table, results = y.reshape(len(x), ldy), list[Array]()
    for product, start in zip(trace.hoisted, starts, strict=False):
        operand = x
        if not _is(product, x.shape[1]):
            operand = np.ascontiguousarray(trace.row(product, None, x, weights, results))
        _multiply(operand, weights[product.matrix], table, start)
        results.append(table[:, start : start + product.shape[1]])
    return y


def _is(product: Product, m: int) -> bool:
    """Tell whether the row of a product is all of x."""
    values = [node.value for node in product.operand]
    of_x = [v.position[0] for v in values if getattr(v, "group", "") == "x"]
    return product.shape[0] == m and of_x == list(range(len(values)))


def _multiply(a: Array, matrix: Array, table: Array, start: int) -> None:
    """Write ``a @ matrix`` into columns of a table, from `start` on."""
    columns = padded(matrix.shape[1], a.dtype)
    packed = aligned(matrix.shape[0] * columns, a.dtype)
    pack(matrix, packed)
    K, ldo = np.uint64(matrix.shape[0]), np.uint64(table.shape[1])
    flat, out = a.reshape(-1), table.reshape(-1)
    flat.flags.writeable = False

    def task(i: int, j: int) -> None:
        for r in range(i, j, SLAB):
            shape = np.uint64(min(SLAB, j - r)), np.uint64(columns)
            o = np.uint64(start) + np.uint64(r) * ldo
            at = np.uint64(r) * K
            multiplier()(shape[0], flat, at, K, packed, np.uint64(0), K, shape[1], out, o, ldo)

    in_blocks(task, len(a), 2.0 * len(a) * packed.size)


def in_blocks(task: Callable[[int, int], object], rows: int, cost: float) -> None:
    """Call ``task(i, j)`` for ranges of rows, whole blocks of them, side by side if it pays."""
    blocks = -(-rows // ROWS)
    pieces = max(1, min(threads.num_threads(), blocks, int(cost / BUSY) + 1))
    cuts = [min(rows, blocks * i // pieces * ROWS) for i in range(pieces + 1)]
    threads.run([partial(task, i, j) for i, j in zip(cuts, cuts[1:], strict=False)])
