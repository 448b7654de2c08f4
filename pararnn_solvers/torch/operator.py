"""A solve as an operator of PyTorch, which its autograd and its compiler know.

Two operators: ``solve`` and its adjoint ``solve_adjoint``, each with the shapes of what it returns.
They share memory with the arrays that they hand to the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

import pararnn_solvers as prs
from pararnn_solvers import tree
from pararnn_solvers.errors import InvalidInput, NotDifferentiable
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sensitivities.leaves import matching_leaves
from pararnn_solvers.torch.exchange import as_array, as_tensor, current_stream
from pararnn_solvers.torch.problem import Problem, known
from pararnn_solvers.validation import as_recurrence

__all__ = ["solve", "solve_problem"]

Tensor = Any  # torch.Tensor, where PyTorch is not there to check it
Tensors = Sequence[Any]

ARGUMENTS = (
    "Tensor? x, Tensor h0, Tensor[] theta, Tensor? lengths, Tensor? resets, SymInt steps, int key"
)


def solve(
    recurrence: Recurrence | Callable[..., Any],
    x: Tensor | None,
    h0: Tensor,
    theta: Any = None,
    *,
    steps: int | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    on_failure: str = "raise",
    **options: Any,
) -> Tensor:
    """Return the states ``h_t = step(h_{t-1}, x_t, theta)`` for all t, differentiable in all three.

    What :func:`pararnn_solvers.solve` computes, with its gradients from
    :func:`pararnn_solvers.gradients`, exact at the returned states.

    Parameters
    ----------
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, written with NumPy: it sees arrays that share the tensors' memory.
    x : tensor, shape (T, *batch, m), or None
        float32 or float64, on the CPU or a CUDA device. None for a recurrence without input: then
        give `steps`.
    h0 : tensor, shape (*batch, d)
    theta : nested containers of tensors and numbers, optional
        Gradients are for tensors; with more than 256 entries they need kernels or a ``vjp=``.
    steps, lengths, resets
        As of :func:`pararnn_solvers.solve`; the latter two as tensors.
    on_failure : {"raise", "sequential"}
        Raise, or compute the sequences step by step where the method fails.
    **options
        ``method``, ``backend``, ``guess``, ``atol``, ``rtol``, ``max_iter``, ``compiled`` and
        ``progress`` of :func:`pararnn_solvers.solve`.

    Returns
    -------
    tensor, shape (T, *batch, d)

    Raises
    ------
    InvalidInput, ConvergenceError, BackendUnavailable
        As :func:`pararnn_solvers.solve`.

    Notes
    -----
    Cost: a solve; the backward pass is that of :func:`pararnn_solvers.gradients`. Between them
    x, h0, theta and the states are kept, nothing else. Differentiable once.

    Examples
    --------
    >>> import numpy as np, torch
    >>> a = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    >>> x = torch.ones(3, 1, dtype=torch.float64)
    >>> h = solve(lambda h, x, a: a * h + x, x, torch.zeros(1, dtype=torch.float64), a)
    >>> h.sum().backward()  # of 1 + (1 + a) + (1 + a + a**2)
    >>> a.grad
    tensor([3.], dtype=torch.float64)
    """
    leaves, rebuild = tree.flatten(theta)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def whole(arrays: Sequence[Any]) -> Any:
        given = iter(arrays)
        return rebuild([next(given) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves])

    if x is None and steps is None:
        raise InvalidInput("x is None and steps is None; pass steps=T, the steps to take")
    problem = Problem(as_recurrence(recurrence), whole, on_failure, options)
    return solve_problem(problem, x, h0, tensors, lengths=lengths, resets=resets, steps=steps)


def solve_problem(
    problem: Problem,
    x: Tensor | None,
    h0: Tensor,
    theta: Tensors,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    steps: int | None = None,
) -> Tensor:
    """Return the states of a problem, shape (T, *batch, d), from the leaves of its theta."""
    count = (steps or 0) if x is None else x.shape[0]
    return _solve(x, h0, theta, lengths, resets, count, problem.key)


def forward(
    x: Tensor | None,
    h0: Tensor,
    theta: Tensors,
    lengths: Tensor | None,
    resets: Tensor | None,
    steps: int,
    key: int,
) -> Tensor:
    """Return the states: what the operator ``solve`` runs."""
    with current_stream(h0):
        given = as_array(x), as_array(h0), [as_array(leaf) for leaf in theta]
        where = {"lengths": as_array(lengths), "resets": as_array(resets), "steps": steps}
        return as_tensor(known(key).solve(*given, **where))


def adjoint(
    dh: Tensor,
    h: Tensor,
    x: Tensor | None,
    h0: Tensor,
    theta: Tensors,
    lengths: Tensor | None,
    resets: Tensor | None,
    steps: int,
    key: int,
) -> list[Tensor]:
    """Return the gradients by h0, the real leaves of theta, and x: what ``solve_adjoint`` runs."""
    problem = known(key)
    with current_stream(h0):
        given = as_array(x), as_array(h0), [as_array(leaf) for leaf in theta]
        where = {"lengths": as_array(lengths), "resets": as_array(resets), "steps": steps}
        found = prs.gradients(problem.solution(as_array(h), *given, **where), as_array(dh))
        by_leaves = of_tensors(problem.rebuild(given[2]), given[2], found.theta)
        return [as_tensor(a) for a in (found.h0, *by_leaves, found.x) if a is not None]


def of_tensors(theta: Any, leaves: list[Any], dtheta: Any) -> list[Any]:
    """Return those entries of the gradient by theta that belong to tensors, and not to numbers."""
    own = set(map(id, leaves))
    pairs = zip(tree.flatten(theta)[0], matching_leaves(theta, dtheta), strict=True)
    return [found for leaf, found in pairs if id(leaf) in own]


def empty_states(x: Tensor | None, h0: Tensor, *others: Any) -> Tensor:
    """Return a tensor like those that ``solve`` returns."""
    return h0.new_empty((others[3], *h0.shape))


def empty_gradients(
    dh: Tensor, h: Tensor, x: Tensor | None, h0: Tensor, theta: Tensors, *others: Any
) -> list[Tensor]:
    """Return tensors like those that ``solve_adjoint`` returns."""
    made = [h0, *filter(is_real, theta), *([] if x is None else [x])]
    return [like.new_empty(like.shape) for like in made]


def is_real(leaf: Tensor) -> bool:
    """Tell whether a tensor is one that has a gradient."""
    return bool(leaf.is_floating_point())


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep for the backward pass what it needs."""
    x, h0, theta, lengths, resets, steps, key = inputs
    ctx.save_for_backward(output, x, h0, lengths, resets, *theta)
    ctx.steps, ctx.problem = steps, known(key)


