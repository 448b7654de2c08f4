"""One iterate of a solver, restricted to the equations that are still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.lazy import cached_property
from pararnn_solvers.solvers.stopping import max_norm
from pararnn_solvers.system import System, kernels_of
from pararnn_solvers.typing import Array


@dataclass(frozen=True)
class Iterate:
    """The current states ``h`` of the open equations, and what a method remembers.

    What has the length of time is where the states are; what has one entry for each sequence
    (`damping`, `stalled`) is on the host.

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
    fused : bool
        Whether a kernel makes a whole Newton iteration in one pass, and with it the norms.
    known_pass : tuple of arrays, optional
        What that kernel returned, where it ran already: the next states; ``|F_t|`` and ``|h_t|``,
        shape (2, T, batch).
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
    fused: bool = False
    known_pass: tuple[Array, Array] | None = None

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

    @cached_property
    def newton_pass(self) -> tuple[Array, Array]:
        """The next Newton iterate; ``|F_t|`` and ``|h_t|`` of this one: by one kernel."""
        if self.known_pass is not None:
            return self.known_pass
        system = self.system
        system.count(self.h)
        found: tuple[Array, Array] = kernels_of(system.program).newton_pass(
            system.program, system.x, system.h0, self.h
        )
        return found

    @cached_property
    def norm(self) -> Array:
        """``|F_t|`` in the maximum norm, shape (T, batch); NaN if any component is."""
        return self.newton_pass[1][0] if self.fused else max_norm(self.residual)

    @property
    def size(self) -> Array:
        """``|h_t|`` in the maximum norm, shape (T, batch)."""
        return self.newton_pass[1][1] if self.fused else max_norm(self.h)

    def newton_step(self) -> Iterate:
        """Return the next iterate of Newton's method, from the kernel."""
        h = self.newton_pass[0]
        return Iterate(self.system, h, number=self.number + 1, fused=True)

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

    def _restricted_pass(
        self, system: System, part_of: Callable[[Array], Array]
    ) -> tuple[Array, Array]:
        moved, norms = self.newton_pass
        moved = np.ascontiguousarray(part_of(moved), like=moved)  # this iterate is left behind
        if len(moved):  # the prefix was left as it is, so that the first open state is f
            x = None if system.x is None else system.x[:1]
            moved[:1] = kernels_of(system.program).evaluate(system.program, system.h0[None], x)
        return moved, np.stack([part_of(norm) for norm in norms])

    def restrict(self, system: System, steps: slice, sequences: Array) -> Iterate:
        """Return this iterate on the equations of `system`, a part of its own."""
        chosen = slice(None) if sequences.all() else arrays.positions(sequences, self.h)

        def time_first(array: Array) -> Array:
            part: Array = array[steps, chosen]
            return part

        def per_sequence(array: Array | None) -> Array | None:
            return None if array is None else array[sequences]

        return replace(
            self,
            system=system,
            h=time_first(self.h),
            known_f=None if self.fused else time_first(self.f),
            known_pass=self._restricted_pass(system, time_first) if self.fused else None,
            blocks=None if self.blocks is None else time_first(self.blocks),
            previous=self.previous and self.previous.restrict(system, steps, sequences),
            history=tuple(time_first(array) for array in self.history),
            damping=per_sequence(self.damping),
            stalled=per_sequence(self.stalled),
        )


def sequence_norm(v: Array) -> Array:
    """Return the Euclidean norm of each sequence, shape (batch,), without overflow on the way.

    On the host.
    """
    scale = arrays.greatest(np.abs(v), axis=(0, 2))
    safe = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    return arrays.on_host(np.sqrt(np.square(v / safe[:, None]).sum(axis=(0, 2))) * safe)
