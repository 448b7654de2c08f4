"""How far to step along the direction that the linearization gives.

A step length maps an :class:`Iterate` with blocks to the next one. Its direction solves
``(I - S A) delta = -F(h)``, one linear recurrence.

Those with parameters are values, as in :mod:`.linearization`.
"""

# ruff: noqa: N801 - called like the functions beside them

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.checks import require_function, require_number, require_whole
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.iterate import Iterate, sequence_norm
from pararnn_solvers.typing import Array

StepLength = Callable[[Iterate, Scan], Iterate]


def require_step_length(name: str, value: Any) -> None:
    """Raise InvalidInput unless `value` can be a step length."""
    require_function(name, value, "a step length such as full_step, backtracking or relaxed(0.7)")


@dataclass(frozen=True)
class Tuned:
    """A step length with some of its parameters chosen: a partial function that is a value."""

    function: Callable[..., Iterate]
    parameters: tuple[tuple[str, float], ...]

    def __call__(self, iterate: Iterate, scan: Scan) -> Iterate:
        """Return the next iterate."""
        return self.function(iterate, scan, **dict(self.parameters))


def direction(iterate: Iterate, scan: Scan) -> Array:
    """Solve ``(I - S A) delta = -F(h)``."""
    return iterate.matrix.solve(-iterate.residual, scan)


def full_step(iterate: Iterate, scan: Scan) -> Iterate:
    """Take ``h + delta``, whose first state is ``f(h_0, x_1)`` whatever it was before.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(step_length=prs.full_step)).n_iter
    4
    """
    delta = direction(iterate, scan)
    h = iterate.h + delta
    if iterate.system.steps_before == 0:  # and nothing arrives that has changed
        h[:1] = iterate.f[:1]  # without the rounding of a guess that may have been far off
    return iterate.moved(h, stalled=negligible(delta, iterate.h))


@dataclass(frozen=True)
class relaxed:
    """Take ``h + omega delta``, with ``0 < omega < 2``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(step_length=prs.relaxed(0.5))).n_iter
    38
    """

    omega: float

    def __post_init__(self) -> None:
        require_number(
            "omega", self.omega, lambda w: 0 < w < 2, "a relaxation factor between 0 and 2"
        )

    def __call__(self, iterate: Iterate, scan: Scan) -> Iterate:
        """Return the next iterate."""
        delta = iterate.h.dtype.type(self.omega) * direction(iterate, scan)
        return iterate.moved(iterate.h + delta, stalled=negligible(delta, iterate.h))


def negligible(delta: Array, h: Array) -> Array:
    """Tell, on the host, for which sequences a step is below the rounding of all it changes."""
    rounding = 2 * np.finfo(h.dtype).eps * np.abs(h)
    return arrays.on_host((np.abs(delta) <= rounding).all(axis=(0, 2)))


def require_armijo(c: float, shrink: float) -> None:
    """Raise InvalidInput for parameters with which backtracking would never end, or never step."""
    require_number("c", c, lambda c: 0 < c < 0.5, "a number between 0 and 1/2, such as 1e-4")
    require_number("shrink", shrink, lambda r: 0 < r < 1, "a number between 0 and 1, such as 0.5")


def backtracking(
    iterate: Iterate, scan: Scan, *, c: float = 1e-4, shrink: float = 0.5, least: float = 1e-10
) -> Iterate:
    """Shrink alpha until ``phi(h + alpha delta)`` meets the Armijo condition, phi = |F|^2 / 2.

    Each sequence has an alpha of its own. For Newton's direction the slope of phi is ``-|F|^2``,
    so the condition reads ``|F_new|^2 <= (1 - 2 c alpha) |F|^2``. A sequence for which no
    ``alpha >= least`` meets it stays where it is and is reported as stalled.

    Source: Armijo 1966; Dennis & Schnabel 1983, algorithm A6.3.1.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(step_length=prs.backtracking)).n_iter
    4
    """
    require_armijo(c, shrink)
    require_number("least", least, lambda alpha: 0 < alpha <= 1, "a step between 0 and 1")
    delta = direction(iterate, scan)
    h, f = iterate.h.copy(), iterate.f.copy()
    merit = sequence_norm(iterate.residual)
    pending = np.ones(merit.shape, bool)
    alpha = 1.0
    while pending.any() and alpha >= least:
        part = iterate.system.part(iterate.h, 0, len(h), pending)
        left = arrays.positions(pending, h)
        trial = iterate.h[:, left] + h.dtype.type(alpha) * delta[:, left]
        trial_f = part.evaluate(part.previous(trial))
        # Written so that a NaN in the trial counts as a refusal.
        good = sequence_norm(trial - trial_f) <= np.sqrt(1 - 2 * c * alpha) * merit[pending]
        taken = np.flatnonzero(pending)[good]
        if len(taken):
            to, of = arrays.positions(taken, h), arrays.positions(good, h)
            h[:, to], f[:, to] = trial[:, of], trial_f[:, of]
            pending[taken] = False
        alpha *= shrink
    return iterate.moved(h, f, stalled=pending | negligible(h - iterate.h, iterate.h))


