"""Checks of the declared structure: which components of which channels couple."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers.testing.context import SAMPLES, Context, number, place
from pararnn_solvers.testing.oracles import EPS
from pararnn_solvers.testing.results import CheckFailed, Inapplicable
from pararnn_solvers.typing import Array


def couplings(context: Context) -> Array:
    """Tell which df_i/dh_j (d, d) are not zero somewhere near the trajectory."""
    largest = np.max(np.abs(context.jacobian), axis=(0, 1))
    noise = np.maximum(context.oracles.noise.T, EPS**0.75 * float(largest.max()))
    return np.asarray(largest > noise)


def allowed(k: int, d: int) -> Array:
    """Tell which entries (d, d) a block size allows: those within a channel."""
    channel = np.arange(d) % (d // k)
    return np.asarray(channel[:, None] == channel)


def smallest_block_size(coupled: Array) -> int:
    """Return the least k for which channels do not couple."""
    d = len(coupled)
    sizes = [k for k in range(1, d + 1) if d % k == 0]
    return next(k for k in sizes if not np.any(coupled & ~allowed(k, d)))


def block_size_is_the_structure(context: Context) -> str | None:
    """Channels do not couple beyond the declared block_size.

    Proves: at 15 states near the trajectory every df_i/dh_j outside the blocks is zero. If a
    smaller block_size would do, the check passes and its message says which.

    Costs: the oracles' Jacobian (made once for all checks): 7 d + 3 calls of step.

    A failure means: block_size is too small, or the state is not component-major (``[c | y]``, with
    channel j of component i at ``i*n + j``); solvers then use a Jacobian that is not that of step.
    """
    d = context.size
    k, n = context.recurrence.structure(d)
    coupled = couplings(context)
    smallest = smallest_block_size(coupled)
    outside = coupled & ~allowed(k, d)
    if outside.any():
        i, j = (int(v) for v in np.argwhere(outside)[0])
        entry = context.jacobian[..., i, j]
        at = np.unravel_index(int(np.argmax(np.abs(entry))), entry.shape)
        where = tuple(int(v) for v in at)
        raise CheckFailed(
            f"with block_size={k}, h_i depends on h_j only where i and j are equal modulo n = {n}",
            f"df_{i}/dh_{j} is {number(entry[where])}, expected 0{place(where, 'step sequence')}; "
            f"components {i} and {j} are in channels {i % n} and {j % n}",
            *remedy(coupled, k, smallest),
        )
    if smallest < k and context.recurrence.block_size is not None:
        return f"block_size={smallest} would do in place of {k}: less memory and arithmetic"
    if smallest < d and context.recurrence.block_size is None:
        return f"declare block_size={smallest}: memory O(T d) in place of O(T d^2)"
    return None


def remedy(coupled: Array, k: int, smallest: int) -> tuple[str, str]:
    """Suggest the right block size, or the right layout; and name the defect."""
    d = len(coupled)
    order = np.arange(d).reshape(d // k, k).T.ravel()
    if not np.any(coupled[np.ix_(order, order)] & ~allowed(k, d)):
        return (
            "lay it out component-major, h.reshape(..., k, n)",
            f"the state is channel-major: the {k} components of a channel lie side by side",
        )
    defect = f"block_size={k} is too small"
    if smallest == d:
        return "leave block_size out", f"{defect}: all channels couple"
    return f"declare block_size={smallest}, the smallest that fits", defect


def nan_stays_in_its_channel(context: Context) -> None:
    """A NaN in one channel of a state reaches no other channel.

    Proves: with all components of one channel NaN, the results in the other channels are the same
    bits, for each channel of at most 8.

    Costs: 9 calls of step on 15 states.

    A failure means: channels are multiplied by the zeros of a matrix (``h @ np.diag(a)``), or by
    masks; they do not couple on paper, but one overflow spoils all of them.
    """
    k, n = context.recurrence.structure(context.size)
    if n == 1:
        raise Inapplicable("one channel: all components may couple")
    h, x = context.sampled(SAMPLES)
    before = context.call(h.copy(), x).reshape(*SAMPLES, k, n)
    for channel in range(min(n, 8)):
        spoiled = h.copy()
        spoiled.reshape(*SAMPLES, k, n)[..., channel] = np.nan
        after = context.call(spoiled, x).reshape(*SAMPLES, k, n)
        lost = np.isnan(after) & ~np.isnan(before)
        lost[..., channel] = False
        if lost.any():
            t, b, i, c = (int(v) for v in np.argwhere(lost)[0])
            raise CheckFailed(
                "a NaN in one channel of h stays in that channel",
                f"h is NaN in channel {channel}; channel {c} becomes nan, and was "
                f"{number(before[t, b, i, c])}{place((t, b, i * n + c))}",
                "multiply channel by channel (a * h), not by a matrix with zeros or a mask",
                "channels are multiplied by zeros, which NaN survives",
            )


CHECKS: dict[str, Callable[[Context], str | None]] = {
    check.__name__: check for check in (block_size_is_the_structure, nan_stays_in_its_channel)
}
