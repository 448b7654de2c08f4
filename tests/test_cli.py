"""The command line, in this process where possible: what it prints, writes and returns."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from io import BytesIO, TextIOWrapper

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.bench import ours, timing
from pararnn_solvers.bench.cases import CASES
from pararnn_solvers.bench.contestants import CONTESTANTS, Variant
from pararnn_solvers.cli import bench as benchmark
from pararnn_solvers.cli import files, main
from pararnn_solvers.cli import solve as solving
from pararnn_solvers.cli.problem import with_arrays
from pararnn_solvers.cli.references import parse_method
from pararnn_solvers.linear import threads
from pararnn_solvers.problems import text as built_in

MODEL = """
import numpy as np
import pararnn_solvers as prs

LIMIT = 3

def step(h, x, theta):
    return np.tanh(0.5 * h + x)

def with_theta(h, x, theta):
    return np.tanh(theta["a"] * h + theta["b"][0] * x)

def autonomous(h, x, theta):
    return 0.5 * h + 1

def square(h, x, theta):
    return h * h + x

def broken(h, x, theta):
    raise RuntimeError("broken on purpose")

def interrupted(h, x, theta):
    raise KeyboardInterrupt

diagonal = prs.Recurrence(step, block_size=1)
"""
X = np.sin(np.arange(300.0))


def answer(x=X, size=1):
    h, states = np.zeros(size), []
    for x_t in np.asarray(x, float).reshape(len(x), -1):
        states.append(h := np.tanh(0.5 * h + x_t))
    return np.stack(states)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a model and its inputs, made the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "model.py").write_text(MODEL)
    np.save("x.npy", X)
    return tmp_path


@pytest.fixture
def solve(here, capsys):
    """Run ``solve`` with a step of the model and --json; return the object it prints."""

    def run(*argv, step="step", status=0):
        assert main(["solve", "--recurrence", f"model.py:{step}", "--json", *argv]) == status
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(here, capsys):
    """Run wrong use; return the one line it prints on stderr."""

    def run(*argv, status=2):
        assert main(list(argv)) == status
        err = capsys.readouterr().err
        assert err.startswith("pararnn-solvers: error: ") and err.count("\n") == 1
        return err

    return run


def own(*argv, step="step"):
    return ("solve", "--recurrence", f"model.py:{step}", "--input", "x.npy", *argv)


# The text


def test_no_arguments_solve_the_text_of_python_and_compare(monkeypatch, capsys):
    text = built_in.python_documentation()
    monkeypatch.setattr(built_in, "python_documentation", lambda: text[:4000])
    assert main([]) == 0
    out, err = capsys.readouterr()
    for part in (
        "English text that ships with Python (pydoc_data.topics), 4000 bytes",
        "diagonal GRU",
        "4000 steps × 16 states",
        "iteration   residual",
        "CONVERGED: every residual",
        "first call",
        "plain NumPy:",
        "at most between the two",
    ):
        assert part in out
    assert err == ""


def test_the_text_is_real_and_long():
    text = built_in.python_documentation()
    assert len(text) > 300_000 and b"assignment" in text


def test_each_byte_is_projected_on_its_own():
    text = b"abca"
    drives, theta = built_in.drive_gru(text, np.float32)
    assert drives.shape == (4, 3 * theta.a.shape[1]) and drives.dtype == np.float32
    assert np.array_equal(drives[0], drives[3]) and not np.array_equal(drives[0], drives[1])


def test_options_without_a_command_mean_solve(capsys):
    assert main(["--limit", "500", "--no-compare", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 500 and report["max_difference"] is None


def test_own_text_drives_the_same_recurrence(here, capsys):
    (here / "own.txt").write_bytes(bytes(range(256)) * 2)
    assert main(["--input", "own.txt", "--json", "--dtype", "float64", "--compare"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["steps"], report["dtype"]) == (512, "float64")
    assert report["max_difference"] < 1e-10


def test_text_from_stdin(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"some text")))
    assert main(["--input", "-", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 9 and report["input"] == "standard input, 9 bytes"


def test_python_without_its_documentation_is_told_so(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert "--input FILE.txt" in refused()


# A user's own work


@pytest.mark.parametrize(
    "name, content",
    [
        ("x.csv", "drive\n" + "\n".join(map(repr, X.tolist()))),
        ("x.txt", "# a comment\n" + "\n".join(f"{value!r}  # {value:.1f}" for value in X.tolist())),
        ("x.CSV", "﻿" + "\n".join(map(repr, X.tolist()))),
    ],
)
def test_numbers_in_text(here, solve, name, content):
    (here / name).write_text(content, encoding="utf-8")
    report = solve("--input", name, "--output", "h.npy", "--compare")
    assert report["status"] == "CONVERGED" and report["max_difference"] < 1e-11
    np.testing.assert_allclose(np.load("h.npy"), answer(), atol=1e-11)


def test_numbers_from_stdin_with_two_columns(monkeypatch, solve):
    rows = "\n".join(f"{a},{-a}" for a in X)
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"left,right\n" + rows.encode())))
    report = solve("--input", "-", "--output", "h.npy")
    assert report["input_size"] == report["state_size"] == 2
    np.testing.assert_allclose(np.load("h.npy"), answer(np.stack([X, -X], 1), 2), atol=1e-11)


def test_npy_keeps_its_dtype_unless_told_otherwise(solve):
    np.save("x.npy", X.astype(np.float32))
    assert solve("--input", "x.npy")["dtype"] == "float32"
    assert solve("--input", "x.npy", "--dtype", "float64")["dtype"] == "float64"
    np.save("x.npy", np.arange(5))
    assert solve("--input", "x.npy", "--dtype", "float32")["dtype"] == "float32"


def test_npz_with_a_batch_and_its_initial_states(solve):
    x = np.stack([X, 2 * X], axis=1)[..., None]
    np.savez("x.npz", x=x, h0=np.ones((2, 1)), labels=np.arange(2))
    report = solve("--input", "x.npz", "--compare", "--limit", "50")
    assert (report["steps"], report["batch"]) == (50, [2])
    assert report["sequences"] == {"CONVERGED": 2} and report["max_difference"] < 1e-11


def test_theta_from_every_format(here, solve):
    np.savez("theta.npz", a=0.5, b=np.ones(1))
    (here / "theta.json").write_text('{"a": 0.5, "b": [1]}')
    for name in ("theta.npz", "theta.json"):
        solve("--input", "x.npy", "--theta", name, "--output", "h.npy", "--force",
              step="with_theta")  # fmt: skip
        np.testing.assert_allclose(np.load("h.npy"), answer(), atol=1e-11)
    (here / "model.py").write_text(
        "import numpy as np\ndef step(h, x, a):\n return np.tanh(a * h + x)"
    )
    np.save("theta.npy", np.array(0.5))
    solve("--input", "x.npy", "--theta", "theta.npy", "--output", "h.npy", "--force")
    np.testing.assert_allclose(np.load("h.npy"), answer(), atol=1e-11)


def test_lists_of_json_become_arrays_where_they_are_rectangular():
    found = with_arrays({"a": [[1, 2], [3, 4]], "b": [[1], [2, 3]], "c": ["u", 1], "d": []}, "f4")
    assert found["a"].dtype == np.float32 and found["a"].shape == (2, 2)
    assert [part.tolist() for part in found["b"]] == [[1], [2, 3]]
    assert found["c"] == ["u", 1] and len(found["d"]) == 0


def test_dtype_converts_theta_too(solve):
    np.savez("theta.npz", a=0.5, b=np.ones(1))
    argv = ("--input", "x.npy", "--theta", "theta.npz", "--dtype", "float32")
    assert solve(*argv, step="with_theta")["dtype"] == "float32"


def test_recurrence_without_input(solve):
    report = solve("--steps", "40", "--h0", "-1,2e0", "--output", "h.npy", step="autonomous")
    assert report["input_size"] is None and report["steps"] == 40
    np.testing.assert_allclose(np.load("h.npy")[-1], [2, 2])


def test_h0_from_a_file(solve):
    np.save("h0.npy", np.array([0.25]))
    solve("--input", "x.npy", "--h0", "h0.npy", "--limit", "1", "--output", "h.npy")
    np.testing.assert_allclose(np.load("h.npy"), [[np.tanh(0.125)]])


@pytest.mark.parametrize("spec", ["model.py:diagonal", "model:diagonal", "./model.py:diagonal"])
def test_a_recurrence_by_file_or_by_module(here, capsys, spec, monkeypatch):
    monkeypatch.delitem(sys.modules, "model", raising=False)
    assert main(["--recurrence", spec, "--input", "x.npy"]) == 0
    out = capsys.readouterr().out
    assert "zeros, as many as x has columns" in out and "plain NumPy" not in out


def test_block_size_reaches_the_recurrence(refused):
    assert "not a multiple of block_size 2" in refused(*own("--block-size", "2"))


def test_solver_options_reach_the_solver(solve):
    report = solve(
        "--input", "x.npy", "--method", "windowed(newton(), length=64)", "--backend",
        "sequential", "--atol", "1e-6", "--rtol", "0", "--max-iter", "50",
    )  # fmt: skip
    assert report["backend"] == "sequential" and "window=64" in report["method"]
    assert 1e-12 < report["residual_norms"][-1] <= 1e-6
    assert len(report["residual_norms"]) == report["n_iter"] + 1


def test_a_solve_on_a_device_writes_what_one_on_the_host_does(here, capsys, device):
    assert main([*own("--output", "host.npy", "--method", "newton")]) == 0
    assert main([*own("--output", "gpu.npy", "--method", "newton", "--backend", "cupy")]) == 0
    capsys.readouterr()
    np.testing.assert_allclose(np.load("gpu.npy"), np.load("host.npy"), atol=1e-10)


def test_many_iterations_are_not_all_printed(here, capsys):
    assert main([*own("--method", "windowed(newton(), 16)")]) == 0
    out = capsys.readouterr().out
    assert "two lines a second" in out and len(out.splitlines()) < 45


@pytest.mark.parametrize(
    "text, expected",
    [
        ("newton", prs.newton()),
        ("newton(chunk=64)", prs.newton(chunk=64)),
        ("windowed(length=256)", prs.windowed(length=256)),
        ("windowed(newton(), 256)", prs.windowed(prs.newton(), 256)),
        ("quasi_newton(diagonal)", prs.quasi_newton(prs.diagonal)),
        (" sequential() ", prs.sequential()),
    ],
)
def test_a_method_is_written_as_in_python(text, expected):
    assert parse_method(text) == expected


def test_relaxation_takes_its_argument():
    assert "relaxed" in str(parse_method("relaxation(0.7)"))


# Results


def test_picture_in_each_format(here):
    for name, start in {"a.png": b"\x89PNG\r\n", "b.svg": b"<?xml", "c.pdf": b"%PDF"}.items():
        assert main([*own("--plot", name)]) == 0
        assert (here / name).read_bytes().startswith(start)


def test_a_failed_solve_says_why_and_still_draws(here, solve):
    report = solve("--input", "x.npy", "--method", "newton", "--output", "h.npy", "--plot",
                   "p.png", step="square", status=1)  # fmt: skip
    assert report["status"] == "DIVERGED" and not report["success"]
    assert report["files"]["output"] is None and report["residual_norms"][-1] is None
    assert (here / "p.png").exists() and not (here / "h.npy").exists()


def test_a_failed_solve_returns_1_with_the_reason(refused):
    err = refused(*own("--method", "newton", "--max-iter", "1", "--atol", "0"), status=1)
    assert "MAX_ITER" in err and "raise max_iter" in err


@pytest.mark.parametrize("option, name", [("--output", "h.npy"), ("--plot", "p.png")])
def test_an_existing_file_is_kept_without_force(here, refused, option, name):
    (here / name).write_text("precious")
    err = refused(*own(option, name))
    assert "exists" in err and "--force" in err
    assert (here / name).read_text() == "precious"
    assert main([*own(option, name, "--force")]) == 0
    assert (here / name).read_bytes() != b"precious"


def test_output_is_written_before_the_comparison(here, monkeypatch):
    def stopped(problem):
        raise KeyboardInterrupt

    monkeypatch.setattr(solving, "step_loop", stopped)
    assert main([*own("--compare", "--output", "h.npy")]) == 130
    np.testing.assert_allclose(np.load("h.npy"), answer(), atol=1e-11)


def test_new_files_have_the_usual_permissions(here):
    assert main([*own("--output", "h.npy")]) == 0
    (here / "other").write_text("")
    assert (here / "h.npy").stat().st_mode == (here / "other").stat().st_mode


# Ctrl-C and closed pipes


def test_ctrl_c_while_solving(here, capsys):
    before = sorted(os.listdir())
    assert main([*own("--output", "h.npy", step="interrupted")]) == 130
    assert capsys.readouterr().err == (
        "pararnn-solvers: error: interrupted; no file is left half-written\n"
    )
    assert sorted(set(os.listdir()) - {"__pycache__"}) == before


@pytest.mark.parametrize("existing", [None, b"old"])
@pytest.mark.parametrize("error, status", [(KeyboardInterrupt, 130), (OSError("disk full"), 1)])
def test_nothing_half_written_is_left(here, monkeypatch, capsys, error, status, existing):
    def half(file, array):
        file.write(b"half")
        raise error

    if existing:
        (here / "h.npy").write_bytes(existing)
    before = set(os.listdir())
    monkeypatch.setattr(solving.np, "save", half)
    assert main([*own("--output", "h.npy", "--force")]) == status
    assert set(os.listdir()) - {"__pycache__"} == before
    assert not existing or (here / "h.npy").read_bytes() == existing
    assert "Traceback" not in capsys.readouterr().err


SLOW = """
import time
from pathlib import Path
def step(h, x, theta):
    if len(h) > 100:
        Path("started").touch()
        time.sleep(60)
    return 0.5 * h + x
