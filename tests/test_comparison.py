"""Methods side by side: what the rows say, in every form, whatever the methods do."""

import csv
import io
import json
import sys
from dataclasses import fields

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import comparison
from pararnn_solvers.linear import sequential as loop

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 3))
A = 0.5 * np.linalg.qr(rng.normal(size=(3, 3)))[0]


def step(h, x, A):
    return np.tanh(h @ A.T + x)


def compare(methods, **options):
    options = {"repeats": 2, "backends": ["sequential"], **options}
    return prs.compare(step, X, np.zeros(3), A, methods=methods, **options)


def test_the_rollout_comes_first_and_the_others_are_compared_with_it():
    found = compare(["newton", prs.newton(chunk=16), "jacobi"])
    assert [row.method for row in found] == [
        "sequential()", "newton()", "newton(chunk=16)", "jacobi()",
    ]  # fmt: skip
    rollout, newton, shooting, jacobi = found
    assert (rollout.status, rollout.backend, rollout.error) == ("SEQUENTIAL", "", 0)
    h = prs.rollout(step, X, np.zeros(3), A)
    sol = prs.solve(step, X, np.zeros(3), A, method="jacobi", backend="sequential")
    assert jacobi.error == np.abs(sol.h - h).max() > 0
    assert jacobi.iterations == sol.n_iter and jacobi.residual == sol.residual_norms[-1]
    assert jacobi.residual_norms == tuple(sol.residual_norms)
    assert jacobi.evaluations == sol.n_step_evaluations / 200
    for row in (newton, shooting, jacobi):
        assert row.status == "CONVERGED" and row.success and row.backend == "sequential"
        assert row.error < 1e-9 and row.compiled is False


def test_each_method_is_run_with_each_backend():
    def mine(blocks, rhs, *, adjoint=False):
        return loop.scan(blocks, rhs, adjoint=adjoint)

    found = compare(["newton"], backends=["sequential", "scipy", mine])
    names = [row.backend for row in found]
    assert names[:3] == ["", "sequential", "scipy"] and names[3].endswith("mine")
    assert found[1].label == "newton(), sequential" and found[0].label == "sequential()"


def test_times_are_quartiles_over_the_turns():
    found = compare(["newton", "jacobi"], repeats=3)
    for row in found:
        low, median, high = row.seconds
        assert 0 < low <= median <= high and row.repeats == 3 and row.first_call > 0


def test_a_slow_row_is_called_less_often_and_says_so():
    found = compare(["newton"], repeats=3, budget=1e-9)
    assert [row.repeats for row in found] == [1, 1]


def test_the_first_call_and_the_traced_one_are_not_timed_and_calls_take_turns(monkeypatch):
    order = []
    actual = prs.solve

    def solve(*problem, method, **options):
        order.append(str(method))
        return actual(*problem, method=method, **options)

    monkeypatch.setattr("pararnn_solvers.api.solve", solve)
    compare(["newton", "jacobi"], repeats=2)
    once = ["sequential", "newton()", "newton(linearization=zero)"]
    turns = order[3:-3]  # short calls are warmed up: many in a row
    runs = [name for name, before in zip(turns, [None, *turns], strict=False) if name != before]
    assert order[:3] == once and order[-3:] == once
    assert runs == [*once, *once[1:], once[0]] and len(turns) > 2 * len(runs)


def test_memory_is_at_least_what_the_method_must_hold():
    found = compare(["newton", "jacobi"])
    states, blocks = X.nbytes, 200 * 9 * 8
    rollout, newton, jacobi = (row.memory for row in found)
    assert states <= rollout < jacobi
    assert states + blocks <= newton


def expansive(h, x, r):
    return r * h * (1 - h)


def test_methods_that_fail_are_rows_with_their_status():
    found = prs.compare(
        prs.Recurrence(expansive, block_size=1), None, np.array([0.3]), 3.9, steps=400,
        methods=["newton", "picard", "chord"], repeats=1, max_iter=20,
    )  # fmt: skip
    statuses = {row.method: row.status for row in found}
    assert statuses["newton()"] in ("MAX_ITER", "DIVERGED", "STALLED")
    for row in found[1:]:
        assert not row.success and row.note.startswith(row.status)
        assert row.error > 0.1 and row.seconds is not None and row.iterations > 0
    assert "null" in found.to_json()  # a residual that is not finite
    assert not np.isfinite([row.residual for row in found]).all()


def test_a_rollout_that_overflows_is_a_row_and_errors_are_unknown():
    found = prs.compare(
        lambda h, x, _: h * h + x, np.full((20, 1), 2.0), np.zeros(1), methods=["newton"], repeats=1
    )
    assert [row.status for row in found] == ["DIVERGED", "DIVERGED"]
    assert [row.error for row in found] == [None, None]


@pytest.mark.parametrize(
    "method, options, words",
    [
        (prs.quasi_newton(prs.block_diagonal(2)), {}, "divisor"),
        ("newton", {"backends": ["cupy"]}, "cupy"),
        ("newton", {"backends": ["missing"]}, "cannot be imported"),
    ],
)
def test_what_cannot_be_applied_is_a_row_with_the_reason(method, options, words, monkeypatch):
    monkeypatch.setitem(prs.linear.BACKENDS, "missing", "package_that_is_missing:scan")
    rollout, row = compare([method], **options)
    assert (row.status, row.iterations, row.seconds) == ("NOT APPLICABLE", None, None)
    assert words in row.note and rollout.seconds is not None and rollout.repeats == 2


