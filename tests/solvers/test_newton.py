"""What is proved of Newton's method on trajectories: exact prefixes, one step for linear, rates."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from tests.strategies import (
    attempt,
    block_tanh,
    contractive_recurrences,
    dense_tanh,
    rollout,
    rounding,
    solve,
)

FULL_STEPS = {
    "exact": prs.exact,
    "diagonal": prs.diagonal,
    "hutchinson": prs.hutchinson(2),
    "scaled": prs.scaled(0.4),
    "clipped": prs.clipped(0.3),
    "frozen": prs.frozen(),
    "secant": prs.secant(),
    "identity": prs.identity,
    "zero": prs.zero,
    "nonsense": lambda iterate: 1 - 3 * prs.exact(iterate),
}


def iterates(case, **options):
    """The states after each iteration, with nothing called converged but an exact residual."""
    seen = []
    solution = attempt(
        case, atol=0.0, rtol=0.0, callback=lambda state: seen.append(state.h.copy()), **options
    )
    return [h.reshape(solution.h.shape) for h in seen], solution


def check_prefixes(case, linearization, guess):
    states, solution = iterates(case, method=prs.Newton(linearization), guess=guess)
    expected = rollout(case)
    # Each state of the prefix is one evaluation away from the one before: rounding, accumulated.
    allowed = rounding(case) / (1 - case.lipschitz)
    for i, h in enumerate(states):
        assert np.max(np.abs(h[:i] - expected[:i]), initial=0) <= allowed
    # Bits of f may depend on where in an array a state is: then its rounding is left after T.
    assert solution.residual_norms[: case.steps + 1][-1].max() <= rounding(case)
    assert np.max(np.abs(solution.h - expected)) <= allowed


@pytest.mark.parametrize("linearization", FULL_STEPS)
@pytest.mark.parametrize("guess", ["zeros", "far"])
def test_after_i_iterations_the_first_i_states_are_exact(linearization, guess):
    case = block_tanh(k=2, n=2, T=9, batch=(2,))
    far = 10 * np.random.default_rng(1).standard_normal((9, 2, 4))
    check_prefixes(case, FULL_STEPS[linearization], "zeros" if guess == "zeros" else far)


@given(contractive_recurrences(max_T=8), st.sampled_from(["diagonal", "secant", "zero", "exact"]))
def test_prefixes_of_random_recurrences_are_exact(case, linearization):
    check_prefixes(case, FULL_STEPS[linearization], None)


def test_relaxation_loses_the_exact_prefix():
    case = block_tanh(T=6)
    states, _ = iterates(case, method=prs.relaxation(0.5), guess="zeros", max_iter=6)
    assert np.abs(states[3][:3] - rollout(case)[:3]).max() > 1e-3


@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**16))
def test_a_linear_recurrence_is_solved_in_one_iteration(T, k, n, seed):
    rng = np.random.default_rng(seed)
    a = rng.uniform(-0.9, 0.9, (k, k, n)) / k

    def step(h, x, a):
        parts = h.reshape(*h.shape[:-1], 1, k, n)
        return np.sum(a * parts, axis=-2).reshape(h.shape) + x

    x, h0 = rng.standard_normal((T, 2, k * n)), rng.standard_normal((2, k * n))
    guess = 100 * rng.standard_normal(x.shape)
    recurrence = prs.Recurrence(step, block_size=k)
    solution = prs.solve(recurrence, x, h0, a, method="newton", guess=guess)
    assert solution.n_iter == 1
    # What is left is the rounding of a guess of size 100 and of sums below 10 / (1 - .9).
    assert solution.residual_norms[-1].max() <= 16 * np.finfo(float).eps * np.abs(guess).max()


def residuals_near_the_solution(linearization):
    case = dense_tanh(d=6, T=200)
    noise = np.random.default_rng(5).standard_normal((200, 6))
    guess = rollout(case) + 0.1 * noise
    method = prs.Newton(linearization)
    solution = attempt(case, method=method, guess=guess, atol=1e-15, rtol=0.0)
    return case, solution.residual_norms


def test_the_exact_linearization_converges_quadratically():
    """A Newton step leaves the second-order remainder, ``|f''| |delta|^2 / 2``.

    Here ``|f''| <= max|tanh''| L^2 = 0.77 L^2`` and ``|delta| <= |F| / (1 - L)``.
    """
    case, r = residuals_near_the_solution(prs.exact)
    C = 0.77 / 2 * (case.lipschitz / (1 - case.lipschitz)) ** 2
    assert (r[1:] <= C * r[:-1] ** 2 + rounding(case)).all()
    assert r[0] > 0.1
    assert r[4] < 1e-14


@pytest.mark.parametrize(
    "linearization",
    [prs.diagonal, prs.scaled(0.5), prs.frozen(), prs.zero],
    ids=["diagonal", "scaled", "frozen", "zero"],
)
def test_other_linearizations_converge_linearly(linearization):
    """The order p in ``r_{k+1} ~ r_k^p``, from three successive residuals, is one."""
    _, r = residuals_near_the_solution(linearization)
    steps = np.diff(np.log(r[r > 1e-12]))
    assert len(steps) >= 4
    assert 0.7 < np.median(steps[1:] / steps[:-1]) < 1.3


def test_a_method_prints_what_it_changes():
    assert str(prs.newton()) == "newton()"
    assert str(prs.newton(chunk=3)) == "newton(chunk=3)"
    assert str(prs.windowed(prs.quasi_newton(), 8)) == "newton(linearization=diagonal, window=8)"
    assert str(prs.Newton(prs.scaled(0.3))) == "newton(linearization=scaled(0.3))"


def test_functions_and_objects_of_ones_own_are_printed():
    def own(iterate):
        return prs.exact(iterate)

    class Own:
        __call__ = staticmethod(own)

        def __str__(self):
            return "my own"

    @dataclasses.dataclass
    class Weighted:
        weights: object = None

        def __call__(self, iterate):
            return prs.exact(iterate)

    assert str(prs.Newton(own)) == "newton(linearization=own)"
    assert str(prs.Newton(Own())) == "newton(linearization=my own)"
    text = str(prs.Newton(Weighted(np.zeros(2))))  # an array that cannot be compared
    assert text == "newton(linearization=Weighted(weights=[0. 0.]))"
    tuned = functools.partial(prs.backtracking, c=1e-3)
    assert str(prs.Newton(step_length=tuned)) == "newton(step_length=backtracking(c=0.001))"


def test_methods_are_values():
    assert prs.newton() == prs.newton()
    assert hash(prs.newton(chunk=2)) == hash(prs.newton(chunk=2))
    with pytest.raises(AttributeError):
        prs.newton().chunk = 2


def test_nothing_of_the_callers_is_changed():
    case = block_tanh(T=8, batch=(2,))
    guess = np.zeros((8, 2, 3))
    before = [np.copy(a) for a in (case.x, case.h0, case.theta, guess)]
    solution = solve(case, method="newton", guess=guess)
    for old, new in zip(before, (case.x, case.h0, case.theta, guess), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.shares_memory(solution.h, guess)
