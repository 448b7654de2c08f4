"""What problems are drawn from: shapes, values, drives, linear systems, smooth steps.

The public names are those of :mod:`~pararnn_solvers.testing.strategies`.
"""

from __future__ import annotations

import importlib
import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from pararnn_solvers.testing.expressions import (
    BINARY,
    BOUNDED,
    UNARY,
    SmoothStep,
    Tree,
    bound,
    fitted,
    rounded_down,
)
from pararnn_solvers.typing import Array

importlib.import_module("scipy.special")  # now: Hypothesis minds how long the first draw takes

MAX_NUMBERS = 1024
Draw = st.DrawFn
DTYPES = st.sampled_from([np.float64, np.float32])


class Shape(NamedTuple):
    """T steps, batch axes, and states of n channels of k components."""

    T: int
    batch: tuple[int, ...]
    k: int
    n: int


@st.composite
def shapes(draw: Draw, max_T: int = 16, max_k: int = 3, max_numbers: int = MAX_NUMBERS) -> Shape:
    """Draw a shape with ``T * batch * k * n <= max_numbers``; the least is one step of one channel.

    Parameters
    ----------
    max_T, max_k : int
    max_numbers : int
        At least 1.
    """
    left = max_numbers
    T = draw(st.integers(1, min(max_T, left)))
    left //= T
    k = draw(st.integers(1, min(max_k, left)))
    left //= k
    n = draw(st.integers(1, min(4, left)))
    left //= n
    some = [batch for batch in ((), (1,), (3,), (2, 2)) if math.prod(batch) <= left]
    return Shape(T, draw(st.sampled_from(some)), k, n)


@st.composite
def values(draw: Draw, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """Draw an array in float64: all ``scale / 2``, or uniform in ``[-scale, scale]``."""
    seed = draw(st.integers(0, 2**16))
    if seed == 0:
        return np.full(shape, scale / 2)
    drawn: Array = np.random.default_rng(seed).uniform(-scale, scale, shape)
    return drawn


@st.composite
def drives(draw: Draw, T: int, batch: tuple[int, ...], m: int, scale: float = 1.0) -> Array:
    """Draw inputs (T, *batch, m) within ``[-scale, scale]``.

    They are constant or noise, stiff (noise that is a thousand times smaller at every other step),
    or ask for long memory (zero after the first step).
    """
    x = draw(values((T, *batch, m), scale))
    kind = draw(st.sampled_from(["plain", "stiff", "long memory"]))
    if kind == "stiff":
        x[1::2] *= 1e-3
    elif kind == "long memory":
        x[1:] = 0
    return x


@st.composite
def block_systems(
    draw: Draw,
    max_T: int = 16,
    max_k: int = 4,
    max_numbers: int = MAX_NUMBERS,
    dtypes: Any = DTYPES,
) -> tuple[Array, Array]:
    """Draw blocks (T, *batch, k, k, n), of maximum norm at most 1, and rhs (T, *batch, k*n)."""
    T, batch, k, n = draw(shapes(max_T, max_k, max_numbers))
    dtype = draw(dtypes)
    blocks = draw(values((T, *batch, k, k, n))) / k
    return blocks.astype(dtype), draw(values((T, *batch, k * n))).astype(dtype)


@cache
def trees(names: tuple[str, ...], depth: int = 2) -> st.SearchStrategy[Tree]:
    """Return a strategy of trees of smooth functions, sums and products, of at most that depth.

    The functions are all that have a rule in ``autodiff.rules`` and are smooth somewhere
    (``expressions.SMOOTH``).
    """
    leaves: st.SearchStrategy[Tree] = st.sampled_from(names)
    if depth == 0:
        return leaves
    below = trees(names, depth - 1)
    unary = st.tuples(st.sampled_from(UNARY), below)
    binary = st.tuples(st.sampled_from(["add", "subtract", "multiply", *BINARY]), below, below)
    return st.one_of(leaves, unary, binary)


@cache
def inner_trees() -> st.SearchStrategy[Tree]:
    """Return a strategy of ``a*h + x``, alone or plus another tree."""
    plain = ("add", ("multiply", "a", "h"), "x")
    return st.one_of(
        st.just(plain), trees(("h", "x", "a", "b")).map(lambda tree: ("add", plain, tree))
    )


@st.composite
def smooth_steps(draw: Draw, lipschitz: float = 0.8) -> SmoothStep:
    """Draw a smooth step ``f(s*(...))`` with ``|f| <= 1``, channel by channel.

    Arguments of functions such as log are scaled and moved into their domain. ``|df/dh| <=
    lipschitz`` where h, x and the parameters a, b are within [-1, 1]; s is the number that this
    takes. The least is ``tanh(a*h + x)``, scaled.
    """
    inner: Tree = draw(inner_trees())
    outer = draw(st.sampled_from(BOUNDED))
    names = tuple(name for name in ("a", "b") if name in leaves_of(inner))
    variables = dict.fromkeys(("h", "x", *names), (-1.0, 1.0))
    _, inner = fitted((outer, inner), variables)
    slope = bound((outer, inner), variables).slope
    if slope > lipschitz:
        inner = ("multiply", rounded_down(lipschitz / slope), inner)
    return SmoothStep((outer, inner), names)


def leaves_of(tree: Tree) -> set[Any]:
    """Return the names and numbers in a tree."""
    if not isinstance(tree, tuple):
        return {tree}
    return set().union(*map(leaves_of, tree[1:]))
