"""Real data through a cell: the potential of a nerve cell, and English text."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.cells import diagonal_gru, gru
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.problems import text
from pararnn_solvers.problems.problem import Known, Problem
from pararnn_solvers.typing import Array

CONTRACTIVE = Known("contractive", source="cells at initialization forget")


def membrane_potential() -> Array:
    """Return 12000 samples of a membrane's potential, 0.5 ms apart, mean 0 and deviation 1.

    Source: ``membrane.dat`` of Matplotlib's sample data, which is installed with it.

    Raises
    ------
    InvalidInput
        This Matplotlib was installed without its sample data.
    """
    from matplotlib import cbook

    try:
        recorded = np.fromfile(cbook.get_sample_data("membrane.dat", asfileobj=False), np.float32)
    except OSError as cause:
        raise InvalidInput(
            f"Matplotlib's sample data is not installed ({cause}); install matplotlib from its "
            "wheel, or drive a cell by data of your own"
        ) from None
    series = recorded.astype(np.float64)
    standard: Array = (series - series.mean()) / series.std()
    return standard


def membrane_gru(length: int = 12000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return a GRU of 16 units at initialization that reads the potential of a nerve cell.

    `length` is at most 12000, all that was recorded.

    Examples
    --------
    >>> problem = membrane_gru(length=5)
    >>> problem.h0.shape, problem.known.character
    ((16,), 'contractive')
    """
    series = membrane_potential()
    if length > len(series):
        raise InvalidInput(f"length is {length}; expected at most {len(series)} recorded samples")
    theta = gru.init(np.random.default_rng(seed), 1, 16)
    u, h0 = gru.project(series[:length, None], theta), np.zeros(16)
    note = "a real time series through a cell that forgets"
    problem = Problem(gru.recurrence, u, h0, theta, length, None, note, CONTRACTIVE)
    return problem.astype(dtype)


def english_text(length: int = 100000, *, seed: int = 0, dtype: Any = np.float64) -> Problem:
    """Return a diagonal GRU that reads the English text that ships with Python, a byte a step.

    Examples
    --------
    >>> problem = english_text(length=5)
    >>> problem.h0.shape, problem.known.character
    ((16,), 'contractive')
    """
    written = text.python_documentation()
    if length > len(written):
        raise InvalidInput(f"length is {length}; expected at most {len(written)} bytes of text")
    u, theta = text.drive_gru(written[:length], np.dtype(dtype), seed)
    h0 = np.zeros(text.CHANNELS, u.dtype)
    note = "real text through a cell that forgets"
    return Problem(diagonal_gru.recurrence, u, h0, theta, length, None, note, CONTRACTIVE)