def backward(ctx: Any, dh: Tensor) -> tuple[Any, ...]:
    """Return the gradients by the arguments of ``solve``."""
    h, x, h0, lengths, resets, *theta = ctx.saved_tensors
    found = _adjoint(dh, h, x, h0, theta, lengths, resets, ctx.steps, ctx.problem.key)
    dx = None if x is None else found[-1]
    real = iter(found[1:])
    dtheta = [next(real) if is_real(leaf) else None for leaf in theta]
    return dx, found[0], dtheta, None, None, None, None


def refuse(ctx: Any, *grads: Any) -> None:
    """Raise NotDifferentiable: there are no second derivatives."""
    raise NotDifferentiable(
        "the gradients of a solve cannot be differentiated again; expected first derivatives: "
        "leave out create_graph=True"
    )


_solve = torch.library.custom_op(
    "pararnn_solvers::solve", forward, mutates_args=(), schema=f"({ARGUMENTS}) -> Tensor"
)
_adjoint = torch.library.custom_op(
    "pararnn_solvers::solve_adjoint",
    adjoint,
    mutates_args=(),
    schema=f"(Tensor dh, Tensor h, {ARGUMENTS}) -> Tensor[]",
)
_solve.register_fake(empty_states)
_adjoint.register_fake(empty_gradients)
_solve.register_autograd(backward, setup_context=keep)
_adjoint.register_autograd(refuse)
