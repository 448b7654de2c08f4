"""What is settled is left alone: converged prefixes and sequences, and neighbours of a failure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.problems import van_der_pol
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.solvers.unsolved import Unsolved
from tests.strategies import (
    Case,
    allowed_error,
    assert_is_rollout,
    attempt,
    block_tanh,
    contractive_recurrences,
    dense_tanh,
    rollout,
    solve,
)

CONVERGED, DIVERGED = prs.Status.CONVERGED, prs.Status.DIVERGED


def gained(gains, T=60):
    """A tanh recurrence whose gain is an input: how hard a sequence is, it brings itself."""
    rng = np.random.default_rng(0)
    x = np.empty((T, len(gains), 2))
    x[..., 0], x[..., 1] = gains, 0.1 * rng.standard_normal((T, len(gains)))
    step = prs.Recurrence(lambda h, x, _: np.tanh(x[..., :1] * h + x[..., 1:2]), block_size=1)
    return Case(step, x, np.full((len(gains), 1), 0.5), None, T, np.nan)


class Counting:
    """A step that counts the states it is applied to."""

    def __init__(self, step):
        self.step, self.states = step, 0

    def __call__(self, h, x, theta):
        self.states += int(np.prod(h.shape[:-1]))
        return self.step(h, x, theta)


def one_sequence(case, b):
    x = None if case.x is None else case.x[:, b]
    return case._replace(x=x, h0=case.h0[b])


def test_the_first_iterate_keeps_its_states_when_the_next_are_put_in_their_place():
    """As the page on methods of one's own relies on."""
    case = gained([0.5])
    unsolved = Unsolved(prs.System(case.recurrence, case.x, case.h0), None, Stopping())
    assert not np.may_share_memory(unsolved.first().h, unsolved.h)


@given(
    contractive_recurrences(batches=st.just((3,)), dtypes=st.just(np.float64)),
    st.sampled_from(["newton", "quasi_newton", "chord", "damped_newton", "levenberg_marquardt"]),
)
def test_a_batch_is_solved_as_its_sequences_are_alone(case, method):
    together = solve(case, method=method)
    for b in range(3):
        alone = solve(one_sequence(case, b), method=method)
        # Both are within the tolerance of the same trajectory.
        error = np.abs(together.h[:, b] - alone.h).max()
        assert error <= 2 * allowed_error(case)


def test_a_sequence_of_a_batch_is_computed_to_the_bits_of_the_sequence_alone():
    """Channelwise, where no sum over channels can be in another order."""
    case = block_tanh(k=2, n=3, T=40, batch=(5,))
    for n_iter in (1, 2, 3):
        together = attempt(case, method="newton", atol=0.0, rtol=0.0, max_iter=n_iter)
        for b in range(5):
            options = {"method": "newton", "atol": 0.0, "rtol": 0.0, "max_iter": n_iter}
            alone = attempt(one_sequence(case, b), **options)
            np.testing.assert_array_equal(together.h[:, b], alone.h)


def test_order_of_sequences_does_not_matter():
    case = dense_tanh(T=20, batch=(4,))
    order = np.array([2, 0, 3, 1])
    shuffled = case._replace(x=case.x[:, order], h0=case.h0[order])
    for method in ("newton", "damped_newton", "windowed"):
        error = solve(case, method=method).h[:, order] - solve(shuffled, method=method).h
        assert np.abs(error).max() <= 2 * allowed_error(case)


def exploding(T=12, batch=3, t=7, b=1, growth=1000.0):
    """A contraction, except that sequence b overflows at step t (counted from 0)."""
    rng = np.random.default_rng(0)
    x = np.minimum(rng.standard_normal((T, batch, 2)), 1.0)
    x[t, b, 0] = growth
    step = lambda h, x, _: 0.5 * np.tanh(h) + np.exp(x)  # noqa: E731
    return Case(prs.Recurrence(step, block_size=1), x, np.zeros((batch, 2)), None, T, 0.5)


METHODS = ["newton", "damped_newton", "levenberg_marquardt", "quasi_newton", "jacobi", "broyden"]


