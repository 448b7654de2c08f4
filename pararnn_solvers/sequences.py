"""Sequences as people have them: padded to one length, or packed one after another.

A masked recurrence is itself a recurrence. Marks ride along with the drives, as further columns,
and `step` selects by them: a state returns to its start before a step that is marked as a reset,
and is 0 in the padding. There nothing is carried on, so that every method solves a padded batch as
it solves its sequences alone; afterwards the padding is made to hold each sequence's final state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.checks import require_one_place
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.recurrence import Recurrence, as_blocks
from pararnn_solvers.system import SLAB_BYTES, System
from pararnn_solvers.typing import Array

__all__ = ["Sequences", "masked", "reversed_within"]

SHARED_FROM = 1 << 22  # bytes of drives that threads copy together
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

    def unmasked(self, system: System, previous: Array, lam: Array) -> tuple[System, Array, Array]:
        """Return the user's equations, the states their steps start from, and lam, 0 in padding.

        Steps in the padding become some step that a sequence made, where everything is defined.
        """
        x = None if self.columns is None else system.x[..., : self.columns]  # type: ignore[index]
        bare = replace(system, recurrence=self.recurrence, x=x, steps=len(lam))
        if self.resets is not None:
            previous = np.where(self.resets, system.h0, previous)
        if self.padded is not None:
            previous = np.where(self.padded, self.filler(system.h0), previous)
        return bare, previous, self.blank(lam)

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

    # ---- equations

    def with_shared_marks(self, flat: System) -> System | None:
        """Return the same equations with a mark of one column and the start in theta, if possible.

        Drives that are no whole number of columns for each channel enter kernels as numbers for
        all channels, and a start beside them could not be one for each channel. Possible where all
        sequences start from the same state.

        Parameters
        ----------
        flat : System
            Of :func:`masked`, with one batch axis.
        """
        h0 = flat.h0
        if self.resets is None or self.columns is None or not len(h0):
            return None
        if not bool((h0 == h0[:1]).all()):
            return None
        m, n = self.columns, channels(self.recurrence, h0.shape[-1])
        width = 1 + (n > 1 and (m + 1) % n == 0)
        assert flat.x is not None
        marks = self.marks(h0.dtype).reshape(*flat.x.shape[:-1], 1)
        x = _with_columns(flat.x[..., :m], marks, width)
        step = _started(_marked(self.recurrence.step, m, 1, 1), self.recurrence.step, m)
        recurrence = Recurrence(step, self.recurrence.block_size)
        return replace(flat, recurrence=recurrence, x=x, theta=(flat.theta, h0[0]))

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


def masked(system: System, lengths: Any, resets: Any) -> tuple[System, Sequences | None]:
    """Return equations whose steps mind lengths and resets, and what relates them to the user's.

    Parameters
    ----------
    system : System
        The user's, with all its batch axes.
    lengths : integers, shape (*batch), or None
    resets : bool, shape (T, *batch), or None

    Raises
    ------
    InvalidInput
        A length is no integer between 0 and T, resets are no flags, or they have another shape or
        are in another place.

    Notes
    -----
    Cost: a copy of x with d further columns where there are resets, and otherwise as many as there
    are channels if x has a whole number of columns for each (one if not).
    """
    with arrays.device_of(system.h0):
        counts = None if lengths is None else check_lengths(lengths, system.shape, system.h0)
        flags = None if resets is None else check_resets(resets, system)
        host = None if counts is None else arrays.on_host(counts)
        if host is None or bool((host == len_of(system)).all()):
            counts = host = None
        if counts is None and flags is None:
            return system, None
        sequences = sequences_of(system, counts, host, flags)
        return with_marks(system, sequences), sequences


def sequences_of(system: System, counts: Any, host: Any, flags: Any) -> Sequences:
    """Return the masks of checked lengths (here and on the host) and flags."""
    columns = None if system.x is None else system.x.shape[-1]
    padded, real = None, (0,) * (system.h0.ndim - 1)
    if counts is not None:
        steps = arrays.namespace(system.h0).arange(len_of(system))
        padded = (steps.reshape(-1, *[1] * counts.ndim) >= counts)[..., None]
        found = np.unravel_index(int((host > 0).argmax()), host.shape) if host.any() else None
        real = None if found is None else tuple(int(i) for i in found)  # type: ignore[assignment]
    if flags is not None:
        flags = flags[..., None] if padded is None else flags[..., None] & ~padded
    return Sequences(system.recurrence, columns, counts, padded, flags, real)


def with_marks(system: System, sequences: Sequences) -> System:
    """Return the equations with marks beside the drives, and the recurrence that reads them."""
    inner, d, m = system.recurrence, system.h0.shape[-1], sequences.columns
    marks = sequences.marks(system.h0.dtype)
    n, first = channels(inner, d), m or 0
    if sequences.resets is not None:
        go_on = far(system.h0.dtype)
        require_near(system.h0, go_on / 2)
        columns = np.where(sequences.resets, system.h0, marks * go_on)
        np.copyto(columns, go_on, where=marks == 0)
        width, step = d, _returning(inner.step, m, go_on / 2, sequences.padded is not None)
    else:
        per_channel = m is not None and m % n == 0
        columns, width = marks, n if per_channel else 1 + (n > 1 and (first + 1) % n == 0)
        read = n if per_channel else 1
        step = _marked(inner.step, m, read, d // n if read > 1 else 1)
    x = system.x
    if x is None:
        x = np.empty_like(marks, shape=(*marks.shape[:-1], 0))
    x = _with_columns(x, columns, width)
    if m and sequences.padded is not None and len(x):
        filler = sequences.filler(x[0, ..., :m])
        if sequences.real is None:
            filler = np.zeros_like(filler)
        np.copyto(x[..., :m], filler[None], where=sequences.padded)
    jacobian = inner.jacobian
    if callable(jacobian):
        jacobian = _masked_jacobian(jacobian, sequences, d)
    recurrence = Recurrence(step, inner.block_size, jacobian)
    return replace(system, recurrence=recurrence, x=x, steps=None)


def channels(recurrence: Recurrence, d: int) -> int:
    """Return the channels of which a trace sees x have a number of columns, or not.

    Where nothing is declared these are all entries: those between matrix products.
    """
    return d if recurrence.block_size is None else recurrence.structure(d)[1]


def far(dtype: Any) -> float:
    """Return what stands for no start: finite, and beyond any state."""
    return float(np.ldexp(1.0, np.finfo(dtype).maxexp - 28))


def require_near(h0: Array, bound: float) -> None:
    """Raise InvalidInput if a start is so great that it would be read as a mark."""
    if h0.size and float(np.abs(h0).max()) >= bound:
        raise InvalidInput(
            f"h0 has entries of {float(np.abs(h0).max()):.1e}; with resets, expected less than "
            f"{bound:.1e}, beyond which {h0.dtype} stands for marks"
        )


def _with_columns(x: Array, columns: Array, width: int) -> Array:
    """Return x with further columns, repeated to a width."""
    m = x.shape[-1]
    shape = (*x.shape[:-1], m + width)
    if arrays.is_device_array(columns):
        joined = np.empty_like(columns, shape=shape, order="C")
    else:
        joined = alignment.empty(shape, columns.dtype)

    def fill(part: slice) -> None:
        joined[part][..., :m] = x[part]
        joined[part][..., m:] = columns[part]

    if arrays.is_device_array(columns) or joined.nbytes < SHARED_FROM:
        fill(slice(None))
    else:  # as long as a kernel's own pass
        cuts = np.linspace(0, len(x), threads.num_threads() + 1).astype(int).tolist()
        parts = zip(cuts, cuts[1:], strict=False)
        threads.run([partial(fill, slice(start, stop)) for start, stop in parts])
    return joined


# ---- steps with marks, whose closures hold functions and numbers only: equal ones are then known
# again once they have been compiled.


def _returning(
    step: Callable[..., Any], m: int | None, near: float, ends: bool
) -> Callable[..., Any]:
    """Return the step that begins at the start beside the drives, where there is one."""
    first = m or 0

    def returning(h: Any, u: Any, theta: Any) -> Any:
        start = u[..., first:]
        h = np.where(np.abs(start) < near, start, h)
        return step(h, None if m is None else u[..., :m], theta)

    def returning_and_ending(h: Any, u: Any, theta: Any) -> Any:
        f = returning(h, u, theta)
        return np.where(u[..., first:] > -near, f, np.zeros_like(h))

    return returning_and_ending if ends else returning


def _marked(step: Callable[..., Any], m: int | None, width: int, copies: int) -> Callable[..., Any]:
    """Return the step that is 0 where the first `width` columns beside the drives say padding."""
    first = m or 0

    def ending(h: Any, u: Any, theta: Any) -> Any:
        mark = u[..., first : first + width]
        if copies > 1:
            mark = np.concatenate([mark] * copies, axis=-1)
        f = step(h, None if m is None else u[..., :m], theta)
        return np.where(mark > PADDED / 2, f, np.zeros_like(h))

    return ending


def _started(ending: Callable[..., Any], step: Callable[..., Any], m: int) -> Callable[..., Any]:
    """Return the marked step that begins at ``theta[1]`` where the mark says so."""

    def started(h: Any, u: Any, theta: Any) -> Any:
        theta, start = theta
        h = np.where(u[..., m : m + 1] > RESET / 2, start, h)
        return ending(h, u, theta)

    return started


def _masked_jacobian(
    jacobian: Callable[..., Any], sequences: Sequences, d: int
) -> Callable[..., Any]:
    """Return the user's Jacobian as blocks that are 0 where the state before has no effect."""
    m, first, restarts = sequences.columns, sequences.columns or 0, sequences.resets is not None

    def blocks(h: Any, u: Any, theta: Any) -> Any:
        column = u[..., first : first + 1]
        carries = column > PADDED / 2
        if restarts:
            near = far(h.dtype) / 2
            carries = column > near
            start = u[..., first:]
            h = np.where(np.abs(start) < near, start, h)
        found = as_blocks(jacobian(h, None if m is None else u[..., :m], theta), h)
        return np.where(carries[..., None, None], found, np.zeros_like(found))

    return blocks


