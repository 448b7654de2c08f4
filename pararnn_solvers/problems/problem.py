"""What a model problem is: the arguments of a solve, and what is known before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.checks import require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

CHARACTERS = ("contractive", "marginal", "expansive")


@dataclass(frozen=True)
class Known:
    """What is known of a recurrence before it is solved.

    Attributes
    ----------
    character : {"contractive", "marginal", "expansive"}
        Whether perturbations die out, are kept up to powers of time, or grow.
    exponent : float, optional
        The largest Lyapunov exponent per step, in natural logarithms; None where neither theory
        nor the source gives it.
    lipschitz : float, optional
        A bound on df/dh along the trajectory, in the norm named by `norm`.
    norm : float
        2 for the spectral norm, inf for the greatest sum of a row.
    iterations : mapping
        Published iterations to convergence by name of method, at the length that the source used.
    source : str

    Examples
    --------
    >>> Known('contractive', exponent=-0.5).norm
    2
    """

    character: str
    exponent: float | None = None
    lipschitz: float | None = None
    norm: float = 2
    iterations: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse a character that nobody would look for."""
        if self.character not in CHARACTERS:
            raise InvalidInput(f"character is {self.character!r}; expected one of {CHARACTERS}")


class Problem(NamedTuple):
    """A recurrence with its data; ``solve(*problem[:4], steps=problem.steps)`` solves it.

    Shapes are x (T, m) or None, h0 (d,), guess (T, d) or None: the trajectory from which the
    source starts its iteration. `steps` is T, `note` says in words, and `known` in numbers, what is
    known of the problem.

    Examples
    --------
    >>> from pararnn_solvers.problems import logistic_map
    >>> problem = logistic_map(2.8, length=5)
    >>> problem.steps, problem.known.character
    (5, 'contractive')
    """

    recurrence: Recurrence
    x: Array | None
    h0: Array
    theta: Any
    steps: int
    guess: Array | None
    note: str
    known: Known

    def astype(self, dtype: Any) -> Problem:
        """Return the same problem with all floating-point arrays in this dtype."""

        def cast(leaf: Any) -> Any:
            is_array = isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"
            return leaf.astype(dtype) if is_array else leaf

        leaves, rebuild = tree.flatten(self.theta)
        theta = rebuild([cast(leaf) for leaf in leaves])
        return self._replace(x=cast(self.x), h0=cast(self.h0), theta=theta, guess=cast(self.guess))

    def first(self, steps: int) -> Problem:
        """Return the same problem over its first few steps."""
        require_whole("steps", steps)
        x, guess = (None if a is None else a[:steps] for a in (self.x, self.guess))
        return self._replace(x=x, guess=guess, steps=min(steps, self.steps))


def start(published: Any, seed: int) -> Array:
    """Return the initial state of the source for seed 0; for others one nearby, by N(0, 0.01^2)."""
    state = np.array(published, float)
    return state + 0.01 * np.random.default_rng(seed).standard_normal(state.shape) * (seed > 0)


def spectral_norm(matrix: Array) -> float:
    """Return the largest singular value."""
    return float(np.linalg.norm(matrix, 2))
