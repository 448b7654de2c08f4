"""The model problems are what their sources say."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.problems import FLOWS

ALL = {
    "mean field": problems.mean_field_rnn(0.5, T=20, D=10),
    "langevin": problems.two_well_langevin(T=20),
    "van der pol": problems.van_der_pol(T=20),
    "lorenz63": problems.lorenz63(T=20),
    "logistic": problems.logistic_map(2.5, T=20),
    "lstm": problems.long_memory_lstm(T=20),
    **{f"flow {name}": problems.flow(name, T=20) for name in FLOWS},
    **{f"observer {name}": problems.observer(name, T=20) for name in FLOWS},
}


@pytest.mark.parametrize("name", ALL)
def test_a_problem_can_be_solved_as_it_is(name):
    problem = ALL[name]
    expected = prs.rollout(*problem[:4], steps=problem.steps)
    assert expected.shape == (20, len(problem.h0))
    assert np.isfinite(expected).all()
    solution = prs.solve(*problem[:4], steps=problem.steps, method="windowed")
    np.testing.assert_allclose(solution.h, expected, rtol=1e-9, atol=1e-9)
    assert problem.guess is None or problem.guess.shape == expected.shape
    assert problem.note


def test_equal_seeds_give_equal_problems():
    for make in (
        lambda seed: problems.mean_field_rnn(1.0, T=5, seed=seed),
        lambda seed: problems.observer("abc", T=5, seed=seed),
        lambda seed: problems.two_well_langevin(T=5, seed=seed),
        lambda seed: problems.long_memory_lstm(T=5, seed=seed),
    ):
        np.testing.assert_array_equal(make(1).x, make(1).x)
        assert (make(1).x != make(2).x).any() or (make(1).h0 != make(2).h0).any()


def test_mean_field_weights():
    problem = problems.mean_field_rnn(0.8, T=10)
    W = problem.theta
    np.testing.assert_array_equal(np.diag(W), 0)
    assert W.std() == pytest.approx(0.8 / 10, rel=0.03)
    assert np.abs(problem.x).max() <= 0.2
    assert np.abs(problem.guess).max() <= 1
    duals = prs.Recurrence(problem.recurrence.step)
    given = problem.recurrence.linearize(problem.h0, problem.x[0], W)[1]
    np.testing.assert_allclose(given, duals.linearize(problem.h0, problem.x[0], W)[1], atol=1e-15)


# From the printed equations, at (x, y, z) = (1, 2, 3).
FIELDS = {
    "lorenz": (10 * (2 - 1), 1 * (28 - 3) - 2, 1 * 2 - 8 / 3 * 3),
    "thomas": (
        -1.85 * 1 + 10 * np.sin(2),
        -1.85 * 2 + 10 * np.sin(3),
        -1.85 * 3 + 10 * np.sin(1),
    ),
    "abc": (
        1.73205 * np.sin(3) + np.cos(2),
        1.41421 * np.sin(1) + 1.73205 * np.cos(3),
        np.sin(2) + 1.41421 * np.cos(1),
    ),
    "sprott_b": (2 * 3, 1 - 2, 1 - 1 * 2),
    "vallis": (102 * 2 - 3 * (1 + 0), -2 + 1 * 3, -3 - 1 * 2 + 1),
}


@pytest.mark.parametrize("name", FLOWS)
def test_vector_fields(name):
    flow = problems.flow(name, T=1)
    s = np.array([1.0, 2.0, 3.0])
    expected = s + 0.01 * np.array(FIELDS[name])
    np.testing.assert_allclose(flow.recurrence.step(s, None, flow.theta), expected, rtol=1e-14)


@pytest.mark.parametrize("name", FLOWS)
def test_an_observer_forgets_where_it_started(name):
    problem = problems.observer(name, T=6000)
    error = np.abs(prs.rollout(*problem[:4])[:-1] - problem.x[1:]).max(axis=1)
    assert error[0] > 0.1
    assert error[-1] < error[0] / 2  # slowly where one component is all that C sees
    assert error[-1] < error[3000] or error[-1] < 1e-10


@pytest.mark.parametrize("name", FLOWS)
def test_the_true_trajectory_is_one_of_the_observer(name):
    problem = problems.observer(name, T=50)
    h = prs.rollout(problem.recurrence, problem.x, problem.x[0], problem.theta)
    np.testing.assert_allclose(h[:-1], problem.x[1:], rtol=1e-12, atol=1e-12)


def test_an_unknown_flow_is_refused():
    with pytest.raises(prs.InvalidInput, match=r"flow is 'rossler'; expected one of \['lorenz'"):
        problems.flow("rossler")


def test_langevin_follows_the_gradient_of_the_mixture():
    def log_p(s):
        total = 0.0
        for weight, mean, v in (
            (0.49, (-1.4, 0.0), (0.45, 0.45)),
            (0.51, (1.6, 0.0), (0.54, 0.45)),
        ):
            quadratic = sum((s[i] - mean[i]) ** 2 / v[i] for i in range(2))
            total += weight * np.exp(-quadratic / 2) / np.sqrt(v[0] * v[1])
        return np.log(total)

    step = problems.two_well_langevin(T=1).recurrence.step
    for s in np.array([[-1.4, 0.1], [0.1, -0.3], [1.0, 0.5]]):
        slope = [(log_p(s + e) - log_p(s - e)) / 2e-6 for e in 1e-6 * np.eye(2)]
        np.testing.assert_allclose(step(s, 0.0, None), s + 0.01 * np.array(slope), atol=1e-9)
    assert np.isfinite(step(np.array([300.0, -200.0]), np.zeros(2), None)).all()
    drift = step(np.zeros(2), np.ones(2), None) - step(np.zeros(2), np.zeros(2), None)
    np.testing.assert_allclose(drift, np.sqrt(0.02), rtol=1e-12)


def test_runge_kutta_is_of_order_four():
    ends = [
        prs.rollout(*problems.van_der_pol(T=T, dt=2.0 / T)[:4], steps=T)[-1] for T in (20, 40, 80)
    ]
    order = np.log2(np.abs(ends[0] - ends[1]).max() / np.abs(ends[1] - ends[2]).max())
    assert order == pytest.approx(4, abs=0.3)


def test_van_der_pol_reaches_its_limit_cycle():
    problem = problems.van_der_pol(T=2000)
    h = prs.rollout(*problem[:4], steps=2000)
    assert np.abs(h[1000:, 0]).max() == pytest.approx(2.0086, abs=1e-2)


def test_a_long_memory_is_long():
    problem = problems.long_memory_lstm(T=100)
    h = prs.rollout(*problem[:4])
    other = prs.rollout(problem.recurrence, problem.x, problem.h0 + 1.0, problem.theta)
    ratio = np.abs(other - h)[-1, :8].mean()
    assert ratio > 0.1