# ---- arguments


def len_of(system: System) -> int:
    """Return T."""
    return system.shape[0]


def check_lengths(lengths: Any, shape: tuple[int, ...], like: Array) -> Array:
    """Return lengths of sequences, shape (*batch), after checking them; where `like` is.

    Parameters
    ----------
    shape : tuple of int
        (T, *batch, ...).
    """
    lengths = arrays.from_any(lengths)
    T, batch = shape[0], tuple(shape[1:-1])
    require_one_place({"lengths": lengths, "x and h0": like})
    if lengths.dtype.kind not in "iu" and lengths.size:
        raise InvalidInput(
            f"lengths are {lengths.dtype}; expected integers: pass lengths.astype(np.int64)"
        )
    if lengths.shape != batch:
        raise InvalidInput(
            f"lengths have shape {lengths.shape}; expected the batch axes, shape {batch}"
        )
    host = arrays.on_host(lengths)
    wrong = (host < 0) | (host > T)
    if wrong.any():
        at = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), batch))
        name = f"lengths[{', '.join(map(str, at))}]" if at else "lengths"
        raise InvalidInput(f"{name} is {int(host[at])}; expected a length between 0 and T = {T}")
    checked: Array = arrays.beside(host.astype(np.int64), like)
    return checked


def check_resets(resets: Any, system: System) -> Array:
    """Return flags of shape (T, *batch), after checking them."""
    resets = arrays.from_any(resets)
    require_one_place({"resets": resets, "x and h0": system.h0})
    if resets.dtype != bool:
        raise InvalidInput(f"resets are {resets.dtype}; expected bool: pass resets.astype(bool)")
    if resets.shape != system.shape[:-1]:
        raise InvalidInput(
            f"resets have shape {resets.shape}; expected (T, *batch), a flag for each step of each "
            f"sequence: {system.shape[:-1]}"
        )
    checked: Array = arrays.beside(resets, system.h0)
    return checked


