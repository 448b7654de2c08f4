"""Smooth functions as small trees: evaluated, printed as a formula, with a bound on their slope.

A tree is a name of a variable, a number, or ``(function, *trees)`` with the name of a ufunc out of
``autodiff.rules.RULES``.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import functions
from pararnn_solvers.autodiff.rules import RULES

Tree = Any
Interval = tuple[float, float]

ANY = (-3.0, 3.0)
POSITIVE = (0.2, 4.0)
UNIT = (-0.9, 0.9)
# Where each smooth function's arguments are kept: within its domain, and so that it is moderate.
SMOOTH: dict[str, tuple[Interval, ...]] = {
    **dict.fromkeys("tanh sin cos sigmoid arctan arcsinh softplus silu gelu".split(), (ANY,)),
    **dict.fromkeys("square exp expm1 exp2 sinh cosh negative positive conjugate".split(), (ANY,)),
    **dict.fromkeys("erf erfc ndtr expit log_expit log_ndtr radians deg2rad".split(), (ANY,)),
    **dict.fromkeys("sqrt cbrt reciprocal log log2 log10 log1p entr".split(), (POSITIVE,)),
    **dict.fromkeys("tan arcsin arccos arctanh exp10 erfinv erfcx".split(), (UNIT,)),
    **dict.fromkeys("rad2deg degrees".split(), ((-0.02, 0.02),)),
    **dict.fromkeys("logit ndtri".split(), ((0.3, 0.7),)),
    "arccosh": ((1.2, 4.0),),
    "divide": (ANY, POSITIVE),
    "power": (POSITIVE, (-2.0, 2.0)),
    "hypot": (POSITIVE, ANY),
    "arctan2": (ANY, POSITIVE),
    "logaddexp": (ANY, ANY),
    "logaddexp2": (ANY, ANY),
    "xlogy": (ANY, POSITIVE),
    "xlog1py": (ANY, POSITIVE),
}
UNARY = [name for name, domains in SMOOTH.items() if len(domains) == 1]
BINARY = [name for name, domains in SMOOTH.items() if len(domains) == 2]
BOUNDED = ("tanh", "sin", "cos", "sigmoid")
INFIX = {"add": "+", "subtract": "-", "multiply": "*"}
GRID, ZOOMS = 33, 4


class Bound(NamedTuple):
    """``low <= f <= high`` and ``|df/dh| <= slope``."""

    low: float
    high: float
    slope: float


def bound(tree: Tree, variables: Mapping[str, Interval]) -> Bound:
    """Return bounds of a tree, given those of its variables; the slope is that by ``h``."""
    if isinstance(tree, str):
        return Bound(*variables[tree], float(tree == "h"))
    if not isinstance(tree, tuple):
        return Bound(tree, tree, 0.0)
    name, *arguments = tree
    parts = [bound(argument, variables) for argument in arguments]
    if name in SMOOTH:
        return bound_of_function(name, parts)
    (a, b, slope_a), (c, d, slope_b) = parts
    if name == "multiply":
        products = [a * c, a * d, b * c, b * d]
        largest = max(abs(a), abs(b)), max(abs(c), abs(d))
        return Bound(min(products), max(products), largest[1] * slope_a + largest[0] * slope_b)
    low, high = (a + c, b + d) if name == "add" else (a - d, b - c)
    return Bound(low, high, slope_a + slope_b)


def bound_of_function(name: str, parts: list[Bound]) -> Bound:
    """Return bounds of a function of trees, by the rules of its derivatives."""
    intervals = tuple((part.low, part.high) for part in parts)
    for (low, high), (least, most) in zip(intervals, SMOOTH[name], strict=True):
        if low < least - 1e-9 or high > most + 1e-9:
            raise ValueError(f"an argument of {name} is in [{low}, {high}]; fit the tree first")
    low, high, *slopes = extremes(name, intervals)
    return Bound(low, high, sum(s * part.slope for s, part in zip(slopes, parts, strict=True)))


@lru_cache(maxsize=1024)
def extremes(name: str, intervals: tuple[Interval, ...]) -> tuple[float, ...]:
    """Return the least and greatest value on a box, and the greatest ``|df/da_i|`` there."""
    value = function(name)

    def partial(i: int) -> Callable[..., Any]:
        rule = RULES[name][i]
        assert rule is not None
        return lambda *arguments: np.abs(rule(value(*arguments), *arguments))

    slopes = [greatest(partial(i), intervals) for i in range(len(intervals))]
    return (
        -greatest(lambda *arguments: -value(*arguments), intervals),
        greatest(value, intervals),
        *slopes,
    )


def greatest(f: Callable[..., Any], box: tuple[Interval, ...]) -> float:
    """Return the greatest value on a grid, looked at more closely where that is."""
    best = -math.inf
    edges = box
    for _ in range(ZOOMS):
        axes = [np.linspace(low, high, GRID) for low, high in edges]
        grid = np.meshgrid(*axes, indexing="ij")
        values = np.broadcast_to(f(*grid), grid[0].shape)
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(values)), values.shape))
        best = max(best, float(values[at]))
        edges = tuple(
            (float(axis[max(i - 1, 0)]), float(axis[min(i + 1, GRID - 1)]))
            for axis, i in zip(axes, map(int, at), strict=True)
        )
    return best


def fitted(tree: Tree, variables: Mapping[str, Interval]) -> Tree:
    """Return the tree with every argument scaled and moved into its function's domain."""
    if not isinstance(tree, tuple):
        return tree
    name, *arguments = tree
    arguments = [fitted(argument, variables) for argument in arguments]
    if name in SMOOTH:
        arguments = [
            into(argument, bound(argument, variables), domain)
            for argument, domain in zip(arguments, SMOOTH[name], strict=True)
        ]
    return (name, *arguments)


