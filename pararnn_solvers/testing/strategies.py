"""Hypothesis strategies: shapes, linear systems, recurrences of known character, cells, batches.

Everything drawn is small: at most ``max_numbers`` numbers in a trajectory (blocks have k times as
many). Examples shrink to one step of one channel with the values 0.5, and print as source that
makes them again, where ``np``, ``prs``, ``Recurrence``, ``strategies``, ``scipy.special`` and the
modules of ``cells`` are imported. Importing this module lets ``st.from_type(Recurrence)`` and
``st.from_type(Problem)`` draw, too.

For a step of Lipschitz constant L < 1, states whose residual is at most F are within
``F / (1 - L)`` of the trajectory: ``Problem.lipschitz`` is that L, in the maximum norm.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as cause:  # pragma: no cover
    raise ImportError(
        f"pararnn_solvers.testing.strategies needs Hypothesis ({cause}); "
        "install it: pip install 'hypothesis>=6.100'",
        name="hypothesis",
    ) from cause

from pararnn_solvers import cells
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.testing.draws import (
    DTYPES,
    MAX_NUMBERS,
    Draw,
    Shape,
    block_systems,
    drives,
    shapes,
    smooth_steps,
    values,
)
from pararnn_solvers.testing.printing import source
from pararnn_solvers.typing import Array

__all__ = [
    "Batch",
    "Problem",
    "Shape",
    "batches",
    "block_systems",
    "cell_problems",
    "contractive_problems",
    "drives",
    "expansive_problems",
    "marginal_problems",
    "problems",
    "recurrences",
    "shapes",
    "smooth_steps",
]


class Problem(NamedTuple):
    """A recurrence with its data: ``solve(*problem[:4], steps=problem.steps)`` solves it.

    `x` may be None: a recurrence without drives.

    `lipschitz` bounds df/dh in the maximum norm (None: not known), where ``|h| <= 1`` for
    contractive problems, whose trajectories stay there. `character` is "contractive", "marginal"
    (distances are kept), "expansive" or "unknown" (cells).
    """

    recurrence: Recurrence
    x: Array | None
    h0: Array
    theta: Any
    steps: int
    lipschitz: float | None
    character: str

    def __repr__(self) -> str:
        return source(self)


class Batch(NamedTuple):
    """A problem with what `solve` takes as `lengths` and `resets`."""

    problem: Problem
    lengths: Array
    resets: Array

    def __repr__(self) -> str:
        return source(self)


def recurrences() -> st.SearchStrategy[Recurrence]:
    """Return a strategy of recurrences of `smooth_steps`, with ``block_size=1``."""
    return smooth_steps().map(lambda step: Recurrence(step, block_size=1))


@st.composite
def contractive_problems(
    draw: Draw, max_T: int = 16, max_numbers: int = MAX_NUMBERS, dtypes: Any = DTYPES
) -> Problem:
    """Draw a smooth step, or ``tanh`` of k x k blocks or of a matrix, of Lipschitz constant 0.8.

    That of a matrix declares no structure. It and that of blocks may have no x, and may contract by
    0.1.
    """
    dtype = draw(dtypes)
    kind = draw(st.sampled_from(["smooth", "blocks", "dense"]))
    T, batch, k, n = draw(shapes(max_T, 3 if kind == "blocks" else 1, max_numbers))
    x, h0 = draw(drives(T, batch, k * n)).astype(dtype), draw(values((*batch, k * n))).astype(dtype)
    recurrence: Recurrence
    theta: Any
    if kind == "smooth":
        recurrence = draw(recurrences())
        parameters = recurrence.step.parameters  # type: ignore[attr-defined]
        theta = tuple(draw(values((len(parameters), n))).astype(dtype))
        return Problem(recurrence, x, h0, theta, T, 0.8, "contractive")
    if kind == "blocks":
        recurrence, theta = Recurrence(block_tanh, block_size=k), draw(values((k, k, n)))
    else:
        recurrence, theta = Recurrence(dense_tanh), draw(values((n, n)))
    lipschitz = draw(st.sampled_from([0.8, 0.1]))
    theta = (lipschitz / theta.shape[1] * theta).astype(dtype)
    given = None if draw(st.booleans()) else x
    return Problem(recurrence, given, h0, theta, T, lipschitz, "contractive")


def driven(h: Any, x: Any) -> Any:
    """Return h plus x, if there is one."""
    return h if x is None else h + x


def block_tanh(h: Any, x: Any, a: Any) -> Any:
    """Return ``tanh(sum_j a_ij h_j + x_i)``: k components in each of n channels."""
    parts = h.reshape(*h.shape[:-1], 1, *a.shape[1:])
    return np.tanh(driven(np.sum(a * parts, axis=-2).reshape(h.shape), x))


def dense_tanh(h: Any, x: Any, W: Any) -> Any:
    """Return ``tanh(W h + x)``: all components couple."""
    return np.tanh(driven(h @ W.T, x))


def hold(h: Any, x: Any, theta: Any) -> Any:
    """Return ``h + x``: nothing is forgotten."""
    return driven(h, x)


def cycle(h: Any, x: Any, theta: Any) -> Any:
    """Return the state with its components moved on by one place, plus x: a permutation."""
    return driven(np.concatenate([h[..., -1:], h[..., :-1]], axis=-1), x)


def rotate(h: Any, x: Any, angle: Any) -> Any:
    """Return each pair of components, rotated by its channel's angle, plus x."""
    n = h.shape[-1] // 2
    a, b, c, s = h[..., :n], h[..., n:], np.cos(angle), np.sin(angle)
    return driven(np.concatenate([c * a - s * b, s * a + c * b], axis=-1), x)


