"""Differential equations by one-step methods: chaotic flows, observers of them, oscillators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.problems.problem import Known, Problem, start
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

EULER_DT = 0.01


class Flow(NamedTuple):
    """A differential equation ``ds/dt = f(s, p)`` in three dimensions.

    An observer is told the components `observed`; `exponent` is the published largest Lyapunov
    exponent per unit of time, the iterations are published counts of Newton's method at
    T = 30000, which evaluate the merit on the old states: one more than here.

    Examples
    --------
    >>> FLOWS['lorenz'].exponent
    1.02
    """

    f: Callable[..., Any]
    parameters: tuple[float, ...]
    start: tuple[float, float, float]
    observed: tuple[int, ...]
    exponent: float
    system_iterations: int
    observer_iterations: int


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


SOURCE = "Gonzalez et al. 2025 (arXiv 2508.16817), table 1"

# fmt: off
FLOWS: dict[str, Flow] = {
    "lorenz": Flow(_lorenz, (10.0, 28.0, 8 / 3), (-9.7869288, -15.03852, 20.533978),
                   (1,), 1.02, 30000, 3),
    "thomas": Flow(_thomas, (1.85, 10.0), (2.199442, 2.3634225, 3.220197), (1,), 0.01, 12747, 7),
    "abc": Flow(_abc, (1.73205, 1.41421, 1.0), (-0.78450179, -0.62887672, -0.17620268),
                (0, 2), 0.16, 4243, 3),
    "sprott_b": Flow(_sprott_b, (), (1.6878282, 1.4848132, -0.53706628), (1,), 0.20, 29486, 2),
    "vallis": Flow(_vallis, (102.0, 3.0, 0.0), (-6.99286331, 0.02325428, -0.16581776),
                   (1,), 0.58, 30000, 3),
}
# fmt: on


def flow(name: str, length: int = 30000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return a chaotic flow out of ``FLOWS`` by Euler's method, dt = 0.01: hopeless in parallel.

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), table 1; Gilpin 2021 for the flows.

    Examples
    --------
    >>> problem = flow('lorenz', length=5)
    >>> problem.h0.shape, problem.known.character
    ((3,), 'expansive')
    """
    chosen = _find_flow(name)
    guess = np.random.default_rng(seed).standard_normal((length, 3))
    note = f"chaotic: largest Lyapunov exponent {chosen.exponent} per unit of time, 0.01 a step"
    published = {"newton": chosen.system_iterations}
    known = Known("expansive", EULER_DT * chosen.exponent, iterations=published, source=SOURCE)
    recurrence, h0 = Recurrence(partial(_euler, chosen.f)), start(chosen.start, seed)
    problem = Problem(recurrence, None, h0, chosen.parameters, length, guess, note, known)
    return problem.astype(dtype)


def _find_flow(name: str) -> Flow:
    if name not in FLOWS:
        raise InvalidInput(f"flow is {name!r}; expected one of {list(FLOWS)}")
    return FLOWS[name]


def _euler(f: Callable[..., Any], s: Any, x: None, p: Any) -> Any:
    return s + EULER_DT * f(s, p)


