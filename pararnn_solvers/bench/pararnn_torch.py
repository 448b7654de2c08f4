"""The PyPI package ``pararnn-torch`` (imported as ``pararnn``), which on the CPU runs eagerly.

Its fused kernels need a GPU. Its cells project their inputs; here the projection is the identity,
so that it starts from the same drives as the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.bench.cases import Problem
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.torch_loop import on_threads
from pararnn_solvers.typing import Array

MAX_ITER = 100
WEIGHTS = {"gru": (("a_z", "a_r", "a_n"),), "lstm": (("a_f", "a_z", "a_o"), ("c_f", "c_o"))}


def newton(problem: Problem) -> list[Variant]:
    """Return its ``newton_apply`` to the tolerance of this package."""
    import pararnn
    import torch

    case = problem.case
    if case.task == "gradient":
        raise NotComparable("differentiates its input projection as well, which others do not")
    if case.cell not in WEIGHTS:
        raise NotComparable("has no such cell")
    cell = build(problem)
    n, k = case.channels, case.model.components
    assert problem.u is not None
    u = torch.tensor(problem.u.reshape(case.steps, -1, 3 * n).swapaxes(0, 1).copy())
    h0 = torch.tensor(problem.h0.reshape((-1, n) if k == 1 else (-1, k, n)))
    config = pararnn.NewtonConfig(
        max_iters=MAX_ITER,
        scan_backend="eager",
        residual_atol=float(np.finfo(case.dtype).eps) ** 0.75,
        residual_fail=None,
    )
    stats = pararnn.NewtonStats()

    def call() -> Any:
        with torch.no_grad():
            return pararnn.newton_apply(cell, u, config, h0=h0, stats=stats)

    def collect(result: Any) -> tuple[Array, ...]:
        return (result.numpy().swapaxes(0, 1).reshape(case.steps, *problem.h0.shape),)

    return on_threads(Variant(call, collect, lambda result: f"eager, {stats.iters} iterations"))


def build(problem: Problem) -> Any:
    """Return its cell with our weights, and no projection of inputs."""
    import pararnn
    import torch

    case = problem.case
    kind = pararnn.ParaGRU if case.cell == "gru" else pararnn.ParaLSTM
    cell = kind(
        3 * case.channels,
        case.channels,
        max_recurrent_norm=None,
        dtype=getattr(torch, case.dtype),
    )
    cell.W_x = torch.nn.Identity()
    with torch.no_grad():
        for names, rows in zip(WEIGHTS[case.cell], problem.weights, strict=True):
            for name, row in zip(names, rows, strict=True):
                getattr(cell, name).copy_(torch.tensor(row))
    return cell
