"""What every backend demands of its arguments, checked in one place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pararnn_solvers.errors import InvalidInput

Array = NDArray[Any]

STORED = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def canonical(blocks: Array, rhs: Array) -> tuple[Array, Array]:
    """Return ``A (T, B, k, k, n)`` and ``b (T, B, k, n)``: the arguments with one batch axis.

    Views where strides allow it. float16 is widened to float32, in which it is computed.

    Raises
    ------
    InvalidInput
        Not NumPy arrays, dtypes that differ or are unsupported, or shapes that do not fit.
    """
    _check_types(blocks, rhs)
    check_shapes(blocks, rhs)
    T, *batch, _ = rhs.shape
    _, k, n = blocks.shape[-3:]
    B = math.prod(batch)
    A, b = blocks.reshape(T, B, k, k, n), rhs.reshape(T, B, k, n)
    if rhs.dtype == np.float16:
        return A.astype(np.float32), b.astype(np.float32)
    return A, b


def restore(h: Array, rhs: Array) -> Array:
    """Return ``h (T, B, k, n)`` in the shape and dtype of ``rhs``."""
    with np.errstate(over="ignore", under="ignore"):  # float16 ends at 65504; then inf is right
        return h.reshape(rhs.shape).astype(rhs.dtype, copy=False)


def _check_types(blocks: Array, rhs: Array) -> None:
    for name, array in (("blocks", blocks), ("rhs", rhs)):
        if not isinstance(array, np.ndarray):
            raise InvalidInput(
                f"{name} must be a numpy.ndarray, got {type(array).__name__}; "
                "convert it (numpy.asarray) or choose the backend of its library"
            )
    if blocks.dtype != rhs.dtype:
        raise InvalidInput(
            f"blocks and rhs must have one dtype, got {blocks.dtype} and {rhs.dtype}; "
            "convert one of them with .astype"
        )
    if rhs.dtype not in STORED:
        raise InvalidInput(
            f"blocks and rhs must be float64, float32 or float16, got {rhs.dtype}; "
            "convert them with .astype"
        )


def check_shapes(blocks: Array, rhs: Array) -> None:
    """Raise InvalidInput unless the shapes fit together as those of blocks and right-hand sides."""
    if rhs.ndim < 2 or blocks.ndim != rhs.ndim + 2:
        raise InvalidInput(
            "expected rhs of shape (T, *batch, k*n) and blocks of shape (T, *batch, k, k, n), "
            f"got {rhs.shape} and {blocks.shape}; "
            "view a diagonal (T, *batch, d) as blocks[..., None, None, :] "
            "and a dense (T, *batch, d, d) as blocks[..., None]"
        )
    k, columns, n = blocks.shape[-3:]
    if blocks.shape[:-3] != rhs.shape[:-1]:
        raise InvalidInput(
            f"rhs of shape {rhs.shape} has leading axes {rhs.shape[:-1]}, blocks has "
            f"{blocks.shape[:-3]}; both must be (T, *batch): broadcast one of them first"
        )
    if k != columns or k == 0 or k * n != rhs.shape[-1]:
        raise InvalidInput(
            f"rhs has trailing size {rhs.shape[-1]}, blocks ends in (k, k, n) = "
            f"{blocks.shape[-3:]}; pass square blocks with k >= 1 and k * n = {rhs.shape[-1]}"
        )
