"""The page of all checks says what their docstrings say, and each mutant names a check."""

import importlib

import pytest

from tests.testing import page


@pytest.mark.parametrize("kind", page.KINDS)
def test_every_check_says_what_it_proves_and_costs_and_what_a_failure_means(kind):
    for name, check in importlib.import_module(f"pararnn_solvers.testing.{kind}").CHECKS.items():
        promise, said = page.parts(check)
        assert promise.endswith("."), name
        assert list(said) == list(page.PARTS), name


@pytest.mark.parametrize("kind", page.KINDS)
def test_every_check_catches_a_mutant(kind):
    checks = importlib.import_module(f"pararnn_solvers.testing.{kind}").CHECKS
    caught = {m.caught_by for m in importlib.import_module(f"tests.testing.mutants.{kind}").MUTANTS}
    assert caught == set(checks)


def test_there_are_forty_mutants_and_more():
    modules = [importlib.import_module(f"tests.testing.mutants.{kind}") for kind in page.KINDS]
    assert sum(len(module.MUTANTS) for module in modules) >= 40


def test_the_page_is_up_to_date():
    assert page.PAGE.read_text(encoding="utf-8") == page.page()
