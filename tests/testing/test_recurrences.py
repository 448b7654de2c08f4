"""Checks of recurrences: correct ones pass, each wrong one is found by the check named for it."""

import time

import numpy as np
import pytest
from hypothesis import given, settings

import pararnn_solvers as prs
from pararnn_solvers import cells, problems
from pararnn_solvers.testing import (
    CheckFailures,
    Inapplicable,
    check_recurrence,
    parametrize_with_checks,
    recurrence_checks,
)
from pararnn_solvers.testing.context import numbers
from pararnn_solvers.testing.recurrences import CHECKS
from tests.cells import common
from tests.strategies import contractive_recurrences
from tests.testing.mutants.recurrences import CORRECT, MUTANTS


def arguments(objects):
    """(recurrence, x, h0, theta) and steps, if there are any."""
    return objects[:4], {"steps": objects[4]} if len(objects) == 5 else {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_caught_by_its_check(mutant):
    (result,) = check_recurrence(*mutant.objects, checks=[mutant.caught_by], on_failure="return")
    assert result.outcome == "failed"
    assert mutant.says in result.message
    for part in ("promised:", "seen:", "remedy:"):
        assert part in result.message


def test_every_check_catches_a_mutant():
    assert {mutant.caught_by for mutant in MUTANTS} == set(CHECKS)


def test_there_are_enough_mutants():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 26


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CORRECT)
def test_the_unbroken_twins_pass(name, dtype):
    (recurrence, x, h0, theta), steps = arguments(CORRECT[name])
    x, h0 = (None if a is None else a.astype(dtype) for a in (x, h0))
    if isinstance(theta, np.ndarray):
        theta = theta.astype(dtype)
    elif hasattr(theta, "_replace"):
        theta = type(theta)(*(leaf.astype(dtype) for leaf in theta))
    elif dtype == np.float32:
        pytest.skip("theta of numbers of NumPy's float64")
    check_recurrence(recurrence, x, h0, theta, **steps)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", cells.CELLS)
def test_cells_pass(name, dtype):
    drawn = common.draw(name, T=7, batch=(2,), dtype=dtype)
    check_recurrence(drawn.recurrence, drawn.u, drawn.h0, drawn.theta)


@pytest.mark.parametrize("batch", [(), (1,), (2, 2)], ids=str)
def test_any_batch(batch):
    drawn = common.draw("diagonal_lstm", T=5, batch=batch)
    check_recurrence(drawn.recurrence, drawn.u, drawn.h0, drawn.theta)


def test_a_small_cell_takes_less_than_five_seconds():
    drawn = common.draw("diagonal_gru", T=16, batch=(3,))
    case = drawn.recurrence, drawn.u, drawn.h0, drawn.theta
    check_recurrence(*case)
    start = time.perf_counter()
    check_recurrence(*case)
    assert time.perf_counter() - start < 2 * 5


