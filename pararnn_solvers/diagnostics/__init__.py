"""Why a solve converges or does not: exponents, contraction, conditioning, orders, forecasts.

``lyapunov_exponent``, ``lyapunov_spectrum``
    How fast perturbations grow along a trajectory.
``contraction_rate``, ``conditioning``
    Whether they shrink over every span of time; by how much errors exceed residuals.
``convergence_order``, ``convergence_rate``, ``asymptotic_rate``
    How fast residuals fell, and how fast theory lets them.
``effectivity``
    ``Solution.error_bound`` over the true error.
``predict``
    The iterations to expect of each method, and advice, from a short probe.
"""

from pararnn_solvers.diagnostics.contraction import (
    Conditioning,
    conditioning,
    contraction_rate,
    matrix_conditioning,
)
from pararnn_solvers.diagnostics.convergence import (
    asymptotic_rate,
    convergence_order,
    convergence_rate,
    effectivity,
)
from pararnn_solvers.diagnostics.lyapunov import lyapunov_exponent, lyapunov_spectrum
from pararnn_solvers.diagnostics.prediction import METHODS, Forecast, Prediction, predict

__all__ = [
    "METHODS",
    "Conditioning",
    "Forecast",
    "Prediction",
    "asymptotic_rate",
    "conditioning",
    "contraction_rate",
    "convergence_order",
    "convergence_rate",
    "effectivity",
    "lyapunov_exponent",
    "lyapunov_spectrum",
    "matrix_conditioning",
    "predict",
]
