"""PyTorch on the CPU: a loop over the steps, and ``torch.nn.GRU``."""

from __future__ import annotations

from functools import partial
from typing import Any

from pararnn_solvers.bench.cases import (
    Problem,
    drives,
    join,
    state,
    states_shape,
    weights,
)
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.models import Library, Parts
from pararnn_solvers.linear import threads
from pararnn_solvers.typing import Array


def loop(problem: Problem) -> list[Variant]:
    """Return the loop, without autograd or through it."""
    import torch

    h0, u, w = (tuple(torch.tensor(v) for v in part(problem)) for part in (state, drives, weights))
    if problem.case.task == "gradient":
        call = partial(gradient, problem, h0, u, w)
        return on_threads(Variant(call, partial(gradients, problem)))
    call = partial(trajectory, problem, h0, u, w)
    return on_threads(Variant(call, partial(states, problem)))


def on_threads(variant: Variant) -> list[Variant]:
    """Return a variant on one thread and on all: small tensors lose time among threads."""
    import torch

    def call(count: int) -> Any:
        torch.set_num_threads(count)
        return variant.call()

    def note(count: int, result: Any) -> str:
        return ", ".join(
            filter(None, [variant.note(result), f"{count} thread" + "s" * (count > 1)])
        )

    return [
        Variant(partial(call, count), variant.collect, partial(note, count))
        for count in sorted({1, threads.num_threads()})
    ]


def rollout(problem: Problem, h: Parts, u: Parts, w: Parts) -> list[Any]:
    """Return the components of all states."""
    import torch

    step, lib = problem.case.model.step, Library(torch.sigmoid, torch.tanh)
    rows = zip(*(part.unbind() for part in u), strict=True) if u else [()] * problem.case.steps
    found = []
    for row in rows:
        h = step(lib, h, row, w)
        found.append(h)
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


def trajectory(problem: Problem, h0: Parts, u: Parts, w: Parts) -> list[Any]:
    """Return the components of all states, without autograd."""
    import torch

    with torch.inference_mode():
        return rollout(problem, h0, u, w)


def gradient(problem: Problem, h0: Parts, u: Parts, w: Parts) -> Any:
    """Return the gradients of ``0.5 * sum(h**2)`` by h0, u and weights."""
    import torch

    leaves = [v.detach().requires_grad_() for v in (*h0, *u, *w)]
    parts = (leaves[: len(h0)], leaves[len(h0) : -len(w)], leaves[-len(w) :])
    found = rollout(problem, *(tuple(part) for part in parts))
    return torch.autograd.grad(sum(h.square().sum() for h in found) / 2, leaves)


def states(problem: Problem, result: Any) -> tuple[Array, ...]:
    """Return the states in one array."""
    return (join(result, states_shape(problem)),)


def gradients(problem: Problem, result: Any) -> tuple[Array, ...]:
    """Return the gradients by the weights, the drives and h0."""
    dh0, *du, da = result
    assert problem.u is not None
    return (
        join([da], problem.weights[0].shape),
        join(du, problem.u.shape),
        join([dh0], problem.h0.shape),
    )


def module(problem: Problem) -> list[Variant]:
    """Return ``torch.nn.GRU`` with the same weights; it makes its drives itself, of one input."""
    import torch

    if problem.case.cell != "dense":
        raise NotComparable("computes another recurrence: its weights are dense")
    (W, b_reset), (x, W_in, b_in) = problem.weights, problem.raw
    d = problem.case.channels
    gru = torch.nn.GRU(1, d, dtype=getattr(torch, problem.case.dtype))
    bias = torch.zeros(3 * d, dtype=gru.bias_hh_l0.dtype)
    bias[2 * d :] = torch.tensor(b_reset)
    with torch.no_grad():
        gru.weight_hh_l0.copy_(torch.tensor(W.T))
        gru.weight_ih_l0.copy_(torch.tensor(W_in))
        gru.bias_hh_l0.copy_(bias)
        gru.bias_ih_l0.copy_(torch.tensor(b_in))
    inputs, h0 = torch.tensor(x), torch.tensor(problem.h0[None])

    def call() -> Any:
        with torch.inference_mode():
            return gru(inputs, h0)[0]

    return on_threads(
        Variant(call, lambda result: (result.numpy(),), lambda result: "with its drives")
    )