def test_who_plants_a_bug_in_a_gru_is_told_its_name():
    """The reset gate is taken for a constant in a derivative written by hand."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "GRU: reset gate")
    with pytest.raises(CheckFailures) as caught:
        check_recurrence(*mutant.objects)
    message = str(caught.value)
    first, *rest = message.splitlines()
    assert first.endswith(
        "jacobian_is_the_derivative: sigmoid(x1 + h*theta.a[1]) is taken for a constant: its "
        "derivative is left out"
    )
    assert "at step" in "".join(rest)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("noise", "calls_are_deterministic"),
        ("writes into h", "inputs_are_not_mutated: step writes into h"),
        ("overflow", "rollout_is_finite"),
        ("mean over the batch", "sequences_do_not_mix: step mixes axis 1"),
        ("sign", "step_is_continuous: step jumps"),
        ("pair", "shapes_and_dtypes_are_kept: a tuple"),
    ],
)
def test_the_cause_is_named_before_what_follows_from_it(name, first):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    with pytest.raises(CheckFailures) as caught:
        check_recurrence(*mutant.objects, checks=names)
    line = str(caught.value).splitlines()[0]
    assert f"checks failed: {first}" in line
    assert len(str(caught.value).splitlines()) <= 40


def test_a_step_that_cannot_be_called_is_one_failure_in_the_same_words():
    def step(h, x, a):
        return np.tanh(a * h + x)

    with pytest.raises(CheckFailures) as caught:
        check_recurrence(step, *CORRECT["scaled"][1:3])
    message = str(caught.value)
    assert message.splitlines()[0].endswith("theta was not given, and is None in step")
    assert message.count("promised:") == 1


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tiny_and_huge_states_pass(size):
    rng = np.random.default_rng(0)
    x = size * rng.standard_normal((6, 2, 3))
    step = lambda h, x, a: size * np.tanh(a * (h / size) + x / size)  # noqa: E731
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    check_recurrence(step, x, x[0], 0.5, checks=names)


def away_from_each_other(h, x, a):
    """Two components of sizes 1e6 and 1e-6."""
    large, small = h[..., :2], h[..., 2:]
    first = 1e6 * np.tanh(large / 1e6 + x[..., :2])
    return np.concatenate([first, 1e-6 * np.tanh(small * 1e6 + x[..., 2:])], axis=-1)


UNUSUAL = {
    "abs": lambda h, x, a: a * np.abs(h) + 0.1 * x,
    "abs of x": lambda h, x, a: 1 / (1 + np.abs(x) + h * h),
    "sizes apart": away_from_each_other,
    "saturated": lambda h, x, a: prs.sigmoid(40 + x) * h + prs.sigmoid(-40 + x) * x,
    "pole": lambda h, x, a: 0.1 * x / (h + 2.5) + a * h,
    "cube root": lambda h, x, a: 0.5 * np.cbrt(h) + 0.3 * x,
    "steep": lambda h, x, a: 0.1 * np.tanh(1e3 * h) + 0.5 * x,
    "clipped": lambda h, x, a: np.clip(a * h + x, -1, 1),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_recurrences_are_no_false_alarms(name):
    x, h0, a = CORRECT["scaled"][1:]
    if name == "sizes apart":
        h0 = h0 * np.array([1e6, 1e6, 1e-6, 1e-6])
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    check_recurrence(UNUSUAL[name], x, h0, a, checks=names)


def test_drives_of_no_columns_pass():
    x, h0, a = CORRECT["scaled"][1:]
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    check_recurrence(lambda h, x, a: np.tanh(a * h), x[..., :0], h0, a, checks=names)


def test_what_changes_nothing_is_named():
    x, h0, a = CORRECT["scaled"][1:]
    name = "inputs_and_parameters_are_differentiable"
    (result,) = check_recurrence(lambda h, x, p: np.tanh(a * h + x), x, h0, {"a": a}, checks=[name])
    assert result.message == "step does not depend on theta['a']"


@pytest.mark.parametrize("d", [4, 40], ids=["untraceable", "large"])
def test_a_wrong_jacobian_that_looks_like_nothing_known_is_to_be_written_again(d):
    """Of a step without a trace, or of too many components for one."""
    rng = np.random.default_rng(0)
    M, noise = np.eye(d) + 0.1 * rng.normal(size=(2, d, d)) / np.sqrt(d)

    def step(h, x, M):
        inner = h @ M if d > 4 else np.linalg.solve(M, h[..., None])[..., 0]
        return np.tanh(inner / 2 + x)

    def jacobian(h, x, M):
        slope = 1 - step(h, x, M)[..., None] ** 2
        return slope * (M.T if d > 4 else np.linalg.inv(M)) / 2 + noise * h[..., None, :] ** 2

    data = rng.normal(size=(12, 2, d)), rng.normal(size=(2, d)), M
    wrong = prs.Recurrence(step, jacobian=jacobian)
    with pytest.raises(CheckFailures, match="correct that in jacobian=, or leave it out"):
        check_recurrence(wrong, *data, checks=["jacobian_is_the_derivative"])


def test_a_smallest_counterexample_is_shown():
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "mean over the batch")
    (result,) = check_recurrence(
        *mutant.objects, checks=["vectorized_is_one_at_a_time"], on_failure="return"
    )
    assert "found with h of shape (2, 4)" in result.message


def test_a_step_that_raises_fails_and_says_how():
    def broken(h, x, a):
        raise KeyError("gate")

    results = check_recurrence(broken, *CORRECT["scaled"][1:], on_failure="return")
    outcomes = {result.name: result.outcome for result in results}
    assert outcomes["shapes_and_dtypes_are_kept"] == "failed"
    assert outcomes["rollout_is_finite"] == "failed"
    assert "passed" not in outcomes.values()
    assert "KeyError for h of shape (4,): 'gate'" in results[0].message


# Not the kernels: each drawn recurrence would be compiled.
@settings(max_examples=15)
@given(contractive_recurrences(max_T=6))
def test_contractive_recurrences_pass(case):
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    check_recurrence(*case[:4], steps=case.steps, checks=names)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (20, 1), (2, 40)], ids=str)
def test_any_size(shape):
    T, d = shape
    rng = np.random.default_rng(0)
    step = lambda h, x, a: np.tanh(a * h + x)  # noqa: E731
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    check_recurrence(step, rng.standard_normal((T, d)), np.zeros(d), 0.5, checks=names)


EXPANSIVE = {
    "logistic map": problems.logistic_map(3.9),
    "mean field": problems.mean_field_rnn(3.0, length=16, D=8),
    "Van der Pol": problems.van_der_pol(),
}


@pytest.mark.parametrize("name", EXPANSIVE)
def test_expansive_recurrences_pass(name):
    """Methods may fail to converge there; the message then says which."""
    problem = EXPANSIVE[name]
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    results = check_recurrence(*problem[:4], steps=problem.steps, checks=names)
    messages = {result.name: result.message for result in results}
    assert "methods find the rollout" in messages["every_method_finds_the_rollout"]


def test_large_and_small_numbers_pass():
    """Tolerances are relative to the sizes of states, results and derivatives."""
    rng = np.random.default_rng(0)
    names = [name for name in CHECKS if name != "kernels_are_the_step"]
    for size in (1e-6, 1e-3, 1e3, 1e6):
        x = size * rng.standard_normal((6, 2, 3))
        step = lambda h, x, a, size=size: a * h + x * np.tanh(h / size)  # noqa: E731
        check_recurrence(step, x, x[0], 0.5, checks=names)


def test_a_smaller_block_size_is_suggested():
    (recurrence, *data), _ = arguments(CORRECT["scaled"])
    wide = prs.Recurrence(recurrence.step, block_size=2)
    (result,) = check_recurrence(wide, *data, checks=["block_size_is_the_structure"])
    assert (result.outcome, "block_size=1 would do" in result.message) == ("passed", True)


def test_the_oracle_that_is_defeated_is_named():
    step = lambda h, x, a: a * np.abs(h) + x  # noqa: E731
    (result,) = check_recurrence(step, *CORRECT["scaled"][1:], checks=["oracles_agree"])
    assert result.outcome == "passed"
    assert "defeats complex step, which is not in use" in result.message


def test_contraction_is_reported():
    (result,) = check_recurrence(*CORRECT["scaled"], checks=["rollout_is_finite"])
    assert "Lyapunov exponent -" in result.message
    expanding = lambda h, x, a: 2 * h + x  # noqa: E731
    (result,) = check_recurrence(expanding, *CORRECT["scaled"][1:], checks=["rollout_is_finite"])
    assert "0.693" in result.message
    assert "expands" in result.message


def test_kinks_near_the_trajectory_are_no_failure():
    """Differences reach over the kinks of relu at 0; the exact derivative is right."""
    step = lambda h, x, a: np.maximum(0.5 * h + 1e-4 * x, 0)  # noqa: E731
    x = np.random.default_rng(0).standard_normal((12, 3, 4))
    check_recurrence(step, x, 1e-4 * x[0], None)


def test_numbers_that_look_alike_get_more_digits():
    assert numbers(1.0, 2.0) == ("1", "2")
    assert numbers(1.0, 1.0 + 1e-8) == ("1", "1.00000001")
    assert numbers(np.float64(0.1), np.nextafter(0.1, 1)) == (
        "0.10000000000000001",
        "0.10000000000000002",
    )


def test_what_is_inapplicable_says_why():
    checks = dict(recurrence_checks(*CORRECT["bare"]))
    with pytest.raises(Inapplicable, match="jacobian="):
        checks["jacobian_is_the_derivative"]()
    results = check_recurrence(*CORRECT["dense"])
    assert all(result.message for result in results if result.outcome == "skipped")


def test_many_parameters_are_checked_along_random_directions():
    name = "gradients_are_those_of_the_rollout"
    (result,) = check_recurrence(*CORRECT["many parameters"], checks=[name])
    assert result.outcome == "passed"


def test_rtol_widens_every_bound():
    rough = lambda h, x, a: np.tanh(a * h + x) + 1e-9 * (h.shape[0] if h.ndim > 1 else 0)  # noqa: E731
    data, names = CORRECT["scaled"][1:], ["vectorized_is_one_at_a_time"]
    with pytest.raises(CheckFailures):
        check_recurrence(rough, *data, checks=names)
    check_recurrence(rough, *data, checks=names, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recurrence": 3}, "expected step"),
        ({"recurrence": dict}, "the class dict"),
        ({"checks": []}, "nothing would be checked"),
        ({"checks": 3}, "several names"),
        ({"checks": ["jacobian_is_derivative"]}, "did you mean 'jacobian_is_the_derivative'"),
        ({"expected_failures": ["oracles_agree"]}, "a mapping"),
        ({"callback": 3}, "callback"),
        ({"x": np.ones((3, 4))}, "x has shape"),
        ({"x": None}, "pass steps=T"),
        ({"h0": np.full((3, 4), np.nan)}, "not finite"),
        ({"x": np.full((12, 3, 4), np.inf)}, "not finite"),
        ({"x": np.ones((0, 3, 4))}, "nothing to check"),
        ({"rtol": -1.0}, "rtol"),
        ({"rtol": "small"}, "rtol"),
        ({"checks": ["no_such_check"]}, "no_such_check"),
        ({"checks": "oracles_agree"}, "several names"),
        ({"expected_failures": {"no_such_check": "?"}}, "no_such_check"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"recurrence": prs.Recurrence(np.tanh, block_size=3)}, "block_size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_an_error_not_a_failure(change, says):
    given = dict(zip(("recurrence", "x", "h0", "theta"), CORRECT["scaled"], strict=True)) | change
    with pytest.raises(prs.InvalidInput, match=says):
        check_recurrence(**given)


@parametrize_with_checks([CORRECT["scaled"], CORRECT["autonomous"]])
def test_each_check_is_a_test(check):
    check()


def test_names_of_parametrized_tests_are_readable():
    cell = cells.load("diagonal_gru").recurrence
    drawn = common.draw("diagonal_gru")
    mark = parametrize_with_checks([(cell, drawn.u, drawn.h0, drawn.theta)])
    assert mark.kwargs["ids"][0] == "diagonal_gru-shapes_and_dtypes_are_kept"
    with pytest.raises(prs.InvalidInput, match="cases\\[0\\]"):
        parametrize_with_checks([cell])


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_is_documented(name):
    """The page of all checks is made of these."""
    promise, *parts = CHECKS[name].__doc__.split("\n\n")
    assert promise.endswith(".")
    assert [part.strip().split(":")[0] for part in parts] == ["Proves", "Costs", "A failure means"]


def test_the_costliest_method_is_left_out_for_large_states():
    rng = np.random.default_rng(0)
    step = lambda h, x, a: np.tanh(a * h + x)  # noqa: E731
    (result,) = check_recurrence(
        step, rng.standard_normal((5, 20)), np.zeros(20), 0.5,
        checks=["every_method_finds_the_rollout"],
    )  # fmt: skip
    assert result.message.endswith("; left out: levenberg_marquardt")
