"""The account that a solution gives of itself."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems
from tests.strategies import (
    attempt,
    contractive_recurrences,
    dense_tanh,
    rollout,
    rounding,
    solve,
)


@given(
    contractive_recurrences(max_T=30, dtypes=st.just(np.float64)),
    st.sampled_from([1e-2, 1e-4, 1e-7]),
    st.sampled_from(["quasi_newton", "chord", prs.relaxation(0.6), "jacobi"]),
)
def test_the_error_bound_holds_for_solves_that_stopped_early(case, atol, method):
    """To first order: entries of A change by ``|f''| |e| < e`` between the states and the truth.

    With e at most ``atol / (1 - L) <= 0.1`` the bound, a sum of at most ``1 / (1 - L)`` terms, is
    short by a factor ``1 + e / (1 - L) <= 2`` at the largest of these tolerances.
    """
    solution = solve(case, method=method, atol=atol, rtol=0.0, max_iter=200)
    error = np.abs(solution.h - rollout(case))
    assert (error <= 2 * solution.error_bound() + rounding(case) / (1 - case.lipschitz)).all()


def test_the_error_bound_is_exact_for_a_scalar_linear_recurrence():
    """``|A|`` entry by entry loses nothing where all terms have one sign."""
    step = prs.Recurrence(lambda h, x, a: a * h + x, block_size=1)
    x = np.ones((20, 1))
    solution = attempt_step(step, x, guess=prs.rollout(step, x, np.zeros(1), 0.9) + 0.1)
    error = np.abs(solution.h - prs.rollout(step, x, np.zeros(1), 0.9))
    np.testing.assert_allclose(solution.error_bound(), error, rtol=1e-10)


def attempt_step(step, x, guess):
    with pytest.raises(prs.ConvergenceError) as caught:
        prs.solve(step, x, np.zeros(1), 0.9, method="newton", guess=guess, max_iter=0)
    return caught.value.solution


def test_the_error_bound_of_a_chaotic_trajectory_is_huge():
    problem = problems.logistic_map(3.9, length=200)
    solution = prs.solve(*problem[:4], steps=200, method="windowed")
    assert solution.error_bound().max() > 1
    assert solution.error_bound()[0].max() < 1e-10


def test_the_error_bound_keeps_shape_and_dtype():
    case = dense_tanh(T=9, batch=(2, 3), dtype=np.float32)
    bound = solve(case).error_bound()
    assert bound.shape == (9, 2, 3, 4)
    assert bound.dtype == np.float32
    assert (bound >= 0).all()


def test_it_prints_a_table():
    text = repr(solve(dense_tanh(T=30, batch=(2, 3)), method="newton", backend="sequential"))
    assert text.startswith("Solution\n")
    for line in (
        "trajectory   30 steps × 6 sequences × 4 states, float64",
        "status       6 CONVERGED",
        "method       newton(), backend sequential",
        "iterations   ",
        "residual     ",
        " at the guess, ",
        "evaluations  ",
    ):
        assert line in text
    assert max(map(len, text.splitlines())) < 100


def test_the_table_has_the_note_if_there_is_one():
    assert "note         auto: " in repr(solve(dense_tanh(T=5)))
    assert "note" not in repr(solve(dense_tanh(T=5), method="newton"))


def test_a_notebook_shows_table_and_picture():
    case = dense_tanh(T=30, batch=(2,))
    html = attempt(case, method="jacobi", max_iter=3)._repr_html_()
    assert "<svg" in html
    assert "2 MAX_ITER" in html
    assert html.count("<div") == html.count("</div>")
    assert "<script" not in html


def test_a_notebook_escapes_what_others_wrote():
    solution = dataclasses.replace(solve(dense_tanh()), note="<b>&", method="<i>")
    assert "&lt;b&gt;&amp;" in solution._repr_html_()


@pytest.mark.parametrize("batch", [(), (3,), (2, 40)])
def test_a_plot_has_one_line_for_each_sequence_of_at_most_64(batch):
    solution = solve(dense_tanh(T=30, batch=batch), method="newton")
    axes = solution.plot()
    lines = axes.get_lines()
    assert len(lines) == min(64, int(np.prod(batch))) + 1  # and the tolerance
    assert len(lines[0].get_xdata()) == solution.n_iter + 1
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "iteration"
    assert solution.plot(ax=axes) is axes


@pytest.mark.parametrize("T", [0, 5])
def test_a_plot_of_nothing_or_of_exact_zeros(T):
    case = dense_tanh(T=T)
    solution = solve(case, method="newton", guess=rollout(case))
    assert solution.plot() is not None
    assert "<svg" in solution._repr_html_()


def test_a_plot_of_an_overflow():
    problem = problems.van_der_pol(length=300)
    with pytest.raises(prs.ConvergenceError) as caught:
        prs.solve(*problem[:4], steps=300, method="newton")
    assert "diverged" in caught.value.solution.plot().get_title()


def test_it_cannot_be_changed():
    solution = solve(dense_tanh())
    with pytest.raises(dataclasses.FrozenInstanceError):
        solution.h = None


def test_it_is_equal_to_itself_alone():
    """To compare arrays entry by entry is left to who wants that."""
    solution = solve(dense_tanh())
    assert solution == solution
    assert solution != dataclasses.replace(solution)
    assert len({solution, dataclasses.replace(solution)}) == 2


def test_the_status_is_the_worst():
    solution = solve(dense_tanh(T=5, batch=(3,)))
    for worst, others in [
        ("MAX_ITER", ["CONVERGED", "SEQUENTIAL"]),
        ("DIVERGED", ["MAX_ITER", "CONVERGED"]),
        ("STOPPED", ["CONVERGED", "CONVERGED"]),
        ("SEQUENTIAL", ["CONVERGED", "CONVERGED"]),
    ]:
        status = np.array([prs.Status[name] for name in [*others, worst]], object)
        mixed = dataclasses.replace(solution, sequence_status=status)
        assert mixed.status.name == worst
        assert mixed.success == (worst == "SEQUENTIAL")
        assert mixed.message.startswith(f"{worst}: {prs.Status[worst].value} (1 of 3 sequences)")


def test_the_message_says_what_to_try():
    case = dense_tanh(T=30)
    assert "raise max_iter or use windowed" in attempt(case, method="jacobi", max_iter=1).message
    assert solve(case, method="newton").message == (
        "CONVERGED: every residual of the returned states meets the tolerance"
    )


def test_the_message_says_where_it_overflowed():
    step = prs.Recurrence(lambda h, x, _: h + np.exp(x), block_size=1)
    x = np.zeros((9, 1))
    x[6] = 1000
    with pytest.raises(prs.ConvergenceError, match="first at step 7"):
        prs.solve(step, x, np.zeros(1), method="newton")


def test_the_account_of_evaluations():
    """The guess, the first residual, then a residual and a linearization in each iteration."""
    case = dense_tanh(T=500)
    solution = solve(case, method="newton")
    most = 500 * (2 + 2 * solution.n_iter)
    assert most / 2 < solution.n_step_evaluations < most + 50


def test_the_names_of_method_and_backend():
    solution = solve(dense_tanh(), method=prs.newton(chunk=3), backend="scipy")
    assert solution.method == "newton(chunk=3)"
    assert solution.backend == "scipy"
    assert not solution.compiled

    def my_scan(blocks, rhs, *, adjoint=False):
        from pararnn_solvers.linear.sequential import scan

        return scan(blocks, rhs, adjoint=adjoint)

    assert "my_scan" in solve(dense_tanh(), backend=my_scan).backend


def test_an_empty_batch_is_shown():
    solution = prs.solve(lambda h, x, _: h, np.zeros((4, 0, 2)), np.zeros((0, 2)))
    assert "svg" in solution._repr_html_()


def curved_step(h, x, _):
    return np.sin(3 * h + x)


def test_an_error_with_its_solution_can_be_pickled():
    with pytest.raises(prs.ConvergenceError) as caught:
        prs.solve(curved_step, np.ones((20, 1)), np.zeros(1), method="newton", max_iter=1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    np.testing.assert_array_equal(again.solution.h, caught.value.solution.h)


def test_the_message_counts_two_sequences_too():
    case = dense_tanh(T=30, batch=(2,))
    guess = rollout(case)
    guess[:, 1] = 0
    message = attempt(case, method="jacobi", guess=guess, max_iter=1).message
    assert "(1 of 2 sequences)" in message
    assert "sequences" not in attempt(dense_tanh(T=30), method="jacobi", max_iter=1).message


def test_what_is_printed_of_the_residual_is_where_it_began_and_ended():
    case = dense_tanh(T=30, batch=(3,))
    solution = solve(case, method="newton")
    first, last = (float(solution.residual_norms[i].max()) for i in (0, -1))
    assert dict(solution.rows())["residual"] == f"{first:.1e} at the guess, {last:.1e} at the end"
    nothing = solve(dense_tanh(T=5, batch=(0,)), method="newton")
    assert dict(nothing.rows())["residual"] == "0.0e+00"


@pytest.mark.parametrize(("T", "batch"), [(1, ()), (1, (1,)), (1, (2,)), (4, (3,))])
def test_what_is_printed_counts_sequences_and_evaluations(T, batch):
    solution = solve(dense_tanh(T=T, batch=batch), method="newton")
    number = int(np.prod(batch))
    rows = dict(solution.rows())
    assert rows["status"] == ("CONVERGED" if number == 1 else f"{number} CONVERGED")
    assert rows["evaluations"] == f"{solution.n_step_evaluations / (T * number):.1f} per step"


def test_the_final_state_is_the_last_one():
    case = dense_tanh(T=7, batch=(2,))
    solution = solve(case, method="newton")
    np.testing.assert_array_equal(solution.final, solution.h[6])
    nothing = dense_tanh(T=0, batch=(2,))
    np.testing.assert_array_equal(solve(nothing, method="newton").final, nothing.h0)
