"""What a language model of diagonal cells takes: parameters, FLOPs, bytes and memory.

Each layer is two residual blocks. With d the width, r the width of the gated MLP, H heads::

    v, z = split(W_in norm(x))              W_in (2 d, d)
    v    = silu(conv(v))                    over 4 steps, channel by channel
    y    = cell(v)                          B (3, H, d/H, d/H), then the recurrence
    x    = x + W_out (norm(y) silu(z))      W_out (d, d)
    x    = x + W_2 (silu(W_1 norm(x)) (W_3 norm(x)))     W_1, W_3 (r, d), W_2 (d, r)

between an embedding and an output matrix of its size. Nothing here is measured:
``tests/benchmarks/planning.py`` compares it with what runs.

Source: Danieli et al. 2025 (arXiv 2510.21450) for the cells, the block and the sizes' names; see
``docs/scaling.md`` for what had to be assumed.
"""

from __future__ import annotations

from pararnn_solvers.planning.models import CELLS, MODELS, NOMINAL, PRECISIONS, Cell, Model, nearest
from pararnn_solvers.planning.training import Plan, as_dict, layer_memory, plan

__all__ = [
    "CELLS",
    "MODELS",
    "NOMINAL",
    "PRECISIONS",
    "Cell",
    "Model",
    "Plan",
    "as_dict",
    "layer_memory",
    "nearest",
    "plan",
]
