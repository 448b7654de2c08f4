"""Which operation of a step was differentiated wrongly, by name.

A derivative written by hand is a sum over the paths of the step's graph, each a product of slopes:
of one operation by one of its arguments. A slope ``s`` that is written as ``w`` makes a difference
``D (w - s)``, with ``D`` the derivative of the result by the operation times that of the argument
by the state. So ``w = s + difference / D`` is known for each slope, if it is the wrong one; and
where ``w`` is what people write (zero, ``-s``, ``1 - v`` for ``1 - v**2``, another parameter, the
slope at another argument), it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.graph import Node, function_named, reachable
from pararnn_solvers.autodiff.trace.tracing import Trace, evaluate
from pararnn_solvers.testing.oracles import HALF
from pararnn_solvers.typing import Array

MOST_OPERATIONS = 600  # of a step that are looked at one by one
MOST_ENTRIES = 8  # of a wrong Jacobian for which an explanation is sought
MOST_TERMS = 4  # of a sum or a product that is written out
MOST_LETTERS = 70  # of a formula
LEAVES = ("input", "constant")
NUMBER, CHAIN = "number", "chain"  # kinds that are the last to name
INFIX = {"add": (" + ", 1), "subtract": (" - ", 1), "multiply": ("*", 2), "divide": ("/", 2)}
SLOPES = {  # as people write them
    "tanh": "1 - v**2, v its value",
    "sigmoid": "v*(1 - v), v its value",
    "expit": "v*(1 - v), v its value",
    "exp": "its value",
    "sin": "cos(a), a its argument",
    "cos": "-sin(a), a its argument",
    "log": "1/a, a its argument",
    "sqrt": "1/(2*v), v its value",
    "square": "2*a, a its argument",
    "add": "1",
}


class Suspect(NamedTuple):
    """An explanation: where in the graph, what kind of mistake, and both in words."""

    node: int
    argument: int
    kind: str
    text: str


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

    def suspects(self, output: Node, seed: Node, difference: Array) -> Iterator[Suspect]:
        """Yield what explains a difference (S, n) in the derivative of an output by an argument."""
        outer, inner = self.adjoints(output), self.tangents(seed)
        operations = [n for n in self.operations if n.id in outer and n.id in inner]
        for node in operations:
            share = times(outer[node.id], inner[node.id])
            factor = written(difference, share, np.ones_like(share))
            if factor is not None:
                yield from self.of_node(node, factor)
        for node in operations:
            for i, arg in enumerate(node.args):
                if arg.id in inner and (node.id, i) in self.slopes:
                    share = times(outer[node.id], inner[arg.id])
                    slope = written(difference, share, self.slopes[node.id, i])
                    if slope is not None:
                        yield from self.of_edge(node, i, slope, inner[arg.id])

    def of_node(self, node: Node, factor: Array) -> Iterator[Suspect]:
        """Recognize by what the derivative of a node was multiplied."""
        name = self.formula(node)
        if near(factor, 0.0):
            text = f"{name} is taken for a constant: its derivative is left out"
            yield Suspect(node.id, -1, "0", text)
        elif near(factor, -1.0):
            yield Suspect(node.id, -1, "-", f"the derivative of {name} has the wrong sign")

    def of_edge(self, node: Node, i: int, slope: Array, inner: Array) -> Iterator[Suspect]:
        """Recognize what was written in place of a slope."""
        right, arg = self.slopes[node.id, i], node.args[i]
        name, by = self.formula(node), self.formula(arg)
        place = f"slope of {name}" if len(node.args) == 1 else f"derivative of {name} by {by}"
        if near(slope, 0.0):
            yield Suspect(node.id, i, "0", f"the {place} is left out")
        elif near(slope, -right):
            yield Suspect(node.id, i, "-", f"the {place} has the wrong sign")
        elif near(slope, 1.0) and len(node.args) == 1:
            text = f"the slope of {name} is left out, its argument's derivative is there"
            yield Suspect(node.id, i, "1", text)
        elif near(slope, 1.0):
            text = f"the {place} is written as 1; the factor {self.slope_of(node, i)} is left out"
            yield Suspect(node.id, i, "1", text)
        else:
            for kind, candidate in self.mistakes(node, i):
                if near(slope, candidate):
                    text = f"the {place} is written as {kind}; it is {self.slope_of(node, i)}"
                    yield Suspect(node.id, i, kind, text)
            if arg.args and near(slope * inner, right):
                text = f"in {name} the derivative of {by} is written as 1: no chain rule"
                yield Suspect(node.id, i, CHAIN, text)
            yield from self.by_number(node, i, slope, place)

    def by_number(self, node: Node, i: int, slope: Array, place: str) -> Iterator[Suspect]:
        """Recognize a number in place of a slope, or as a factor of it."""
        right, value = self.slopes[node.id, i], float(np.nanmedian(slope))
        if near(slope, value):
            text = f"the {place} is written as {value:.6g}; it is {self.slope_of(node, i)}"
            yield Suspect(node.id, i, NUMBER, text)
        ratio = float(np.nanmedian(slope / np.where(right == 0, np.nan, right)))
        if near(slope, ratio * right):
            text = f"the {place} is {ratio:.6g} times what it should be"
            yield Suspect(node.id, i, NUMBER, text)

    def mistakes(self, node: Node, i: int) -> Iterator[tuple[str, Array]]:
        """Yield what people write in place of a slope, with its name."""
        right, v, a = self.slopes[node.id, i], self.values[node.id], self.values[node.args[i].id]
        if len(node.args) == 1:
            yield from of_value(v, a, right)
        for other in self.nodes:
            if other.op != "constant":
                yield self.formula(other), self.values[other.id]
        if right.shape[-1] > 1:
            for shift in (1, -1):
                yield "that of the neighbouring channel", np.roll(right, shift, axis=-1)
        for op in dict.fromkeys(n.op for n in self.operations if len(n.args) == 1):
            yield from self.elsewhere(op, len(node.args) == 1 and op == node.op)
        if len(node.args) == 1:
            yield from self.without_a_term(node)

    def elsewhere(self, op: str, slope: bool) -> Iterator[tuple[str, Array]]:
        """Yield a function, and its slope, at every other node."""
        function, rule = function_named(op), RULES[op][0]
        for other in self.nodes:
            a = self.values[other.id]
            name, v = self.formula(other), function(a)
            yield f"{op}({name})", v
            if slope and rule is not None:
                yield f"that at {name}", np.asarray(rule(v, a))

    def without_a_term(self, node: Node) -> Iterator[tuple[str, Array]]:
        """Yield the slope of a function where one term of its argument is left out."""
        rule, function = RULES[node.op][0], function_named(node.op)
        for sign, term in terms_of(node.args[0]):
            a = self.values[node.args[0].id] - sign * self.values[term.id]
            name = f"that at its argument without {self.formula(term)}"
            yield name, np.asarray(0 if rule is None else rule(function(a), a))

    def slope_of(self, node: Node, i: int) -> str:
        """Write the right slope."""
        if node.op == "multiply":
            return self.formula(node.args[1 - i])
        return SLOPES.get(node.op, f"that of {node.op}")

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


def of_value(v: Array, a: Array, slope: Array) -> Iterator[tuple[str, Array]]:
    """Yield expressions of a function's value, argument and slope that are taken for its slope."""
    yield "1 - v", 1 - v
    yield "1 - v**2", 1 - v**2
    yield "v*(1 - v)", v * (1 - v)
    yield "its value", v
    yield "its square", slope**2
    yield "its reciprocal", 1 / slope
    yield "cos(a)", np.cos(a)
    yield "sin(a)", np.sin(a)
    yield "-sin(a)", -np.sin(a)
    yield "-cos(a)", -np.cos(a)
    yield "its argument", a
    yield "1 + v", 1 + v
    yield "1 - a**2", 1 - a**2
    yield "a*(1 - a)", a * (1 - a)


