"""Markov chains driven by given noise: Langevin, Metropolis-adjusted Langevin, Hamiltonian.

With the random numbers drawn beforehand a chain is a recurrence, and its states can be computed in
parallel. Source: Zoltowski et al. 2025 (arXiv 2508.18413) for the Metropolis step as a recurrence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.functions import sigmoid
from pararnn_solvers.problems.problem import Known, Problem
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

MASS, COUPLING = 1.0, 1.0
# The second derivative of the potential below lies between these, whatever the state.
CURVATURE = MASS, MASS + 1 + 4 * COUPLING


def two_well_langevin(length: int = 10000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return Langevin sampling ``s' = s + e grad log p(s) + sqrt(2 e) x_t`` of two Gaussians.

    The mixture has weights .49 and .51, means (-1.4, 0) and (1.6, 0) and diagonal covariances
    (.45, .45) and (.54, .45); e = 0.01. Contractive in the wells, expansive between them.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), section 5.

    Examples
    --------
    >>> problem = two_well_langevin(length=5)
    >>> problem.h0.shape, problem.known.character
    ((2,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    x, h0, guess = (rng.standard_normal(shape) for shape in ((length, 2), (2,), (length, 2)))
    note = "predictable: largest Lyapunov exponent about -0.0145 a step, expansive between wells"
    source = "Gonzalez et al. 2025 (arXiv 2508.16817), section 5"
    known = Known("contractive", -0.0145, iterations={"newton": 35}, source=source)
    return Problem(Recurrence(_two_wells), x, h0, None, length, guess, note, known).astype(dtype)


def _two_wells(s: Any, x: Any, theta: None) -> Any:
    across, along = s[..., :1], s[..., 1:]  # the second coordinate is alike in both wells
    first, second = (across + 1.4) / 0.45, (across - 1.6) / 0.54
    odds = math.log(0.49 / 0.51) - 0.5 * math.log(0.45 / 0.54)
    quadratic = first * (across + 1.4) - second * (across - 1.6)
    left = sigmoid(odds - 0.5 * quadratic)  # the probability of the first well, given s
    force = np.concatenate([left * first + (1 - left) * second, along / 0.45], axis=-1)
    epsilon = 0.01
    return s - epsilon * force + math.sqrt(2 * epsilon) * x


def potential(s: Any) -> Any:
    """Return ``U(s) = sum s^2/2 + log cosh s + (s_i - s_{i+1})^2/2`` on a ring, shape (..., 1).

    A convex chain, whose samples are ``p(s) ~ exp(-U(s))``; second derivatives are in `CURVATURE`.
    """
    log_cosh = np.logaddexp(s, -s) - math.log(2)
    energy = 0.5 * MASS * s * s + log_cosh + 0.5 * COUPLING * np.square(s - np.roll(s, -1, axis=-1))
    return np.sum(energy, axis=-1, keepdims=True)


def gradient(s: Any) -> Any:
    """Return the gradient of `potential`, shape (..., d)."""
    neighbours = np.roll(s, 1, axis=-1) + np.roll(s, -1, axis=-1)
    return MASS * s + np.tanh(s) + COUPLING * (2 * s - neighbours)


def chain_langevin(
    length: int = 1000, D: int = 64, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return Langevin sampling of a convex chain of D coordinates, ``e = 0.05``.

    A step contracts by ``1 - e`` at least, the least curvature being 1.

    Source: Roberts & Tweedie 1996; Dalalyan 2017 for the contraction.

    Examples
    --------
    >>> problem = chain_langevin(length=5)
    >>> problem.h0.shape, problem.known.character
    ((64,), 'contractive')
    """
    epsilon = 0.05
    rng = np.random.default_rng(seed)
    x, h0 = rng.standard_normal((length, D)), rng.standard_normal(D)
    known = Known("contractive", None, 1 - epsilon * CURVATURE[0], source="Dalalyan 2017")
    note = "contractive: the potential is convex"
    recurrence = Recurrence(_langevin)
    return Problem(recurrence, x, h0, epsilon, length, None, note, known).astype(dtype)


def _langevin(s: Any, x: Any, epsilon: Any) -> Any:
    return s - epsilon * gradient(s) + (2 * epsilon) ** 0.5 * x


def _noise(rng: np.random.Generator, length: int, D: int) -> Array:
    """Return rows of D normal numbers and the logarithm of a uniform one."""
    return np.concatenate(
        [rng.standard_normal((length, D)), np.log(rng.uniform(size=(length, 1)))], axis=-1
    )


def mala(length: int = 1000, D: int = 8, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return the Metropolis-adjusted Langevin algorithm on a convex chain, ``e = 0.05``.

    A proposal is accepted where ``log u`` is below the ratio: a jump of `step` that no derivative
    sees. Newton's method takes the derivative of the branch.

    Source: Roberts & Tweedie 1996; Zoltowski et al. 2025 (arXiv 2508.18413).

    Examples
    --------
    >>> problem = mala(length=5)
    >>> problem.h0.shape, problem.known.character
    ((8,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    x, h0 = _noise(rng, length, D), rng.standard_normal(D)
    known = Known("contractive", source="Zoltowski et al. 2025 (arXiv 2508.18413)")
    note = "discontinuous where a proposal is just accepted"
    return Problem(Recurrence(_mala), x, h0, 0.05, length, None, note, known).astype(dtype)


def _mala(s: Any, x: Any, epsilon: Any) -> Any:
    noise, log_u = x[..., :-1], x[..., -1:]
    proposal = _langevin(s, noise, epsilon)
    back = s - proposal + epsilon * gradient(proposal)
    there = np.sum(np.square(noise), axis=-1, keepdims=True) / 2
    density = there - np.sum(np.square(back), axis=-1, keepdims=True) / (4 * epsilon)
    return np.where(log_u < potential(s) - potential(proposal) + density, proposal, s)


def hmc(length: int = 1000, D: int = 8, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return Hamiltonian Monte Carlo on a convex chain: five leapfrog steps of 0.15 and Metropolis.

    Two chains with the same momenta approach each other where the potential is convex.

    Source: Duane et al. 1987; Neal 2011; Bou-Rabee, Eberle & Zimmer 2020 for the contraction.

    Examples
    --------
    >>> problem = hmc(length=5)
    >>> problem.h0.shape, problem.known.character
    ((8,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    x, h0 = _noise(rng, length, D), rng.standard_normal(D)
    known = Known("contractive", source="Bou-Rabee, Eberle & Zimmer 2020")
    note = "discontinuous where a proposal is just accepted"
    return Problem(Recurrence(_hmc), x, h0, 0.15, length, None, note, known).astype(dtype)


def _hmc(s: Any, x: Any, dt: Any) -> Any:
    momentum, log_u = x[..., :-1], x[..., -1:]
    q, p = s, momentum - dt / 2 * gradient(s)
    for _ in range(4):
        q = q + dt * p
        p = p - dt * gradient(q)
    q = q + dt * p
    p = p - dt / 2 * gradient(q)
    before = potential(s) + 0.5 * np.sum(np.square(momentum), axis=-1, keepdims=True)
    after = potential(q) + 0.5 * np.sum(np.square(p), axis=-1, keepdims=True)
    return np.where(log_u < before - after, q, s)