def into(tree: Tree, at: Bound, domain: Interval) -> Tree:
    """Return ``c + s*tree`` within the domain, c and s short; the tree itself if that is there."""
    least, most = domain
    s = 1.0
    if at.high - at.low > most - least:
        s = rounded_down((most - least) / (at.high - at.low))
        tree = ("multiply", s, tree)
    lowest, highest = least - s * at.low, most - s * at.high
    if lowest <= 0 <= highest:
        return tree
    digits = 0
    while (c := math.ceil(lowest * 10**digits - 1e-9) / 10**digits) > highest + 1e-9:
        digits += 1
    return ("add", tree, c)


def rounded_down(value: float) -> float:
    """Return a positive number rounded down to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit * (1 + 1e-12)) * unit:.2g}")


def evaluate(tree: Tree, variables: Mapping[str, Any]) -> Any:
    """Return the value of a tree for arrays, dual or traced ones included."""
    if isinstance(tree, str):
        return variables[tree]
    if not isinstance(tree, tuple):
        return tree
    name, *arguments = tree
    return function(name)(*(evaluate(argument, variables) for argument in arguments))


def function(name: str) -> Callable[..., Any]:
    """Return the function of that name: an operator, one of ours, NumPy's, or SciPy's."""
    if name in INFIX:
        return {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}[name]
    ours_or_numpys = getattr(functions, name, None) or getattr(np, name, None)
    found: Callable[..., Any] = ours_or_numpys or getattr(
        importlib.import_module("scipy.special"), name
    )
    return found


def home(name: str) -> str:
    """Return the module in which a function is found: ``prs``, ``np`` or ``special``."""
    if hasattr(functions, name):
        return "prs"
    return "np" if hasattr(np, name) else "special"


def formula(tree: Tree, homes: bool = False) -> str:
    """Print a tree as Python would be written, with as few parentheses as that needs.

    With `homes`, each function is written with its module.
    """
    if not isinstance(tree, tuple):
        return str(tree)
    name, *arguments = tree
    parts = [formula(argument, homes) for argument in arguments]
    if name not in INFIX:
        return f"{home(name) + '.' if homes else ''}{name}({', '.join(parts)})"
    left, right = parts
    sums, product = ("add", "subtract"), name == "multiply"
    if product and _is(arguments[0], sums):
        left = f"({left})"
    if _is(arguments[1], (*sums, "multiply") if product else sums):  # which rounds first
        right = f"({right})"
    return f"{left}*{right}" if product else f"{left} {INFIX[name]} {right}"


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


def source_of(step: SmoothStep) -> str:
    """Write a step as a function that does not need this module."""
    text = formula(step.tree, homes=True)
    if not step.parameters:
        return f"lambda h, x, theta: {text}"
    return f"lambda h, x, theta: (lambda {', '.join(step.parameters)}: {text})(*theta)"
