"""The PyPI package ``pararnn-torch`` on the GPU, by its fused Triton kernels.

It iterates a given number of times, three unless told otherwise. That is tried first; where the
answer is not right, more are.
"""

from __future__ import annotations

from typing import Any

from pararnn_solvers.bench import pararnn_torch
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.gpu.torch_loop import DEVICE, from_device, to_device
from pararnn_solvers.bench.gpu.work import Work, error, parts_of
from pararnn_solvers.bench.models import Parts

ITERATIONS = (3, 5, 10)


def newton(work: Work) -> list[Variant]:
    """Return its ``newton_apply`` with the fewest iterations whose answer is right."""
    if work.case.cell not in pararnn_torch.WEIGHTS:
        raise NotComparable("has no such cell")
    if work.case.dtype != "float32":
        raise NotComparable("its fused kernels compute in float32")
    ways = [iterated(work, count) for count in ITERATIONS]
    for way in ways:
        if error(work, way.collect(way.call())) <= work.case.allowed:
            return [way]
    return ways[-1:]


def iterated(work: Work, count: int) -> Variant:
    """Return so many iterations."""
    import pararnn
    import torch

    case, problem = work.case, work.problem
    assert problem.u is not None
    n, k = case.channels, case.model.components
    network = pararnn_torch.build(problem).to(DEVICE)
    u = to_device(problem.u.reshape(case.steps, -1, 3 * n).swapaxes(0, 1).copy())
    h0 = to_device(problem.h0.reshape((-1, n) if k == 1 else (-1, k, n)))
    config = pararnn.NewtonConfig(max_iters=count, residual_atol=None, residual_fail=None)
    stats = pararnn.NewtonStats()

    def call() -> Any:
        with torch.no_grad():
            return pararnn.newton_apply(network, u, config, h0=h0, stats=stats)

    def collect(result: Any) -> Parts:
        states = from_device(result.swapaxes(0, 1)).reshape(case.steps, *work.h0.shape)
        return parts_of(states, k)

    return Variant(call, collect, lambda _: f"{stats.scan_backend}, {count} iterations")
