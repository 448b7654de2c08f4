"""A layer one step at a time, with constant memory: for generation, after it has been trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import pararnn_solvers as prs
from pararnn_solvers import cells
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.torch.exchange import as_array, as_tensor, current_stream

__all__ = ["LayerStepper"]

Tensor = Any  # torch.Tensor, where PyTorch is not there to check it


class LayerStepper:
    """All layers of a trained stack, taking one step of B streams in each call.

    Made by :meth:`ParallelRNN.stepper`, with a copy of the weights.

    Parameters
    ----------
    cell : str
    recurrence : Recurrence
    thetas : sequence
        The parameters of each layer, as arrays.
    starts : sequence of arrays, shape (B, d)
        Where the streams start.
    """

    def __init__(self, cell: str, recurrence: Any, thetas: list[Any], starts: list[Any]) -> None:
        self._cell = cells.load(cell)
        self._thetas = thetas
        self._steppers = [
            prs.stepper(recurrence, theta, start)
            for theta, start in zip(thetas, starts, strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs (B, n) of the last layer for the inputs (B, m) of one step.

        A tensor of its own, without gradients. Cost: a product of matrices and a step a layer.
        """
        with current_stream(x):
            seen = as_array(x)
            for theta, advance in zip(self._thetas, self._steppers, strict=True):
                h = advance(self._cell.project(seen, theta))
                seen = self._cell.output(h, seen, theta)
            return as_tensor(seen.copy())

    def reset(self) -> None:
        """Return all streams to where they started."""
        for advance in self._steppers:
            advance.reset()

    @property
    def states(self) -> list[Tensor]:
        """The states (B, d) of each layer, in the steppers' own memory: writing sets them."""
        return [as_tensor(advance.state) for advance in self._steppers]


def layer_stepper(layer: Any, streams: int, h_0: Any) -> LayerStepper:
    """Return the stepper of a layer; see :meth:`ParallelRNN.stepper`."""
    if layer.bidirectional:
        raise InvalidInput(
            "the layer is bidirectional, and what comes later is not known yet; expected a layer "
            "with bidirectional=False"
        )
    places = [(k, 0) for k in range(layer.num_layers)]
    thetas = [type(t)(*map(np.copy, t)) for t in (layer.theta(*place) for place in places)]
    with torch.no_grad():
        starts = layer.starting_states(h_0, streams)
    return LayerStepper(layer.cell, layer.recurrence, thetas, list(map(as_array, starts)))
