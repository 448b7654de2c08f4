"""Maps that numerical methods iterate: populations, Riccati equations, stiff steps, equilibria."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.problems.problem import Known, Problem, start
from pararnn_solvers.recurrence import Recurrence

ONSET_OF_CHAOS = 3.5699456
# Of the map at r, natural logarithms a step: exact at 4; log|2 - r| at the stable fixed point.
LOGISTIC_EXPONENTS = {4.0: math.log(2)}


def logistic_map(r: float, length: int = 200, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return ``h' = r h (1 - h)``: a fixed point for r < 3, periodic to 3.57, then mostly chaotic.

    Source: May 1976, "Simple mathematical models with very complicated dynamics".

    Examples
    --------
    >>> problem = logistic_map(4.0, length=5)
    >>> problem.h0.shape, problem.known.character
    ((1,), 'expansive')
    """
    recurrence = Recurrence(_logistic, block_size=1)
    exponent = LOGISTIC_EXPONENTS.get(r, math.log(abs(2 - r)) if 1 < r < 3 and r != 2 else None)
    character = "expansive" if r > ONSET_OF_CHAOS else "contractive"
    known = Known(character, exponent, source="May 1976; Strogatz, Nonlinear Dynamics, ch. 10")
    note = "chaotic for most r > 3.57"
    h0 = start([0.3], seed)
    return Problem(recurrence, None, h0, r, length, None, note, known).astype(dtype)


def _logistic(h: Any, x: None, r: Any) -> Any:
    return r * h * (1 - h)


def kalman_covariance(length: int = 500, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return the covariance recursion of a Kalman filter, a Riccati equation of 3 x 3 matrices.

    ``P' = F (P - P H^T (H P H^T + r)^-1 H P) F^T + Q`` for an object that is accelerated at random
    and seen through its position. The exponent is ``2 log rho(F - K H)``, K the gain of the limit.

    Source: Kalman 1960; Anderson & Moore 1979, "Optimal Filtering", section 4.4.

    Examples
    --------
    >>> problem = kalman_covariance(length=5)
    >>> problem.h0.shape, problem.known.character
    ((9,), 'contractive')
    """
    from scipy.linalg import solve_discrete_are

    dt, noise = 0.1, 0.5
    F = np.array([[1, dt, dt**2 / 2], [0, 1, dt], [0, 0, 1]])
    H, Q = np.array([[1.0, 0, 0]]), 0.1 * np.diag([dt**5 / 20, dt**3 / 3, dt])
    limit = solve_discrete_are(F.T, H.T, Q, np.array([[noise]]))
    gain = F @ limit @ H.T / (H @ limit @ H.T + noise)
    exponent = 2 * math.log(np.abs(np.linalg.eigvals(F - gain @ H)).max())
    known = Known("contractive", exponent, source="Anderson & Moore 1979, section 4.4")
    note = "converges to the positive solution of the algebraic Riccati equation"
    P0 = np.diag(1 + np.random.default_rng(seed).uniform(0, 1, 3))
    theta, recurrence = (F, Q, noise), Recurrence(_riccati)
    return Problem(recurrence, None, P0.ravel(), theta, length, None, note, known).astype(dtype)


def _riccati(h: Any, x: None, theta: Any) -> Any:
    F, Q, noise = theta
    P = h.reshape(*h.shape[:-1], 3, 3)
    seen = P[..., :, :1]  # P H^T, where H picks the position
    corrected = P - seen @ P[..., :1, :] / (P[..., :1, :1] + noise)
    return (F @ corrected @ F.T + Q).reshape(h.shape)


def implicit_explicit(
    length: int = 1000, n: int = 32, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return the first-order implicit-explicit step of a forced reaction and diffusion equation.

    ``u' = (I - dt k L)^-1 (u + dt (u - u^3 + x_t))``, L the second difference on n points between
    walls at 0: diffusion, which is stiff, is implicit. In the spectral norm df/dh is at most
    ``(1 + dt) / (1 + dt k lambda)``, lambda the least eigenvalue of -L, while ``|u| <= 1``.

    Source: Ascher, Ruuth & Wetton 1995, "Implicit-explicit methods for time-dependent partial
    differential equations".

    Examples
    --------
    >>> problem = implicit_explicit(length=5)
    >>> problem.h0.shape, problem.known.character
    ((32,), 'contractive')
    """
    dt, diffusion = 0.05, 0.2
    width = 1 / (n + 1)
    L = (np.eye(n, k=1) - 2 * np.eye(n) + np.eye(n, k=-1)) / width**2
    slowest = 4 * math.sin(math.pi * width / 2) ** 2 / width**2
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((length, n))
    h0 = 0.5 * np.sin(math.pi * width * np.arange(1, n + 1))
    bound = (1 + dt) / (1 + dt * diffusion * slowest)
    known = Known("contractive", None, bound, source="Ascher, Ruuth & Wetton 1995")
    theta = np.linalg.inv(np.eye(n) - dt * diffusion * L), dt
    note = "contractive: diffusion is stronger than the reaction"
    return Problem(Recurrence(_imex), x, h0, theta, length, None, note, known).astype(dtype)


def _imex(u: Any, x: Any, theta: Any) -> Any:
    implicit, dt = theta
    return (u + dt * (u - u * u * u + x)) @ implicit.T


def stiff_equilibrium(length: int = 1000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return relaxation towards an equilibrium, ``h' = h + tau (tanh(W h + u) - h)``, by stages.

    What a deep-equilibrium model iterates, with rates tau from 1 to 0.001 among 32 components. Rows
    of W have absolute sums 0.9: df/dh is at most ``1 - 0.1 min(tau)`` in the maximum norm.

    Source: Bai, Kolter & Koltun 2019 (arXiv 1909.01377), "Deep equilibrium models".

    Examples
    --------
    >>> problem = stiff_equilibrium(length=5)
    >>> problem.h0.shape, problem.known.character
    ((32,), 'contractive')
    """
    n, coupling = 32, 0.9
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n))
    W *= coupling / np.abs(W).sum(axis=1, keepdims=True)
    u, rates = rng.standard_normal(n), np.logspace(0, -3, n)
    bound = 1 - (1 - coupling) * float(rates.min())
    known = Known("contractive", None, bound, np.inf, source="Bai, Kolter & Koltun 2019")
    note = "contractive, some components a thousand times more slowly than others"
    recurrence, theta, h0 = Recurrence(_relax), (W, u, rates), np.zeros(n)
    return Problem(recurrence, None, h0, theta, length, None, note, known).astype(dtype)


def _relax(h: Any, x: None, theta: Any) -> Any:
    W, u, rates = theta
    return h + rates * (np.tanh(h @ W.T + u) - h)
