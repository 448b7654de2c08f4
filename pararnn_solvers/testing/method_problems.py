"""Recurrences that methods are checked with, how they are solved, and how exact solutions are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.api import rollout, solve
from pararnn_solvers.errors import ConvergenceError
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.solvers import Method
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Stopping, max_norm
from pararnn_solvers.testing.context import place
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array

MAX_ITER = 200


@dataclass(frozen=True)
class Subject:
    """A method, and how it is checked.

    Attributes
    ----------
    method : solvers.Method
    dtypes : tuple of dtype
    options : mapping
        Further arguments of every ``prs.solve``: ``backend``, ``compiled``.
    no_full_steps, no_newton : str
        Why the method does not take full steps, or is not Newton's own; empty if it is.
    window : int, optional
        How many steps it opens at a time.
    """

    method: Method
    dtypes: tuple[Any, ...]
    options: Mapping[str, Any]
    no_full_steps: str = ""
    no_newton: str = ""
    window: int | None = None

    def windows(self, T: int) -> int:
        """Return how many windows T steps are solved in."""
        return 1 if self.window is None else -(-T // self.window)

    def attempt(self, problem: Problem, **options: Any) -> Solution:
        """Solve a problem; return the partial solution where that does not converge."""
        try:
            return self.solve(problem, **options)
        except ConvergenceError as error:
            return error.solution

    def solve(self, problem: Problem, **options: Any) -> Solution:
        """Solve a problem by ``prs.solve``."""
        chosen = {"max_iter": MAX_ITER, "method": self.method, **self.options, **options}
        recurrence, x, h0, theta, steps, _ = problem
        return solve(recurrence, x, h0, theta, steps=steps, **chosen)


class Problem(NamedTuple):
    """A recurrence with its data; `lipschitz` bounds df/dh in the maximum norm."""

    recurrence: Recurrence
    x: Array | None
    h0: Array
    theta: Any
    steps: int
    lipschitz: float

    @property
    def rollout(self) -> Array:
        """The trajectory step by step, shape (T, *batch, d)."""
        with np.errstate(all="ignore"):
            return rollout(*self[:4], steps=self.steps, compiled=False)

    def residual(self, h: Array) -> Array:
        """Return ``|F_t|`` in the maximum norm, shape (T, *batch)."""
        previous = np.concatenate([self.h0[None], h[:-1]])[: len(h)]
        with np.errstate(all="ignore"):
            return max_norm(h - self.recurrence.step(previous, self.x, self.theta))

    def sequence(self, b: int) -> Problem:
        """Return the problem of one sequence, with a batch axis of 1."""
        x = None if self.x is None else self.x[:, b : b + 1]
        return self._replace(x=x, h0=self.h0[b : b + 1])


def coupled_tanh(h: Any, x: Any, a: Any) -> Any:
    """Return ``tanh(sum_j a_ij h_j + x_i)``: k components in each of n channels."""
    parts = h.reshape(*h.shape[:-1], 1, *a.shape[1:])
    drive = np.sum(a * parts, axis=-2).reshape(h.shape)
    return np.tanh(drive if x is None else drive + x)


def dense_tanh(h: Any, x: Any, W: Any) -> Any:
    """Return ``tanh(W h + x)``."""
    return np.tanh(h @ W.T + x)


def gated_linear(h: Any, x: Any, a: Any) -> Any:
    """Return ``tanh(x_i) sum_j a_ij h_j + x_i``: linear in h, with other blocks at every step."""
    parts = h.reshape(*h.shape[:-1], 1, *a.shape[1:])
    return np.tanh(x) * np.sum(a * parts, axis=-2).reshape(h.shape) + x


def sine(h: Any, x: Any, a: Any) -> Any:
    """Return ``sin(a h + x)``, which expands for a > 1."""
    return np.sin(a * h + x)


def spiked(h: Any, x: Any, a: Any) -> Any:
    """Return ``sin(a h + x^2)``: NaN where x^2 overflows."""
    return np.sin(a * h + x * x)


def runaway(h: Any, x: Any, a: Any) -> Any:
    """Return ``h^2 + x``: overflows from great states, and forgets small ones."""
    return h * h + x


def contractive(
    T: int,
    batch: tuple[int, ...] = (),
    k: int = 1,
    n: int = 3,
    dtype: Any = np.float64,
    *,
    seed: int = 0,
    driven: bool = True,
    step: Any = coupled_tanh,
) -> Problem:
    """Return a problem of k x k blocks with Lipschitz constant 0.8; for `dense_tanh`, k = 1."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.2, 1, (n, n) if step is dense_tanh else (k, k, n))
    a *= 0.8 / a.sum(axis=1, keepdims=True) * rng.choice([-1, 1], a.shape)
    x = rng.standard_normal((T, *batch, k * n)).astype(dtype) if driven else None
    h0 = rng.uniform(-1, 1, (*batch, k * n)).astype(dtype)
    block_size = None if step is dense_tanh else k
    return Problem(Recurrence(step, block_size), x, h0, a.astype(dtype), T, 0.8)


