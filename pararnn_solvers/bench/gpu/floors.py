"""The floors: a copy of as many bytes, and f applied once to given states."""

from __future__ import annotations

from typing import Any

from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.gpu import ours
from pararnn_solvers.bench.gpu.cases import least_bytes
from pararnn_solvers.bench.gpu.work import Work, parts_of
from pararnn_solvers.bench.models import Parts
from pararnn_solvers.linear import cuda


def copy(work: Work) -> list[Variant]:
    """Return a copy that reads half of the case's bytes and writes the other half."""
    xp = cuda.cupy()
    source = xp.arange(max(1, least_bytes(work.case) // 8), dtype="float32")
    target = xp.empty_like(source)

    def collect(result: Any) -> None:
        if not bool((source == target).all()):
            raise ArithmeticError("the copy differs from what was copied")

    return [Variant(lambda: xp.copyto(target, source), collect)]  # type: ignore[arg-type]


def apply(work: Work) -> list[Variant]:
    """Return f at the states before, which the rollout has found."""
    from pararnn_solvers.compiled import cuda_kernels as kernels

    xp, problem = cuda.cupy(), ours.Kernels(work)
    h = problem.states()
    before = xp.concatenate([problem.h0[None], h[:-1]])
    return [
        Variant(
            lambda: kernels.evaluate(problem.program, before, problem.x),
            lambda result: problem.parts(result),
        )
    ]


def product(work: Work) -> list[Variant]:
    """Return the product of all states with the matrix of a dense step; gates are not timed."""
    xp, case = cuda.cupy(), work.case
    if case.cell != "dense":
        raise NotComparable("is of dense recurrences")
    W, b = work.theta
    (h,) = ours.states_of(ours.solve(work)[0].call(), work)
    before = xp.concatenate([work.h0[None], h[:-1]])
    rows = before.reshape(-1, case.channels)

    def collect(products: Any) -> Parts:
        p = parts_of(products.reshape(*before.shape[:-1], -1), 3)
        u = parts_of(work.x, 3)
        r, z = (1 / (1 + xp.exp(-(u[i] + p[i]))) for i in range(2))
        c = xp.tanh(u[2] + r * (p[2] + b))
        return (c + z * (before - c),)

    return [Variant(lambda: rows @ W, collect, lambda result: "without the gates")]
