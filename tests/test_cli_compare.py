"""``pararnn-solvers compare``: which problem, which form, which errors."""

import csv
import io
import json
import sys

import numpy as np
import pytest

from pararnn_solvers import problems
from pararnn_solvers.cli import compare as command
from pararnn_solvers.cli import main

MODEL = """
import numpy as np

def step(h, x, theta):
    return np.tanh(0.5 * h + x)
"""
FEW = ("--length", "40", "--repeats", "1", "--method", "newton", "--backend", "sequential")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a model and its inputs, made the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "model.py").write_text(MODEL)
    np.save("x.npy", np.sin(np.arange(50.0)))
    return tmp_path


def out(capsys, *argv):
    assert main(["compare", *argv]) == 0
    return capsys.readouterr().out


def test_a_problem_by_name(capsys):
    title, problem, header, *rows = out(capsys, "mean_field_0.8", *FEW).splitlines()
    assert title == (
        f"pararnn-solvers compare: mean_field_0.8: {problems.load('mean_field_0.8').note}, from "
        "the guess of its source"
    )
    assert problem == "40 steps × 100 states, float64" and header.split()[0] == "method"
    assert [row.split()[0] for row in rows] == ["sequential()", "newton()"]


def test_the_length_the_seed_the_dtype_and_the_guess_are_those_asked_for(monkeypatch, capsys):
    called = []
    monkeypatch.setattr(
        command, "compare", lambda *a, **k: called.append((a, k)) or command.Comparison((), "", 1)
    )
    out(capsys, "two_well_langevin", "--length", "9", "--seed", "3", "--dtype", "float32",
        "--budget", "7", "--atol", "1e-3", "--max-iter", "4")  # fmt: skip
    ((recurrence, x, h0, theta), options) = called[0]
    problem = problems.load("two_well_langevin", length=9, seed=3, dtype=np.dtype("float32"))
    np.testing.assert_array_equal(x, problem.x)
    np.testing.assert_array_equal(options["guess"], problem.guess)
    assert h0.dtype == np.float32 and options["steps"] == 9 and options["budget"] == 7
    assert (options["atol"], options["rtol"], options["max_iter"]) == (1e-3, None, 4)
    assert options["methods"] == list(command.METHODS) and options["backends"] == ["auto"]


def test_methods_and_backends_can_be_repeated(capsys):
    text = out(capsys, "logistic_fixed_point", *FEW, "--method", "newton(chunk=4)", "--backend",
               "scipy", "--csv")  # fmt: skip
    rows = [(row["method"], row["backend"]) for row in csv.DictReader(io.StringIO(text))]
    assert rows == [
        ("sequential()", ""), ("newton()", "sequential"), ("newton()", "scipy"),
        ("newton(chunk=4)", "sequential"), ("newton(chunk=4)", "scipy"),
    ]  # fmt: skip


def test_json_is_all_there_is_on_stdout(capsys):
    report = json.loads(out(capsys, "gru", *FEW, "--json"))
    assert [row["status"] for row in report["rows"]] == ["SEQUENTIAL", "CONVERGED"]


def test_markdown(capsys):
    assert out(capsys, "gru", *FEW, "--markdown").startswith("| method | backend |")


def test_without_a_name_it_is_english_text(capsys):
    title, problem, *_ = out(capsys, *FEW).splitlines()
    assert "english_text" in title and problem.startswith("40 steps")


def test_a_recurrence_of_your_own(here, capsys):
    text = out(capsys, "--recurrence", "model.py:step", "--input", "x.npy", *FEW[2:])
    assert "model.py:step, input x.npy\n50 steps × 1 states" in text


def test_with_cupy_alone_the_arrays_are_moved(device, capsys):
    text = out(capsys, "gru", *FEW[:-1], "cupy", "--csv")
    (_, newton) = csv.DictReader(io.StringIO(text))
    assert (newton["backend"], newton["status"], newton["memory"]) == ("cupy", "CONVERGED", "")


def test_a_picture(here, capsys):
    assert "wrote " in out(capsys, "gru", *FEW, "--plot", "p.png")
    assert (here / "p.png").read_bytes().startswith(b"\x89PNG")
    assert main(["compare", "gru", *FEW, "--plot", "p.png"]) == 2
    assert "--force" in capsys.readouterr().err


def test_methods_that_fail_do_not_make_the_command_fail(capsys):
    text = out(capsys, "logistic_chaotic", *FEW, "--max-iter", "1", "--backend", "cupy")
    assert "max iter" in text and "not applicable" in text


def test_the_list_has_every_problem_on_a_line(capsys):
    lines = out(capsys, "--list").splitlines()
    assert [line.split()[0] for line in lines] == list(problems.PROBLEMS)
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize(
    "argv, parts",
    [
        (["gruu"], ["'gruu'", "diagonal_gru"]),
        (["gru", "--method", "newtn"], ["newtn", "quasi_newton"]),
        (["gru", "--method", "newton(chunks=2)"], ["chunks"]),
        (["gru", "--backend", "cuda"], ["'cuda'", "numba"]),
        (["gru", "--json", "--csv"], ["--csv", "--json"]),
        (["gru", "--budget", "0"], ["budget", "more than 0"]),
        (["gru", "--plot", "p.jpg"], ["p.jpg", ".png"]),
        (["gru", "--input", "x.npy"], ["gru", "--input", "leave one out"]),
        (["gru", "--seed", "-1"], ["--seed", "at least 0", "'-1'"]),
        (["--input", "x.npy", "--recurrence", "model.py:step", "--length", "3"], ["--limit"]),
        (["membrane_gru", "--length", "99999"], ["99999", "12000"]),
    ],
)
def test_wrong_use_is_one_line_and_status_2(here, capsys, argv, parts):
    assert main(["compare", *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(part in err for part in parts), err
