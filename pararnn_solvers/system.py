"""The whole trajectory as one system of equations F(h) = 0.

``F(h)_t = h_t - f(h_{t-1}, x_t; theta)`` for t = 1 ... T, with h_0 given.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matmul
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.lazy import cached_property
from pararnn_solvers.linear import alignment
from pararnn_solvers.ranks import ALONE, Ranks
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

# States (or tangents) of this many bytes stay in a core's cache, with the temporaries of `step`.
SLAB_BYTES = 1 << 19
# On a device they have to occupy it, and be few: each slab costs a launch for each operation.
DEVICE_SLAB_BYTES = 1 << 27


@dataclass
class Tally:
    """How often `step` was applied to one state of one sequence; whether something is amiss.

    `suspect`: a kernel came across a drive or a state that may not be finite.
    """

    steps: int = 0
    suspect: bool = False


@dataclass(frozen=True)
class System:
    """The equations ``F(h) = 0`` of one recurrence, its inputs and its initial states.

    Parameters
    ----------
    recurrence : Recurrence
    x : array, shape (T, *batch, m), or None
        Inputs, time first, of NumPy or CuPy. None for an autonomous recurrence, which needs
        `steps`.
    h0 : array, shape (*batch, d)
        Where it is, everything of the size of a trajectory is computed and stays.
    theta : nested containers of arrays, or None
        Shared by all steps and sequences.
    steps : int, optional
        T where x is None.
    stride : int
        How many steps of the user's recurrence one step of this system is.
    tally : Tally
        Counts evaluations; the parts of a system count on the tally of the whole.
    program : Program, optional
        `recurrence.step` as compiled kernels, which then run in its place.
    dense : DenseProgram, optional
        Where channels couple by matrix products: kernels for rollout and multiple shooting only.
    ranks : Ranks
        The processes that have a slab of time each, this system being the slab of this one. Then
        `h0` is the state before the first step of all; and `previous`, what is made of it, `part`
        and `steps_before` are called by all ranks together.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> recurrence = prs.Recurrence(lambda h, x, a: a * h + x)
    >>> system = prs.System(recurrence, np.ones((3, 1)), np.zeros(1), 0.5)
    >>> system.residual(np.array([[1.0], [1.5], [0.0]])).ravel()
    array([ 0.  ,  0.  , -1.75])
    """

    recurrence: Recurrence
    x: Array | None
    h0: Array
    theta: Any = None
    steps: int | None = None
    stride: int = 1
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)
    program: Any = field(default=None, repr=False, compare=False)
    dense: Any = field(default=None, repr=False, compare=False)
    ranks: Ranks = field(default=ALONE, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a trajectory, (T, *batch, d)."""
        length = self.steps if self.x is None else self.x.shape[0]
        assert length is not None  # validated by the callers of System
        return (length, *self.h0.shape)

    @property
    def is_compiled(self) -> bool:
        """Whether there are kernels for rollout and multiple shooting."""
        return self.program is not None or self.dense is not None

    @cached_property
    def steps_before(self) -> int:
        """How many steps the slabs of the ranks before this one have."""
        return self.ranks.steps_before(self.shape[0])

    @cached_property
    def steps_in_all(self) -> int:
        """How many steps the slabs of all ranks have."""
        return int(self.ranks.total(np.array([self.shape[0]], np.int64))[0])

    def alone(self, h0: Array) -> System:
        """Return the equations of this slab by themselves, from the state before its first step."""
        return replace(self, h0=h0, ranks=ALONE)

    def empty(self) -> Array:
        """Return memory for a trajectory, where ``h0`` is."""
        if arrays.is_device_array(self.h0):
            return np.empty_like(self.h0, order="C", shape=self.shape)
        return alignment.empty(self.shape, self.h0.dtype)

    def previous(self, h: Array) -> Array:
        """Return the trajectory one step earlier: ``h_0, h_1 ... h_{T-1}``."""
        before = self.ranks.state_before(h, self.h0)
        return np.concatenate([before[None], h[:-1]])[: len(h)]  # none of them for T = 0

    def evaluate(self, previous: Array) -> Array:
        """Return ``f(h_{t-1}, x_t)`` at all steps at once, checked for shape and dtype."""
        if self.program is not None:
            self.count(previous)
            f = kernels_of(self.program).evaluate(self.program, previous, self.x)
            return cast(Array, f)
        f = np.empty_like(previous)
        for part in self.slabs(1):
            x = None if self.x is None else self.x[part]
            f[part] = checked(self.apply(self.recurrence.step, previous[part], x), previous[part])
        return f

    def apply(self, function: Callable[..., Any], previous: Array, x: Array | None) -> Any:
        """Call ``function(previous, x, theta)`` on read-only views, and count it."""
        self.count(previous)
        # An overflow of an iterate ends in a status, not a warning.
        with np.errstate(all="ignore"), arrays.no_host_arrays(previous):
            return function(read_only(previous), read_only(x), self.theta)

    def count(self, states: Array) -> None:
        """Add an evaluation of each of these states to the tally."""
        self.tally.steps += self.stride * math.prod(states.shape[:-1])

    def residual(self, h: Array) -> Array:
        """Return ``F(h)``, shape (T, *batch, d). Cost: one evaluation of every step."""
        f = self.evaluate(self.previous(h))
        with np.errstate(invalid="ignore"):  # inf - inf
            return h - f

    def linearize(
        self, h: Array, reduce: Callable[[Array], Array] = lambda blocks: blocks
    ) -> Array:
        """Return the blocks ``A_t = df/dh`` at ``(h_{t-1}, x_t)``.

        Parameters
        ----------
        h : array, shape (T, *batch, d)
        reduce : callable, optional
            Applied to the blocks of a few steps at a time, so that what it discards (all but a
            diagonal, say) is never held for the whole trajectory.

        Returns
        -------
        array, shape (T, *batch, k, k, n)

        Notes
        -----
        Cost: one evaluation with k tangents; memory beside the result about ``SLAB_BYTES``.
        """
        previous = self.previous(h)
        k, n = self.recurrence.structure(h.shape[-1])
        blocks = None
        for part in self.slabs(k):
            x = None if self.x is None else self.x[part]
            if self.program is not None:
                self.count(previous[part])
                A = kernels_of(self.program).linearize(self.program, previous[part], x)[1]
            else:
                f, A = self.apply(self.recurrence.linearize, previous[part], x)
                checked(f, previous[part])
            A = reduce(A)
            if blocks is None:
                blocks = np.empty_like(A, order="C", shape=(len(h), *A.shape[1:]))
            blocks[part] = A
        if blocks is None:  # there are no steps
            blocks = reduce(np.empty_like(h, order="C", shape=(*h.shape[:-1], k, k, n)))
        return blocks

    def slabs(self, directions: int) -> Iterator[slice]:
        """Cut time in slabs whose tangents fit ``SLAB_BYTES``, but of 16 steps at least.

        On a device, ``DEVICE_SLAB_BYTES``.

        Products that do not depend on the step, such as of the directions with a matrix, are made
        once for each slab.
        """
        length, *state = self.shape
        row = max(1, math.prod(state) * directions * self.h0.dtype.itemsize)
        room = DEVICE_SLAB_BYTES if arrays.is_device_array(self.h0) else SLAB_BYTES
        slab = max(16, room // row)
        return (slice(start, min(start + slab, length)) for start in range(0, length, slab))

    def part(self, h: Array, start: int, stop: int, sequences: Array | None = None) -> System:
        """Return the equations of some sequences, or all, for steps ``start ... stop - 1``.

        Parameters
        ----------
        h : array, shape (T, batch, d)
            The state before `start` is taken from here.
        sequences : boolean array, shape (batch,), on the host, optional
        """
        before = self.ranks.state_before(h[:start], self.h0)
        h0 = before if start == 0 else h[start - 1]
        x = None if self.x is None else self.x[start:stop]
        if sequences is not None and not sequences.all():
            chosen = arrays.positions(sequences, h0)
            h0 = h0[chosen]
            x = None if x is None else x[:, chosen]
        return replace(self, x=x, h0=h0, steps=stop - start)

    def condense(self, chunk: int) -> System:
        """Return the system of multiple shooting: unknowns only at the ends of whole chunks.

        The recurrence is composed with itself over `chunk` steps, ``Phi = f o ... o f``, and its
        tangent ``G = A_S ... A_1`` is the product of the blocks. The last chunk, whole or not, ends
        in no unknown; of a slab that others follow it has to be whole, and does.

        Source: Bock & Plitt (1984); Gander & Vandewalle (2007).
        """
        ends_here = self.steps_before + self.shape[0] == self.steps_in_all
        whole = max(0, self.shape[0] - ends_here) // chunk
        x = None
        if self.x is not None:
            chunks = self.x[: whole * chunk].reshape(whole, chunk, *self.x.shape[1:])
            x = np.moveaxis(chunks, 1, self.h0.ndim)  # (P, *batch, S, m)
        composed = compose(self.recurrence, chunk)
        stride = self.stride * chunk
        whole_chunks = replace(self, recurrence=composed, x=x, steps=whole, stride=stride)
        return replace(whole_chunks, program=None, dense=None)  # they are of a single step


def kernels_of(program: Any) -> Any:
    """Import the module that runs a program, when there is one to run."""
    return importlib.import_module(program.kernels)


def fuses(system: System) -> bool:
    """Tell whether a kernel makes Newton iterations in one pass."""
    program = system.program
    if program is None or system.ranks.several or 0 in system.shape:
        return False
    return bool(kernels_of(program).iterates(program))


def compose(recurrence: Recurrence, chunk: int) -> Recurrence:
    """Return the recurrence over `chunk` steps at once; its input gains an axis, (..., S, m)."""

    def inputs(x: Array | None) -> list[Any]:
        return [None if x is None else x[..., s, :] for s in range(chunk)]

    def step(h: Any, x: Array | None, theta: Any) -> Any:
        for x_s in inputs(x):
            h = recurrence.step(h, x_s, theta)
        return h

    def chain_rule(h: Array, x: Array | None, theta: Any) -> Array:
        first, *rest = inputs(x)
        h, G = recurrence.linearize(h, first, theta)
        for x_s in rest:
            h, A = recurrence.linearize(h, x_s, theta)
            G = block_matmul(A, G)
        return G

    jacobian = chain_rule if callable(recurrence.jacobian) else recurrence.jacobian
    return Recurrence(step, recurrence.block_size, jacobian)


def read_only(array: Any) -> Any:
    """View an array so that a `step` that writes into its input fails where it writes."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def checked(f: Any, previous: Array) -> Array:
    """Return what `step` returned if it is a state for each state it was given."""
    shape, dtype = getattr(f, "shape", None), getattr(f, "dtype", None)
    if type(f) is not type(previous) and arrays.place(f) not in ("", arrays.place(previous)):
        raise InvalidInput(
            f"step returned an array on {arrays.place(f)} for states on {arrays.place(previous)}; "
            "expected the same place: make arrays in step by np.zeros_like(h) and its kind, and "
            "pass others as theta"
        )
    if shape != previous.shape:
        raise InvalidInput(
            f"step returned shape {shape} for states of shape {previous.shape}; expected the same "
            "shape: step must keep all leading axes and return d components"
        )
    if dtype != previous.dtype:
        raise InvalidInput(
            f"step returned {dtype} for states in {previous.dtype}; expected the same dtype: "
            "cast theta and constants to it"
        )
    result: Array = f
    return result
