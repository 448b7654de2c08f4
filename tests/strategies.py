"""Random recurrences with a known Lipschitz constant, small on purpose, and what they allow.

For a step with Lipschitz constant L < 1 in the maximum norm, states whose residual is at most F
are within ``F / (1 - L)`` of the trajectory: ``|e_t| <= L |e_{t-1}| + |F_t|``. That bound, not a
tolerance that happens to pass, is what solutions are compared with.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru


class Case(NamedTuple):
    """A recurrence with its data; `lipschitz` bounds df/dh, in the maximum norm."""

    recurrence: Any
    x: Any
    h0: Any
    theta: Any
    steps: int
    lipschitz: float


def solve(case, **options):
    return prs.solve(*case[:4], steps=case.steps, **options)


def attempt(case, **options):
    """Solve, and return the partial solution where that fails."""
    try:
        return solve(case, **options)
    except prs.ConvergenceError as error:
        return error.solution


def rollout(case):
    return prs.rollout(*case[:4], steps=case.steps)


def rounding(case):
    """What one evaluation of a step may be off by: tens of operations on numbers of order one."""
    largest = max(1.0, float(np.max(np.abs(rollout(case)), initial=0)))
    return 32 * float(np.finfo(case.h0.dtype).eps) * largest


def allowed_error(case, atol=None, rtol=None):
    """The distance to the rollout that a residual within the tolerance implies."""
    default = float(np.finfo(case.h0.dtype).eps) ** 0.75
    atol, rtol = default if atol is None else atol, default if rtol is None else rtol
    largest = float(np.max(np.abs(rollout(case)), initial=0))
    return (atol + rtol * largest + 2 * rounding(case)) / (1 - case.lipschitz)


def assert_is_rollout(case, solution, **tolerance):
    assert solution.h.dtype == case.h0.dtype
    expected = rollout(case)
    assert solution.h.shape == expected.shape
    error = np.max(np.abs(solution.h - expected), initial=0)
    assert error <= allowed_error(case, **tolerance)


def block_tanh_step(h, x, a):
    """``h'_i = tanh(sum_j a_ij h_j + x_i)``: k components (i, j) in each of n channels."""
    parts = h.reshape(*h.shape[:-1], 1, *a.shape[1:])
    drive = np.sum(a * parts, axis=-2).reshape(h.shape)
    return np.tanh(drive if x is None else drive + x)


def block_tanh(
    k=1, n=3, T=12, batch=(), dtype=np.float64, seed=0, lipschitz=0.8, x=True, block_size=None
):
    """A tanh network of k x k blocks; ``n = 1`` is dense, ``k = 1`` diagonal."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (k, k, n))
    a *= lipschitz / np.abs(a).sum(axis=1, keepdims=True)
    inputs = rng.standard_normal((T, *batch, k * n)).astype(dtype) if x else None
    h0 = rng.uniform(-1, 1, (*batch, k * n)).astype(dtype)
    recurrence = prs.Recurrence(block_tanh_step, block_size=block_size or k)
    return Case(recurrence, inputs, h0, a.astype(dtype), T, lipschitz)


def dense_tanh(d=4, T=12, batch=(), dtype=np.float64, seed=0, lipschitz=0.8):
    """A tanh network given as a bare function: nothing is declared of its structure."""
    rng = np.random.default_rng(seed)
    W = rng.uniform(-1, 1, (d, d))
    W *= lipschitz / np.abs(W).sum(axis=1, keepdims=True)
    x, h0 = rng.standard_normal((T, *batch, d)), rng.uniform(-1, 1, (*batch, d))
    step = lambda h, x, W: np.tanh(h @ W.T + x)  # noqa: E731
    return Case(step, x.astype(dtype), h0.astype(dtype), W.astype(dtype), T, lipschitz)


def gru(n=3, T=12, batch=(), dtype=np.float64, seed=0):
    """A diagonal GRU with weights and drives so small that L < 0.9 while |h| <= 1.

    With |u| <= 1 and |a| <= 0.2, ``z >= sigmoid(-1.2) = 0.23``, and df/dh is at most
    ``1 - z + 0.4 z (1 - z) + 0.21 z``, which is 0.89 there and less for greater z.
    """
    rng = np.random.default_rng(seed)
    a = rng.uniform(-0.2, 0.2, (3, n)).astype(dtype)
    theta = diagonal_gru.Theta(a, np.zeros((3, 1, 0, n), dtype), np.zeros((3, n), dtype))
    u = rng.uniform(-1, 1, (T, *batch, 3 * n)).astype(dtype)
    h0 = rng.uniform(-1, 1, (*batch, n)).astype(dtype)
    return Case(diagonal_gru.recurrence, u, h0, theta, T, 0.9)


DTYPES = st.sampled_from([np.float32, np.float64])
BATCHES = st.sampled_from([(), (1,), (3,), (2, 2)])
SEEDS = st.integers(0, 2**16)


def lengths(max_T=16):
    return st.integers(1, max_T)


@st.composite
def contractive_recurrences(draw, max_T=16, dtypes=DTYPES, batches=BATCHES):
    """Any of the cases above, of at most max_T steps, 4 sequences and 9 states."""
    common = {
        "T": draw(lengths(max_T)),
        "batch": draw(batches),
        "dtype": draw(dtypes),
        "seed": draw(SEEDS),
    }
    kind = draw(st.sampled_from(["block_tanh", "dense_tanh", "gru"]))
    if kind == "gru":
        return gru(n=draw(st.integers(1, 4)), **common)
    if kind == "dense_tanh":
        return dense_tanh(d=draw(st.integers(1, 5)), **common)
    k, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return block_tanh(k=k, n=n, x=draw(st.booleans()), **common)


@st.composite
def block_systems(draw, max_T=8, max_lanes=4, dtypes=DTYPES):
    """Blocks (T, batch, k, k, n) and a right-hand side (T, batch, k*n)."""
    T, batch = draw(st.integers(1, max_T)), draw(st.integers(1, max_lanes))
    k, n = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng, dtype = np.random.default_rng(draw(SEEDS)), draw(dtypes)
    blocks = rng.uniform(-1, 1, (T, batch, k, k, n)) / k
    return blocks.astype(dtype), rng.standard_normal((T, batch, k * n)).astype(dtype)
