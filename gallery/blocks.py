"""A model of characters: blocks of a mixer along time and a gated MLP, each with norm and residual.

Mixers are parallel recurrences and, for comparison, causal attention. All of them map
``x (T, B, w)`` and what they remember of earlier calls to ``y (T, B, w)`` and what to remember for
later ones, so that a text can be read in pieces of any length, down to single characters.

The blocks are those of today's language models: pre-norm (Xiong et al. 2020), RMSNorm (Zhang &
Sennrich 2019), SwiGLU (Shazeer 2020), rotary positions (Su et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pararnn_solvers import cells
from pararnn_solvers.torch import ParallelRNN

HEADS = 4  # of attention


def solved(layer: ParallelRNN, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Return outputs and last states of a layer, solved for all steps at once."""
    return layer(x, state)


class Recurrent(nn.Module):
    """A parallel recurrence as a mixer; `run` says how it is evaluated."""

    def __init__(self, cell: str, width: int, **options: Any) -> None:
        super().__init__()
        self.cell = cell
        self.layer = ParallelRNN(cell, width, width, **options)
        self.run: Callable[[ParallelRNN, Tensor, Any], tuple[Tensor, Any]] = solved

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return outputs, and the states after the last step."""
        return self.run(self.layer, x, state)


class Attention(nn.Module):
    """Causal attention with rotary positions; it remembers keys and values (the KV cache)."""

    def __init__(self, width: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return outputs, and keys and values of all steps so far."""
        steps, batch, width = x.shape
        parts = self.qkv(x).reshape(steps, batch, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 1, 3, 0, 4)  # each (B, heads, T, w / heads)
        before = 0 if state is None else state[0].shape[2]
        q, k = rotated(q, before), rotated(k, before)
        if state is not None:
            k, v = torch.cat([state[0], k], dim=2), torch.cat([state[1], v], dim=2)
        seen = torch.ones(steps, before + steps, dtype=torch.bool).tril(before)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(mixed.permute(2, 0, 1, 3).reshape(x.shape)), (k, v)


def rotated(x: Tensor, first: int) -> Tensor:
    """Return (..., T, n), entries i and i + n/2 turned by angles that grow with the position."""
    steps, n = x.shape[-2:]
    rates = 10_000.0 ** (-torch.arange(0, n, 2, dtype=x.dtype) / n)
    angles = torch.arange(first, first + steps, dtype=x.dtype)[:, None] * rates
    cos, sin = angles.cos(), angles.sin()
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)


class GatedMLP(nn.Module):
    """``W_out (silu(W_gate x) * W_up x)``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (T, B, w), each row from its own."""
        gate, up = self.inner(x).chunk(2, dim=-1)
        return self.out(functional.silu(gate) * up)


class Block(nn.Module):
    """``x + mixer(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, mixer: nn.Module, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.mixer, self.mlp = mixer, GatedMLP(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return outputs, and what the mixer remembers."""
        y, state = self.mixer(self.norm1(x), state)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.norm2(x))), state


class Model(nn.Module):
    """Logits of the next character: an embedding, blocks, a norm and a readout."""

    def __init__(self, characters: int, width: int, blocks: list[Block]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.readout = nn.Linear(width, characters, bias=False)

    def forward(self, text: Tensor, states: Any = None) -> tuple[Tensor, list[Any]]:
        """Return logits (T, B, characters) of a text (T, B), and what each block remembers."""
        x, after = self.embedding(text), []
        for block, state in zip(self.blocks, states or [None] * len(self.blocks), strict=True):
            x, state = block(x, state)
            after.append(state)
        return self.readout(self.norm(x)), after

    def recurrences(self) -> list[Recurrent]:
        """Return its parallel recurrences, none if it is a transformer."""
        return [block.mixer for block in self.blocks if isinstance(block.mixer, Recurrent)]

    def clip_recurrent(self, bound: float) -> None:
        """Clip the recurrent weights of nonlinear cells, as the authors of ParaRNN train."""
        for mixer in self.recurrences():
            if hasattr(cells.load(mixer.cell), "clip_recurrent"):
                mixer.layer.clip_recurrent(bound)


MIXERS: dict[str, Callable[..., nn.Module]] = {
    "ParaGRU": lambda width, **options: Recurrent("diagonal_gru", width, **options),
    "ParaLSTM": lambda width, **options: Recurrent("diagonal_lstm", width, **options),
    "selective SSM": lambda width, **options: Recurrent(
        "selective_ssm", width, states=8, **options
    ),
    "transformer": lambda width, **_: Attention(width),
}
"""Name in tables -> mixer of that width; options are those of ParallelRNN."""


def build(
    kind: str,
    characters: int,
    *,
    width: int,
    depth: int,
    hidden: int,
    dropout: float = 0.0,
    **options: Any,
) -> Model:
    """Return a model with `depth` blocks of as many parameters as the ParaGRU model has.

    Parameters
    ----------
    kind : one of MIXERS
    characters, width, depth : int
    hidden : int
        Of the MLP in the ParaGRU model; others have more or less, since their mixers differ.
    dropout : float
        Behind mixers and MLPs.
    **options
        Of ParallelRNN, such as ``atol``.
    """
    mixers = [MIXERS[kind](width, **options) for _ in range(depth)]
    share = 3 * width**2 + 6 * width  # parameters of a ParaGRU
    hidden += round((share - size(mixers[0])) / (3 * width))
    return Model(characters, width, [Block(m, width, hidden, dropout) for m in mixers])


def size(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in module.parameters())
