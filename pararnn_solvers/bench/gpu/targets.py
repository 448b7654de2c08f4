"""What is asked for: ratios of times within a case, and whether they are reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pararnn_solvers.bench.gpu.cases import COPY, GRADIENT, MAP, SCAN, SOLVE
from pararnn_solvers.bench.gpu.timing import Result, ratio
from pararnn_solvers.measure import significant


class Target(NamedTuple):
    """``time(above) / time(below)`` of a case is at least, or at most, a limit."""

    case: str
    asked: str
    above: str
    below: str
    limit: float
    at_least: bool = True

    def met(self, value: float) -> bool:
        """Tell whether a ratio is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


TARGETS = (
    Target("scan-lanes", "scan k = 1, many lanes: of a copy's bandwidth", COPY, SCAN, 0.8),
    Target("scan-one", "scan k = 1, one lane, T = 2^24: of a copy's bandwidth", COPY, SCAN, 0.6),
    Target("scan-2", "scan k = 2: of a copy's bandwidth", COPY, SCAN, 0.7),
    *(
        Target("gru", f"ParaGRU, T = 4096: {ours} over the map", ours, MAP, 1.5, at_least=False)
        for ours in (SOLVE, "shooting")
    ),
    *(
        Target(
            f"{cell}-512{size}",
            f"Para{cell.upper()}, T = 512{size and ', 256 lanes'}: torch.compile loop over {ours}",
            "torch.compile loop",
            ours,
            1000.0,
        )
        for cell in ("gru", "lstm")
        for size in ("", "-small")
        for ours in (SOLVE, "shooting")
    ),
    *(
        Target(
            f"{cell}-gradient",
            f"Para{cell.upper()} forward + backward: times forward",
            GRADIENT,
            SOLVE,
            3.0,
            at_least=False,
        )
        for cell in ("gru", "lstm")
    ),
)
"""All targets. Those of trajectories are listed for ``solve`` and for the kernels alone."""


def verdicts(results: Mapping[str, Sequence[Result]]) -> list[dict[str, object]]:
    """Return each target with its ratio, None where someone has no time, and whether it is met."""
    found = []
    for target in TARGETS:
        by_name = {one.contestant: one for one in results.get(target.case, ())}
        value = ratio(by_name.get(target.above), by_name.get(target.below))
        found.append(
            {
                **target._asdict(),
                "ratio": value,
                "met": None if value is None else target.met(value[1]),
                "reason": missing(target, by_name) if value is None else "",
            }
        )
    return found


def missing(target: Target, results: Mapping[str, Result]) -> str:
    """Return why a target has no ratio."""
    if not results:
        return "the case was not run"
    absent = [name for name in (target.above, target.below) if not timed(results.get(name))]
    return "; ".join(
        f"{name}: {results[name].status}" if name in results else f"{name}: took no part"
        for name in absent
    )


def timed(result: Result | None) -> bool:
    """Tell whether a contestant has a time."""
    return result is not None and result.seconds is not None


def table(results: Mapping[str, Sequence[Result]]) -> str:
    """Return all targets, one a line, with what was measured and whether that is enough."""
    lines = ["targets:"]
    for one in verdicts(results):
        sign = "≥" if one["at_least"] else "≤"
        asked = f"{one['asked']} {sign} {one['limit']:g}"
        value = one["ratio"]
        if isinstance(value, tuple):
            low, middle, high = (significant(v, 2) for v in value)
            verdict = f"{'met' if one['met'] else 'NOT MET'}: {middle} ({low}–{high})"
        else:
            verdict = f"not measured ({one['reason']})"
        lines.append(f"  {asked:<74}{verdict}")
    return "\n".join(lines)
