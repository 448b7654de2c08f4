"""The data of a case on the device, and how far an answer is from right.

Answers are too large to be computed again on the host. So two things are asked of one: some lanes,
spread over all, must be those of a loop in float64 on the host; and everywhere one step from each
state must be the next state, which no lane that was left out or mixed up satisfies. Gradients have
no such second test: all that can be asked of the other lanes is that they are finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.bench.cases import SEED, Problem, build, first
from pararnn_solvers.bench.check import answered, difference
from pararnn_solvers.bench.gpu.cases import SCANS, components
from pararnn_solvers.bench.models import Library, Parts
from pararnn_solvers.linear import cuda, load
from pararnn_solvers.typing import Array

SAMPLED_STATES = 1 << 22
"""Steps times lanes that the host computes at most."""
SAMPLED_CHANNELS = 32
AT_ONCE = 1 << 24
"""States that are compared with a step at once."""


class Work(NamedTuple):
    """A case's data.

    Attributes
    ----------
    problem : Problem
        On the host. Of a scan, ``u`` are the right-hand sides and ``theta`` is ``(blocks,)``.
    x, h0, theta
        The same on the device.
    sample : tuple of arrays
        Indices of sequences (of a dense recurrence) or of channels that were computed on the host.
    answer : tuple of arrays
        Of these, in float64; arrays as in `parts_of`.
    """

    problem: Problem
    x: Any
    h0: Any
    theta: Any
    sample: Array
    answer: Parts

    @property
    def case(self) -> Any:
        """What is computed."""
        return self.problem.case


def prepare(problem: Problem) -> Work:
    """Return the work of a problem: its data on the device, its sample computed."""
    xp = cuda.cupy()
    leaves, rebuild = tree.flatten(problem.theta)
    theta = rebuild([xp.asarray(leaf) for leaf in leaves])
    sample = sampled(problem)
    return Work(
        problem,
        xp.asarray(problem.u),
        xp.asarray(problem.h0),
        theta,
        sample,
        right(problem, sample),
    )


def make(case: Any) -> Problem:
    """Draw the data of a case; equal cases have equal data."""
    if case.task != "scan":
        return build(case)
    rng, k = np.random.default_rng(SEED), SCANS[case.cell]
    shape, n = (case.steps, *case.batch), case.channels
    blocks = rng.random((*shape, k, k, n), dtype=np.float32).astype(case.dtype, copy=False)
    blocks *= 0.98 / k  # rows sum to less than 1
    u = rng.standard_normal((*shape, k * n), dtype=np.float32).astype(case.dtype, copy=False)
    return Problem(case, u, np.zeros((*case.batch, k * n), case.dtype), (blocks,))


def shortened(work: Work, steps: int) -> Work:
    """Return the work of the first steps alone."""
    problem = first(work.problem, steps)
    if problem.case.task == "scan":
        problem = problem._replace(theta=(problem.theta[0][:steps],))
    return prepare(problem)


def forward(work: Work) -> Work:
    """Return the work of a gradient's trajectory, on the same data."""
    problem = work.problem._replace(case=replace(work.case, task="forward"))
    return work._replace(problem=problem, answer=right(problem, work.sample))


# ---- what is right


def sampled(problem: Problem) -> Array:
    """Return which channels, or which sequences of a dense recurrence, the host computes."""
    case = problem.case
    if case.cell == "dense":
        return np.unique([0, case.batch[0] - 1]) if case.batch else np.arange(1)
    many = SAMPLED_STATES * case.channels // (case.lanes * case.steps)
    count = max(1, min(case.channels, SAMPLED_CHANNELS, many))
    return np.unique(np.linspace(0, case.channels - 1, count).round().astype(int))


def right(problem: Problem, sample: Array) -> Parts:
    """Return the answer of the sample, by the host."""
    case = problem.case
    if case.task == "scan":
        (blocks,), k = problem.theta, components(case)
        A, b = blocks[..., sample], by_channels(problem.u, k)[..., sample]
        rhs = b.reshape(*b.shape[:-2], -1).astype(np.float64)
        h = load("numba")(np.ascontiguousarray(A, np.float64), np.ascontiguousarray(rhs))
        return parts_of(h, k)
    few = dense_part(problem, sample) if case.cell == "dense" else diagonal_part(problem, sample)
    answer = answered(few).answer
    if case.task == "gradient":
        da, du, dh0 = answer
        return (da, *parts_of(du, case.model.gates), *parts_of(dh0, case.model.components))
    return parts_of(answer[0], case.model.components)


