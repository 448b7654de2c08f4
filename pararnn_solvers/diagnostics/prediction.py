"""What to expect of each method on a long trajectory, from a probe of its first steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.api import compiled_or_not, load_backend, with_one_batch_axis
from pararnn_solvers.checks import require_whole
from pararnn_solvers.growth import growth_rate
from pararnn_solvers.linear import Scan
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.solvers.auto import choose
from pararnn_solvers.solvers.methods import newton, quasi_newton, windowed
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.solvers.sequential import Sequential
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping
from pararnn_solvers.system import System
from pararnn_solvers.validation import make_system

PROBE = 128
CHUNK, WINDOW = 16, 32
METHODS: dict[str, Newton] = {
    "newton": newton(),
    "quasi_newton": quasi_newton(),
    "shooting": newton(chunk=CHUNK),
    "windowed": windowed(newton(), WINDOW),
}
"""Name -> method whose iterations are predicted, beside ``sequential`` and ``auto``."""

WORTH_IT = 2.0


@dataclass(frozen=True)
class Forecast:
    """What one method is expected to do.

    Attributes
    ----------
    status : Status
        How it is expected to end.
    iterations : float
        Infinite where it is not expected to converge.
    speedup : float
        Steps one after another of the rollout, T, over those of the method on processors without
        number: at most so many times faster. 0 where it does not converge.

    Examples
    --------
    >>> import numpy as np
    >>> found = predict(lambda h, x, a: a * h + x, np.ones((400, 1)), np.zeros(1), 0.5)
    >>> found.forecasts['newton'].iterations
    1.0
    """

    status: Status
    iterations: float
    speedup: float

    def __str__(self) -> str:
        return f"{self.iterations:.0f}" if self.status.success else self.status.name


@dataclass(frozen=True, repr=False)
class Prediction:
    """The forecasts of all methods, and the advice that follows.

    Attributes
    ----------
    exponent : float
        Largest Lyapunov exponent per step, estimated on the steps probed.
    steps, probed : int
        T, and how many of them were looked at.
    forecasts : mapping
        Name of the method -> :class:`Forecast`; the methods are ``METHODS``, ``sequential``,
        ``auto``.
    method : str
        The one that is advised.
    advice : str

    Examples
    --------
    >>> import numpy as np
    >>> found = predict(lambda h, x, a: a * h + x, np.ones((400, 1)), np.zeros(1), 0.5)
    >>> found.method
    'newton'
    """

    exponent: float
    steps: int
    probed: int
    forecasts: Mapping[str, Forecast]
    method: str
    advice: str

    def __repr__(self) -> str:
        lines = [f"Prediction for {self.steps} steps, from the first {self.probed}", self.advice]
        lines += [f"  {'method':<14}{'iterations':>10}  {'speedup at most':>15}"]
        for name, forecast in self.forecasts.items():
            fast = f"{forecast.speedup:.0f}" if forecast.speedup else ""
            lines.append(f"  {name:<14}{str(forecast):>10}  {fast:>15}")
        return "\n".join(lines)


def predict(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    probe: int = PROBE,
    max_iter: int = 100,
) -> Prediction:
    """Return the iterations to expect of each method, and the advice that follows.

    Each method solves the first quarter, the first half and all of the probe. A method that fails
    there fails on the whole trajectory: what happens later does not change what happens there. For
    others the increments of the counts are continued, T doubled at a time. Where perturbations grow
    by more than ``1/sqrt(eps)`` over the trajectory, a method that needed more than one iteration
    is expected to fail, whatever its counts. The guess is the default one of each method.

    Parameters
    ----------
    recurrence, x, h0, theta, steps
        Those of :func:`pararnn_solvers.solve`.
    probe : int
        Steps to look at, at least 16; fewer are looked at where there are fewer.
    max_iter : int
        The limit that a solve of the whole trajectory will have.

    Returns
    -------
    Prediction
        Prints as a table.

    Notes
    -----
    Cost: about twice that of solving the probe by each method, and `probe` evaluations one after
    another. The advice does not weigh what one step costs on this machine, as ``auto`` does.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817): the largest Lyapunov exponent decides. How
    often the forecasts are wrong is in ``docs/diagnostics.md``.

    Examples
    --------
    >>> logistic = lambda h, x, r: r * h * (1 - h)
    >>> predict(Recurrence(logistic, block_size=1), None, np.array([0.3]), 4.0, steps=2000).advice
    'largest Lyapunov exponent +0.69 per step: do not parallelize this; sequential is exact and \
faster'
    """
    require_whole("probe", probe, least=16)
    system = make_system(recurrence, x, h0, theta, steps)
    flat = with_one_batch_axis(system)
    T = flat.shape[0]
    probed = min(probe, T)
    exponent = float(np.max(arrays.on_host(growth_rate(flat, probed)), initial=-np.inf))
    seen = Probe(flat, probed, load_backend("auto", flat.h0)[1], max_iter, exponent * T)
    forecasts = {name: forecast(method, seen) for name, method in METHODS.items()}
    best = max(METHODS, key=lambda name: forecasts[name].speedup)
    forecasts["sequential"] = Forecast(Status.SEQUENTIAL, 0, 1.0)
    forecasts["auto"] = forecasts[chosen_by_auto(system, forecasts)]
    method = best if forecasts[best].speedup >= WORTH_IT else "sequential"
    advice = f"largest Lyapunov exponent {exponent:+.2g} per step: " + (
        advise_parallel(exponent, seen, best, forecasts[best])
        if method == best
        else advise_sequential(seen, best, forecasts[best])
    )
    return Prediction(exponent, T, probed, forecasts, method, advice)


@dataclass(frozen=True)
class Probe:
    """The first steps of a trajectory, and by how much ``log |dh_T/dh_0|`` is expected to grow."""

    system: System
    steps: int
    scan: Scan
    max_iter: int
    growth: float

    @property
    def digits(self) -> float:
        """The logarithm of ``1 / eps``."""
        return -math.log(np.finfo(self.system.h0.dtype).eps)

    @property
    def expands(self) -> bool:
        """Whether a perturbation grows by more than ``1 / sqrt(eps)`` over the trajectory."""
        return self.growth > self.digits / 2

    def solve(self, method: Newton, steps: int) -> Solution:
        """Solve the first few steps, from the default guess."""
        part = self.system.part(self.system.h0[None], 0, steps)
        # As many iterations as there are steps are enough, unless a state overflows.
        return method.solve(part, None, self.scan, Stopping(max_iter=self.steps))


def forecast(method: Newton, probe: Probe) -> Forecast:
    """Return what a method will do on the whole trajectory, from what it does on the probe."""
    T, counts = probe.system.shape[0], []
    for steps in (probe.steps // 4, probe.steps // 2, probe.steps):
        solution = probe.solve(method, steps)
        if not solution.success:
            return Forecast(solution.status, math.inf, 0.0)
        counts.append(solution.n_iter)
    # A window moves on: its iterations are in proportion to the length, and its limit starts anew.
    iterations = extrapolate(counts, T / probe.steps, least=0.5 if method.window is None else 2.0)
    if method.window is None:
        nonlinear = counts[-1] > 1
        if iterations > probe.max_iter or (probe.expands and nonlinear):
            return Forecast(Status.MAX_ITER, math.inf, 0.0)
    return Forecast(Status.CONVERGED, iterations, speedup(method, iterations, T))


def extrapolate(counts: Sequence[int], times: float, least: float = 0.5) -> float:
    """Continue the counts at a quarter, a half and all of a probe to so many times its length.

    Each doubling adds an increment; the next one differs from it by the same factor as it from the
    one before, kept between `least`, by default 1/2 (it settles), and 2 (in proportion to the
    length).

    Examples
    --------
    >>> extrapolate([4, 4, 4], 16), extrapolate([4, 6, 8], 16), extrapolate([8, 16, 32], 16)
    (4.0, 16.0, 512.0)
    """
    before, last = counts[1] - counts[0], counts[2] - counts[1]
    ratio = min(2.0, max(least, last / max(1, before)))
    doublings = math.log2(times)
    total = doublings if ratio == 1 else ratio * (ratio**doublings - 1) / (ratio - 1)
    return counts[2] + last * total


def speedup(method: Newton, iterations: float, T: int) -> float:
    """Return the steps of the rollout over those of the method, on processors without number.

    One iteration takes a step for the evaluation and ``log2`` of the unknowns for the scan; with
    chunks, their steps. A chunked solve rolls out its chunks once more at the end.
    """
    unknowns = max(2, min(method.window or T, T) // method.chunk)
    depth = iterations * (method.chunk + math.log2(unknowns)) + (method.chunk > 1) * method.chunk
    return T / max(1.0, depth)


def chosen_by_auto(system: System, forecasts: Mapping[str, Forecast]) -> str:
    """Return which of the forecasts is that of ``auto``."""
    method = choose(compiled_or_not(system, None, "auto", None))[0]
    if isinstance(method, Sequential):
        return "sequential"
    if isinstance(method, Newton) and method.window:
        return "windowed"
    name = "shooting" if getattr(method, "chunk", 1) > 1 else "newton"
    return name if forecasts[name].status.success else "windowed"  # as `auto` goes on


def advise_parallel(exponent: float, probe: Probe, name: str, found: Forecast) -> str:
    """Return what to do where a parallel method pays."""
    T = probe.system.shape[0]
    memory = probe.digits / -exponent if exponent < 0 else math.inf
    if memory < T:
        kept = f"perturbations are forgotten within about {memory:.0f} steps"
    else:
        kept = f"perturbations change by exp({probe.growth:+.1g}) over all {T} steps"
    return (
        f"{kept}; {METHODS[name]} is expected to take {found.iterations:.0f} iteration(s), at most "
        f"{found.speedup:.0f} times faster than stepping"
    )


def advise_sequential(probe: Probe, name: str, found: Forecast) -> str:
    """Return why stepping is best."""
    if probe.expands:
        return "do not parallelize this; sequential is exact and faster"
    if not found.speedup:
        return f"but no parallel method converges on {probe.steps} steps; sequential is exact"
    return (
        f"but plain Newton's method is not expected to converge, and the best of the others, "
        f"{METHODS[name]}, makes {found.iterations:.0f} iterations: sequential, or a better guess"
    )