def test_what_a_method_raises_is_a_row():
    class Broken:
        def solve(self, system, guess, scan, stopping, observe=None):
            raise np.linalg.LinAlgError("singular\non purpose")

        def __str__(self):
            return "broken()"

    _, row, newton = compare([Broken(), "newton"])
    assert (row.status, row.note) == ("FAILED", "LinAlgError: singular on purpose")
    assert newton.success


@pytest.mark.parametrize(
    "options, words",
    [
        ({"methods": ["newtons"]}, "expected one of"),
        ({"methods": ["relaxation"]}, "needs arguments"),
        ({"methods": ["newton"], "backends": ["number"]}, "number"),
        ({"methods": ["newton"], "repeats": 0}, "repeats"),
        ({"methods": ["newton"], "budget": 0}, "budget"),
        ({"methods": ["newton"], "callback": print}, "callback"),
    ],
)
def test_wrong_use_is_an_error(options, words):
    with pytest.raises(prs.InvalidInput, match=words):
        compare(**options)


def test_a_wrong_problem_is_an_error_not_a_table_of_them():
    with pytest.raises(prs.InvalidInput, match="h0 is a scalar"):
        prs.compare(step, X, 0.0, A)

    def broken(h, x, theta):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        prs.compare(broken, X, np.zeros(3), methods=["newton"])


def test_no_memory_is_given_of_calls_longer_than_the_budget():
    found = compare(["newton"], repeats=1, budget=1e-9)
    assert [row.memory for row in found] == [None, None]


def test_on_a_device_no_memory_is_given(device):
    x, h0, theta = (device.asarray(a) for a in (X[:20], np.zeros(3), A))
    found = prs.compare(step, x, h0, theta, methods=["newton"], repeats=1)
    assert [row.memory for row in found] == [None, None]
    rollout, newton = found
    assert (newton.status, newton.backend) == ("CONVERGED", "cupy")
    assert newton.error < 1e-12 and newton.seconds is not None


def test_one_name_needs_no_list_and_sequential_is_there_once():
    found = compare("sequential", backends="sequential")
    assert [row.method for row in found] == ["sequential()"] and len(found) == 1


def test_options_reach_the_solves():
    x, h0 = X[:, None].repeat(2, 1), np.zeros((2, 3))
    found = prs.compare(
        step, x, h0, A, methods=["jacobi"], repeats=1, lengths=[200, 7], max_iter=3, progress=True
    )
    assert found[1].status == "MAX_ITER" and found[1].iterations == 3
    assert "200 steps × 2 sequences × 3 states, float64" in repr(found)


@pytest.fixture(scope="module")
def table():
    return compare(["newton", "jacobi", prs.quasi_newton(prs.block_diagonal(2))], max_iter=4)


def test_it_prints_as_a_table(table):
    problem, header, *lines = repr(table).splitlines()
    assert problem == "200 steps × 3 states, float64"
    assert header.split() == ["method", "backend", "status", "iterations", "evaluations", "time",
                              "first", "call", "memory", "error", "residual"]  # fmt: skip
    rollout, newton, jacobi, other = lines[:4]
    assert "reference" in rollout and "converged" in newton and "max iter" in jacobi
    assert other.split()[-7:] == ["-"] * 7 and "not applicable" in other
    assert [line.split(": ")[0].strip() for line in lines[4:]] == [
        "jacobi(), sequential", "newton(linearization=block_diagonal(2)), sequential",
    ]  # fmt: skip
    ends = {len(line) for line in lines[:3]}
    assert ends == {len(header)}  # the columns are aligned


def test_notes_of_several_rows_are_said_once():
    found = compare(["jacobi", "picard"], max_iter=1)
    (label, text), *more = found.notes()
    assert label == "jacobi(), sequential; picard(), sequential" and not more


def test_markdown(table):
    lines = table.to_markdown().splitlines()
    assert {line.count("|") for line in lines[:6]} == {11}
    assert lines[1].startswith("| --- | --- | --- | ---: |") and lines[6] == ""
    assert lines[7].startswith("- jacobi(), sequential: MAX_ITER")


def test_csv_and_json_have_the_numbers_of_the_rows(table):
    written = list(csv.DictReader(io.StringIO(table.to_csv())))
    report = json.loads(table.to_json())
    assert report["problem"] == table.problem and report["repeats"] == 2
    for row, line, found in zip(table, written, report["rows"], strict=True):
        assert line["method"] == found["method"] == row.method
        assert found["residual_norms"] == list(row.residual_norms)
        assert found["seconds"] == (row.seconds and row.seconds[1])
        assert line["memory"] == ("" if row.memory is None else str(row.memory))
        assert line["error"] == ("" if row.error is None else repr(row.error))


def test_every_field_of_a_row_is_written(table):
    names = {f.name for f in fields(comparison.Row)} - {"residual_norms"}
    assert set(table[1].record()) == names | {"seconds_25", "seconds_75"}


def test_a_data_frame(table):
    pandas = pytest.importorskip("pandas")
    frame = table.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(table[0].record())
    assert frame.loc[2, "status"] == "MAX_ITER" and frame["memory"][3:].isna().all()


def test_without_pandas_a_data_frame_is_refused_with_the_remedy(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        table.to_dataframe()


def test_in_a_notebook_it_is_a_table_with_nothing_unescaped():
    found = compare([prs.newton(step_length=prs.relaxed(0.5))], max_iter=1)
    row = comparison.Row("<b>()", "numba", "FAILED", "a < b")
    shown = comparison.Comparison((*found.rows, row), "1 < 2", 1)._repr_html_()
    assert shown.count("<tr>") == 1 + 3 and "relaxed(0.5)" in shown
    assert "&lt;b&gt;()" in shown and "a &lt; b" in shown and "1 &lt; 2" in shown
