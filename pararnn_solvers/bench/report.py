"""What ``pararnn-solvers bench`` prints and writes: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pararnn_solvers.bench.cases import CASES, Case
from pararnn_solvers.bench.contestants import CONTESTANTS, OURS
from pararnn_solvers.bench.timing import Result
from pararnn_solvers.measure import Quartiles, processor, significant

Results = Mapping[str, Sequence[Result]]
"""The results of each case, by its name."""

HEADER = f"  {'':<16}{'ns per step and channel':>28}{'times ours':>30}{'first call':>12}"


def listing() -> str:
    """Return the cases and the contestants, and who is not installed."""
    lines = ["cases:"]
    lines += [f"  {name:<16}{describe(case)}" for name, case in CASES.items()]
    lines += ["", "contestants:"]
    for name, contestant in CONTESTANTS.items():
        missing = contestant.missing()
        absent = f" (not installed: {', '.join(missing)})" if missing else ""
        lines.append(f"  {name:<16}{contestant.what}{absent}")
    return "\n".join(lines)


def describe(case: Case) -> str:
    """Return what a case is in one line."""
    return f"{case.title}; {case.steps} steps, {case.dtype}"


def table(case: Case, results: Sequence[Result]) -> str:
    """Return the table of one case: medians, quartiles in parentheses."""
    lines = [f"{case.name}: {describe(case)}", HEADER]
    lines += [line(case, result) for result in results]
    short = {result.steps for result in results if shortened(case, result)}
    lines += [f"  * timed on the first {steps} steps only" for steps in sorted(filter(None, short))]
    return "\n".join(lines)


def shortened(case: Case, result: Result) -> bool:
    """Tell whether a contestant was timed on a part of the steps."""
    return result.steps is not None and result.steps < case.steps


def line(case: Case, result: Result) -> str:
    """Return the line of one contestant."""
    name = f"  {result.contestant:<16}"
    if result.ns is None:
        return f"{name}{result.status}: {result.reason}"
    mark = "*" if shortened(case, result) else " "
    ratio = "" if result.ratio is None or result.contestant == OURS else spread(result.ratio, 2)
    first = f"{result.first_call:.2f} s"
    return f"{name}{spread(result.ns) + mark:>28}{ratio:>30}{first:>12}  {result.reason}".rstrip()


def spread(quartiles: Quartiles, digits: int = 3) -> str:
    """Return a median, with the other quartiles in parentheses."""
    low, middle, high = (significant(value, digits) for value in quartiles)
    return f"{middle} ({low}–{high})"


def as_json(results: Results, repeats: int, environment: Mapping[str, Any]) -> str:
    """Return everything as one JSON object; what was not measured is null."""
    cases = [
        {**asdict(CASES[name]), "results": [numbers(asdict(one)) for one in found]}
        for name, found in results.items()
    ]
    report = {
        "environment": {"processor": processor(), **environment},
        "unit": "ns per step and channel",
        "quartiles": [25, 50, 75],
        "repeats": repeats,
        "cases": cases,
    }
    return json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record in which numbers that are not finite, which JSON lacks, are null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }


def failures(results: Results) -> list[str]:
    """Return the cases in which this package is wrong or fails."""
    return [
        f"{name} ({one.reason})"
        for name, found in results.items()
        for one in found
        if one.contestant == OURS and one.status != "timed"
    ]
