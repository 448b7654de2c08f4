"""Arithmetic, traffic and memory of one training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pararnn_solvers.checks import require_number, require_whole
from pararnn_solvers.planning.models import (
    CELLS,
    KEEP,
    PRECISIONS,
    Model,
    require_one_of,
)

STATE_BYTES = 4  # drives and states are float32
ADAM = 2  # moments a parameter


@dataclass(frozen=True)
class Plan:
    """What training a model takes; made by :func:`plan`. Bytes and FLOPs are Python's integers.

    Attributes
    ----------
    forward, backward : int
        FLOPs a token of all linear maps: 2 a weight, and twice that.
    one_pass, newton, adjoint : int
        Operations a token of all recurrences: solved in one pass, by `iterations` of Newton's
        method, and their gradients.
    moved_one_pass, moved_newton, moved_adjoint : int
        Bytes a token that all recurrences read and write, in float32.
    weights, gradients, moments : int
        Bytes on one device.
    stored : int
        Bytes kept from the forward pass for the backward pass.
    working : int
        Bytes of the greatest gradient beside them: of the logits, or of one layer's activations
        and, where its inputs alone are kept or weights are split, of what that layer brings back.

    Examples
    --------
    >>> plan(Model(1024, 24), 2048).moments == 2 * plan(Model(1024, 24), 2048).gradients
    True
    """

    model: Model
    length: int
    batch: int
    iterations: int
    precision: str
    keep: str
    devices: int
    parameters: int
    forward: int
    backward: int
    one_pass: int
    newton: int
    adjoint: int
    moved_one_pass: int
    moved_newton: int
    moved_adjoint: int
    weights: int
    gradients: int
    moments: int
    stored: int
    working: int

    @property
    def memory(self) -> int:
        """Bytes at the peak on one device."""
        return self.weights + self.gradients + self.moments + self.stored + self.working

    @property
    def tokens(self) -> int:
        """Tokens of one training step on one device."""
        return self.length * self.batch

    def seconds(self, flops: float, operations: float) -> float:
        """Estimate the time of a training step, in one pass, from what a device does a second.

        Parameters
        ----------
        flops : float
            FLOPs a second of its matrix products.
        operations : float
            Operations a second of its recurrences.
        """
        for name, rate in (("flops", flops), ("operations", operations)):
            require_number(name, rate, lambda value: value > 0, "a number > 0")
        linear = (self.forward + self.backward) / flops
        return self.tokens * (linear + (self.one_pass + self.adjoint) / operations)


def plan(
    model: Model,
    length: int,
    *,
    batch: int = 1,
    iterations: int = 3,
    precision: str = "mixed",
    keep: str = "all",
    devices: int = 1,
) -> Plan:
    """Return what training a model takes, a token and on each device.

    Parameters
    ----------
    model : Model
    length, batch : int
        Steps and sequences on each device.
    iterations : int
        Of Newton's method, to compare with one pass.
    precision : {"mixed", "float32"}
        Mixed: float32 weights and a bfloat16 copy, products and what they keep in bfloat16.
        Gradients, Adam's moments, drives and states are float32 either way.
    keep : {"all", "inputs"}
        What a layer keeps for the backward pass; with its inputs alone it runs twice.
    devices : int
        Weights, gradients and moments are split over them, each with its own sequences; a layer
        is brought together where it is used.

    Raises
    ------
    InvalidInput

    Examples
    --------
    >>> found = plan(Model(4096, 32), 2048)
    >>> found.parameters, found.forward, found.backward == 2 * found.forward
    (7159418880, 13903069184, True)
    """
    for name, value in {
        "length": length,
        "batch": batch,
        "devices": devices,
        "iterations": iterations,
    }.items():
        require_whole(name, value)
    require_one_of("precision", precision, PRECISIONS)
    require_one_of("keep", keep, KEEP)
    d, layers, layer, cell = model.width, model.layers, model.layer, CELLS[model.cell]
    size, tokens = PRECISIONS[precision], length * batch
    output = d * model.vocabulary
    forward = layers * layer.flops + 2 * output
    channels = layers * d
    whole = tokens * (layer.activations * size.activations + layer.states * STATE_BYTES)
    ends = tokens * 2 * d * size.activations  # of the two blocks
    loss = tokens * model.vocabulary * STATE_BYTES  # logarithms of probabilities, or as gradients
    stored = loss + tokens * 2 * d * size.activations  # input of the last norm, and of the output
    again = layer.parameters * (size.weights + size.gradients) if devices > 1 else 0
    again += whole if keep == "inputs" else 0
    extra = forward - 2 * output if keep == "inputs" else 0
    share = -(-model.parameters // devices)
    return Plan(
        model=model,
        length=length,
        batch=batch,
        iterations=iterations,
        precision=precision,
        keep=keep,
        devices=devices,
        parameters=model.parameters,
        forward=forward,
        backward=2 * forward + extra,
        one_pass=channels * cell.step,
        newton=channels * cell.iteration * iterations,
        adjoint=channels * cell.adjoint,
        moved_one_pass=channels * cell.moved(0) * STATE_BYTES,
        moved_newton=channels * cell.moved(iterations) * STATE_BYTES,
        moved_adjoint=channels * cell.moved_back * STATE_BYTES,
        weights=share * size.weights,
        gradients=share * size.gradients,
        moments=share * ADAM * size.moments,
        stored=stored + layers * (ends if keep == "inputs" else whole),
        working=max(loss, whole + again),
    )


def layer_memory(cell: str, inputs: int, channels: int, tokens: int) -> tuple[int, int]:
    """Return the bytes that one layer of ``cells.stack`` keeps, and those at its peak, in float32.

    ``stack.apply`` keeps drives, states and outputs; its inputs were there before.
    ``stack.gradients`` has derivatives by outputs, by states (where these are not the outputs), by
    drives, and two by inputs beside them. For one head: more make copies.

    Examples
    --------
    >>> layer_memory('diagonal_gru', 64, 64, tokens=1000)
    (1280000, 2816000)
    """
    for name, value in {"inputs": inputs, "channels": channels, "tokens": tokens}.items():
        require_whole(name, value)
    require_one_of("cell", cell, CELLS)
    k, gates = CELLS[cell].components, CELLS[cell].gates
    kept = (gates + k + 1) * channels
    beside = (1 + (k if k > 1 else 0) + gates) * channels + 2 * inputs
    return tokens * kept * STATE_BYTES, tokens * (kept + beside) * STATE_BYTES


def as_dict(found: Plan) -> dict[str, Any]:
    """Return a plan as nested dictionaries of numbers and text.

    Examples
    --------
    >>> as_dict(plan(Model(1024, 24), 2048))['model']['layers']
    24
    """
    fields = {name: value for name, value in vars(found).items() if name != "model"}
    parts = {name: part._asdict() for name, part in found.model.parts.items()}
    return {"model": vars(found.model), **fields, "memory": found.memory, "parts": parts}
