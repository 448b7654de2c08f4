"""The dense GRU, held to its equations."""

import numpy as np

from pararnn_solvers.cells import gru as cell
from tests.cells.common import draw
from tests.cells.reference import cut, one_step


def test_a_step_is_the_equations():
    made = draw("gru", T=1)
    state = {f"{name}_l0": value for name, value in made.theta._asdict().items()}
    for b in range(2):
        expected, _ = one_step("GRU", cut("GRU", state, "_l0"), made.x[0, b], made.h0[b], None)
        found = cell.step(made.h0[b], made.u[0, b], made.theta)
        np.testing.assert_allclose(found, expected, rtol=0, atol=4e-16)


def test_gates_come_in_the_order_of_pytorch():
    """A large bias of the first third resets, of the second keeps, of the last saturates."""
    theta = cell.Theta(np.zeros((3, 1)), np.ones((3, 1)), np.zeros(3), np.array([0.0, 0.0, 2.0]))
    h = np.array([0.5])
    reset = cell.step(h, np.array([-1e3, -1e3, 0.25]), theta)
    np.testing.assert_allclose(reset, np.tanh([0.25]))
    kept = cell.step(h, np.array([0.0, 1e3, 0.25]), theta)
    np.testing.assert_array_equal(kept, h)
    through = cell.step(h, np.array([1e3, -1e3, 0.25]), theta)
    np.testing.assert_allclose(through, np.tanh([0.25 + 2.5]))  # bias_hh is within the reset


def test_states_stay_in_the_unit_interval():
    made = draw("gru", T=1)
    h = made.h0
    for t in range(100):
        h = cell.step(h, (-1) ** t * 10 * made.u[0], made.theta)
    assert np.abs(h).max() <= 1


def test_saturated_gates_give_no_nan():
    made = draw("gru", T=1)
    for array in (cell.jacobian, cell.diagonal, cell.step):
        assert np.isfinite(array(made.h0, 1e4 * made.u[0], made.theta)).all()
