"""Every problem has the character that it claims: exponents and contraction, measured."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.diagnostics import contraction_rate, lyapunov_exponent
from tests.diagnostics.confusion import SIZES

# How far an estimate over 1500 steps may be from the exponent that is known: most of those of
# chaotic flows converge slowly, and these start wherever the source starts.
TOLERANCE = {
    "logistic_chaotic": 0.01,
    "lorenz63": 0.008,
    "lorenz96": 0.03,
    "flow_lorenz": 0.003,
    "flow_thomas": 0.003,
    "flow_abc": 0.002,
    "flow_sprott_b": 0.002,
    "flow_vallis": 0.003,
    "two_well_langevin": 0.006,
    "kalman_covariance": 0.003,
}
# As published, for large ones.
FULL = {"lorenz96": {}}


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_the_character_is_as_stated(name):
    problem = problems.load(name, length=1500, **FULL.get(name, SIZES.get(name, {})))
    arguments, known = problem[:4], problem.known
    h = prs.rollout(*arguments, steps=problem.steps, compiled=False)
    assert np.isfinite(h).all()
    exponent = lyapunov_exponent(*arguments, steps=problem.steps, h=h, chunk=30)
    if known.character == "marginal":
        assert abs(exponent) < 1e-3
    else:
        assert (exponent < 0) == (known.character == "contractive")
    if known.exponent is not None:
        assert exponent == pytest.approx(known.exponent, abs=TOLERANCE.get(name, 1e-3))
    if known.lipschitz is not None:
        bound = known.lipschitz * (1 + 1e-12)
        options = {"steps": problem.steps, "h": h, "norm": known.norm}
        assert contraction_rate(*arguments, **options) <= bound
