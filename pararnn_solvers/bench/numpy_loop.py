"""The NumPy loop over the steps: slow, plain, and what all others must agree with."""

from __future__ import annotations

import numpy as np

from pararnn_solvers.bench.cases import Problem, states_shape
from pararnn_solvers.bench.contestants import Variant
from pararnn_solvers.typing import Array


def loop(problem: Problem) -> list[Variant]:
    """Return the loop, forwards, or forwards and backwards."""
    call = gradient if problem.case.task == "gradient" else trajectory
    return [Variant(lambda: call(problem), tuple)]


def trajectory(problem: Problem) -> tuple[Array, ...]:
    """Return the states, one step after another."""
    step, theta, h, u = problem.case.model.recurrence.step, problem.theta, problem.h0, problem.u
    states = np.empty(states_shape(problem), h.dtype)
    for t in range(len(states)):
        states[t] = h = step(h, None if u is None else u[t], theta)
    return (states,)


def gradient(problem: Problem) -> tuple[Array, ...]:
    """Return the gradients of ``0.5 * sum(h**2)`` by the weights, the drives and h0."""
    (states,) = trajectory(problem)
    vjp, theta, u = problem.case.model.recurrence.vjp, problem.theta, problem.u
    assert vjp is not None and u is not None  # of every cell whose gradients are a case
    dtheta, du = np.zeros_like(theta.a), np.empty_like(u)
    carried = np.zeros_like(problem.h0)
    for t in reversed(range(len(states))):
        previous = states[t - 1] if t else problem.h0
        carried, du[t], part = vjp(previous, u[t], theta, states[t] + carried)
        dtheta += part.a
    return dtheta, du, carried
