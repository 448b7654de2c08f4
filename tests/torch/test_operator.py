"""``solve`` of tensors: the values of ``pararnn_solvers.solve`` and the derivatives of autograd."""

import gc
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import pararnn_solvers as prs
from pararnn_solvers.torch import exchange, operator, problem, solve
from tests.torch.cases import EXACT

TIGHT = {"atol": 1e-13, "rtol": 1e-13}


def step(h, x, theta):
    return np.tanh(theta["a"] * h + theta["scale"] * x + theta["b"][0])


def data(T=7, batch=(2,), d=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype, requires_grad=True)

    return draw(T, *batch, d), draw(*batch, d), {"scale": 0.7, "a": draw(d), "b": [draw(d)]}


def test_states_are_those_of_the_package():
    x, h0, theta = data()
    plain = {"scale": 0.7, "a": theta["a"].detach().numpy(), "b": [theta["b"][0].detach().numpy()]}
    expected = prs.rollout(step, x.detach().numpy(), h0.detach().numpy(), plain)
    np.testing.assert_allclose(solve(step, x, h0, theta, **TIGHT).detach(), expected, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (2,), (2, 2)])
@pytest.mark.parametrize("options", [{}, {"compiled": True}, {"method": "newton"}])
def test_gradients_are_exact(batch, options):
    x, h0, theta = data(batch=batch)

    def states(x, h0, a, b):
        return solve(step, x, h0, {"scale": 0.7, "a": a, "b": [b]}, **TIGHT, **options)

    assert torch.autograd.gradcheck(states, (x, h0, theta["a"], theta["b"][0]))


@pytest.mark.parametrize("compiled", [None, True])
def test_gradients_with_lengths_and_resets(compiled):
    x, h0, theta = data()
    lengths = torch.tensor([4, 7])
    resets = torch.zeros(7, 2, dtype=torch.bool)
    resets[3, 1] = True

    def states(x, h0, a):
        given = {"scale": 0.7, "a": a, "b": [torch.ones_like(a)]}
        where = {"lengths": lengths, "resets": resets, "compiled": compiled}
        return solve(step, x, h0, given, **TIGHT, **where)

    assert torch.autograd.gradcheck(states, (x, h0, theta["a"]))


def test_a_recurrence_without_input():
    h0 = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    h = solve(lambda h, x, theta: 0.5 * h, None, h0, steps=3)
    h.sum().backward()
    assert h0.grad.item() == pytest.approx(0.5 + 0.25 + 0.125)
    with pytest.raises(prs.InvalidInput, match="pass steps=T"):
        solve(lambda h, x, theta: 0.5 * h, None, h0)


def test_integers_and_scalars_in_theta():
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    count = torch.tensor([2, 3])
    h = solve(
        lambda h, x, theta: theta[1] * h + theta[0][0] * x,
        torch.ones(2, 1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        (count, a),
    )
    h.sum().backward()
    assert a.grad.shape == ()
    assert a.grad.item() == pytest.approx(2.0)


def test_one_tensor_in_two_places_gets_both_gradients():
    a = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2, 1, dtype=torch.float64)
    solve(lambda h, x, p: p[0] * h + p[1] * x, ones, ones[0] * 0, (a, a)).sum().backward()
    assert a.grad.item() == pytest.approx(2 + 2 * 0.5)  # of a + (a + a**2)


def test_memory_is_shared_both_ways():
    tensor = torch.arange(6.0).reshape(2, 3)
    array = exchange.as_array(tensor.requires_grad_())
    assert array.ctypes.data == tensor.data_ptr()
    assert exchange.as_tensor(array).data_ptr() == tensor.data_ptr()
    assert exchange.as_tensor(np.zeros(())).shape == ()


def test_the_step_sees_the_tensors_memory():
    x, h0, theta = data()
    seen = set()

    def noting(h, u, theta):
        seen.add(theta["a"].ctypes.data)
        return step(h, u, theta)

    solve(noting, x, h0, theta, compiled=False)
    assert seen == {theta["a"].data_ptr()}


def test_nothing_is_kept_after_the_backward_pass():
    gc.collect()
    before = len(problem._known)
    x, h0, theta = data()
    for _ in range(3):
        h = solve(lambda h, x, p: step(h, x, p), x, h0, theta)
        h.sum().backward()
    assert len(problem._known) == before + 1
    del h
    gc.collect()
    assert len(problem._known) == before


