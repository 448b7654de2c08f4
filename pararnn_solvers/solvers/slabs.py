"""Ranks that solve their slabs alone, then again from what arrives: for recurrences that forget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.sequential import finite_sequences, rollout_system
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping, max_norm
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

if TYPE_CHECKING:
    from pararnn_solvers.solvers.unsolved import Observer

FIRST_PIECE = 256  # steps that are run again before the first look at whether they were enough


@dataclass(frozen=True)
class Slabs:
    """Solve each slab alone by `method`; then run it again from the state that arrives.

    A slab is run again only until the next stored state meets the tolerance, which takes as many
    steps as the recurrence remembers. After as many rounds as there are ranks every slab has
    started from its true state, whatever the recurrence: that is as long as stepping takes.

    Source: the fine propagator of parareal without a coarse one; Gander & Vandewalle 2007.
    """

    method: Any

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Return this rank's slab; all ranks call this together."""
        ranks, local = system.ranks, getattr(scan, "local", scan)
        solution: Solution = self.method.solve(system.alone(system.h0), guess, local, stopping)
        h, norms = solution.h, []
        within = Residual.of(solution)
        for _ in range(ranks.size + 1):  # by then, all have started from their true state
            slab = system.alone(ranks.state_before(h, system.h0))
            first = residual(slab, h, 0, stopping)
            norms.append(ranks.greatest(np.maximum(within.norm, first.norm)))
            if ranks.all(first.met).all():
                break
            if not first.met.all():
                within = run_again(slab, h, within, stopping)
        status = np.full(h.shape[1], Status.STALLED, object)
        status[ranks.all(within.met & first.met)] = Status.CONVERGED
        status[~np.isfinite(norms[-1])] = Status.DIVERGED
        return replace(
            solution,
            sequence_status=status,
            residual_norms=np.stack(norms).astype(h.dtype),
            n_step_evaluations=system.tally.steps,
            system=system,
            scan=scan,
            compiled=system.is_compiled,
        )

    def __str__(self) -> str:
        return f"slabs({self.method})"


class Residual(NamedTuple):
    """Of each sequence, on the host: its greatest residual, and whether it meets the tolerance."""

    norm: Array
    met: Array

    @classmethod
    def of(cls, solution: Solution) -> Residual:
        """Return that of a solution."""
        met = [status.success for status in solution.sequence_status]
        return cls(solution.residual_norms[-1], np.array(met, bool))


def residual(slab: System, h: Array, step: int, stopping: Stopping) -> Residual:
    """Return the residual of one step; of none, if there are no more."""
    states = h[step : step + 1]
    one = slab.part(h, step, step + len(states))
    norm = max_norm(one.residual(states))
    met = (norm <= stopping.tolerance(states)).all(axis=0)
    return Residual(arrays.on_host(arrays.greatest(norm, axis=0)), arrays.on_host(met))


def run_again(slab: System, h: Array, before: Residual, stopping: Stopping) -> Residual:
    """Step through a slab, in place, until the next stored state is what the last one leads to.

    Parameters
    ----------
    before : Residual
        Of the slab as it is stored.

    Returns
    -------
    Residual
        Of the slab as it is then; 0 of states that were stepped through.
    """
    start, length = 0, FIRST_PIECE
    while True:
        stop = min(start + length, len(h))
        rollout_system(slab.part(h, start, stop), h[start:stop])
        if stop == len(h):
            finite = finite_sequences(h)
            return Residual(np.where(finite, 0.0, np.nan), finite)
        following = residual(slab, h, stop, stopping)
        if following.met.all():
            return Residual(np.maximum(before.norm, following.norm), before.met)
        start, length = stop, 2 * length
