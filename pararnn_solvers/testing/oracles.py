"""Three ways to differentiate a function, and whether they agree."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.autodiff import complex_step, pushforward
from pararnn_solvers.typing import Array

DUAL, COMPLEX, DIFFERENCES = "dual arrays", "complex step", "finite differences"
EPS = float(np.finfo(np.float64).eps)
HALF = EPS**0.5  # of the digits: to this the oracles agree, relative to the greatest derivative


class Oracles(NamedTuple):
    """Derivatives by each oracle: an array, or the error it ended in; and the noise of differences.

    `near` are differences of so small a step that a kink nearby does not matter, of few digits.
    `noise` is that of each component of the result along each direction: (p, d).
    """

    found: dict[str, Array | str]
    near: Array
    noise: Array

    def agree(self, one: str, other: str) -> bool:
        """Tell whether two oracles found the same."""
        return not np.any(self.apart(one, other))

    def apart(self, one: str, other: str) -> Array:
        """Tell where two oracles differ; everywhere, if one ended in an error."""
        a, b = self.found[one], self.found[other]
        if isinstance(a, str) or isinstance(b, str):
            return np.ones_like(self.near, dtype=bool)
        noise = np.expand_dims(self.noise, tuple(range(1, a.ndim - 1)))
        wrong = beyond(a, b, HALF, noise)
        if DIFFERENCES in (one, other):  # the greater step may reach over a kink
            exact = b if one == DIFFERENCES else a
            wrong &= beyond(exact, self.near, EPS**0.25, EPS**0.25 * noise / HALF)
        return wrong

    @property
    def best(self) -> Array:
        """What dual arrays or complex steps found, if differences confirm it; else differences."""
        for name in (DUAL, COMPLEX):
            exact = self.found[name]
            if not isinstance(exact, str) and self.agree(name, DIFFERENCES):
                return exact
        found = self.found[DIFFERENCES]
        assert not isinstance(found, str)
        return found


def ask(function: Callable[[Any], Any], at: Array, directions: Array) -> Oracles:
    """Differentiate a function of float64 arrays (..., d) along directions (p, d) in three ways.

    Differences are those of Richardson: of order 4, with a step ``eps**(1/5)`` of the size of `at`.
    Their truncation and their rounding are both about ``eps**(4/5) = 3e-13`` of the function.
    """
    found: dict[str, Array | str] = {}
    for name, oracle in ((DUAL, pushforward), (COMPLEX, complex_step)):
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                found[name] = np.asarray(oracle(function, at, directions)[1])
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    of_each = sizes(at)
    size = np.array([np.max(of_each, where=v != 0, initial=0) or 1.0 for v in directions])
    found[DIFFERENCES] = richardson(function, at, directions, size * EPS**0.2)
    near = central(function, at, directions, size * EPS**0.5)
    noise = 64 * EPS**0.8 * sizes(np.asarray(function(at.copy()))) / size[:, None]
    return Oracles(found, near, noise)


def sizes(array: Array) -> Array:
    """Return the greatest size of each component (d,), or that of all where it is not far below.

    A component that is small for once is not computed with more digits than its neighbours.
    """
    each = np.max(np.abs(array).reshape(-1, array.shape[-1]), axis=0, initial=0)
    largest = each.max(initial=0)
    usual = (each > 1e-3 * largest) | (each == 0)
    return np.asarray(np.where(usual, largest, each))


def central(function: Callable[[Any], Any], at: Array, directions: Array, steps: Array) -> Array:
    """Return central differences along each direction."""
    return np.stack(
        [
            (function(at + step * v) - function(at - step * v)) / (2 * step)
            for step, v in zip(steps, directions, strict=True)
        ]
    )


def richardson(function: Callable[[Any], Any], at: Array, directions: Array, step: Array) -> Array:
    """Return differences of fourth order along each direction."""
    wide, narrow = (central(function, at, directions, s) for s in (step, step / 2))
    return np.asarray((4 * narrow - wide) / 3)


def beyond(a: Array, b: Array, tolerance: float, noise: float | Array = 0.0) -> Array:
    """Tell where arrays differ by more than the tolerance, relative to the greatest entry of b."""
    scale = float(np.max(np.abs(b), initial=0, where=np.isfinite(b)))
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= tolerance * scale + noise
    return np.asarray(~(near | (np.isnan(a) & np.isnan(b))))
