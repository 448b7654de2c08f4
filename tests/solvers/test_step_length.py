"""Step lengths: what they accept, how fast they go, what they minimize."""

import pickle

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.linear import load
from pararnn_solvers.solvers.iterate import Iterate, sequence_norm
from pararnn_solvers.solvers.step_length import (
    Tuned,
    direction,
    mix,
    negligible,
    orthogonalize,
)
from pararnn_solvers.system import System
from tests.strategies import attempt, dense_tanh, rollout, solve

SCAN = load("sequential")


def iterate_of(case, h, **fields):
    recurrence = prs.Recurrence(case.recurrence)
    system = System(recurrence, case.x, case.h0, case.theta, case.steps)
    iterate = Iterate(system, h, system.evaluate(system.previous(h)), **fields)
    return Iterate(system, h, iterate.f, blocks=prs.exact(iterate), **fields)


def gains(case, method, **options):
    return attempt(case, method=method, **options).residual_norms


def test_direction_solves_the_linearized_equations():
    case = dense_tanh(T=10, batch=(2,))
    iterate = iterate_of(case, np.ones((10, 2, 4)))
    delta = direction(iterate, SCAN)
    np.testing.assert_allclose(iterate.matrix.matvec(delta), -iterate.residual, atol=1e-14)


@pytest.mark.parametrize("omega", [0.3, 0.5, 0.9, 1.5])
def test_relaxation_reduces_the_residual_by_its_factor(omega):
    """Near the solution the residual is multiplied by ``1 - omega`` in each iteration."""
    case = dense_tanh(T=30)
    guess = rollout(case) + 1e-4 * np.random.default_rng(0).standard_normal((30, 4))
    r = gains(case, prs.relaxation(omega), guess=guess, max_iter=6, atol=0.0, rtol=0.0)
    # The remainder is quadratic: 6 |F| of |F| <= 1e-3, see the tests of Newton's method.
    np.testing.assert_allclose(r[1:] / r[:-1], abs(1 - omega), atol=1e-2)


@pytest.mark.parametrize("step_length", [prs.full_step, prs.relaxed(0.5), prs.backtracking])
def test_a_step_below_rounding_is_reported(step_length):
    """At the solution of the first sequence, not at that of the second."""
    case = dense_tanh(T=10, batch=(2,))
    h = rollout(case)
    h[:, 1] += 1e-3
    np.testing.assert_array_equal(step_length(iterate_of(case, h), SCAN).stalled, [True, False])


def test_backtracking_meets_the_armijo_condition():
    case = dense_tanh(d=6, T=30, batch=(3,), lipschitz=3.0)
    iterate = iterate_of(case, 0.1 * np.random.default_rng(0).standard_normal((30, 3, 6)))
    moved = prs.backtracking(iterate, SCAN, c=1e-4, shrink=0.5)
    delta = direction(iterate, SCAN)
    change = moved.h - iterate.h
    alphas = []
    for b in range(3):
        alpha = np.vdot(change[:, b], delta[:, b]) / np.vdot(delta[:, b], delta[:, b])
        np.testing.assert_allclose(
            change[:, b], alpha * delta[:, b], atol=1e-9 * np.abs(delta).max()
        )
        alphas.append(alpha)
    assert min(alphas) < 0.9 < max(alphas)  # a full step is refused here, taken there
    np.testing.assert_allclose(np.log2(alphas), np.round(np.log2(alphas)), atol=1e-6)
    before, after = sequence_norm(iterate.residual), sequence_norm(moved.residual)
    assert (after**2 <= (1 - 2e-4 * np.array(alphas)) * before**2 * (1 + 1e-12)).all()


def test_backtracking_that_may_not_shrink_takes_the_full_step_or_none():
    case = dense_tanh(T=10, batch=(2,))
    iterate = iterate_of(case, rollout(case) + 1e-3)
    moved = prs.backtracking(iterate, SCAN, least=1.0)
    np.testing.assert_array_equal(moved.stalled, [False, False])
    np.testing.assert_allclose(moved.h, prs.full_step(iterate, SCAN).h, atol=1e-14)
    wild = iterate_of(dense_tanh(d=6, T=30, lipschitz=30.0, batch=(2,)), np.zeros((30, 2, 6)))
    refused = prs.backtracking(wild, SCAN, least=1.0)
    np.testing.assert_array_equal(refused.stalled, [True, True])
    np.testing.assert_array_equal(refused.h, wild.h)


def test_parameters_of_backtracking_are_named():
    with pytest.raises(TypeError, match="positional"):
        prs.backtracking(iterate_of(dense_tanh(T=3, batch=(1,)), np.ones((3, 1, 4))), SCAN, 1e-4)


