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

from pararnn_solvers.autodiff.trace.graph import Node
from pararnn_solvers.testing.mistakes import mistakes, near, of_value, slope_of
from pararnn_solvers.testing.terms import Terms, times
from pararnn_solvers.typing import Array

MOST_ENTRIES = 6  # of a wrong Jacobian for which an explanation is sought
MANY_OPERATIONS = 300  # beyond which it is sought for two of them
NUMBER, CHAIN = "number", "chain"  # kinds that are the last to name


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
        factor = slope_of(terms, node, i)
        rest = f"the factor {factor} is left out" if node.op == "multiply" else f"it is {factor}"
        text = f"the {place} is written as 1; {rest}"
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
