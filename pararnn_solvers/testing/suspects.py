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
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.graph import Node, function_named
from pararnn_solvers.testing.oracles import HALF
from pararnn_solvers.testing.terms import Terms, times
from pararnn_solvers.typing import Array

MOST_ENTRIES = 6  # of a wrong Jacobian for which an explanation is sought
MANY_OPERATIONS = 300  # beyond which it is sought for two of them
NUMBER, CHAIN = "number", "chain"  # kinds that are the last to name
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


def suspects(terms: Terms, output: Node, seed: Node, difference: Array) -> Iterator[Suspect]:
    """Yield what explains a difference (S, n) in the derivative of an output by an argument."""
    outer, inner = terms.adjoints(output), terms.tangents(seed)
    operations = [n for n in terms.operations if n.id in outer and n.id in inner]
    for node in operations:
        share = times(outer[node.id], inner[node.id])
        factor = written(difference, share, np.ones_like(share))
        if factor is not None:
            yield from of_node(terms, node, factor)
    for node in operations:
        for i, arg in enumerate(node.args):
            if arg.id in inner and (node.id, i) in terms.slopes:
                share = times(outer[node.id], inner[arg.id])
                slope = written(difference, share, terms.slopes[node.id, i])
                if slope is not None:
                    yield from of_edge(terms, node, i, slope, inner[arg.id])
    for group in terms.vectors:
        members = [node for node in group if node.id in outer and node.id in inner]
        if len(members) > 1:
            yield from of_vector(terms, members, (outer, inner), difference)


def of_vector(
    terms: Terms,
    group: list[Node],
    partials: tuple[dict[int, Array], dict[int, Array]],
    difference: Array,
) -> Iterator[Suspect]:
    """Recognize a mistake that was made in all components of a vector at once."""
    outer, inner = partials
    first, name = group[0], terms.formula(group[0])
    whole = sum_of(times(outer[node.id], inner[node.id]) for node in group)
    factor = written(difference, whole, np.ones_like(whole))
    if factor is not None:
        yield from of_node(terms, first, factor)
    if len(first.args) > 1:
        return
    parts: dict[str, list[Array]] = {}
    for node in group:
        arg, right = node.args[0].id, terms.slopes[node.id, 0]
        share = times(outer[node.id], inner.get(arg, np.zeros_like(right)))
        for kind, slope in of_value(terms.values[node.id], terms.values[arg], right):
            parts.setdefault(kind, []).append(share * (slope - right))
    for kind, shares in parts.items():
        if near(difference, sum_of(shares)):
            text = f"the slope of {name} is written as {kind}; it is {slope_of(terms, first, 0)}"
            yield Suspect(first.id, 0, kind, text)


def sum_of(arrays: Iterable[Array]) -> Array:
    """Return the sum of at least one array."""
    return np.asarray(np.sum(list(arrays), axis=0))


def of_node(terms: Terms, node: Node, factor: Array) -> Iterator[Suspect]:
    """Recognize by what the derivative of a node was multiplied."""
    name = terms.formula(node)
    if near(factor, 0.0):
        text = f"{name} is taken for a constant: its derivative is left out"
        yield Suspect(node.id, -1, "0", text)
    elif near(factor, -1.0):
        yield Suspect(node.id, -1, "-", f"the derivative of {name} has the wrong sign")


def of_edge(terms: Terms, node: Node, i: int, slope: Array, inner: Array) -> Iterator[Suspect]:
    """Recognize what was written in place of a slope."""
    right, arg = terms.slopes[node.id, i], node.args[i]
    name, by = terms.formula(node), terms.formula(arg)
    place = f"slope of {name}" if len(node.args) == 1 else f"derivative of {name} by {by}"
    if near(slope, 0.0):
        yield Suspect(node.id, i, "0", f"the {place} is left out")
    elif near(slope, -right):
        yield Suspect(node.id, i, "-", f"the {place} has the wrong sign")
    elif near(slope, 1.0) and len(node.args) == 1:
        text = f"the slope of {name} is left out, its argument's derivative is there"
        yield Suspect(node.id, i, "1", text)
    elif near(slope, 1.0):
        text = f"the {place} is written as 1; the factor {slope_of(terms, node, i)} is left out"
        yield Suspect(node.id, i, "1", text)
    else:
        for kind in mistakes(terms, node, i, slope):
            text = f"the {place} is written as {kind}; it is {slope_of(terms, node, i)}"
            yield Suspect(node.id, i, kind, text)
        if arg.args and near(slope * inner, right):
            text = f"in {name} the derivative of {by} is written as 1: no chain rule"
            yield Suspect(node.id, i, CHAIN, text)
        yield from by_number(terms, node, i, slope, place)


