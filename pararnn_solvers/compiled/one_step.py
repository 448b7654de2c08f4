"""A compiled step for one step at a time: all that a call needs is there before it.

A call is the entry point of a kernel with every argument but x bound to it. Nothing is looked up,
converted or allocated; the caller answers for the shape, the dtype and the order of x.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="attr-defined, import-untyped, no-untyped-call, misc, call-arg"
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numba import typeof

from pararnn_solvers.compiled.dense import DenseProgram, multiplier
from pararnn_solvers.compiled.dense_data import BUSY, SLAB, Data, _is, in_blocks, prepare
from pararnn_solvers.compiled.dense_product import ROWS, aligned, pack, padded
from pararnn_solvers.compiled.dense_rows import nothing_seen
from pararnn_solvers.compiled.numba_kernels import (
    FEW_SEQUENCES,
    WORTH_A_THREAD,
    divide_rows,
    in_rows,
    kernel,
    lanes_of_a_tile,
    parts,
    vector_size,
)
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.linear import threads
from pararnn_solvers.typing import Array

__all__ = ["channel_step", "dense_step"]

Advance = Callable[[Array], Any]
"""Advances a state, given x (*batch, m), C-contiguous; there is an x without inputs, too."""


def channel_step(program: Program, x: Array, state: Array) -> Advance:
    """Return what advances the states of a step whose channels do not couple.

    Parameters
    ----------
    program : Program
    x : array, shape (*batch, m)
        One like those to come. Of m = 0 where there are no inputs.
    state : array, shape (B, d)
        C-contiguous; advanced in place.

    Notes
    -----
    The kernels are those of a rollout, of one step: what is contracted to a fused operation is up
    to the compiler, and so only the same kernel gives the same bits. The trajectory that it writes
    to are the states themselves, when they have been read. A large batch is shared between the
    threads that there are when this is called.
    """
    B, n, k, m = len(state), program.n, program.k, x.shape[-1]
    size, h = vector_size(program), state.reshape(-1)
    spoiled = np.empty(size, h.dtype)  # by what is not finite: nobody looks
    given, shape = (program.theta, h, h, spoiled), (1, B, m, n)
    if B == 1 and n <= size:
        return call_of(kernel(program, "row", "alone", k), x, *given, shape)
    if in_rows(program) or B < FEW_SEQUENCES:
        sweep = kernel(program, "row", "sweep", k, k)
        lanes = divide_rows(program, B, state.size)
        return together([call_of(sweep, x, *given, shape, (0, 1), 1, 1, lane) for lane in lanes])
    sweep, L = kernel(program, "tile", "sweep", k, k), lanes_of_a_tile(program, m)
    pieces, flat = parts(B, state.size, L), x.reshape(-1)
    advance = together([call_of(sweep, flat, *given, shape, piece, 1, L) for piece in pieces])
    return lambda x: advance(x.reshape(-1))


def call_of(kernel: Any, x: Array, *rest: Any) -> Advance:
    """Return what calls a kernel with other x."""
    entry = entry_point(kernel, x, *rest)
    return lambda x: entry(x, *rest)


def together(calls: Sequence[Advance]) -> Advance:
    """Return what makes all calls, each in a thread; one alone needs nothing more."""
    if len(calls) == 1:
        return calls[0]
    return lambda x: threads.run([partial(call, x) for call in calls])


def entry_point(kernel: Any, *args: Any) -> Any:
    """Compile a kernel for such arguments, and return what runs it, whatever it is called with.

    It trusts its arguments, and so costs half as much as the kernel itself, which looks at them.
    """
    if not hasattr(kernel, "overloads"):  # NUMBA_DISABLE_JIT
        return kernel
    kinds = tuple(map(typeof, args))
    kernel.compile(kinds)
    return kernel.overloads[kinds].entry_point


def dense_step(program: DenseProgram, x: Array | None, theta: Any, state: Array) -> Advance:
    """Return what advances the states of a step with matrix products.

    Parameters
    ----------
    program : DenseProgram
    x : array, shape (B, m), or None
        One like those to come, finite.
    theta : nested containers
        Like that of the trace.
    state : array, shape (B, d)
        C-contiguous; advanced in place.

    Notes
    -----
    Products that do not depend on the state are made in each call, of matrices packed once. Where
    their operands are computed from x, NumPy does that.
    """
    buffer = None if x is None else np.array(x, order="C")
    data = prepare(program, None if buffer is None else buffer[None], state, theta, 1)
    pieces = parts(len(state), int(data.cost * len(state) * WORTH_A_THREAD / BUSY), ROWS)
    marches = [_march(data, state.reshape(-1), *piece) for piece in pieces]
    march = marches[0] if len(marches) == 1 else partial(threads.run, marches)
    if buffer is None:
        return lambda x: march()
    products = _products(data, buffer)

    def advance(x: Array) -> None:
        np.copyto(buffer, x.reshape(buffer.shape))
        for product in products:
            product()
        march()

    return advance


def _march(data: Data, state: Array, first: int, last: int) -> Callable[[], None]:
    """Bind the kernel of a dense step to some rows: each makes one step, its last one.

    The trajectory that it writes to has one step: the states themselves, when they have been read.
    """
    size, d, dtype = last - first, data.d, state.dtype
    position, row = np.arange(first, last, dtype=np.uint64), np.arange(size, dtype=np.uint64)
    work = [aligned(size * width, dtype) for width in (*data.widths, d)]
    args = (
        *map(np.uint64, (size, data.program.trace.channels, data.batch)),
        *(data.place, data.shapes, data.x, data.y, data.theta, data.matrices),
        *(state, np.full(2, -1.0, dtype), state[first * d : last * d], *work),
        *(position, np.ones(size, np.uint64), row),
        *(np.zeros(size, np.uint64), np.full((size, 2), -1.0, dtype), nothing_seen(dtype)),
    )
    call: Callable[[], None] = partial(entry_point(data.program.march, *args), *args)
    return call


def _products(data: Data, x: Array) -> list[Callable[[], Any]]:
    """Return what makes the products of x (B, m) in each call, in ``data.y``."""
    trace, table = data.program.trace, data.y.reshape(len(x), -1)
    weights = trace.weights(data.given)
    results, calls, start = list[Array](), list[Callable[[], Any]](), 0
    for product in trace.hoisted:
        operand = data.x
        if not _is(product, x.shape[1]):
            row = aligned(len(x) * product.shape[0], x.dtype).reshape(len(x), -1)
            calls.append(partial(_gather, trace, product, x, weights, list(results), row))
            operand = as_read_only(row.reshape(-1))
        calls.append(_product(operand, weights[product.matrix], table, start))
        results.append(table[:, start : start + product.shape[1]])
        start += padded(product.shape[1], x.dtype)
    return calls


def _gather(
    trace: Any, product: Any, x: Array, weights: Any, results: list[Array], row: Array
) -> None:
    """Compute the operand of a product of x."""
    with np.errstate(all="ignore"):
        np.copyto(row, trace.row(product, None, x, weights, results))


def _product(operand: Array, matrix: Array, table: Array, start: int) -> Callable[[], None]:
    """Return what multiplies rows, flat, by a matrix, into columns of a table from `start` on."""
    K, columns, out = len(matrix), padded(matrix.shape[1], table.dtype), table.reshape(-1)
    rows, ldo = table.shape
    packed = aligned(K * columns, table.dtype)
    pack(matrix, packed)
    u = np.uint64(0)  # the type of all sizes and places
    multiply = entry_point(multiplier(), u, operand, u, u, packed, u, u, u, out, u, u)

    def task(i: int, j: int) -> None:
        for r in range(i, j, SLAB):
            size, o = min(SLAB, j - r), start + r * ldo
            multiply(size, operand, r * K, K, packed, 0, K, columns, out, o, ldo)

    return partial(in_blocks, task, rows, 2.0 * rows * packed.size)


def as_read_only(array: Array) -> Array:
    """View an array so that a kernel is compiled for the type for which it is elsewhere."""
    view = array.view()
    view.flags.writeable = False
    return view
