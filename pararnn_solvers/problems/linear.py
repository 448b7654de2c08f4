"""Linear recurrences ``h' = A_t h + x_t``: Newton's method needs one iteration, whatever A."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.problems.problem import Known, Problem
from pararnn_solvers.recurrence import Recurrence


def _affine(h: Any, x: Any, a: Any) -> Any:
    return a * h + x


def linear_diagonal(
    slowest: float, length: int = 1000, *, seed: int = 0, dtype: Any = np.float64
) -> Problem:
    """Return ``h' = a h + x`` with eight channels, a from ``slowest / 2`` to `slowest`.

    Contractive below 1, expansive above. The largest exponent is ``log(slowest)``. A linear
    recurrence is solved in one iteration even where it is expansive, until rounding is amplified.

    Examples
    --------
    >>> problem = linear_diagonal(0.95, length=5)
    >>> problem.h0.shape, problem.known.character
    ((8,), 'contractive')
    """
    rng = np.random.default_rng(seed)
    x, h0 = rng.standard_normal((length, 8)), rng.standard_normal(8)
    a = np.linspace(slowest / 2, slowest, 8)
    character = "contractive" if slowest < 1 else "expansive"
    known = Known(character, math.log(slowest), slowest, iterations={"newton": 1}, source="exact")
    note = "linear: one iteration of Newton's method"
    recurrence = Recurrence(_affine, block_size=1)
    return Problem(recurrence, x, h0, a, length, None, note, known).astype(dtype)


def linear_rotation(length: int = 1000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return ``h' = R h + x`` with four channels turned by an angle each: nothing is forgotten.

    The blocks are 2 x 2 and orthogonal, so that all exponents are 0. Their diagonal is not: what
    quasi-Newton methods leave out is as large as what they keep.

    Examples
    --------
    >>> problem = linear_rotation(length=5)
    >>> problem.h0.shape, problem.known.character
    ((8,), 'marginal')
    """
    rng = np.random.default_rng(seed)
    x, h0 = 0.1 * rng.standard_normal((length, 8)), rng.standard_normal(8)
    angle = np.linspace(0.1, 1.5, 4)
    known = Known("marginal", 0.0, 1.0, iterations={"newton": 1}, source="exact")
    note = "linear and orthogonal: perturbations are kept for ever"
    theta = np.cos(angle), np.sin(angle)
    recurrence = Recurrence(_rotate, block_size=2)
    return Problem(recurrence, x, h0, theta, length, None, note, known).astype(dtype)


def _rotate(h: Any, x: Any, theta: Any) -> Any:
    cos, sin = theta
    a, b = h[..., :4], h[..., 4:]
    return np.concatenate([cos * a - sin * b, sin * a + cos * b], axis=-1) + x


def s5_permutations(length: int = 1000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return the word problem of S5: ``h' = P_t h``, each P_t a permutation of five entries.

    Tracking states of this group is what diagonal linear recurrences cannot do; as a recurrence
    with dense blocks it is linear and orthogonal. x holds the matrices, a row after another.

    Source: Merrill, Petty & Sabharwal 2024 (arXiv 2404.08819), "The illusion of state".

    Examples
    --------
    >>> problem = s5_permutations(length=5)
    >>> problem.h0.shape, problem.known.character
    ((5,), 'marginal')
    """
    rng = np.random.default_rng(seed)
    permutations = np.eye(5)[rng.permuted(np.tile(np.arange(5), (length, 1)), axis=1)]
    known = Known("marginal", 0.0, 1.0, iterations={"newton": 1}, source="exact")
    note = "linear and orthogonal: every product of permutations is one"
    x, h0 = permutations.reshape(length, 25), np.arange(1.0, 6.0)
    return Problem(Recurrence(_permute), x, h0, None, length, None, note, known).astype(dtype)


def _permute(h: Any, x: Any, theta: None) -> Any:
    matrix = x.reshape(*x.shape[:-1], 5, 5)
    return (matrix @ h[..., None])[..., 0]