def terms_of(node: Node, sign: float = 1.0) -> Iterator[tuple[float, Node]]:
    """Yield the terms of a sum, with their signs."""
    if node.op in ("add", "subtract"):
        yield from terms_of(node.args[0], sign)
        yield from terms_of(node.args[1], sign if node.op == "add" else -sign)
    else:
        yield sign, node


def times(slope: Array, tangent: Array) -> Array:
    """Return a product that is zero where the slope is: an unselected infinity stays out."""
    return np.asarray(np.where(slope == 0, 0.0, slope * tangent))


def written(difference: Array, share: Array, slope: Array) -> Array | None:
    """Return what must have been written for a slope, NaN where nobody can tell; None if nothing.

    Nothing explains a difference where the share is zero.
    """
    largest = float(np.max(np.abs(share)))
    if not 0 < largest < np.inf:
        return None
    seen = np.abs(share) > 1e-4 * largest
    if np.any(np.abs(difference[~seen]) > 1e-3 * float(np.max(np.abs(difference)))):
        return None
    return np.where(seen, slope + difference / np.where(seen, share, 1.0), np.nan)


def near(slope: Array, candidate: Any) -> bool:
    """Tell whether slopes are the same where they are known."""
    known = ~np.isnan(slope)
    size = float(np.max(np.abs(slope[known]), initial=0)) + 1e-3
    error = np.abs(slope - candidate)[known]
    return bool(np.all(error <= 64 * HALF * size))


