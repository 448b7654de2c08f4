"""The benchmark on a GPU, run on a double of CuPy: what is right, what is timed, what is asked."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pararnn_solvers.bench.contestants import Contestant, NotComparable, Variant
from pararnn_solvers.bench.gpu import (
    cases,
    floors,
    machine,
    ours,
    picture,
    report,
    targets,
    timing,
    work,
)
from pararnn_solvers.bench.gpu.cases import COPY, ROWS, SCAN, SOLVE
from pararnn_solvers.bench.gpu.contestants import CONTESTANTS
from pararnn_solvers.bench.gpu.timing import Result
from pararnn_solvers.errors import InvalidInput

SIZES = {
    "scan-lanes": (40, 5, (2,)),
    "scan-2": (33, 3, (2,)),
    "gru": (300, 3, (2,)),
    "lstm": (30, 3, ()),
    "gru-gradient": (40, 3, (2,)),
    "lstm-gradient": (40, 1, ()),
    "dense": (20, 8, (3,)),
    "gru-float64": (40, 3, (2,)),
}
LIBRARIES = ("torch", "jax", "pararnn", "accelerated_scan")


def small(name):
    row = ROWS[name]
    steps, channels, batch = SIZES[name]
    case = replace(row.case, steps=steps, channels=channels, batch=batch)
    among = tuple(n for n in row.among if not set(CONTESTANTS[n].packages) & set(LIBRARIES))
    return row._replace(case=case, among=among)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(timing, "FLUSHED_BYTES", 1 << 10)
    monkeypatch.setattr(timing, "SLOW", np.inf)


def given(name):
    return work.prepare(work.make(small(name).case))


# What is right


@pytest.mark.parametrize("name", SIZES)
def test_all_that_is_ours_is_right_in_every_case(device, name):
    row = small(name)
    results = timing.run_case(row, timing.Limits(2))
    assert [one.contestant for one in results] == [n for n in CONTESTANTS if n in row.among]
    for one in results:
        if one.contestant == "shooting" and row.case.steps < 64:
            assert one.status == "not comparable"
            continue
        assert (one.status, one.runs, one.steps) == ("timed", 2, row.case.steps), one
        assert one.error <= row.case.allowed
        low, middle, high = one.seconds
        assert 0 < low <= middle <= high and one.first_call > 0


@pytest.mark.parametrize("place", [(0, 0, 0), (-1, -1, -1), (20, 1, 2)])
def test_one_wrong_state_is_found_wherever_it_is(device, monkeypatch, place):
    monkeypatch.setattr(work, "SAMPLED_CHANNELS", 1)
    made = given("gru")
    (h,) = ours.states_of(ours.rollout(made)[0].call(), made)
    assert work.error(made, (h,)) < 1e-5
    h[place] += 0.01
    assert work.error(made, (h,)) > 1e-3
    h[place] = np.nan
    assert not work.error(made, (h,)) <= made.case.allowed


def test_another_trajectory_of_the_same_recurrence_is_wrong(device):
    """Each of its steps is right; only the lanes that the host computed show the wrong start."""
    made = given("gru")
    (h,) = ours.states_of(ours.rollout(made._replace(h0=made.h0 + 0.5))[0].call(), made)
    assert work.error(made, (h,)) > 0.01


def test_what_has_another_shape_is_no_answer(device):
    made = given("gru")
    (h,) = ours.states_of(ours.rollout(made)[0].call(), made)
    assert work.error(made, (h[1:],)) == np.inf
    assert work.error(made, (h, h)) == np.inf


def test_beside_gradients_a_solve_with_wrong_states_says_so(device, monkeypatch):
    made = given("gru-gradient")
    (way,) = ours.solve(made)
    found = way.call()
    assert way.collect(found) is None
    right = ours.states_of
    monkeypatch.setattr(ours, "states_of", lambda found, work: (right(found, work)[0] + 0.5,))
    with pytest.raises(ArithmeticError, match="states are off by"):
        way.collect(found)


def test_a_gradient_must_be_finite_in_every_lane(device, monkeypatch):
    monkeypatch.setattr(work, "SAMPLED_CHANNELS", 1)
    made = given("gru-gradient")
    (way,) = ours.adjoint(made)
    parts = way.collect(way.call())
    assert work.error(made, parts) < 1e-5
    assert made.sample.tolist() == [0]
    parts[1][7, 1, 2] = np.nan
    assert np.isnan(work.error(made, parts))
    parts[1][7, 1, 2] = 0
    parts[1][7, 1, 0] += 1
    assert work.error(made, parts) > 1e-2


def test_the_copy_moves_the_bytes_of_the_case(device, monkeypatch):
    made = given("gru")
    (way,) = floors.copy(made)
    with pytest.raises(ArithmeticError, match="differs"):
        way.collect(None)
    copyto, moved = device.copyto, []

    def counted(target, source):
        moved.append(target.nbytes + source.nbytes)
        copyto(target, source)

    monkeypatch.setattr(device, "copyto", counted)
    assert way.collect(way.call()) is None
    # 3 drives and 1 state of float32, 300 steps, 6 lanes
    assert moved == [4 * 4 * 300 * 6] == [cases.least_bytes(made.case)]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("scan-lanes", 3), ("scan-2", 8 * 1), ("gru", 4), ("lstm", 5), ("gru-gradient", 11)],
)
def test_bytes_by_hand(name, numbers):
    case = ROWS[name].case
    assert cases.least_bytes(case) == numbers * 4 * case.lanes * case.steps


def test_kernels_have_no_dense_recurrences(device):
    with pytest.raises(NotComparable, match="do not couple"):
        ours.rollout(given("dense"))
    with pytest.raises(NotComparable, match="of dense recurrences"):
        floors.product(given("gru"))


# Timing


def run(prepare, monkeypatch, repeats=2, name="scan-lanes", **limits):
    monkeypatch.setattr(ours, "scan", prepare)
    field = {COPY: CONTESTANTS[COPY], SCAN: CONTESTANTS[SCAN]}
    return timing.run_case(small(name), timing.Limits(repeats, **limits), field)


def test_a_wrong_contestant_is_not_timed(device, monkeypatch):
    right = ours.scan

    def wrong(made):
        (way,) = right(made)
        return [way._replace(call=lambda: way.call() + 0.1)]

    copy, result = run(wrong, monkeypatch)
    assert result.status == "wrong" and result.seconds is None and "off by" in result.reason
    assert copy.status == "timed" and copy.ratio is None and copy.of_copy == (1, 1, 1)


def test_what_is_never_written_is_wrong_even_if_the_memory_held_the_answer(device, monkeypatch):
    right = ours.scan
    kept = []

    def lazy(made):
        (way,) = right(made)
        kept.append(way.call())
        return [Variant(lambda: kept[0] * np.nan, way.collect)]

    assert run(lazy, monkeypatch)[1].status == "wrong"


def test_what_a_contestant_raises_does_not_end_the_benchmark(device, monkeypatch):
    def broken(made):
        raise RuntimeError("broken\non purpose")

    copy, result = run(broken, monkeypatch)
    assert (result.status, result.reason) == ("failed", "RuntimeError: broken on purpose")
    assert copy.status == "timed"
    assert report.failures({"scan-lanes": [copy, result]}) == [
        "scan-lanes, scan (RuntimeError: broken on purpose)"
    ]


def test_a_slow_contestant_is_timed_once_and_marked(device, monkeypatch):
    monkeypatch.setattr(timing, "SLOW", 0.0)
    row = small("scan-lanes")
    results = run(ours.scan, monkeypatch, repeats=3)
    assert [one.runs for one in results] == [1, 1]
    assert np.isnan(results[1].times[1:]).all()
    text = report.table(row, results)
    assert text.splitlines()[-1] == "  ¹ timed once" and "¹ " in text.splitlines()[3]
    record = json.loads(report.as_json({"scan-lanes": results}, 3, {}))["cases"][0]["results"][1]
    assert record["times"][1:] == [None, None] and record["runs"] == 1


def test_turns_end_when_the_time_of_a_case_is_up(device, monkeypatch):
    monkeypatch.setattr(timing, "TURNS_SECONDS", 0.0)
    assert [one.runs for one in run(ours.scan, monkeypatch, repeats=50)] == [1, 1]


def test_nothing_begins_after_the_deadline(device, monkeypatch):
    results = run(ours.scan, monkeypatch, deadline=-np.inf)
    assert [(one.status, one.seconds) for one in results] == [("not run", None)] * 2


def test_a_contestant_whose_turn_comes_after_the_deadline_is_not_prepared(device):
    found = timing.admit("late", CONTESTANTS[SCAN], lambda: 1 / 0, timing.Clock(), -np.inf)
    assert found.status == "not run"


def test_a_python_loop_gets_fewer_steps_and_a_mark(device):
    row = small("scan-lanes")
    field = {COPY: CONTESTANTS[COPY], SCAN: CONTESTANTS[SCAN]._replace(longest=8)}
    results = timing.run_case(row, timing.Limits(2), field)
    assert [one.steps for one in results] == [40, 8]
    text = report.table(row, results)
    assert text.splitlines()[-1] == "  * timed on the first 8 steps only"
    assert results[1].ratio == (1, 1, 1)


def test_every_turn_starts_with_the_next_contestant(device):
    order = []
    entrants = [
        timing.Entrant(str(i), lambda i=i: order.append(i), 1, 0.0, 0.0, 0.0, "") for i in range(3)
    ]
    timing.turns(entrants, 3, timing.Clock())
    assert order == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_a_solve_is_timed_with_what_the_host_does(device, monkeypatch):
    """It waits for the GPU before it begins; a kernel is queued behind what the GPU is doing."""
    waits = []
    monkeypatch.setattr(device.cuda.runtime, "deviceSynchronize", lambda: waits.append(1))
    made = given("dense")
    ours.solve(made)[0].call()
    assert waits
    waits.clear()
    ours.rollout(given("gru"))[0].call()
    assert not waits


def test_missing_packages_are_named(device):
    field = {COPY: Contestant("gpu.floors:copy", ("package_that_is_missing",), "")}
    (result,) = timing.run_case(small("scan-lanes"), timing.Limits(1), field)
    assert (result.status, result.reason) == ("not installed", "needs package_that_is_missing")


# Targets, tables, pictures


def timed(name, *seconds, steps=4096):
    return Result(
        name, "timed", "", timing.quartiles(np.array(seconds)), (0.5, 0.5, 0.5), (2.0, 2.0, 2.0),
        len(seconds), 0.1, 1e-6, steps, tuple(seconds),
    )  # fmt: skip


def test_a_target_is_met_or_not_or_not_measured():
    results = {
        "scan-lanes": [timed(COPY, 0.9, 0.9), timed(SCAN, 1.0, 1.0)],
        "gru": [timed("map", 1.0, 1.0), timed(SOLVE, 1.6, 2.0)],
        "lstm-512": [
            Result("torch.compile loop", "not installed", "needs torch"), timed(SOLVE, 1.0)
        ],
    }  # fmt: skip
    found = {
        (one["case"], one["below"]): one
        for one in targets.verdicts(results)
        if one["above"] != "shooting"
    }
    assert found["scan-lanes", SCAN]["met"] is True
    assert found["gru", "map"]["met"] is False
    assert found["gru", "map"]["ratio"] == pytest.approx((1.7, 1.8, 1.9))
    assert found["lstm-512", SOLVE]["met"] is None
    text = targets.table(results)
    assert "≥ 0.8" in text and "met: 0.90 (0.90–0.90)" in text and "NOT MET: 1.8 (1.7–1.9)" in text
    assert "not measured (torch.compile loop: not installed)" in text
    assert "not measured (the case was not run)" in text


def test_a_loop_timed_on_fewer_steps_is_compared_by_the_step():
    above, below = timed("torch.compile loop", 1.0, steps=100), timed(SOLVE, 1.0, steps=1000)
    assert timing.ratio(above, below) == (10, 10, 10)


def test_every_target_is_of_contestants_of_its_case():
    for target in targets.TARGETS:
        assert {target.above, target.below} <= set(ROWS[target.case].among)


def test_the_rows_are_what_the_documents_say():
    grid = [row.case for name, row in ROWS.items() if name.startswith("grid-")]
    assert {case.steps for case in grid} == {1 << p for p in range(8, 21, 2)}
    assert {case.lanes for case in grid} == {1, 64, 2048, 16384}
    assert max(case.steps * case.lanes for case in grid) <= cases.MOST_STATES
    assert all(set(row.among) <= set(CONTESTANTS) for row in ROWS.values())
    assert all(cases.OURS[row.case.task] in row.among for row in ROWS.values())
    with pytest.raises(InvalidInput, match="'nothing'; expected one of scan-lanes"):
        cases.choose(["nothing"])


def test_every_contestant_has_a_mark_of_its_own():
    looks = {
        name: (look["marker"], look["color"], look.get("fillstyle"))
        for name, look in picture.MARKS.items()
    }
    assert list(looks) == list(CONTESTANTS)
    for row in ROWS.values():
        assert len({looks[name] for name in row.among}) == len(row.among)


def test_pictures_show_what_was_timed():
    results = {
        "gru": [timed(COPY, 1.0), timed(SOLVE, 2.0), Result("map", "failed", "why")],
        "grid-1-2^8": [timed(SOLVE, 1.0, steps=256)],
        "grid-1-2^10": [timed(SOLVE, 2.0, steps=1024)],
    }
    figures = picture.draw(results)
    assert list(figures) == ["cases", "grid"]
    (ax,) = figures["cases"].axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["gru"]
    assert [t.get_text() for t in figures["cases"].legends[0].get_texts()] == [COPY, SOLVE]
    shown = [ax for ax in figures["grid"].axes if ax.get_visible()]
    (line,) = shown[0].lines
    assert line.get_xdata().tolist() == [256, 1024]
    assert line.get_ydata() == pytest.approx([1e12 / 256, 2e12 / 1024])
    assert shown[0].get_title() == "1 lane"


def test_the_card_is_named(device):
    card = machine.card()
    assert card["card"] == "fake device" and card["CUDA runtime"] == "13.0"
    assert card["CuPy"] == device.__version__ and card["date"].endswith("+00:00")


def test_the_cards_state_is_unknown_without_nvidia_smi(device, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.state() is None
    values = ", ".join(["580.1", "1980 MHz", "3201 MHz", "40", "100 W", "P0"])
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{values}'\n")
    script.chmod(0o755)
    assert machine.state()["driver_version"] == "580.1" and machine.state()["pstate"] == "P0"
