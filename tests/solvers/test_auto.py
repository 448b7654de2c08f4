"""The stated policy of ``method="auto"``, branch by branch."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.solvers import auto
from pararnn_solvers.system import System
from tests.strategies import assert_is_rollout, attempt, block_tanh, dense_tanh, solve


def solve_problem(problem, **options):
    return prs.solve(*problem[:4], steps=problem.steps, **options)


def test_an_expansive_recurrence_is_computed_step_by_step():
    solution = solve_problem(problems.logistic_map(3.9, length=200))
    assert solution.status is prs.Status.SEQUENTIAL
    assert solution.method == "sequential()"
    assert solution.note.startswith("auto: perturbations change by exp(+0.")
    assert "over all 200" in solution.note


def test_growth_counts_over_the_whole_trajectory():
    """exp(0.5 a step) is no obstacle over a few steps."""
    solution = solve_problem(problems.logistic_map(3.9, length=20), guess="zeros")
    assert solution.status is prs.Status.CONVERGED
    assert solution.method.startswith("newton()")


@pytest.mark.parametrize("a", [1.0, 1.003])
def test_what_hardly_grows_is_not_taken_to_forget(a):
    step, x = prs.Recurrence(lambda h, x, a: a * h + x, block_size=1), np.full((3000, 1), 1e-3)
    assert prs.solve(step, x, np.ones(1), a).method == "newton()"


def test_float32_gives_up_earlier():
    """Growth by 1/sqrt(eps): 1.6e8 - 18.0 in logarithm - for float64, 2.9e3 - 8.0 - for float32."""
    step = prs.Recurrence(lambda h, x, a: a * h + x, block_size=1)
    x = np.ones((100, 1))
    for dtype, limit in ((np.float64, 18.02), (np.float32, 7.97)):
        for factor, method in ((0.9, "newton()"), (1.1, "sequential()")):
            a = dtype(np.exp(factor * limit / 100))
            solution = prs.solve(step, x.astype(dtype), np.ones(1, dtype), a)
            assert solution.method == method


def test_a_recurrence_that_forgets_is_shot():
    case = block_tanh(T=3000, lipschitz=0.5)
    solution = solve(case)
    assert solution.status is prs.Status.CONVERGED
    assert "chunk=" in solution.method
    assert "forgotten within a chunk" in solution.note
    assert_is_rollout(case, solution)


def test_a_short_trajectory_is_solved_by_newton():
    case = dense_tanh(T=30)
    solution = solve(case)
    assert solution.method == "newton()"
    assert solution.note.startswith("auto: perturbations change by exp(-")
    assert_is_rollout(case, solution)


@pytest.mark.parametrize("T", [1, 16])
def test_a_few_steps_are_made_one_by_one(T):
    """Without the probe of 100 steps, which would cost more than they do."""
    calls = []
    case = dense_tanh(T=T)

    def step(h, x, W):
        calls.append(h.shape)
        return case.recurrence(h, x, W)

    solution = prs.solve(step, *case[1:4])
    assert solution.method == "sequential()"
    assert solution.note == f"auto: {T} steps are too few to be worth more than stepping"
    assert len(calls) <= T + 8  # what looks at the step's shapes
    assert_is_rollout(case, solution)


def test_what_newton_does_not_solve_goes_to_a_window():
    problem = problems.van_der_pol(length=512)
    solution = solve_problem(problem)
    assert solution.status is prs.Status.CONVERGED
    assert solution.method == "newton(), then newton(window=256)"
    assert "1 sequence(s) ended as DIVERGED and were given to a moving window" in solution.note
    error = np.abs(solution.h - prs.rollout(*problem[:4], steps=512))
    assert (error <= 2 * solution.error_bound() + 1e-12).all()


def test_a_trajectory_shorter_than_the_window_is_given_to_it_too():
    problem = problems.logistic_map(3.5, length=200)
    solution = solve_problem(problem)
    assert solution.status is prs.Status.CONVERGED
    np.testing.assert_allclose(solution.h, prs.rollout(*problem[:4], steps=200), rtol=0, atol=1e-11)


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_the_window_has_as_many_iterations_as_the_first_choice(limit):
    """It makes progress in each, so that one since it last moved is enough."""
    problem = problems.van_der_pol(length=100)
    with pytest.raises(prs.ConvergenceError) as error:
        solve_problem(problem, method="newton", max_iter=limit)
    first = error.value.solution
    second = solve_problem(problem, method=prs.windowed(prs.newton(), auto.WINDOW), max_iter=limit)
    solution = solve_problem(problem, method="auto", max_iter=limit)
    assert first.status is prs.Status.MAX_ITER and first.n_iter == limit
    assert solution.status is prs.Status.CONVERGED
    assert solution.n_iter == first.n_iter + second.n_iter > limit


def test_only_the_sequences_that_failed_are_given_to_the_window():
    """The first is solved by Newton's method, the second overflows."""
    problem = problems.van_der_pol(length=512)
    h0 = np.array([[0.0, 0.0], [1.0, 0.0]])
    solution = prs.solve(problem.recurrence, None, h0, 1.0, steps=512)
    assert "1 sequence(s) ended as DIVERGED" in solution.note
    np.testing.assert_array_equal(solution.h[:, 0], 0)
    expected = prs.rollout(problem.recurrence, None, h0, 1.0, steps=512)
    assert (np.abs(solution.h - expected) <= 2 * solution.error_bound() + 1e-12).all()
    assert solution.residual_norms.shape == (solution.n_iter + 1, 2)


