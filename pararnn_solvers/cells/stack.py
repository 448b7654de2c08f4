"""Layers of cells on top of one another, in one or in both directions of time.

A stack is a list of layers, a layer a tuple of one theta or of two, the second of which reads the
sequence backwards; this is what ``from_state_dict`` returns. A layer sees the outputs of the layer
below, those of both directions joined: the conventions of ``torch.nn.GRU`` and its kin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import cells
from pararnn_solvers.checks import require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

Layers = Sequence[Sequence[Any]]


class Stacked(NamedTuple):
    """The outputs of a stack, and what they are made of.

    Attributes
    ----------
    y : array, shape (T, *batch, directions * n)
        Outputs of the last layer.
    final : array, shape (layers * directions, *batch, d)
        States after the last step each layer and direction takes, in PyTorch's order.
    solutions : list of tuples of Solution
        Nested as the layers are; trajectories of reverse directions run backwards.
    inputs : list of arrays
        What each layer saw: x, and the outputs of the layers below.
    """

    y: Array
    final: Array
    solutions: list[tuple[Any, ...]]
    inputs: list[Array]


def init(
    cell: Any,
    rng: np.random.Generator,
    inputs: int,
    channels: int,
    *,
    layers: int = 1,
    directions: int = 1,
    **options: Any,
) -> list[tuple[Any, ...]]:
    """Draw the parameters of a stack; `options` are those of the cell's own `init`."""
    require_whole("layers", layers)
    if directions not in (1, 2):
        raise InvalidInput(f"directions is {directions!r}; expected 1, or 2 for both")
    module = cells.load(cell)
    sizes = [inputs] + [directions * channels] * (layers - 1)
    return [
        tuple(module.init(rng, size, channels, **options) for _ in range(directions))
        for size in sizes
    ]


def apply(
    cell: Any,
    layers: Layers,
    x: Array,
    h0: Array | None = None,
    *,
    recurrence: Recurrence | None = None,
    **options: Any,
) -> Stacked:
    """Return the outputs of a stack of layers, each solved for all steps at once.

    Parameters
    ----------
    cell : str or module
    layers : sequence of sequences of Theta
    x : array, shape (T, *batch, m)
        Time first, of the dtype of the parameters.
    h0 : array, shape (layers * directions, *batch, d), optional
        Initial states in PyTorch's order: the directions of the first layer, then of the next. None
        starts each from the cell's `initial_state`.
    recurrence : Recurrence, optional
        In place of the cell's own, such as ``elman.rectified``.
    **options
        Of :func:`pararnn_solvers.solve`. In float32 its default tolerance leaves errors of some
        1e-6; ``atol=3e-7, rtol=3e-7`` gives the outputs of PyTorch to 1e-6.

    Returns
    -------
    Stacked

    Notes
    -----
    Cost: one solve for each layer and direction.

    Examples
    --------
    >>> layers = init("gru", np.random.default_rng(0), 3, 4, layers=2, directions=2)
    >>> apply("gru", layers, np.ones((10, 3))).y.shape
    (10, 8)
    """
    module, x = cells.load(cell), np.asarray(x)
    states = starting_states(module, layers, x, h0)
    solutions, inputs, final = [], [], []
    for thetas in layers:
        inputs.append(x)
        made = []
        for theta, seen in zip(thetas, in_time(x, thetas), strict=True):
            chosen = recurrence or cells.recurrence_of(module, theta)
            u, start = module.project(seen, theta), states.pop(0)
            made.append(prs.solve(chosen, u, start, theta, **options))
            final.append(made[-1].h[-1] if len(x) else start)
        solutions.append(tuple(made))
        x = joined(module, thetas, inputs[-1], made)
    return Stacked(x, np.stack(final), solutions, inputs)


