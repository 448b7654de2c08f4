"""Derivatives of a graph, as further nodes of it: forward, and in reverse.

Both read the partial derivatives from ``RULES``. As in dual arrays, a boolean partial derivative
selects. A derivative that is zero whatever the arguments is ``None`` until it is returned, so that
no operation is spent on it.

References
----------
Griewank and Walther (2008), *Evaluating Derivatives*, 2nd ed., chapters 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.graph import Graph, Node, reachable

__all__ = ["forward", "reverse"]


def forward(outputs: Sequence[Node], inputs: Sequence[Node]) -> list[list[Node]]:
    """Return the derivative of every output by every input.

    Parameters
    ----------
    outputs : sequence of Node, length q
    inputs : sequence of Node, length p
        Inputs of the graph, or others that are no truth values.

    Returns
    -------
    list of q lists of p Node
        ``[i][j]`` is d outputs[i] / d inputs[j].

    Notes
    -----
    Cost: one pass over the graph for each input.

    Examples
    --------
    >>> graph = Graph()
    >>> h, x = graph.input("h"), graph.input("x")
    >>> forward([np.sin(h * x)], [h])
    [[multiply(x, cos(multiply(h, x)))]]
    """
    graph = inputs[0].graph if inputs else Graph()
    order = reachable(outputs)
    partials: dict[tuple[int, int], Any] = {}
    columns = [_tangents(graph, order, seed, partials) for seed in inputs]
    zero = graph.constant(0.0)
    return [[column.get(out.id, zero) for column in columns] for out in outputs]


def _tangents(
    graph: Graph, order: list[Node], seed: Node, partials: dict[tuple[int, int], Any]
) -> dict[int, Node]:
    """Return the derivatives by ``seed`` of the nodes which depend on it."""
    tangents = {seed.id: graph.constant(1.0)}
    for node in order:
        moving = [i for i, arg in enumerate(node.args) if arg.id in tangents]
        if not moving:
            continue
        if node.op == "where":
            condition, a, b = node.args
            tangents[node.id] = graph.apply(
                "where", condition, tangents.get(a.id, 0.0), tangents.get(b.id, 0.0)
            )
            continue
        total = None
        for i in moving:
            total = _plus(total, _scaled(_partial(node, i, partials), tangents[node.args[i].id]))
        if total is not None:
            tangents[node.id] = total
    return tangents


def reverse(
    outputs: Sequence[Node], adjoints: Sequence[Node], inputs: Sequence[Node]
) -> list[Node]:
    """Return ``sum_i adjoints[i] * d outputs[i] / d inputs[j]`` for every input.

    Parameters
    ----------
    outputs, adjoints : sequences of Node, length q
    inputs : sequence of Node, length p
        Inputs of the graph.

    Returns
    -------
    list of p Node

    Notes
    -----
    Cost: one pass over the graph, whatever the number of inputs.
    """
    order = reachable(outputs)
    active = {node.id for node in inputs}
    for node in order:
        if any(arg.id in active for arg in node.args):
            active.add(node.id)
    totals: dict[int, _Adjoint] = {}
    for out, adjoint in zip(outputs, adjoints, strict=True):
        _accumulate(totals, out, _Adjoint(adjoint))
    partials: dict[tuple[int, int], Any] = {}
    for node in reversed(order):
        if node.id not in totals or node.boolean:
            continue
        for i, arg in enumerate(node.args):
            if arg.id in active:
                term = _pulled_back(node, i, totals[node.id], partials)
                if term is not None:
                    _accumulate(totals, arg, term)
    zero = adjoints[0].graph.constant(0.0)
    found = [totals.get(node.id) for node in inputs]
    return [zero if total is None else total.select() for total in found]


class _Adjoint(NamedTuple):
    """An adjoint which is ``value`` where ``mask`` holds (None: everywhere), and 0 elsewhere.

    The selection waits until the end: a 0 put in earlier would meet the infinite slopes of the
    branch that was not selected, and become NaN.
    """

    value: Node
    mask: Node | None = None

    def select(self) -> Node:
        if self.mask is None:
            return self.value
        return self.value.graph.apply("where", self.mask, self.value, 0.0)

    def only_where(self, condition: Node) -> _Adjoint | None:
        """Return the adjoint restricted to where a condition holds too; None if it never does."""
        if self.mask is not None:
            condition = condition.graph.apply("logical_and", self.mask, condition)
        if condition.is_constant():
            return self._replace(mask=None) if condition.value else None
        return _Adjoint(self.value, condition)

    def plus(self, other: _Adjoint) -> _Adjoint:
        apply = self.value.graph.apply
        if self.mask is other.mask:
            return _Adjoint(apply("add", self.value, other.value), self.mask)
        total = apply("add", self.select(), other.select())
        if self.mask is None or other.mask is None:
            return _Adjoint(total)
        if apply("logical_not", self.mask) is other.mask:
            return _Adjoint(apply("where", self.mask, self.value, other.value))
        return _Adjoint(total, apply("logical_or", self.mask, other.mask))


def _accumulate(totals: dict[int, _Adjoint], node: Node, term: _Adjoint) -> None:
    known = totals.get(node.id)
    totals[node.id] = term if known is None else known.plus(term)


def _pulled_back(
    node: Node, i: int, adjoint: _Adjoint, partials: dict[tuple[int, int], Any]
) -> _Adjoint | None:
    """Return what the adjoint of a node contributes to that of its argument i; None if nothing."""
    if node.op == "where":
        condition = node.args[0]
        return adjoint.only_where(
            condition if i == 1 else node.graph.apply("logical_not", condition)
        )
    partial = _partial(node, i, partials)
    if partial is None:
        return None
    factor = node.graph.lift(partial)
    if factor.boolean:
        return adjoint.only_where(factor)
    value = _scaled(factor, adjoint.value)
    return None if value is None else adjoint._replace(value=value)


def _partial(node: Node, i: int, known: dict[tuple[int, int], Any]) -> Any:
    """Partial derivative of a node by its argument i: a number, a node, or None for zero."""
    key = (node.id, i)
    if key not in known:
        rule = RULES[node.op][i]
        # Constants as NumPy's scalars, which divide by zero as arrays do.
        args = [np.float64(a.value) if a.op == "constant" else a for a in node.args]
        with np.errstate(all="ignore"):
            known[key] = None if rule is None else rule(node, *args)
    return known[key]


def _scaled(partial: Any, tangent: Node) -> Node | None:
    """Product of a partial derivative and a tangent; a boolean one selects."""
    if partial is None:
        return None
    factor = tangent.graph.lift(partial)
    if factor.boolean:
        out = tangent.graph.apply("where", factor, tangent, 0.0)
    else:
        out = tangent.graph.constant(0.0) if factor.is_constant(0) else factor * tangent
    return None if out.is_constant(0) else out


def _plus(total: Node | None, term: Node | None) -> Node | None:
    if total is None or term is None:
        return term if total is None else total
    return total.graph.apply("add", total, term)
