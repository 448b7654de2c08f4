"""Model problems of known character: easy, hard and hopeless for parallel-in-time solvers.

Each function returns a :class:`Problem`, whose fields are the arguments of a solve, in float64 and
without batch axes. Equal seeds give equal problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells import diagonal_lstm
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

EULER_DT = 0.01


class Problem(NamedTuple):
    """A recurrence with its data; ``solve(*problem[:4], steps=problem.steps)`` solves it.

    Shapes are x (T, m) or None, h0 (d,), guess (T, d) or None: the trajectory from which the
    source starts its iteration. `steps` is T, and `note` says what is known of the problem.
    """

    recurrence: Recurrence
    x: Array | None
    h0: Array
    theta: Any
    steps: int
    guess: Array | None
    note: str


def mean_field_rnn(gain: float, T: int = 1000, D: int = 100, seed: int = 0) -> Problem:
    """Return ``s' = W tanh(s) + u_t`` with ``W ~ N(0, gain^2/D)``: chaotic beyond a gain near 1.

    Newton's iterations grow slowly with T where the largest Lyapunov exponent is negative, and
    reach T where it is positive.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), section 5; Sompolinsky et al. 1988.
    """
    rng = np.random.default_rng(seed)
    W = rng.normal(0, gain / np.sqrt(D), (D, D)) * (1 - np.eye(D))
    amplitude, frequency = rng.uniform(0, 0.2, D), rng.uniform(0.5, 3, D)
    phase = rng.uniform(0, 2 * np.pi, D)
    u = amplitude * np.sin(frequency * np.arange(T)[:, None] + phase)
    h0, guess = rng.uniform(-1, 1, D), rng.uniform(-1, 1, (T, D))
    recurrence = Recurrence(_tanh_network, jacobian=_tanh_network_jacobian)
    return Problem(recurrence, u, h0, W, T, guess, "easy for gain < 1, sequential for gain > 1.3")


def _tanh_network(s: Any, u: Any, W: Any) -> Any:
    return np.tanh(s) @ W.T + u


def _tanh_network_jacobian(s: Array, u: Array, W: Array) -> Array:
    slope: Array = 1 - np.square(np.tanh(s))
    return W * slope[..., None, :]  # (..., D, D)


class Flow(NamedTuple):
    """A differential equation ``ds/dt = f(s, p)`` in three dimensions.

    An observer is told the components `observed`; `exponent` is the published largest Lyapunov
    exponent per unit of time.
    """

    f: Callable[..., Any]
    parameters: tuple[float, ...]
    start: tuple[float, float, float]
    observed: tuple[int, ...]
    exponent: float


def _components(f: Callable[..., tuple[Any, Any, Any]]) -> Callable[[Any, Any], Any]:
    def field(s: Any, p: tuple[float, ...]) -> Any:
        return np.stack(f(s[..., 0], s[..., 1], s[..., 2], *p), axis=-1)

    return field


@_components
def _lorenz(x: Any, y: Any, z: Any, s: float, r: float, b: float) -> Any:
    return s * (y - x), r * x - x * z - y, x * y - b * z


@_components
def _thomas(x: Any, y: Any, z: Any, a: float, b: float) -> Any:
    return b * np.sin(y) - a * x, b * np.sin(z) - a * y, b * np.sin(x) - a * z


@_components
def _abc(x: Any, y: Any, z: Any, A: float, B: float, C: float) -> Any:
    sin, cos = np.sin, np.cos
    return A * sin(z) + C * cos(y), B * sin(x) + A * cos(z), C * sin(y) + B * cos(x)


@_components
def _sprott_b(x: Any, y: Any, z: Any) -> Any:
    return y * z, x - y, 1 - x * y


@_components
def _vallis(x: Any, y: Any, z: Any, b: float, c: float, p: float) -> Any:
    return b * y - c * (x + p), x * z - y, 1 - z - x * y


# fmt: off
FLOWS: dict[str, Flow] = {
    "lorenz": Flow(_lorenz, (10.0, 28.0, 8 / 3), (-9.7869288, -15.03852, 20.533978), (1,), 1.02),
    "thomas": Flow(_thomas, (1.85, 10.0), (2.199442, 2.3634225, 3.220197), (1,), 0.01),
    "abc": Flow(_abc, (1.73205, 1.41421, 1.0),
                (-0.78450179, -0.62887672, -0.17620268), (0, 2), 0.16),
    "sprott_b": Flow(_sprott_b, (), (1.6878282, 1.4848132, -0.53706628), (1,), 0.20),
    "vallis": Flow(_vallis, (102.0, 3.0, 0.0),
                   (-6.99286331, 0.02325428, -0.16581776), (1,), 0.58),
}
# fmt: on


def flow(name: str, T: int = 30000, seed: int = 0) -> Problem:
    """Return a chaotic flow out of ``FLOWS`` by Euler's method, dt = 0.01: hopeless in parallel.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), table 1; Gilpin 2021 for the flows.
    """
    chosen = _find_flow(name)
    guess = np.random.default_rng(seed).standard_normal((T, 3))
    note = f"chaotic: largest Lyapunov exponent {chosen.exponent} per unit of time, 0.01 a step"
    step, h0 = partial(_euler, chosen.f), np.array(chosen.start)
    return Problem(Recurrence(step), None, h0, chosen.parameters, T, guess, note)


def _find_flow(name: str) -> Flow:
    if name not in FLOWS:
        raise InvalidInput(f"flow is {name!r}; expected one of {list(FLOWS)}")
    return FLOWS[name]


def _euler(f: Callable[..., Any], s: Any, x: None, p: Any) -> Any:
    return s + EULER_DT * f(s, p)


def observer(name: str, T: int = 30000, seed: int = 0) -> Problem:
    """Return the observer of a chaotic flow, which is told some components: it forgets its start.

    ``s' = s~ + dt (f(s~) + C^T C (x - s~))`` where x is the true state, ``s~`` is s with the
    observed components replaced by those of x, and ``C ~ N(0, 1)`` has one row. It starts away
    from the true state by N(0, 1) in each component, and the guess is N(0, 1).

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), section 5 and table 1.
    """
    chosen, truth = _find_flow(name), flow(name, T)
    rng = np.random.default_rng(seed)
    C, h0 = rng.standard_normal((1, 3)), truth.h0 + rng.standard_normal(3)
    x, state = np.empty((T, 3)), truth.h0
    for t in range(T):
        x[t] = state
        state = truth.recurrence.step(state, None, truth.theta)
    step = partial(_observe, chosen.f, np.isin(np.arange(3), chosen.observed))
    guess = rng.standard_normal((T, 3))
    note = "predictable: Newton's method needs a few iterations, whatever T"
    return Problem(Recurrence(step), x, h0, (chosen.parameters, C), T, guess, note)


def _observe(f: Callable[..., Any], observed: Array, s: Any, x: Any, theta: Any) -> Any:
    p, C = theta
    told = np.where(observed, x, s)
    return told + EULER_DT * (f(told, p) + (x - told) @ C.T @ C)


def two_well_langevin(T: int = 10000, seed: int = 0) -> Problem:
    """Return Langevin sampling ``s' = s + e grad log p(s) + sqrt(2 e) x_t`` of two Gaussians.

    The mixture has weights .49 and .51, means (-1.4, 0) and (1.6, 0) and diagonal covariances
    (.45, .45) and (.54, .45); e = 0.01. Contractive in the wells, expansive between them.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), section 5.
    """
    rng = np.random.default_rng(seed)
    x, h0, guess = (rng.standard_normal(shape) for shape in ((T, 2), (2,), (T, 2)))
    note = "predictable: largest Lyapunov exponent about -0.0145 a step, expansive between wells"
    return Problem(Recurrence(_langevin), x, h0, None, T, guess, note)


def _langevin(s: Any, x: Any, theta: None) -> Any:
    across, along = s[..., :1], s[..., 1:]  # the second coordinate is alike in both wells
    first, second = (across + 1.4) / 0.45, (across - 1.6) / 0.54
    odds = math.log(0.49 / 0.51) - 0.5 * math.log(0.45 / 0.54)
    quadratic = first * (across + 1.4) - second * (across - 1.6)
    left = sigmoid(odds - 0.5 * quadratic)  # the probability of the first well, given s
    force = np.concatenate([left * first + (1 - left) * second, along / 0.45], axis=-1)
    epsilon = 0.01
    return s - epsilon * force + math.sqrt(2 * epsilon) * x


def _runge_kutta(f: Callable[..., Any], dt: float, h: Any, x: None, p: Any) -> Any:
    k1 = f(h, p)  # the classical method of order 4
    k2 = f(h + dt / 2 * k1, p)
    k3 = f(h + dt / 2 * k2, p)
    k4 = f(h + dt * k3, p)
    return h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def van_der_pol(T: int = 512, dt: float = 0.05) -> Problem:
    """Return Van der Pol's oscillator, ``mu = 1``, by RK4: a limit cycle, far from any guess.

    Plain Newton overflows from the default guess; a moving window solves it.
    """
    recurrence = Recurrence(partial(_runge_kutta, _van_der_pol, dt))
    note = "exponent 0 along the limit cycle; iterates overflow from the default guess"
    return Problem(recurrence, None, np.array([1.0, 0.0]), 1.0, T, None, note)


def _van_der_pol(h: Any, mu: float) -> Any:
    return np.stack([h[..., 1], mu * (1 - h[..., 0] ** 2) * h[..., 1] - h[..., 0]], axis=-1)


def lorenz63(T: int = 512, dt: float = 0.01) -> Problem:
    """Return Lorenz' flow by RK4, from (1, 1, 1): chaotic.

    Source: Lorenz 1963, "Deterministic nonperiodic flow".
    """
    recurrence, parameters = Recurrence(partial(_runge_kutta, _lorenz, dt)), FLOWS["lorenz"][1]
    return Problem(recurrence, None, np.ones(3), parameters, T, None, "chaotic")


def logistic_map(r: float, T: int = 200) -> Problem:
    """Return ``h' = r h (1 - h)``: a fixed point for r < 3, periodic to 3.57, then mostly chaotic.

    Source: May 1976, "Simple mathematical models with very complicated dynamics".
    """
    recurrence = Recurrence(lambda h, x, r: r * h * (1 - h), block_size=1)
    return Problem(recurrence, None, np.array([0.3]), r, T, None, "chaotic for most r > 3.57")


def long_memory_lstm(T: int = 1024, n: int = 8, forget_bias: float = 5.0, seed: int = 0) -> Problem:
    """Return a diagonal LSTM whose forget gates stay open: memory of about ``exp(forget_bias)``."""
    rng = np.random.default_rng(seed)
    a, p = rng.uniform(-1, 1, (3, n)), rng.uniform(-1, 1, (2, n))
    theta = diagonal_lstm.Theta(a, p, np.zeros((3, 1, 0, n)), np.zeros((3, n)))
    u = rng.standard_normal((T, 3 * n))
    u[:, :n] += forget_bias
    note = "contractive, but slowly"
    return Problem(diagonal_lstm.recurrence, u, np.zeros(2 * n), theta, T, None, note)
