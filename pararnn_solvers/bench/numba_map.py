"""The floor: f applied once to given previous states, without any recurrence, on all threads.

Nothing that evaluates f at each step can be faster. Two layouts, of which the faster counts: drives
as users pass them, the gates side by side in each step; and each gate in an array of its own. New
memory holds the result, as for the others.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, no-any-return"
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers.bench import numba_rows as rows
from pararnn_solvers.bench.cases import Problem
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.numba_rows import compiled
from pararnn_solvers.linear import load, threads
from pararnn_solvers.typing import Array

VECTOR = 1024
"""States at most in a vector: with drives and results they stay in the first cache."""
NARROW = 16
"""Channels below which only gates in arrays of their own are worth trying."""

Kernel = Callable[..., None]


@compiled
def gru_steps(h: Array, u: Array, a: Array, out: Array, lo: int, hi: int) -> None:
    """Apply f to rows of h (S, n) and u (S, 3 n)."""
    n = h.shape[1]
    for s in range(lo, hi):
        rows.gru(h[s], u[s, :n], u[s, n : 2 * n], u[s, 2 * n :], a[0], a[1], a[2], out[s])


@compiled
def gru_gates(h: Array, u: Array, a: Array, out: Array, lo: int, hi: int) -> None:
    """Apply f to rows of h (R, L) and u (3, R, L)."""
    for s in range(lo, hi):
        rows.gru(h[s], u[0, s], u[1, s], u[2, s], a[0], a[1], a[2], out[s])


@compiled
def lstm_steps(h: Array, u: Array, a: Array, p: Array, out: Array, lo: int, hi: int) -> None:
    """Apply f to rows of h (S, 2 n) and u (S, 3 n)."""
    n = h.shape[1] // 2
    for s in range(lo, hi):
        rows.lstm(
            h[s, :n], h[s, n:], u[s, :n], u[s, n : 2 * n], u[s, 2 * n :],
            a[0], a[1], a[2], p[0], p[1], out[s, :n], out[s, n:],
        )  # fmt: skip


@compiled
def lstm_gates(h: Array, u: Array, a: Array, p: Array, out: Array, lo: int, hi: int) -> None:
    """Apply f to rows of h (2, R, L) and u (3, R, L)."""
    for s in range(lo, hi):
        rows.lstm(
            h[0, s], h[1, s], u[0, s], u[1, s], u[2, s],
            a[0], a[1], a[2], p[0], p[1], out[0, s], out[1, s],
        )  # fmt: skip


@compiled
def dense_steps(h: Array, u: Array, p: Array, b: Array, out: Array, lo: int, hi: int) -> None:
    """Apply f to rows of h (S, d), given u (S, 3 d) and the products p (S, 3 d)."""
    n = h.shape[1]
    for s in range(lo, hi):
        rows.dense(
            h[s], u[s, :n], u[s, n : 2 * n], u[s, 2 * n :],
            p[s, :n], p[s, n : 2 * n], p[s, 2 * n :], b, out[s],
        )  # fmt: skip


@compiled
def logistic_steps(h: Array, rate: Array, out: Array, lo: int, hi: int) -> None:
    """Apply f to rows of h (R, L)."""
    for s in range(lo, hi):
        rows.logistic(h[s], rate[0], out[s])


@compiled
def gru_products(
    h: Array, u: Array, a: Array, lam: Array, out: Array, du: Array, da: Array, lo: int, hi: int
) -> None:
    """Apply f and its products with lam to rows of h (R, L) and u (3, R, L)."""
    total = np.zeros_like(a)
    for s in range(lo, hi):
        rows.gru_products(
            h[s], u[0, s], u[1, s], u[2, s], a[0], a[1], a[2], lam[s], out[s],
            du[0, s], du[1, s], du[2, s], total[0], total[1], total[2],
        )  # fmt: skip
    da[:] = total


STEPS: dict[str, Kernel] = {"gru": gru_steps, "lstm": lstm_steps}
GATES: dict[str, Kernel] = {"gru": gru_gates, "lstm": lstm_gates, "logistic": logistic_steps}


def in_parts(kernel: Kernel, count: int, *arguments: Any) -> None:
    """Let each thread do its part of the rows."""
    cuts = np.linspace(0, count, threads.num_threads() + 1).astype(int)
    threads.run(
        [partial(kernel, *arguments, lo, hi) for lo, hi in zip(cuts, cuts[1:], strict=False)]
    )


def apply(problem: Problem) -> list[Variant]:
    """Return the map in each layout that makes sense for a case."""
    case = problem.case
    if case.task == "gradient":
        if case.cell != "gru":
            raise NotComparable(f"no map of the derivatives is written for {case.cell}")
        return [with_products(problem)]
    previous = np.concatenate([problem.h0[None], problem.answer[0][:-1].astype(case.dtype)])
    if case.cell == "dense":
        return [dense(problem, previous)]
    variants = [gate_by_gate(problem, previous)]
    if case.channels >= NARROW:
        variants.append(step_by_step(problem, previous))
    return variants


def step_by_step(problem: Problem, previous: Array) -> Variant:
    """Return the map over drives as users pass them."""
    assert problem.u is not None
    kernel = STEPS[problem.case.cell]
    h, u = (v.reshape(-1, v.shape[-1]) for v in (previous, problem.u))

    def call() -> Array:
        out = np.empty_like(h)
        in_parts(kernel, len(h), h, u, *problem.weights, out)
        return out

    return Variant(call, lambda out: (out.reshape(previous.shape),), lambda out: "as passed")


def gate_by_gate(problem: Problem, previous: Array) -> Variant:
    """Return the map over drives and states taken apart, in vectors of about 1024 states."""
    case = problem.case
    k = case.model.components
    kernel = GATES[case.cell]
    h = apart(previous, k, case.channels)
    given = () if problem.u is None else (apart(problem.u, case.model.gates, case.channels),)
    w = [tiled(v, h.shape[-1]) for v in problem.weights]
    h = h if k > 1 else h[0]

    def call() -> Array:
        out = np.empty_like(h)
        in_parts(kernel, h.shape[-2], h, *given, *w, out)
        return out

    def collect(out: Array) -> tuple[Array, ...]:
        return (together(out, previous.shape),)

    return Variant(call, collect, lambda out: "gates apart")


def dense(problem: Problem, previous: Array) -> Variant:
    """Return one product of matrices for all steps, and the gates."""
    assert problem.u is not None
    W, b = problem.weights
    h, u = (v.reshape(-1, v.shape[-1]) for v in (previous, problem.u))

    def call() -> Array:
        out = np.empty_like(h)
        in_parts(dense_steps, len(h), h, u, h @ W, b, out)
        return out

    return Variant(call, lambda out: (out.reshape(previous.shape),), lambda out: "one GEMM")


def with_products(problem: Problem) -> Variant:
    """Return the map of f and of its derivatives, at given states and given adjoints."""
    case, h0, u = problem.case, problem.h0, problem.u
    assert u is not None
    previous, lam = states_and_adjoints(problem)
    h, adjoints = apart(previous, 1, case.channels)[0], apart(lam, 1, case.channels)[0]
    gates = apart(u, 3, case.channels)
    a = tiled(problem.weights[0], h.shape[-1])

    def call() -> tuple[Array, Array, Array]:
        out, du = np.empty_like(h), np.empty_like(gates)
        parts = np.zeros((threads.num_threads(), *a.shape), h.dtype)
        cuts = np.linspace(0, len(h), len(parts) + 1).astype(int)
        threads.run(
            [
                partial(gru_products, h, gates, a, adjoints, out, du, da, lo, hi)
                for da, lo, hi in zip(parts, cuts, cuts[1:], strict=False)
            ]
        )
        return out, du, parts

    def collect(result: tuple[Array, ...]) -> tuple[Array, ...]:
        _, du, parts = result
        da = parts.astype(np.float64).reshape(len(parts), 3, -1, case.channels).sum(axis=(0, 2))
        # The one product that carries an adjoint on is given here, with the adjoints.
        return da, together(du, u.shape), problem.answer[2].reshape(h0.shape)

    return Variant(call, collect, lambda result: "f and its derivatives")


def states_and_adjoints(problem: Problem) -> tuple[Array, Array]:
    """Return the previous states and the adjoints ``lam`` of ``0.5 * sum(h**2)``."""
    from pararnn_solvers.bench.numba_loop import trajectory

    (h,) = trajectory(problem)
    previous = np.concatenate([problem.h0[None], h[:-1]])
    _, blocks = problem.case.model.recurrence.linearize(previous, problem.u, problem.theta)
    return previous, load("numba")(blocks, h, adjoint=True)


def apart(v: Array, parts: int, channels: int) -> Array:
    """Return the parts of the last axis, (parts, R, L): rows of all channels at some steps."""
    flat = np.moveaxis(v.reshape(-1, parts, channels), 1, 0)
    steps = flat.shape[1]
    most = max(1, VECTOR // channels)
    group = next(size for size in range(min(most, steps), 0, -1) if steps % size == 0)
    return np.ascontiguousarray(flat).reshape(parts, -1, group * channels)


def together(v: Array, shape: tuple[int, ...]) -> Array:
    """Return what `apart` took apart, in this shape."""
    count = v.shape[0] if v.ndim == 3 else 1
    parts = v.reshape(count, -1, shape[-1] // count)
    return np.moveaxis(parts, 0, 1).reshape(shape)


def tiled(w: Array, length: int) -> Array:
    """Return weights (rows, n) repeated along rows of this length."""
    w = np.atleast_2d(w)
    return np.ascontiguousarray(np.tile(w, (1, length // w.shape[1])))
