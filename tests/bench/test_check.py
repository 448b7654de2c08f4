import numpy as np
import pytest

from pararnn_solvers.bench import check, numba_loop
from pararnn_solvers.bench.cases import build, first
from tests.bench.small import SMALL, TINY


def test_a_long_answer_is_that_of_the_numpy_loop(monkeypatch):
    problem = build(TINY)
    (whole,) = check.answered(problem).answer
    monkeypatch.setattr(check, "STRETCH", 10)
    (stretched,) = check.answered(problem).answer
    assert whole.dtype == np.float64 and whole.shape == (40, 2)
    np.testing.assert_allclose(stretched, whole, rtol=1e-12)


def test_a_compiled_loop_that_is_wrong_is_not_taken_for_an_answer(monkeypatch):
    monkeypatch.setattr(check, "STRETCH", 10)
    right = numba_loop.trajectory
    monkeypatch.setattr(numba_loop, "trajectory", lambda problem: (right(problem)[0] + 1e-6,))
    with pytest.raises(ArithmeticError, match="differ by 1.0e-06"):
        check.answered(build(TINY))


def test_errors_of_wrong_results():
    problem = check.answered(build(TINY))
    (h,) = problem.answer
    assert check.error(problem, (h,)) == 0
    assert check.error(problem, (h + 0.01,)) == pytest.approx(0.01)
    assert check.error(problem, (h[:-1],)) == np.inf
    assert check.error(problem, (h, h)) == np.inf
    assert np.isnan(check.error(problem, (np.where(h == h[3], np.nan, h),)))


def test_large_numbers_are_compared_relatively():
    assert check.difference([np.array([1100.0, 0])], [np.array([1000.0, 0])]) == 0.1


def test_chaos_is_judged_step_by_step():
    problem = check.answered(build(SMALL["expansive"]))
    (h,) = problem.answer
    assert check.error(problem, (h,)) < 1e-6
    later = first(problem, 30)
    assert check.error(later, (h[:30],)) < 1e-6
    wrong = h.copy()
    wrong[20] += 1e-3
    assert check.error(problem, (wrong,)) > 1e-4
