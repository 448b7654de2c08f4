"""Model problems of known character: easy, hard and hopeless for parallel-in-time solvers.

Each function returns a :class:`Problem`, whose fields are the arguments of a solve, without batch
axes. All take `length` (T), `seed` and `dtype`; equal seeds give equal problems. ``PROBLEMS`` has
them by name, with the parameters that the documentation uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.problems.data import english_text, membrane_gru
from pararnn_solvers.problems.flows import (
    FLOWS,
    Flow,
    flow,
    lorenz63,
    lorenz96,
    observer,
    van_der_pol,
)
from pararnn_solvers.problems.linear import linear_diagonal, linear_rotation, s5_permutations
from pararnn_solvers.problems.maps import (
    implicit_explicit,
    kalman_covariance,
    logistic_map,
    stiff_equilibrium,
)
from pararnn_solvers.problems.networks import (
    cell_at_initialization,
    long_memory_lstm,
    mean_field_rnn,
    self_fed_gru,
    tanh_network,
)
from pararnn_solvers.problems.problem import Known, Problem
from pararnn_solvers.problems.sampling import chain_langevin, hmc, mala, two_well_langevin

__all__ = [
    "FLOWS",
    "PROBLEMS",
    "Flow",
    "Known",
    "Problem",
    "cell_at_initialization",
    "chain_langevin",
    "english_text",
    "flow",
    "hmc",
    "implicit_explicit",
    "kalman_covariance",
    "linear_diagonal",
    "linear_rotation",
    "load",
    "logistic_map",
    "long_memory_lstm",
    "lorenz63",
    "lorenz96",
    "mala",
    "mean_field_rnn",
    "membrane_gru",
    "observer",
    "s5_permutations",
    "self_fed_gru",
    "stiff_equilibrium",
    "tanh_network",
    "two_well_langevin",
    "van_der_pol",
]

PROBLEMS: dict[str, Callable[..., Problem]] = {
    "linear_contractive": partial(linear_diagonal, 0.95),
    "linear_expansive": partial(linear_diagonal, 1.02),
    "linear_rotation": linear_rotation,
    "s5_permutations": s5_permutations,
    "logistic_fixed_point": partial(logistic_map, 2.8),
    "logistic_periodic": partial(logistic_map, 3.5),
    "logistic_chaotic": partial(logistic_map, 4.0),
    "tanh_network_0.9": partial(tanh_network, 0.9),
    "tanh_network_3": partial(tanh_network, 3.0),
    "mean_field_0.8": partial(mean_field_rnn, 0.8),
    "mean_field_1": partial(mean_field_rnn, 1.0),
    "mean_field_1.6": partial(mean_field_rnn, 1.6),
    "elman": partial(cell_at_initialization, "elman"),
    "gru": partial(cell_at_initialization, "gru"),
    "lstm": partial(cell_at_initialization, "lstm", n=16),
    "diagonal_gru": partial(cell_at_initialization, "diagonal_gru"),
    "diagonal_lstm": partial(cell_at_initialization, "diagonal_lstm"),
    "long_memory_lstm": long_memory_lstm,
    "self_fed_gru": partial(self_fed_gru, 4.0),
    "van_der_pol": van_der_pol,
    "lorenz63": lorenz63,
    "lorenz96": lorenz96,
    **{f"flow_{name}": partial(flow, name) for name in FLOWS},
    **{f"observer_{name}": partial(observer, name) for name in FLOWS},
    "two_well_langevin": two_well_langevin,
    "chain_langevin": chain_langevin,
    "mala": mala,
    "hmc": hmc,
    "implicit_explicit": implicit_explicit,
    "kalman_covariance": kalman_covariance,
    "stiff_equilibrium": stiff_equilibrium,
    "membrane_gru": membrane_gru,
    "english_text": english_text,
}
"""Name -> a function of `length`, `seed` and `dtype` that returns the problem."""


def load(name: str, **options: Any) -> Problem:
    """Return the problem of that name.

    Parameters
    ----------
    name : str
        Out of ``PROBLEMS``.
    **options
        `length`: steps of time, by default those of the source. `seed`: 0 is the start of the
        source where it has one. `dtype`: float64 by default. Further ones are those of the function
        behind the name.

    Raises
    ------
    InvalidInput
        Lists the names there are.

    Examples
    --------
    >>> load("lorenz63", length=5).known.character
    'expansive'
    """
    if name not in PROBLEMS:
        raise InvalidInput(f"problem is {name!r}; expected one of {', '.join(PROBLEMS)}")
    return PROBLEMS[name](**options)
