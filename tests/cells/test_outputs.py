"""Outputs that are one component of the state."""

import numpy as np
import pytest

from pararnn_solvers.cells.outputs import last_of, whole_state, whole_state_vjp


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_last_component_and_its_transpose(k):
    output, output_vjp = last_of(k)
    rng = np.random.default_rng(0)
    h, dy = rng.standard_normal((5, 2, k * 4)), rng.standard_normal((5, 2, 4))
    y = output(h)
    np.testing.assert_array_equal(y, h.reshape(5, 2, k, 4)[..., -1, :])
    dh, dx, dtheta = output_vjp(dy, h)
    assert dx is dtheta is None
    assert np.vdot(dh, h) == pytest.approx(np.vdot(dy, y))
    assert dh.shape == h.shape


def test_the_whole_state():
    h = np.ones((2, 3))
    assert whole_state(h) is h
    assert whole_state_vjp(h, h) == (h, None, None)
