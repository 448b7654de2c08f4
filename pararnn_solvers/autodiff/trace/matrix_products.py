"""Products of traced arrays with matrices of parameters: in a staged trace, data for what follows.

What a product yields enters the graph as new inputs, one for every n columns. So entries of the
state may be mixed by matrices, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.autodiff.trace import joining  # noqa: F401  (it registers functions)
from pararnn_solvers.autodiff.trace.arrays import ARRAY_FUNCTIONS, Traced
from pararnn_solvers.autodiff.trace.graph import Node, reachable
from pararnn_solvers.autodiff.trace.weights import PRODUCTS, Tape, Weight
from pararnn_solvers.errors import NotTraceable

__all__ = ["Column", "Joined", "Product", "Products"]

MOST = 64  # matrices by which one array is multiplied at once


class Column(NamedTuple):
    """What a product yields for one channel, or one column for all: the value of an input.

    Attributes
    ----------
    name : str
        A Python identifier: ``product0_1``.
    product : int
        Which one, in the order of the calls.
    position : int
        Of n columns, or of one.
    channels : int
        n if there is a value for each channel, 0 if one value serves all.
    """

    name: str
    product: int
    position: int
    channels: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Product:
    """A row, computed from state and inputs, times a matrix, computed from theta.

    Attributes
    ----------
    operand : tuple of Node
        Entries of the row: components of n channels, or numbers.
    channels : int
        n, or 0 for numbers.
    matrix : int
        Place of the matrix, shape (K, N), on the tape.
    shape : (int, int)
        K and N.
    level : int
        0 if the state does not enter; otherwise one more than that of the products that do.
    """

    operand: tuple[Node, ...]
    channels: int
    matrix: int
    shape: tuple[int, int]
    level: int


class Products:
    """The products of a trace, in the order of the calls: each once.

    Parameters
    ----------
    tape : Tape
        Its context is that of all arrays.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.made: list[Product] = []
        self._known: dict[tuple[Any, ...], int] = {}

    def level(self, nodes: Sequence[Node]) -> int:
        """Return how many products, one after another, nodes wait for; 0 without the state."""
        level = 0
        for node in reachable(nodes):
            if isinstance(node.value, Column):
                before = self.made[node.value.product].level
                level = max(level, before + (before > 0))
            elif node.op == "input":
                level = max(level, int(node.value.group == "h"))
        return level

    def multiply(self, operand: Sequence[Node], channels: int, matrix: Weight) -> list[Node]:
        """Return the columns of a row times a matrix; zeros, if the row is empty."""
        n, size = self.tape.context.channels, matrix.shape[1]
        if not operand:
            zero = self.tape.context.graph.constant(0.0)
            return [zero] * (size if size % n else size // n)
        levels = [self.level([node]) for node in operand]
        if min(levels) == 0 < max(levels):  # part of it can be done before
            parts = []
            fixed = [i for i, level in enumerate(levels) if not level]
            for chosen in (fixed, [i for i, level in enumerate(levels) if level]):
                slices = [matrix[i * channels : (i + 1) * channels] for i in chosen]
                rows: Any = np.concatenate(slices)
                parts.append(self.multiply([operand[i] for i in chosen], channels, rows))
            return [a + b for a, b in zip(*parts, strict=True)]
        level = max(levels)
        if level and (not channels or size % n):
            raise NotTraceable(
                f"step multiplies by a matrix of shape {matrix.shape}; with {n} channels, a "
                f"product that depends on the state has to have a multiple of {n} rows and columns"
            )
        key = (tuple(operand), channels, matrix.place)
        if key not in self._known:
            self._known[key] = len(self.made)
            self.made.append(Product(*key, shape=(matrix.shape[0], size), level=level))
        number, width = self._known[key], 0 if size % n else n
        columns = (
            Column(f"product{number}_{i}", number, i, width) for i in range(size // (width or 1))
        )
        return [self.tape.context.graph.input(column) for column in columns]


class Joined(Traced):
    """State and inputs side by side, where they are not whole components: only to be multiplied."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Traced]) -> None:
        self.parts = parts

        def refuse() -> Any:
            raise NotTraceable("step joins an array of components with one that is not")

        size = sum(part.shape[-1] for part in parts)
        super().__init__(parts[0].context, refuse, None, (*parts[0].shape[:-1], size))

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, Weight) for a in args):
            return NotImplemented  # it knows of products
        return super().__array_ufunc__(ufunc, method, *args, **kwargs)


_concatenate = ARRAY_FUNCTIONS[np.concatenate]


def _concatenate_or_join(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    traced = [a for a in arrays if isinstance(a, Traced)]
    if traced[0].context.lift is not None and axis in (-1, traced[0].ndim - 1):
        parts = [traced[0].context.array(a) for a in arrays]
        if len({part.channel for part in parts}) > 1:
            return Joined(parts)
    return _concatenate(arrays, axis)


ARRAY_FUNCTIONS[np.concatenate] = ARRAY_FUNCTIONS[np.concat] = _concatenate_or_join

# --- which products NumPy's functions are ------------------------------------------------------


def _matmul(a: Any, b: Any) -> Any:
    if isinstance(b, Weight):
        return _times_matrix(a, b)
    if a.ndim == 1:
        return _times_matrix(b if b.ndim == 1 else np.swapaxes(b, -1, -2), a)
    transposed = np.swapaxes(a, -1, -2)
    if b.ndim == 1:
        return _times_matrix(b, transposed)
    return np.swapaxes(_times_matrix(np.swapaxes(b, -1, -2), transposed), -1, -2)


def _times_matrix(a: Traced, W: Any) -> Any:
    """Return ``a @ W``, of which the entries are new inputs."""
    if W.ndim == 1:
        return _times_matrix(a, W[:, None])[..., 0]
    if a.shape[-1] != W.shape[-2]:
        raise ValueError(f"shapes {a.shape} and {W.shape} do not match in a product")
    if isinstance(a, Joined):
        starts = np.cumsum([0] + [part.shape[-1] for part in a.parts]).tolist()
        parts = zip(a.parts, starts, starts[1:], strict=False)
        return reduce(np.add, [part @ W[..., i:j, :] for part, i, j in parts])
    if a.ndim == 1:
        return _times_matrix(a[None], W)[..., 0, :]
    if a.dtype == W.dtype == bool:
        raise NotTraceable("step multiplies truth values by a matrix of truth values")
    context, n = a.context, a.context.channels
    if a.channel not in (None, a.ndim - 1):
        raise NotTraceable("step multiplies by a matrix along another axis than the channels")
    lead = (*np.broadcast_shapes(a.shape[:-2], W.shape[:-2]), a.shape[-2])
    if int(np.prod(lead)) > MOST:
        raise NotTraceable(f"step makes {int(np.prod(lead))} products at once, of at most {MOST}")
    operands = np.broadcast_to(a.cells, (*lead, a.cells.shape[-1]))
    per_channel = W.shape[-1] % n == 0
    cells = np.empty((*lead, W.shape[-1] // (n if per_channel else 1)), object)
    if W.ndim > 2:
        W = np.broadcast_to(W, (*lead[:-1], *W.shape[-2:]))
    for index in np.ndindex(lead):
        matrix = W if W.ndim == 2 else W[index[:-1]]
        operand = operands[index].tolist()
        channels = 0 if a.channel is None else n
        cells[index] = W.tape.products.multiply(operand, channels, matrix)
    return Traced(context, cells, cells.ndim - 1 if per_channel else None)


def _dot(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    if np.ndim(b) > 2:
        raise NotTraceable("step calls numpy.dot with a stack of matrices; use numpy.matmul")
    return np.matmul(a, b)


def _inner(a: Any, b: Any) -> Any:
    return np.dot(a, b.T)


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    of_b = np.ravel(axes[1] if isinstance(axes, (list, tuple)) else range(axes)).tolist()
    if isinstance(a, Weight) or a.ndim != 1 or len(of_b) != 1:
        raise NotTraceable("step calls numpy.tensordot other than over the last axis of the state")
    return _over_first_axis(a, np.moveaxis(b, of_b, [0]))


def _over_first_axis(a: Any, W: Any) -> Any:
    return np.matmul(a, W.reshape(W.shape[0], -1)).reshape(W.shape[1:])


def _vecmat(a: Any, W: Any) -> Any:
    if W.ndim != 2 or not isinstance(W, Weight):
        raise NotTraceable("step calls numpy.vecmat or matvec other than with one matrix of theta")
    return np.matmul(a, W)


def _einsum(subscripts: Any, *operands: Any, optimize: Any = None) -> Any:
    """Return the product if one vector is summed with one axis of a matrix."""
    terms, _, output = str(subscripts).replace(" ", "").replace("...", "").partition("->")
    letters = terms.split(",")
    if len(operands) == len(letters) == 2:
        (a, summed), (W, matrix) = zip(operands, letters, strict=True)
        if isinstance(a, Weight):
            a, summed, W, matrix = W, matrix, a, summed
        fits = isinstance(W, Weight) and a.ndim == len(summed) == 1 and W.ndim == len(matrix)
        if fits and "->" in str(subscripts) and sorted(output + summed) == sorted(set(matrix)):
            return _over_first_axis(a, np.einsum(f"{matrix}->{summed}{output}", W))
    return ARRAY_FUNCTIONS[np.einsum](subscripts, *operands)


PRODUCTS.update({np.matmul: _matmul, np.linalg.matmul: _matmul, np.dot: _dot, np.inner: _inner})
PRODUCTS.update({np.tensordot: _tensordot, np.einsum: _einsum})
if hasattr(np, "vecmat"):  # NumPy 2.2
    PRODUCTS.update({np.vecmat: _vecmat, np.matvec: lambda W, v: _vecmat(v, W.T)})
