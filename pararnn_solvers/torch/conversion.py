"""Layers of PyTorch as parallel ones, with the same weights."""

from __future__ import annotations

from typing import Any

import torch

from pararnn_solvers.errors import InvalidInput

__all__ = ["arguments_of", "copy_weights"]

CELLS = {torch.nn.GRU: "gru", torch.nn.LSTM: "lstm", torch.nn.RNN: "elman"}
SHARED = ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "dropout")


def arguments_of(module: Any) -> dict[str, Any]:
    """Return the arguments with which a parallel layer computes what a layer of PyTorch does.

    Raises
    ------
    InvalidInput
        It is none of ``torch.nn.GRU``, ``LSTM`` and ``RNN``, or projects its outputs.
    """
    if type(module) not in CELLS:
        raise InvalidInput(
            f"module is a {type(module).__name__}; expected a torch.nn.GRU, LSTM or RNN"
        )
    if module.proj_size:
        raise InvalidInput(
            f"module has proj_size={module.proj_size}; expected 0: put a Linear behind the layer"
        )
    weight = module.weight_hh_l0
    found = {name: getattr(module, name) for name in SHARED}
    found |= {"cell": CELLS[type(module)], "device": weight.device, "dtype": weight.dtype}
    if isinstance(module, torch.nn.RNN):
        found["nonlinearity"] = module.nonlinearity
    return found


def copy_weights(module: Any, layer: Any) -> None:
    """Copy the weights of a layer of PyTorch; biases that it has not are 0."""
    given = module.state_dict()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(given[name]) if name in given else parameter.zero_()
