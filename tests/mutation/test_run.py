"""Mutation testing finds what tests miss, and nothing else."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
MODULE = """
from functools import cache

LIMIT = 3

def larger(a, b):
    return a if a > b else b

def capped(a):
    return min(a, LIMIT)

def unused(a):
    return -a

@cache
def thrice(a):
    return 3 * a

def product():
    def multiplied(a, by=2):
        return by * a
    return multiplied

twice = product()
"""
TESTS = """
from tiny import capped, larger, thrice, twice

def test_larger():
    assert larger(1, 2) == larger(2, 1) == 2

def test_capped():
    assert capped(5) == 3

def test_thrice():
    assert thrice(5) == 15

def test_twice():
    assert twice(5) == 10

SEEN = []

def test_that_passes_once_only():
    SEEN.append(larger(1, 2))
    assert len(SEEN) == 1
"""


@pytest.mark.skipif(
    not (importlib.util.find_spec("cosmic_ray") and importlib.util.find_spec("coverage")),
    reason="needs cosmic-ray and coverage",
)
def test_what_survives_is_equivalent_or_untested(tmp_path):
    """Killed in a fork and, for the constant and the default, in a fresh interpreter.

    ``>=`` changes nothing, nor does it to remember nothing. A test that fails when it runs again
    would kill whatever it meets.
    """
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "test_tiny.py").write_text(TESTS)
    results = tmp_path / "results.jsonl"
    command = [sys.executable, str(RUN), "tiny.py", "--tests", "test_tiny.py"]
    command += ["--results", str(results)]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 1, first.stderr
    lines = first.stdout.splitlines()
    told = [line for line in lines if line.startswith(("survived", "not reached", "out of time"))]
    survived = {line for line in told if line.startswith("survived")}
    assert survived == {
        "survived: tiny.py:7: ReplaceComparisonOperator_Gt_GtE",
        "survived: tiny.py:15: RemoveDecorator",
    }
    assert all(line.startswith("not reached: tiny.py:13") for line in set(told) - survived)
    assert "    +LIMIT = 4" not in lines
    row = next(line for line in lines if line.startswith("| tiny.py"))
    tried, killed, _, survived, unreached = (int(n) for n in row.split("|")[2:-1])
    assert tried == killed + survived + unreached == len(results.read_text().splitlines())
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"{tried} mutants, {tried} of them known" in again.stdout
    assert again.stdout.splitlines()[-1] == lines[-1]
