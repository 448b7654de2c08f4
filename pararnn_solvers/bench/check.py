"""Whether an answer is right: by the NumPy loop, in float64.

The NumPy loop computes the first steps. A long trajectory goes on by the compiled loop, after that
has agreed with the NumPy loop on the first steps. Nearby trajectories of a chaotic recurrence part
by rounding alone: there each state is compared with one NumPy step from the state before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.bench import numpy_loop
from pararnn_solvers.bench.cases import Problem, first
from pararnn_solvers.typing import Array

STRETCH = 4096
AGREEMENT = 1e-9


def answered(problem: Problem) -> Problem:
    """Return the problem with its answer.

    Raises
    ------
    ArithmeticError
        The NumPy loop and the compiled one disagree on the first steps.
    """
    from pararnn_solvers.bench import numba_loop

    def compute(some: Problem, loop: object) -> tuple[Array, ...]:
        gradient = some.case.task == "gradient"
        result: tuple[Array, ...] = getattr(loop, "gradient" if gradient else "trajectory")(some)
        return result

    if chaotic(problem):
        return problem._replace(answer=compute(problem, numba_loop))
    precise = in_float64(problem)
    few = first(precise, STRETCH)
    answer = compute(few, numpy_loop)
    if few.case.steps < precise.case.steps:
        off = difference(compute(few, numba_loop), answer)
        if not off <= AGREEMENT:
            raise ArithmeticError(f"the compiled and the NumPy loop differ by {off:.1e}")
        answer = compute(precise, numba_loop)
    return problem._replace(answer=answer)


def in_float64(problem: Problem) -> Problem:
    """Return the same problem computed in float64."""
    leaves, rebuild = tree.flatten(problem.theta)
    u = None if problem.u is None else problem.u.astype(np.float64)
    return problem._replace(
        case=replace(problem.case, dtype="float64"),
        u=u,
        h0=problem.h0.astype(np.float64),
        theta=rebuild([leaf.astype(np.float64) for leaf in leaves]),
    )


def error(problem: Problem, result: Sequence[Array]) -> float:
    """Return how far a result is from the answer; infinite or NaN if it has no such shape or value.

    Parameters
    ----------
    problem : Problem
        With its answer.
    result : arrays
    """
    if chaotic(problem):
        return defect(problem, result[0])
    shapes = [np.shape(v) for v in result], [v.shape for v in problem.answer]
    return difference(result, problem.answer) if shapes[0] == shapes[1] else np.inf


def difference(result: Sequence[Array], answer: Sequence[Array]) -> float:
    """Return the greatest difference, relative to the greatest number of its array beyond 1."""
    scaled = [
        np.abs(mine - right).max(initial=0) / max(1, np.abs(right).max(initial=0))
        for mine, right in zip(result, answer, strict=True)
    ]
    return float(np.max(scaled))  # NaN if one is


def defect(problem: Problem, h: Array) -> float:
    """Return the greatest difference of a state from one step out of the state before it."""
    precise = in_float64(problem)
    previous = np.concatenate([precise.h0[None], np.asarray(h, np.float64)[:-1]])
    right = problem.case.model.recurrence.step(previous, precise.u, precise.theta)
    return difference([np.asarray(h)], [right])


def chaotic(problem: Problem) -> bool:
    """Tell whether rounding grows along the trajectory."""
    return problem.case.cell == "logistic"
