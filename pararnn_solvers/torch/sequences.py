"""Padded batches of tensors: reversal within lengths, blank padding, packed sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["blank_padding", "packed", "padded", "reversed_in_time"]

Tensor = Any  # torch.Tensor, where PyTorch is not there to check it


def reversed_in_time(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return sequences (T, B, ...) reversed, each within its length; the padding stays in place.

    Its own inverse, as :func:`pararnn_solvers.reversed_within`.
    """
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    source = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, source[..., None].expand_as(x))


def blank_padding(y: Tensor, lengths: Tensor | None) -> Tensor:
    """Return outputs (T, B, n) that are 0 in the padding."""
    if lengths is None:
        return y
    t = torch.arange(y.shape[0], device=y.device)[:, None]
    return y.masked_fill((t >= lengths)[..., None], 0)


def padded(sequences: PackedSequence) -> tuple[Tensor, Tensor]:
    """Return packed sequences as a padded batch (T, B, m) in their original order, and lengths."""
    x, lengths = pad_packed_sequence(sequences)
    return x, lengths.to(x.device)


def packed(y: Tensor, lengths: Tensor, like: PackedSequence) -> PackedSequence:
    """Return a padded batch packed in the order in which others were."""
    order = like.sorted_indices
    if order is not None:
        y, lengths = y.index_select(1, order), lengths.index_select(0, order)
    data = pack_padded_sequence(y, lengths.cpu()).data
    return PackedSequence(data, like.batch_sizes, order, like.unsorted_indices)