def test_without_gradients_nothing_is_recorded():
    x, h0, theta = data()
    with torch.no_grad():
        assert solve(step, x, h0, theta).grad_fn is None
    numbers = {"scale": 0.7, "a": 0.5, "b": [0.1]}
    assert solve(step, x.detach(), h0.detach(), numbers).grad_fn is None


def test_weights_changed_between_the_passes_are_noticed():
    x, h0, theta = data()
    h = solve(step, x, h0, theta)
    with torch.no_grad():
        theta["a"] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


def test_second_derivatives_are_refused_with_the_reason():
    x, h0, theta = data()
    (dx,) = torch.autograd.grad(solve(step, x, h0, theta).sum(), x, create_graph=True)
    with pytest.raises(prs.NotDifferentiable, match="cannot be differentiated again"):
        dx.sum().backward()


def test_a_failed_solve_raises_or_goes_step_by_step():
    x, h0, theta = data(T=60)
    steep = {**theta, "a": theta["a"] * 20}
    limits = {"method": "newton", "max_iter": 2}
    with pytest.raises(prs.ConvergenceError):
        solve(step, x, h0, steep, **limits)
    found = solve(step, x, h0, steep, on_failure="sequential", **limits)
    expected = solve(step, x, h0, steep, method="sequential")
    assert torch.equal(found, expected)
    with pytest.raises(prs.InvalidInput, match="on_failure is 'ignore'"):
        solve(step, x, h0, theta, on_failure="ignore")


def test_half_precision_is_refused_on_the_cpu():
    x, h0, theta = data()
    with pytest.raises(prs.InvalidInput, match="float16; expected float32 or float64"):
        solve(step, x.half(), h0.half(), theta)


def test_the_operators_are_as_pytorch_wants_them():
    """Schemas, shapes without data, autograd's registration, tracing with symbolic shapes."""
    recurrence = prs.Recurrence(lambda h, x, p: np.tanh(p[0] * h + x))
    made = problem.Problem(recurrence, list, "raise", EXACT)
    x, h0, theta = data()
    given = (x, h0, [theta["a"]], None, None, 7, made.key)
    assert set(torch.library.opcheck(operator._solve, given).values()) == {"SUCCESS"}


def test_a_number_of_another_process_is_refused():
    with pytest.raises(prs.InvalidInput, match="not known in this process"):
        problem.known(-1)


def test_on_a_device_it_works_on_pytorchs_stream():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("cupy")
    x, h0, theta = data(dtype=torch.float32)
    there = [v.detach().cuda().requires_grad_() for v in (x, h0, theta["a"])]
    here = [v.detach().requires_grad_() for v in (x, h0, theta["a"])]

    def gradients(x, h0, a):
        h = solve(lambda h, x, a: np.tanh(a * h + x), x, h0, a)
        return [h, *torch.autograd.grad(h.square().sum(), (x, h0, a))]

    with torch.cuda.stream(torch.cuda.Stream()):
        found = gradients(*there)
        torch.cuda.current_stream().synchronize()
    for a, b in zip(found, gradients(*here), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-5)


def test_cupy_is_put_on_pytorchs_device_and_stream(monkeypatch):
    """On a double of both: what is entered, and left again, around what reads the tensor."""
    seen = []

    @contextmanager
    def entered(*what):
        seen.append(("in", *what))
        yield
        seen.append(("out", *what))

    double = SimpleNamespace(
        cuda=SimpleNamespace(
            Device=lambda index: entered("device", index),
            ExternalStream=lambda pointer, index: entered("stream", pointer, index),
        )
    )
    monkeypatch.setattr(exchange.cuda, "cupy", lambda: double)
    stream = SimpleNamespace(cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    there = SimpleNamespace(device=SimpleNamespace(type="cuda", index=1))
    with exchange.current_stream(there):
        seen.append("work")
    assert seen == [
        ("in", "device", 1), ("in", "stream", 77, 1), "work",
        ("out", "stream", 77, 1), ("out", "device", 1),
    ]  # fmt: skip


def test_without_pytorch_the_remedy_is_named():
    code = """
import sys
from contextlib import contextmanager
from types import SimpleNamespace
sys.modules["torch"] = None
import pararnn_solvers.torch
try:
    pararnn_solvers.torch.solve
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "pararnn_solvers[torch]"' in run.stdout