def reversed_within(x: Any, lengths: Any = None) -> Array:
    """Return sequences reversed in time, each within its length; the padding stays where it is.

    For the backward direction of a bidirectional recurrence. It is its own inverse, and its own
    transpose: gradients go back through it by ``reversed_within(dx, lengths)``.

    Parameters
    ----------
    x : array, shape (T, *batch, ...)
        Inputs or states, of NumPy or CuPy, or anything with DLPack.
    lengths : integers, shape (*batch), optional
        None reverses all T steps. Where x is.

    Returns
    -------
    array, shape of x
        A copy.

    Raises
    ------
    InvalidInput
        As :func:`~pararnn_solvers.solve` with these lengths.

    Examples
    --------
    >>> x = np.array([[1, 4], [2, 5], [3, 0]])
    >>> reversed_within(x, [3, 2])
    array([[3, 5],
           [2, 4],
           [1, 0]])

    Both directions of a padded batch, side by side::

        ahead = solve(cell, x, h0, theta, lengths=lengths)
        back = solve(cell, reversed_within(x, lengths), h0, theta, lengths=lengths)
        y = np.concatenate([ahead.h, reversed_within(back.h, lengths)], axis=-1)
        last = np.concatenate([ahead.final, back.final], axis=-1)
    """
    x = arrays.from_any(x)
    if x.ndim == 0:
        raise InvalidInput("x is a scalar; expected shape (T, *batch, ...)")
    with arrays.device_of(x):
        if lengths is None:
            return np.ascontiguousarray(x[::-1], like=x)
        lengths = arrays.from_any(lengths)
        shape = (*x.shape[: lengths.ndim + 1], 0)
        counts = check_lengths(lengths, shape, x)
        t = arrays.namespace(x).arange(len(x)).reshape(-1, *[1] * counts.ndim)
        source = np.where(t < counts, counts - 1 - t, t)
        source = source.reshape(*source.shape, *[1] * (x.ndim - source.ndim))
        return np.take_along_axis(x, source, 0)
