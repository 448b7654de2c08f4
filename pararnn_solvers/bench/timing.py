"""Times: every contestant is checked, then all take turns (``measure.turns``).

Ratios are taken within a turn. Medians and quartiles are over turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.bench.cases import Case, Problem, build, first
from pararnn_solvers.bench.check import answered, error
from pararnn_solvers.bench.contestants import (
    CONTESTANTS,
    OURS,
    Contestant,
    NotComparable,
    Variant,
)
from pararnn_solvers.measure import Quartiles, quartiles, stopwatch, turns


@dataclass(frozen=True)
class Result:
    """What became of a contestant in a case.

    Parameters
    ----------
    status : {"timed", "wrong", "not installed", "not comparable", "failed"}
    reason : str
        Why it is not timed, or a remark on how it was.
    ns : tuple of three floats, optional
        Quartiles of nanoseconds per step and channel.
    ratio : tuple of three floats, optional
        Quartiles of its time over this package's.
    first_call : float, optional
        Seconds of the first call, in which compilers run.
    error : float, optional
        As `check.error` measures it.
    steps : int, optional
        Steps that were timed.
    """

    contestant: str
    status: str
    reason: str = ""
    ns: Quartiles | None = None
    ratio: Quartiles | None = None
    first_call: float | None = None
    error: float | None = None
    steps: int | None = None


class Entrant(NamedTuple):
    """A contestant whose answer is right, and what it took to get it the first time."""

    name: str
    call: Callable[[], Any]
    steps: int
    first_call: float
    error: float
    note: str


def run_case(
    case: Case, repeats: int, contestants: dict[str, Contestant] | None = None
) -> list[Result]:
    """Check and time all contestants on one case; results come in their order."""
    problem = answered(build(case))
    short: dict[int, Problem] = {}  # with their answers, by steps

    def shortened(steps: int | None) -> Problem:
        if steps is None or steps >= case.steps:
            return problem
        if steps not in short:
            short[steps] = answered(first(problem, steps))
        return short[steps]

    field = CONTESTANTS if contestants is None else contestants
    admitted = [admit(name, one, shortened(one.longest)) for name, one in field.items()]
    entrants = [one for one in admitted if isinstance(one, Entrant)]
    timed = iter(summarize(entrants, turns([one.call for one in entrants], repeats), case))
    return [next(timed) if isinstance(one, Entrant) else one for one in admitted]


def admit(name: str, contestant: Contestant, problem: Problem) -> Entrant | Result:
    """Return the fastest way of a contestant whose answers are right, or why there is none."""
    missing = contestant.missing()
    if missing:
        return Result(name, "not installed", f"needs {', '.join(missing)}")
    try:
        ways = [enter(name, way, problem) for way in contestant.variants(problem)]
        wrong = next((way for way in ways if not way.error <= problem.case.allowed), None)
        if wrong is None:
            return fastest(ways)
    except NotComparable as reason:
        return Result(name, "not comparable", str(reason))
    except Exception as reason:  # the others must not suffer from what a library raises
        text = " ".join(f"{type(reason).__name__}: {reason}".split())
        return Result(name, "failed", text)
    note = f"off by {wrong.error:.1e}, allowed {problem.case.allowed:.0e}"
    return Result(name, "wrong", f"{note} {wrong.note}".strip(), error=wrong.error)


def enter(name: str, way: Variant, problem: Problem) -> Entrant:
    """Call a variant for the first time and measure its error."""
    seconds, result = stopwatch(way.call)
    off = error(problem, way.collect(result))
    return Entrant(name, way.call, problem.case.steps, seconds, off, way.note(result))


def fastest(ways: Sequence[Entrant]) -> Entrant:
    """Return the one that takes least, the better of two calls counting."""
    if len(ways) == 1:
        return ways[0]
    least = [min(stopwatch(way.call)[0] for _ in range(2)) for way in ways]
    return ways[int(np.argmin(least))]


def summarize(
    entrants: Sequence[Entrant], seconds: np.ndarray[Any, Any], case: Case
) -> list[Result]:
    """Return quartiles of the times per step and channel, and of their ratios to ours."""
    if not entrants:
        return []
    ns = 1e9 * seconds / ([one.steps for one in entrants] * np.array(case.lanes))
    ours = next((i for i, one in enumerate(entrants) if one.name == OURS), None)
    return [
        Result(
            one.name,
            "timed",
            one.note,
            quartiles(ns[:, i]),
            None if ours is None else quartiles(ns[:, i] / ns[:, ours]),
            one.first_call,
            one.error,
            one.steps,
        )
        for i, one in enumerate(entrants)
    ]
