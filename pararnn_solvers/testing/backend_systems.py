"""Linear recurrences that backends are checked with, their solutions, and how exact these are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararnn_solvers.linear import Scan
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array

LENGTHS = (1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 256, 257, 1025)
SHAPES: tuple[tuple[tuple[int, ...], int, int], ...] = (  # (batch, k, n)
    ((), 1, 1),
    ((), 1, 17),
    ((2, 3), 1, 1),
    ((), 2, 1),
    ((2,), 2, 3),
    ((), 3, 17),
    ((1,), 4, 1),
    ((), 8, 2),
)


@dataclass(frozen=True)
class Subject:
    """A backend, and the dtypes that it is checked with."""

    scan: Scan
    dtypes: tuple[Any, ...]

    def directions(self) -> Iterator[tuple[Any, bool]]:
        """Yield each dtype, forward and adjoint."""
        for dtype in self.dtypes:
            yield dtype, False
            yield dtype, True


def random_system(
    T: int, batch: tuple[int, ...], k: int, n: int, dtype: Any, seed: int = 0
) -> tuple[Array, Array]:
    """Return blocks with row sums of at most 1, and a right-hand side."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(-1, 1, (T, *batch, k, k, n)) / k
    return blocks.astype(dtype), rng.standard_normal((T, *batch, k * n)).astype(dtype)


def reference(blocks: Array, rhs: Array, adjoint: bool, dtype: Any = np.longdouble) -> Array:
    """Solve step by step as the definition says, by default in long double."""
    T, *batch, k, _, n = blocks.shape
    A, b = blocks.astype(dtype), rhs.reshape(T, *batch, k, n).astype(dtype)
    h = b.copy()
    with np.errstate(all="ignore"):
        if adjoint:
            for t in range(T - 2, -1, -1):
                h[t] = b[t] + np.sum(A[t + 1] * h[t + 1][..., :, None, :], axis=-3)
        else:
            for t in range(1, T):
                h[t] = b[t] + np.sum(A[t] * h[t - 1][..., None, :, :], axis=-2)
    return h.reshape(rhs.shape)


def rounding(blocks: Array, rhs: Array, adjoint: bool) -> Array:
    """Bound the error of any order of the sums and products, entry by entry.

    Each path ``A_t ... A_{s+1} b_s`` is rounded at most ``2 (k + 1)`` times a step, so that the
    error is that many eps of the solution with absolute values; what underflows adds the smallest
    normal number times the greatest state. Source: Higham 2002, section 3.1.
    """
    T, k = len(rhs), blocks.shape[-2]
    size = reference(np.abs(blocks), np.abs(rhs), adjoint)
    number = np.finfo(rhs.dtype)
    tiny = float(number.tiny) * T * (1 + float(np.max(size, initial=0)))
    bound: Array = 2 * (k + 1) * T * float(number.eps) * size + tiny
    return bound


def require_equal(
    h: Any, expected: Array, blocks: Array, promised: str, what: str, remedy: str
) -> None:
    """Raise CheckFailed at the first entry that is not equal; NaN equals NaN."""
    h = np.asarray(h)
    if h.shape != expected.shape:
        raise CheckFailed(promised, f"shape {h.shape}, expected {expected.shape} ({what})", remedy)
    wrong = (h != expected) & ~(np.isnan(h) & np.isnan(expected))
    require_none(wrong, h, expected, blocks, promised, what, remedy)


def require_spoilt(h: Array, blocks: Array, rhs: Array, adjoint: bool, what: str) -> None:
    """Raise CheckFailed at the first finite entry that is not finite step by step."""
    expected = reference(blocks, rhs, adjoint, rhs.dtype)
    require_none(
        np.isfinite(h) & ~np.isfinite(expected),
        h,
        expected,
        blocks,
        "a bad number reaches every state that depends on it",
        f"{what}, {'adjoint' if adjoint else 'forward'}",
        "do not replace NaN or infinity (nan_to_num, clip): the caller has to see them",
    )


def require_none(
    wrong: Array,
    h: Array,
    expected: Array,
    blocks: Array,
    promised: str,
    what: str,
    remedy: str,
    defect: str = "",
) -> None:
    """Raise CheckFailed at the first wrong entry, naming time, sequence, component and channel."""
    if not wrong.any():
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    n = blocks.shape[-1]
    batch = f", sequence {at[1:-1]}" if at[1:-1] else ""
    seen = (
        f"{h[at]:.9g}, expected {float(expected[at]):.9g} at time {at[0]}{batch}, "
        f"component {at[-1] // n}, channel {at[-1] % n} ({what}; {int(wrong.sum())} of {h.size} "
        "entries are wrong)"
    )
    raise CheckFailed(promised, seen, remedy, defect)
