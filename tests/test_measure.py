import tracemalloc

import numpy as np
import pytest

from pararnn_solvers import measure
from pararnn_solvers.linear import alignment

MEGABYTE = 1 << 20


def test_every_turn_starts_with_the_next_call():
    order = []
    calls = [lambda i=i: order.append(i) for i in range(3)]
    seconds = measure.turns(calls, 3)
    runs = [i for i, before in zip(order, [None, *order], strict=False) if i != before]
    assert runs == [0, 1, 2, 1, 2, 0, 2, 0, 1]  # each many times in a row, warmed up
    assert len(order) > 9 * 10
    assert seconds.shape == (3, 3) and (seconds >= 0).all()


def test_a_short_call_is_repeated_and_the_last_one_counts(monkeypatch):
    took = iter([0.09, 0.05, 0.04])
    clock = [0.0]

    def call():
        clock[0] += next(took)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    assert measure.warm(call) == pytest.approx(0.04)
    assert next(took, None) is None


def test_a_call_that_has_used_up_its_budget_is_left_out_of_later_turns(monkeypatch):
    clock, made = [0.0], []

    def call(seconds):
        clock[0] += seconds
        made.append(seconds)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure, "PAUSE", 0)
    seconds = measure.turns([lambda: call(3), lambda: call(1)], 3, budget=2.5)
    np.testing.assert_array_equal(seconds, [[3, 1], [np.nan, 1], [np.nan, 1]])
    assert made == [3, 1, 1, 1]  # none is repeated that takes long
    assert measure.quartiles(seconds[:, 0]) == (3, 3, 3)


def test_peak_memory_counts_what_is_gone_at_the_end():
    def call():
        np.ones(3 * MEGABYTE, np.uint8).sum()
        return np.ones(MEGABYTE, np.uint8)

    assert 3 * MEGABYTE <= measure.peak_memory(call) < 3.1 * MEGABYTE
    assert not tracemalloc.is_tracing()


def test_peak_memory_leaves_a_trace_that_is_under_way_alone():
    tracemalloc.start()
    try:
        before = np.ones(4 * MEGABYTE, np.uint8)  # not the call's
        assert measure.peak_memory(lambda: np.ones(MEGABYTE, np.uint8)) < 1.1 * MEGABYTE
        assert tracemalloc.is_tracing() and before.all()
    finally:
        tracemalloc.stop()


def test_peak_memory_counts_memory_that_the_package_had_kept():
    alignment.empty(4 * MEGABYTE, np.uint8)  # which waits to be used again
    assert measure.peak_memory(lambda: alignment.empty(4 * MEGABYTE, np.uint8)) > 4 * MEGABYTE


@pytest.mark.parametrize(
    "value, digits, text",
    [(12345.6, 3, "12346"), (123.4, 3, "123"), (12.34, 3, "12.3"), (0.01234, 2, "0.012"),
     (0.0, 3, "0.0"), (float("inf"), 2, "inf")],
)  # fmt: skip
def test_significant_digits(value, digits, text):
    assert measure.significant(value, digits) == text


def test_the_processor_without_linux(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "Path", lambda name: tmp_path / "nothing")
    assert measure.processor()
