"""The model problems are what their sources say."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import problems, tree
from pararnn_solvers.problems import FLOWS, PROBLEMS

# Cheap ones of the others' kind stand in for those whose blocks are large.
SMALL = {"mean_field_0.8": {"D": 10}, "lorenz96": {"D": 8}, "chain_langevin": {"D": 6}}


def load(name, length, **options):
    return problems.load(name, length=length, **SMALL.get(name, {}), **options)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_can_be_solved_as_it_is(name):
    problem = load(name, 20)
    expected = prs.rollout(*problem[:4], steps=problem.steps)
    assert expected.shape == (20, len(problem.h0))
    assert np.isfinite(expected).all()
    solution = prs.solve(*problem[:4], steps=problem.steps, method="windowed")
    np.testing.assert_allclose(solution.h, expected, rtol=1e-9, atol=1e-9)
    assert problem.guess is None or problem.guess.shape == expected.shape
    assert problem.note
    assert problem.known.source


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_problems_follow_one_convention(name):
    single, double = (load(name, 5, seed=3, dtype=dtype) for dtype in (np.float32, np.float64))
    for problem, dtype in ((single, np.float32), (double, np.float64)):
        assert problem.steps == 5
        assert problem.h0.dtype == dtype
        assert prs.rollout(*problem[:4], steps=5).dtype == dtype
    np.testing.assert_allclose(single.h0, double.h0, rtol=1e-6)
    again, other = load(name, 5, seed=3), load(name, 5, seed=4)
    np.testing.assert_array_equal(double.h0, again.h0)
    parts = [(a.h0, a.x, tree.flatten(a.theta)[0]) for a in (double, other)]
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(tree.flatten(parts[0])[0], tree.flatten(parts[1])[0], strict=True)
    )


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "english_text"])
def test_the_first_steps_are_a_shorter_problem(name):
    problem = load(name, 9)
    h = prs.rollout(*problem[:4], steps=9)
    short = problem.first(4)
    np.testing.assert_array_equal(prs.rollout(*short[:4], steps=short.steps), h[:4])


def test_an_unknown_problem_is_refused():
    with pytest.raises(prs.InvalidInput, match="problem is 'lorenz'; expected one of linear_"):
        problems.load("lorenz")
    with pytest.raises(prs.InvalidInput, match="character is 'easy'; expected one of"):
        problems.Known("easy")
    with pytest.raises(prs.InvalidInput, match="expected at most 12000 recorded samples"):
        problems.load("membrane_gru", length=12001)


def test_equal_seeds_give_equal_problems():
    for make in (
        lambda seed: problems.mean_field_rnn(1.0, length=5, seed=seed),
        lambda seed: problems.observer("abc", length=5, seed=seed),
        lambda seed: problems.two_well_langevin(length=5, seed=seed),
        lambda seed: problems.long_memory_lstm(length=5, seed=seed),
    ):
        np.testing.assert_array_equal(make(1).x, make(1).x)
        assert (make(1).x != make(2).x).any() or (make(1).h0 != make(2).h0).any()


def test_mean_field_weights():
    problem = problems.mean_field_rnn(0.8, length=10)
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
    flow = problems.flow(name, length=1)
    s = np.array([1.0, 2.0, 3.0])
    expected = s + 0.01 * np.array(FIELDS[name])
    np.testing.assert_allclose(flow.recurrence.step(s, None, flow.theta), expected, rtol=1e-14)


@pytest.mark.parametrize("name", FLOWS)
def test_an_observer_forgets_where_it_started(name):
    problem = problems.observer(name, length=6000)
    error = np.abs(prs.rollout(*problem[:4])[:-1] - problem.x[1:]).max(axis=1)
    assert error[0] > 0.1
    assert error[-1] < error[0] / 2  # slowly where one component is all that C sees
    assert error[-1] < error[3000] or error[-1] < 1e-10


@pytest.mark.parametrize("name", FLOWS)
def test_the_true_trajectory_is_one_of_the_observer(name):
    problem = problems.observer(name, length=50)
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

    step = problems.two_well_langevin(length=1).recurrence.step
    for s in np.array([[-1.4, 0.1], [0.1, -0.3], [1.0, 0.5]]):
        slope = [(log_p(s + e) - log_p(s - e)) / 2e-6 for e in 1e-6 * np.eye(2)]
        np.testing.assert_allclose(step(s, 0.0, None), s + 0.01 * np.array(slope), atol=1e-9)
    assert np.isfinite(step(np.array([300.0, -200.0]), np.zeros(2), None)).all()
    drift = step(np.zeros(2), np.ones(2), None) - step(np.zeros(2), np.zeros(2), None)
    np.testing.assert_allclose(drift, np.sqrt(0.02), rtol=1e-12)


def test_runge_kutta_is_of_order_four():
    ends = [
        prs.rollout(*problems.van_der_pol(length=T, dt=2.0 / T)[:4], steps=T)[-1]
        for T in (20, 40, 80)
    ]
    order = np.log2(np.abs(ends[0] - ends[1]).max() / np.abs(ends[1] - ends[2]).max())
    assert order == pytest.approx(4, abs=0.3)


def test_van_der_pol_reaches_its_limit_cycle():
    problem = problems.van_der_pol(length=2000)
    h = prs.rollout(*problem[:4], steps=2000)
    assert np.abs(h[1000:, 0]).max() == pytest.approx(2.0086, abs=1e-2)


def test_a_long_memory_is_long():
    problem = problems.long_memory_lstm(length=100)
    h = prs.rollout(*problem[:4])
    other = prs.rollout(problem.recurrence, problem.x, problem.h0 + 1.0, problem.theta)
    ratio = np.abs(other - h)[-1, :8].mean()
    assert ratio > 0.1


def test_more_text_than_python_has_is_refused():
    with pytest.raises(prs.InvalidInput, match=r"length is 1\d+; expected at most \d+ bytes"):
        problems.english_text(length=10**12)


def test_without_the_sample_data_of_matplotlib_the_remedy_is_said(monkeypatch, tmp_path):
    from matplotlib import cbook

    monkeypatch.setattr(cbook, "get_sample_data", lambda name, asfileobj: tmp_path / name)
    with pytest.raises(prs.InvalidInput, match="install matplotlib from its wheel"):
        problems.load("membrane_gru", length=5)
