"""Recurrent networks: at initialization, at the edge of chaos, with long memory, self-fed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers import cells
from pararnn_solvers.cells import diagonal_lstm, gru
from pararnn_solvers.problems.problem import Known, Problem, spectral_norm
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

EDGE_OF_CHAOS = 1.0


def mean_field_rnn(
    gain: float, length: int = 1000, D: int = 100, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return ``s' = W tanh(s) + u_t`` with ``W ~ N(0, gain^2/D)``: chaotic beyond a gain near 1.

    Newton's iterations grow slowly with T where the largest Lyapunov exponent is negative, and
    reach T where it is positive.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), section 5; Sompolinsky et al. 1988.

    Examples
    --------
    >>> problem = mean_field_rnn(0.8, length=5)
    >>> problem.h0.shape, problem.known.character
    ((100,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    W = rng.normal(0, gain / np.sqrt(D), (D, D)) * (1 - np.eye(D))
    amplitude, frequency = rng.uniform(0, 0.2, D), rng.uniform(0.5, 3, D)
    phase = rng.uniform(0, 2 * np.pi, D)
    u = amplitude * np.sin(frequency * np.arange(length)[:, None] + phase)
    h0, guess = rng.uniform(-1, 1, D), rng.uniform(-1, 1, (length, D))
    recurrence = Recurrence(_mean_field, jacobian=_mean_field_jacobian)
    character = "contractive" if gain <= EDGE_OF_CHAOS else "expansive"
    source = "Gonzalez et al. 2025 (arXiv 2508.16817), section 5"
    known = Known(character, None, spectral_norm(W), source=source)
    note = "easy for gain < 1, sequential for gain > 1.3"
    return Problem(recurrence, u, h0, W, length, guess, note, known).astype(dtype)


def _mean_field(s: Any, u: Any, W: Any) -> Any:
    return np.tanh(s) @ W.T + u


def _mean_field_jacobian(s: Array, u: Array, W: Array) -> Array:
    slope: Array = 1 - np.square(np.tanh(s))
    return W * slope[..., None, :]  # (..., D, D)


def tanh_network(
    gain: float, length: int = 1000, D: int = 32, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return ``h' = tanh(W h + B x_t)`` with ``W ~ N(0, gain^2/D)`` and four inputs of noise.

    Noise saturates the units, so that perturbations still die out at gains somewhat above 1.

    Source: Gonzalez et al. 2024 (arXiv 2407.19115), section 6.1, for the sizes D = 32 and 4 inputs.

    Examples
    --------
    >>> problem = tanh_network(0.9, length=5)
    >>> problem.h0.shape, problem.known.character
    ((32,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    W = rng.normal(0, gain / np.sqrt(D), (D, D))
    B = rng.normal(0, 0.5, (D, 4))
    u = rng.standard_normal((length, 4)) @ B.T
    source = "Gonzalez et al. 2024 (arXiv 2407.19115)"
    character = "contractive" if gain <= EDGE_OF_CHAOS else "expansive"
    known = Known(character, None, spectral_norm(W), source=source)
    note = "contractive for a gain up to 1, chaotic well beyond"
    recurrence = Recurrence(_tanh_network, jacobian=_tanh_network_jacobian)
    return Problem(recurrence, u, np.zeros(D), W, length, None, note, known).astype(dtype)


def _tanh_network(h: Any, u: Any, W: Any) -> Any:
    return np.tanh(h @ W.T + u)


def _tanh_network_jacobian(h: Array, u: Array, W: Array) -> Array:
    slope: Array = 1 - np.square(_tanh_network(h, u, W))
    return W * slope[..., None]


def cell_at_initialization(
    name: str, length: int = 1000, n: int = 32, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return a cell out of ``cells.CELLS`` with weights as drawn, driven by four inputs of noise.

    All of them forget: dense weights are drawn between ``-1/sqrt(n)`` and ``1/sqrt(n)``, diagonal
    ones are small.

    Source: Danieli et al. 2025 (arXiv 2510.21450) for the diagonal cells, three to four iterations
    of Newton's method; PyTorch's initialization for the dense ones.

    Examples
    --------
    >>> problem = cell_at_initialization('gru', length=5)
    >>> problem.h0.shape, problem.known.character
    ((32,), 'contractive')
    """
    cell, rng = cells.load(name), np.random.default_rng(seed)
    theta = cell.init(rng, 4, n)
    u = cell.project(rng.standard_normal((length, 4)), theta)
    published = {"newton": 4} if name.startswith("diagonal") else {}
    known = Known("contractive", iterations=published, source="Danieli et al. 2025")
    note = "contractive: three to five iterations of Newton's method, whatever T"
    h0, recurrence = cell.initial_state(theta), cells.recurrence_of(cell, theta)
    return Problem(recurrence, u, h0, theta, length, None, note, known).astype(dtype)


def long_memory_lstm(
    length: int = 1024,
    n: int = 8,
    forget_bias: float = 5.0,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
) -> Problem:
    """Return a diagonal LSTM whose forget gates stay open: memory of about ``exp(forget_bias)``.

    Source: Jozefowicz, Zaremba & Sutskever 2015, for the bias of the forget gate.

    Examples
    --------
    >>> problem = long_memory_lstm(length=5)
    >>> problem.h0.shape, problem.known.character
    ((16,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    a, p = rng.uniform(-1, 1, (3, n)), rng.uniform(-1, 1, (2, n))
    theta = diagonal_lstm.Theta(a, p, np.zeros((3, 1, 0, n)), np.zeros((3, n)))
    u = rng.standard_normal((length, 3 * n))
    u[:, :n] += forget_bias
    known = Known("contractive", source="Jozefowicz, Zaremba & Sutskever 2015")
    recurrence, h0, note = diagonal_lstm.recurrence, np.zeros(2 * n), "contractive, but slowly"
    return Problem(recurrence, u, h0, theta, length, None, note, known).astype(dtype)


def self_fed_gru(
    gain: float, length: int = 1000, n: int = 8, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return a GRU whose next input is its own output, ``x_t = C h_{t-1} + noise_t``.

    An autoregressive GRU, as it generates: weights are those of PyTorch's initialization times
    `gain`. The loop through its own output makes the guess ``f(0, x)`` a poor one.

    Source: Gonzalez et al. 2024 (arXiv 2407.19115), section 6.2, which trains one; drawn here.

    Examples
    --------
    >>> problem = self_fed_gru(4.0, length=5)
    >>> problem.h0.shape, problem.known.character
    ((8,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    theta = gru.Theta(*(gain * weight for weight in gru.init(rng, 2, n)))
    C = rng.normal(0, 1 / math.sqrt(n), (2, n))
    noise, h0 = 0.1 * rng.standard_normal((length, 2)), rng.uniform(-1, 1, n)
    source = "Gonzalez et al. 2024 (arXiv 2407.19115), section 6.2"
    known = Known("contractive", source=source)
    note = "the recurrence runs through the output, too"
    recurrence = Recurrence(_self_fed)
    return Problem(recurrence, noise, h0, (theta, C), length, None, note, known).astype(dtype)


def _self_fed(h: Any, noise: Any, parameters: Any) -> Any:
    theta, C = parameters
    drives = (h @ C.T + noise) @ theta.weight_ih.T + theta.bias_ih
    return gru.step(h, drives, theta)
