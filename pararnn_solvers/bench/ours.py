"""How users call this package."""

from __future__ import annotations

from typing import Any

from pararnn_solvers import api, sensitivities
from pararnn_solvers.bench.cases import Problem
from pararnn_solvers.bench.contestants import Variant
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.typing import Array


def solve(problem: Problem) -> list[Variant]:
    """Return ``solve``, and with it ``gradients`` where the case asks for them."""
    case = problem.case
    steps = case.steps if problem.u is None else None

    def trajectory() -> Solution:
        return api.solve(
            case.model.recurrence,
            problem.u,
            problem.h0,
            problem.theta,
            steps=steps,
            method=case.method,
        )

    def gradient() -> tuple[Solution, sensitivities.Gradients]:
        solution = trajectory()
        return solution, sensitivities.gradients(solution, solution.h)

    if case.task == "gradient":
        return [Variant(gradient, gradients_of, lambda result: result[0].method)]
    return [Variant(trajectory, lambda solution: (solution.h,), lambda solution: solution.method)]


def gradients_of(result: Any) -> tuple[Array, ...]:
    """Return the gradients by the recurrent weights, the drives and h0."""
    _, gradients = result
    return gradients.theta.a, gradients.x, gradients.h0
