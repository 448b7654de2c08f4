"""Checks of methods: the package's own pass, each wrong one is found by the check named for it."""

import inspect
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import solvers
from pararnn_solvers.testing import CheckFailures, Inapplicable, check_method, method_checks
from pararnn_solvers.testing.method_problems import dense, require_rollout
from pararnn_solvers.testing.methods import CHECKS
from pararnn_solvers.testing.results import CheckFailed
from tests.testing.mutants.methods import MUTANTS, correct


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_caught_by_its_check(mutant):
    (result,) = check_method(mutant.method, checks=[mutant.caught_by], on_failure="return")
    assert result.outcome == "failed"
    assert mutant.says in result.message
    for part in ("promised:", "seen:", "remedy:"):
        assert part in result.message


def test_the_docs_show_what_a_failure_says():
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "tolerance on the update")
    (result,) = check_method(mutant.method, checks=[mutant.caught_by], on_failure="return")
    page = Path(__file__).parents[2] / "docs" / "own_method.md"
    assert result.message in page.read_text(encoding="utf-8")


def test_there_are_enough_mutants():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


def test_the_unbroken_twin_passes():
    assert {result.outcome for result in check_method(correct)} == {"passed"}


# All names, and what they are made of; those that differ in one choice in one dtype only.
NAMED = {name: name for name in solvers.METHODS} | {"relaxation": prs.relaxation(0.7)}
VARIANTS = {
    "newton(chunk=3)": prs.newton(chunk=3),
    "windowed(length=4)": prs.windowed(length=4),
    "windowed(newton(chunk=2), 3)": prs.windowed(prs.newton(chunk=2), length=3),
    "windowed(quasi_newton, 5)": prs.windowed(prs.quasi_newton(), length=5),
    "hutchinson": prs.quasi_newton(prs.hutchinson(probes=2, seed=3)),
    "scaled": prs.quasi_newton(prs.scaled(0.3)),
    "damped shooting": prs.Newton(step_length=prs.backtracking, chunk=4),
}
EXPECTED = {
    "auto": {
        "max_iter_is_obeyed": "what the first choice leaves is solved by a window, counted anew"
    }
}


@pytest.mark.parametrize("name", NAMED)
def test_the_packages_own_pass(name):
    check_method(NAMED[name], expected_failures=EXPECTED.get(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_pass(name):
    check_method(VARIANTS[name], dtypes=[np.float64])


# One or two recurrences, because kernels of each are compiled.
BAD, PREFIX = "bad_numbers_stay_in_their_sequence", "full_steps_make_the_prefix_exact"
LIMIT = "max_iter_is_obeyed"
KERNELS = {
    "newton": ("newton", [BAD, PREFIX]),
    "newton(chunk=3)": (prs.newton(chunk=3), [BAD, LIMIT]),
    "sequential": ("sequential", [BAD]),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_pass(name):
    method, checks = KERNELS[name]
    check_method(method, compiled=True, dtypes=[np.float64], checks=checks)


@pytest.mark.parametrize("name", CHECKS)
def test_costs_are_those_that_the_docstring_says(name):
    calls = []

    class Counting:
        def solve(self, *arguments):
            calls.append(1)
            return correct.solve(*arguments)

    check_method(Counting(), checks=[name], dtypes=[np.float64])
    said = re.search(r"Costs: (\d+) solves? for each dtype", inspect.getdoc(CHECKS[name]))
    assert said is not None
    assert len(calls) == int(said[1])


def test_promises_that_a_method_does_not_make_are_skipped_with_the_reason():
    checks = dict(method_checks(prs.relaxation(0.7)))
    assert list(checks) == list(CHECKS)
    with pytest.raises(Inapplicable, match=r"relaxed\(0.7\)\) does not take full steps"):
        checks["full_steps_make_the_prefix_exact"]()
    with pytest.raises(Inapplicable, match="does not use the exact A"):
        dict(method_checks("quasi_newton"))["linear_recurrences_take_one_iteration"]()
    for name, promise in (("full_steps_make_the_prefix_exact", "full_steps"),
                          ("linear_recurrences_take_one_iteration", "newton")):  # fmt: skip
        (result,) = check_method(correct, checks=[name], **{promise: False})
        assert result.outcome == "skipped"


def test_a_newton_value_does_not_hide_behind_a_name():
    """What is declared of a Newton value wins over what it says itself."""
    with pytest.raises(CheckFailures, match="say full_steps=False"):
        check_method(
            prs.relaxation(0.5), full_steps=True, checks=["full_steps_make_the_prefix_exact"]
        )


def test_what_is_no_method_is_named():
    with pytest.raises(prs.InvalidInput, match="expected one of"):
        check_method("newtons")
    with pytest.raises(prs.InvalidInput, match="expected a name out of"):
        check_method(3)


def test_states_of_another_shape_are_told_from_wrong_ones():
    problem = dense(20, (2,), 3, np.float64)
    solution = prs.solve(*problem[:4], method="newton")
    require_rollout(problem, solution, "return all")
    with pytest.raises(CheckFailed, match=r"h has shape \(19, 2, 3\), expected \(20, 2, 3\)"):
        require_rollout(problem, replace(solution, h=solution.h[1:]), "return all")
