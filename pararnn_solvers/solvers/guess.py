"""Where the iteration starts: a function from the system to a trajectory (T, batch, d)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.checks import all_finite, require_one_place
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

Guess = Callable[[System], Array]


def zeros(system: System) -> Array:
    """Return ``h_t = 0``."""
    h = system.empty()
    h[...] = 0
    return h


def repeat_h0(system: System) -> Array:
    """Return ``h_t = h_0``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method='newton', guess=prs.repeat_h0).n_iter
    4
    """
    h = system.empty()
    h[...] = system.h0
    return h


def from_zero(system: System) -> Array:
    """Return ``h_t = f(0, x_t)``, or ``h_0`` where that is not finite.

    Source: Danieli et al. 2025 (arXiv 2510.21450), section 3.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method='newton', guess=prs.from_zero).n_iter
    4
    """
    f = system.evaluate(zeros(system))
    return f if all_finite(f) else np.where(np.isfinite(f), f, system.h0)


def jacobi_sweeps(n: int, start: Guess = from_zero) -> Guess:
    """Improve `start` by n sweeps ``h_t <- f(h_{t-1}, x_t)``, all steps at once.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> guess = prs.jacobi_sweeps(5)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method='newton', guess=guess).n_iter
    2
    """

    def guess(system: System) -> Array:
        h = start(system)
        for _ in range(n):
            h = system.evaluate(system.previous(h))
        return h

    return guess


def picard_sweeps(n: int, start: Guess = from_zero) -> Guess:
    """Improve `start` by n sweeps ``h_t <- h_0 + sum_{s<=t} (f(h_{s-1}, x_s) - h_{s-1})``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> guess = prs.picard_sweeps(1)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method='newton', guess=guess).n_iter
    4
    """

    def guess(system: System) -> Array:
        h = start(system)
        for _ in range(n):
            previous = system.previous(h)
            h = system.h0 + np.cumsum(system.evaluate(previous) - previous, axis=0)
        return h

    return guess


GUESSES: dict[str, Guess] = {"zeros": zeros, "repeat_h0": repeat_h0, "from_zero": from_zero}


def named(name: str) -> Guess:
    """Return the guess of a name."""
    if name not in GUESSES:
        raise InvalidInput(f"guess is {name!r}; expected one of {list(GUESSES)}")
    return GUESSES[name]


def resolve(guess: Any, system: System) -> Array:
    """Return the trajectory that a name, a function or an array stands for; a fresh array.

    None is ``from_zero``.
    """
    if guess is None:
        guess = from_zero
    if isinstance(guess, str):
        guess = named(guess)
    own = any(guess is function for function in GUESSES.values())
    h = arrays.from_any(guess(system) if callable(guess) else guess)
    require_one_place({"guess": h, "h0": system.h0})
    h = np.ascontiguousarray(h, like=h) if own else h.copy()
    if h.shape != system.shape or h.dtype != system.h0.dtype:
        raise InvalidInput(
            f"guess has shape {h.shape} and dtype {h.dtype}; expected a trajectory of shape "
            f"{system.shape} in {system.h0.dtype}"
        )
    if not all_finite(h):
        raise InvalidInput("guess is not finite everywhere; expected finite states to start from")
    return h
