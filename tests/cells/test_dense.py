"""What the dense cells share."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import cells
from pararnn_solvers.cells import dense
from tests.cells.common import DENSE


@pytest.mark.parametrize("name", DENSE)
def test_initial_parameters_follow_pytorch(name):
    made = cells.load(name)
    theta = made.init(np.random.default_rng(0), 30, 25)
    gates = made.GATES
    shapes = [(gates * 25, 30), (gates * 25, 25), (gates * 25,), (gates * 25,)]
    assert [leaf.shape for leaf in theta] == shapes
    for leaf in theta:
        assert 0.15 < np.abs(leaf).max() <= 0.2  # 1 / sqrt(25)
    assert theta.weight_hh.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("lead", [(), (5,), (4, 2), (0, 2)])
def test_drives_are_the_linear_layer_of_pytorch(lead):
    rng = np.random.default_rng(0)
    theta = dense.draw(rng, 2, 3, 4, np.float64)
    x = rng.standard_normal((*lead, 3))
    expected = np.einsum("gm,...m->...g", theta.weight_ih, x) + theta.bias_ih
    np.testing.assert_allclose(dense.project(x, theta), expected, rtol=0, atol=1e-15)


def test_scaled_weights_and_their_diagonal():
    rng = np.random.default_rng(0)
    theta, slopes = dense.draw(rng, 2, 3, 4, np.float64), list(rng.standard_normal((2, 5, 4)))
    W = theta.weight_hh
    expected = np.stack(
        [np.diag(a) @ W[:4] + np.diag(b) @ W[4:] for a, b in zip(*slopes, strict=True)]
    )
    np.testing.assert_allclose(dense.scaled_weights(slopes, theta), expected, atol=1e-15)
    diagonal = np.diagonal(expected, axis1=1, axis2=2)
    np.testing.assert_allclose(dense.scaled_diagonals(slopes, theta), diagonal, atol=1e-15)


def test_inputs_of_another_size_are_refused():
    theta = dense.draw(np.random.default_rng(0), 1, 3, 4, np.float64)
    with pytest.raises(prs.InvalidInput, match=r"x has shape \(\); expected \(\.\.\., 3\)"):
        dense.project(np.float64(1), theta)