def by_number(terms: Terms, node: Node, i: int, slope: Array, place: str) -> Iterator[Suspect]:
    """Recognize a number in place of a slope, or as a factor of it."""
    right, value = terms.slopes[node.id, i], float(np.nanmedian(slope))
    if near(slope, value):
        text = f"the {place} is written as {value:.6g}; it is {slope_of(terms, node, i)}"
        yield Suspect(node.id, i, NUMBER, text)
    ratio = float(np.nanmedian(slope / np.where(right == 0, np.nan, right)))
    if near(slope, ratio * right):
        text = f"the {place} is {ratio:.6g} times what it should be"
        yield Suspect(node.id, i, NUMBER, text)


def mistakes(terms: Terms, node: Node, i: int, slope: Array) -> Iterator[str]:
    """Yield by name what people write in place of a slope, where it is what was written."""
    right, v, a = terms.slopes[node.id, i], terms.values[node.id], terms.values[node.args[i].id]
    alone = len(node.args) == 1
    candidates = list(of_value(v, a, right)) if alone else []
    if right.shape[-1] > 1:
        candidates += [
            ("that of the neighbouring channel", np.roll(right, shift, axis=-1))
            for shift in (1, -1)
        ]
    if alone:
        candidates += without_a_term(terms, node)
    yield from (kind for kind, candidate in candidates if near(slope, candidate))
    yield from (terms.formula(terms.moving[j]) for j in alike(slope, terms.stacked))
    for op, (function, its_slope) in terms.applied.items():
        yield from (f"{op}({terms.formula(terms.moving[j])})" for j in alike(slope, function))
        if alone and op == node.op:
            yield from (
                f"that at {terms.formula(terms.moving[j])}" for j in alike(slope, its_slope)
            )


def without_a_term(terms: Terms, node: Node) -> Iterator[tuple[str, Array]]:
    """Yield the slope of a function where one term of its argument is left out."""
    rule, function = RULES[node.op][0], function_named(node.op)
    for sign, term in terms_of(node.args[0]):
        a = terms.values[node.args[0].id] - sign * terms.values[term.id]
        name = f"that at its argument without {terms.formula(term)}"
        yield name, np.asarray(0 if rule is None else rule(function(a), a))


def slope_of(terms: Terms, node: Node, i: int) -> str:
    """Write the right slope."""
    if node.op == "multiply":
        return terms.formula(node.args[1 - i])
    return SLOPES.get(node.op, f"that of {node.op}")


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
    return bool(alike(slope, np.broadcast_to(candidate, slope.shape)[None]).size)


def alike(slope: Array, candidates: Array) -> Array:
    """Return the numbers of the candidates (N, S, n) that are a slope (S, n) where it is known."""
    known = ~np.isnan(slope)
    size = float(np.max(np.abs(slope[known]), initial=0)) + 1e-3
    error = np.abs(candidates[:, known] - slope[known])
    return np.flatnonzero((error <= 64 * HALF * size).all(axis=1))


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
    columns, error = list(columns), np.abs(got - expected).max(axis=(0, 3), initial=0)
    most = MOST_ENTRIES if len(terms.operations) < MANY_OPERATIONS else 2
    entries = sorted(np.argwhere(wrong).tolist(), key=lambda at: -error[tuple(at)])[:most]
    found: dict[Suspect, int] = {}
    with np.errstate(all="ignore"):
        for i, j in entries:
            difference = got[:, i, j] - expected[:, i, j]
            told = suspects(terms, terms.traced.outputs[i], columns[j], difference)
            for suspect in dict.fromkeys(told):
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
