"""A dense step as products with matrices, and what happens in each channel between them.

``h @ W`` mixes the channels, but everything else in a recurrent network acts entry by entry. A
staged trace takes the columns of each product as further inputs of the elementwise graph:

    r, z = sigmoid(h @ W + x)     ->  product 0 of operand h;  r = sigmoid(product0_0 + x0), ...
    c = tanh((r * h) @ U)         ->  product 1 of operand r * h, one level later

Products in which the state does not enter, such as ``x @ W_in``, are of level 0: they can be made
for all steps at once. Of matrices, and of whatever else is computed from theta alone, the trace
knows only how to compute it: see :mod:`.weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.graph import Graph, Node, reachable
from pararnn_solvers.autodiff.trace.inputs import argument
from pararnn_solvers.autodiff.trace.matrix_products import Column, Product, Products
from pararnn_solvers.autodiff.trace.tracing import evaluate
from pararnn_solvers.autodiff.trace.weights import Tape, Weight
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.typing import Array

__all__ = ["Product", "StagedTrace", "columns_of", "trace_staged"]

COMPONENTS = (1, 2, 3, 4)  # of a channel: how a state is cut, at most


@dataclass(frozen=True, eq=False)
class StagedTrace:
    """The operations of a dense step: products with matrices, and those of one channel.

    Attributes
    ----------
    graph : Graph
        One thread at a time may add nodes to it.
    outputs : tuple of k Node
        Components of the next state.
    products : tuple of Product
        In an order in which they can be made. Products of the same row are one, their matrices
        side by side.
    channels : int
        n; the state has ``d = k n`` entries.
    inputs : int or None
        m.
    dtype : dtype
        Of the state.
    constants : tuple of (str, object)
        Path and value of the leaves of theta that became part of the program: the trace holds for
        these values only.
    """

    graph: Graph
    outputs: tuple[Node, ...]
    products: tuple[Product, ...]
    channels: int
    inputs: int | None
    dtype: np.dtype[Any]
    constants: tuple[tuple[str, Any], ...]
    tape: Tape
    # For each product as it was called: which of `products` it is in, and its first column there.
    columns: dict[int, tuple[int, int]]

    @property
    def components(self) -> int:
        """Return k."""
        return len(self.outputs)

    @property
    def hoisted(self) -> tuple[Product, ...]:
        """The products in which the state does not enter; they come first."""
        return tuple(product for product in self.products if product.level == 0)

    @cached_property
    def parameters(self) -> list[int]:
        """Places on the tape of the weights that enter entry by entry."""
        nodes = reachable([*self.outputs, *(node for p in self.products for node in p.operand)])
        inputs = [n.value for n in nodes if n.op == "input" and not isinstance(n.value, Column)]
        return sorted({i.leaf for i in inputs if i.group == "theta"})

    def weights(self, theta: Any, asarray: Callable[..., Array] = np.asarray) -> dict[int, Array]:
        """Return all matrices and parameters for some theta, by their place on the tape.

        ``asarray`` is NumPy's, or CuPy's for arrays on a device.
        """
        matrices = (product.matrix for product in self.products)
        return self.tape.replay(theta, sorted({*self.parameters, *matrices}), asarray)

    def place(self, column: Column) -> tuple[int, int]:
        """Return the number of the product that yields a column, and the first one there."""
        number, first = self.columns[column.product]
        return number, first + column.position * (column.channels or 1)

    def apply(self, h: Array, x: Array | None, theta: Any) -> Array:
        """Return the next states by NumPy, operation by operation.

        Parameters
        ----------
        h : array, shape (..., d)
        x : array, shape (..., m), or None

        Returns
        -------
        array, shape (..., d)
        """
        weights, results = self.weights(theta), list[Array]()
        for product in self.products:
            results.append(self.row(product, h, x, weights, results) @ weights[product.matrix])
        values = self.values(self.outputs, h, x, weights, results)
        outputs = evaluate(list(self.outputs), values, self.dtype)
        shape = (*h.shape[:-1], self.channels)
        return np.concatenate([np.broadcast_to(out, shape) for out in outputs], axis=-1)

    def row(
        self,
        product: Product,
        h: Array | None,
        x: Array | None,
        weights: dict[int, Array],
        results: list[Array],
    ) -> Array:
        """Return the operand of a product, shape (..., K), given the results of those before."""
        values = self.values(product.operand, h, x, weights, results)
        parts = evaluate(list(product.operand), values, self.dtype)
        leading = [np.shape(a)[:-1] for a in (h, x) if a is not None]
        shape = (*np.broadcast_shapes(*leading), product.channels or 1)
        return np.concatenate([np.broadcast_to(part, shape) for part in parts], axis=-1)

    def values(
        self,
        nodes: Sequence[Node],
        h: Array | None,
        x: Array | None,
        weights: dict[int, Array],
        results: list[Array],
    ) -> dict[str, Any]:
        """Return the values of the inputs of some nodes by name, as views."""
        found, arrays = {}, {"h": h, "x": x}
        for node in reachable(nodes):
            i = node.value
            if isinstance(i, Column):
                number, first = self.place(i)
                found[i.name] = results[number][..., first : first + (i.channels or 1)]
            elif node.op == "input":
                found[i.name] = i.pick(weights[i.leaf] if i.group == "theta" else arrays[i.group])
        return found


def columns_of(nodes: Sequence[Node]) -> list[Column]:
    """List the columns of products on which nodes depend."""
    return [node.value for node in reachable(nodes) if isinstance(node.value, Column)]


def trace_staged(step: Callable[..., Any], h: Any, x: Any, theta: Any) -> StagedTrace:
    """Trace a step that mixes the entries of the state by products with matrices only.

    Parameters
    ----------
    step : callable
        ``step(h, x, theta)``.
    h : array, shape (..., d)
        Of which only the last axis and the dtype matter; as of ``x``.
    x : array, shape (..., m), or None
    theta : nested containers
        Only shapes of floats matter; other leaves are used as they are. Arrays that `step` has
        from elsewhere are taken as they are when the trace runs.

    Raises
    ------
    NotTraceable
        The message says what `step` does that cannot be traced, with that number of components in
        a channel (1, 2, 3 or 4) with which the trace came furthest.

    Examples
    --------
    >>> W = np.ones((4, 8))
    >>> def step(h, x, W):
    ...     z, c = np.split(h @ W + x, 2, axis=-1)
    ...     return z * h + np.tanh(c)
    >>> trace_staged(step, np.ones(4), np.ones(8), W).products[0].operand
    (h0,)
    """
    d, failures = h.shape[-1], list[tuple[int, NotTraceable]]()
    for k in COMPONENTS:
        if d % k == 0 and d > k:
            graph = Graph()
            try:
                return _trace(step, h, x, Tape(graph, d // k, np.dtype(h.dtype), theta))
            except NotTraceable as error:
                failures.append((graph.size, error))
    if not failures:
        raise NotTraceable(f"a state of {d} entries has no channels that products could mix")
    raise max(failures, key=lambda failure: failure[0])[1]


def _trace(step: Callable[..., Any], h: Any, x: Any, tape: Tape) -> StagedTrace:
    context, d = tape.context, h.shape[-1]
    recorded = tape.products = Products(tape)
    state = argument(context, "h", d)
    drive = None if x is None else argument(context, "x", x.shape[-1])
    rebuild = tree.flatten(tape.theta)[1]
    try:
        out = context.array(step(state, drive, rebuild(tape.leaves)))
        cells = [context.graph.number(node) for node in out.cells.flat]
    except NotTraceable:
        raise
    except Exception as error:
        raise NotTraceable(
            f"step raises {type(error).__name__} on traced arrays: {error}"
        ) from error
    if out.shape != (d,):
        raise NotTraceable(f"step returns shape {out.shape} for a state of shape {(d,)}")
    products, columns = _joined(recorded, _used(recorded, cells))
    tape.forget_values()
    return StagedTrace(
        graph=context.graph,
        outputs=tuple(cells),
        products=products,
        channels=context.channels,
        inputs=None if x is None else x.shape[-1],
        dtype=context.dtype,
        constants=tape.constants,
        tape=tape,
        columns=columns,
    )


def _used(recorded: Products, outputs: Sequence[Node]) -> list[int]:
    """List the products on which outputs depend, those before that others wait for."""
    used, waiting = set[int](), [column.product for column in columns_of(outputs)]
    while waiting:
        number = waiting.pop()
        if number not in used:
            used.add(number)
            waiting += [column.product for column in columns_of(recorded.made[number].operand)]
    return sorted(used, key=lambda i: (recorded.made[i].level, i))


def _joined(
    recorded: Products, used: Sequence[int]
) -> tuple[tuple[Product, ...], dict[int, tuple[int, int]]]:
    """Make one product of those of the same row; return where each has gone."""
    groups = dict[Any, list[int]]()
    for number in used:
        product = recorded.made[number]
        groups.setdefault((product.operand, product.channels), []).append(number)
    joined, columns = list[Product](), dict[int, tuple[int, int]]()
    for numbers in groups.values():
        parts = [recorded.made[number] for number in numbers]
        first = parts[0]
        widths = [part.shape[1] for part in parts]
        for number, start in zip(numbers, np.cumsum([0, *widths]).tolist(), strict=False):
            columns[number] = len(joined), start
        matrix = first.matrix
        if len(parts) > 1:
            places = [Weight(recorded.tape, np.empty(p.shape), p.matrix) for p in parts]
            matrix = recorded.tape.call(np.concatenate, (places, 1), {}).place
        shape = (first.shape[0], sum(widths))
        joined.append(Product(first.operand, first.channels, matrix, shape, first.level))
    return tuple(joined), columns
