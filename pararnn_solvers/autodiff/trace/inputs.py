"""The scalar arguments of a traced step, and the arrays of them that it is called with."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.arrays import Context, Traced
from pararnn_solvers.autodiff.trace.channels import refuse_large

__all__ = ["Input", "argument", "parameters"]


class Input(NamedTuple):
    """One scalar argument of a traced step, per channel or shared by all.

    Attributes
    ----------
    name : str
        A Python identifier: ``h0``, ``x2``, ``theta_a1``, ``adjoint0``.
    group : {"h", "x", "theta", "adjoint"}
    leaf : int
        Number of the leaf of theta, in the order of ``tree.flatten``; 0 in the other groups.
    position : tuple of int
        Where it is in the array: component for a channel axis, otherwise entry.
    channels : int
        n if there is a value for each channel, 0 if one value serves all.
    """

    name: str
    group: str
    leaf: int
    position: tuple[int, ...]
    channels: int

    def pick(self, array: Any) -> Any:
        """View the values in the array: (..., n) if there is one per channel.

        A shared entry of x or h has shape (..., 1), and one of theta shape ().
        """
        array = array if hasattr(array, "shape") else np.asarray(array)
        if self.group == "theta" and not self.channels:
            return array[self.position]
        n = self.channels or 1
        *index, last = self.position
        lead = index if self.group == "theta" else [Ellipsis]
        return array[(*lead, slice(last * n, (last + 1) * n))]

    def add(self, array: Any, values: Any) -> None:
        """Add values, one per channel, to where this input is in an array of its leaf's shape."""
        if self.channels:
            self.pick(array)[...] += values
        else:
            array[self.position] += np.sum(values)

    def __str__(self) -> str:
        return self.name


def argument(context: Context, group: str, size: int) -> Traced:
    """Return the array h or x: components of n channels, or numbers for all of them."""
    n = context.channels
    per_channel = size % n == 0
    extent = (size // n if per_channel else size,)
    refuse_large(extent, group)
    cells = np.empty(extent, object)
    for i in range(*extent):
        cells[i] = context.graph.input(
            Input(f"{group}{i}", group, 0, (i,), n if per_channel else 0)
        )
    cells.flags.writeable = False
    return Traced(context, cells, 0 if per_channel and n > 1 else None)


def parameters(context: Context, theta: Any) -> tuple[list[Any], tuple[tuple[str, Any], ...]]:
    """Replace the floats of theta by traced arrays, made when step first uses them."""
    leaves, constants, names = list[Any](), [], set[str]()
    for i, (path, leaf) in enumerate(zip(tree.paths(theta), tree.flatten(theta)[0], strict=True)):
        if not tree.is_differentiable(leaf):
            leaves.append(leaf)
            constants.append((path, leaf))
            continue
        leaves.append(_leaf(context, path, i, np.shape(leaf), names))
    return leaves, tuple(constants)


def _leaf(
    context: Context, path: str, leaf: int, shape: tuple[int, ...], names: set[str]
) -> Traced:
    n = context.channels
    per_channel = n > 1 and len(shape) > 0 and shape[-1] % n == 0
    extent = (*shape[:-1], shape[-1] // n) if per_channel else shape
    channels = n if per_channel else 0

    def load() -> Any:
        refuse_large(extent, f"{path}, an array")
        cells = np.empty(extent, object)
        for index in np.ndindex(extent):
            shown = index[:-1] if per_channel and extent[-1] == 1 else index
            name = _identifier(path, shown, names)
            cells[index] = context.graph.input(Input(name, "theta", leaf, index, channels))
        cells.flags.writeable = False
        return cells

    return Traced(context, load, len(shape) - 1 if per_channel else None, extent)


def _identifier(path: str, index: tuple[int, ...], taken: set[str]) -> str:
    """Write ``theta.a[1]`` as ``theta_a1``; an underscore tells apart what would be the same."""
    name = re.sub(r"\W+", "_", path).strip("_")
    name += ("_" if index and name[-1].isdigit() else "") + "_".join(map(str, index))
    while name in taken:
        name += "_"
    taken.add(name)
    return name
