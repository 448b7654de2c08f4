"""Other libraries' contestants compute what is asked, here on the CPU; skipped if not installed.

What needs a GPU to run at all is not covered: CUDA graphs, fused kernels, cuDNN.
"""

import sys
from types import ModuleType

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


def test_accelerated_scan_has_its_lanes_apart(device, torch, monkeypatch):
    """A stand-in that computes what its documentation says, on (B, C, T)."""

    def scan(gates, tokens):
        assert gates.is_contiguous() and gates.shape == tokens.shape == (2, 5, 40)
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


@pytest.mark.parametrize("name", ["scan-lanes", "scan-2"])
def test_jax_associative_scan(device, jax, name):
    made = given(name)
    check(made, jax_device.associative(made))


def test_jax_without_a_gpu_says_so(device, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(jax_device, "PLATFORM", "platform_that_is_missing")
    with pytest.raises(NotComparable, match="JAX has no GPU"):
        jax_device.scan(given("gru"))
