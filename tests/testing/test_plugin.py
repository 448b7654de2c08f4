"""The pytest plug-in, in runs of its own."""

import importlib.util
import os
import subprocess
import sys

import pytest


def run(tmp_path, text, *options):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-v", "-rs"]
    command += ["-p", "no:cacheprovider", "-W", "error", "-c", "pytest.ini", "--color=no"]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}  # which may be for these tests alone
    done = subprocess.run(
        [*command, *options, "test_it.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


SOLVES = """
import numpy as np
import pararnn_solvers as prs

def step(h, x, a):
    return np.tanh(a * h + x)

def test_a(backend, rng):
    x = rng.standard_normal((9, 2))
    assert prs.solve(step, x, np.zeros(2), 0.5, method="newton", backend=backend).backend == backend

def test_b():
    x = np.ones((9, 2))
    prs.solve(step, x, np.zeros(2), 0.5, method="newton", backend="sequential")
"""


def test_backends_of_the_option_and_statistics_of_solves(tmp_path):
    out = run(tmp_path, SOLVES)
    assert "test_a[sequential] PASSED" in out and "test_a[numba] PASSED" in out
    assert "pararnn_solvers: 3 solves, " in out and ", 0 failures, " in out
    out = run(tmp_path, SOLVES, "--pararnn-backends", "sequential")
    assert "2 passed" in out and "numba" not in out
    assert "pararnn_solvers: 2 solves, " in out


@pytest.mark.skipif(not importlib.util.find_spec("xdist"), reason="pytest-xdist is not installed")
def test_workers_are_added_up(tmp_path):
    out = run(tmp_path, SOLVES, "-n", "2")
    assert "3 passed" in out
    assert "pararnn_solvers: 3 solves, " in out


def test_a_backend_that_cannot_run_is_skipped_and_an_unknown_one_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = run(tmp_path, "def test_it(backend): pass", "--pararnn-backends=cupy")
    assert "1 skipped" in out and "cupy" in out
    out = run(tmp_path, "def test_it(backend): pass", "--pararnn-backends=nunba")
    assert "--pararnn-backends: no backend is called 'nunba'" in out and "1 error" in out
    assert "Traceback" not in out and "def load" not in out
    out = run(tmp_path, "def test_it(): pass", "--pararnn-backends=numba,,scipy")
    assert "expected names with commas" in out


def test_gpu_is_skipped_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = run(tmp_path, "import pytest\n@pytest.mark.gpu\ndef test_it(): assert False")
    assert "1 skipped" in out and ("CuPy" in out or "cupy" in out)


RANDOM = """
import pytest
@pytest.mark.parametrize("i", [0, 1])
def test_it(rng, i):
    print("drew", i, rng.random())
"""


def test_rng_depends_on_the_name_of_the_test_alone(tmp_path):
    def drawn(*options):
        out = run(tmp_path, RANDOM, "-s", *options)
        return dict(line.split()[-2:] for line in out.splitlines() if "drew" in line)

    both = drawn()
    assert len(set(both.values())) == 2
    assert drawn("-k", "1") == {"1": both["1"]}


def test_fixtures_of_the_user_win(tmp_path):
    out = run(
        tmp_path,
        "import pytest\n"
        "@pytest.fixture\ndef rng(): return 'mine'\n"
        "def test_rng(rng): assert rng == 'mine'\n"
        "@pytest.mark.parametrize('backend', [1, 2])\ndef test_b(backend): assert backend < 3\n",
    )
    assert "3 passed" in out


def test_nothing_is_imported_and_nothing_said_until_it_is_used(tmp_path):
    out = run(
        tmp_path,
        "import sys\n"
        "def test_it():\n"
        "    ours = {m for m in sys.modules if m.startswith('pararnn_solvers')}\n"
        "    assert ours == {'pararnn_solvers', 'pararnn_solvers.testing',\n"
        "                    'pararnn_solvers.testing.plugin'}\n"
        "    assert 'numpy' not in sys.modules and 'numba' not in sys.modules\n",
        "-p", "no:hypothesispytest",
    )  # fmt: skip
    assert "1 passed" in out
    assert "pararnn_solvers: " not in out


CELL = """
import numpy as np
import pararnn_solvers as prs
from pararnn_solvers.testing import check_recurrence, parametrize_with_checks

def step(h, x, a): return np.tanh(a * h + x)
def jacobian(h, x, a): return a * (1 - step(h, x, a))

x = np.random.default_rng(0).standard_normal((9, 2, 3))
CASE = prs.Recurrence(step, 1, jacobian), x, x[0], np.array([0.5, -0.4, 0.3])

@parametrize_with_checks([CASE])
def test_cell(check): check()
def test_whole(): check_recurrence(*CASE)
"""


def test_failures_are_short_and_begin_with_the_defect(tmp_path):
    out = run(tmp_path, CELL, "-k", "whole or jacobian", "--tb=short")
    defect = "the slope of tanh(x + h*theta) is written as 1 - v; it is 1 - v**2, v its value"
    assert f"defect:   {defect}" in out
    assert f"3 of 23 checks failed: jacobian_is_the_derivative: {defect}" in out
    assert "solutions.py" not in out and "derivatives.py" not in out and "results.py" not in out
    assert out.count("jacobian is not the derivative of step") == 1
