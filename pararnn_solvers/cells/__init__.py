"""Recurrent cells, one module each: a recurrence, its drives, its outputs, its initialization.

===================  ===========================================  ==========  ==================
cell                 recurrent weights                            Jacobian    source
===================  ===========================================  ==========  ==================
``elman``            dense, tanh or rectified (torch.nn.RNN)      dense       Elman 1990
``gru``              dense (torch.nn.GRU)                         dense       Cho et al. 2014
``lstm``             dense (torch.nn.LSTM), state ``[c | y]``     dense       Hochreiter 1997
``block_gru``        dense within heads                           k x k       Cho et al. 2014
``diagonal_gru``     diagonal (ParaGRU)                           diagonal    arXiv 2510.21450
``diagonal_lstm``    diagonal, peepholes (ParaLSTM)               2 x 2       arXiv 2510.21450
``slstm``            diagonal, exponential gates (xLSTM)          3 x 3       arXiv 2405.04517
``selective_ssm``    none: linear in the state (Mamba)            diagonal    arXiv 2312.00752
``min_gru``          none: linear in the state                    diagonal    arXiv 2410.01201
===================  ===========================================  ==========  ==================

Every module has

``Theta``
    A NamedTuple of parameters.
``init(rng, inputs, channels, ..., dtype=)``
    Draws them.
``project(x, theta)``
    The drives u of inputs x, for all steps at once: what does not depend on the state.
``step(h, u, theta)``
    The next state, and ``recurrence`` around it: what :func:`pararnn_solvers.solve` takes.
``output(h, x, theta)``
    What a layer above sees; only ``selective_ssm`` reads x and theta for it.
``initial_state(theta, batch)``
    The state of an empty memory.
``project_vjp(x, theta, du)``, ``output_vjp(dy, h, x, theta)``
    The two products with which the chain rule goes on where ``gradients`` ends and begins.

Nonlinear cells with diagonal weights also have ``clip_recurrent(theta, bound)``, dense ones
``jacobian``, ``diagonal`` and ``from_state_dict``. Stacks of layers are in ``stack``.
"""

from __future__ import annotations

import importlib
from typing import Any

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence

__all__ = ["CELLS", "load", "recurrence_of"]

CELLS: dict[str, str] = {
    name: f"pararnn_solvers.cells.{name}"
    for name in (
        *("elman", "gru", "lstm", "block_gru", "diagonal_gru", "diagonal_lstm", "slstm"),
        *("selective_ssm", "min_gru"),
    )
}
"""Name of every cell -> its module, imported by :func:`load` on first use."""


def load(name: Any) -> Any:
    """Return the module of the cell of that name; a module is returned as it is.

    Raises
    ------
    InvalidInput
        Lists the names there are.

    Examples
    --------
    >>> load("diagonal_gru").recurrence.block_size
    1
    """
    if not isinstance(name, str):
        return name
    if name not in CELLS:
        raise InvalidInput(f"cell is {name!r}; expected one of {', '.join(CELLS)}, or a module")
    return importlib.import_module(CELLS[name])


def recurrence_of(cell: Any, theta: Any) -> Recurrence:
    """Return the recurrence of a cell with these parameters, whose sizes may decide its structure.

    Parameters
    ----------
    cell : str or module
    theta : NamedTuple
        Parameters of that cell.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> theta = load('block_gru').init(np.random.default_rng(0), 3, 8, heads=2)
    >>> recurrence_of('block_gru', theta).block_size
    4
    """
    found: Any = load(cell).recurrence
    made: Recurrence = found if isinstance(found, Recurrence) else found(theta)
    return made
