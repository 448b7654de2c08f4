"""Checks of backends: the package's own pass, each wrong one is found by the check named for it."""

import inspect
import re

import numpy as np
import pytest

from pararnn_solvers.errors import BackendUnavailable, InvalidInput
from pararnn_solvers.testing import CheckFailures, backend_checks, check_backend
from pararnn_solvers.testing.backend_diagnosis import require_solution
from pararnn_solvers.testing.backend_systems import require_equal
from pararnn_solvers.testing.backends import CHECKS
from pararnn_solvers.testing.results import CheckFailed
from tests.testing.mutants.backends import MUTANTS, correct

DTYPES = (np.float32, np.float64)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_caught_by_its_check(mutant):
    (result,) = check_backend(mutant.scan, checks=[mutant.caught_by], on_failure="return")
    assert result.outcome == "failed"
    assert mutant.says in result.message
    for part in ("promised:", "seen:", "remedy:"):
        assert part in result.message


def test_the_unbroken_twin_passes():
    assert {result.outcome for result in check_backend(correct)} == {"passed"}


@pytest.mark.parametrize("name", ["sequential", "numba", "scipy"])
@pytest.mark.parametrize("dtypes", [DTYPES, (np.float16,)], ids=["single and double", "half"])
def test_the_packages_own_pass(name, dtypes):
    check_backend(name, dtypes=dtypes)


@pytest.mark.parametrize("name", CHECKS)
def test_costs_are_those_that_the_docstring_says(name):
    calls = []

    def counted(blocks, rhs, *, adjoint=False):
        calls.append(adjoint)
        return correct(blocks, rhs, adjoint=adjoint)

    check_backend(counted, checks=[name], dtypes=[np.float64])
    said = re.search(r"Costs: (\d+) scans.* for each dtype", inspect.getdoc(CHECKS[name]))
    assert said is not None
    assert len(calls) == int(said[1])


def test_checks_are_functions_to_call_one_by_one():
    checks = dict(backend_checks("sequential"))
    assert list(checks) == list(CHECKS)
    checks["first_block_is_never_used"]()


def test_failures_raise_with_all_messages():
    with pytest.raises(CheckFailures, match="forward_is_the_recurrence"):
        check_backend(lambda blocks, rhs, *, adjoint=False: rhs.copy())


def test_what_is_no_backend_is_named():
    with pytest.raises(InvalidInput, match="expected a registered name or a function"):
        check_backend(3)
    with pytest.raises((InvalidInput, BackendUnavailable), match="nunba"):
        check_backend("nunba")


def test_an_answer_of_another_shape_is_told_from_a_wrong_one():
    blocks, rhs = np.zeros((4, 1, 1, 2)), np.ones((4, 2))
    says = r"shape \(3, 2\), expected \(4, 2\) \(.*the last is lost"
    with pytest.raises(CheckFailed, match=r"shape \(3, 2\), expected \(4, 2\) \(T=4, blocks"):
        require_solution(lambda A, b, adjoint: b[1:], blocks, rhs, False, "solved", "return all")
    with pytest.raises(CheckFailed, match=says):
        require_equal(rhs[1:], rhs, blocks, "equal", "the last is lost", "return all")
    require_equal(rhs * np.nan, rhs * np.nan, blocks, "equal", "NaN equals NaN", "")
