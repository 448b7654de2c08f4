"""What ``pararnn-solvers solve`` prints: for people as it goes, or for programs at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pararnn_solvers import __version__
from pararnn_solvers.cli.arguments import PROGRAM
from pararnn_solvers.cli.problem import Problem
from pararnn_solvers.linear import threads
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.unsolved import State

ALL_LINES = 20
PAUSE = 0.5


def describe(problem: Problem, method: str, backend: str) -> str:
    """Return what is going to be solved, and how."""
    T, *batch, d = problem.shape
    sequences = f" × {math.prod(batch)} sequences" if batch else ""
    lines = [
        f"{PROGRAM} {__version__}: h_t = f(h_(t-1), x_t) for all t at once",
        f"  input       {problem.source}",
        f"  recurrence  {problem.model}",
        f"  unknowns    {T} steps{sequences} × {d} states = {math.prod(problem.shape)}, "
        f"{problem.h0.dtype}",
        f"  method      {method}, backend {backend}, {threads.num_threads()} threads",
    ]
    if problem.assumed:
        lines.insert(3, f"  h0          {problem.assumed}")
    return "\n".join(lines)


class Iterations:
    """A callback that prints the iterations as they come: all of the first 20, then two a second.

    A moving window makes thousands of them.
    """

    def __init__(self, say: Callable[[str], None], steps: int) -> None:
        self.say, self.steps, self.start = say, steps, time.perf_counter()
        self.lines, self.printed_at = 0, -math.inf

    def __call__(self, state: State) -> None:
        """Print one line: iteration, greatest residual, how much is converged, seconds."""
        seconds = time.perf_counter() - self.start
        if self.lines >= ALL_LINES and seconds - self.printed_at < PAUSE:
            if self.lines == ALL_LINES:
                self.say("  from here on at most two lines a second")
                self.lines += 1
            return
        if self.lines == 0:
            self.say(f"  {'iteration':>9}  {'residual':>9}  {'converged':>26}  {'time':>9}")
        unknowns = state.h.shape[0]  # those of multiple shooting are the ends of chunks
        what = "steps" if unknowns == self.steps else "chunks"
        converged = f"{state.converged_steps} of {unknowns} {what}"
        residual = float(np.max(state.residual_norm, initial=0))
        self.say(f"  {state.n_iter:>9}  {residual:>9.1e}  {converged:>26}  {seconds:>7.2f} s")
        self.lines, self.printed_at = self.lines + 1, seconds


def summarize(solution: Solution, times: Mapping[str, float], difference: float | None) -> str:
    """Return how it ended and how long it took."""
    rows = solution.rows()[1:]  # the first one is in `describe`
    if solution.sequence_status.ndim == 0:
        rows[0] = ("status", f"{solution.status.name}: {solution.status.value}")
    rows.append(("solve", f"{times['solve']:.3g} s"))
    if difference is not None:
        ratio = times["step_loop"] / times["solve"]
        rows += [
            ("step loop", f"{times['step_loop']:.3g} s, plain NumPy: {ratio:.1f} times the solve"),
            ("difference", f"{difference:.1e} at most between the two"),
        ]
    return "\n" + "\n".join(f"  {label:<11} {text}" for label, text in rows)


def as_json(
    problem: Problem,
    solution: Solution,
    times: Mapping[str, float],
    difference: float | None,
    written: Mapping[str, Path | None],
) -> str:
    """Return everything as one JSON object; a number that is not finite becomes null."""
    T, *batch, d = problem.shape
    norms = solution.residual_norms.reshape(solution.n_iter + 1, -1).max(axis=1, initial=0)
    ends = [status.name for status in solution.sequence_status.ravel()]
    report: dict[str, Any] = {
        "version": __version__,
        "input": problem.source,
        "recurrence": problem.model,
        "steps": T,
        "batch": batch,
        "state_size": d,
        "input_size": None if problem.x is None else problem.x.shape[-1],
        "dtype": str(solution.h.dtype),
        "status": solution.status.name,
        "success": solution.success,
        "message": solution.message,
        "sequences": {name: ends.count(name) for name in sorted(set(ends))},
        "method": solution.method,
        "backend": solution.backend,
        "compiled": solution.compiled,
        "threads": threads.num_threads(),
        "n_iter": solution.n_iter,
        "residual_norms": [finite(norm) for norm in norms],
        "step_evaluations": solution.n_step_evaluations,
        "times": {name: round(seconds, 6) for name, seconds in times.items()},
        "max_difference": None if difference is None else finite(difference),
        "files": {name: path and str(path) for name, path in written.items()},
    }
    return json.dumps(report, indent=2, allow_nan=False)


def finite(value: Any) -> float | None:
    """Return a float, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None
