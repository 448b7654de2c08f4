"""The Elman network, held to its equation."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import elman as cell
from tests.cells.common import N, directional, draw, inner, like


def test_a_step_is_the_equation():
    made = draw("elman", T=1)
    theta = made.theta
    pre = made.x[0] @ theta.weight_ih.T + theta.bias_ih + made.h0 @ theta.weight_hh.T
    pre += theta.bias_hh
    np.testing.assert_allclose(cell.step(made.h0, made.u[0], theta), np.tanh(pre), atol=4e-16)
    rectified = cell.rectified_step(made.h0, made.u[0], theta)
    np.testing.assert_allclose(rectified, np.where(pre > 0, pre, 0), atol=4e-16)
    assert (rectified == 0).any()
    assert (rectified > 0).any()


def test_products_of_the_rectified_network_are_its_derivatives():
    made, rng = draw("elman", T=3), np.random.default_rng(1)
    h, lam = rng.standard_normal((2, 3, 2, N))
    points = h, made.u, made.theta
    for i, product in enumerate(cell.rectified_vjp(*points, lam)):
        along = like(rng, points[i])

        def function(value, i=i):
            return cell.rectified_step(*points[:i], value, *points[i + 1 :])

        expected = np.vdot(lam, directional(function, points[i], along))
        assert inner(product, along) == pytest.approx(expected, rel=1e-12)


def test_the_rectified_network_is_solved():
    made = draw("elman", T=60)
    solution = prs.solve(cell.rectified, made.u, made.h0, made.theta, method="newton")
    expected = prs.rollout(cell.rectified, made.u, made.h0, made.theta)
    np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-10)
