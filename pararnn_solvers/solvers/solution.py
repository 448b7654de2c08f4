"""What a solve returns: the states, how each sequence ended, and how the residual fell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pararnn_solvers import arrays, plotting
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.linear import Scan
from pararnn_solvers.memory import require_blocks, where_arrays_are
from pararnn_solvers.ranks import ALONE, Communication, Ranks
from pararnn_solvers.sequences import Sequences
from pararnn_solvers.solvers.stopping import Status, Stopping, max_norm
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


@dataclass(frozen=True, eq=False)
class Solution:
    """A trajectory and the account of how it was found.

    Attributes
    ----------
    h : array, shape (T, *batch, d)
        The states ``h_1 ... h_T``, where the initial states are: of NumPy, or of CuPy on their
        device. Padding holds the final state of its sequence.
    sequence_status : NumPy array of Status, shape (*batch)
        How each sequence ended.
    residual_norms : NumPy array, shape (n_iter + 1, *batch)
        Greatest residual ``|F_t|`` of each sequence (maximum norm, units of the state), from the
        guess to the returned states. With a moving window: of the steps opened so far.
    n_step_evaluations : int
        How often `step` was applied to one state of one sequence; with tangents counts once.
    system : System
        The equations that were solved. It holds the arrays that were given, not copies: what is
        computed from it later changes if they do (kernels, though, have a copy of theta). With
        lengths or resets: those of a masked recurrence, whose drives have marks beside x.
    method, backend : str
        What solved them, and their linear recurrences.
    scan : callable
        The backend itself.
    stopping : Stopping
        The tolerance that was asked for.
    compiled : bool
        Whether a kernel generated from `step` ran, rather than `step` itself.
    note : str
        What an automatic choice decided, and why.
    sequences : Sequences, optional
        Where sequences start and end, if lengths or resets were given.
    ranks : Ranks
        Those that share the steps. Then `h` is the slab of this rank, `system` its equations, from
        the state that arrives; what describes sequences as a whole is the same on all ranks.
    steps_before : int
        Steps of the ranks before this one.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> sol = prs.solve(step, x, np.zeros(1), 0.5, method='newton')
    >>> sol.success, sol.h.shape, bool(sol.error_bound().max() < 1e-12)
    (True, (50, 1), True)
    """

    h: Array
    sequence_status: Array
    residual_norms: Array
    n_step_evaluations: int
    system: System
    scan: Scan
    stopping: Stopping
    method: str = ""
    backend: str = ""
    compiled: bool = False
    note: str = ""
    sequences: Sequences | None = None
    ranks: Ranks = ALONE
    steps_before: int = 0

    @property
    def final(self) -> Array:
        """The state of each sequence at its own last step, shape (*batch, d); h0 of no steps."""
        return self.h[-1] if len(self.h) else self.system.h0

    @cached_property
    def status(self) -> Status:
        """The status of the sequence that ended worst; CONVERGED means all did."""
        found = set(self.sequence_status.ravel().tolist())
        return next((end for end in reversed(Status) if end in found), Status.CONVERGED)

    @property
    def success(self) -> bool:
        """Whether every sequence can be used as its trajectory."""
        return self.status.success

    @property
    def n_iter(self) -> int:
        """Iterations made for the sequence that took most."""
        return len(self.residual_norms) - 1

    @property
    def communication(self) -> Communication:
        """What this rank has passed to others so far: for the solve, and for what came of it."""
        return self.ranks.communication

    def gather(self, root: int = 0) -> Array | None:
        """Return the whole trajectory, shape (T, *batch, d), on rank `root`; None on the others.

        A NumPy array. All ranks call this together.

        Raises
        ------
        InvalidInput
            On all ranks: `root` is no rank, or not the same on all of them.
        """
        with self.ranks.together():
            return self.ranks.gather(self.h, root)

    @property
    def message(self) -> str:
        """One sentence on how it ended: the worst status, for how many sequences, what to try."""
        ends = self.sequence_status.ravel().tolist()
        status = self.status
        share = f" ({ends.count(status)} of {len(ends)} sequences)" if len(ends) > 1 else ""
        where = self._first_bad() if status is Status.DIVERGED else ""
        remedies = REMEDY_OVER_RANKS if self.ranks.several else REMEDY
        remedy = f"; {remedies[status]}" if status in REMEDY else ""
        note = f". {self.note}" if self.note else ""
        return f"{status.name}: {status.value}{share}{where}{remedy}{note}"

    def _first_bad(self) -> str:
        with where_arrays_are(self.system, "the residual"):
            norm = max_norm(self.system.residual(self.h))
            finite = np.isfinite(norm.reshape(len(norm), math.prod(norm.shape[1:]))).all(axis=1)
            if self.ranks.several and finite.all():
                return "; on another rank"
            first = "first of this rank" if self.ranks.several else "first"
            return f"; {first} at step {self.steps_before + int(finite.argmin()) + 1}"

    def error_bound(self) -> Array:
        """Estimate the distance to the exact trajectory, to first order in the residual.

        Solves ``e_t = |A_t| e_{t-1} + |F_t|``, with the exact blocks and absolute values taken
        entry by entry.

        Returns
        -------
        array, shape (T, *batch, d), in the units of the state

        Notes
        -----
        Cost: two evaluations, one with k tangents, and one linear recurrence.
        """
        with self.ranks.together(), where_arrays_are(self.system, "error_bound"):
            require_blocks(self.system, "error_bound")
            matrix = BlockBidiagonal(self.system.linearize(self.h, reduce=np.abs))
            residual, sequences = np.abs(self.system.residual(self.h)), self.sequences
            if sequences is not None:  # what is held in the padding solves no equation
                residual = sequences.blank(residual)
            with np.errstate(over="ignore"):  # an infinite bound is an answer
                bound = matrix.solve(residual, self.scan)
            if sequences is not None:
                bound = sequences.hold(bound, np.zeros_like(self.system.h0))
            return bound

    def plot(self, ax: Any = None) -> Any:
        """Draw the residual of each sequence against the iteration; return the axes."""
        with where_arrays_are(self.system, "the tolerance"):
            return plotting.plot_convergence(self, ax=ax)

    def rows(self) -> list[tuple[str, str]]:
        """Return what ``print`` shows, as (label, text)."""
        T, *batch, d = self.h.shape
        sequences = f" × {math.prod(batch)} sequences" if batch else ""
        ends = self.sequence_status.ravel().tolist()
        counts = ", ".join(f"{ends.count(s)} {s.name}" for s in Status if s in ends)
        steps = max(1, T * math.prod(batch))
        last = self.residual_norms[-1].max(initial=0.0)
        first = self.residual_norms[0].max(initial=0.0)
        fall = f"{first:.1e} at the guess, {last:.1e} at the end" if self.n_iter else f"{last:.1e}"
        table = [
            ("trajectory", f"{T} steps{sequences} × {d} states, {self.h.dtype}"),
            ("status", counts if len(ends) > 1 else self.status.name),
            ("method", f"{self.method}, backend {self.backend}"),
            ("iterations", str(self.n_iter)),
            ("residual", fall),
            ("evaluations", f"{self.n_step_evaluations / steps:.1f} per step"),
        ]
        if self.ranks.several:
            sent = self.communication
            part = f"{self.ranks.rank} of {self.ranks.size}, from step {self.steps_before + 1}"
            table.append(("rank", f"{part}; {sent.calls} MPI calls, {sent.nbytes} bytes"))
        return table + ([("note", self.note)] if self.note else [])

    def __repr__(self) -> str:
        return "Solution\n" + "\n".join(f"  {label:<12} {text}" for label, text in self.rows())

    def _repr_html_(self) -> str:
        with where_arrays_are(self.system, "the tolerance"):
            return plotting.solution_html(self)


REMEDY = {
    Status.MAX_ITER: "raise max_iter or use windowed(newton(), length)",
    Status.DIVERGED: "use windowed(newton(), length), damped_newton() or method='sequential'",
    Status.STALLED: "loosen atol and rtol, or use windowed(newton(), length)",
}
REMEDY_OVER_RANKS = {
    Status.MAX_ITER: "raise max_iter or use method='sequential'",
    Status.DIVERGED: "use newton(chunk=S) or method='sequential'",
    Status.STALLED: "loosen atol and rtol, or use method='sequential'",
}


def completed(solution: Solution, rest: Solution, left: np.ndarray[Any, Any]) -> Solution:
    """Return a solution some of whose sequences were solved once more, by other means.

    Parameters
    ----------
    rest : Solution
        Of the sequences chosen by `left (batch,)`, on the tally of the whole.
    """
    h, status = solution.h.copy(), solution.sequence_status.copy()
    h[:, arrays.positions(left, h)], status[left] = rest.h, rest.sequence_status
    norms = np.repeat(solution.residual_norms[-1:], rest.n_iter + 1, axis=0)
    norms[:, left] = rest.residual_norms
    return replace(
        solution,
        h=h,
        sequence_status=status,
        residual_norms=np.concatenate([solution.residual_norms, norms[1:]]),
        n_step_evaluations=solution.system.tally.steps,
    )