def observer(name: str, length: int = 30000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return the observer of a chaotic flow, which is told some components: it forgets its start.

    ``s' = s~ + dt (f(s~) + C^T C (x - s~))`` where x is the true state, ``s~`` is s with the
    observed components replaced by those of x, and ``C ~ N(0, 1)`` has one row. It starts away
    from the true state by N(0, 1) in each component, and the guess is N(0, 1).

    Source: Gonzalez et al. 2025 (arXiv 2508.16817), section 5 and table 1.

    Examples
    --------
    >>> problem = observer('lorenz', length=5)
    >>> problem.h0.shape, problem.known.character
    ((3,), 'contractive')
    """
    chosen, truth = _find_flow(name), flow(name, length)
    rng = np.random.default_rng(seed)
    C, h0 = rng.standard_normal((1, 3)), truth.h0 + rng.standard_normal(3)
    x, state = np.empty((length, 3)), truth.h0
    for t in range(length):
        x[t] = state
        state = truth.recurrence.step(state, None, truth.theta)
    step = partial(_observe, chosen.f, np.isin(np.arange(3), chosen.observed))
    guess = rng.standard_normal((length, 3))
    note = "predictable: Newton's method needs a few iterations, whatever T"
    published = {"newton": chosen.observer_iterations}
    known = Known("contractive", iterations=published, source=SOURCE)
    theta, recurrence = (chosen.parameters, C), Recurrence(step)
    return Problem(recurrence, x, h0, theta, length, guess, note, known).astype(dtype)


def _observe(f: Callable[..., Any], observed: Array, s: Any, x: Any, theta: Any) -> Any:
    p, C = theta
    told = np.where(observed, x, s)
    return told + EULER_DT * (f(told, p) + (x - told) @ C.T @ C)


def _runge_kutta(f: Callable[..., Any], dt: float, h: Any, x: None, p: Any) -> Any:
    k1 = f(h, p)  # the classical method of order 4
    k2 = f(h + dt / 2 * k1, p)
    k3 = f(h + dt / 2 * k2, p)
    k4 = f(h + dt * k3, p)
    return h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def van_der_pol(
    length: int = 512, dt: float = 0.05, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return Van der Pol's oscillator, ``mu = 1``, by RK4: a limit cycle, far from any guess.

    Plain Newton overflows from the default guess; a moving window solves it.

    Source: van der Pol 1926; the exponent along a limit cycle is 0.

    Examples
    --------
    >>> problem = van_der_pol(length=5)
    >>> problem.h0.shape, problem.known.character
    ((2,), 'marginal')
    """
    recurrence = Recurrence(partial(_runge_kutta, _van_der_pol, dt))
    note = "exponent 0 along the limit cycle; iterates overflow from the default guess"
    known = Known("marginal", 0.0, source="an autonomous limit cycle")
    h0 = start([1.0, 0.0], seed)
    return Problem(recurrence, None, h0, 1.0, length, None, note, known).astype(dtype)


def _van_der_pol(h: Any, mu: float) -> Any:
    return np.stack([h[..., 1], mu * (1 - h[..., 0] ** 2) * h[..., 1] - h[..., 0]], axis=-1)


def lorenz63(
    length: int = 512, dt: float = 0.01, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return Lorenz' flow by RK4, from (1, 1, 1): chaotic, 0.9056 per unit of time.

    The sum of its three exponents is the divergence of the field, -41/3 per unit of time.

    Source: Lorenz 1963, "Deterministic nonperiodic flow"; Sprott 2003 for the exponent.

    Examples
    --------
    >>> problem = lorenz63(length=5)
    >>> problem.h0.shape, problem.known.character
    ((3,), 'expansive')
    """
    recurrence, parameters = Recurrence(partial(_runge_kutta, _lorenz, dt)), FLOWS["lorenz"][1]
    known = Known("expansive", 0.9056 * dt, source="Sprott 2003, table A.5")
    h0 = start(np.ones(3), seed)
    return Problem(recurrence, None, h0, parameters, length, None, "chaotic", known).astype(dtype)


def lorenz96(length: int = 512, D: int = 40, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return ``dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + 8`` on a ring, RK4 with dt = 0.05.

    A model of weather round a circle of latitude: errors double in 2.1 days, 0.42 units of time.

    Source: Lorenz & Emanuel 1998, "Optimal sites for supplementary weather observations".

    Examples
    --------
    >>> problem = lorenz96(length=5)
    >>> problem.h0.shape, problem.known.character
    ((40,), 'expansive')
    """
    dt, rng = 0.05, np.random.default_rng(seed)
    recurrence = Recurrence(partial(_runge_kutta, _lorenz96, dt))
    h0 = 8 + rng.standard_normal(D)
    known = Known("expansive", np.log(2) / 0.42 * dt, source="Lorenz & Emanuel 1998, section 3")
    return Problem(recurrence, None, h0, 8.0, length, None, "chaotic", known).astype(dtype)


def _lorenz96(h: Any, forcing: Any) -> Any:
    def shifted(i: int) -> Any:
        return np.roll(h, -i, axis=-1)

    return (shifted(1) - shifted(-2)) * shifted(-1) - h + forcing
