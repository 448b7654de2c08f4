"""``pararnn-solvers bench --backend cupy``, without a GPU and on a double of CuPy."""

import json
import sys

import pytest

from pararnn_solvers.bench.gpu import cases, ours, timing
from pararnn_solvers.bench.gpu.cases import ROWS
from pararnn_solvers.cli import main
from tests.bench.test_gpu import SIZES, small

GRID = ("grid-1-2^8", "grid-1-2^10")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory in which the benchmark has small cases only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "FLUSHED_BYTES", 1 << 10)
    for name in SIZES:
        monkeypatch.setitem(ROWS, name, small(name))
    for name in GRID:
        monkeypatch.setitem(ROWS, name, ROWS[name]._replace(among=cases.KERNELS))
    return tmp_path


def gpu(*arguments):
    return main(["bench", "--backend", "cupy", *arguments])


def test_without_cupy_it_ends_with_the_remedy(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu("--json", "b.json") == 2
    out, err = capsys.readouterr()
    assert not out and not list(here.iterdir())
    assert err.startswith("pararnn-solvers: error: CuPy cannot be imported")
    assert "pip install 'pararnn_solvers[cuda13]'" in err


def test_the_whole_command(here, device, capsys):
    names = ("scan-lanes", "gru", "dense", *GRID)
    chosen = [word for name in names for word in ("--case", name)]
    files = ["--json", "b.json", "--plot", "pictures"]
    assert gpu(*chosen, *files, "--repeats", "2") == 0
    out = capsys.readouterr().out
    assert out.startswith("fake device, CuPy 14.2.0. Turns: 2 at most.")
    order = [out.index(f"\n{name}: ") for name in names]
    assert order == sorted(order) and out.index("\ntargets:\n") > order[-1]
    asked = out.split("\ntargets:\n")[1].splitlines()
    assert "≥ 0.8" in asked[0] and "met: 0." in asked[0].lower()
    assert "(the case was not run)" in asked[1]
    written = json.loads((here / "b.json").read_text())
    environment = written["environment"]
    assert environment["card"] == "fake device" and environment["CUDA of the driver"] == "13.0"
    assert environment["packages"]["numpy"] and environment["date"]
    assert [case["name"] for case in written["cases"]] == list(names)
    results = {one["contestant"]: one for one in written["cases"][1]["results"]}
    assert results["rollout"]["status"] == results["solve"]["status"] == "timed"
    assert len(results["rollout"]["times"]) == 2
    assert {one["case"] for one in written["targets"] if one["ratio"]} == {"scan-lanes", "gru"}
    for name in ("cases.png", "grid.png"):
        assert (here / "pictures" / name).read_bytes().startswith(b"\x89PNG")
    assert gpu(*chosen, *files) == 2
    assert "b.json" in capsys.readouterr().err
    assert gpu(*chosen, "--plot", "pictures") == 2
    assert "cases.png, grid.png; pass --force" in capsys.readouterr().err


def test_what_is_wrong_in_this_package_is_status_1(here, device, monkeypatch, capsys):
    def wrong(work):
        raise ArithmeticError("wrong on purpose")

    monkeypatch.setattr(ours, "scan", wrong)
    assert gpu("--case", "scan-lanes", "--repeats", "1") == 1
    out, err = capsys.readouterr()
    assert "not measured (scan: failed)" in out
    assert "no right answer in: scan-lanes, scan (ArithmeticError: wrong on purpose)" in err


def test_the_list_needs_no_gpu(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu("--list") == 0
    out = capsys.readouterr().out
    assert "scan-one" in out and "torch.compile loop" in out and "16777216 steps" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "cupy", "--threads", "2"), "--threads is of the benchmark on the CPU"),
        (("--backend", "cupy", "--case", "batch"), "--case is 'batch'; expected one of scan-lanes"),
        (("--seconds", "9"), "--seconds is of the benchmark on a GPU; add --backend cupy"),
        (("--backend", "cupy", "--plot", "none/here"), "expected a folder, or a new one"),
        (("--backend", "scipy"), "scipy"),
    ],
)
def test_wrong_use(here, device, capsys, arguments, message):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
