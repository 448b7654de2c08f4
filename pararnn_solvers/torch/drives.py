"""What a cell makes of its inputs, and what a layer above sees of its states, as tensors.

The same as ``project`` and ``output`` of the modules in ``cells``, by PyTorch's own matrix
products: so its autograd, autocast, compiler and devices hold for them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional

__all__ = ["DRIVES", "Drives"]

Tensor = Any  # torch.Tensor, where PyTorch is not there to check it


class Drives(NamedTuple):
    """The part of a cell that acts at all steps at once.

    Attributes
    ----------
    project : callable
        From inputs (..., m) and theta to drives.
    output : callable
        From states, inputs and theta to what a layer above sees.
    fields : tuple of str
        The fields of theta that act here alone, and not in the recurrence.
    """

    project: Callable[[Tensor, Any], Tensor]
    output: Callable[[Tensor, Tensor, Any], Tensor]
    fields: tuple[str, ...]


def by_heads(x: Tensor, theta: Any) -> Tensor:
    """Return ``u = B x + b``, gates one after another; see ``cells.parameters.project_inputs``."""
    gates, heads, m, n = theta.B.shape
    joined = theta.B.permute(1, 2, 0, 3).reshape(heads, m, gates * n)
    if heads == 1:
        return functional.linear(x, joined[0].T, theta.b.reshape(-1))
    rows = x.reshape(-1, heads, m).transpose(0, 1)
    u = torch.bmm(rows, joined).reshape(heads, -1, gates, n).permute(1, 2, 0, 3)
    u = u.reshape(-1, gates, heads * n) + theta.b
    return u.reshape(*x.shape[:-1], gates * heads * n)


def dense(x: Tensor, theta: Any) -> Tensor:
    """Return ``W_ih x + b_ih``."""
    return functional.linear(x, theta.weight_ih, theta.bias_ih)


def selective(x: Tensor, theta: Any) -> Tensor:
    """Return ``[exp(delta A) | (delta v) (W_B v)]``; see ``cells.selective_ssm``."""
    v = x @ theta.E
    delta = functional.softplus(v @ theta.W_r @ theta.W_d + theta.b_d)
    decay = torch.exp(-delta[..., None, :] * theta.A_log.exp())
    increment = (delta * v)[..., None, :] * (v @ theta.W_B)[..., :, None]
    return torch.cat([decay.flatten(-2), increment.flatten(-2)], dim=-1)


def selective_output(h: Tensor, x: Tensor, theta: Any) -> Tensor:
    """Return ``(W_C v) h + D v`` over the states of each channel."""
    v = x @ theta.E
    states = h.unflatten(-1, theta.A_log.shape)
    return torch.einsum("...c,...cn->...n", v @ theta.W_C, states) + theta.D * v


def last_component(k: int, h: Tensor, x: Tensor, theta: Any) -> Tensor:
    """Return the last of k components of the states."""
    return h[..., h.shape[-1] // k * (k - 1) :]


def whole(h: Tensor, x: Tensor, theta: Any) -> Tensor:
    """Return the states."""
    return h


_HEADS, _DENSE = ("B", "b"), ("weight_ih", "bias_ih")
DRIVES: dict[str, Drives] = {
    "elman": Drives(dense, whole, _DENSE),
    "gru": Drives(dense, whole, _DENSE),
    "lstm": Drives(dense, partial(last_component, 2), _DENSE),
    "block_gru": Drives(by_heads, whole, _HEADS),
    "diagonal_gru": Drives(by_heads, whole, _HEADS),
    "diagonal_lstm": Drives(by_heads, partial(last_component, 2), _HEADS),
    "slstm": Drives(by_heads, partial(last_component, 3), _HEADS),
    "selective_ssm": Drives(
        selective,
        selective_output,
        ("E", "A_log", "W_B", "W_C", "W_r", "W_d", "b_d", "D"),
    ),
    "min_gru": Drives(by_heads, whole, _HEADS),
}
"""Name of a cell -> its drives."""
