"""PyTorch on the GPU: the cell stepped in Python, compiled or in a CUDA graph, and cuDNN's GRU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pararnn_solvers.bench.cases import drives, state, weights
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.gpu.work import Work, parts_of, shaped
from pararnn_solvers.bench.models import Library, Parts
from pararnn_solvers.linear import cuda

DEVICE = "cuda"
UNROLL = (1, 8)
"""Steps that are compiled together for a graph."""

Rollout = Callable[[Parts, Parts, Parts], list[Any]]


def to_device(v: Any) -> Any:
    """Return a tensor of a host array."""
    import torch

    return torch.tensor(v, device=DEVICE)


def from_device(v: Any) -> Any:
    """Return a tensor's numbers as an array of CuPy, by way of the host."""
    return cuda.cupy().asarray(v.detach().cpu().numpy())


def cell(work: Work) -> Callable[[Parts, Parts, Parts], Parts]:
    """Return a function of the state, of the drives of a step and the weights: the next state."""
    import torch

    return partial(work.case.model.step, Library(torch.sigmoid, torch.tanh))


def rollout(step: Any, h: Parts, u: Parts, w: Parts) -> list[Any]:
    """Return the components of all states."""
    import torch

    found = []
    for row in zip(*(part.unbind() for part in u), strict=True):
        h = step(h, row, w)
        found.append(h)
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def rollout_by(unroll: int, step: Any, h: Parts, u: Parts, w: Parts) -> list[Any]:
    """Return the components of all states, by a function of so many steps."""
    import torch

    found: list[list[Any]] = []
    for rows in zip(*(part.split(unroll) for part in u), strict=True):
        found.append(step(h, rows, w))
        h = tuple(part[-1] for part in found[-1])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def eager(work: Work) -> list[Variant]:
    """Return the loop, each operation a kernel."""
    return [variant(work, partial(rollout, cell(work)))]


def compiled(work: Work) -> list[Variant]:
    """Return the loop over the compiled cell: a kernel a step, and what it takes to launch it."""
    return [variant(work, partial(rollout, optimized(cell(work))))]


def optimized(function: Any) -> Any:
    """Return a function as ``torch.compile`` makes it."""
    import torch

    return torch.compile(function, dynamic=False)


def graph(work: Work) -> list[Variant]:
    """Return the whole loop captured once, so that launches take the host no time."""
    import torch

    if work.case.task == "gradient":
        raise NotComparable("captured without autograd")

    def way(unroll: int) -> Variant:
        run = partial(rollout_by, unroll, optimized(partial(rollout, cell(work))))
        h0, u, w = tensors(work)
        captured = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            run(h0, u, w)  # compiles: not while capturing
            torch.cuda.synchronize()
            with torch.cuda.graph(captured):
                states = run(h0, u, w)

        def call() -> list[Any]:
            captured.replay()
            return states

        return Variant(call, partial(components_of, work), lambda _: f"{unroll} steps compiled")

    return [way(unroll) for unroll in UNROLL if work.case.steps % unroll == 0]


def tensors(work: Work) -> tuple[Parts, Parts, Parts]:
    """Return the state, the drives and the weights."""
    h0, u, w = (tuple(map(to_device, f(work.problem))) for f in (state, drives, weights))
    return h0, u, w


def variant(work: Work, run: Rollout) -> Variant:
    """Return a loop without autograd, or through it."""
    import torch

    h0, u, w = tensors(work)

    def trajectory() -> list[Any]:
        with torch.inference_mode():
            return run(h0, u, w)

    def gradient() -> Any:
        leaves = [v.detach().requires_grad_() for v in (*h0, *u, *w)]
        parts = leaves[: len(h0)], leaves[len(h0) : -len(w)], leaves[-len(w) :]
        found = run(*(tuple(part) for part in parts))
        return torch.autograd.grad(sum(h.square().sum() for h in found) / 2, leaves)

    if work.case.task == "gradient":
        return Variant(gradient, partial(gradients_of, work))
    return Variant(trajectory, partial(components_of, work))


def components_of(work: Work, states: list[Any]) -> Parts:
    """Return states as `work.error` compares them."""
    return shaped(work, [from_device(part) for part in states])


def gradients_of(work: Work, found: Any) -> Parts:
    """Return gradients as `work.error` compares them."""
    k, gates = work.case.model.components, work.case.model.gates
    dh0, du, (da, *_) = found[:k], found[k : k + gates], found[k + gates :]
    return shaped(work, [from_device(v) for v in (da, *du, *dh0)])


def module(work: Work) -> list[Variant]:
    """Return ``torch.nn.GRU``, which is cuDNN's, with the same weights; it makes its own drives."""
    import torch

    if work.case.cell != "dense":
        raise NotComparable("computes another recurrence: its weights are dense")
    (W, b_reset), (x, W_in, b_in) = work.problem.weights, work.problem.raw
    d = work.case.channels
    torch.backends.cudnn.allow_tf32 = False  # 10 bits of a product would not be right
    gru = torch.nn.GRU(1, d, dtype=getattr(torch, work.case.dtype), device=DEVICE)
    bias = torch.zeros_like(gru.bias_hh_l0)
    bias[2 * d :] = to_device(b_reset)
    with torch.no_grad():
        gru.weight_hh_l0.copy_(to_device(W.T))
        gru.weight_ih_l0.copy_(to_device(W_in))
        gru.bias_hh_l0.copy_(bias)
        gru.bias_ih_l0.copy_(to_device(b_in))
    inputs, h0 = to_device(x), to_device(work.problem.h0[None])

    def call() -> Any:
        with torch.inference_mode():
            return gru(inputs, h0)[0]

    return [Variant(call, lambda h: parts_of(from_device(h), 1), lambda _: "with its drives")]