@pytest.mark.parametrize("method", METHODS)
def test_an_overflow_leaves_the_other_sequences_alone(method):
    case = exploding()
    solution = attempt(case, method=method)
    assert [s.name for s in solution.sequence_status] == ["CONVERGED", "DIVERGED", "CONVERGED"]
    assert solution.status is DIVERGED
    with np.errstate(all="ignore"):
        expected = rollout(case)
    allowed = allowed_error(exploding(growth=1.0))
    for b in (0, 2):
        assert np.abs(solution.h[:, b] - expected[:, b]).max() <= allowed
    assert np.isfinite(solution.h[:7, 1]).all()


@pytest.mark.parametrize("method", ["windowed", "auto", prs.windowed(length=3)])
def test_an_overflow_leaves_the_states_before_it_alone(method):
    case = exploding(T=20)  # more than auto makes one by one
    solution = attempt(case, method=method)
    assert [s.name for s in solution.sequence_status] == ["CONVERGED", "DIVERGED", "CONVERGED"]
    with np.errstate(all="ignore"):
        expected = rollout(case)
    assert np.abs(solution.h[:7, 1] - expected[:7, 1]).max() <= allowed_error(exploding(growth=1.0))
    assert not np.isfinite(solution.h[7, 1]).all()


def test_a_window_held_up_by_one_overflow_moves_on_for_the_others():
    case = exploding(T=40, t=5)
    solution = attempt(case, method=prs.windowed(length=4))
    assert [s.name for s in solution.sequence_status] == ["CONVERGED", "DIVERGED", "CONVERGED"]


def test_an_easy_sequence_does_not_pay_for_a_hard_one():
    hard, easy = gained([1.5]), gained([0.0])
    both = gained([1.5, 0.0])
    both = both._replace(x=np.concatenate([hard.x, easy.x], axis=1))
    cost = {}
    for name, case in {"hard": hard, "easy": easy, "both": both}.items():
        step = Counting(case.recurrence.step)
        counted = case._replace(recurrence=prs.Recurrence(step, block_size=1))
        solution = solve(counted, method="newton")
        cost[name] = solution.n_step_evaluations
        # The probe of the arguments is not on the tally of the solution's system, or is: at most.
        assert step.states >= solution.n_step_evaluations - step.states * 0.2
    assert cost["hard"] > 2 * cost["easy"]
    assert cost["both"] < 1.1 * (cost["hard"] + cost["easy"])


def test_converged_prefixes_are_not_evaluated_again():
    """With A = 0 one step settles in each iteration: the sum over what is left is T^2 / 2."""
    T = 60
    case = gained([0.9], T)
    solution = attempt(case, method="jacobi", atol=0.0, rtol=0.0)
    assert solution.n_iter <= T
    assert solution.n_step_evaluations < T * solution.n_iter
    assert solution.n_step_evaluations == pytest.approx(
        sum(T - i for i in range(solution.n_iter)), rel=0.1, abs=3 * T
    )


@pytest.mark.parametrize("length", [1, 2, 5, 30, 31, 100])
def test_windows_of_every_length(length):
    case = dense_tanh(T=30, batch=(2,))
    solution = solve(case, method=prs.windowed(length=length))
    assert_is_rollout(case, solution)


@pytest.mark.parametrize("length", [1, 3, 30])
def test_a_window_from_a_given_guess(length):
    case = dense_tanh(T=30, batch=(2,))
    exact = rollout(case)
    solution = solve(case, method=prs.windowed(length=length), guess=exact)
    np.testing.assert_allclose(solution.h, exact, atol=1e-14)


def test_a_window_as_long_as_the_trajectory_still_recovers_from_overflow():
    """Repairing what overflowed is what makes it robust; it does not depend on the length."""
    step = prs.Recurrence(lambda h, x, r: r * h * (1 - h), block_size=1)
    case = Case(step, None, np.array([0.3]), 3.5, 100, np.nan)
    for length in (50, 100, 1000):
        solution = solve(case, method=prs.windowed(length=length))
        np.testing.assert_allclose(solution.h, rollout(case), atol=1e-11)


def test_the_iteration_limit_of_a_window_counts_since_it_moved():
    case = dense_tanh(T=60)
    solution = solve(case, method=prs.windowed(length=2), max_iter=5)
    assert solution.success
    assert solution.n_iter > 10


