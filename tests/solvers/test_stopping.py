"""A status is told of the states that are returned, and recomputed from them it is the same."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.solvers.stopping import max_norm
from tests.strategies import (
    assert_is_rollout,
    attempt,
    block_tanh,
    contractive_recurrences,
    dense_tanh,
    rollout,
    rounding,
    solve,
)


def residual_beyond_tolerance(case, solution, atol, rtol):
    """The greatest excess of ``|F_t|`` over the tolerance, for each sequence."""
    h = solution.h
    previous = np.concatenate([case.h0[None], h[:-1]])
    step = getattr(case.recurrence, "step", case.recurrence)
    residual = np.abs(h - step(previous, case.x, case.theta)).max(axis=-1)
    return (residual - atol - rtol * np.abs(h).max(axis=-1)).max(axis=0)


@given(
    contractive_recurrences(max_T=30, dtypes=st.just(np.float64)),
    st.floats(-12, -1),
    st.floats(-12, -1),
    st.integers(0, 4),
    st.sampled_from(["newton", "quasi_newton", "jacobi", "anderson", "damped_newton", "windowed"]),
)
def test_converged_means_that_the_returned_states_meet_the_tolerance(
    case, log_atol, log_rtol, max_iter, method
):
    atol, rtol = 10**log_atol, 10**log_rtol
    solution = attempt(case, method=method, atol=atol, rtol=rtol, max_iter=max_iter)
    excess = residual_beyond_tolerance(case, solution, atol, rtol)
    converged = solution.sequence_status == prs.Status.CONVERGED
    # One evaluation more, in another shape: rounding may differ.
    assert (excess[converged] <= rounding(case)).all()
    assert (excess[~converged] >= -rounding(case)).all()
    if method != "windowed":
        assert solution.n_iter <= max_iter


def test_a_huge_state_does_not_excuse_small_ones():
    step = prs.Recurrence(lambda h, x, _: 0.5 * np.tanh(h) + x, block_size=1)
    x = np.full((20, 1), 1e-3)
    x[10] = 1e6
    guess = prs.rollout(step, x, np.zeros(1))
    guess[3] += 1e-4
    solution = prs.solve(step, x, np.zeros(1), method="jacobi", guess=guess, atol=0, rtol=1e-6)
    assert solution.n_iter > 0


def test_a_solution_as_guess_takes_no_iteration():
    case = dense_tanh(T=30, batch=(2,))
    solution = solve(case, method="newton", guess=rollout(case))
    assert solution.n_iter == 0
    assert solution.status is prs.Status.CONVERGED
    assert_is_rollout(case, solution)


def test_the_iteration_limit():
    case = dense_tanh(T=30)
    with pytest.raises(prs.ConvergenceError, match="MAX_ITER: the iteration limit") as caught:
        solve(case, method="jacobi", max_iter=2)
    partial = caught.value.solution
    assert partial.n_iter == 2
    assert not partial.success
    np.testing.assert_allclose(partial.h[:2], rollout(case)[:2], atol=rounding(case))


def test_the_default_limit_is_a_hundred_iterations():
    """Each damps the error by 1 % only."""
    solution = attempt(block_tanh(T=3), method=prs.relaxation(0.01))
    assert solution.status is prs.Status.MAX_ITER
    assert solution.n_iter == prs.Stopping().max_iter == 100


def test_no_iterations_at_all_return_the_guess():
    case = dense_tanh(T=30)
    guess = np.ones((30, 4))
    solution = attempt(case, method="newton", guess=guess, max_iter=0)
    assert solution.status is prs.Status.MAX_ITER
    np.testing.assert_array_equal(solution.h, guess)


@pytest.mark.parametrize(
    "method", ["newton", "quasi_newton", "damped_newton", "levenberg_marquardt"]
)
def test_a_tolerance_below_rounding_stalls_at_the_solution(method):
    case = dense_tanh(d=20, T=200, lipschitz=0.9)
    solution = attempt(case, method=method, atol=0.0, rtol=0.0)
    # Exact zeros can happen; that is convergence.
    assert solution.status in (prs.Status.STALLED, prs.Status.CONVERGED)
    assert np.abs(solution.h - rollout(case)).max() <= 2 * rounding(case) / (1 - 0.9)


def test_stop_iteration_in_the_callback_stops_and_raises_nothing():
    case = dense_tanh(T=50)

    def stop(state):
        if state.n_iter == 2:
            raise StopIteration

    solution = solve(case, method="jacobi", callback=stop)
    assert solution.status is prs.Status.STOPPED
    assert solution.n_iter == 2
    assert not solution.success
    assert "stopped by the callback" in solution.message


def test_what_was_stopped_or_has_converged_is_not_finished_step_by_step():
    case, guess = dense_tanh(T=50), np.zeros((50, 4))

    def stop(state):
        raise StopIteration

    options = {"method": "newton", "guess": guess, "on_failure": "sequential"}
    solution = solve(case, callback=stop, **options)
    assert solution.status is prs.Status.STOPPED and not solution.h.any()
    assert solve(case, **options).note == ""


def test_other_errors_of_the_callback_pass_through():
    def fail(state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        solve(dense_tanh(), callback=fail, method="newton")


def test_sequences_that_converged_before_the_stop_keep_their_status():
    case = dense_tanh(T=20, batch=(2,))
    guess = np.zeros((20, 2, 4))
    guess[:, 0] = rollout(case)[:, 0]

    def stop(state):
        raise StopIteration

    solution = solve(case, method="newton", guess=guess, callback=stop)
    assert list(solution.sequence_status) == [prs.Status.CONVERGED, prs.Status.STOPPED]


def test_on_failure_warn_warns_once_where_it_was_called():
    case = dense_tanh(T=30)
    with pytest.warns(prs.ConvergenceWarning, match="MAX_ITER") as record:
        solution = solve(case, method="jacobi", max_iter=2, on_failure="warn")
    assert len(record) == 1
    assert solution.status is prs.Status.MAX_ITER


def test_on_failure_sequential_finishes_the_failed_sequences():
    case = dense_tanh(T=30, batch=(3,))
    guess = np.zeros((30, 3, 4))
    guess[:, 1] = rollout(case)[:, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = solve(case, method="jacobi", guess=guess, max_iter=5, on_failure="sequential")
    assert [s.name for s in solution.sequence_status] == ["SEQUENTIAL", "CONVERGED", "SEQUENTIAL"]
    assert solution.success
    assert "2 sequence(s) finished step by step from step 6 (MAX_ITER before)" in solution.note
    assert_is_rollout(case, solution)
    assert len(solution.residual_norms) == 5 + 2  # the guess, five iterations, the rollout


def test_on_failure_sequential_after_an_overflow_of_the_iteration():
    step = prs.Recurrence(lambda h, x, r: r * h * (1 - h), block_size=1)
    h0 = np.array([0.3])
    options = {"steps": 100, "method": "newton", "on_failure": "sequential"}
    solution = prs.solve(step, None, h0, 3.9, **options)
    assert solution.status is prs.Status.SEQUENTIAL
    # The same operations from the same state, though some of them side by side.
    np.testing.assert_array_equal(solution.h, prs.rollout(step, None, h0, 3.9, steps=100))


def test_on_failure_sequential_where_the_recurrence_itself_overflows():
    step = prs.Recurrence(lambda h, x, _: h * h, block_size=1)
    with pytest.warns(prs.ConvergenceWarning, match="DIVERGED.*first at step 8"):
        solution = prs.solve(step, None, np.full(1, 20.0), steps=12, on_failure="sequential")
    assert solution.status is prs.Status.DIVERGED
    np.testing.assert_allclose(solution.h[:7, 0], 20.0 ** (2.0 ** np.arange(1, 8)), rtol=1e-12)
    assert np.isinf(solution.h[7:]).all()


def test_the_error_carries_the_solution():
    case = block_tanh(T=30)
    with pytest.raises(prs.ConvergenceError) as caught:
        solve(case, method="jacobi", max_iter=1)
    assert isinstance(caught.value, (prs.PararnnError, ArithmeticError))
    assert isinstance(caught.value.solution, prs.Solution)
    assert caught.value.solution.h.shape == (30, 3)
    assert str(caught.value) == caught.value.solution.message


def test_the_default_tolerance_is_three_quarters_of_the_digits():
    for dtype in (np.float32, np.float64):
        h = np.array([[[2.0, -3.0]]], dtype)
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(prs.Stopping().tolerance(h), [[eps**0.75 * 4]], rtol=1e-6)
    np.testing.assert_allclose(prs.Stopping(0.1, 0.5).tolerance(h), [[1.6]])


@pytest.mark.parametrize("name", ["atol", "rtol"])
@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf, np.ones(3), "1e-8", True, 1j, [1e-8]])
def test_tolerances_that_no_residual_can_be_compared_with(name, value):
    with pytest.raises(prs.InvalidInput, match=f"{name} is .*; expected a finite number >= 0, or"):
        prs.Stopping(**{name: value})
    with pytest.raises(prs.InvalidInput, match=f"{name} is "):
        solve(dense_tanh(), **{name: value})


@pytest.mark.parametrize("value", [-1, 2.5, 5.0, None, "10", np.nan, True, np.ones(1, int)])
def test_iteration_limits_that_are_no_whole_number(value):
    message = "max_iter is .*; expected a whole number >= 0, as an int"
    with pytest.raises(prs.InvalidInput, match=message):
        prs.Stopping(max_iter=value)
    with pytest.raises(prs.InvalidInput, match=message):
        solve(dense_tanh(), max_iter=value)


def test_numbers_of_any_kind_are_tolerances():
    stopping = prs.Stopping(np.float32(0.5), 0, np.int16(3))
    assert stopping == prs.Stopping(0.5, 0.0, 3)
    np.testing.assert_array_equal(stopping.tolerance(np.ones((1, 1, 2))), [[0.5]])


def test_statuses_are_their_messages():
    assert prs.Status.CONVERGED.success
    assert prs.Status.SEQUENTIAL.success
    for status in prs.Status:
        assert len(status.value) > 10
        assert status.success == (status.name in ("CONVERGED", "SEQUENTIAL"))


def test_an_infinite_state_is_never_converged():
    h = np.array([[[np.inf, 1.0]], [[np.nan, 0.0]], [[2.0, 3.0]]])
    assert (prs.Stopping(rtol=0.0, atol=1.0).tolerance(h)[:2] == -1).all()
    assert prs.Stopping(rtol=0.1, atol=1.0).tolerance(h)[2, 0] == pytest.approx(1.3)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0), (4, 2, 1)])
def test_the_norm_has_an_entry_for_each_step_and_sequence(shape):
    norm = max_norm(np.full(shape, -2.0, np.float32))
    assert (norm.shape, norm.dtype) == (shape[:2], np.float32)
    np.testing.assert_array_equal(norm, np.full(shape[:2], 2.0 if shape[2] else 0.0))
