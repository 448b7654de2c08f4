"""What the benchmark on a GPU prints and writes: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pararnn_solvers.bench.gpu import targets
from pararnn_solvers.bench.gpu.cases import COPY, OURS, ROWS, Row, least_bytes
from pararnn_solvers.bench.gpu.contestants import CONTESTANTS
from pararnn_solvers.bench.gpu.timing import Result, bandwidth
from pararnn_solvers.bench.report import describe, numbers, spread
from pararnn_solvers.measure import significant

Results = Mapping[str, Sequence[Result]]
"""The results of each case, by its name."""

MINE = (
    "map",
    *(name for name, one in CONTESTANTS.items() if one.what.startswith("this package")),
)
"""Whose failures are faults of this package: the map is one of its kernels."""
HEADER = f"  {'':<22}{'µs':>24}{'GB/s':>8}{'share of copy':>24}{'times ours':>24}{'first call':>12}"
UNITS = {
    "seconds, times": "s",
    "of_copy": "time of a copy of as many bytes / time",
    "ratio": "time / time of this package",
}


def listing() -> str:
    """Return the cases and the contestants, and who is not installed."""
    lines = ["cases:"]
    lines += [f"  {name:<22}{describe(row.case)}" for name, row in ROWS.items()]
    lines += ["", "contestants:"]
    for name, contestant in CONTESTANTS.items():
        missing = contestant.missing()
        absent = f" (not installed: {', '.join(missing)})" if missing else ""
        lines.append(f"  {name:<22}{contestant.what}{absent}")
    return "\n".join(lines)


def table(row: Row, results: Sequence[Result]) -> str:
    """Return the table of one case: medians, quartiles in parentheses."""
    megabytes = significant(least_bytes(row.case) / 1e6, 3)
    lines = [f"{row.case.name}: {describe(row.case)}, {megabytes} MB", HEADER]
    lines += [line(row, one) for one in results]
    timed = [one for one in results if one.seconds is not None]
    short = {one.steps for one in timed if one.steps is not None and one.steps < row.case.steps}
    lines += [f"  * timed on the first {steps} steps only" for steps in sorted(short)]
    if any(one.runs == 1 for one in timed):
        lines.append("  ¹ timed once")
    return "\n".join(lines)


def line(row: Row, result: Result) -> str:
    """Return the line of one contestant."""
    name = f"  {result.contestant:<22}"
    if result.seconds is None or result.first_call is None:
        return f"{name}{result.status}: {result.reason}"
    marks = "*" * (result.steps != row.case.steps) + "¹" * (result.runs == 1)
    micro = spread(tuple(1e6 * value for value in result.seconds))  # type: ignore[arg-type]
    speed = significant((bandwidth(row, result) or math.nan) / 1e9, 3)
    share = spread(result.of_copy, 2) if result.of_copy and result.contestant != COPY else ""
    mine = result.contestant == OURS[row.case.task]
    times = spread(result.ratio, 2) if result.ratio and not mine else ""
    first = f"{result.first_call:.2f} s"
    text = f"{name}{micro + marks:>24} {speed:>7} {share:>23} {times:>23}{first:>12}"
    return f"{text}  {result.reason}".rstrip()


def as_json(results: Results, repeats: int, environment: Mapping[str, Any]) -> str:
    """Return everything as one JSON object; what was not measured is null."""
    cases = [
        {
            **asdict(ROWS[name].case),
            "least_bytes": least_bytes(ROWS[name].case),
            "results": [record(one) for one in found],
        }
        for name, found in results.items()
    ]
    report = {
        "environment": environment,
        "units": UNITS,
        "quartiles": [25, 50, 75],
        "repeats": repeats,
        "targets": targets.verdicts(results),
        "cases": cases,
    }
    return json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)


def record(result: Result) -> dict[str, Any]:
    """Return a result as numbers that JSON knows."""
    times = [value if math.isfinite(value) else None for value in result.times]
    return {**numbers(asdict(result)), "times": times}


def failures(results: Results) -> list[str]:
    """Return where this package is wrong or fails."""
    return [
        f"{name}, {one.contestant} ({one.reason})"
        for name, found in results.items()
        for one in found
        if one.contestant in MINE and one.status in ("wrong", "failed")
    ]