def test_a_callback_sees_each_iteration():
    case = dense_tanh(T=30, batch=(2, 2))
    seen = []
    solution = solve(case, method="newton", callback=seen.append)
    assert [state.n_iter for state in seen] == list(range(solution.n_iter + 1))
    norms = np.stack([state.residual_norm for state in seen]).reshape(-1, 2, 2)
    np.testing.assert_array_equal(norms, solution.residual_norms)
    converged = [state.converged_steps for state in seen]
    assert converged == sorted(converged)
    assert converged[-1] == 30


def test_a_callback_is_told_how_many_steps_all_sequences_meet():
    case, stopping, seen = dense_tanh(T=30, batch=(2,)), prs.Stopping(), []

    def watch(state):
        previous = np.concatenate([case.h0[None], state.h[:-1]])
        residual = np.abs(state.h - case.recurrence(previous, case.x, case.theta)).max(axis=-1)
        met = (residual <= stopping.tolerance(state.h)).all(axis=1)
        seen.append((state.converged_steps, len(met) if met.all() else met.argmin()))

    solve(case, method="jacobi", callback=watch)
    found, expected = zip(*seen, strict=True)
    assert found == expected and len(set(found)) > 10


@pytest.mark.parametrize("atol", [None, 1e-2], ids=["default", "loose"])
def test_residual_norms_are_those_of_the_states(atol):
    """Of all of them: a converged prefix is left with the residual that met the tolerance."""
    case = dense_tanh(T=20, batch=(3,))
    expected = []

    def watch(state):
        previous = np.concatenate([case.h0[None], state.h[:-1]])
        residual = state.h - case.recurrence(previous, case.x, case.theta)
        expected.append(np.abs(residual).max(axis=(0, 2)))

    solution = solve(case, method="newton", atol=atol, callback=watch)
    np.testing.assert_allclose(solution.residual_norms, expected, rtol=1e-12, atol=1e-15)
    assert (solution.sequence_status == CONVERGED).all()


def test_a_sequence_that_waits_for_the_window_is_not_iterated():
    """One sequence is at rest; the other takes many iterations before the window moves."""
    step = lambda h, x, _: np.where(x > 0, 0.9 * np.sin(h) + 0.5, 0.5 * h)  # noqa: E731
    x = np.zeros((64, 2, 1))
    x[:, 1] = 1
    states = []

    def counted(h, x, theta):
        if np.ndim(h) == 3:
            states.append(h.shape[1])
        return step(h, x, theta)

    cell = prs.Recurrence(counted, block_size=1)
    h0 = np.array([[0.0], [1.0]])
    solution = prs.solve(cell, x, h0, method=prs.windowed(prs.relaxation(0.5), length=32))
    np.testing.assert_allclose(solution.h, prs.rollout(step, x, h0), atol=1e-10)
    assert states.count(1) > states.count(2)


def test_a_hard_sequence_does_not_use_up_the_iterations_of_another():
    problem = van_der_pol(length=128)
    h0 = np.array([[1.0, 0.0], [2.0, 0.5], [0.0, 0.1]])
    method = prs.windowed(prs.levenberg_marquardt(), length=16)
    together = prs.solve(
        problem.recurrence, None, h0, 1.0, steps=128, method=method, on_failure="warn"
    )
    for b in range(3):
        alone = prs.solve(problem.recurrence, None, h0[b], 1.0, steps=128, method=method)
        assert together.sequence_status[b] is alone.status


ACCOUNTS = {
    "newton": "newton",
    "quasi-Newton": prs.quasi_newton(prs.scaled(0.1)),
    "damped": "damped_newton",
    "Levenberg-Marquardt": "levenberg_marquardt",
    "relaxed": prs.relaxation(0.9),
}


