import numpy as np
import pytest

from pararnn_solvers.bench import ours, timing
from pararnn_solvers.bench.contestants import CONTESTANTS, OURS, NotComparable, Variant
from tests.bench.small import TINY

FEW = {name: CONTESTANTS[name] for name in (OURS, "NumPy loop")}


def replaced(monkeypatch, prepare):
    monkeypatch.setattr(ours, "solve", prepare)
    return timing.run_case(TINY, 2, FEW)


def test_contestants_are_timed_in_turns():
    first, second = timing.run_case(TINY, 3, FEW)
    assert (first.contestant, second.contestant) == tuple(FEW)
    for result in (first, second):
        assert result.status == "timed" and result.steps == 40
        low, middle, high = result.ns
        assert 0 < low <= middle <= high
        assert result.first_call > 0 and result.error < 1e-4
    assert first.ratio == (1, 1, 1) and first.reason


def test_a_wrong_contestant_is_not_timed(monkeypatch):
    calls = []

    def wrong(problem):
        def call():
            calls.append(1)
            return problem.answer[0] + 0.5

        return [Variant(call, lambda h: (h,))]

    result, other = replaced(monkeypatch, wrong)
    assert (result.status, result.ns, len(calls)) == ("wrong", None, 1)
    assert result.error == pytest.approx(0.5) and "off by 5.0e-01" in result.reason
    assert other.status == "timed" and other.ratio is None


def test_one_wrong_variant_is_enough(monkeypatch):
    def half_wrong(problem):
        (h,) = problem.answer
        return [Variant(lambda: h, lambda h: (h,)), Variant(lambda: h * np.nan, lambda h: (h,))]

    assert replaced(monkeypatch, half_wrong)[0].status == "wrong"


def test_what_a_contestant_raises_does_not_end_the_benchmark(monkeypatch):
    def broken(problem):
        raise RuntimeError("broken\non purpose")

    result, other = replaced(monkeypatch, broken)
    assert (result.status, result.reason) == ("failed", "RuntimeError: broken on purpose")
    assert other.status == "timed"


def test_a_contestant_may_decline(monkeypatch):
    def decline(problem):
        raise NotComparable("has no such cell")

    result, _ = replaced(monkeypatch, decline)
    assert (result.status, result.reason) == ("not comparable", "has no such cell")


def test_a_missing_package_is_reported():
    field = {"elsewhere": FEW["NumPy loop"]._replace(packages=("package_that_is_missing",))}
    (result,) = timing.run_case(TINY, 1, field)
    assert (result.status, result.reason) == ("not installed", "needs package_that_is_missing")


def test_a_slow_contestant_gets_fewer_steps():
    field = FEW | {"NumPy loop": FEW["NumPy loop"]._replace(longest=8)}
    assert [result.steps for result in timing.run_case(TINY, 1, field)] == [40, 8]


def test_the_fastest_variant_counts():
    ways = [
        timing.Entrant(note, lambda n=n: np.ones(n).sum(), 1, 0.0, 0.0, note)
        for note, n in (("slow", 3_000_000), ("fast", 3))
    ]
    assert timing.fastest(ways).note == "fast"
