"""The likely bug in a backend, by name: which other recurrence it has solved."""

from __future__ import annotations

import numpy as np

from pararnn_solvers.linear import Scan
from pararnn_solvers.testing.backend_systems import reference, require_none, rounding
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array


def require_solution(
    scan: Scan, blocks: Array, rhs: Array, adjoint: bool, promised: str, remedy: str
) -> None:
    """Raise CheckFailed at the first entry beyond rounding."""
    h = np.asarray(scan(blocks, rhs, adjoint=adjoint))
    what = (
        f"T={len(rhs)}, blocks {blocks.shape}, {rhs.dtype}, {'adjoint' if adjoint else 'forward'}"
    )
    if h.shape != rhs.shape:
        raise CheckFailed(promised, f"shape {h.shape}, expected {rhs.shape} ({what})", remedy)
    expected = reference(blocks, rhs, adjoint)
    error = np.abs(h - expected)
    wrong = ~(error <= rounding(blocks, rhs, adjoint))
    defect = name_the_bug(h, blocks, rhs, adjoint) if wrong.any() else ""
    require_none(wrong, h, expected, blocks, promised, what, remedy, defect)


def transposed(blocks: Array) -> Array:
    """Return the blocks with rows and columns exchanged."""
    return np.swapaxes(blocks, -3, -2)


def shifted(blocks: Array, steps: int) -> Array:
    """Return the blocks of so many steps before, those at the end repeated."""
    places = np.clip(np.arange(len(blocks)) - steps, 0, len(blocks) - 1)
    return blocks[places]


def exchanged(array: Array, k: int, n: int) -> Array:
    """Return states (..., k n) of which the components of each channel lie side by side."""
    return array.reshape(*array.shape[:-1], n, k).swapaxes(-1, -2).reshape(array.shape)


def name_the_bug(h: Array, blocks: Array, rhs: Array, adjoint: bool) -> str:
    """Return the likely defect of a backend that found h, or nothing."""
    k, n = blocks.shape[-2:]
    kind, other = ("adjoint", "forward") if adjoint else ("forward", "adjoint")
    diagonal = np.eye(k, dtype=blocks.dtype)[..., None]
    before, after = ("A_t in place of A_{t+1}", "A_{t+2} in place of A_{t+1}")
    if not adjoint:
        before, after = ("A_{t-1} in place of A_t", "A_{t+1} in place of A_t")
    twice = rhs.copy()
    if len(rhs) and not adjoint:
        first = rhs[0].reshape(*blocks.shape[1:-3], k, n)
        twice[0] += np.sum(blocks[0] * first[..., None, :, :], axis=-2).reshape(rhs[0].shape)
    candidates = {
        "the blocks are not used": rhs,
        "the blocks are not transposed" if adjoint else "the blocks are transposed": reference(
            transposed(blocks), rhs, adjoint
        ),
        "the blocks have the other sign": reference(-blocks, rhs, adjoint),
        f"the block of another step: {before}": reference(shifted(blocks, 1), rhs, adjoint),
        f"the block of another step: {after}": reference(shifted(blocks, -1), rhs, adjoint),
        "only the diagonal of the blocks is used": reference(blocks * diagonal, rhs, adjoint),
        f"this is the {other} solution": reference(blocks, rhs, not adjoint),
        f"the {kind} solution is reversed in time": reference(blocks, rhs, adjoint)[::-1],
        "the first block is applied to the first right-hand side": reference(
            blocks, twice, adjoint
        ),
        "components and channels are exchanged: states are component-major, (k, n)": exchanged(
            reference(blocks, exchanged(rhs, k, n), adjoint), n, k
        ),
    }
    near = 4 * rounding(blocks, rhs, adjoint)
    for name, candidate in candidates.items():
        if np.all(np.abs(h - candidate) <= near):
            return name
    if h.dtype == np.float64:
        in_single = near * float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)
        if np.all(np.abs(h - reference(blocks, rhs, adjoint)) <= in_single):
            return "right to 7 digits only: computed in float32"
    return ""
