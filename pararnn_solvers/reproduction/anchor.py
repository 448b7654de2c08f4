"""What a published figure is, beside ours; and how the source counts iterations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.api import solve
from pararnn_solvers.problems import Problem
from pararnn_solvers.solvers.unsolved import State
from pararnn_solvers.validation import make_system

MERIT = 1e-10  # at which Gonzalez et al. 2025 stop


class Row(NamedTuple):
    """One figure: what was computed, theirs, ours, and whether they agree as the anchor says."""

    case: str
    theirs: str
    ours: str
    agrees: bool


@dataclass(frozen=True)
class Anchor:
    """Published figures that two cores can compute again.

    Attributes
    ----------
    title, source : str
    criterion : str
        By what rows are taken to agree.
    rows : callable
        Computes them, one after another.
    """

    title: str
    source: str
    criterion: str
    rows: Callable[[], Iterator[Row]]


def iterations_to_merit(problem: Problem, max_iter: int = 100) -> int | None:
    """Count Newton's iterations until ``|F|^2 / (2 T)`` of the states reached is at most `MERIT`.

    The criterion of Gonzalez et al. 2025, who evaluate it at the states that an iteration starts
    from: their counts are one higher. None where it is not reached.
    """
    recurrence, x, h0, theta = problem[:4]
    x = None if x is None else x[:, None]
    system = make_system(recurrence, x, h0[None], theta, problem.steps)
    reached: list[int] = []

    def watch(state: State) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.square(system.residual(state.h)).sum() / 2
        if total <= MERIT * problem.steps:
            reached.append(state.n_iter)
            raise StopIteration

    options: dict[str, Any] = {"atol": 0.0, "rtol": 0.0, "max_iter": max_iter, "callback": watch}
    solve(
        *problem[:4],
        steps=problem.steps,
        method="newton",
        guess=problem.guess,
        on_failure="warn",
        **options,
    )
    return reached[0] if reached else None
