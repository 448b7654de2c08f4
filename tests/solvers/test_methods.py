"""Every method, whatever its choices, ends at the sequential trajectory or says that it did not."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems, solvers
from pararnn_solvers.linear import BACKENDS, BackendUnavailable, load
from pararnn_solvers.solvers import linearization as A
from tests.strategies import (
    allowed_error,
    assert_is_rollout,
    attempt,
    block_tanh,
    contractive_recurrences,
    dense_tanh,
    gru,
    rollout,
    solve,
)

NAMED = {name: name for name in solvers.METHODS if name != "relaxation"}
NAMED["relaxation"] = prs.relaxation(0.7)
LINEARIZED = {
    "diagonal": prs.Newton(prs.diagonal),
    "block_diagonal": prs.Newton(prs.block_diagonal(1)),
    "hutchinson": prs.Newton(prs.hutchinson(probes=2, seed=3)),
    "scaled": prs.Newton(prs.scaled(0.3)),
    "clipped": prs.Newton(prs.clipped(0.5)),
    "frozen": prs.Newton(prs.frozen()),
    "secant": prs.Newton(prs.secant()),
    "identity": prs.Newton(prs.identity),
    "zero": prs.Newton(prs.zero),
    "secant of diagonal": prs.Newton(prs.secant(prs.diagonal)),
    "clipped diagonal": prs.Newton(prs.clipped(1.0, prs.diagonal)),
}
STEPPED = {
    "relaxed 0.8": prs.Newton(step_length=prs.relaxed(0.8)),
    "relaxed 1.2": prs.Newton(step_length=prs.relaxed(1.2)),
    "backtracking": prs.Newton(step_length=prs.backtracking),
    "anderson": prs.Newton(step_length=prs.anderson_mixing(2)),
    "anderson of relaxed": prs.Newton(step_length=prs.anderson_mixing(2, prs.relaxed(0.5))),
    "anderson of quasi-Newton": prs.anderson(3, prs.quasi_newton()),
    "trust region": prs.Newton(step_length=prs.trust_region),
    "window": prs.windowed(length=4),
    "window of quasi-Newton": prs.windowed(prs.quasi_newton(), length=5),
    "shooting": prs.newton(chunk=3),
    "damped shooting": prs.Newton(step_length=prs.backtracking, chunk=4),
    "window of shooting": prs.windowed(prs.newton(chunk=2), length=3),
}
ALL = {**NAMED, **LINEARIZED, **STEPPED}
STRUCTURES = {
    "diagonal": lambda **kw: block_tanh(k=1, n=4, **kw),
    "blocks of 2": lambda **kw: block_tanh(k=2, n=2, **kw),
    "dense": lambda **kw: dense_tanh(d=4, **kw),
    "autonomous": lambda **kw: block_tanh(k=2, n=2, x=False, **kw),
    "gru": lambda **kw: gru(n=4, **kw),
}
TANH = ("diagonal", "blocks of 2", "dense", "autonomous")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("method", ALL)
def test_solution_is_the_rollout(method, structure, dtype):
    case = STRUCTURES[structure](T=11, batch=(2,), dtype=dtype)
    solution = solve(case, method=ALL[method], max_iter=200)
    assert solution.success
    assert_is_rollout(case, solution)


@pytest.mark.parametrize("batch", [(), (3,), (2, 1), (2, 3)])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_the_rollout(backend, structure, batch):
    try:
        load(backend)
    except BackendUnavailable as reason:
        pytest.skip(str(reason))
    case = STRUCTURES[structure](T=9, batch=batch)
    solution = solve(case, method="newton", backend=backend)
    assert solution.backend == backend
    assert solution.sequence_status.shape == batch
    assert solution.residual_norms.shape == (solution.n_iter + 1, *batch)
    assert_is_rollout(case, solution)


@given(contractive_recurrences(), st.sampled_from(sorted(ALL)))
def test_solution_is_the_rollout_of_random_recurrences(case, method):
    solution = solve(case, method=ALL[method], max_iter=200)
    assert solution.success
    assert_is_rollout(case, solution)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("T", [1, 2, 3])
@pytest.mark.parametrize("method", ALL)
def test_short_trajectories(method, T, k):
    case = block_tanh(k=k, n=2, T=T)
    assert_is_rollout(case, solve(case, method=ALL[method], max_iter=200))


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize(("T", "batch"), [(0, ()), (0, (2,)), (5, (0,)), (5, (2, 0)), (0, (0,))])
def test_nothing_to_solve_is_solved(method, T, batch):
    case = block_tanh(T=T, batch=batch)
    solution = solve(case, method=NAMED[method])
    assert solution.success
    assert solution.h.shape == (T, *batch, 3)
    assert solution.sequence_status.shape == batch
    assert solution.residual_norms.shape == (1, *batch)


@pytest.mark.parametrize("block_size", [2, 4, None])
def test_a_diagonal_system_is_solved_alike_with_greater_blocks(block_size):
    case = block_tanh(k=1, n=4, T=30)
    step = lambda h, x, a: np.tanh(a[0, 0] * h + x)  # noqa: E731
    diagonal = solve(case._replace(recurrence=prs.Recurrence(step, 1)), method="newton")
    other = solve(case._replace(recurrence=prs.Recurrence(step, block_size)), method="newton")
    assert other.n_iter == diagonal.n_iter
    # The same sums, with zeros added: equal up to the order of addition.
    np.testing.assert_allclose(other.h, diagonal.h, rtol=1e-14, atol=1e-15)


def test_same_inputs_give_the_same_bits():
    case = dense_tanh(T=40, batch=(3,))
    for method in ALL.values():
        first, second = (solve(case, method=method, max_iter=200) for _ in range(2))
        np.testing.assert_array_equal(first.h, second.h)
        np.testing.assert_array_equal(first.residual_norms, second.residual_norms)


# What fails on which problem, from the default guess in 100 iterations, and how it says so.
DIVERGED, MAX_ITER, STALLED = prs.Status.DIVERGED, prs.Status.MAX_ITER, prs.Status.STALLED
HARD = {
    "van der pol": problems.van_der_pol(length=512),
    "lorenz": problems.lorenz63(length=512),
    "logistic 3.5": problems.logistic_map(3.5, length=200),
    "mean field 1.2": problems.mean_field_rnn(1.2, length=200),
    "mean field 1.6": problems.mean_field_rnn(1.6, length=200),
}
KNOWN_BAD = [
    ("newton", "van der pol", DIVERGED),
    ("newton", "lorenz", DIVERGED),
    ("newton", "logistic 3.5", DIVERGED),
    ("chord", "van der pol", DIVERGED),
    ("broyden", "van der pol", DIVERGED),
    ("broyden", "mean field 1.6", MAX_ITER),
    ("damped_newton", "van der pol", MAX_ITER),
    ("damped_newton", "lorenz", STALLED),
    ("damped_newton", "logistic 3.5", STALLED),
    ("damped_newton", "mean field 1.6", STALLED),
    ("levenberg_marquardt", "van der pol", MAX_ITER),
    ("levenberg_marquardt", "lorenz", STALLED),
    ("levenberg_marquardt", "logistic 3.5", STALLED),
    ("quasi_newton", "van der pol", DIVERGED),
    ("quasi_newton", "mean field 1.2", MAX_ITER),
    ("picard", "van der pol", DIVERGED),
    ("picard", "lorenz", DIVERGED),
    ("picard", "mean field 1.2", MAX_ITER),
    ("jacobi", "van der pol", MAX_ITER),
    ("jacobi", "mean field 1.2", MAX_ITER),
    ("anderson", "lorenz", DIVERGED),
]


@pytest.mark.parametrize(("method", "problem", "status"), KNOWN_BAD)
def test_known_failures_are_told(method, problem, status):
    hard = HARD[problem]
    with pytest.raises(prs.ConvergenceError) as caught:
        prs.solve(*hard[:4], steps=hard.steps, guess=hard.guess, method=method)
    assert caught.value.solution.status is status
    assert str(caught.value).startswith(f"{status.name}: {status.value}")


# Errors grow along these trajectories: the product of |A_t| is largest for the last ones.
@pytest.mark.parametrize("problem", HARD)
def test_a_moving_window_solves_what_others_cannot(problem):
    hard = HARD[problem]
    solution = prs.solve(*hard[:4], steps=hard.steps, method="windowed")
    assert solution.status is prs.Status.CONVERGED
    expected = prs.rollout(*hard[:4], steps=hard.steps)
    if problem == "mean field 1.6":  # the bound overestimates growth in 100 dimensions
        assert np.abs(solution.h - expected).max() < 1e-6
    else:
        # Two trajectories with rounding residuals differ by twice the bound, to first order.
        assert (np.abs(solution.h - expected) <= 2 * solution.error_bound() + 1e-12).all()


def test_names_are_aliases_of_configured_values():
    assert solvers.load("newton") == prs.Newton()
    assert solvers.load(prs.newton) == prs.Newton()
    assert prs.newton(chunk=7) == prs.Newton(chunk=7)
    assert prs.quasi_newton() == prs.Newton(linearization=prs.diagonal)
    assert prs.picard() == prs.Newton(linearization=A.identity)
    assert prs.jacobi() == prs.Newton(linearization=A.zero)
    assert prs.windowed(length=9) == prs.Newton(window=9)
    assert prs.windowed(prs.jacobi(), 9) == prs.Newton(linearization=A.zero, window=9)
    assert {prs.auto(), prs.sequential()} == {prs.auto(), prs.sequential()}


def test_a_method_to_modify_is_a_name_a_constructor_or_a_value():
    expected = prs.Newton(window=9)
    for method in ("newton", prs.newton, prs.Newton, prs.newton()):
        assert prs.windowed(method, 9) == expected
    assert prs.anderson(3, "jacobi") == prs.anderson(3, prs.jacobi) == prs.anderson(3, prs.jacobi())
    assert prs.anderson(3) == prs.anderson(3, "picard")
    case = block_tanh()
    assert_is_rollout(case, solve(case, method=prs.windowed("newton", 10)))


@pytest.mark.parametrize("modify", [prs.windowed, lambda method: prs.anderson(2, method)])
@pytest.mark.parametrize("method", ["auto", prs.auto(), prs.auto, "sequential", prs.sequential()])
def test_only_newton_type_methods_can_be_modified(modify, method):
    with pytest.raises(prs.InvalidInput, match=r"expected a Newton-type method .*newton\(\)"):
        modify(method)


@pytest.mark.parametrize("method", ["newtons", None, 3, prs.exact])
def test_what_is_no_method_cannot_be_modified(method):
    with pytest.raises(prs.InvalidInput, match="method"):
        prs.windowed(method)


VALUES = {
    "newton(chunk=3)": lambda: prs.newton(3),
    "newton(linearization=diagonal)": lambda: prs.quasi_newton(),
    "newton(linearization=scaled(0.3))": lambda: prs.quasi_newton(prs.scaled(np.float64(0.3))),
    "newton(linearization=scaled(0.3, base=clipped(bound=0.5)))": lambda: prs.quasi_newton(
        prs.scaled(0.3, prs.clipped(0.5))
    ),
    "newton(linearization=block_diagonal(2))": lambda: prs.quasi_newton(prs.block_diagonal(2)),
    "newton(linearization=hutchinson(probes=3, seed=1))": lambda: prs.quasi_newton(
        prs.hutchinson(3, 1)
    ),
    "newton(linearization=frozen())": lambda: prs.chord(),
    "newton(linearization=secant(base=diagonal))": lambda: prs.broyden(prs.diagonal),
    "newton(step_length=relaxed(0.7))": lambda: prs.relaxation(0.7),
    "newton(step_length=backtracking)": lambda: prs.Newton(step_length=prs.backtracking),
    "newton(step_length=backtracking(c=0.001, shrink=0.5))": lambda: prs.damped_newton(1e-3),
    "newton(step_length=backtracking(c=0.0001, shrink=0.5))": lambda: prs.damped_newton(),
    "newton(window=128)": lambda: prs.windowed(),
    "newton(step_length=trust_region(initial=0.01))": lambda: prs.levenberg_marquardt(),
    "newton(linearization=identity, step_length=anderson_mixing(5))": lambda: prs.anderson(),
    "newton(step_length=anderson_mixing(2, base=relaxed(0.5)), window=8)": lambda: prs.windowed(
        prs.anderson(2, prs.relaxation(0.5)), 8
    ),
}


@pytest.mark.parametrize("text", VALUES)
def test_methods_are_values_that_show_their_parameters(text):
    method, again = VALUES[text](), VALUES[text]()
    assert str(method) == text
    assert method == again
    assert hash(method) == hash(again)
    assert pickle.loads(pickle.dumps(method)) == method
    assert [other for other in VALUES if VALUES[other]() == method] == [text]


def test_a_solution_names_the_parameters_of_its_method():
    case = block_tanh()
    solution = solve(case, method=prs.quasi_newton(prs.scaled(0.3)))
    assert solution.method == "newton(linearization=scaled(0.3))"


@pytest.mark.parametrize("name", solvers.METHODS)
def test_every_name_loads_or_says_what_it_needs(name):
    if name == "relaxation":
        with pytest.raises(prs.InvalidInput, match="relaxation needs arguments.*omega"):
            solvers.load(name)
    else:
        assert hasattr(solvers.load(name), "solve")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: prs.newton(chunk=0), "chunk is 0; expected a whole number"),
        (lambda: prs.newton(chunk=None), "chunk is None; expected a whole number"),
        (lambda: prs.Newton(window=True), "window is True; expected a whole number"),
        (lambda: prs.windowed(length=0), "length is 0; expected a whole number"),
        (lambda: prs.windowed(length=None), "length is None; expected a whole number"),
        (lambda: prs.anderson(0), "m is 0; expected a whole number >= 1"),
        (lambda: prs.anderson(2.5), "m is 2.5; expected a whole number >= 1"),
        (lambda: prs.relaxation("a"), "omega is 'a'; expected a relaxation factor between 0 and 2"),
        (lambda: prs.relaxation(np.nan), "omega is nan; expected a relaxation factor"),
        (lambda: prs.damped_newton(c=0.0), "c is 0.0; expected a number between 0 and 1/2"),
        (lambda: prs.damped_newton(c=0.5), "c is 0.5; expected a number between 0 and 1/2"),
        (lambda: prs.damped_newton(c="a"), "c is 'a'; expected a number between 0 and 1/2"),
        (lambda: prs.damped_newton(shrink=1), "shrink is 1; expected a number between 0 and 1"),
        (lambda: prs.damped_newton(shrink=0), "shrink is 0; expected a number between 0 and 1"),
        (lambda: prs.levenberg_marquardt(-1), "damping is -1; expected a finite number > 0"),
        (lambda: prs.levenberg_marquardt(0), "damping is 0; expected a finite number > 0"),
        (lambda: prs.quasi_newton("diagonal"), "linearization is 'diagonal'; .*exact, diagonal or"),
        (lambda: prs.quasi_newton(prs.scaled), r"linearization is scaled itself; .*scaled\("),
        (lambda: prs.chord("exact"), "base is 'exact'; expected a linearization such as"),
        (lambda: prs.broyden(3), "base is 3; expected a linearization such as"),
        (lambda: prs.Newton(step_length="full_step"), "step_length is 'full_step'; .*backtracking"),
        (lambda: prs.relaxation(2.0), "omega is 2.0; expected a relaxation factor between 0 and 2"),
        (lambda: prs.relaxed(0), "omega is 0; expected a relaxation factor between 0 and 2"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(prs.InvalidInput, match=message):
        wrong()


def test_a_callable_method_of_ones_own():
    class Rollout:
        def solve(self, system, guess, scan, stopping, observe=None):
            return solvers.load("sequential").solve(system, guess, scan, stopping, observe)

        def __str__(self):
            return "my own"

    case = block_tanh()
    solution = solve(case, method=Rollout())
    assert solution.method == "my own"
    assert_is_rollout(case, solution)


def test_relaxation_beyond_its_iterations_is_not_called_converged():
    case = block_tanh(T=20)
    solution = attempt(case, method=prs.relaxation(0.1), max_iter=10)
    assert solution.status is prs.Status.MAX_ITER
    assert solution.n_iter == 10
    assert np.abs(solution.h - rollout(case)).max() > allowed_error(case)


@pytest.mark.parametrize(
    "method",
    [
        prs.newton(chunk=4),
        prs.windowed(prs.newton(), 64),
        prs.quasi_newton(prs.scaled(0.3, prs.clipped(0.5))),
        prs.anderson(3, prs.relaxation(0.5)),
    ],
    ids=str,
)
def test_a_method_prints_as_the_call_that_makes_it(method):
    assert eval(str(method), {name: getattr(prs, name) for name in prs.__all__}) == method
