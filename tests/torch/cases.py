"""Layers of every cell, small and in float64, and what the tests do with them."""

import torch

OPTIONS = {
    "elman": {},
    "gru": {},
    "lstm": {},
    "block_gru": {"heads": 2},
    "diagonal_gru": {"heads": 2},
    "diagonal_lstm": {"heads": 2},
    "slstm": {"heads": 2},
    "selective_ssm": {"states": 3, "rank": 2},
    "min_gru": {"heads": 2},
}
MODULES = {"elman": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
EXACT = {"atol": 1e-12, "rtol": 1e-12}
M, N = 6, 4  # inputs, channels


def layer(cell, *args, seed=0, **options):
    """Return a layer in float64 whose solves are exact to rounding."""
    from pararnn_solvers.torch import ParallelRNN

    torch.manual_seed(seed)
    options = {"dtype": torch.float64, **EXACT, **OPTIONS[cell], **options}
    return ParallelRNN(cell, M, N, *args, **options)


def inputs(*shape, seed=1, dtype=torch.float64):
    """Return random inputs that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, M, generator=generator, dtype=dtype, requires_grad=True)


def flat(states):
    """Return the states of a layer as a tuple: (h,) or (h, c)."""
    return states if isinstance(states, tuple) else (states,)
