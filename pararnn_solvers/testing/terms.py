"""The operations of a step at some states, with their slopes, and written as in Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.graph import Node, function_named, reachable
from pararnn_solvers.autodiff.trace.tracing import Trace, evaluate
from pararnn_solvers.typing import Array

MOST_TERMS = 4  # of a sum or a product that is written out
MOST_LETTERS = 80  # of a formula
LEAVES = ("input", "constant")
INFIX = {  # and how closely they bind
    "less": (" < ", 0),
    "less_equal": (" <= ", 0),
    "add": (" + ", 1),
    "subtract": (" - ", 1),
    "multiply": ("*", 2),
    "divide": ("/", 2),
}


@dataclass(frozen=True, eq=False)
class Terms:
    """The operations of a traced step, with their values at some states.

    Attributes
    ----------
    traced : Trace
    arguments : (h, x, theta)
        States, drives (S, .) and parameters.
    """

    traced: Trace
    arguments: tuple[Array, Array | None, Any]

    @cached_property
    def nodes(self) -> list[Node]:
        """Every operation and argument, arguments first."""
        return reachable([*self.traced.outputs, *self.traced.states])

    @cached_property
    def values(self) -> dict[int, Array]:
        """Node -> its values (S, n)."""
        shape = (len(self.arguments[0]), self.traced.channels)
        found = evaluate(self.nodes, self.traced.values(*self.arguments))
        return {
            node.id: np.broadcast_to(np.asarray(value, np.float64), shape)
            for node, value in zip(self.nodes, found, strict=True)
        }

    @cached_property
    def operations(self) -> list[Node]:
        """What can be differentiated: functions first, which say more than products and sums."""
        found = [n for n in self.nodes if n.op not in LEAVES and not n.boolean]
        return sorted(reversed(found), key=lambda node: len(node.args) > 1)

    @cached_property
    def slopes(self) -> dict[tuple[int, int], Array]:
        """(Node, number of an argument) -> the derivative by that argument (S, n)."""
        found = {}
        for node in self.operations:
            v, args = self.values[node.id], [self.values[a.id] for a in node.args]
            for i in range(len(args)):
                if node.op == "where":
                    slope = [0 * v, args[0] != 0, args[0] == 0][i]
                else:
                    rule = RULES[node.op][i]
                    slope = 0 if rule is None else rule(v, *args)
                found[node.id, i] = np.broadcast_to(np.asarray(slope, np.float64), v.shape)
        return found

    @cached_property
    def vectors(self) -> list[list[Node]]:
        """Operations that are one operation of step on an array, as far as can be told.

        They take what is alike, and are taken by what is alike beside what is alike.
        """
        kinds: dict[Any, int] = {}
        kind: dict[int, int] = {}
        for node in self.nodes:
            below = sorted(kind[arg.id] for arg in node.args)
            given = node.value
            key = (node.op, *below) if node.args else (node.op, given)
            if node.op == "input":
                key = ("input", given.group, given.leaf, given.position[:-2])
            kind[node.id] = kinds.setdefault(key, len(kinds))
        taken: dict[int, set[Any]] = {node.id: set() for node in self.nodes}
        for node in self.nodes:
            for arg in node.args:
                others = frozenset(kind[other.id] for other in node.args if other is not arg)
                taken[arg.id].add((node.op, others))
        groups: dict[Any, list[Node]] = {}
        for node in self.operations:
            groups.setdefault((kind[node.id], frozenset(taken[node.id])), []).append(node)
        return [group for group in groups.values() if len(group) > 1]

    @cached_property
    def moving(self) -> list[Node]:
        """Every node but constants."""
        return [node for node in self.nodes if node.op != "constant"]

    @cached_property
    def stacked(self) -> Array:
        """The values of all of these, (N, S, n)."""
        return np.stack([self.values[node.id] for node in self.moving])

    @cached_property
    def applied(self) -> dict[str, tuple[Array, Array]]:
        """Each function of one argument that occurs -> its values and slopes at all of these."""
        found = {}
        for op in dict.fromkeys(n.op for n in self.operations if len(n.args) == 1):
            rule, v = RULES[op][0], function_named(op)(self.stacked)
            slope = np.zeros_like(v) if rule is None else rule(v, self.stacked)
            found[op] = v, np.broadcast_to(np.asarray(slope), v.shape)
        return found

    def tangents(self, seed: Node) -> dict[int, Array]:
        """Return the derivative by an argument of each operation that depends on it."""
        found = {seed.id: np.ones_like(self.values[seed.id])}
        for node in self.nodes:
            parts = [
                times(self.slopes[node.id, i], found[arg.id])
                for i, arg in enumerate(node.args)
                if arg.id in found and (node.id, i) in self.slopes
            ]
            if parts:
                found[node.id] = sum(parts[1:], parts[0])
        return found

    def adjoints(self, output: Node) -> dict[int, Array]:
        """Return the derivative of an output by each operation that it depends on."""
        found = {output.id: np.ones_like(self.values[output.id])}
        for node in reversed(self.nodes):
            if node.id not in found:
                continue
            for i, arg in enumerate(node.args):
                if (node.id, i) in self.slopes:
                    part = times(self.slopes[node.id, i], found[node.id])
                    found[arg.id] = found[arg.id] + part if arg.id in found else part
        return found

    def formula(self, node: Node) -> str:
        """Write a node as one would in Python, with the names of the arguments, if not too long."""
        texts = (self.written_out(node, depth) for depth in (3, 2, 1, 0))
        return next((text for text in texts if len(text) <= MOST_LETTERS), f"{node.op}(...)")

    def written_out(self, node: Node, depth: int, binds: int = 0) -> str:
        """Write a node with so many functions of functions in it."""
        if node.op == "input":
            return self.names.get(node.id, str(node.value))
        if node.op == "constant":
            return str(node.value) if node.boolean else f"{node.value:.6g}"
        if node.op in INFIX:
            sign, own = INFIX[node.op]
            first, *rest = chain(node) if node.op in ("add", "multiply") else node.args
            tight = own + (node.op in ("subtract", "divide"))
            texts = [self.written_out(first, depth, own)]
            texts += [self.written_out(arg, depth, tight) for arg in rest]
            if len(texts) > MOST_TERMS:
                texts = [*texts[:2], "...", texts[-1]]
            return f"({sign.join(texts)})" if own < binds else sign.join(texts)
        if node.op == "negative":
            text = f"-{self.written_out(node.args[0], depth, 3)}"
            return f"({text})" if binds else text
        if depth == 0:
            return f"{node.op}(...)"
        return f"{node.op}({', '.join(self.written_out(arg, depth - 1) for arg in node.args)})"

    @cached_property
    def names(self) -> dict[int, str]:
        """Input -> its name: h or h0, x or x0, theta['a'][1]."""
        paths = tree.paths(self.arguments[2])
        sizes = {"h": len(self.traced.states), "x": len(self.traced.drives)}
        found = {}
        for node in self.nodes:
            if node.op != "input":
                continue
            given, name = node.value, str(node.value)
            if given.group == "theta":
                leaf = np.shape(tree.flatten(self.arguments[2])[0][given.leaf])
                one = given.channels and leaf[-1] == given.channels
                index = given.position[:-1] if one else given.position
                name = paths[given.leaf] + "".join(f"[{j}]" for j in index)
            elif sizes.get(given.group) == 1:
                name = given.group
            found[node.id] = name
        return found


def times(slope: Array, tangent: Array) -> Array:
    """Return a product that is zero where the slope is: an unselected infinity stays out."""
    return np.asarray(np.where(slope == 0, 0.0, slope * tangent))


def chain(node: Node) -> list[Node]:
    """Return what a sum of sums, or a product of products, is made of."""
    found = []
    for arg in node.args:
        found += chain(arg) if arg.op == node.op else [arg]
    return found
