"""Smooth functions as small trees: evaluated, printed as a formula, with a bound on their slope.

A tree is a name of a variable, a number, or ``(function, *trees)`` with the name of a ufunc out of
``autodiff.rules.RULES``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import functions

Tree = Any


class Smooth(NamedTuple):
    """Bounds of a smooth function of one real number: on its value, and on its derivative.

    `value` is ``(b, c)`` with ``|f(a)| <= b + c |a|``.
    """

    value: tuple[float, float]
    slope: float


# Bounds are rounded up: silu' <= 1.0999 and gelu' <= 1.1290 (at a = 2.4 and sqrt(2)).
SMOOTH: dict[str, Smooth] = {
    "tanh": Smooth((1, 0), 1),
    "sin": Smooth((1, 0), 1),
    "cos": Smooth((1, 0), 1),
    "sigmoid": Smooth((1, 0), 0.25),
    "arctan": Smooth((1.6, 0), 1),
    "arcsinh": Smooth((0, 1), 1),
    "softplus": Smooth((0.7, 1), 1),
    "silu": Smooth((0, 1), 1.1),
    "gelu": Smooth((0, 1), 1.13),
}
BOUNDED = ("tanh", "sin", "cos", "sigmoid")
INFIX = {"add": "+", "subtract": "-", "multiply": "*"}


class Bound(NamedTuple):
    """Bounds on ``|f|`` and ``|df/dh|``."""

    value: float
    slope: float


def bound(tree: Tree, variables: Mapping[str, float]) -> Bound:
    """Return bounds of a tree, given bounds of its variables; the slope is that by ``h``."""
    if isinstance(tree, str):
        return Bound(variables[tree], float(tree == "h"))
    if not isinstance(tree, tuple):
        return Bound(abs(tree), 0.0)
    name, *arguments = tree
    parts = [bound(argument, variables) for argument in arguments]
    if name in SMOOTH:
        ((constant, factor), slope), (part,) = SMOOTH[name], parts
        return Bound(constant + factor * part.value, slope * part.slope)
    a, b = parts
    if name == "multiply":
        return Bound(a.value * b.value, a.value * b.slope + b.value * a.slope)
    return Bound(a.value + b.value, a.slope + b.slope)


def evaluate(tree: Tree, variables: Mapping[str, Any]) -> Any:
    """Return the value of a tree for arrays, dual or traced ones included."""
    if isinstance(tree, str):
        return variables[tree]
    if not isinstance(tree, tuple):
        return tree
    name, *arguments = tree
    return function(name)(*(evaluate(argument, variables) for argument in arguments))


def function(name: str) -> Callable[..., Any]:
    """Return the function of that name: an operator, one of ours, or NumPy's."""
    if name in INFIX:
        return {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}[name]
    found: Callable[..., Any] = getattr(functions, name, None) or getattr(np, name)
    return found


def formula(tree: Tree) -> str:
    """Print a tree as Python would be written, with as few parentheses as that needs."""
    if not isinstance(tree, tuple):
        return str(tree)
    name, *arguments = tree
    if name not in INFIX:
        return f"{name}({', '.join(map(formula, arguments))})"
    left, right = map(formula, arguments)
    sums = ("add", "subtract")
    if name == "multiply":
        left = f"({left})" if _is(arguments[0], sums) else left
        right = f"({right})" if _is(arguments[1], sums) else right
        return f"{left}*{right}"
    if name == "subtract" and _is(arguments[1], sums):
        right = f"({right})"
    return f"{left} {INFIX[name]} {right}"


def _is(tree: Tree, names: tuple[str, ...]) -> bool:
    return isinstance(tree, tuple) and tree[0] in names


@dataclass(frozen=True, repr=False)
class SmoothStep:
    """A step that acts on each channel alone, printed as its formula.

    Parameters
    ----------
    tree : Tree
        Of the variables ``h``, ``x`` (whose size is that of h) and the parameters.
    parameters : tuple of str
        Names of theta's leaves: theta is a tuple of as many arrays (n,).

    Examples
    --------
    >>> SmoothStep(("tanh", ("add", ("multiply", "a", "h"), "x")), ("a",))
    step(h, x, (a,)) = tanh(a*h + x)
    """

    tree: Tree
    parameters: tuple[str, ...] = ()

    def __call__(self, h: Any, x: Any, theta: Any) -> Any:
        """Return the next states (..., n)."""
        parameters = dict(zip(self.parameters, theta, strict=True))
        return evaluate(self.tree, {"h": h, "x": x, **parameters})

    def __repr__(self) -> str:
        comma = "," if len(self.parameters) == 1 else ""
        return f"step(h, x, ({', '.join(self.parameters)}{comma})) = {formula(self.tree)}"
