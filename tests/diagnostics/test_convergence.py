"""Orders and rates of convergence against theory; the error bound against the error."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.diagnostics import (
    asymptotic_rate,
    convergence_order,
    convergence_rate,
    effectivity,
)
from pararnn_solvers.testing import strategies


def history(problem, method, max_iter=60):
    options = {"atol": 0.0, "rtol": 0.0, "on_failure": "warn", "max_iter": max_iter}
    with pytest.warns(prs.ConvergenceWarning):  # of tolerance 0
        solution = prs.solve(*problem[:4], steps=problem.steps, method=method, **options)
    return solution.residual_norms


@given(st.floats(1.2, 3), st.floats(1e-3, 0.3))
def test_the_order_of_a_model_history(order, first):
    errors = [first]
    while errors[-1] > 1e-100 and len(errors) < 6:
        errors.append(errors[-1] ** order)
    assert convergence_order(errors, floor=0) == pytest.approx(order, rel=1e-9)


def test_newton_is_of_order_two():
    for name in ("tanh_network_0.9", "gru", "diagonal_lstm", "stiff_equilibrium"):
        problem = problems.load(name, length=300)
        assert convergence_order(history(problem, "newton", 8)) > 1.7, name


@pytest.mark.parametrize("method", ["jacobi", "chord", "quasi_newton"])
def test_fixed_slopes_are_of_order_one(method):
    norms = history(problems.load("gru", length=300), method)
    assert convergence_order(norms) == pytest.approx(1, abs=0.3)
    assert convergence_rate(norms) < 0.8


def constant(A, T=4000):
    rng = np.random.default_rng(0)
    x, h0 = 1 + rng.standard_normal((T, len(A))), np.zeros(len(A))  # all frequencies, and 0
    step = prs.Recurrence(lambda h, x, A: h @ A.T + x)
    return problems.Problem(step, x, h0, A, T, None, "", problems.Known("contractive"))


A = np.array([[0.5, 0.2, 0.1], [0.2, 0.6, 0.1], [0.1, 0.1, 0.3]])
OF = {
    "jacobi": (prs.jacobi(), np.zeros((3, 3))),
    "quasi_newton": (prs.quasi_newton(), np.diag(np.diag(A))),
    "scaled": (prs.quasi_newton(prs.scaled(0.3)), 0.7 * A),
}


@pytest.mark.parametrize("name", OF)
def test_linear_rates_are_those_of_theory(name):
    method, B = OF[name]
    theory = asymptotic_rate(A, B)
    measured = convergence_rate(history(constant(A), method, 40), last=15)
    assert measured == pytest.approx(theory, rel=0.03)


def test_jacobi_has_the_spectral_radius_and_picard_no_linear_rate():
    assert asymptotic_rate(A, 0 * A) == pytest.approx(np.abs(np.linalg.eigvals(A)).max())
    assert asymptotic_rate(A, A) == 0
    assert asymptotic_rate(A, np.eye(3)) == np.inf


def test_picard_is_bounded_by_a_factorial():
    """Errors of Picard's iteration are at most ``(L T)^i / i!``, L the norm of ``A - I``."""
    T, L = 200, 0.02
    recurrence = prs.Recurrence(lambda h, x, L: (1 - L) * h, block_size=1)
    exact = (1 - L) ** np.arange(1, T + 1)[:, None]
    errors = []
    options = {"atol": 0.0, "rtol": 0.0, "max_iter": 20, "guess": np.ones((T, 1))}
    options["callback"] = lambda state: errors.append(np.abs(state.h.reshape(T, 1) - exact).max())
    with pytest.warns(prs.ConvergenceWarning):
        prs.solve(
            recurrence, None, np.ones(1), L, steps=T, method="picard", on_failure="warn", **options
        )
    bounds = [(L * T) ** i / math.factorial(i) for i in range(len(errors))]
    for error, bound in zip(errors, bounds, strict=True):
        assert error <= bound * (1 + 1e-10) + 1e-13
    assert errors[8] > bounds[8] / 40  # it is nearly attained
    assert convergence_order(errors) > 1  # faster than any linear rate


def test_histories_that_say_nothing():
    assert np.isnan(convergence_order([1.0, 0.1]))
    assert np.isnan(convergence_rate([1.0]))
    assert np.isnan(convergence_order([1.0, 2.0, 4.0]))
    assert convergence_rate([5.0, np.inf, 4.0, 2.0, 1.0]) == pytest.approx(0.5)
    with pytest.raises(prs.InvalidInput, match="expected those of one sequence"):
        convergence_order(np.ones((3, 2)))


def test_the_bound_is_the_error_of_a_positive_linear_recurrence():
    recurrence = prs.Recurrence(lambda h, x, a: a * h + x, block_size=1)
    x = np.random.default_rng(0).uniform(1, 2, (50, 1))
    solution = prs.solve(recurrence, x, np.zeros(1), 0.9, method="jacobi", atol=1e-3, rtol=0)
    ratio = effectivity(solution)
    assert ratio.shape == (50,)
    np.testing.assert_allclose(ratio[ratio < np.inf], 1, rtol=1e-6)


@settings(max_examples=8)
@given(strategies.contractive_problems())
def test_the_bound_holds_for_contractive_recurrences(problem):
    solution = prs.solve(
        *problem[:4], steps=problem.steps, method="jacobi", atol=1e-4, rtol=0, max_iter=2000
    )
    ratio = effectivity(solution)
    assert ratio.shape == solution.h.shape[:-1]
    error = np.abs(solution.h - prs.rollout(*problem[:4], steps=problem.steps)).max(axis=-1)
    eps = np.finfo(solution.h.dtype).eps
    resolved = error > 1e4 * eps
    assert (ratio[resolved] > 0.9).all()  # to first order


def test_rotations_cancel_which_absolute_values_cannot_see():
    problem = problems.load("linear_rotation", length=60)
    noise = 1e-6 * np.random.default_rng(0).standard_normal((60, 8))
    h = prs.rollout(*problem[:4])
    solution = prs.solve(*problem[:4], guess=h + noise, atol=1e-5, rtol=0, method="newton")
    assert solution.n_iter == 0
    assert effectivity(solution)[-1] > 1e6
