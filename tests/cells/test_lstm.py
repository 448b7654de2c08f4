"""The dense LSTM, held to its equations."""

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import lstm as cell
from tests.cells.common import N, draw
from tests.cells.reference import cut, one_step


def test_a_step_is_the_equations():
    made = draw("lstm", T=1)
    state = {f"{name}_l0": value for name, value in made.theta._asdict().items()}
    for b in range(2):
        c, y = np.split(made.h0[b], 2)
        y, c = one_step("LSTM", cut("LSTM", state, "_l0"), made.x[0, b], y, c)
        found = cell.step(made.h0[b], made.u[0, b], made.theta)
        np.testing.assert_allclose(found, np.concatenate([c, y]), rtol=0, atol=4e-16)


def test_gates_come_in_the_order_of_pytorch():
    theta = cell.Theta(np.zeros((4, 1)), np.zeros((4, 1)), np.zeros(4), np.zeros(4))
    h, low, high = np.array([0.5, 0.9]), -1e3, 1e3

    def step(*u):
        return cell.step(h, np.array(u), theta)

    np.testing.assert_allclose(step(low, high, 0.3, high), [0.5, np.tanh(0.5)])  # keep, show
    np.testing.assert_allclose(step(high, low, 0.3, low), [np.tanh(0.3), 0])  # write, hide


def test_blocks_are_those_of_the_jacobian():
    made = draw("lstm", T=1)
    arguments = made.h0, made.u[0], made.theta
    full = cell.jacobian(*arguments).reshape(2, 2, N, 2, N)
    expected = np.diagonal(full, axis1=2, axis2=4)
    np.testing.assert_allclose(cell.blocks(*arguments), expected, rtol=1e-13, atol=1e-15)


def test_blocks_serve_a_quasi_newton_method():
    made = draw("lstm", T=60)
    data = made.recurrence, made.u, made.h0, made.theta

    def solve(*jacobian):
        method = prs.Newton(linearization=prs.block_diagonal(*jacobian))
        return prs.solve(*data, method=method)

    assert solve(2, cell.blocks).n_iter == solve(2).n_iter <= solve(1, cell.diagonal).n_iter


def test_the_output_is_the_second_component():
    made = draw("lstm")
    np.testing.assert_array_equal(cell.output(made.h0), made.h0[:, N:])
