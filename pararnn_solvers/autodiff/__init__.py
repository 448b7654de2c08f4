"""Derivatives of plain NumPy functions: dual arrays, complex steps, finite differences."""

from pararnn_solvers.autodiff import (  # noqa: F401  (they register what dual arrays evaluate)
    array_functions,
    joining,
    linear_algebra,
    products,
    reductions,
    views,
)
from pararnn_solvers.autodiff.differences import (
    central_difference,
    complex_step,
    forward_difference,
    pushforward,
)
from pararnn_solvers.autodiff.dual import Dual, tangent_of, value_of
from pararnn_solvers.autodiff.rules import RULES

__all__ = [
    "DERIVATIVES",
    "RULES",
    "Dual",
    "central_difference",
    "complex_step",
    "forward_difference",
    "pushforward",
    "tangent_of",
    "value_of",
]

# What ``Recurrence(jacobian=...)`` names; one signature, (function, h, directions).
DERIVATIVES = {
    "dual": pushforward,
    "cs": complex_step,
    "2-point": forward_difference,
    "3-point": central_difference,
}
