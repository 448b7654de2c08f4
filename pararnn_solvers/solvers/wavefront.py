"""Newton's method where a kernel takes all iterations through time together."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.guess import from_zero
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


def is_default(guess: Any) -> bool:
    """Tell whether a guess is ``f(0, x)``, which the kernel finds as it goes."""
    return guess is None or guess is from_zero


def goes_together(system: System) -> bool:
    """Tell whether there is such a kernel, and work for all threads in it."""
    where = "" if system.ranks.several else getattr(system.program, "wavefront", "")
    return bool(where) and importlib.import_module(where).pays(system.program, system.shape)


def iterate_together(
    system: System, guess: Array | None, scan: Scan, stopping: Stopping
) -> Solution | None:
    """Return the solution that iteration after iteration would lead to, if it converges soon.

    Parameters
    ----------
    guess : array, shape (T, batch, d), optional
        By default ``f(0, x)``.
    """
    front = importlib.import_module(system.program.wavefront).iterate(
        system.program,
        system.x,
        system.h0,
        guess,
        system.empty(),
        stopping,
    )
    if front is None:
        return None
    system.tally.steps += front.evaluations
    system.tally.suspect |= not front.finite
    status = np.full(system.shape[1], Status.CONVERGED, object)
    taken = system.tally.steps
    return Solution(front.h, status, front.norms, taken, system, scan, stopping, compiled=True)
