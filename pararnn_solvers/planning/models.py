"""Cells, blocks and the sizes that have names: what a model is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pararnn_solvers.checks import require_number, require_whole
from pararnn_solvers.errors import InvalidInput

KERNEL = 4  # steps that the convolution sees


class Cell(NamedTuple):
    """What a channel of a cell has, and what one step of it takes.

    Attributes
    ----------
    components, gates : int
        Numbers in the state and in the drives.
    weights : int
        Numbers of recurrent weights and biases.
    step, linearized, adjoint : int
        Operations of f, of f with its Jacobian, and of the products with all derivatives, sums
        over time included. Each sum, product and function (sigmoid, tanh) is one, as in a trace.

    Examples
    --------
    >>> CELLS['diagonal_gru'].gates
    3
    """

    components: int
    gates: int
    weights: int
    step: int
    linearized: int
    adjoint: int

    @property
    def iteration(self) -> int:
        """Operations of one Newton iteration: linearize, residual, one step of the scan."""
        k = self.components
        return self.linearized + k + 2 * k * k

    @property
    def stored(self) -> int:
        """Numbers kept for the gradients: drives and states. Gates and Jacobians are not."""
        return self.gates + self.components

    def moved(self, iterations: int) -> int:
        """Return the numbers read and written by a forward solve.

        One pass (``iterations=0``) reads drives and writes states. A Newton iteration reads both,
        writes the Jacobian and a right-hand side, and the scan reads these and writes states.
        """
        k = self.components
        return iterations * (self.stored + 2 * (k * k + k) + k) if iterations else self.stored

    @property
    def moved_back(self) -> int:
        """Numbers read and written by the gradients: u, h, dL/dh; dL/du."""
        return 2 * self.stored


CELLS = {
    "diagonal_gru": Cell(1, 3, weights=6, step=13, linearized=30, adjoint=38),
    "diagonal_lstm": Cell(2, 3, weights=8, step=19, linearized=51, adjoint=58),
}


def require_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise InvalidInput unless a value is one of those known, all of which it lists."""
    if value not in known:
        raise InvalidInput(f"{name} is {value!r}; expected one of {', '.join(known)}")


@dataclass(frozen=True)
class Model:
    """A language model.

    Parameters
    ----------
    width, layers : int
    cell : str
        A key of ``CELLS``.
    heads : int
        Of the cell's input matrices.
    inner : int, optional
        Width of the gated MLP; default 8/3 of the width, rounded up to a multiple of 256.
    vocabulary : int

    Raises
    ------
    InvalidInput

    Examples
    --------
    >>> Model(1024, 24).width
    1024
    """

    width: int
    layers: int
    cell: str = "diagonal_gru"
    heads: int = 2
    inner: int | None = None
    vocabulary: int = 50432

    def __post_init__(self) -> None:
        """Refuse what is no size."""
        for name in ("width", "layers", "heads", "vocabulary"):
            require_whole(name, getattr(self, name))
        require_one_of("cell", self.cell, CELLS)
        if self.width % self.heads:
            raise InvalidInput(
                f"width is {self.width}, not a multiple of heads = {self.heads}; "
                f"pass width={-(-self.width // self.heads) * self.heads}, or other heads"
            )
        if self.inner is None:
            object.__setattr__(self, "inner", -(-8 * self.width // (3 * 256)) * 256)
        require_whole("inner", self.inner)

    @property
    def parts(self) -> dict[str, Part]:
        """What each part of one layer takes."""
        d, r, cell = self.width, self.inner or 0, CELLS[self.cell]
        return {
            "norm": Part(d, 0, d),
            "input projection": Part(2 * d * d, 4 * d * d, d),
            "convolution, silu": Part((KERNEL + 1) * d, 2 * KERNEL * d, 2 * d),
            "drives": Part(
                cell.gates * d * d // self.heads, 2 * cell.gates * d * d // self.heads, d
            ),
            "recurrence": Part(cell.weights * d, 0, 0, cell.stored * d),
            "gate, norm": Part(d, 0, 3 * d),
            "output projection": Part(d * d, 2 * d * d, d),
            "norm of MLP": Part(d, 0, d),
            "gated MLP": Part(3 * d * r, 6 * d * r, d + 4 * r),
        }

    @property
    def layer(self) -> Part:
        """What one layer takes."""
        return Part(*(sum(column) for column in zip(*self.parts.values(), strict=True)))

    @property
    def parameters(self) -> int:
        """All of them: layers, last norm, embedding and output."""
        return self.layers * self.layer.parameters + self.width * (1 + 2 * self.vocabulary)


class Part(NamedTuple):
    """Of a part of a layer, a token: parameters; FLOPs of its linear maps; numbers stored.

    ``activations`` are stored in the precision of the products, ``states`` in float32.
    """

    parameters: int
    flops: int
    activations: int
    states: int = 0


class Precision(NamedTuple):
    """Bytes of a number: weights with their copies, gradients, moments, activations."""

    weights: int
    gradients: int
    moments: int
    activations: int


MODELS = {
    "400M": Model(1024, 24),
    "1B": Model(2048, 24),
    "2.9B": Model(2560, 32),
    "7B": Model(4096, 32),
}
"""The paper's names; widths and depths are assumed, see ``docs/scaling.md``."""

NOMINAL = {"400M": 400e6, "1B": 1e9, "2.9B": 2.9e9, "7B": 7e9}
PRECISIONS = {"float32": Precision(4, 4, 4, 4), "mixed": Precision(4 + 2, 4, 4, 2)}
KEEP = ("all", "inputs")


def nearest(params: float) -> str:
    """Return the name of the model whose nominal size is nearest, within a factor of two.

    Raises
    ------
    InvalidInput

    Examples
    --------
    >>> nearest(7e9)
    '7B'
    """
    require_number("params", params, lambda value: value > 0, "a number of parameters such as 7e9")
    name = min(NOMINAL, key=lambda key: abs(math.log(NOMINAL[key] / params)))
    if not 0.5 <= NOMINAL[name] / params <= 2:
        raise InvalidInput(
            f"params is {params:.3g}; expected one of {', '.join(MODELS)}, to a factor of two: "
            "give --width and --layers, or Model(width, layers), for another size"
        )
    return name
