"""Where the iteration starts, and what is refused as a start."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.solvers import guess as guesses
from pararnn_solvers.solvers.guess import zeros
from pararnn_solvers.system import System
from tests.strategies import assert_is_rollout, block_tanh, dense_tanh, rollout, solve

CASE = dense_tanh(T=12, batch=(3,))
SYSTEM = System(prs.Recurrence(CASE.recurrence), CASE.x, CASE.h0, CASE.theta)


@pytest.mark.parametrize(
    "guess",
    [
        None,
        "zeros",
        "repeat_h0",
        "from_zero",
        pytest.param(zeros, id="function"),
        pytest.param(prs.jacobi_sweeps(3), id="jacobi_sweeps"),
        pytest.param(prs.picard_sweeps(2, start=zeros), id="picard_sweeps"),
        pytest.param(np.full(SYSTEM.shape, 7.0), id="array"),
        pytest.param(lambda system: np.full(system.shape, -1.0), id="lambda"),
    ],
)
@pytest.mark.parametrize("method", ["newton", "windowed", "auto"])
def test_every_guess_leads_to_the_rollout(guess, method):
    assert_is_rollout(CASE, solve(CASE, method=method, guess=guess))


def test_what_the_named_guesses_are():
    np.testing.assert_array_equal(zeros(SYSTEM), np.zeros((12, 3, 4)))
    np.testing.assert_array_equal(prs.repeat_h0(SYSTEM), [CASE.h0] * 12)
    np.testing.assert_allclose(prs.from_zero(SYSTEM), np.tanh(CASE.x), rtol=1e-14)


def test_from_zero_holds_h0_where_f_is_not_finite():
    step = prs.Recurrence(lambda h, x, _: np.log(h) + x)
    system = System(step, np.zeros((3, 2)), np.array([2.0, 3.0]))
    np.testing.assert_array_equal(prs.from_zero(system), [[2.0, 3.0]] * 3)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_jacobi_sweeps_make_a_prefix_exact(n):
    h = prs.jacobi_sweeps(n)(SYSTEM)
    np.testing.assert_allclose(h[:n], rollout(CASE)[:n], atol=1e-14)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_picard_sweeps_make_a_prefix_exact(n):
    h = prs.picard_sweeps(n)(SYSTEM)
    np.testing.assert_allclose(h[:n], rollout(CASE)[:n], atol=1e-14)


def test_better_guesses_save_iterations():
    case = dense_tanh(T=100, lipschitz=0.5)
    options = {"method": prs.quasi_newton()}
    assert (
        solve(case, guess=prs.jacobi_sweeps(20), **options).n_iter < solve(case, **options).n_iter
    )


def test_an_unbatched_array_is_a_guess_for_an_unbatched_solve():
    case = dense_tanh(T=12)
    assert solve(case, method="newton", guess=rollout(case)).n_iter == 0


def test_a_window_starts_at_a_given_guess():
    assert solve(CASE, method=prs.windowed(length=4), guess=rollout(CASE)).n_iter <= 12 / 4


@pytest.mark.parametrize(
    ("guess", "message"),
    [
        ("nearby", r"guess is 'nearby'; expected one of \['zeros', 'repeat_h0', 'from_zero'\]"),
        (np.zeros((12, 3, 5)), r"guess has shape \(12, 3, 5\); expected .* \(12, 3, 4\)"),
        (np.zeros((12, 4)), r"guess has shape \(12, 4\)"),
        (np.zeros((12, 3, 4), np.float32), r"dtype float32; expected .* in float64"),
        (np.zeros((12, 3, 4), int), r"dtype int64; expected .* in float64"),
        (lambda system: np.zeros(3), r"guess has shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("method", ["newton", prs.windowed(length=3), prs.newton(chunk=3)])
def test_wrong_guesses_are_refused(guess, message, method):
    with pytest.raises(prs.InvalidInput, match=message):
        solve(CASE, method=method, guess=guess)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_guess_that_is_not_finite_is_refused_or_told(bad):
    guess = np.zeros(SYSTEM.shape)
    guess[3, 1, 2] = bad
    with pytest.raises((prs.InvalidInput, prs.ConvergenceError), match="finite|infinite"):
        solve(CASE, method="newton", guess=guess)


def test_a_guess_is_copied():
    guess = np.ones(SYSTEM.shape)
    solve(CASE, method="newton", guess=guess)
    np.testing.assert_array_equal(guess, 1.0)
    np.testing.assert_array_equal(guesses.resolve(guess, SYSTEM), guess)
    assert not np.shares_memory(guesses.resolve(guess, SYSTEM), guess)


def test_guesses_have_the_dtype_of_the_state():
    case = block_tanh(dtype=np.float32)
    system = System(case.recurrence, case.x, case.h0, case.theta)
    for guess in (*guesses.GUESSES, prs.jacobi_sweeps(1), prs.picard_sweeps(1)):
        assert guesses.resolve(guess, system).dtype == np.float32