def diagonal_part(problem: Problem, sample: Array) -> Problem:
    """Return the problem of some channels."""
    leaves, rebuild = tree.flatten(problem.theta)
    n = problem.case.channels
    theta = rebuild([leaf[..., sample] if leaf.shape[-1] == n else leaf for leaf in leaves])

    def pick(v: Any, parts: int) -> Array:
        few = by_channels(v, parts)[..., sample]
        return np.ascontiguousarray(few.reshape(*few.shape[:-2], -1))

    model = problem.case.model
    return problem._replace(
        case=replace(problem.case, channels=len(sample)),
        u=pick(problem.u, model.gates),
        h0=pick(problem.h0, model.components),
        theta=theta,
    )


def dense_part(problem: Problem, sample: Array) -> Problem:
    """Return the problem of some sequences."""
    if not problem.case.batch or problem.u is None:
        return problem
    return problem._replace(
        case=replace(problem.case, batch=(len(sample),)),
        u=problem.u[:, sample],
        h0=problem.h0[sample],
    )


def by_channels(v: Any, parts: int) -> Any:
    """Return a view (..., parts, n)."""
    return v.reshape(*v.shape[:-1], parts, -1)


def parts_of(v: Any, parts: int) -> Parts:
    """Return the parts of the last axis, as views (..., n)."""
    cut = by_channels(v, parts)
    return tuple(cut[..., i, :] for i in range(parts))


def error(work: Work, result: Parts) -> float:
    """Return how far an answer is from right; infinite or NaN if it is no answer at all.

    Parameters
    ----------
    result : tuple of arrays, on the host or the device
        The components of all states, (T, *batch, n) each; or gradients by the first weights
        (rows, n), by the drives, gate by gate, and by h0, component by component.
    """
    xp, case = cuda.cupy(), work.case
    found = tuple(xp.asarray(part) for part in result)
    if [part.shape for part in found] != shapes(work):
        return np.inf
    few = [host(part, work.sample, by_sequence=case.cell == "dense") for part in found]
    off = difference(few, work.answer)
    if case.task == "gradient":
        finite = all(bool(xp.isfinite(part).all()) for part in found)
        return off if finite else np.nan
    return float(np.max([off, defect(work, found)]))


def shapes(work: Work) -> list[tuple[int, ...]]:
    """Return the shapes of the arrays of an answer."""
    case, k = work.case, components(work.case)
    states, starts = (case.steps, *case.batch, case.channels), (*case.batch, case.channels)
    if case.task != "gradient":
        return [states] * k
    rows: tuple[int, ...] = work.problem.weights[0].shape
    return [rows] + [states] * case.model.gates + [starts] * k


def shaped(work: Work, result: Sequence[Any]) -> Parts:
    """Return arrays with the axes of an answer: a lone lane may have been computed without."""
    return tuple(v.reshape(shape) for v, shape in zip(result, shapes(work), strict=True))


def host(part: Any, sample: Array, by_sequence: bool) -> Array:
    """Return the sample of an array on the device, in float64."""
    if by_sequence:
        few = part[:, sample] if part.ndim > 2 else part
    else:
        few = part[..., sample]
    found: Array = few.get().astype(np.float64)
    return found


def defect(work: Work, h: Parts) -> float:
    """Return the greatest difference of a state from one step out of the state before it."""
    xp, steps = cuda.cupy(), work.case.steps
    rows = max(1, AT_ONCE // work.case.lanes)
    start = parts_of(work.h0, len(h))
    worst, largest = [], []
    for lo in range(0, steps, rows):
        now = slice(lo, min(lo + rows, steps))
        before = tuple(
            xp.concatenate([(part[lo - 1] if lo else first)[None], part[lo : now.stop - 1]])
            for part, first in zip(h, start, strict=True)
        )
        for mine, true in zip(h, step(work, before, now), strict=True):
            worst.append(float(abs(mine[now] - true).max()))
            largest.append(float(abs(true).max()))
    return float(np.max(worst) / max(1.0, np.max(largest)))


def step(work: Work, before: Parts, now: slice) -> Parts:
    """Return one step from given states, by plain array operations on the device."""
    xp, case = cuda.cupy(), work.case
    if case.task == "scan":
        (A,), k = work.theta, len(before)
        b = parts_of(work.x[now], k)
        return tuple(
            b[i] + sum(A[now][..., i, j, :] * before[j] for j in range(k)) for i in range(k)
        )
    library = Library(lambda v: 1 / (1 + xp.exp(-v)), xp.tanh)
    weights = work.problem._replace(theta=work.theta).weights
    found: Parts = case.model.step(
        library, before, parts_of(work.x[now], case.model.gates), weights
    )
    return found