def test_backtracking_takes_the_first_step_that_meets_the_condition():
    c, shrink = 0.45, 0.7
    case = dense_tanh(d=6, T=30, batch=(8,), lipschitz=3.0)
    iterate = iterate_of(case, 0.3 * np.random.default_rng(2).standard_normal((30, 8, 6)))
    delta, before = direction(iterate, SCAN), sequence_norm(iterate.residual)
    first = np.full(8, -1)
    for j in reversed(range(40)):
        merit = sequence_norm(iterate_of(case, iterate.h + shrink**j * delta).residual)
        first[merit**2 <= (1 - 2 * c * shrink**j) * before**2] = j
    assert len(set(first)) > 2
    expected = iterate.h + (shrink**first)[:, None] * delta
    moved = prs.backtracking(iterate, SCAN, c=c, shrink=shrink)
    np.testing.assert_allclose(moved.h, expected, atol=1e-13 * np.abs(delta).max())
    assert not moved.stalled.any()
    # One step less than the shortest taken is one too few for some, and for no other.
    least = shrink ** (first.max() - 0.5)
    moved = prs.backtracking(iterate, SCAN, c=c, shrink=shrink, least=least)
    np.testing.assert_array_equal(moved.stalled, first == first.max())
    np.testing.assert_array_equal(moved.h[:, moved.stalled], iterate.h[:, moved.stalled])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"c": 0.6}, "c is 0.6; expected a number between 0 and 1/2"),
        ({"c": np.nan}, "c is nan; expected a number between 0 and 1/2"),
        ({"shrink": 1.0}, "shrink is 1.0; expected a number between 0 and 1"),
        ({"shrink": -0.5}, "shrink is -0.5; expected a number between 0 and 1"),
        ({"least": 0}, "least is 0; expected a step between 0 and 1"),
        ({"least": 1.5}, "least is 1.5; expected a step between 0 and 1"),
    ],
)
def test_backtracking_that_would_never_end_is_refused(parameters, message):
    iterate = iterate_of(dense_tanh(T=3, batch=(1,)), np.ones((3, 1, 4)))
    with pytest.raises(prs.InvalidInput, match=message):
        prs.backtracking(iterate, SCAN, **parameters)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: prs.relaxed("a"), "omega is 'a'; expected a relaxation factor"),
        (lambda: prs.relaxed(2), "omega is 2; expected a relaxation factor"),
        (lambda: prs.anderson_mixing(2.5), "m is 2.5; expected a whole number >= 1"),
        (lambda: prs.anderson_mixing(2, 0.5), "base is 0.5; expected a step length such as"),
        (lambda: prs.anderson_mixing(2, prs.relaxed), "base is relaxed itself; .*call it"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(prs.InvalidInput, match=message):
        wrong()


def test_step_lengths_are_values():
    def made():
        chosen = Tuned(prs.backtracking, (("c", 1e-3),))
        return [prs.relaxed(0.5), prs.anderson_mixing(2), prs.anderson_mixing(2, chosen), chosen]

    assert made() == made()
    assert len(set(made() + made())) == 4
    assert pickle.loads(pickle.dumps(made())) == made()


def test_a_tuned_step_length_is_the_function_with_those_parameters():
    case = dense_tanh(d=6, T=30, lipschitz=3.0, batch=(2,))
    iterate = iterate_of(case, np.ones((30, 2, 6)))
    tuned = Tuned(prs.backtracking, (("c", 0.4), ("shrink", 0.1)))(iterate, SCAN)
    expected = prs.backtracking(iterate, SCAN, c=0.4, shrink=0.1)
    np.testing.assert_array_equal(tuned.h, expected.h)
    assert (tuned.h != prs.backtracking(iterate, SCAN).h).any()


def test_backtracking_never_increases_the_merit():
    case = dense_tanh(d=6, T=60, lipschitz=3.0)
    merit = []

    def watch(state):
        previous = np.concatenate([case.h0[None, None], state.h[:-1]])
        merit.append(
            np.linalg.norm(state.h - case.recurrence(previous, case.x[:, None], case.theta))
        )

    attempt(case, method="damped_newton", callback=watch)
    assert len(merit) > 5
    assert (np.diff(merit) <= 1e-12).all()


@pytest.mark.parametrize(
    ("method", "end"),
    [("damped_newton", prs.Status.STALLED), ("levenberg_marquardt", prs.Status.MAX_ITER)],
)
def test_steps_into_infinity_are_refused(method, end):
    """Where Newton's iterates overflow, the merit keeps these finite, converged or not."""
    step = prs.Recurrence(lambda h, x, _: h - 0.2 * h**3 + x, block_size=1)
    x = 0.3 * np.random.default_rng(0).standard_normal((200, 1))
    for name, status in ((method, end), ("newton", prs.Status.DIVERGED)):
        with pytest.raises(prs.ConvergenceError) as caught:
            prs.solve(step, x, np.zeros(1), method=name, guess=np.full((200, 1), 10.0))
        assert caught.value.solution.status is status
        assert np.isfinite(caught.value.solution.h).all() == (name == method)


def test_mixing_is_the_least_squares_combination():
    rng = np.random.default_rng(0)
    dg, df = rng.standard_normal((2, 3, 5, 2, 4))
    f = rng.standard_normal((5, 2, 4))
    correction = mix(dg, df, f)
    for b in range(2):
        columns = df[:, :, b].reshape(3, -1).T
        gamma = np.linalg.solve(columns.T @ columns, columns.T @ f[:, b].ravel())
        expected = np.tensordot(gamma, dg[:, :, b], axes=1)
        np.testing.assert_allclose(correction[:, b], expected, rtol=1e-10, atol=1e-12)


def test_mixing_ignores_a_sequence_that_is_not_finite():
    rng = np.random.default_rng(0)
    dg, df = rng.standard_normal((2, 3, 5, 2, 4))
    f = rng.standard_normal((5, 2, 4))
    expected = mix(dg, df, f)
    df[0, 3, 1, 0] = np.nan
    correction = mix(dg, df, f)
    np.testing.assert_array_equal(correction[:, 0], expected[:, 0])
    np.testing.assert_array_equal(correction[:, 1], 0)


def test_mixing_of_dependent_columns_is_that_of_those_that_are_independent():
    """A column twice adds nothing to the least squares, and its weights stay bounded."""
    rng = np.random.default_rng(0)
    dg, df = rng.standard_normal((2, 2, 50, 2, 4))
    f = rng.standard_normal((50, 2, 4))
    twice = mix([dg[0], dg[0], dg[1]], [df[0], df[0] * (1 + 1e-15), df[1]], f)
    np.testing.assert_allclose(twice, mix(dg, df, f), rtol=1e-9, atol=1e-12)


def test_anderson_accelerates_a_slow_iteration():
    case = dense_tanh(d=3, T=200, lipschitz=0.98)
    slow = prs.relaxation(0.2)
    plain = solve(case, method=slow, max_iter=500)
    mixed = solve(case, method=prs.anderson(5, slow), max_iter=500)
    assert mixed.n_iter < plain.n_iter / 3


def test_anderson_remembers_m_iterates():
    case = dense_tanh(T=10)
    lengths = []

    def base(iterate, scan):
        lengths.append(len(iterate.history) // 2)
        return prs.full_step(iterate, scan)

    method = prs.Newton(prs.zero, prs.anderson_mixing(3, base))
    attempt(case, method=method, atol=0.0, rtol=0.0, max_iter=8)
    assert lengths[:4] == [0, 1, 2, 3]
    assert max(lengths) == 4


def test_negligible_steps():
    h = np.ones((3, 2, 2))
    delta = np.zeros((3, 2, 2))
    delta[1, 1] = 1e-10
    np.testing.assert_array_equal(negligible(delta, h), [True, False])
    np.testing.assert_array_equal(negligible(np.full_like(h, 1e-16), h), [True, True])
    # Two units of the last place of each state, however small the state is.
    tiny, eps = np.full_like(h, 1e-20), np.finfo(float).eps
    for states in (h, tiny):
        for signed in (states, -states):
            assert negligible(2 * eps * signed, states).all()
            assert not negligible(2.1 * eps * signed, states).any()


def test_columns_that_nearly_agree_are_made_orthogonal_to_rounding():
    """Once is not enough: what is left of the second column is 1e-9 of it."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((20, 3, 4))
    first[:, 2] = 0
    columns = [first, first + 1e-9 * rng.standard_normal(first.shape), first + 1.0]
    columns[1][:, 2] = 0
    q = list(columns)
    R = orthogonalize(q)
    for b, rank in ((0, 3), (1, 3), (2, 1)):
        Q = np.stack([column[:, b].ravel() for column in q], axis=1)
        V = np.stack([column[:, b].ravel() for column in columns], axis=1)
        np.testing.assert_allclose(Q @ R[..., b], V, atol=1e-14)
        length = np.array([1, 1, 1]) if rank == 3 else np.array([0, 0, 1])  # nothing is left of 0
        np.testing.assert_allclose(Q.T @ Q, np.diag(length), atol=1e-13)
        np.testing.assert_array_equal(np.tril(R[..., b], -1), 0)
