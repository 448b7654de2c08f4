"""The inputs and parameters of a dense recurrence, laid out for its kernel on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.trace.graph import reachable
from pararnn_solvers.autodiff.trace.matrix_products import Column
from pararnn_solvers.autodiff.trace.staged import Product, StagedTrace
from pararnn_solvers.autodiff.trace.tracing import evaluate
from pararnn_solvers.compiled.cuda_dense import DenseCudaProgram
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

__all__ = ["SLAB_BYTES", "Data", "hoisted", "prepare"]

SLAB_BYTES = 256 << 20  # of products of inputs that are made at once


@dataclass(frozen=True, eq=False)
class Data:
    """What a kernel reads, beside states, on the device.

    Attributes
    ----------
    program : DenseCudaProgram
    given : nested containers
        Theta as it was given.
    batch : int
    x : array, shape (T * batch, m)
    weights : dict of int to array
        By place on the tape of the trace.
    theta, matrices : flat arrays
        Parameters, and the matrices by which each step multiplies.
    rest : tuple of int
        What of the :meth:`table` no slab changes.
    """

    program: DenseCudaProgram
    given: Any
    batch: int
    x: Array
    weights: dict[int, Array]
    theta: Array
    matrices: Array
    rest: tuple[int, ...]

    @property
    def d(self) -> int:
        """Size of the state."""
        return self.program.trace.components * self.program.trace.channels

    @property
    def slab_row(self) -> int:
        """Bytes of the products of inputs of one row."""
        trace = self.program.trace
        return trace.dtype.itemsize * sum(product.shape[1] for product in trace.hoisted)

    def table(self, rows: int) -> Array:
        """Return what a kernel knows of places, for tables of products with so many rows."""
        trace, found, starts = self.program.trace, list[int](), [0]
        for product in trace.hoisted:
            starts.append(starts[-1] + rows * product.shape[1])
        for value in self.program.drives:
            if isinstance(value, Column):
                number, first = trace.place(value)
                found += [starts[number] + first, trace.products[number].shape[1]]
            else:
                found += [value.position[0] * (value.channels or 1), self.x.shape[-1]]
        return _integers([*found, *self.rest])


def _integers(values: Any) -> Array:
    found: Array = cuda.cupy().asarray(np.asarray(values, np.int64))
    return found


def prepare(program: DenseCudaProgram, x: Array | None, h0: Array, theta: Any) -> Data:
    """Lay out inputs (T, batch, m), and parameters."""
    xp, trace = cuda.cupy(), program.trace
    n, expected = trace.channels, (trace.components * trace.channels, trace.inputs)
    if (h0.shape[-1], None if x is None else x.shape[-1]) != expected:
        raise InvalidInput(
            f"h0 has shape {h0.shape}, x {None if x is None else x.shape}; the program was made "
            f"for trailing sizes {expected}; trace step again"
        )
    weights = trace.weights(theta, xp.asarray)
    flat = xp.empty((0, 0), trace.dtype)
    if x is not None:
        flat = xp.ascontiguousarray(x, trace.dtype).reshape(-1, x.shape[-1])
    parts, rest, size = list[Array](), list[int](), 0
    for value in program.parameters:
        rest.append(size)
        parts.append(xp.ravel(value.pick(weights[value.leaf])))
        size += parts[-1].size
    matrices, start = list[Array](), 0
    for number, product in program.in_step:
        rest += [program.first_slot(number) * n, product.shape[0], start, product.shape[1]]
        matrices.append(xp.ravel(weights[product.matrix]))
        start += matrices[-1].size
    theta_flat, packed = (_side_by_side(some, trace.dtype) for some in (parts, matrices))
    return Data(program, theta, len(h0), flat, weights, theta_flat, packed, tuple(rest))


def _side_by_side(parts: list[Array], dtype: Any) -> Array:
    xp = cuda.cupy()
    if len(parts) == 1:
        return parts[0]
    found: Array = xp.concatenate([*parts, xp.zeros(1, dtype)])
    return found


# --- products of inputs ------------------------------------------------------------------------


def hoisted(data: Data, x: Array) -> Array:
    """Return the products in which the state does not enter, of rows of inputs, one by one."""
    xp, trace = cuda.cupy(), data.program.trace
    widths = [product.shape[1] for product in trace.hoisted]
    y: Array = xp.empty(max(1, len(x) * sum(widths)), trace.dtype)
    results, start = list[Array](), 0
    for product, width in zip(trace.hoisted, widths, strict=True):
        part = y[start : start + len(x) * width].reshape(len(x), width)
        operand = _operand(trace, product, x, data.weights, results)
        xp.matmul(operand, data.weights[product.matrix], out=part)
        results.append(part)
        start += part.size
    return y


def _operand(
    trace: StagedTrace,
    product: Product,
    x: Array,
    weights: dict[int, Array],
    results: list[Array],
) -> Array:
    """Return the rows that a product multiplies, of inputs (R, m); those themselves if it can."""
    xp, values = cuda.cupy(), dict[str, Any]()
    if _is_all_of(product, x.shape[-1]):
        return x
    for node in reachable(product.operand):
        i: Any = node.value
        if isinstance(i, Column):
            number, first = trace.place(i)
            values[i.name] = results[number][:, first : first + (i.channels or 1)]
        elif node.op == "input" and i.group == "theta":
            values[i.name] = i.pick(weights[i.leaf])
        elif node.op == "input":
            first = i.position[0] * (i.channels or 1)
            values[i.name] = x[:, first : first + (i.channels or 1)]
    parts = evaluate(list(product.operand), values, trace.dtype)
    shape = (len(x), product.channels or 1)
    whole = [xp.broadcast_to(xp.asarray(part, dtype=trace.dtype), shape) for part in parts]
    found: Array = xp.ascontiguousarray(xp.concatenate(whole, axis=-1))
    return found


def _is_all_of(product: Product, m: int) -> bool:
    values = [node.value for node in product.operand]
    of_x = [v.position[0] for v in values if getattr(v, "group", "") == "x"]
    return product.shape[0] == m and of_x == list(range(len(values)))