@st.composite
def marginal_problems(
    draw: Draw, max_T: int = 16, max_numbers: int = MAX_NUMBERS, dtypes: Any = DTYPES
) -> Problem:
    """Draw a step that keeps distances: ``h + x``, a permutation, or (in Euclid's norm) rotations.

    `lipschitz` is 1, for rotations the square root of 2 (their bound in the maximum norm). There
    may be no x.
    """
    dtype = draw(dtypes)
    step = draw(st.sampled_from([hold, cycle, rotate]))
    if step is rotate and max_numbers < 2:
        step = hold
    T, batch, _, n = draw(shapes(max_T, 1, max_numbers // 2 if step is rotate else max_numbers))
    k = {hold: 1, cycle: n, rotate: 2}[step]
    d = 2 * n if step is rotate else n
    theta = draw(values((n,), math.pi)).astype(dtype) if step is rotate else None
    x, h0 = draw(drives(T, batch, d)).astype(dtype), draw(values((*batch, d))).astype(dtype)
    given = None if draw(st.booleans()) else x
    lipschitz = math.sqrt(2) if step is rotate else 1.0
    return Problem(Recurrence(step, block_size=k), given, h0, theta, T, lipschitz, "marginal")


def grow(h: Any, x: Any, a: Any) -> Any:
    """Return ``a*h + x`` with a > 1: differences grow by that factor."""
    return a * h + x


def sine(h: Any, x: Any, a: Any) -> Any:
    """Return ``sin(a*h + x)`` with a > 1: bounded, and differences may grow by that factor."""
    return np.sin(a * h + x)


@st.composite
def expansive_problems(
    draw: Draw, max_T: int = 16, max_numbers: int = MAX_NUMBERS, dtypes: Any = DTYPES
) -> Problem:
    """Draw ``a*h + x`` or ``sin(a*h + x)`` with a of 2, 1.5 or 4: differences may grow a-fold."""
    dtype = draw(dtypes)
    step = draw(st.sampled_from([grow, sine]))
    T, batch, _, n = draw(shapes(max_T, 1, max_numbers))
    a = draw(st.sampled_from([2.0, 1.5, 4.0]))
    x, h0 = draw(drives(T, batch, n)).astype(dtype), draw(values((*batch, n))).astype(dtype)
    recurrence = Recurrence(step, block_size=1)
    return Problem(recurrence, x, h0, np.full(n, a, dtype), T, a, "expansive")


OPTIONS = {"selective_ssm": {"states": 2, "rank": 1}, "block_gru": {"heads": 2}}


@st.composite
def cell_problems(
    draw: Draw,
    max_T: int = 16,
    max_numbers: int = MAX_NUMBERS,
    names: Any = tuple(cells.CELLS),
    dtypes: Any = DTYPES,
) -> Problem:
    """Draw one of the package's cells, its initial parameters and the drives of inputs.

    At most 4 sequences of 4 channels and 2 inputs; `max_numbers` is at least 12, a state's size.
    """
    cell = cells.load(draw(st.sampled_from(names)))
    options = OPTIONS.get(cell.__name__.rpartition(".")[2], {})
    dtype, channels = draw(dtypes), draw(st.sampled_from([2, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    theta = cell.init(rng, 2, channels, dtype=dtype, **options)
    T, batch, _, _ = draw(shapes(max_T, 1, max(1, max_numbers // 12)))
    x = draw(drives(T, batch, 2)).astype(dtype)
    h0 = cell.initial_state(theta, batch)
    recurrence = cells.recurrence_of(cell, theta)
    return Problem(recurrence, cell.project(x, theta), h0, theta, T, None, "unknown")


def problems(max_T: int = 16, max_numbers: int = MAX_NUMBERS) -> st.SearchStrategy[Problem]:
    """Return a strategy of contractive, marginal and expansive problems, and of cells."""
    kinds = (contractive_problems, marginal_problems, expansive_problems, cell_problems)
    return st.one_of(*(kind(max_T, max_numbers) for kind in kinds))


@st.composite
def batches(draw: Draw, of: Any = None) -> Batch:
    """Draw a problem with lengths (*batch) between 0 and T and resets (T, *batch).

    Parameters
    ----------
    of : strategy of Problem, optional
        Default: `contractive_problems`.
    """
    problem = draw(contractive_problems() if of is None else of)
    batch = problem.h0.shape[:-1]
    size, T = math.prod(batch), problem.steps
    lengths = draw(st.lists(st.integers(0, T), min_size=size, max_size=size))
    flags = draw(st.lists(st.booleans(), min_size=T * size, max_size=T * size))
    return Batch(problem, np.array(lengths).reshape(batch), np.array(flags).reshape(T, *batch))


st.register_type_strategy(Recurrence, recurrences())
st.register_type_strategy(Problem, problems())
