"""The recurrence as it is written, whole or from where something else stopped."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.solvers.sequential import rollout_system
from pararnn_solvers.system import System
from tests.strategies import attempt, block_tanh, dense_tanh, rollout, solve


def test_it_is_the_rollout_to_the_bit():
    case = dense_tanh(T=20, batch=(2,))
    solution = solve(case, method="sequential")
    np.testing.assert_array_equal(solution.h, rollout(case))
    assert (solution.sequence_status == prs.Status.SEQUENTIAL).all()
    assert solution.n_iter == 0
    assert solution.success


def test_it_is_the_definition():
    case = block_tanh(k=2, n=2, T=5, batch=(3,))
    h, expected = case.h0, []
    for x in case.x:
        h = case.recurrence.step(h, x, case.theta)
        expected.append(h)
    np.testing.assert_array_equal(solve(case, method="sequential").h, expected)


@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_rollout_from_the_middle(start):
    case = dense_tanh(T=5)
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta)
    h = rollout(case)
    expected = h.copy()
    h[start:] = np.nan
    rollout_system(system, h, start)
    np.testing.assert_array_equal(h, expected)


def test_overflow_is_told_for_the_sequence_where_it_happens():
    step = prs.Recurrence(lambda h, x, _: h * h, block_size=1)
    case = block_tanh()._replace(
        recurrence=step, x=None, h0=np.array([[0.5], [20.0]]), theta=None, steps=10
    )
    solution = attempt(case, method="sequential")
    assert [s.name for s in solution.sequence_status] == ["SEQUENTIAL", "DIVERGED"]
    assert "first at step 8" in solution.message


def test_residuals_are_reported():
    solution = solve(dense_tanh(T=20, batch=(2,)), method="sequential")
    assert solution.residual_norms.shape == (1, 2)
    assert solution.residual_norms.max() < 1e-14


def test_it_prints_as_it_is_written():
    assert str(prs.sequential()) == "sequential()"


def test_a_callback_sees_the_rollout_once():
    seen = []
    prs.solve(
        lambda h, x, _: 0.5 * h,
        None,
        np.ones(2),
        steps=7,
        method="sequential",
        callback=lambda state: seen.append((state.n_iter, state.converged_steps)),
    )
    assert seen == [(0, 7)]
