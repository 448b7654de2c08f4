"""JAX: Newton's method by ``associative_scan``, compiled, to the tolerance of this package.

One evaluation of the step and its Jacobian for each iteration: ``jvp`` along each component of all
channels at once gives the blocks of k x k exactly.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pararnn_solvers.bench.cases import Problem
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.jax_scan import library, variant
from pararnn_solvers.bench.models import Parts

MAX_ITER = 100


def newton(problem: Problem) -> list[Variant]:
    """Return Newton's method on the whole trajectory."""
    case = problem.case
    if case.task == "gradient":
        raise NotComparable("compared by its trajectories only")
    if case.cell == "dense":
        raise NotComparable("would multiply d × d matrices for each step and iteration")
    if case.cell == "logistic":
        raise NotComparable("needs about as many iterations as steps where rounding grows")
    return [variant(problem, partial(solve, problem), "associative_scan")]


def solve(problem: Problem, h0: Parts, u: Parts, w: Parts) -> Parts:
    """Return the components of all states."""
    import jax
    import jax.numpy as jnp

    step, lib = problem.case.model.step, library()
    tolerance = float(jnp.finfo(problem.case.dtype).eps) ** 0.75

    def f(previous: Parts) -> Parts:
        return step(lib, previous, u, w)

    def linearize(h: Parts) -> tuple[Parts, Parts, list[Parts]]:
        previous = tuple(
            jnp.concatenate([start[None], part[:-1]]) for start, part in zip(h0, h, strict=True)
        )
        value, tangent = jax.linearize(f, previous)
        return previous, value, columns(tangent, previous)

    def unfinished(carry: Any) -> Any:
        h, _, value, _, n_iter = carry
        off = [
            jnp.max(jnp.abs(a - b) - tolerance * jnp.abs(a)) for a, b in zip(h, value, strict=True)
        ]
        return (jnp.max(jnp.stack(off)) > tolerance) & (n_iter < MAX_ITER)

    def iterate(carry: Any) -> Any:
        _, previous, value, A, n_iter = carry
        k = len(value)
        b = tuple(value[i] - sum(A[j][i] * previous[j] for j in range(k)) for i in range(k))
        # The first state depends on h0 alone, which is given.
        b = tuple(part.at[0].set(v[0]) for part, v in zip(b, value, strict=True))
        h = jax.lax.associative_scan(compose, (A, b))[1]
        return h, *linearize(h), n_iter + 1

    h = step(lib, tuple(jnp.zeros_like(u[0]) for _ in h0), u, w)
    states: Parts = jax.lax.while_loop(unfinished, iterate, (h, *linearize(h), 0))[0]
    return states


def columns(tangent: Any, like: Parts) -> list[Parts]:
    """Return the derivatives by each component: ``columns[j][i] = dh_i/dh_j``."""
    import jax.numpy as jnp

    k = len(like)
    directions = [
        tuple(jnp.ones_like(v) if i == j else jnp.zeros_like(v) for i, v in enumerate(like))
        for j in range(k)
    ]
    return [tangent(*(direction,)) for direction in directions]


def compose(early: Any, late: Any) -> Any:
    """Return ``h -> late(early(h))`` of affine maps ``(A, b)``, A by columns."""
    (A, b), (C, d) = early, late
    k = len(b)
    product = [tuple(sum(C[m][i] * A[j][m] for m in range(k)) for i in range(k)) for j in range(k)]
    return product, tuple(sum(C[m][i] * b[m] for m in range(k)) + d[i] for i in range(k))
