"""What users call: arguments in, solutions out, nothing changed on the way."""

import io
import os
import threading
from contextlib import redirect_stderr

import numpy as np
import pytest
from hypothesis import given

import pararnn_solvers as prs
from tests.strategies import (
    assert_is_rollout,
    block_tanh,
    contractive_recurrences,
    dense_tanh,
    rollout,
    solve,
)


@given(contractive_recurrences())
def test_the_default_solve_is_the_rollout(case):
    solution = solve(case)
    assert solution.success
    assert_is_rollout(case, solution)
    assert solution.sequence_status.shape == case.h0.shape[:-1]
    assert solution.residual_norms.shape == (solution.n_iter + 1, *case.h0.shape[:-1])


@given(contractive_recurrences())
def test_a_rollout_is_the_definition(case):
    step = getattr(case.recurrence, "step", case.recurrence)
    h, expected = case.h0, []
    for t in range(case.steps):
        h = step(h, None if case.x is None else case.x[t], case.theta)
        expected.append(h)
    np.testing.assert_array_equal(rollout(case), expected)


def test_a_function_or_a_recurrence():
    case = block_tanh(k=1, n=3)
    bare = solve(case._replace(recurrence=case.recurrence.step), method="newton")
    declared = solve(case, method="newton")
    np.testing.assert_allclose(bare.h, declared.h, rtol=1e-13)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (1, 1, 2)])
def test_batch_axes_come_back(batch):
    case = dense_tanh(T=7, batch=batch)
    guess = np.zeros((7, *batch, 4))
    solution = solve(case, guess=guess, method="newton")
    assert solution.h.shape == (7, *batch, 4)
    assert solution.error_bound().shape == (7, *batch, 4)
    assert solution.system.shape == (7, *batch, 4)
    assert_is_rollout(case, solution)


def test_lists_of_numbers_are_arrays():
    solution = prs.solve(lambda h, x, _: 0.5 * h + x, [[1.0], [2.0]], [0.0])
    np.testing.assert_allclose(solution.h, [[1.0], [2.5]], rtol=1e-15)


def test_no_input_at_all():
    solution = prs.solve(lambda h, x, a: a * h, None, np.ones(2), 0.5, steps=4)
    np.testing.assert_allclose(solution.h[:, 0], 0.5 ** np.arange(1, 5))


def test_inputs_of_any_strides():
    case = dense_tanh(T=9, batch=(3,))
    x = np.asfortranarray(case.x)
    h0 = np.repeat(case.h0, 2, axis=0)[::2]
    x.flags.writeable = False
    assert_is_rollout(case, solve(case._replace(x=x, h0=h0)))
    backwards = case._replace(x=case.x[::-1])
    assert_is_rollout(backwards, solve(backwards))


def test_nothing_of_the_users_is_changed_or_shared():
    case = dense_tanh(T=9, batch=(3,))
    kept = [a.copy() for a in (case.x, case.h0, case.theta)]
    for method in ("newton", "sequential", "windowed", prs.newton(chunk=2)):
        solution = solve(case, method=method)
        solution.h[:] = np.nan
        for old, new in zip(kept, (case.x, case.h0, case.theta), strict=True):
            np.testing.assert_array_equal(old, new)


def test_the_states_are_contiguous_and_writable():
    for method in ("newton", "sequential", "windowed", prs.newton(chunk=2), "auto"):
        h = solve(dense_tanh(T=9, batch=(3,)), method=method).h
        assert h.flags.c_contiguous
        assert h.flags.writeable


def test_everything_after_theta_is_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        prs.solve(lambda h, x, _: h, np.zeros((2, 1)), np.zeros(1), None, 2)


@pytest.mark.parametrize("method", ["newton", "auto", prs.newton(chunk=4), "windowed"])
def test_progress_shows_on_stderr_and_changes_nothing(method):
    case = dense_tanh(T=40)
    seen, screen = [], io.StringIO()
    with redirect_stderr(screen):
        solution = solve(case, method=method, progress=True, callback=seen.append)
    assert "converged" in screen.getvalue()
    assert len(seen) > 0
    np.testing.assert_array_equal(solution.h, solve(case, method=method).h)


def test_a_backend_may_be_a_function():
    calls = []

    def scan(blocks, rhs, *, adjoint=False):
        calls.append(adjoint)
        from pararnn_solvers.linear.sequential import scan as reference

        return reference(blocks, rhs, adjoint=adjoint)

    case = dense_tanh(T=10)
    solution = solve(case, method="newton", backend=scan)
    assert_is_rollout(case, solution)
    assert calls == [False] * solution.n_iter
    prs.gradients(solution, np.ones_like(solution.h))
    assert calls[-1] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": ["numba"]}, r"backend is \['numba'\]; expected one name, such as 'numba', or"),
        ({"backend": None}, "backend is None; expected one name"),
        ({"callback": 3}, "callback is 3; expected a function of a State, or None"),
        ({"callback": "print"}, "callback is 'print'; expected a function of a State"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_before_anything_is_solved(options, message):
    def step(h, x, theta):
        raise AssertionError("called")

    with pytest.raises(prs.InvalidInput, match=message):
        prs.solve(step, np.zeros((2, 1)), np.zeros(1), **options)


def test_threads_do_not_disturb_each_other():
    cases = [dense_tanh(T=50, batch=(2,), seed=seed) for seed in range(4)]
    found = {}

    def work(i):
        found[i] = [solve(cases[i], method="newton").h for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, case in enumerate(cases):
        for h in found[i]:
            np.testing.assert_array_equal(h, found[i][0])
        assert np.abs(found[i][0] - rollout(case)).max() < 1e-10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif("'jax' in sys.modules", reason="JAX, once imported, warns of every fork")
def test_a_forked_child_solves_too():
    case = dense_tanh(T=2000, batch=(8,))
    expected = solve(case, method="newton").h
    child = os.fork()
    if child == 0:
        same = np.array_equal(solve(case, method="newton").h, expected)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_subclasses_of_arrays_are_arrays():
    case = block_tanh(T=5)
    solution = solve(case._replace(x=case.x.view(np.recarray)))
    assert type(solution.h) is np.ndarray
