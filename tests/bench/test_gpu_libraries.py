"""Other libraries' contestants compute what is asked, here on the CPU; skipped if not installed.

What needs a GPU to run at all is not covered: CUDA graphs, fused kernels, cuDNN.
"""

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pararnn_solvers.bench.contestants import NotComparable
from pararnn_solvers.bench.gpu import accelerated, jax_device, pararnn_torch, torch_loop, work
from tests.bench.test_gpu import given


def check(made, variants):
    assert variants
    for variant in variants:
        result = variant.call()
        assert work.error(made, variant.collect(result)) <= made.case.allowed
        assert isinstance(variant.note(result), str)


@pytest.fixture
def torch(monkeypatch):
    torch = pytest.importorskip("torch")
    for module in (torch_loop, pararnn_torch):
        monkeypatch.setattr(module, "DEVICE", "cpu")
    return torch


@pytest.fixture
def jax(monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(jax_device, "PLATFORM", "cpu")
    return jax


@pytest.mark.parametrize("name", ["gru", "lstm", "gru-gradient", "lstm-gradient", "dense"])
def test_pytorch_step_by_step(device, torch, name):
    made = given(name)
    check(made, torch_loop.eager(made))


def test_pytorch_several_steps_at_a_time(device, torch):
    made = given("lstm")
    h0, u, w = torch_loop.tensors(made)
    step = torch_loop.partial(torch_loop.rollout, torch_loop.cell(made))
    states = torch_loop.rollout_by(10, step, h0, u, w)
    assert work.error(made, torch_loop.components_of(made, states)) < 1e-5


@pytest.fixture
def eagerly(torch, monkeypatch):
    """What compiles or captures, replaced: functions as they are, captured calls run at once."""
    replays = []
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", nullcontext)
    graph = SimpleNamespace(replay=lambda: replays.append(1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    return replays


def test_a_compiled_cell_is_called_step_by_step(device, eagerly):
    made = given("lstm")
    check(made, torch_loop.compiled(made))


@pytest.mark.parametrize("name, notes", [("gru-gradient", None), ("lstm", [1]), ("grid", [1, 8])])
def test_a_graph_holds_the_whole_loop_where_its_pieces_divide_the_steps(
    device, eagerly, name, notes
):
    if notes is None:
        with pytest.raises(NotComparable, match="without autograd"):
            torch_loop.graph(given(name))
        return
    made = work.shortened(given("gru"), 16) if name == "grid" else given(name)
    ways = torch_loop.graph(made)
    check(made, ways)
    assert [way.note(None) for way in ways] == [f"{n} steps compiled" for n in notes]
    assert len(eagerly) == len(ways)


def test_the_gru_module(device, torch):
    made = given("dense")
    check(made, torch_loop.module(made))
    with pytest.raises(NotComparable, match="its weights are dense"):
        torch_loop.module(given("gru"))


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_pararnn(device, torch, name):
    pytest.importorskip("pararnn")
    made = given(name)
    check(made, pararnn_torch.newton(made))


@pytest.fixture
def stand_in(torch, monkeypatch):
    from tests.bench import stand_in

    monkeypatch.setitem(sys.modules, "pararnn", stand_in.pararnn())
    return stand_in


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_pararnn_iterates_until_it_is_right(device, stand_in, name):
    made = given(name)
    (way,) = pararnn_torch.newton(made)
    check(made, [way])
    assert way.note(None) == "stand-in, 5 iterations"


def test_pararnn_that_is_never_right_shows_its_last_answer(device, stand_in, monkeypatch):
    monkeypatch.setattr(stand_in, "NEEDED", 11)
    made = given("gru")
    (way,) = pararnn_torch.newton(made)
    assert work.error(made, way.collect(way.call())) > made.case.allowed
    assert "10 iterations" in way.note(None)


@pytest.mark.parametrize(
    "name, why", [("dense", "has no such cell"), ("gru-float64", "compute in float32")]
)
def test_what_pararnn_does_not_compute(device, name, why):
    with pytest.raises(NotComparable, match=why):
        pararnn_torch.newton(given(name))


def test_accelerated_scan_has_its_lanes_apart(device, torch, monkeypatch):
    """A stand-in that computes what its documentation says, on (B, C, T)."""

    def scan(gates, tokens):
        assert gates.is_contiguous() and gates.shape == tokens.shape
        assert gates.shape[:2] == (2, 5)
        states = torch.zeros_like(tokens)
        for t in range(tokens.shape[-1]):
            states[..., t] = gates[..., t] * states[..., t - 1] * (t > 0) + tokens[..., t]
        return states

    stand_in = ModuleType("accelerated_scan.scalar")
    stand_in.scan = scan
    monkeypatch.setitem(sys.modules, "accelerated_scan", ModuleType("accelerated_scan"))
    monkeypatch.setitem(sys.modules, "accelerated_scan.scalar", stand_in)
    made = given("scan-lanes")
    check(made, accelerated.scan(made))
    assert "2^16 steps at most" in accelerated.scan(made)[0].note(None)

    made = work.shortened(made, 32)
    monkeypatch.setitem(sys.modules, "accelerated_scan.warp", None)
    (way,) = accelerated.scan(made)
    assert way.note(None) == "Triton; its CUDA kernel: ModuleNotFoundError"
    monkeypatch.setitem(sys.modules, "accelerated_scan.warp", stand_in)
    ways = accelerated.scan(made)
    check(made, ways)
    assert [way.note(None) for way in ways] == ["Triton", "CUDA"]
    with pytest.raises(NotComparable, match="no blocks"):
        accelerated.scan(given("scan-2"))


def test_lanes_are_put_back():
    v = np.arange(24.0).reshape(4, 2, 3)
    apart = accelerated.lanes_first(v)
    assert apart.shape == (2, 3, 4) and np.array_equal(np.moveaxis(apart, -1, 0), v)


@pytest.mark.parametrize("name", ["gru", "gru-gradient", "lstm-gradient", "dense"])
def test_jax_scan(device, jax, name):
    made = given(name)
    check(made, jax_device.scan(made))


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_jax_newton(device, jax, name):
    made = given(name)
    check(made, jax_device.newton(made))


@pytest.mark.parametrize("name", ["dense", "gru-gradient"])
def test_jax_newton_is_for_trajectories_of_diagonal_cells(device, jax, name):
    with pytest.raises(NotComparable, match="trajectories of diagonal cells only"):
        jax_device.newton(given(name))


@pytest.mark.parametrize("name", ["scan-lanes", "scan-2"])
def test_jax_associative_scan(device, jax, name):
    made = given(name)
    check(made, jax_device.associative(made))


def test_jax_without_a_gpu_says_so(device, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(jax_device, "PLATFORM", "platform_that_is_missing")
    with pytest.raises(NotComparable, match="JAX has no GPU"):
        jax_device.scan(given("gru"))
