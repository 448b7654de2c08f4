"""Multiple shooting by kernels: from any guess the rollout, and an honest account of it."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.compiled import shooting, shooting_policy
from pararnn_solvers.linear import load
from pararnn_solvers.solvers.compiled_shooting import CompiledShooting
from tests.compiled.cases import FAMILIES, cell, diagonal, program_of, system_of
from tests.strategies import (
    SEEDS,
    Case,
    allowed_error,
    attempt,
    dense_tanh,
    rollout,
    rounding,
    solve,
)

Status = prs.Status
families = pytest.mark.parametrize("family", FAMILIES)
scan = load("numba")
TOLERANCE = (1e-12, 1e-12)


def linear_step(h, x, a):
    return a * h + x


def linear(a, n=2, T=600, batch=(3,), seed=0):
    """``h_t = a h_{t-1} + x_t``."""
    rng = np.random.default_rng(seed)
    x, h0 = rng.standard_normal((T, *batch, n)), rng.standard_normal((*batch, n))
    return Case(prs.Recurrence(linear_step, block_size=1), x, h0, a, T, a)


def residual_of(case, h):
    """What NumPy says of the states, for each sequence."""
    previous = np.concatenate([case.h0[None], h[:-1]])[: len(h)]
    step = case.recurrence.step
    return np.abs(h - step(previous, case.x, case.theta)).max(axis=(0, -1), initial=0)


def shoot(case, S, guess=None, tolerance=TOLERANCE):
    system = system_of(case)
    h = np.full(system.shape, 7, system.h0.dtype)
    shot = shooting.shoot(program_of(case), system.x, system.h0, h, S, *tolerance, guess)
    return shot, h.reshape(case.steps, *case.h0.shape)


def shoot_newton(case, S, guess=None, tolerance=TOLERANCE, max_iter=50):
    system = system_of(case)
    h = np.full(system.shape, 7, system.h0.dtype)
    shot = shooting.shoot_newton(
        program_of(case), system.x, system.h0, h, S, *tolerance, scan, max_iter, guess
    )
    return shot, h.reshape(case.steps, *case.h0.shape)


@families
@given(
    n=st.sampled_from([2, 3, 7, 8, 16, 17]),
    T=st.sampled_from([0, 1, 2, 15, 16, 17, 33, 100, 257]),
    batch=st.sampled_from([(), (1,), (3,), (5,), (40,), (2, 3)]),
    chunk=st.sampled_from([2, 3, 7, 16, 17, 48, 1000]),
    seed=SEEDS,
)
def test_any_chunks_give_the_rollout(family, n, T, batch, chunk, seed):
    case = FAMILIES[family](n=n, T=T, batch=batch, seed=seed)
    solution = solve(case, method=prs.newton(chunk=chunk), compiled=True)
    assert solution.compiled
    assert solution.status is Status.CONVERGED
    assert np.abs(solution.h - rollout(case)).max(initial=0) <= allowed_error(case)
    residual = residual_of(case, solution.h)
    # Kernels and NumPy may round differently; rounding is all that is left, or the tolerance.
    assert (residual <= solution.residual_norms[-1] + rounding(case)).all()
    assert np.max(residual, initial=0) <= allowed_error(case) * (1 - case.lipschitz)


@families
@given(
    n=st.sampled_from([3, 8, 9]),
    B=st.sampled_from([1, 3, 5, 40]),
    S=st.sampled_from([5, 16, 30]),
    size=st.sampled_from([1e-3, 1.0, 30.0]),
    seed=SEEDS,
)
def test_from_any_guess(family, n, B, S, size, seed):
    case = FAMILIES[family](n=n, T=130, batch=(B,), seed=seed)
    P = -(-130 // S)
    guess = size * np.random.default_rng(seed).standard_normal((130, *case.h0.shape))
    guess = guess.astype(case.h0.dtype)
    tolerance = TOLERANCE if case.h0.dtype == np.float64 else (1e-5, 1e-5)
    for run in (shoot, shoot_newton):
        shot, h = run(case, S, guess[S - 1 :: S][: P - 1], tolerance)
        if (
            shot.joined.all()
        ):  # chunks may be too short to meet, the guess too far for Newton's method
            allowed = allowed_error(case, *tolerance)
            assert np.abs(h - rollout(case)).max() <= allowed
            assert shot.norms.shape[1:] == (B,)
    solution = solve(case, method=prs.newton(chunk=S), guess=guess, compiled=True)
    assert solution.status is Status.CONVERGED
    assert np.abs(solution.h - rollout(case)).max() <= allowed_error(case)


@pytest.mark.parametrize("n", [2, 9])
@pytest.mark.parametrize("B", [1, 3, 5, 40])
def test_chunks_that_forget_meet(n, B):
    case = diagonal(n=n, T=1000, batch=(B,))
    shot, h = shoot(case, 100)
    assert shot.joined.all()
    steps = np.log(1e-14) / np.log(case.lipschitz)  # that any two trajectories need to meet
    assert 1000 * B < shot.evaluations <= (1000 + 10 * (steps + 16)) * B
    np.testing.assert_allclose(h, rollout(case), rtol=0, atol=1e-11)
    np.testing.assert_allclose(shot.norms[-1], residual_of(case, h), rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [2, 9])
@pytest.mark.parametrize("a", [0.999, 1.0])
@pytest.mark.parametrize("S", [7, 16, 50])
def test_chunks_that_do_not_forget_are_corrected(n, a, S):
    case = linear(a, n=n, T=1001)
    system, made = system_of(case), program_of(case)
    assert shooting_policy.forgetting(made, system.x, system.h0, 1001).steps > 2 * S
    solution = solve(case, method=prs.newton(chunk=S), compiled=True)
    assert solution.status is Status.CONVERGED
    assert solution.n_iter == 1  # linear
    np.testing.assert_allclose(solution.h, rollout(case), rtol=1e-11, atol=1e-11)
    assert residual_of(case, solution.h).max() <= 2e-12 * np.abs(solution.h).max()


def test_linear_chunks_are_corrected_in_one_iteration_from_anywhere():
    case = linear(1.0, n=3, T=200, batch=(4,))
    guess = 1e3 * np.random.default_rng(0).standard_normal((19, 4, 3))
    shot, h = shoot_newton(case, 10, guess, (1e-9, 0.0))
    assert shot.joined.all() and len(shot.norms) == 2
    assert shot.evaluations == 2 * 200 * 4
    np.testing.assert_allclose(h, rollout(case), rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [2, 9])
def test_chunks_that_do_not_meet_are_given_up(n):
    case = linear(1.0, n=n, T=4000, batch=(2,))
    shot, _ = shoot(case, 10)
    assert not shot.joined.any()
    limit = shooting.MOST_EVALUATIONS
    assert limit * 8000 < shot.evaluations <= (limit + 1) * 8000


def steep_step(h, x, a):
    return np.tanh(a * h) + x


def steep(a=3.0, n=2, T=400, batch=(3,)):
    """``h_t = tanh(a h_{t-1}) + x_t``, which forgets only where it saturates."""
    case = linear(a, n=n, T=T, batch=batch)
    recurrence = prs.Recurrence(steep_step, block_size=1)
    return case._replace(recurrence=recurrence, x=0.3 * case.x)


def dense(T=96):
    """Recurrences whose channels couple, which forget slowly."""
    case = dense_tanh(T=T, d=6, batch=(2,), lipschitz=0.99)
    return case._replace(recurrence=prs.Recurrence(case.recurrence))


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("chunk", [2, 7, 40])
@pytest.mark.parametrize("make", [steep, dense, partial(linear, 1.0), diagonal])
def test_max_iter_is_obeyed(make, chunk, limit):
    case = make()
    solution = attempt(case, method=prs.newton(chunk=chunk), compiled=True, max_iter=limit)
    assert solution.n_iter <= limit
    assert (solution.n_iter == limit) or Status.MAX_ITER not in solution.sequence_status
    largest = 1 + np.abs(solution.h).max(axis=(0, -1))
    met = residual_of(case, solution.h) <= largest * np.finfo(float).eps ** 0.75 + rounding(case)
    assert met[solution.sequence_status == Status.CONVERGED].all()


@pytest.mark.parametrize("limit", [0, 1, 2, 4])
def test_kernels_correct_chunks_as_array_operations_do(limit):
    """The same guess leads through the same jumps, as often as it is allowed."""
    case = steep(T=200)
    options = {"method": prs.newton(chunk=10), "max_iter": limit, "guess": np.zeros((200, 3, 2))}
    arrays = attempt(case, compiled=False, **options)
    shot, _ = shoot_newton(case, 10, np.zeros((19, 3, 2)), max_iter=limit)
    assert not shot.joined.any() and arrays.status is Status.MAX_ITER
    assert len(shot.norms) == len(arrays.residual_norms) == limit + 1
    np.testing.assert_allclose(shot.norms[:-1], arrays.residual_norms[:-1], rtol=1e-6)


def test_chunks_that_do_not_meet_leave_what_iterations_are_left_to_newton():
    """Running chunks again is one iteration; corrections are the others."""
    case = steep(T=200)
    options = {"method": prs.newton(chunk=10), "compiled": True}
    needed = solve(case, **options).n_iter
    assert needed > 10
    assert solve(case, max_iter=needed, **options).n_iter == needed
    assert attempt(case, max_iter=needed - 1, **options).status is Status.MAX_ITER


@pytest.mark.parametrize("method", [prs.newton(chunk=8), prs.newton(chunk=25)])
def test_the_residual_is_that_of_the_returned_states_where_f_is_steep(method):
    """A jump between chunks is not the residual after it: that is A times as large."""
    rng = np.random.default_rng(0)
    x = 2.0 * np.sign(rng.standard_normal((2000, 2, 3))) * (rng.random((2000, 2, 3)) < 0.8)
    case = Case(prs.Recurrence(steep_step, block_size=1), x, np.zeros((2, 3)), 40.0, 2000, 40)
    solution = attempt(case, method=method, atol=1e-6, rtol=0.0, compiled=True)
    true = residual_of(case, solution.h)
    met = solution.sequence_status == Status.CONVERGED
    assert (true[met] <= 1e-6).all()
    np.testing.assert_allclose(solution.residual_norms[-1][met], true[met], rtol=0, atol=1e-12)


def lever_step(h, x, _):
    return x[..., :1] * h + x[..., 1:2] * np.sin(h) + x[..., 2:]


def test_jumps_are_corrected_until_f_makes_no_large_residual_of_them():
    """Where chunks begin, a jump is 1e7 times as large one step later; then as small again."""
    x = np.ones((400, 5, 3)) * [1.0, 0.1, 0.0]
    x[..., 2] = np.random.default_rng(0).standard_normal((400, 5))
    x[::10], x[1::10] = [1e7, 0, 0], [1e-7, 0, 0]
    recurrence = prs.Recurrence(lever_step, block_size=1)
    case = Case(recurrence, x, np.zeros((5, 1)), None, 400, np.nan)
    for limit, enough in ((4, False), (100, True)):
        shot, h = shoot_newton(case, 10, tolerance=(1e-6, 0.0), max_iter=limit)
        assert (shot.joined == enough).all()
        assert ((residual_of(case, h) <= 1e-6) == enough).all()
        assert enough or len(shot.norms) == limit + 1


def hill_step(h, x, _):
    return x[..., :1] * h + x[..., 1:2] * 4 * h / (1 + h * h) + x[..., 2:]


@pytest.mark.parametrize("limit", [1, 2, 6, 7, 8, 9, 100])
@pytest.mark.parametrize("forgets", [True, False])
def test_how_a_sequence_ends_does_not_depend_on_the_others(forgets, limit):
    """One is left to the other way when it rests, one takes more corrections, one a single one."""
    x = np.ones((400, 3, 3)) * [1.0, 0.1, 0.0]
    x[..., 2] = np.random.default_rng(0).standard_normal((400, 3))
    for b, lever in enumerate([1e13, 1e7]):
        x[::10, b], x[1::10, b] = [lever, 0, 0], [1 / lever, 0, 0]
    x[..., 1] *= [0.05, 2.0, 0.0]
    options = {"method": CompiledShooting(10, forgets), "max_iter": limit, "compiled": True}

    def ends(x):
        case = Case(prs.Recurrence(hill_step, block_size=1), x, np.zeros((x.shape[1], 1)), None,
                    400, np.nan)  # fmt: skip
        return attempt(case, atol=1e-6, rtol=0.0, **options)

    together, alone = ends(x), [ends(x[:, b : b + 1]) for b in range(3)]
    assert together.sequence_status.tolist() == [solution.status for solution in alone]
    assert together.n_iter == max(solution.n_iter for solution in alone) <= limit
    for b, solution in enumerate(alone):
        first = min(solution.n_iter, 2)  # rounding grows later on
        norms, own = together.residual_norms[:, b], solution.residual_norms[:, 0]
        np.testing.assert_allclose(norms[:first], own[:first], rtol=1e-6)
        assert (norms[solution.n_iter :] == norms[-1]).all()


def squares(h, x, _):
    return h * h + x


def overflowing(n, kick=None, T=2000, B=5):
    x = 0.1 * np.random.default_rng(0).uniform(-1, 1, (T, B, n))
    if kick is not None:
        x[kick, 1] = 2.0
    return Case(prs.Recurrence(squares, block_size=1), x, np.full((B, n), 0.3), None, T, 0.9)


@pytest.mark.parametrize("n", [2, 9])
@pytest.mark.parametrize("kick", [30, 700, 1900])
@pytest.mark.parametrize("B", [2, 5, 40])
def test_an_overflow_leaves_the_other_sequences_solved(n, kick, B):
    case = overflowing(n, kick, B=B)
    solution = attempt(case, method=prs.newton(chunk=20), compiled=True)
    others = np.arange(B) != 1
    expected = solve(overflowing(n, B=B), method="sequential", compiled=True)
    assert solution.sequence_status[1] is Status.DIVERGED
    assert (solution.sequence_status[others] == Status.CONVERGED).all()
    error = np.abs(solution.h - expected.h)
    assert error[:, others].max() <= 1e-11
    assert error[:kick, 1].max() <= 1e-11


def test_a_sequence_that_overflows_has_no_residual():
    solution = attempt(overflowing(2, 700, B=2), method=prs.newton(chunk=20), compiled=True)
    assert not np.isfinite(solution.residual_norms[-1, 1])


@pytest.mark.parametrize("n", [2, 9])
@pytest.mark.parametrize("B", [1, 3, 40])
def test_a_guess_may_overflow_where_the_trajectory_does_not(n, B):
    case = overflowing(n, B=B, T=500)
    for value in (1.5, 1e200):
        guess = np.full((24, B, n), 0.3)
        guess[7, B // 2, -1] = value  # squared again and again
        shot, h = shoot(case, 20, guess)
        assert shot.joined.all()
        np.testing.assert_allclose(h, rollout(case), rtol=0, atol=1e-11)
        whole = np.repeat(guess, 20, axis=0)
        whole = np.concatenate([whole, np.full((20, B, n), 0.3)])
        solution = solve(case, method=prs.newton(chunk=20), guess=whole, compiled=True)
        assert solution.status is Status.CONVERGED
        np.testing.assert_allclose(solution.h, rollout(case), rtol=0, atol=1e-11)


def test_a_guess_is_read_at_the_ends_of_chunks():
    """Chunks that start where they should are evaluated once, and end where the next ones start."""
    case = diagonal(n=3, T=1000, batch=(5,))
    options = {"method": prs.newton(chunk=20), "compiled": True}
    found = solve(case, guess=rollout(case), **options)
    assert found.n_step_evaluations <= 5000 + 5 * 50 < solve(case, **options).n_step_evaluations


def test_evaluations_are_counted():
    case = diagonal(n=3, T=1000, batch=(5,))
    made = prs.newton(chunk=100)
    solution = solve(case, method=made, compiled=True)
    shot, _ = shoot(case, 100, tolerance=solution.stopping.bounds(np.float64))
    assert solution.n_step_evaluations == shot.evaluations
    once = solve(case, method=prs.newton(chunk=5000), compiled=True)
    assert once.n_step_evaluations == 5000
    assert once.residual_norms.shape == (1, 5)


# --- what shooting is chosen by ------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 17])
@pytest.mark.parametrize("a", [0.3, 0.9, 0.99, 0.997])
def test_forgetting_is_measured(n, a):
    case = linear(a, n=n, T=20_000, batch=(1,))
    system = system_of(case)
    memory = shooting_policy.forgetting(program_of(case), system.x, system.h0, 20_000)
    expected = np.log(np.finfo(float).eps) / np.log(a)
    assert expected / 2 - 4 <= memory.steps <= 1.5 * expected + 16


@pytest.mark.parametrize("a", [1.0, 1.001])
def test_what_does_not_forget_is_not_said_to(a):
    case = linear(a, n=2, T=20_000, batch=(1,))
    system = system_of(case)
    memory = shooting_policy.forgetting(program_of(case), system.x, system.h0, 20_000)
    assert memory.steps == np.inf or memory.steps > 1e5


@pytest.mark.parametrize("T", [0, 1, 2, 5, 20])
def test_little_is_measured_of_few_steps(T):
    case = linear(0.5, n=2, T=T, batch=(1,))
    system = system_of(case)
    memory = shooting_policy.forgetting(program_of(case), system.x, system.h0, T)
    assert memory.steps > 0
    assert solve(case, compiled=True).success


@pytest.mark.parametrize("T", [100, 1000, 10**6])
@pytest.mark.parametrize("n", [2, 17])
@pytest.mark.parametrize("steps", [5, 100, 1e4])
def test_the_best_chunk_is_a_chunk(T, n, steps):
    made = program_of(diagonal(n=n, T=1))
    memory = shooting_policy.Memory(steps, -1 / steps)
    chunk, cost = shooting_policy.best_chunk(made, 1, T, memory)
    assert isinstance(chunk, int)
    assert 1 <= chunk
    assert cost > 0
    longer, more = shooting_policy.best_chunk(made, 1, T, shooting_policy.Memory(2 * steps, -1))
    assert more >= cost


def test_many_channels_or_sequences_keep_busy():
    def share(n, batch):
        made, policy = program_of(diagonal(n=n, T=1)), shooting_policy
        return policy.best_chunk(made, batch, policy.MANY, policy.AT_ONCE)[1]

    assert share(2, 1) < 1 and share(8, 1) < 1
    assert share(2, 10_000) >= 1 and share(10_000, 1) >= 1


def test_auto_shoots_what_forgets():
    case = diagonal(n=3, T=1 << 17)
    solution = solve(case, compiled=True)
    assert "chunk=" in solution.method
    assert "forgotten in" in solution.note
    assert solution.status is Status.CONVERGED
    np.testing.assert_allclose(solution.h, rollout(case), rtol=0, atol=1e-10)


def logistic_step(h, x, r):
    return r * h * (1 - h)


@pytest.mark.parametrize("n", [1, 8])
def test_auto_steps_through_what_is_expansive_and_says_why(n):
    logistic = prs.Recurrence(logistic_step, block_size=1)
    h0 = np.linspace(0.2, 0.4, n)
    solution = prs.solve(logistic, None, h0, 3.9, steps=1 << 20, compiled=True)
    assert solution.status is Status.SEQUENTIAL
    assert solution.method == "sequential()"
    assert solution.note.startswith("auto: perturbations change by exp(+0.")


@pytest.mark.parametrize("a", [0.9999, 1.0])
def test_auto_steps_through_what_does_not_forget(a):
    case = linear(a, n=2, T=20_000, batch=(1,))
    solution = solve(case, compiled=True)
    assert solution.success
    np.testing.assert_allclose(solution.h, rollout(case), rtol=1e-9, atol=1e-9)


# --- threads -------------------------------------------------------------------------------------


@pytest.fixture
def threads_restored():
    before = prs.num_threads()
    yield
    prs.set_num_threads(before)


LARGE = {
    "rows": diagonal(n=17, T=3000, batch=(3,)),
    "tiles": diagonal(n=3, T=8000, batch=(5,)),
    "one sequence": cell(n=2, T=30_000),
}


@pytest.mark.parametrize("chunk", [64, 100, 333])
@pytest.mark.parametrize("name", LARGE)
def test_chunks_do_not_depend_on_the_number_of_threads(name, chunk, threads_restored):
    case, found = LARGE[name], []
    for count in (1, 2, 3):
        prs.set_num_threads(count)
        first, again = (
            solve(case, method=prs.newton(chunk=chunk), compiled=True) for _ in range(2)
        )
        assert first.status is Status.CONVERGED
        np.testing.assert_array_equal(first.h, again.h)
        np.testing.assert_array_equal(first.residual_norms, again.residual_norms)
        found.append(first)
    for solution in found[1:]:
        np.testing.assert_array_equal(solution.h, found[0].h)
