import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.solvers.iterate import Iterate, sequence_norm
from pararnn_solvers.system import System
from tests.strategies import dense_tanh


@given(st.floats(-300, 300), st.integers(0, 100))
def test_the_norm_neither_overflows_nor_vanishes_on_the_way(exponent, seed):
    v = np.random.default_rng(seed).standard_normal((4, 3, 2))
    scale = 10.0**exponent
    expected = np.linalg.norm(v.swapaxes(0, 1).reshape(3, -1), axis=1) * scale
    np.testing.assert_allclose(sequence_norm(v * scale), expected, rtol=1e-13)


def test_the_norm_of_zeros_and_of_what_is_not_finite():
    v = np.zeros((4, 3, 2))
    v[1, 1, 0], v[2, 2, 1] = np.inf, np.nan
    norms = sequence_norm(v)
    assert norms[0] == 0
    assert norms[1] == np.inf
    assert np.isnan(norms[2])
    np.testing.assert_array_equal(sequence_norm(np.zeros((0, 2, 3))), [0, 0])


@pytest.mark.parametrize("sequences", [[True, True, True], [True, False, True]])
def test_an_iterate_restricted_is_the_iterate_of_the_part(sequences):
    case = dense_tanh(T=8, batch=(3,))
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta)
    rng = np.random.default_rng(0)
    h = rng.standard_normal(system.shape)
    iterate = Iterate(system, h, system.evaluate(system.previous(h)), damping=np.arange(3.0))
    iterate = iterate.moved(rng.standard_normal(h.shape), history=(h,))
    sequences = np.array(sequences)
    part = system.part(iterate.h, 2, 8, sequences)
    left = iterate.restrict(part, slice(2, None), sequences)
    np.testing.assert_allclose(left.residual, iterate.residual[2:, sequences], atol=1e-15)
    np.testing.assert_allclose(left.f, part.evaluate(part.previous(left.h)), atol=1e-15)
    np.testing.assert_array_equal(left.previous.h, h[2:, sequences])
    np.testing.assert_array_equal(left.history[0], h[2:, sequences])
    np.testing.assert_array_equal(left.damping, np.arange(3.0)[sequences])
    assert left.number == 1


def test_moving_evaluates_unless_told():
    case = dense_tanh(T=8, batch=(3,))
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta)
    h = np.ones(system.shape)
    iterate = Iterate(system, h, h)
    assert iterate.moved(h, h).f is h
    np.testing.assert_array_equal(iterate.moved(h).f, system.evaluate(system.previous(h)))
    assert iterate.moved(h).previous.previous is None
