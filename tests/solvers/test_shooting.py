"""Multiple shooting: fewer unknowns, the same trajectory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.solvers.shooting import corrected, rollout_chunks
from pararnn_solvers.system import System
from tests.strategies import (
    allowed_error,
    assert_is_rollout,
    attempt,
    block_tanh,
    contractive_recurrences,
    dense_tanh,
    rollout,
    rounding,
    solve,
)

T = 24


@pytest.mark.parametrize("chunk", [1, 2, 5, 7, 8, 12, T - 1, T, T + 1, 10 * T])
@pytest.mark.parametrize("autonomous", [False, True])
def test_chunks_of_every_length(chunk, autonomous):
    case = block_tanh(k=2, n=2, T=T, batch=(2,), x=not autonomous)
    solution = solve(case, method=prs.newton(chunk=chunk))
    assert solution.status is prs.Status.CONVERGED
    assert_is_rollout(case, solution)


@given(contractive_recurrences(), st.integers(1, 20), st.integers(1, 6))
def test_chunks_and_windows_of_random_recurrences(case, chunk, length):
    for method in (prs.newton(chunk), prs.windowed(prs.newton(chunk), length)):
        assert_is_rollout(case, solve(case, method=method))


@pytest.mark.parametrize("method", [prs.quasi_newton(), prs.damped_newton(), prs.jacobi()])
def test_any_method_shoots(method):
    case = dense_tanh(T=T, batch=(2,))
    shooting = prs.Newton(method.linearization, method.step_length, chunk=5)
    assert_is_rollout(case, solve(case, method=shooting))


@pytest.mark.parametrize("atol", [1e-3, 1e-6, 1e-9])
def test_the_residual_of_the_returned_states_meets_the_tolerance(atol):
    """Also at the ends of chunks, where the states returned are those that were solved for."""
    case = dense_tanh(T=T, batch=(2,))
    solution = solve(case, method=prs.newton(chunk=5), atol=atol, rtol=0.0)
    residual = np.abs(solution.system.residual(solution.h)).max(axis=-1)
    assert (residual <= atol + rounding(case)).all()
    inside = np.arange(T) % 5 != 4
    assert residual[inside].max() <= rounding(case)


def test_fewer_unknowns_take_fewer_iterations():
    problem = problems.long_memory_lstm(length=512)
    n_iter = [
        prs.solve(*problem[:4], method=prs.newton(chunk=chunk)).n_iter for chunk in (1, 16, 64)
    ]
    assert n_iter[0] >= n_iter[1] >= n_iter[2]
    assert n_iter[0] > n_iter[2]


def test_where_chunks_forget_one_evaluation_per_step_and_iteration_is_enough():
    case = dense_tanh(T=200, lipschitz=0.3)
    plain = solve(case, method=prs.newton())
    shooting = solve(case, method=prs.newton(chunk=40))
    assert shooting.n_iter < plain.n_iter
    assert shooting.n_step_evaluations < plain.n_step_evaluations


def test_an_array_guess_is_read_at_the_ends_of_chunks():
    case = dense_tanh(T=T, batch=(2,))
    assert T // 3 > case.h0.shape[-1]  # more ends than components
    solution = solve(case, method=prs.newton(chunk=3), guess=rollout(case))
    assert solution.n_iter == 0
    assert_is_rollout(case, solution)


@pytest.mark.parametrize("guess", ["zeros", "repeat_h0", "from_zero", prs.jacobi_sweeps(2)])
def test_other_guesses_are_made_for_the_chunks(guess):
    case = dense_tanh(T=T, batch=(2,))
    assert_is_rollout(case, solve(case, method=prs.newton(chunk=5), guess=guess))


def test_chunks_roll_out_side_by_side_to_the_given_ends():
    case = dense_tanh(T=7)
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta)
    exact = rollout(case)
    np.testing.assert_allclose(rollout_chunks(system, exact[2::3][:2], 3), exact, atol=1e-15)
    ends = np.ones((2, 4))
    h = rollout_chunks(system, ends, 3)
    np.testing.assert_array_equal(h[[2, 5]], ends)
    np.testing.assert_allclose(h[3], case.recurrence(ends[0], case.x[3], case.theta), rtol=1e-15)


def test_a_failure_inside_a_chunk_is_told():
    step = prs.Recurrence(lambda h, x, _: 0.5 * h + np.exp(x), block_size=1)
    x = np.zeros((12, 2, 1))
    x[7, 1] = 1000.0
    solution = attempt(
        block_tanh()._replace(recurrence=step, x=x, h0=np.zeros((2, 1)), theta=None, steps=12),
        method=prs.newton(chunk=3),
    )
    assert [s.name for s in solution.sequence_status] == ["CONVERGED", "DIVERGED"]
    assert np.isfinite(solution.h[:, 0]).all()


def test_a_failure_in_the_last_chunk_is_told():
    """No unknown comes after it, so that nothing but the rollout sees it."""
    step = prs.Recurrence(lambda h, x, _: 0.5 * h + np.exp(x), block_size=1)
    x = np.zeros((12, 1))
    x[11] = 1000.0
    case = block_tanh()._replace(recurrence=step, x=x, h0=np.zeros(1), theta=None, steps=12)
    solution = attempt(case, method=prs.newton(chunk=3))
    assert solution.status is prs.Status.DIVERGED


def test_rounding_within_chunks_beyond_the_tolerance_is_told():
    """The step here rounds as crudely as 1e-9, and otherwise for many states than for few."""

    def step(h, x, theta):
        return 0.5 * h + x + 1e-9 * (len(h) > 10)

    case = dense_tanh(T=100, batch=(2,))
    case = case._replace(recurrence=prs.Recurrence(step, block_size=1))
    solution = attempt(case, method=prs.newton(chunk=25), atol=1e-12, rtol=0.0)
    assert (solution.sequence_status == prs.Status.STALLED).all()
    np.testing.assert_allclose(solution.residual_norms[-1], 1e-9, rtol=1e-3)


def test_chunked_and_plain_solutions_agree():
    case = dense_tanh(T=60)
    error = solve(case, method=prs.newton(chunk=6)).h - solve(case, method=prs.newton()).h
    assert np.abs(error).max() <= 2 * allowed_error(case)


@pytest.mark.parametrize("chunk", [12, 13, 1000])
def test_one_chunk_is_the_rollout(chunk):
    case = dense_tanh(T=12)
    solution = solve(case, method=prs.newton(chunk=chunk))
    assert solution.n_iter == 0
    assert_is_rollout(case, solution)


@pytest.mark.parametrize("method", [prs.newton(chunk=4), prs.windowed(prs.newton(chunk=4), 8)])
@pytest.mark.parametrize(("steps", "batch"), [(0, ()), (0, (3,)), (1, ()), (5, (0,))])
def test_no_steps_and_no_sequences_are_solved_too(method, steps, batch):
    step = lambda h, x, _: np.tanh(0.5 * h)  # noqa: E731
    solution = prs.solve(step, None, np.zeros((*batch, 2)), steps=steps, method=method)
    assert solution.success
    assert solution.h.shape == (steps, *batch, 2)
    assert solution.residual_norms.shape == (1, *batch)


def test_a_window_of_chunks_is_rounded_up_to_whole_chunks():
    case = dense_tanh(T=40)

    def norms(window):
        return solve(case, method=prs.windowed(prs.newton(chunk=4), window)).residual_norms

    for windows in ([1, 2, 4], [5, 7, 8]):
        for window in windows[1:]:
            np.testing.assert_array_equal(norms(window), norms(windows[0]))
    assert len(norms(4)) > len(norms(5)) > len(norms(40))


@pytest.mark.parametrize("method", [prs.newton(chunk=4), prs.newton(), "sequential"])
def test_a_tolerance_of_nothing_is_met_where_nothing_is_rounded(method):
    """Sums of few powers of two are exact, in whatever order."""
    step = prs.Recurrence(lambda h, x, _: 0.5 * h + x, block_size=1)
    x = np.random.default_rng(0).integers(-8, 8, (24, 2, 1)).astype(float)
    solution = prs.solve(step, x, np.zeros((2, 1)), method=method, atol=0.0, rtol=0.0)
    assert solution.success
    assert (solution.residual_norms[-1] == 0).all()
    np.testing.assert_array_equal(solution.h, prs.rollout(step, x, np.zeros((2, 1))))


@pytest.mark.parametrize("chunk", [2, 3, 5, 23])
def test_the_unknowns_are_the_ends_of_all_chunks_but_the_last(chunk):
    case, seen = dense_tanh(T=24, batch=(2,)), []
    solve(case, method=prs.newton(chunk=chunk), callback=lambda state: seen.append(state.h.shape))
    assert set(seen) == {(23 // chunk, 2, 4)}


@pytest.mark.parametrize(
    ("d", "method"), [(64, "newton()"), (65, "newton(linearization=diagonal)")]
)
def test_large_blocks_of_chunks_are_corrected_by_their_diagonals(d, method):
    """From wherever chunks ended: here from the trajectory itself."""
    case = dense_tanh(d=d, T=4, batch=(2,))
    found = corrected(solve(case, method="sequential"), 2, np.array([True, False]), None)
    assert found.note == f"1 sequence(s), whose chunks do not forget, were corrected by {method}"
    assert_is_rollout(case, found)
