"""Where sequences start and end, and what that makes of trajectories and derivatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.system import SLAB_BYTES, System
from pararnn_solvers.typing import Array

RESET, PADDED = 1.0, -1.0  # marks; 0 is a step like any other


@dataclass(frozen=True, eq=False)
class Sequences:
    """Where the sequences of a batch start and end, and their recurrence without marks.

    Attributes
    ----------
    recurrence : Recurrence
        The user's.
    columns : int or None
        m, the columns of the user's x; None without x.
    lengths : integers, shape (*batch), or None
        Where the states are; None if no sequence is padded.
    padded, resets : bool, shape (T, *batch, 1), or None
        No step is both.
    real : tuple of int or None
        The index of some sequence that has a step.
    """

    recurrence: Recurrence
    columns: int | None
    lengths: Array | None
    padded: Array | None
    resets: Array | None
    real: tuple[int, ...] | None

    # ---- trajectories

    def hold(self, h: Array, first: Array) -> Array:
        """Let the padding hold each sequence's final state, or `first` of no steps; return h."""
        if self.lengths is None or self.padded is None or not len(h):
            return h
        final = np.take_along_axis(h, self.last, 0)[0]
        final = np.where((self.lengths > 0)[..., None], final, first)
        np.copyto(h, final[None], where=self.padded)
        return h

    @property
    def last(self) -> Array:
        """The positions of last steps (0 of no steps) as an index (1, *batch, 1)."""
        assert self.lengths is not None
        index: Array = np.maximum(self.lengths - 1, 0)[None, ..., None]
        return index

    def blank(self, h: Array) -> Array:
        """Return an array (T, ..., d) that is 0 in the padding; batch axes may be in one."""
        if self.padded is None:
            return h
        inside = h.copy()
        np.copyto(inside, 0, where=self.padded.reshape(*h.shape[:-1], 1))
        return inside

    def release(self, dh: Array) -> tuple[Array, Array]:
        """Return gradients by what was held, moved to the final states and (of no steps) to h_0.

        The transpose of :meth:`hold`.
        """
        tail = np.zeros_like(dh, shape=dh.shape[1:])
        if self.lengths is None or self.padded is None or not len(dh):
            return dh, tail
        slab = len(dh) if arrays.is_device_array(dh) else max(1, SLAB_BYTES // max(1, tail.nbytes))
        for start in range(0, len(dh), slab):
            part = slice(start, start + slab)
            tail += np.where(self.padded[part], dh[part], np.zeros_like(tail)).sum(axis=0)
        ended, some = self.blank(dh), (self.lengths > 0)[..., None]
        final = np.take_along_axis(ended, self.last, 0) + np.where(some, tail, np.zeros_like(tail))
        np.put_along_axis(ended, self.last, final, 0)
        return ended, np.where(some, np.zeros_like(tail), tail)

    # ---- derivatives

    def of_drives(self, dx: Array) -> tuple[Array | None, Any]:
        """Return the gradients by the user's x, a view, and, through the resets, by h_0."""
        m = self.columns or 0
        of_h0 = 0 if self.resets is None else dx[..., m:].sum(axis=0)
        if self.columns is None:
            return None, of_h0
        return dx[..., :m], of_h0

    def through_resets(self, system: System, lam: Array) -> Array:
        """Return ``sum_t A_t^T lam_t`` over the resets, A_t at ``(h_0, x_t)``: a part of dL/dh_0.

        Cost: a linearization at the resets alone.
        """
        if self.resets is None:
            return np.zeros_like(system.h0)
        at = np.nonzero(self.resets[..., 0])
        products = np.zeros_like(lam)
        if len(at[0]):
            h0 = np.broadcast_to(system.h0, lam.shape)[at]
            x = None if self.columns is None else system.x[at][..., : self.columns]  # type: ignore[index]
            blocks = system.apply(self.recurrence.linearize, h0, x)[1]
            products[at] = block_matvec(blocks, lam[at], adjoint=True)
        of_h0: Array = products.sum(axis=0)
        return of_h0

    def unmasked(self, system: System, previous: Array) -> tuple[System, Array]:
        """Return the user's equations, and the states their steps start from.

        Steps in the padding become some step that a sequence made, where everything is defined.
        """
        x = None if self.columns is None else system.x[..., : self.columns]  # type: ignore[index]
        bare = replace(system, recurrence=self.recurrence, x=x, steps=len(previous))
        if self.resets is not None:
            previous = np.where(self.resets, system.h0, previous)
        if self.padded is not None:
            previous = np.where(self.padded, self.filler(system.h0), previous)
        return bare, previous

    def filler(self, values: Array) -> Array:
        """Return values (*batch, size) with those of some sequence for sequences of no steps."""
        if self.lengths is None or self.real is None:
            return values
        return np.where((self.lengths > 0)[..., None], values, values[self.real])

    def change_of_drives(self, system: System, dx: Array | None, dh0: Array | None) -> Array:
        """Return the change of all columns of the drives that a change of x and h_0 is."""
        assert system.x is not None
        change, m = np.zeros_like(system.x), self.columns or 0
        if dx is not None:
            change[..., :m] = self.blank(dx)
        if dh0 is not None and self.resets is not None:
            change[..., m:] = np.where(self.resets, dh0, np.zeros_like(dh0))
        return change

    def first_steps(self, count: int) -> Sequences:
        """Return the same for the first steps alone."""
        padded, resets = (None if a is None else a[:count] for a in (self.padded, self.resets))
        lengths = None if self.lengths is None else np.minimum(self.lengths, count)
        return replace(self, lengths=lengths, padded=padded, resets=resets)

    # ---- marks

    def marks(self, dtype: Any) -> Array:
        """Return 1 at resets, -1 in the padding and 0 elsewhere, shape (T, *batch, 1)."""
        given = self.resets if self.padded is None else self.padded
        assert given is not None
        marks = np.zeros_like(given, dtype=dtype)
        if self.resets is not None:
            np.copyto(marks, RESET, where=self.resets)
        if self.padded is not None:
            np.copyto(marks, PADDED, where=self.padded)
        return marks
