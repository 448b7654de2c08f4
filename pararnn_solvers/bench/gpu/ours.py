"""What this package has on the GPU: its kernels one by one, and solves as users call them.

The kernels are given what a solve has made once before: the program of the step. `solve` makes it
itself, checks its arguments, and reads its statistics back.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from pararnn_solvers import api, sensitivities
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.gpu.cases import components
from pararnn_solvers.bench.gpu.work import Work, error, forward, parts_of
from pararnn_solvers.bench.models import Parts
from pararnn_solvers.linear import cuda, load

REMEMBERED = (64, 256)
"""Steps after which a recurrence has forgotten, as shooting may be told: the fastest counts."""


class Kernels:
    """A diagonal recurrence as the kernels take it: one batch axis, and a program."""

    def __init__(self, work: Work) -> None:
        case = work.case
        if case.cell == "dense":
            raise NotComparable("its kernels are of steps whose channels do not couple")
        self.work, self.shape = work, (case.steps, int(np.prod(case.batch)), work.h0.shape[-1])
        self.x = work.x.reshape(*self.shape[:2], -1)
        self.h0 = work.h0.reshape(self.shape[1:])

    @cached_property
    def program(self) -> Any:
        """The step as device functions."""
        from pararnn_solvers.compiled.cuda_program import device_program

        step = self.work.case.model.recurrence.step
        return device_program(step, self.h0, self.x, self.work.theta, components(self.work.case))

    def new(self) -> Any:
        """Return memory for a trajectory."""
        return cuda.cupy().empty(self.shape, self.h0.dtype)

    def states(self) -> Any:
        """Return the trajectory (T, B, d), by the rollout."""
        from pararnn_solvers.compiled import cuda_kernels as kernels

        h = self.new()
        kernels.rollout(self.program, self.x, self.h0, h)
        return h

    def parts(self, h: Any) -> Parts:
        """Return the components of a trajectory, with the batch of the case."""
        return states_of(h, self.work)


def states_of(result: Any, work: Work) -> Parts:
    """Return the components of the states of a solution or an array."""
    h = getattr(result, "h", result)
    return parts_of(h.reshape(work.case.steps, *work.h0.shape), components(work.case))


def scan(work: Work) -> list[Variant]:
    """Return the backend ``cupy``."""
    solver, (blocks,) = load("cupy"), work.theta
    return [Variant(lambda: solver(blocks, work.x), lambda h: states_of(h, work))]


def rollout(work: Work) -> list[Variant]:
    """Return the rollout: a thread for each lane."""
    kernels = Kernels(work)
    return [Variant(kernels.states, kernels.parts)]


def shooting(work: Work) -> list[Variant]:
    """Return multiple shooting, with chunks as long as the GPU needs and memory allows."""
    from pararnn_solvers.compiled import cuda_shooting

    kernels, case = Kernels(work), work.case
    lengths = {cuda_shooting.chunk_length(case.steps, case.lanes, m) for m in REMEMBERED}
    lengths.discard(case.steps)
    if not lengths:
        raise NotComparable("the lanes fill the GPU, or the steps are too few to cut")
    tolerance = float(np.finfo(case.dtype).eps) ** 0.75

    def call(length: int) -> Any:
        h = kernels.new()
        shot = cuda_shooting.shoot(
            kernels.program, kernels.x, kernels.h0, h, length, tolerance, tolerance
        )
        return h, shot

    def way(length: int) -> Variant:
        return Variant(
            lambda: call(length),
            lambda result: kernels.parts(result[0]),
            lambda result: f"chunks of {length}, each step {evaluations(result[1], kernels):.2f}x",
        )

    return [way(length) for length in sorted(lengths)]


def evaluations(shot: Any, kernels: Kernels) -> float:
    """Return how often a step was evaluated, on average."""
    return float(shot.evaluations / (kernels.shape[0] * kernels.shape[1]))


def newton_pass(work: Work) -> list[Variant]:
    """Return one iteration of Newton's method, from the solution."""
    from pararnn_solvers.compiled import cuda_kernels

    kernels = Kernels(work)
    h = kernels.states()
    return [
        Variant(
            lambda: cuda_kernels.newton_pass(kernels.program, kernels.x, kernels.h0, h)[0],
            kernels.parts,
        )
    ]


def adjoint(work: Work) -> list[Variant]:
    """Return the gradients at the states that the rollout has found."""
    from pararnn_solvers.compiled import cuda_kernels

    kernels = Kernels(work)
    h = kernels.states()

    def collect(result: Any) -> Parts:
        dx, dh0, sums = result
        rows = len(work.problem.weights[0])
        return collected(sums[:rows], dx, dh0, work)

    return [
        Variant(
            lambda: cuda_kernels.pull_back(kernels.program, kernels.x, kernels.h0, h, h), collect
        )
    ]


def collected(da: Any, dx: Any, dh0: Any, work: Work) -> Parts:
    """Return gradients as `work.error` compares them."""
    case = work.case
    du = parts_of(dx.reshape(work.x.shape), case.model.gates)
    return (da, *du, *parts_of(dh0.reshape(work.h0.shape), components(case)))


def solution(work: Work, method: str) -> Any:
    """Return what ``solve`` finds; it waits first, so that what the host does is timed, too."""
    cuda.cupy().cuda.runtime.deviceSynchronize()
    recurrence = work.case.model.recurrence
    return api.solve(recurrence, work.x, work.h0, work.theta, method=method, backend="cupy")


def solve(work: Work) -> list[Variant]:
    """Return ``solve``; beside gradients it shows by itself that its states are right."""

    def collect(found: Any) -> Parts | None:
        states = states_of(found, work)
        if work.case.task != "gradient":
            return states
        ahead = forward(work)
        off = error(ahead, states)
        if not off <= ahead.case.allowed:
            raise ArithmeticError(f"states are off by {off:.1e}")
        return None

    return [
        Variant(
            lambda: solution(work, work.case.method),
            collect,  # type: ignore[arg-type]
            lambda found: str(found.method),
        )
    ]


def newton(work: Work) -> list[Variant]:
    """Return ``solve`` by Newton's method on all states."""
    return [
        Variant(
            lambda: solution(work, "newton"),
            lambda found: states_of(found, work),
            lambda found: f"{found.n_iter} iterations",
        )
    ]


def gradient(work: Work) -> list[Variant]:
    """Return ``solve`` and ``gradients``."""

    def call() -> Any:
        found = solution(work, work.case.method)
        return found, sensitivities.gradients(found, found.h)

    def collect(result: Any) -> Parts:
        found = result[1]
        return collected(found.theta.a, found.x, found.h0, work)

    return [Variant(call, collect, lambda result: str(result[0].method))]
