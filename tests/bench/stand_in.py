"""A stand-in for the package ``pararnn``, which needs a GPU's PyTorch to be installed.

It has the names, the shapes and the equations by which the contestants call it, and takes the steps
in a loop. Fewer iterations than `NEEDED` give wrong states, as Newton's method would.
"""

from types import ModuleType, SimpleNamespace

import torch

from pararnn_solvers.bench import models

NEEDED = 4
LIBRARY = models.Library(torch.sigmoid, torch.tanh)


class Cell(torch.nn.Module):
    """Vectors of weights by name, and a projection of the inputs onto three gates."""

    def __init__(self, inputs, n, *, max_recurrent_norm, dtype=torch.float32):
        super().__init__()
        assert max_recurrent_norm is None  # else it would compute with other weights
        for name in (name for names in self.names for name in names):
            setattr(self, name, torch.nn.Parameter(torch.full((n,), torch.nan, dtype=dtype)))
        self.W_x = torch.nn.Linear(inputs, 3 * n, dtype=dtype)

    def weights(self):
        return tuple([getattr(self, name) for name in names] for names in self.names)


class ParaGRU(Cell):
    names = (("a_z", "a_r", "a_n"),)
    step = staticmethod(models.gru)


class ParaLSTM(Cell):
    names = (("a_f", "a_z", "a_o"), ("c_f", "c_o"))
    step = staticmethod(models.lstm)


def newton_apply(cell, x, config, *, h0=None, stats=None):
    """Return the states (B, T, *h0.shape[1:]) from inputs (B, T, m)."""
    drives = cell.W_x(x).unbind(1)
    if h0 is None:
        h0 = torch.zeros_like(drives[0][:, : len(cell.a_z)])
    h, states = h0.unbind(1) if h0.ndim == 3 else (h0,), []
    for u in drives:
        h = cell.step(LIBRARY, h, u.chunk(3, -1), cell.weights())
        states.append(torch.stack(h, 1).reshape(h0.shape))
    if stats is not None:
        stats.iters, stats.scan_backend = min(config.max_iters, NEEDED), "stand-in"
    return torch.stack(states, 1) * (1 if config.max_iters >= NEEDED else 2)


def pararnn():
    """Return the module."""
    module = ModuleType("pararnn")
    module.ParaGRU, module.ParaLSTM, module.newton_apply = ParaGRU, ParaLSTM, newton_apply
    module.NewtonConfig = module.NewtonStats = SimpleNamespace
    return module
