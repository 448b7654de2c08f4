"""Lengths and resets as users give them, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.checks import require_one_place
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


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