@pytest.fixture
def memory(monkeypatch):
    """Pretend that so much memory is free."""

    def pretend(free):
        monkeypatch.setattr(auto.memory, "available_memory", lambda *enough: free)

    return pretend


def test_blocks_that_do_not_fit_are_solved_in_a_window(memory):
    case = dense_tanh(d=4, T=400, lipschitz=0.99)
    blocks = 400 * 4 * 4 * 8
    memory(4 * blocks)
    assert solve(case).method == "newton()"
    memory(4 * blocks - 1)
    solution = solve(case)
    assert solution.method == "newton(window=256)"
    assert "would not fit in memory" in solution.note
    assert_is_rollout(case, solution)


@pytest.mark.parametrize(("d", "method"), [(16, "newton()"), (17, "sequential()")])
def test_large_blocks_are_not_worth_their_cost(d, method):
    case = dense_tanh(d=d, T=100)
    solution = solve(case)
    assert solution.method == method
    assert ("17 x 17 cost more than stepping" in solution.note) == (d == 17)
    assert_is_rollout(case, solution)


@pytest.mark.parametrize(
    ("batch", "d", "exponent", "method"),
    [
        (2**18 - 1, 1, -1.0, "newton(chunk=37)"),
        (2**18, 1, -1.0, "sequential()"),
        (2**16 - 1, 1, -0.01, "newton()"),
        (2**16, 1, -0.01, "sequential()"),
        (1, 64, -0.01, "newton()"),
        (1, 65, -0.01, "sequential()"),
    ],
)
def test_on_a_device_steps_have_to_be_larger_to_be_worth_it(
    monkeypatch, batch, d, exponent, method
):
    """What is chosen is on the host here: only the first state of so many sequences is made."""
    monkeypatch.setattr(auto.arrays, "is_device_array", lambda array: True)
    monkeypatch.setattr(auto, "largest_exponent", lambda system: exponent)
    monkeypatch.setattr(auto.memory, "free_memory", lambda h0: np.inf)
    recurrence = prs.Recurrence(lambda h, x, _: 0.5 * h, block_size=d)
    system = System(recurrence, None, np.ones((batch, d)), steps=16 * 37)
    assert str(auto.choose(system)[0]) == method