@pytest.mark.parametrize("max_iter", [0, 2, 5, 60])
@pytest.mark.parametrize("method", ACCOUNTS)
def test_each_sequence_of_a_batch_has_the_account_of_it_alone(method, max_iter):
    """How it ended, after how many iterations; and its residual rests from then on."""
    calm = gained([0.1, 0.8, -1.5, 0.0])
    step = lambda h, x, _: calm.recurrence.step(h, x, None) * np.exp(x[..., 2:])  # noqa: E731
    x = np.concatenate([calm.x, np.zeros((60, 4, 1))], axis=-1)
    x[5, 3, 2] = 1000.0  # the last diverges, unless the limit comes first
    case = calm._replace(recurrence=prs.Recurrence(step, block_size=1), x=x)
    options = {"method": ACCOUNTS[method], "max_iter": max_iter, "guess": np.zeros((60, 4, 1))}
    together = attempt(case, **options)
    taken = 0
    for b in range(4):
        options["guess"] = np.zeros((60, 1))
        alone = attempt(one_sequence(case, b), **options)
        taken += alone.n_iter + 1
        assert together.sequence_status[b] is alone.status
        norms = together.residual_norms[:, b]
        np.testing.assert_allclose(norms[: alone.n_iter + 1], alone.residual_norms, atol=1e-11)
        np.testing.assert_array_equal(norms[alone.n_iter :], norms[alone.n_iter])
    if method != "damped":  # which tries several steps
        assert together.n_step_evaluations <= 60 * 2 * taken


def test_a_window_that_does_not_move_is_given_up_after_max_iter():
    """A step so short that no state meets the tolerance in as many iterations."""
    case = dense_tanh(T=30, batch=(2,))
    method = prs.windowed(prs.relaxation(0.01), length=8)
    solution = attempt(case, method=method, max_iter=4, guess=np.ones((30, 2, 4)))
    assert solution.n_iter == 4
    assert (solution.sequence_status == prs.Status.MAX_ITER).all()


def test_steps_that_enter_a_window_hold_its_last_state():
    """A recurrence that rests from its second state on: what enters is right as it is."""
    step = prs.Recurrence(lambda h, x, _: h + x, block_size=1)
    x = np.zeros((64, 2, 1))
    x[0] = [[4.0], [-1.0]]
    case = Case(step, x, np.ones((2, 1)), None, 64, np.nan)
    method = prs.windowed(prs.relaxation(0.5), length=8)
    first = solve(case._replace(x=x[:8], steps=8), method=method).n_iter
    assert solve(case, method=method).n_iter == first + 7  # one for each time that it moves
    guessed = solve(case, method=method, guess=np.ones((64, 2, 1)))
    assert guessed.n_iter >= 8 * first


def test_steps_that_enter_a_window_hold_the_state_just_before_them():
    """Of a ramp, which Newton's method climbs one window in each iteration."""
    step, starts = prs.Recurrence(lambda h, x, _: h + x, block_size=1), []

    def watching(iterate):
        starts.append(np.unique(iterate.h))
        return prs.exact(iterate)

    case = Case(step, np.ones((64, 2, 1)), np.zeros((2, 1)), None, 64, np.nan)
    solve(case, method=prs.Newton(watching, window=16))
    np.testing.assert_array_equal(starts[-4:], [[0.0], [16.0], [32.0], [48.0]])


@pytest.mark.parametrize("step_length", [prs.full_step, prs.relaxed(0.5)], ids=["full", "half"])
@pytest.mark.parametrize("window", [None, 8])
def test_what_a_method_remembers_is_not_overwritten(window, step_length):
    """The states before, cut to the steps that are open, are those that were seen before."""
    case = dense_tanh(T=30)
    seen = []

    def watching(iterate):
        if iterate.previous is not None:
            left = len(iterate.previous.h)
            np.testing.assert_array_equal(iterate.previous.h, seen[-1][-left:])
            assert (iterate.previous.h != iterate.h).any()
        seen.append(iterate.h.copy())
        return prs.secant()(iterate)

    assert_is_rollout(case, solve(case, method=prs.Newton(watching, step_length, window=window)))
    assert len(seen[-1]) < 30 and len(seen) > 3


def test_states_of_a_window_that_overflow_start_again_from_the_state_before_it():
    """Otherwise only the exact prefix would grow, a step in each iteration."""
    T, x = 40, np.random.default_rng(0).uniform(-0.4, 0.4, (40, 2))

    def cubic(h, x, _):
        return 0.5 * h**3 + x

    method = prs.windowed("newton", 8)
    solution = prs.solve(cubic, x, np.zeros(2), method=method, guess=np.full((T, 2), 1e200))
    assert solution.n_iter <= 0.75 * T
    expected = prs.rollout(cubic, x, np.zeros(2))
    np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-11)
