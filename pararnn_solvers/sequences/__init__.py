"""Sequences as people have them: padded to one length, or packed one after another.

A masked recurrence is itself a recurrence. Marks ride along with the drives, as further columns,
and `step` selects by them: a state returns to its start before a step that is marked as a reset,
and is 0 in the padding. There nothing is carried on, so that every method solves a padded batch as
it solves its sequences alone; afterwards the padding is made to hold each sequence's final state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.sequences.arguments import check_lengths, check_resets
from pararnn_solvers.sequences.marks import with_marks, with_shared_marks
from pararnn_solvers.sequences.masks import Sequences
from pararnn_solvers.sequences.reversal import reversed_within
from pararnn_solvers.system import System

__all__ = ["Sequences", "masked", "reversed_within", "with_shared_marks"]


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
        if host is None or bool((host == system.shape[0]).all()):
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
        steps = arrays.namespace(system.h0).arange(system.shape[0])
        padded = (steps.reshape(-1, *[1] * counts.ndim) >= counts)[..., None]
        found = np.unravel_index(int((host > 0).argmax()), host.shape) if host.any() else None
        real = None if found is None else tuple(int(i) for i in found)  # type: ignore[assignment]
    if flags is not None:
        flags = flags[..., None] if padded is None else flags[..., None] & ~padded
    return Sequences(system.recurrence, columns, counts, padded, flags, real)