def chain(node: Node) -> list[Node]:
    """Return what a sum of sums, or a product of products, is made of."""
    found = []
    for arg in node.args:
        found += chain(arg) if arg.op == node.op else [arg]
    return found


def explain(
    terms: Terms, columns: Iterable[Node], got: Array, expected: Array, wrong: Array
) -> tuple[str, bool]:
    """Return the name of the mistake in a wrong derivative, and whether it explains all of it.

    Of several the one is named that explains most wrong entries, and would spoil fewest right ones;
    a mere number is the last thing to name, a function the first, and of others the shortest.

    Parameters
    ----------
    columns : J nodes
        By which arguments of the step it is.
    got, expected : arrays, shape (S, k, J, n)
        The derivative of component i by argument j in channel c.
    wrong : bool array, shape (k, J)
    """
    if len(terms.operations) > MOST_OPERATIONS:
        return "", False
    columns, error = list(columns), np.abs(got - expected).max(axis=(0, 3), initial=0)
    entries = sorted(np.argwhere(wrong).tolist(), key=lambda at: -error[tuple(at)])[:MOST_ENTRIES]
    found: dict[Suspect, int] = {}
    with np.errstate(all="ignore"):
        for i, j in entries:
            difference = got[:, i, j] - expected[:, i, j]
            suspects = terms.suspects(terms.traced.outputs[i], columns[j], difference)
            for suspect in dict.fromkeys(suspects):
                found[suspect] = found.get(suspect, 0) + 1
        if not found:
            return "", False
        spoiled = touched(terms, columns, wrong, list(found))
    unary = {node.id for node in terms.operations if len(node.args) == 1}

    def rank(suspect: Suspect) -> tuple[Any, ...]:
        last = (NUMBER, CHAIN).index(suspect.kind) if suspect.kind in (NUMBER, CHAIN) else 2
        return (
            found[suspect] - spoiled[suspect],
            last,
            suspect.node in unary,
            suspect.argument < 0,
            -len(suspect.text),
        )

    best = max(found, key=rank)
    return best.text, found[best] == len(entries) and not spoiled[best]


def touched(
    terms: Terms, columns: list[Node], wrong: Array, suspects: list[Suspect]
) -> dict[Suspect, int]:
    """Return in how many entries that are right each suspect has a part."""
    nodes = {node.id: node for node in terms.nodes}
    right = np.argwhere(~wrong)[: 4 * MOST_ENTRIES].tolist()
    outer = {i: terms.adjoints(terms.traced.outputs[i]) for i, _ in right}
    inner = {j: terms.tangents(columns[j]) for _, j in right}
    found = {}
    for suspect in suspects:
        node = nodes[suspect.node]
        moving = node.id if suspect.argument < 0 else node.args[suspect.argument].id
        found[suspect] = sum(
            bool(np.any(outer[i].get(node.id, 0.0) * inner[j].get(moving, 0.0) != 0))
            for i, j in right
        )
    return found
