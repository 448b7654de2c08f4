"""What ``predict`` expects from 128 steps, beside what happens on 20 times as many.

``python -m tests.diagnostics.confusion`` prints the tables of ``docs/diagnostics.md``, in Markdown;
names of problems as arguments restrict it to them.
"""

import sys
import warnings
from collections import Counter
from typing import NamedTuple

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.diagnostics import METHODS, Prediction, predict
from pararnn_solvers.diagnostics.prediction import WORTH_IT, speedup

PROBE, T = 128, 2560
# Smaller than by default, so that all of them take minutes.
SIZES = {
    **{name: {"D": 32} for name in ("mean_field_0.8", "mean_field_1", "mean_field_1.6")},
    "lorenz96": {"D": 12},
    "chain_langevin": {"D": 16},
    "implicit_explicit": {"n": 16},
}
NAMES = [*METHODS, "auto"]
SHORT = {"CONVERGED": "", "MAX_ITER": "limit", "DIVERGED": "overflow", "STALLED": "stalled"}


class Outcome(NamedTuple):
    """How a solve ended, after how many iterations, and whether it is the rollout to 1e-6."""

    status: prs.Status
    iterations: int
    exact: bool

    def __str__(self):
        if not self.status.success:
            return SHORT[self.status.name]
        return f"{self.iterations}{'' if self.exact else '*'}"


class Row(NamedTuple):
    """A problem: the forecast, and what happened by method."""

    name: str
    prediction: Prediction
    outcomes: dict[str, Outcome]

    def cells(self):
        forecasts = self.prediction.forecasts
        pairs = (f"{expected(forecasts[name])} / {self.outcomes[name]}" for name in NAMES)
        return [self.name, f"{self.prediction.exponent:+.3f}", *pairs, *self.advice()]

    def advice(self):
        """Return the advice, and the method that then turned out to be fastest in parallel."""
        return [self.prediction.method, self.best()]

    def best(self):
        speeds = {
            name: speedup(METHODS[name], outcome.iterations, T) * outcome.status.success
            for name, outcome in self.outcomes.items()
            if name in METHODS
        }
        best = max(speeds, key=speeds.get)
        return best if speeds[best] >= WORTH_IT else "sequential"


def expected(forecast):
    """Return a forecast as it is printed."""
    return f"{forecast.iterations:.0f}" if forecast.status.success else SHORT[forecast.status.name]


def row(name):
    """Predict and solve one problem by all methods."""
    problem = problems.load(name, length=T, **SIZES.get(name, {}))
    arguments, steps = problem[:4], {"steps": problem.steps}
    h = prs.rollout(*arguments, **steps)
    outcomes = {}
    for label in NAMES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", prs.ConvergenceWarning)
            method = METHODS.get(label, label)
            solution = prs.solve(*arguments, **steps, method=method, on_failure="warn")
        with np.errstate(invalid="ignore", over="ignore"):
            exact = np.abs(solution.h - h).max() <= 1e-6 * np.abs(h).max()
        outcomes[label] = Outcome(solution.status, solution.n_iter, bool(exact))
    return Row(name, predict(*arguments, **steps, probe=PROBE), outcomes)


def table(header, rows):
    """Return Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def confusion(rows):
    """Return how often each method was expected to converge, and did; and wrong counts."""
    lines = []
    for label in NAMES:
        pairs = [(r.prediction.forecasts[label], r.outcomes[label]) for r in rows]
        kinds = Counter((f.status.success, o.status.success) for f, o in pairs)
        both = [(f, o) for f, o in pairs if f.status.success and o.status.success]
        near = sum(
            f.iterations <= 1.5 * o.iterations + 1 and o.iterations <= 1.5 * f.iterations + 1
            for f, o in both
        )
        order = [(True, True), (False, False), (True, False), (False, True)]
        lines.append([label, *(kinds[kind] for kind in order), f"{near} of {len(both)}"])
    return lines


def advice(rows):
    """Return how often a parallel method was advised, and paid."""
    kinds = Counter((r.prediction.method != "sequential", r.best() != "sequential") for r in rows)
    names = {True: "parallel", False: "sequential"}
    return [
        [f"advised {names[said]}", kinds[said, True], kinds[said, False]] for said in (True, False)
    ]


def main(names):
    """Print the tables for these problems."""
    rows = []
    for name in names or problems.PROBLEMS:
        rows.append(row(name))
        print(f"{name} ...", file=sys.stderr, flush=True)
    header = ["problem", "exponent", *NAMES, "advised", "fastest"]
    print(table(header, [r.cells() for r in rows]), "\n")
    header = ["method", "both converge", "both fail", "fails unexpectedly"]
    print(
        table([*header, "converges unexpectedly", "count within 1.5 times"], confusion(rows)), "\n"
    )
    print(table(["", "a parallel method pays", "none does"], advice(rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