"""


def test_sigint_ends_the_process_quietly(here):
    (here / "slow.py").write_text(SLOW)
    before = set(os.listdir())
    # A shell that runs tests in the background has its children ignore the signal.
    run = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); " \
        "from pararnn_solvers.cli import main; sys.exit(main())"  # fmt: skip
    argv = ["--recurrence", "slow.py:step", "--input", "x.npy", "--output", "h.npy"]
    command = [sys.executable, "-c", run, *argv]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (here / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.decode() == "pararnn-solvers: error: interrupted; no file is left half-written\n"
    assert set(os.listdir()) - before <= {"started", "__pycache__"}


def test_a_closed_pipe_is_no_error(here):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pararnn_solvers", "info"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


# Wrong use

WRONG = {
    "no such command": (("sovle",), ["sovle", "solve"]),
    "no such option": (("solve", "--plt", "x"), ["--plt", "--help"]),
    "no number": (("--atol", "small"), ["--atol", "number >= 0", "'small'"]),
    "not finite": (("--rtol", "nan"), ["--rtol", "'nan'"]),
    "no positive integer": (("--max-iter", "0"), ["at least 1", "'0'"]),
    "no integer": (("--limit", "1.5"), ["whole number", "'1.5'"]),
    "no such dtype": (("--dtype", "float16"), ["float16", "float32"]),
    "no such case": (("bench", "--case", "lstms"), ["'lstms'", "one-channel, 64-channels"]),
    "figures of another kind": (("bench", "--json", "b.txt"), ["b.txt", ".json"]),
    "info takes little": (("info", "--plot", "x.png"), ["--plot"]),
    "missing input": (own("--input", "none.npy"), ["none.npy", "no such file"]),
    "a directory as input": (own("--input", ".npy"), [".npy"]),
    "missing text": (("--input", "none.txt"), ["none.txt", "no such file"]),
    "input of another kind": (own("--input", "x.mat"), ["x.mat", ".csv"]),
    "numbers without recurrence": (("--input", "x.npy"), ["--recurrence", "model.py:step"]),
    "theta without recurrence": (("--theta", "x.npy"), ["--theta", "--recurrence"]),
    "block size without recurrence": (("--block-size", "2"), ["--block-size"]),
    "recurrence alone": (("--recurrence", "model.py:step"), ["--input", "--steps", "neither"]),
    "input and steps": (own("--steps", "3"), ["both", "--limit"]),
    "steps without state": (
        ("--recurrence", "model.py:step", "--steps", "3"), ["--h0 0,0"]
    ),
    "steps with limit": (
        ("--recurrence", "model.py:step", "--steps", "3", "--limit", "2"), ["--limit"]
    ),
    "no colon": (own("--recurrence", "model.py"), ["'model.py'", "file.py:name"]),
    "no such file": (own("--recurrence", "gone.py:step"), ["gone.py", "does not exist"]),
    "no code": (own("--recurrence", "./x.npy:step"), ["ImportError", "does not end in .py"]),
    "no such module": (own("--recurrence", "gone_module:step"), ["gone_module", "not found"]),
    "no such package": (own("--recurrence", "gone.module:step"), ["gone.module", "not found"]),
    "no such function": (own(step="stepp"), ["'stepp'", "diagonal", "step", "square"]),
    "no function": (own(step="LIMIT"), ["int", "step(h, x, theta)"]),
    "state in words": (own("--h0", "zero"), ["'zero'", "0,0.5"]),
    "state of another dtype": (own("--h0", "h32.npy"), ["float32", "float64", "--dtype"]),
    "theta of another kind": (own("--theta", "theta.yaml"), ["theta.yaml", ".json"]),
    "theta is not JSON": (own("--theta", "bad.json"), ["bad.json", "line 1"]),
    "no such method": (own("--method", "newtn"), ["newtn", "quasi_newton"]),
    "method cannot be read": (own("--method", "newton("), ["newton(chunk=64)"]),
    "method is no call": (own("--method", "3 + 4"), ["3 + 4"]),
    "method with a wrong argument": (
        own("--method", "newton(chunks=3)"), ["chunks", "newton(chunk=1, window=None, "]
    ),
    "method without its argument": (own("--method", "relaxation"), ["relaxation", "omega"]),
    "method with unpacked arguments": (
        own("--method", "newton(**{'chunk': 2})"), ["no call of a method by name"]
    ),
    "method of a module": (own("--method", "solvers.newton()"), ["no call of a method by name"]),
    "method with code": (own("--method", "newton(chunk=open('x'))"), ["'open'"]),
    "method with an expression": (own("--method", "newton(chunk=[2][0])"), ["no literal"]),
    "method with a bad value": (own("--method", "newton(chunk=0)"), ["chunk is 0"]),
    "no such backend": (own("--backend", "cuda"), ["'cuda'", "numba"]),
    "output of another kind": (own("--output", "h.txt"), ["h.txt", ".npy"]),
    "output nowhere": (own("--output", "none/h.npy"), ["existing directory"]),
    "plot of another kind": (own("--plot", "p.jpg"), ["p.jpg", ".png or .svg or .pdf"]),
    "output is a directory": (own("--output", "d.npy", "--force"), ["cannot be written"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_and_status_2(here, refused, case):
    np.save("h32.npy", np.zeros(1, np.float32))
    (here / "bad.json").write_text("{a: 1}")
    (here / "d.npy").mkdir()
    argv, parts = WRONG[case]
    err = refused(*argv)
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("a.csv", b"1,2\n3\n", ["columns"]),
        ("a.csv", b"1,2\n3,what\n", ["what"]),
        ("a.csv", b"", ["no numbers"]),
        ("a.csv", b"time,value\n", ["no numbers"]),
        ("a.csv", b"1\nnan\n", ["x is nan at index (1, 0)"]),
        ("a.txt", b"\xff\xfe\x00", ["UTF-8"]),
        ("a.npy", b"no array", ["numpy.save"]),
        ("a.npz", b"PK\x03\x04 no archive", ["numpy.savez"]),
    ],
)
def test_files_that_cannot_be_used(here, refused, name, content, parts):
    (here / name).write_bytes(content)
    err = refused(*own("--input", name))
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(
    "array, part",
    [
        (np.arange(3), "--dtype"),
        (np.array([1j]), "real numbers"),
        (np.array(["a"]), "real numbers"),
        (np.zeros(()), "(T, *batch, m)"),
        (np.zeros((0, 1)), "at least 1"),
        (np.array([{}]), "numpy.save"),
    ],
)
def test_arrays_that_cannot_be_used(refused, array, part):
    np.save("a.npy", array)
    assert part in refused(*own("--input", "a.npy"))


def test_an_archive_without_x_lists_what_it_has(refused):
    np.savez("a.npz", inputs=X)
    assert "['inputs']" in refused(*own("--input", "a.npz"))


def test_an_archive_is_no_single_array(refused):
    np.savez("h0.npz", h0=np.zeros(1))
    os.rename("h0.npz", "h0.npy")
    assert "expected one array" in refused(*own("--h0", "h0.npy"))


def test_an_empty_text(here, refused):
    (here / "empty.txt").write_text("")
    assert "empty" in refused("--input", "empty.txt")


def test_a_backend_that_cannot_run(refused, monkeypatch):
    monkeypatch.setitem(prs.linear.BACKENDS, "elsewhere", "package_that_is_missing:scan")
    err = refused(*own("--backend", "elsewhere"))
    assert "package_that_is_missing" in err and "install" in err


@pytest.mark.parametrize(
    "code, parts",
    [
        ("import gone_dependency", ["ModuleNotFoundError", "gone_dependency", "line 1"]),
        ("x = 1\n1 / 0", ["ZeroDivisionError: division by zero", "own.py, line 2"]),
        ("def step(:", ["SyntaxError", "own.py"]),
        ("raise SystemExit(3)", ["SystemExit"]),
    ],
)
def test_code_that_fails_at_import_says_why(here, refused, code, parts):
    (here / "own.py").write_text(code)
    err = refused("--recurrence", "own.py:step", "--input", "x.npy")
    assert all(part in err for part in parts), err


def test_a_step_that_raises_shows_the_users_traceback(here, capsys):
    assert main([*own(step="broken")]) == 1
    err = capsys.readouterr().err
    assert "broken on purpose" in err and 'model.py", line' in err and "called on states" in err
    assert "solve.py" not in err
    assert err.splitlines()[-1] == (
        "pararnn-solvers: error: model.py:broken raised RuntimeError (see above)"
    )


def test_an_assumed_state_is_named_in_the_error(here, refused):
    (here / "own.py").write_text("def step(h, x, theta):\n    return x[..., :1] + 0 * h[..., :1]")
    np.save("x.npy", np.ones((9, 2)))
    argv = ("--recurrence", "own.py:step", "--input", "x.npy")
    err = refused(*argv)
    assert "step returned shape" in err and "pass --h0 for another state" in err
    err = refused(*argv, "--h0", "0,0")
    assert "step returned shape" in err and "--h0" not in err


def test_memory_that_is_not_there_is_one_line(here, refused, monkeypatch):
    def exhausted(*arguments):
        raise MemoryError("blocks take 9 TB")

    monkeypatch.setattr(solving, "solve_and_time", exhausted)
    assert refused(*own(), status=1) == "pararnn-solvers: error: blocks take 9 TB\n"


def test_a_large_solve_that_cannot_be_compiled_is_solved_all_the_same(here, solve, monkeypatch):
    monkeypatch.setattr(solving, "COMPILE_FROM", 1)
    (here / "model.py").write_text(
        "import numpy as np\ndef step(h, x, theta):\n return np.tanh(np.sort(h) / 2 + x)"
    )
    solve("--input", "x.npy", "--output", "h.npy")
    np.testing.assert_allclose(np.load("h.npy"), answer(), atol=1e-11)


# The benchmark


@pytest.fixture
def bench(here, monkeypatch):
    """A directory in which the benchmark takes no time."""
    few = {name: CONTESTANTS[name] for name in ("pararnn_solvers", "NumPy loop")}
    few["elsewhere"] = few["NumPy loop"]._replace(packages=("package_that_is_missing",))
    monkeypatch.setattr(timing, "CONTESTANTS", few)
    for name in ("batch", "lstm"):
        monkeypatch.setitem(CASES, name, replace(CASES[name], steps=30, channels=2))
    return here


def test_bench_prints_a_table_a_case(bench, capsys):
    assert main(["bench", "--case", "lstm", "--case", "batch", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "Turns: 1; threads: " in out and out.index("lstm: ") < out.index("batch: ")
    assert "not installed: needs package_that_is_missing" in out and "first call" in out


def test_bench_writes_figures_and_a_picture(bench, capsys):
    files = ["--json", "b.json", "--plot", "b.png"]
    assert main(["bench", "--case", "batch", "--threads", "1", *files]) == 0
    report = json.loads((bench / "b.json").read_text())
    assert report["environment"]["threads"] == 1 and report["repeats"] == 5
    assert [one["status"] for one in report["cases"][0]["results"]] == [
        "timed", "timed", "not installed"
    ]  # fmt: skip
    assert (bench / "b.png").read_bytes().startswith(b"\x89PNG")
    assert "b.json" in capsys.readouterr().out
    assert main(["bench", "--case", "batch", *files]) == 2


def test_bench_leaves_threads_and_processors_as_they_were(bench):
    cores = getattr(os, "sched_getaffinity", lambda pid: None)
    before = threads.num_threads(), cores(0)
    with benchmark.limited(1):
        assert threads.num_threads() == 1
        assert cores(0) is None or len(cores(0)) == 1
    assert (threads.num_threads(), cores(0)) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds on Linux only")
def test_a_thread_that_ended_is_not_bound(monkeypatch):
    bound = []

    def set_affinity(task, processors):
        bound.append(processors)
        raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setaffinity", set_affinity)
    benchmark.bind({0})
    assert bound and set(map(frozenset, bound)) == {frozenset({0})}
    bound.clear()
    benchmark.bind(set())
    assert not bound


def test_who_waits_at_a_terminal_is_told_what_goes_on(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["bench", "--case", "batch", "--repeats", "1"]) == 0
    assert "batch ..." in capsys.readouterr().err


def test_bench_returns_1_if_this_package_is_wrong(bench, monkeypatch, refused):
    def wrong(problem):
        return [Variant(lambda: problem.answer[0] + 1, lambda h: (h,))]

    monkeypatch.setattr(ours, "solve", wrong)
    assert "no right answer in: lstm (off by 1.0e+00" in refused(
        "bench", "--case", "lstm", status=1
    )


def test_bench_lists_cases_and_contestants(capsys):
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert "512-channels" in out and "jax.lax.scan" in out


# The rest


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert prs.__version__ in out and np.__version__ in out and "threads" in out


def test_info_gives_the_reason_why_a_backend_is_unavailable(monkeypatch, capsys):
    monkeypatch.setitem(prs.linear.BACKENDS, "elsewhere", "package_that_is_missing:scan")
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["backends"]["numba"] is None
    assert "package_that_is_missing" in info["backends"]["elsewhere"]
    assert info["packages"]["numpy"] == np.__version__


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pararnn-solvers {prs.__version__}\n"
    for argv in (["--help"], ["solve", "--help"]):
        assert main(argv) == 0
        assert "--recurrence model.py:step" in capsys.readouterr().out


def test_help_imports_nothing_slow():
    code = textwrap.dedent("""
        import sys
        from pararnn_solvers.cli import main
        main(["solve", "--help"])
        slow = {"numba", "matplotlib", "scipy", "tqdm"} & set(sys.modules)
        sys.exit(f"imported {slow}" if slow else 0)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_of_another_encoding_does_not_end_a_solve(here):
    done = subprocess.run(
        [sys.executable, "-m", "pararnn_solvers", "--limit", "100"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and b"\\xd7 16 states" in done.stdout


def test_write_whole_follows_links(tmp_path):
    target, link = tmp_path / "target.npy", tmp_path / "link.npy"
    target.write_bytes(b"old")
    link.symlink_to(target)
    path = files.check_destination(str(link), (".npy",), "--output", force=True)
    files.write_whole(path, lambda file: file.write(b"new"))
    assert link.is_symlink() and target.read_bytes() == b"new"


def test_write_whole_says_what_cannot_be_written_and_leaves_nothing(tmp_path):
    def full(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write '.*h\.npy': no space left on device"):
        files.write_whole(tmp_path / "h.npy", full)
    assert not list(tmp_path.iterdir())


def test_a_step_with_too_few_arguments_is_named(here, capsys):
    (here / "few.py").write_text("def step(h, x):\n    return h\n")
    assert main(["solve", "--recurrence", "few.py:step", "--steps", "3", "--h0", "0"]) == 1
    err = capsys.readouterr().err
    assert "takes 2 positional arguments" in err
    assert err.splitlines()[-1].endswith("error: few.py:step raised TypeError (see above)")
