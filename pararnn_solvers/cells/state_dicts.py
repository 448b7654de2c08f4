"""Parameters out of the state dicts of ``torch.nn.RNN``, ``GRU`` and ``LSTM``, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pararnn_solvers.cells.dense import Theta
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array

NAMES = {1: "RNN", 3: "GRU", 4: "LSTM"}
KEY = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh)(?:_l(\d+)(_reverse)?)?")


def from_state_dict(
    state: Mapping[str, Any], gates: int, prefix: str = "", dtype: Any = None
) -> list[tuple[Theta, ...]]:
    """Return the parameters of each layer and direction in a state dict of PyTorch.

    Parameters
    ----------
    state : mapping from names to arrays or tensors
        Such as ``torch.nn.GRU(...).state_dict()``.
    gates : int
        1 of an RNN, 3 of a GRU, 4 of an LSTM.
    prefix : str
        What the names of the layers begin with, such as ``"encoder.rnn."`` in a larger model.
    dtype : dtype, optional
        Of the parameters; None keeps that of the state dict.

    Returns
    -------
    list of tuples of Theta
        For each layer ``(forward,)`` or ``(forward, reverse)``. Without biases these are zero.

    Raises
    ------
    InvalidInput
        For the state dict of another cell, or one that is incomplete or of sizes that do not fit.
    """
    found = matching(state, prefix)
    count = 1 + max(layer for _, layer, _ in found)
    directions = 1 + any(reverse for _, _, reverse in found)
    layers: list[tuple[Theta, ...]] = []
    for layer in range(count):
        inputs = None if not layers else directions * layers[-1][0].weight_hh.shape[1]
        layers.append(
            tuple(
                assemble(found, (layer, bool(reverse)), (gates, inputs), dtype)
                for reverse in range(directions)
            )
        )
    return layers


def matching(state: Mapping[str, Any], prefix: str) -> dict[tuple[str, int, bool], Any]:
    """Return the entries below a prefix by parameter, layer, and whether in reverse."""
    found = {}
    for name, value in state.items():
        if not name.startswith(prefix):
            continue
        match = KEY.fullmatch(name.removeprefix(prefix))
        if match is None:
            raise InvalidInput(
                f"the state dict has {name!r}; expected only weight_ih_l0, weight_hh_l0, "
                "bias_ih_l0 and the like (no proj_size): pass prefix= for a layer of a larger model"
            )
        found[match[1], int(match[2] or 0), bool(match[3])] = value
    if not found:
        raise InvalidInput(
            f"no name in the state dict begins with {prefix!r}; it has {list(state)[:6]}"
        )
    return found


def assemble(
    found: dict[tuple[str, int, bool], Any],
    where: tuple[int, bool],
    sizes: tuple[int, int | None],
    dtype: Any,
) -> Theta:
    """Return the parameters of one layer and direction, with their sizes checked."""
    label = f"layer {where[0]}{' in reverse' if where[1] else ''}"
    arrays = {}
    for name in Theta._fields:
        if (name, *where) in found:
            arrays[name] = as_array(f"{name} of {label}", found[name, *where], dtype)
        elif name.startswith("weight"):
            raise InvalidInput(f"the state dict lacks {name} of {label}; expected all layers")
    W_ih, W_hh = arrays["weight_ih"], arrays["weight_hh"]
    gates, inputs = sizes
    require_gates(label, W_hh.shape, gates)
    rows, n = W_hh.shape
    expected = {"weight_ih": (rows, W_ih.shape[-1] if inputs is None else inputs)}
    for name in Theta._fields:
        shape = expected.get(name, W_hh.shape if name == "weight_hh" else (rows,))
        if arrays.setdefault(name, np.zeros(shape, W_hh.dtype)).shape != shape:
            raise InvalidInput(
                f"{name} of {label} has shape {arrays[name].shape}; expected {shape}, since its "
                f"weight_hh has shape {W_hh.shape}"
                + ("" if inputs is None else f" and the layer below has {inputs} outputs")
            )
    return Theta(**arrays)


def require_gates(label: str, shape: tuple[int, ...], gates: int) -> None:
    """Raise InvalidInput unless a weight_hh is that of a cell with so many gates."""
    if len(shape) == 2 and shape[0] == gates * shape[1]:
        return
    other = next(
        (name for g, name in NAMES.items() if len(shape) == 2 and shape[0] == g * shape[1]), ""
    )
    raise InvalidInput(
        f"weight_hh of {label} has shape {shape}"
        + (f", that of a {other}" if other else "")
        + f"; expected ({gates} n, n), that of a {NAMES[gates]}"
        + (f": use pararnn_solvers.cells.{MODULES[other]}.from_state_dict" if other else "")
    )


MODULES = {"RNN": "elman", "GRU": "gru", "LSTM": "lstm"}


def as_array(name: str, value: Any, dtype: Any) -> Array:
    """Return an array or a tensor as a NumPy array of its own, float32 or float64."""
    if hasattr(value, "detach"):  # a tensor, which may be on a device or be tracked
        value = value.detach().cpu()
        try:
            value = value.numpy()
        except TypeError:  # bfloat16 has no NumPy type
            value = value.float().numpy()
    array = np.array(value, dtype)
    if array.dtype not in (np.float32, np.float64):
        raise InvalidInput(
            f"{name} is {array.dtype}; expected float32 or float64: pass dtype=np.float32"
        )
    return array


def to_state_dict(layers: list[tuple[Theta, ...]], prefix: str = "") -> dict[str, Array]:
    """Return the arrays of all layers under PyTorch's names: the inverse of `from_state_dict`."""
    return {
        f"{prefix}{name}_l{layer}{'_reverse' if reverse else ''}": array
        for layer, thetas in enumerate(layers)
        for reverse, theta in enumerate(thetas)
        for name, array in theta._asdict().items()
    }