def gradients(
    cell: Any, layers: Layers, stacked: Stacked, dy: Array
) -> tuple[list[tuple[Any, ...]], Array, Array]:
    """Return the gradients of a loss by the parameters of a stack, by its inputs and its states h0.

    Parameters
    ----------
    cell, layers
        As in `apply`.
    stacked : Stacked
        What `apply` returned.
    dy : array, of the shape of ``stacked.y``
        Derivatives of the loss by the outputs.

    Returns
    -------
    dlayers : nested as layers
    dx : array, of the shape of x
    dh0 : array, shape (layers * directions, *batch, d)

    Notes
    -----
    Cost: one linear recurrence for each layer and direction.
    """
    module = cells.load(cell)
    dlayers: list[tuple[Any, ...]] = []
    dh0: list[Array] = []
    for thetas, solutions, x in zip(
        reversed(layers), reversed(stacked.solutions), reversed(stacked.inputs), strict=True
    ):
        dx, dthetas, starts = np.zeros_like(x), [], []
        parts = np.split(dy, len(thetas), axis=-1)
        for r, (theta, solution) in enumerate(zip(thetas, solutions, strict=True)):
            seen, along = in_order(x, r), in_order(parts[r], r)
            dseen, dtheta, start = layer_gradients(module, theta, solution, seen, along)
            dx += in_order(dseen, r)
            dthetas.append(dtheta)
            starts.append(start)
        dlayers.insert(0, tuple(dthetas))
        dh0 = starts + dh0
        dy = dx
    return dlayers, dy, np.stack(dh0)


def layer_gradients(
    module: Any, theta: Any, solution: Any, x: Array, dy: Array
) -> tuple[Array, Any, Array]:
    """Return the gradients by the inputs, the parameters and the first state of one solve."""
    dh, dx_out, by_output = module.output_vjp(dy, solution.h, x, theta)
    by_solve = prs.gradients(solution, np.ascontiguousarray(dh))
    dx, by_drives = module.project_vjp(x, theta, by_solve.x)
    total = [np.add(*pair) for pair in zip(by_solve.theta, by_drives, strict=True)]
    if by_output is not None:
        dx = dx + dx_out
        total = [np.add(*pair) for pair in zip(total, by_output, strict=True)]
    return dx, type(theta)(*total), by_solve.h0


def in_order(a: Array, reverse: int) -> Array:
    """Return an array along time, or against it."""
    return np.ascontiguousarray(a[::-1]) if reverse else a


def in_time(x: Array, thetas: Sequence[Any]) -> list[Array]:
    """Return the inputs as each direction of a layer reads them."""
    return [in_order(x, reverse) for reverse in range(len(thetas))]


def joined(module: Any, thetas: Sequence[Any], x: Array, solutions: Sequence[Any]) -> Array:
    """Return the outputs of a layer, those of both directions side by side."""
    outputs = [
        in_order(module.output(solution.h, seen, theta), r)
        for r, (solution, seen, theta) in enumerate(
            zip(solutions, in_time(x, thetas), thetas, strict=True)
        )
    ]
    return np.concatenate(outputs, axis=-1)


def starting_states(module: Any, layers: Layers, x: Array, h0: Array | None) -> list[Array]:
    """Return the initial states of each layer and direction, with their shapes checked.

    Raises
    ------
    InvalidInput
    """
    if x.ndim < 2:
        raise InvalidInput(f"x has shape {x.shape}; expected (T, *batch, m), time first")
    thetas = [theta for layer in layers for theta in layer]
    default = [module.initial_state(theta, x.shape[1:-1]) for theta in thetas]
    if h0 is None:
        return default
    h0 = np.asarray(h0)
    if h0.shape != (expected := (len(default), *default[0].shape)):
        raise InvalidInput(
            f"h0 has shape {h0.shape}; expected (layers * directions, *batch, d) = {expected}, for "
            f"{len(layers)} layer(s) of {len(layers[0])} direction(s) and x of shape {x.shape}"
        )
    return list(h0)
