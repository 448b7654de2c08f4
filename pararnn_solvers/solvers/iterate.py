"""One iterate of a solver, restricted to the equations that are still open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


@dataclass(frozen=True)
class Iterate:
    """The current states ``h`` of the open equations, and what a method remembers.

    Parameters
    ----------
    system : System
        The open equations: some sequences, from the first step that is not yet converged.
    h : array, shape (T, batch, d)
        The states.
    known_f : array, shape (T, batch, d), optional
        ``f(h_{t-1}, x_t)`` of the states before them, where it is known already.
    number : int
        How many iterations led here.
    blocks : array, shape (T, batch, k, k, n), optional
        The latest linearization.
    previous : Iterate, optional
        The states h and f one iteration earlier.
    history : tuple of arrays, each (T, batch, ...)
        What an acceleration remembers.
    damping : array, shape (batch,), optional
        The Levenberg-Marquardt parameter of each sequence.
    stalled : boolean array, shape (batch,), optional
        Sequences for which no acceptable step was found.
    """

    system: System
    h: Array
    known_f: Array | None = None
    number: int = 0
    blocks: Array | None = None
    previous: Iterate | None = None
    history: tuple[Array, ...] = ()
    damping: Array | None = None
    stalled: Array | None = None

    @property
    def matrix(self) -> BlockBidiagonal:
        """The matrix ``I - S A`` of this iterate's linearization."""
        assert self.blocks is not None
        return BlockBidiagonal(self.blocks)

    @cached_property
    def f(self) -> Array:
        """``f(h_{t-1}, x_t)``, evaluated when it is first asked for."""
        known = self.known_f
        return self.system.evaluate(self.system.previous(self.h)) if known is None else known

    @cached_property
    def residual(self) -> Array:
        """``F(h) = h - f``."""
        with np.errstate(over="ignore", invalid="ignore"):  # inf - inf
            return self.h - self.f

    def linearized(self, blocks: Array) -> Iterate:
        """Return this iterate with the blocks by which it will be left."""
        return replace(self, known_f=self.f, blocks=blocks)

    def moved(self, h: Array, f: Array | None = None, **changes: Any) -> Iterate:
        """Return the next iterate, at states h, with f there if it is known."""
        return replace(
            self,
            h=h,
            known_f=f,
            number=self.number + 1,
            previous=replace(self, known_f=self.f, blocks=None, previous=None, history=()),
            **changes,
        )

    def restrict(self, system: System, steps: slice, sequences: Array) -> Iterate:
        """Return this iterate on the equations of `system`, a part of its own."""

        def time_first(array: Array) -> Array:
            return array[steps] if sequences.all() else array[steps, sequences]

        def per_sequence(array: Array | None) -> Array | None:
            return None if array is None else array[sequences]

        return replace(
            self,
            system=system,
            h=time_first(self.h),
            known_f=time_first(self.f),
            blocks=None if self.blocks is None else time_first(self.blocks),
            previous=self.previous and self.previous.restrict(system, steps, sequences),
            history=tuple(time_first(array) for array in self.history),
            damping=per_sequence(self.damping),
            stalled=per_sequence(self.stalled),
        )


def sequence_norm(v: Array) -> Array:
    """Return the Euclidean norm of each sequence, shape (batch,), without overflow on the way."""
    scale = np.abs(v).max(axis=(0, 2), initial=0.0)
    safe = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    norm: Array = np.sqrt(np.square(v / safe[:, None]).sum(axis=(0, 2))) * safe
    return norm
