import json

from pararnn_solvers.bench import report
from pararnn_solvers.bench.cases import CASES
from pararnn_solvers.bench.contestants import CONTESTANTS, OURS
from pararnn_solvers.bench.timing import Result

RESULTS = {
    "one-channel": [
        Result(OURS, "timed", "newton()", (1.5, 2.0, 3.0), (1.0, 1.0, 1.0), 0.5, 1e-6, 1 << 21),
        Result("NumPy loop", "timed", "", (9e3, 1e4, 1.2e4), (4e3, 5e3, 6e3), 0.1, 0.0, 4096),
        Result("JAX Newton", "wrong", "off by 1.0e-01, allowed 1e-04", error=float("nan")),
        Result("jax.lax.scan", "not installed", "needs jax"),
    ]
}


def test_the_table():
    text = report.table(CASES["one-channel"], RESULTS["one-channel"])
    title, header, ours, loop, wrong, absent, note = text.splitlines()
    assert title == "one-channel: diagonal GRU, 1 channel; 2097152 steps, float32"
    assert header.split() == "ns per step and channel times ours first call".split()
    assert ours.split() == [OURS, "2.00", "(1.50–3.00)", "0.50", "s", "newton()"]
    assert loop.split() == "NumPy loop 10000 (9000–12000)* 5000 (4000–6000) 0.10 s".split()
    assert wrong.split(maxsplit=2)[2] == "wrong: off by 1.0e-01, allowed 1e-04"
    assert absent.split(maxsplit=1)[1] == "not installed: needs jax"
    assert note == "  * timed on the first 4096 steps only"


def test_the_json_object():
    read = json.loads(report.as_json(RESULTS, 5, {"threads": 2}))
    assert read["repeats"] == 5 and read["unit"] == "ns per step and channel"
    assert read["environment"]["threads"] == 2 and read["environment"]["processor"]
    (case,) = read["cases"]
    assert (case["name"], case["steps"], case["channels"]) == ("one-channel", 1 << 21, 1)
    ours, loop, wrong, absent = case["results"]
    assert ours["ns"] == [1.5, 2.0, 3.0] and ours["ratio"] == [1, 1, 1]
    assert loop["steps"] == 4096 and loop["status"] == "timed"
    assert wrong["error"] is None and wrong["ns"] is None
    assert absent["reason"] == "needs jax"


def test_failures_are_those_of_this_package():
    assert report.failures(RESULTS) == []
    assert report.failures({"batch": [Result(OURS, "failed", "why")]}) == ["batch (why)"]


def test_the_list_names_everyone(monkeypatch):
    absent = CONTESTANTS["map"]._replace(packages=("package_that_is_missing",))
    monkeypatch.setitem(CONTESTANTS, "map", absent)
    text = report.listing()
    assert all(name in text for name in (*CASES, *CONTESTANTS))
    assert "not installed: package_that_is_missing" in text
