"""What is computed: the cases, by name, and their data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.bench.models import MODELS, Model, Parts
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array

SEED = 0


@dataclass(frozen=True)
class Case:
    """A recurrence of one size.

    Parameters
    ----------
    cell : str
        A name out of ``models.MODELS``.
    task : {"forward", "gradient"}
        The trajectory, or the gradient of ``0.5 * sum(h**2)`` by theta, drives and h0.
    method : str
        Of this package's ``solve``.
    forget : float
        Subtracted from the drives of the update gate.
    tolerance : float, optional
        Greatest error of an answer that counts as right, absolute for numbers up to 1 and relative
        beyond. By default 1e-4 in float32 (1e-3 for gradients, which are long sums) and 1e-9 in
        float64.
    """

    name: str
    title: str
    cell: str
    steps: int
    channels: int
    batch: tuple[int, ...] = ()
    dtype: str = "float32"
    task: str = "forward"
    method: str = "auto"
    forget: float = 0.0
    tolerance: float = 0.0

    @property
    def model(self) -> Model:
        """The recurrence."""
        return MODELS[self.cell]

    @property
    def allowed(self) -> float:
        """The tolerance, or its default."""
        default = 1e-9 if self.dtype == "float64" else 1e-3 if self.task == "gradient" else 1e-4
        return self.tolerance or default

    @property
    def lanes(self) -> int:
        """Channels of all sequences."""
        return self.channels * int(np.prod(self.batch))


CASES = {
    case.name: case
    for case in (
        Case("one-channel", "diagonal GRU, 1 channel", "gru", 1 << 21, 1),
        Case("64-channels", "diagonal GRU, 64 channels", "gru", 1 << 15, 64),
        Case("512-channels", "diagonal GRU, 512 channels", "gru", 4096, 512),
        Case("batch", "diagonal GRU, batch 8 × 64 channels", "gru", 2048, 64, (8,)),
        Case("lstm", "diagonal LSTM, 256 channels", "lstm", 4096, 256),
        Case("float64", "diagonal GRU, 64 channels", "gru", 1 << 15, 64, dtype="float64"),
        # 1 - sigmoid(-6.9) = 0.999: a residual's error is felt a thousand steps.
        Case("long-memory", "diagonal GRU that forgets 1/1000 a step, 1 channel", "gru", 1 << 20,
             1, forget=6.9, tolerance=3e-3),
        Case("dense-128", "dense GRU, 128 units", "dense", 8192, 128),
        Case("dense-512", "dense GRU, 512 units", "dense", 2048, 512),
        Case("gradient-1", "diagonal GRU and gradient, 1 channel", "gru", 1 << 21, 1,
             task="gradient"),
        Case("gradient-64", "diagonal GRU and gradient, 64 channels", "gru", 1 << 15, 64,
             task="gradient"),
        Case("gradient-512", "diagonal GRU and gradient, 512 channels", "gru", 4096, 512,
             task="gradient"),
        Case("newton", "diagonal GRU by Newton's method alone, 64 channels", "gru", 1 << 15, 64,
             method="newton"),
        Case("expansive", "logistic map at r = 3.9, chaotic", "logistic", 1 << 18, 1),
    )
}  # fmt: skip
"""The cases by name."""


class Problem(NamedTuple):
    """The data of a case.

    ``u (T, *batch, m)`` or None and ``h0 (*batch, d)`` are as in ``solve``. `raw` is what
    ``torch.nn.GRU`` makes the drives of: inputs (T, 1), weights (3 d, 1) and bias (3 d,). `answer`
    holds the arrays to compare with: ``(h,)``, or the gradients by the first weights, u and h0.
    """

    case: Case
    u: Array | None
    h0: Array
    theta: Any
    raw: Parts = ()
    answer: Parts = ()

    @property
    def weights(self) -> Parts:
        """The parameters that act in the recurrence."""
        if isinstance(self.theta, diagonal_gru.Theta):
            return (self.theta.a,)
        if isinstance(self.theta, diagonal_lstm.Theta):
            return self.theta.a, self.theta.p
        return tuple(self.theta)


def choose(names: list[str] | None) -> list[Case]:
    """Return the cases of these names, or all.

    Raises
    ------
    InvalidInput
    """
    for name in names or ():
        if name not in CASES:
            raise InvalidInput(f"--case is {name!r}; expected one of {', '.join(CASES)}")
    return [CASES[name] for name in dict.fromkeys(names or CASES)]


def build(case: Case) -> Problem:
    """Draw the data of a case; equal cases have equal data."""
    rng = np.random.default_rng(SEED)
    d = case.model.components * case.channels
    h0 = rng.uniform(0.2, 0.8, (*case.batch, d))
    theta, raw, u = parameters(case, rng)
    if u is None and case.model.gates:
        u = rng.standard_normal((case.steps, *case.batch, 3 * case.channels), dtype=np.float32)
        u += theta.b.ravel()
        u[..., : case.channels] -= case.forget
    u = None if u is None else np.ascontiguousarray(u, case.dtype)
    return Problem(case, u, h0.astype(case.dtype), theta, raw)


def parameters(case: Case, rng: np.random.Generator) -> tuple[Any, Parts, Array | None]:
    """Return theta, and for the dense GRU what makes its drives, and these."""
    n, dtype = case.channels, np.dtype(case.dtype).type
    if case.cell == "gru":
        return diagonal_gru.init(rng, 1, n, dtype=dtype), (), None
    if case.cell == "lstm":
        return diagonal_lstm.init(rng, 1, n, dtype=dtype), (), None
    if case.cell == "logistic":
        return (np.full(n, 3.9, dtype),), (), None
    bound = 1 / np.sqrt(n)  # as torch.nn.GRU draws its own
    W, b, W_in, b_in = (
        rng.uniform(-bound, bound, size).astype(dtype)
        for size in ((n, 3 * n), (n,), (3 * n, 1), (3 * n,))
    )
    x = rng.standard_normal((case.steps, *case.batch, 1)).astype(dtype)
    return (W, b), (x, W_in, b_in), x @ W_in.T + b_in


def first(problem: Problem, steps: int) -> Problem:
    """Return the first steps of a problem, without the answer."""
    case = replace(problem.case, steps=min(steps, problem.case.steps))
    u = None if problem.u is None else problem.u[: case.steps]
    raw = problem.raw and (problem.raw[0][: case.steps], *problem.raw[1:])
    return problem._replace(case=case, u=u, raw=raw, answer=())


def drives(problem: Problem) -> Parts:
    """Return the drives gate by gate: contiguous arrays (T, *batch, n), (T,) of one channel."""
    if problem.u is None:
        return ()
    return split(problem.u, problem.case.model.gates, problem.case)


def state(problem: Problem) -> Parts:
    """Return the initial state component by component, (*batch, n), scalars of one channel."""
    return split(problem.h0, problem.case.model.components, problem.case)


def weights(problem: Problem) -> Parts:
    """Return the weights, without the axis of the channels if there is but one."""
    if scalar(problem.case):
        return tuple(np.array(w[..., 0]) for w in problem.weights)
    return problem.weights


def scalar(case: Case) -> bool:
    """Tell whether a state is one number: then its axis only costs the others time."""
    return case.lanes == 1 and case.cell != "dense"


def split(v: Array, parts: int, case: Case) -> Parts:
    """Cut the last axis into contiguous parts."""
    cut = np.split(v, parts, axis=-1)
    return tuple(np.array(part[..., 0] if scalar(case) else part, order="C") for part in cut)


def join(parts: Any, like: tuple[int, ...]) -> Array:
    """Return what `split` took apart, in one array of this shape."""
    n = like[-1] // len(parts)
    arrays = [np.asarray(part).reshape(*like[:-1], n) for part in parts]
    return np.concatenate(arrays, axis=-1)


def states_shape(problem: Problem) -> tuple[int, ...]:
    """Return the shape of the trajectory."""
    return (problem.case.steps, *problem.h0.shape)