@dataclass(frozen=True)
class anderson_mixing:
    """Combine the last m + 1 results of `base` so that their steps cancel best (least squares).

    With ``f_i = g(h_i) - h_i`` the step of the base method at iterate i, the next iterate is
    ``g(h_k) - sum_j gamma_j (g(h_{j+1}) - g(h_j))`` where gamma minimizes
    ``|f_k - sum_j gamma_j (f_{j+1} - f_j)|``, sequence by sequence.

    Memory: 2 m trajectories. Loses the exact prefix.

    Source: Anderson 1965; Walker & Ni 2011, "Anderson acceleration for fixed-point iterations".

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> method = prs.Newton(prs.zero, prs.anderson_mixing(3))
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=method).n_iter
    20
    """

    m: int
    base: StepLength = full_step

    def __post_init__(self) -> None:
        require_whole("m", self.m)
        require_step_length("base", self.base)

    def __call__(self, iterate: Iterate, scan: Scan) -> Iterate:
        """Return the next iterate."""
        reached = self.base(iterate, scan)
        g, f = reached.h, reached.h - iterate.h
        history = (*iterate.history, g, f)[-2 * (self.m + 1) :]
        if len(history) == 2:
            return iterate.moved(g, reached.known_f, stalled=reached.stalled, history=history)
        mixed = g - mix(differences(history[0::2]), differences(history[1::2]), f)
        return iterate.moved(mixed, stalled=reached.stalled, history=history)


def differences(values: Sequence[Array]) -> list[Array]:
    """Return how much each value exceeds the one before it."""
    return [after - before for before, after in pairwise(values)]


def mix(dg: Sequence[Array], df: Sequence[Array], f: Array) -> Array:
    """Return ``sum_j gamma_j dg_j`` with gamma the least-squares solution of ``df gamma = f``.

    One gamma for each sequence. The columns are made orthogonal where they are; what is left of
    the problem then, a triangular matrix of the size of gamma, is solved on the host.
    """
    df = list(df)
    R = arrays.on_host(orthogonalize(df))
    right = arrays.on_host(np.stack([inner(q, f) for q in df]))
    gamma = np.zeros_like(right)
    least = np.finfo(f.dtype).eps * (f.size // f.shape[1])  # as of the whole problem
    for b in range(f.shape[1]):
        if np.isfinite(R[..., b]).all() and np.isfinite(right[:, b]).all():
            gamma[:, b] = np.linalg.lstsq(R[..., b], right[:, b], rcond=least)[0]
    weights = arrays.beside(gamma, f)
    correction: Array = sum(w[:, None] * dg_j for w, dg_j in zip(weights, dg, strict=True))
    return correction


def orthogonalize(columns: list[Array]) -> Array:
    """Replace columns v_j by orthonormal q_i, and return R: ``v_j = sum_i R_ij q_i``.

    Parameters
    ----------
    columns : list of m arrays, shape (T, batch, d)
        Becomes the list of q_i, orthonormal for each sequence; 0 where nothing is left of a column.

    Returns
    -------
    array, shape (m, m, batch)

    Source: Gram-Schmidt, each column twice: Giraud, Langou & Rozložník 2005.
    """
    m, batch = len(columns), columns[0].shape[1]
    R = np.zeros_like(columns[0], order="C", shape=(m, m, batch))
    for j in range(m):
        for i in [*range(j)] * 2:
            share = inner(columns[i], columns[j])
            R[i, j] += share
            columns[j] = columns[j] - share[:, None] * columns[i]
        R[j, j] = length = np.sqrt(inner(columns[j], columns[j]))
        columns[j] = columns[j] / np.where(length > 0, length, 1)[:, None]
    return R


def inner(a: Array, b: Array) -> Array:
    """Return the inner product of each sequence, shape (batch,)."""
    product: Array = (a * b).sum(axis=(0, 2))
    return product
