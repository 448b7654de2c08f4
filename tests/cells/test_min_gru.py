"""The minimal GRU, held to its equations."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import min_gru as cell
from tests.cells.common import N, draw, sigma


def test_a_step_is_the_equations():
    made = draw("min_gru", T=1)
    u_z, u_h = np.split(made.u[0], 2, axis=-1)
    z = sigma(u_z)
    expected = (1 - z) * made.h0 + z * u_h
    np.testing.assert_allclose(cell.step(made.h0, made.u[0], made.theta), expected, atol=4e-16)


def test_states_are_means_of_what_was_seen():
    made = draw("min_gru", T=200)
    h = prs.rollout(made.recurrence, made.u, made.h0, made.theta)
    seen = np.concatenate([made.h0[None], made.u[..., N:]])
    assert (h <= np.maximum.accumulate(seen)[1:] + 1e-12).all()
    assert (h >= np.minimum.accumulate(seen)[1:] - 1e-12).all()


def test_the_trajectory_is_affine_in_the_initial_state():
    made = draw("min_gru")
    first, second = (
        prs.rollout(made.recurrence, made.u, h0, made.theta) for h0 in (made.h0, -made.h0)
    )
    middle = prs.rollout(made.recurrence, made.u, 0 * made.h0, made.theta)
    np.testing.assert_allclose((first + second) / 2, middle, rtol=0, atol=1e-15)


def test_initial_parameters():
    theta = cell.init(np.random.default_rng(0), 64, 512, heads=4)
    assert theta.B.shape == (2, 4, 16, 128)
    assert theta.B.std() == pytest.approx(np.sqrt(2 / (16 + 128)), rel=0.05)
    assert not theta.b.any()
    assert cell.project(np.zeros((3, 64)), theta).shape == (3, 2 * 512)