@pytest.mark.parametrize(
    ("a", "steps", "method"),
    [
        (0.5, 800, "newton()"),
        (0.5, 860, "newton(chunk=52)"),
        (1e-4, 17, "newton()"),
        (1e-4, 255, "newton()"),
        (1e-4, 256, "newton(chunk=16)"),
    ],
)
def test_chunks_are_long_enough_to_forget_and_sixteen_at_least(a, steps, method):
    """``0.5**52`` is `eps`, and 16 * 52 = 832; a chunk has 16 steps where fewer would do."""
    step = prs.Recurrence(lambda h, x, a: a * h + 1, block_size=1)
    assert prs.solve(step, None, np.ones(1), a, steps=steps, compiled=False).method == method


def test_stop_iteration_is_not_followed_by_a_window():
    def stop(state):
        raise StopIteration

    solution = solve(dense_tanh(T=30), callback=stop)
    assert solution.status is prs.Status.STOPPED
    assert solution.method == "newton()"


def exponent(problem):
    system = System(problem.recurrence, problem.x, problem.h0[None], problem.theta, problem.steps)
    return auto.largest_exponent(system)


def test_the_exponent_of_known_maps():
    """``ln |r - 2|`` at the fixed point of the logistic map; ``ln 2`` for r = 4, its mean."""
    fixed = exponent(problems.logistic_map(2.8)._replace(h0=np.array([1 - 1 / 2.8])))
    assert fixed == pytest.approx(np.log(0.8), abs=1e-9)
    assert exponent(problems.logistic_map(4.0)) == pytest.approx(np.log(2), abs=0.1)
    assert exponent(problems.logistic_map(3.5)) < 0


def test_the_exponent_of_a_batch_is_its_greatest():
    step = prs.Recurrence(lambda h, x, _: x[..., :1] * h, block_size=1)
    x = np.broadcast_to(np.array([[0.5], [0.9], [0.1]]), (50, 3, 1))
    assert auto.largest_exponent(System(step, x, np.ones((3, 1)))) == pytest.approx(np.log(0.9))


def test_the_exponent_is_that_of_the_first_hundred_steps():
    x = np.full((200, 1, 1), 0.5)
    x[99], x[100] = 2.0, 8.0
    step = prs.Recurrence(lambda h, x, _: x * h, block_size=1)
    assert auto.largest_exponent(System(step, x, np.ones((1, 1)))) == pytest.approx(
        -98 * np.log(2) / 100
    )


@pytest.mark.parametrize(("T", "batch"), [(0, (1,)), (3, (0,))])
def test_the_exponent_of_nothing_forgets(T, batch):
    case = block_tanh(T=T, batch=batch)
    exponent = auto.largest_exponent(System(case.recurrence, case.x, case.h0, case.theta))
    assert exponent <= 0


def test_a_recurrence_that_overflows_is_told():
    step = prs.Recurrence(lambda h, x, _: h * h, block_size=1)
    case = block_tanh()._replace(recurrence=step, x=None, h0=np.full(1, 20.0), theta=None, steps=30)
    solution = attempt(case)
    assert solution.status is prs.Status.DIVERGED
    np.testing.assert_allclose(solution.h[:7, 0], 20.0 ** (2.0 ** np.arange(1, 8)), rtol=1e-10)


@pytest.mark.parametrize(
    ("batch", "steps", "method"),
    [
        (255, 2000, "newton(chunk=52)"),
        (2047, 2000, "newton(chunk=52)"),
        (2048, 2000, "sequential()"),
        (255, 100, "newton()"),
        (256, 100, "sequential()"),
    ],
)
def test_steps_that_compute_many_numbers_are_taken_one_by_one(batch, steps, method):
    step = prs.Recurrence(lambda h, x, _: 0.5 * h, block_size=1)
    solution = prs.solve(step, None, np.ones((batch, 1)), steps=steps, compiled=False)
    assert solution.method == method


def test_the_probe_can_be_misled_as_its_docstring_says():
    """Sprott B's exponent is +0.2 a unit of time; its first unit contracts."""
    problem = problems.flow("sprott_b", length=100)
    system = System(problem.recurrence, None, problem.h0[None], problem.theta, 100)
    assert auto.largest_exponent(system) < 0
