"""Anchors of chaotic flows, their observers, and Langevin sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pararnn_solvers.api import rollout, solve
from pararnn_solvers.diagnostics import lyapunov_exponent
from pararnn_solvers.problems import FLOWS, flow, observer, two_well_langevin
from pararnn_solvers.problems.flows import EULER_DT
from pararnn_solvers.reproduction.anchor import Row, iterations_to_merit
from pararnn_solvers.solvers.stopping import Status

LANGEVIN_SEEDS = range(4)


def observers() -> Iterator[Row]:
    """Count iterations for the five observers, as the source does: one more than ours."""
    for name, chosen in FLOWS.items():
        theirs, counts = chosen.observer_iterations, []
        for seed in (0, 1):
            count = iterations_to_merit(observer(name, seed=seed))
            counts.append(math.inf if count is None else count + 1)
        if name == "thomas":  # the only one whose told components do not make it linear by stages
            agrees = all(count <= theirs for count in counts)
        else:
            agrees = all(count == theirs for count in counts)
        yield Row(name, str(theirs), ", ".join(f"{count:.0f}" for count in counts), agrees)


def flows() -> Iterator[Row]:
    """Run Newton's method on the flows themselves, from the guess of the source.

    An overflow ends ours. What converges meets the tolerance of the equations, and may leave the
    rollout all the same.
    """
    for name, chosen in FLOWS.items():
        problem = flow(name)
        options: dict[str, Any] = {"guess": problem.guess, "max_iter": 1000, "on_failure": "warn"}
        solution = solve(*problem[:4], steps=problem.steps, method="newton", **options)
        ours = f"{solution.status.name} after {solution.n_iter}"
        if solution.success:
            exact = rollout(*problem[:4], steps=problem.steps)
            apart = np.abs(solution.h - exact).max(axis=-1) > 1e-6
            ours += f", 1e-6 off at step {apart.argmax() + 1}" if apart.any() else ""
        hopeless = solution.status is Status.DIVERGED or solution.n_iter > 100
        yield Row(name, str(chosen.system_iterations), ours, hopeless)


def exponents() -> Iterator[Row]:
    """Estimate the largest Lyapunov exponents per unit of time."""
    for name, chosen in FLOWS.items():
        problem = flow(name)
        rate = lyapunov_exponent(*problem[:4], steps=problem.steps, chunk=173) / EULER_DT
        agrees = abs(rate - chosen.exponent) <= 0.05 + 0.1 * chosen.exponent
        yield Row(name, f"{chosen.exponent:.2f}", f"{rate:.2f}", bool(agrees))


def langevin() -> Iterator[Row]:
    """Count iterations of several chains, and estimate their exponent."""
    counts, rates = [], []
    for seed in LANGEVIN_SEEDS:
        problem = two_well_langevin(seed=seed)
        count = iterations_to_merit(problem)
        counts.append(math.inf if count is None else count + 1)
        rates.append(float(lyapunov_exponent(*problem[:4], chunk=100)))
    mean = sum(rates) / len(rates)
    listed = ", ".join(f"{count:.0f}" for count in counts)
    yield Row("iterations", "at most about 35", listed, max(counts) <= 36)
    agrees = abs(mean + 0.0145) <= 0.2 * 0.0145
    yield Row("exponent a step, mean", "-0.0145", f"{mean:.4f}", agrees)
