"""Which equations are still open: converged prefixes and sequences leave the iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers import guess as guesses
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping
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
    residual_norm : NumPy array, shape (batch,)
        Greatest residual of each sequence in the maximum norm, so far as it was iterated.
    converged_steps : int
        All sequences meet the tolerance up to here.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> def watch(state): print(state.n_iter, state.converged_steps)
    >>> sol = prs.solve(step, x, np.zeros(1), 0.5, method='newton', callback=watch)
    0 2
    1 3
    2 4
    3 6
    4 50
    """

    n_iter: int
    h: Array
    residual_norm: Array
    converged_steps: int


Observer = Callable[[State], None]


class Unsolved:
    """The equations that are not solved yet: steps ``start ... stop - 1`` of some sequences.

    A sequence is *open* until it has a status. It is *iterating* while its steps between start and
    stop are not all converged; with a window it may be open and wait for the window to move on.
    States are where the system is; all that is known of a sequence as a whole is on the host.

    Over several ranks these are steps of one slab, and what is known of a sequence as a whole is
    the same on all of them: they decide alike.

    Parameters
    ----------
    system : System
        With one batch axis.
    guess : array, callable, str or None
        See :mod:`pararnn_solvers.solvers.guess`. With a window, None holds the last state of the
        window for the steps that enter it.
    window : int, optional
        Iterate on at most so many steps at a time and move on past those that have converged in
        every open sequence.
    """

    def __init__(
        self,
        system: System,
        guess: Any,
        stopping: Stopping,
        window: int | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.system, self.stopping, self.window, self.observe = system, stopping, window, observe
        T, batch = system.shape[:2]
        self.hold = window is not None and guess is None
        self.h = guesses.resolve("repeat_h0" if self.hold else guess, system)
        self.start, self.stop = 0, T if window is None else min(window, T)
        self.open, self.iterating = np.ones(batch, bool), np.ones(batch, bool)
        self.status: list[Status | None] = [None] * batch
        self.norm_before, self.norm = np.zeros((2, batch), self.h.dtype)
        self.norms: list[Array] = []
        self.reached, self.moved_at = np.zeros((2, batch), int)

    @property
    def n_iter(self) -> int:
        """How many iterations were made."""
        return len(self.norms) - 1

    def first(self, fused: bool = False) -> Iterate | None:
        """Return the iterate at the guess, less what is converged there already.

        ``fused``: one kernel makes whole iterations.
        """
        part = self.system.part(self.h, self.start, self.stop, self.open)
        h = self.h[self.start : self.stop]
        if 0 in (self.system.steps_in_all, *self.system.shape[1:]):
            self.status = [Status.CONVERGED] * len(self.status)
            self.norms.append(self.norm)
            return None
        # A copy, because the next states are put in the place of these, which methods remember.
        return self.settle(Iterate(part, h if fused else h.copy(), fused=fused))

    def settle(self, iterate: Iterate) -> Iterate | None:
        """Close what has converged or failed; return the iterate of what is left, if any."""
        if self.window is not None:
            iterate = repaired(iterate)
        norm = iterate.norm
        done = norm <= self.stopping.allowed(iterate.size)  # False for NaN
        greatest, converged_steps, solved, stalled = agreed(
            iterate, arrays.greatest(norm, axis=0), arrays.leading(done)
        )
        self._keep(iterate)
        self.norm[self.iterating] = greatest
        self.norms.append(np.maximum(self.norm_before, self.norm))
        self._track(converged_steps)

        goes_on = self._close(norm, solved, stalled)
        prefix = int(converged_steps[goes_on].min()) if goes_on.any() else len(norm)
        self._report(prefix)
        return self._advance(iterate, norm, prefix, goes_on) if self.open.any() else None

    def _keep(self, iterate: Iterate) -> None:
        """Put the states of an iterate in their place; or make them the place."""
        if not self.iterating.all():
            self.h[self.start : self.stop, arrays.positions(self.iterating, self.h)] = iterate.h
        elif iterate.fused and iterate.h.shape == self.h.shape:  # and nothing remembers them
            self.h = iterate.h
        else:
            self.h[self.start : self.stop] = iterate.h

    def _track(self, converged_steps: Array) -> None:
        """Note which sequences of a window made progress; without one the count never restarts."""
        if self.window is None:
            return
        reached = self.reached.copy()
        reached[self.iterating] = self.start + converged_steps
        self.moved_at[reached > self.reached] = self.n_iter
        self.reached = np.maximum(self.reached, reached)

    def _close(self, norm: Array, solved: Array, stalled: Array) -> Array:
        """Give a status to each sequence that ends here; return which go on iterating."""
        none = np.zeros_like(solved)
        spent = self.n_iter - self.moved_at[self.iterating] >= self.stopping.max_iter
        # Later steps of a window may overflow: they are repaired as it moves.
        judged = self.norm[self.iterating] if self.window is None else arrays.on_host(norm[0])
        finite = np.isfinite(judged)
        ends = {
            Status.CONVERGED: solved if self.stop == len(self.h) else none,
            Status.DIVERGED: ~finite,
            Status.STALLED: stalled & ~solved,
            Status.MAX_ITER: spent & ~solved,
        }
        left = ~none
        for status, sequences in ends.items():
            for b in np.flatnonzero(self.iterating)[sequences & left]:
                self.status[b], self.open[b] = status, False
            left &= ~sequences
        return left & ~solved

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

    def _advance(self, iterate: Iterate, norm: Array, prefix: int, goes_on: Array) -> Iterate:
        """Leave converged prefixes and closed sequences behind; let the window move."""
        if prefix == 0 and goes_on.all():
            return iterate
        if prefix:
            prefix = min(max(prefix - iterate.system.steps_before, 0), len(norm))  # of this slab
            behind = np.where(self.open, self.norm, 0)
            behind[self.iterating] = arrays.on_host(arrays.greatest(norm[:prefix], axis=0))
            behind = self.system.ranks.greatest(behind)
            self.norm_before = np.maximum(self.norm_before, behind)
        self.iterating[self.iterating] = goes_on

        self.start, old_stop = self.start + prefix, self.stop
        self.stop = min(self.start + (self.window or len(self.h)), len(self.h))
        part = self.system.part(self.h, self.start, old_stop, self.iterating)
        iterate = iterate.restrict(part, slice(prefix, None), goes_on)
        return iterate if self.stop == old_stop else self._extend(iterate, old_stop)

    def _extend(self, iterate: Iterate, old_stop: int) -> Iterate:
        """Let new steps into the window, for all open sequences; methods start afresh in it."""
        if self.hold:
            held = arrays.positions(self.open, self.h)
            self.h[old_stop : self.stop, held] = self.h[old_stop - 1, held]
        known_f = None
        if not iterate.fused:
            same = (self.iterating == self.open).all()
            f = iterate.f if same else self._f(self.start, old_stop)
            known_f = np.concatenate([f, self._f(old_stop, self.stop)])
        self.iterating = self.open.copy()
        h = self.h[self.start : self.stop, arrays.positions(self.open, self.h)]
        return Iterate(
            system=self.system.part(self.h, self.start, self.stop, self.open),
            h=h if iterate.fused else h.copy(),
            known_f=known_f,
            number=iterate.number,
            fused=iterate.fused,
        )

    def _f(self, start: int, stop: int) -> Array:
        part = self.system.part(self.h, start, stop, self.open)
        h = self.h[start:stop, arrays.positions(self.open, self.h)]
        return part.evaluate(part.previous(h))

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


def agreed(
    iterate: Iterate, greatest: Array, converged_steps: Array
) -> tuple[Array, Array, Array, Array]:
    """Return what holds of each sequence over the slabs of all ranks, on the host.

    Parameters
    ----------
    greatest : array, shape (batch,)
        The greatest residual in this slab.
    converged_steps : array, shape (batch,)
        How many steps of this slab meet the tolerance before the first that does not.

    Returns
    -------
    greatest, converged_steps : arrays, shape (batch,)
        Of all slabs as one.
    solved, stalled : boolean arrays, shape (batch,)
        Whether all steps meet the tolerance; whether no slab can go on.
    """
    greatest, converged_steps = arrays.on_host(greatest), arrays.on_host(converged_steps)
    solved = converged_steps == len(iterate.h)
    stalled = np.zeros_like(solved) if iterate.stalled is None else iterate.stalled
    ranks = iterate.system.ranks
    if not ranks.several:
        return greatest, converged_steps, solved, stalled
    unmet = np.where(solved, np.inf, iterate.system.steps_before + converged_steps)
    found = ranks.greatest(np.concatenate([greatest, -unmet, ~stalled]))
    greatest, unmet, goes_on = found.reshape(3, -1)
    return greatest, -unmet, np.isinf(unmet), goes_on == 0


def repaired(iterate: Iterate) -> Iterate:
    """Put the state before the window in the place of states that overflowed.

    The first state of the window depends on no guess, so that every full step makes progress
    unless the recurrence itself overflows there.
    """
    bad = ~np.isfinite(iterate.norm)
    if not bad.any():
        return iterate
    bad &= np.isfinite(iterate.f[0]).all(axis=-1)
    h = np.where(bad[..., None], iterate.system.h0, iterate.h)
    return replace(iterate, h=h, known_f=None, known_pass=None) if bad.any() else iterate
