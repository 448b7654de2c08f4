"""A training step: every contestant finds the same gradients, and what is printed says who won."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from pararnn_solvers import cli
from pararnn_solvers.bench import train
from pararnn_solvers.bench.contestants import OURS, NotComparable
from pararnn_solvers.bench.timing import Result
from pararnn_solvers.bench.torch_loop import on_threads
from pararnn_solvers.errors import InvalidInput
from tests.bench import stand_in

SMALL = replace(train.CASE, steps=40, channels=8, batch=(3,))
UNCOMPARED = ("products", "torch.nn.GRU")


@pytest.fixture(autouse=True)
def one_size_of_threads():
    import torch

    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="module")
def work():
    return train.build(SMALL)


@pytest.mark.parametrize("name", train.CONTESTANTS)
def test_gradients_are_those_of_the_loop_in_float64(work, name):
    if name == "pararnn-torch":
        pytest.importorskip("pararnn")
    for way in train.CONTESTANTS[name].variants(work):
        error = train.off(work, way.collect(way.call()))
        assert np.isnan(error) if name in UNCOMPARED else error < 1e-5


def test_pararnn_iterates_until_its_gradients_are_right(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "pararnn", stand_in.pararnn())
    for way in train.newton(work):
        assert train.off(work, way.collect(way.call())) < 1e-5
        assert way.note(None).startswith("eager, at most 5 iterations, ")
    monkeypatch.setattr(stand_in, "NEEDED", 101)
    with pytest.raises(NotComparable, match="is not right to 0.0002 after 100 iterations"):
        train.newton(work)


def test_the_answer_is_the_derivative(work):
    """Along one direction, by differences of the layer's loop in float64."""
    rng, eps = np.random.default_rng(1), 1e-3
    along = rng.standard_normal(work.theta.a.shape)

    def loss(a):
        from pararnn_solvers import rollout
        from pararnn_solvers.cells import diagonal_gru

        theta = diagonal_gru.Theta(*(v.astype(float) for v in work.theta))._replace(a=a)
        u = diagonal_gru.project(work.x.astype(float), theta)
        h0 = diagonal_gru.initial_state(theta, SMALL.batch)
        return np.vdot(work.dy, rollout(diagonal_gru.recurrence, u, h0, theta))

    a = work.theta.a.astype(float)
    slope = (loss(a + eps * along) - loss(a - eps * along)) / (2 * eps)
    assert np.vdot(work.answer[1], along) == pytest.approx(slope, rel=1e-5)


def test_a_wrong_contestant_is_not_timed(work):
    def wrong(given):
        (way, *_) = train.layer(given)
        return on_threads(way._replace(collect=lambda found: [2 * v.numpy() for v in found]))

    found = train.admit("wrong", train.Contestant(wrong), work)
    assert isinstance(found, Result)
    assert found.status == "wrong"
    assert "allowed" in found.reason


def test_a_contestant_may_decline(work):
    def declines(given):
        raise NotComparable("another recurrence")

    found = train.admit("x", train.Contestant(declines), work)
    assert (found.status, found.reason) == ("not comparable", "another recurrence")


def test_without_pytorch_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r'pip install "pararnn_solvers\[torch\]"'):
        train.run(SMALL, 1)


def test_what_is_not_installed_is_said(work):
    found = train.admit("x", train.Contestant(train.layer, ("no_such_package",)), work)
    assert (found.status, found.reason) == ("not installed", "needs no_such_package")


def test_targets_are_reached_or_missed():
    def ratio(name, value):
        return Result(name, "timed", ns=(1, 1, 1), ratio=(value, value, value))

    found = train.targets([ratio("PyTorch loop", 9.0), ratio("torch.nn.GRU", 4.0)])
    assert "9.0x, asked for 10x: missed" in found
    assert "4.0x, asked for 3x: reached" in found


def test_the_command_prints_and_writes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(train, "CASE", SMALL)
    file = tmp_path / "train.json"
    assert cli.main(["bench", "--train", "--repeats", "1", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "asked for 10x" in printed
    assert "a step of this package" in printed
    written = json.loads(file.read_text())
    by_name = {one["contestant"]: one for one in written["results"]}
    assert by_name[OURS]["status"] == "timed"
    assert by_name[OURS]["error"] < 1e-5
    assert by_name["torch.nn.GRU"]["error"] is None
    assert written["targets"] == train.TARGETS


@pytest.mark.parametrize("more", [["--case", "batch"], ["--list"], ["--backend", "cupy"]])
def test_options_that_do_not_fit_are_refused(more, capsys):
    assert cli.main(["bench", "--train", *more]) != 0
    assert f"{more[0]} cannot be used with --train" in capsys.readouterr().err
