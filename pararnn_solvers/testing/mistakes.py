"""What people write in place of a slope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.graph import Node, function_named
from pararnn_solvers.testing.oracles import HALF
from pararnn_solvers.testing.terms import Terms
from pararnn_solvers.typing import Array

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
    "divide": "1/b, b the divisor",
    "maximum": "1 where it is the larger, else 0",
    "minimum": "1 where it is the smaller, else 0",
}


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
    if node.op == "divide" and i == 1:
        return "-a/b**2 of a/b"
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


def near(slope: Array, candidate: Any) -> bool:
    """Tell whether slopes are the same where they are known."""
    return bool(alike(slope, np.broadcast_to(candidate, slope.shape)[None]).size)


def alike(slope: Array, candidates: Array) -> Array:
    """Return the numbers of the candidates (N, S, n) that are a slope (S, n) where it is known."""
    known = ~np.isnan(slope)
    size = float(np.max(np.abs(slope[known]), initial=0)) + 1e-3
    error = np.abs(candidates[:, known] - slope[known])
    return np.flatnonzero((error <= 64 * HALF * size).all(axis=1))
