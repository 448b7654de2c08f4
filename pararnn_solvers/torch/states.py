"""Inputs and states as PyTorch's layers have them: their shapes and dtypes, pairs (h, c)."""

from __future__ import annotations

from typing import Any

import torch

from pararnn_solvers.errors import InvalidInput

__all__ = ["autocasting", "received", "require_input", "returned"]

Tensor = Any  # torch.Tensor, where PyTorch is not there to check it
PAIRS = ("lstm", "diagonal_lstm")
"""Cells whose states ``[c | y]`` go in and out as (h, c), as those of ``torch.nn.LSTM``."""


def received(cell: str, h_0: Any, shape: tuple[int, ...], dtype: Any, single: bool) -> Tensor:
    """Return the initial states (places, B, d) that a caller gave, after checking them.

    Parameters
    ----------
    h_0 : tensor or pair of tensors
    shape : tuple of int
        The one expected.
    dtype : torch.dtype
        To which autocast's half precision is widened.
    single : bool
        Whether there may be no axis for the batch.
    """
    if cell in PAIRS:
        if not (isinstance(h_0, (tuple, list)) and len(h_0) == 2):
            raise InvalidInput(
                f"h_0 is a {type(h_0).__name__}; expected a pair (h_0, c_0) for cell {cell!r}"
            )
        h_0 = torch.cat([h_0[1], h_0[0]], -1)
    if single and h_0.dim() == 2:
        h_0 = h_0.unsqueeze(1)
    if tuple(h_0.shape) != shape:
        size = f"{shape[-1] // 2}, in both of (h_0, c_0)" if cell in PAIRS else shape[-1]
        raise InvalidInput(
            f"h_0 has shape {tuple(h_0.shape)}; expected (layers * directions, B, d) = {shape[:2]} "
            f"and d = {size}" + " (here joined)" * (cell in PAIRS)
        )
    return h_0.to(dtype) if autocasting(h_0) else h_0


def returned(cell: str, final: Tensor) -> Any:
    """Return states as they go out: a pair (h, c) where the cell has both."""
    if cell not in PAIRS:
        return final
    c, y = final.chunk(2, -1)
    return y, c


def require_input(x: Tensor, inputs: int, dtype: Any, batch_first: bool) -> None:
    """Raise InvalidInput unless the inputs fit the parameters of a layer, of a dtype."""
    if not isinstance(x, torch.Tensor):
        raise InvalidInput(
            f"x is a {type(x).__name__}; expected a tensor, as torch.from_numpy makes of an array"
        )
    if x.dim() not in (2, 3) or x.shape[-1] != inputs:
        order = "(B, T, m)" if batch_first else "(T, B, m)"
        raise InvalidInput(
            f"x has shape {tuple(x.shape)}; expected {order} or (T, m) with m = input_size = "
            f"{inputs}"
        )
    if dtype not in (torch.float32, torch.float64):
        raise InvalidInput(
            f"the layer is {dtype}; expected float32 or float64, in which states are computed: "
            "call layer.float(), and use torch.autocast for products in half precision"
        )
    if x.dtype != dtype and not autocasting(x):
        raise InvalidInput(
            f"x is {x.dtype} and the layer {dtype}; expected one dtype: pass x.to({dtype}), or use "
            "torch.autocast for products in half precision"
        )


def autocasting(x: Tensor) -> bool:
    """Tell whether products of such a tensor are made in half precision."""
    return bool(torch.is_autocast_enabled(x.device.type))
