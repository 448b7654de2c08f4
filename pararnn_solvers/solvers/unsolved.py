"""Which equations are still open: converged prefixes and sequences leave the iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers import guess as guesses
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping, max_norm
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


@dataclass(frozen=True)
class State:
    """What a callback sees after each iteration.

    Attributes
    ----------
    n_iter : int
    h : array, shape (T, batch, d)
        The current states, converged or not (with multiple shooting: at the ends of chunks).
        The solver's own array: copy what must outlast the call.
    residual_norm : array, shape (batch,)
        Greatest residual of each sequence in the maximum norm, so far as it was iterated.
    converged_steps : int
        All sequences meet the tolerance up to here.
    """

    n_iter: int
    h: Array
    residual_norm: Array
    converged_steps: int


Observer = Callable[[State], None]


class Unsolved:
    """The open equations of a system: steps ``start ... stop - 1`` of some sequences.

    Parameters
    ----------
    system : System
        With one batch axis.
    guess : array, callable, str or None
        See :mod:`pararnn_solvers.solvers.guess`. With a window, None holds the last state of the
        window for the steps that enter it.
    window : int, optional
        Open at most so many steps at a time and move on past those that have converged.
    """

    def __init__(
        self,
        system: System,
        guess: Any,
        stopping: Stopping,
        window: int | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.system, self.stopping, self.observe = system, stopping, observe
        T, batch = system.shape[:2]
        self.window, self.windowed = window or T, window is not None
        self.hold = self.windowed and guess is None
        self.h = guesses.resolve("repeat_h0" if self.hold else guess, system)
        self.start, self.stop = 0, min(self.window, T)
        self.open = np.ones(batch, bool)
        self.status: list[Status | None] = [None] * batch
        self.closed_norm = np.zeros(batch, self.h.dtype)
        self.norms: list[Array] = []
        self.moved_at = 0

    def first(self) -> Iterate | None:
        """Return the iterate at the guess, less what is converged there already."""
        part = self.system.part(self.h, self.start, self.stop, self.open)
        h = self.h[self.start : self.stop]
        if not h.size:
            self.status = [Status.CONVERGED] * len(self.status)
            self.norms.append(self.closed_norm)
            return None
        return self.settle(Iterate(part, h, part.evaluate(part.previous(h))))

    @property
    def n_iter(self) -> int:
        """How many iterations were made."""
        return len(self.norms) - 1

    def settle(self, iterate: Iterate) -> Iterate | None:
        """Close what has converged or failed; return the iterate of what is left, if any."""
        if self.windowed:
            iterate = repaired(iterate)
        norm = max_norm(iterate.residual)
        done = norm <= self.stopping.tolerance(iterate.h)  # False for NaN
        self.h[self.start : self.stop, self.open] = iterate.h
        self._record(norm)
        if self.windowed and done[0].all():
            self.moved_at = self.n_iter

        left = self._close(iterate, norm, done)
        prefix = leading_true(done[:, left].all(axis=1)) if left.any() else 0
        frozen = np.where(left, norm[:prefix].max(axis=0, initial=0), norm.max(axis=0))
        self.closed_norm[self.open] = np.maximum(self.closed_norm[self.open], frozen)
        self.open[self.open] = left
        self._report(prefix)
        return self._advance(iterate, prefix, left) if self.open.any() else None

    def _record(self, norm: Array) -> None:
        row = self.closed_norm.copy()
        row[self.open] = np.maximum(row[self.open], norm.max(axis=0))
        self.norms.append(row)

    def _close(self, iterate: Iterate, norm: Array, done: Array) -> Array:
        """Give a status to each open sequence that ends here; return which go on."""
        solved = done.all(axis=0)
        none = np.zeros_like(solved)
        finite = np.isfinite(norm[0] if self.windowed else norm.max(axis=0))
        spent = self.n_iter - self.moved_at >= self.stopping.max_iter
        ends = {
            Status.CONVERGED: solved if self.stop == len(self.h) else none,
            Status.DIVERGED: ~finite,
            Status.STALLED: none if iterate.stalled is None else iterate.stalled & ~solved,
            Status.MAX_ITER: ~none if spent else none,
        }
        left = ~none
        for status, sequences in ends.items():
            for b in np.flatnonzero(self.open)[sequences & left]:
                self.status[b] = status
            left &= ~sequences
        return left

    def _report(self, prefix: int) -> None:
        if self.observe is None:
            return
        reached = self.start + prefix if self.open.any() else len(self.h)
        try:
            self.observe(State(self.n_iter, self.h, self.norms[-1], reached))
        except StopIteration:
            for b in np.flatnonzero(self.open):
                self.status[b] = Status.STOPPED
            self.open[:] = False

    def _advance(self, iterate: Iterate, prefix: int, left: Array) -> Iterate:
        """Leave converged prefixes and closed sequences behind; let the window move."""
        if prefix == 0 and left.all():
            return iterate
        self.start, old_stop = self.start + prefix, self.stop
        self.stop = min(self.start + self.window, len(self.h))
        part = self.system.part(self.h, self.start, old_stop, self.open)
        iterate = iterate.restrict(part, slice(prefix, None), left)
        return iterate if self.stop == old_stop else self._extend(iterate, old_stop)

    def _extend(self, iterate: Iterate, old_stop: int) -> Iterate:
        """Let new steps into the window; what the method remembered of the old ones is dropped."""
        if self.hold:
            self.h[old_stop : self.stop, self.open] = self.h[old_stop - 1, self.open]
        entering = self.system.part(self.h, old_stop, self.stop, self.open)
        entered = self.h[old_stop : self.stop, self.open]
        return replace(
            iterate,
            system=self.system.part(self.h, self.start, self.stop, self.open),
            h=np.concatenate([iterate.h, entered]),
            f=np.concatenate([iterate.f, entering.evaluate(entering.previous(entered))]),
            blocks=None,
            previous=None,
            history=(),
            stalled=None,
        )

    def solution(self, scan: Scan) -> Solution:
        """Return what was reached."""
        status = np.empty(len(self.status), object)
        status[:] = self.status
        return Solution(
            h=self.h,
            sequence_status=status,
            residual_norms=np.stack(self.norms),
            n_step_evaluations=self.system.tally.steps,
            system=self.system,
            scan=scan,
            stopping=self.stopping,
        )


def leading_true(flags: Any) -> int:
    """Return how many of the first flags are set."""
    return len(flags) if flags.all() else int(flags.argmin())


def repaired(iterate: Iterate) -> Iterate:
    """Put the state before the window in the place of states that overflowed.

    The first state of the window depends on no guess, so that every full step makes progress
    unless the recurrence itself overflows there.
    """
    bad = ~np.isfinite(max_norm(iterate.residual))
    bad &= ~bad[0]
    if not bad.any():
        return iterate
    h = np.where(bad[..., None], iterate.system.h0, iterate.h)
    return replace(iterate, h=h, f=iterate.system.evaluate(iterate.system.previous(h)))