def dense(T: int, batch: tuple[int, ...], d: int, dtype: Any, seed: int = 0) -> Problem:
    """Return a tanh network without declared structure, with Lipschitz constant 0.8."""
    return contractive(T, batch, 1, d, dtype, seed=seed, step=dense_tanh)


def expansive(T: int, batch: tuple[int, ...], dtype: Any) -> Problem:
    """Return ``sin(2h + x)`` on two channels: small differences double in a step."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (T, *batch, 2)).astype(dtype)
    h0 = rng.uniform(-1, 1, (*batch, 2)).astype(dtype)
    return Problem(Recurrence(sine, 1), x, h0, np.full(2, 2, dtype), T, 2.0)


def far_guess(problem: Problem, seed: int = 7) -> Array:
    """Return states within [-2, 2] that have nothing to do with the trajectory."""
    shape = (problem.steps, *problem.h0.shape)
    drawn: Array = np.random.default_rng(seed).uniform(-2, 2, shape).astype(problem.h0.dtype)
    return drawn


def rounding(h: Array) -> float:
    """Bound the rounding of one step: 64 operations on numbers of its size."""
    largest = float(np.max(np.abs(h), initial=0, where=np.isfinite(h)))
    return 64.0 * float(np.finfo(h.dtype).eps) * (1 + largest)


def tolerances(dtype: Any) -> float:
    """Return the default of atol and rtol."""
    return Stopping().bounds(dtype)[0]


def allowed_error(problem: Problem, h: Array) -> Array:
    """Return how far from the rollout states may be that meet the default tolerance, (T, 1 ...).

    ``e_t = L e_{t-1} + tolerance + rounding``.
    """
    largest = float(np.max(np.abs(h), initial=0, where=np.isfinite(h)))
    amount = tolerances(h.dtype) * (1 + largest) + 2 * rounding(h)
    error = amount * np.cumsum(problem.lipschitz ** np.arange(len(h)))
    return error.reshape(-1, *[1] * (h.ndim - 1))


def require_rollout(problem: Problem, solution: Solution, remedy: str, steps: int = -1) -> None:
    """Raise CheckFailed unless the states are those of the rollout, or the first few are."""
    expected, h = problem.rollout, solution.h
    promised = "the states are those of the rollout, as near as the tolerance implies"
    if h.shape != expected.shape:
        raise CheckFailed(
            promised, f"h has shape {h.shape}, expected {expected.shape} ({told(solution)})", remedy
        )
    wrong = ~(np.abs(h - expected) <= allowed_error(problem, expected))
    if steps >= 0:
        promised = "after i full steps the first i states are exact"
        wrong[steps:] = False
    require_nowhere(wrong, h, expected, promised, told(solution), remedy)


def require_nowhere(
    wrong: Array, h: Array, expected: Array, promised: str, what: str, remedy: str
) -> None:
    """Raise CheckFailed at the first wrong entry of a trajectory."""
    if not wrong.any():
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    axes = "step sequence component" if h.ndim == 3 else "step component"
    before = f", all states before step {at[0]} are right" if at[0] else ""
    raise CheckFailed(
        promised,
        f"{h[at]}, expected {expected[at]}{place(at, axes)}; {int(wrong.sum())} of {h.size} "
        f"entries are wrong{before} ({what})",
        remedy,
    )


def require_success(solution: Solution, promised: str, remedy: str) -> None:
    """Raise CheckFailed unless all sequences were solved."""
    if not solution.success:
        raise CheckFailed(promised, f"{solution.message} ({told(solution)})", remedy)


def require_solved(problem: Problem, solution: Solution, remedy: str) -> None:
    """Raise CheckFailed unless all sequences were solved, and say at which step one is not."""
    residual = problem.residual(solution.h)
    if solution.success or residual.shape != solution.h.shape[:-1]:
        return
    bound = tolerances(solution.h.dtype) * (1 + max_norm(solution.h))
    at = tuple(int(i) for i in np.argwhere(~(residual <= bound))[0]) if residual.size else ()
    seen = f"|F| is {residual[at]:.6g}{place(at, 'step sequence')}, the first" if at else "solved"
    digits = residual.dtype == np.float64 and np.max(residual) < 1e-5
    raise CheckFailed(
        "a contractive recurrence is solved",
        f"{solution.status.name}: {seen} of {int(np.sum(~(residual <= bound)))} that exceed the "
        f"tolerance ({told(solution)})",
        remedy,
        "right to 7 digits only: something is computed in float32" if digits else "",
    )


def told(solution: Solution) -> str:
    """Say which solve this was."""
    T, *batch, d = solution.h.shape
    return (
        f"T={T}, batch={tuple(batch)}, d={d}, {solution.h.dtype}, n_iter={solution.n_iter}, "
        f"{solution.status.name}"
    )
