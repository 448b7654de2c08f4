"""Derivatives on a device: of trajectories, and of steps by dual arrays."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import autodiff
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.functions import gelu, sigmoid, silu, softplus
from tests.cuda_on_cpu.fake_array import copies
from tests.device.cases import (
    B,
    D,
    M,
    T,
    assert_only_small_copies,
    assert_same,
    inputs,
    on_device,
    solve_both,
    step,
)


def vjp(h, x, theta, lam):
    slope = lam * (1 - step(h, x, theta) ** 2)
    dtheta = {
        "W": h.reshape(-1, D).T @ slope.reshape(-1, D),
        "s": (slope * x[..., :1]).sum(),
    }
    dx = np.zeros_like(x)
    dx[..., 0] = theta["s"] * slope.sum(axis=-1)
    return slope @ theta["W"].T, dx, dtheta


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("recurrence", "batch"),
    [(step, (B,)), (step, (2, 2)), (step, ()), (prs.Recurrence(step, vjp=vjp), (B,))],
    ids=["tangents", "two axes", "one sequence", "vjp"],
)
def test_gradients_jvp_and_error_bound(device, recurrence, batch, dtype):
    problem = inputs(dtype, batch)
    host, found = solve_both(device, *problem, recurrence=recurrence, method="newton")
    rng = np.random.default_rng(3)
    dh, dx, dh0 = (rng.standard_normal(a.shape).astype(dtype) for a in (host.h, *problem[:2]))
    dtheta = {"W": rng.standard_normal((D, D)).astype(dtype), "s": dtype(0.3)}
    DH, DX, DH0, DTHETA = on_device(device, (dh, dx, dh0, dtheta))
    rtol = 1e-4 if dtype is np.float32 else 1e-10
    gradients = prs.gradients(found, DH)
    change = prs.jvp(found, dx=DX, dh0=DH0, dtheta=DTHETA)
    bound = found.error_bound()
    assert_only_small_copies(8)
    assert_same(gradients, prs.gradients(host, dh), rtol)
    assert_same(change, prs.jvp(host, dx=dx, dh0=dh0, dtheta=dtheta), rtol)
    assert bound.shape == host.h.shape and bool((bound >= 0).all())


def test_numbers_in_theta_have_gradients_on_the_device(device):
    x, h0, theta = inputs()
    host, found = solve_both(device, x, h0, {**theta, "s": 0.7})
    expected = prs.gradients(host, np.ones_like(host.h))
    gradients = prs.gradients(found, device.ones_like(found.h))
    assert gradients.theta["s"].shape == ()
    assert_same(gradients, expected, 1e-10)
    expected = prs.jvp(host, dtheta={"W": None, "s": 2.0})
    for change in (2.0, np.float64(2), np.array(2.0), device.array(2.0)):
        assert_same(prs.jvp(found, dtheta={"W": None, "s": change}), expected, 1e-10)


def test_directions_in_another_place_are_refused(device):
    x, h0, theta = inputs()
    _, found = solve_both(device, x, h0, theta)
    copies.clear()
    with pytest.raises(prs.InvalidInput, match="dh on the host, the solution on cuda:0"):
        prs.gradients(found, np.ones((T, B, D)))
    with pytest.raises(prs.InvalidInput, match="dx on the host"):
        prs.jvp(found, dx=x)
    with pytest.raises(prs.InvalidInput, match="dh0 on the host"):
        prs.jvp(found, dh0=h0)
    with pytest.raises(prs.InvalidInput, match="dtheta on the host"):
        prs.jvp(found, dtheta=theta)
    assert not copies.to_device


@pytest.mark.parametrize("jacobian", [None, "cs", "2-point", "3-point"])
def test_every_way_to_differentiate(device, jacobian):
    recurrence = prs.Recurrence(step, jacobian=jacobian)
    host, found = solve_both(device, *inputs(), recurrence=recurrence, method="newton")
    assert_only_small_copies()
    assert_same(found.h, host.h, 1e-9)


@pytest.mark.parametrize("cell", [diagonal_gru, diagonal_lstm], ids=["GRU", "LSTM"])
def test_cells(device, cell):
    n = 2
    theta = cell.init(np.random.default_rng(0), M, n)
    x = cell.project(np.random.default_rng(1).standard_normal((T, B, M)), theta)
    h0 = np.zeros((B, n if cell is diagonal_gru else 2 * n))
    host, found = solve_both(device, x, h0, theta, recurrence=cell.recurrence, method="newton")
    assert_only_small_copies()
    assert_same(found.h, host.h, 1e-10)
    dh = np.random.default_rng(2).standard_normal(host.h.shape)
    theirs, ours = prs.gradients(found, device.asarray(dh)), prs.gradients(host, dh)
    assert_same(theirs, ours, 1e-10)
    assert_same(cell.project(*on_device(device, (np.ones((T, M)), theta))),
                cell.project(np.ones((T, M)), theta))  # fmt: skip


W = np.random.default_rng(5).standard_normal((D, D))
FUNCTIONS = {
    "sigmoid": lambda h, W: sigmoid(3 * h),
    "softplus": lambda h, W: softplus(h),
    "silu": lambda h, W: silu(h),
    "gelu": lambda h, W: gelu(h),
    "arithmetic": lambda h, W: (1 - h) * h / (2 + h * h) ** 1.5 - np.exp(-abs(h)),
    "where": lambda h, W: np.where(h > 0, h, np.square(h)),
    "clip": lambda h, W: np.clip(h, -0.5, 0.5),
    "maximum": lambda h, W: np.maximum(h, 0) + np.minimum(0.3, h),
    "matmul": lambda h, W: h @ W,
    "einsum": lambda h, W: np.einsum("ij,...j->...i", W, h),
    "concatenate": lambda h, W: np.concatenate([h[..., 2:], np.sin(h[..., :2])], axis=-1),
    "stack": lambda h, W: np.stack([h[..., 1], 0 * h[..., 0], h[..., 2], h[..., 3]], axis=-1),
    "reshape": lambda h, W: np.flip(h.reshape(*h.shape[:-1], 2, 2), -1).reshape(h.shape),
    "sum": lambda h, W: h / (1 + np.sum(h * h, axis=-1, keepdims=True)),
    "max": lambda h, W: np.exp(h - h.max(axis=-1, keepdims=True)),
    "norm": lambda h, W: h / np.linalg.norm(h, axis=-1, keepdims=True),
    "mean": lambda h, W: (h - h.mean(axis=-1, keepdims=True)) / h.std(axis=-1, keepdims=True),
    "sort": lambda h, W: np.sort(h, axis=-1),
    "write": lambda h, W: written(h),
    "solve": lambda h, W: np.linalg.solve(W, h[..., None])[..., 0],
    "cumsum": lambda h, W: np.cumsum(h, axis=-1),
    "take": lambda h, W: h[..., [2, 0, 1, 3]],
}


def written(h):
    out = np.empty_like(h)
    out[..., :2], out[..., 2:] = h[..., 2:], h[..., :2] ** 2
    return out


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dual_arrays_of_a_device(device, name):
    function = FUNCTIONS[name]
    h = np.random.default_rng(6).standard_normal((5, 3, D))
    value, tangent = autodiff.pushforward(lambda h: function(h, W), h, np.eye(D))
    H, WW, directions = on_device(device, (h, W, np.eye(D)))
    found = autodiff.pushforward(lambda h: function(h, WW), H, directions)
    assert max(copies.to_host, default=0) <= 8
    assert max(copies.to_device, default=0) <= 32  # a list of indices
    assert_same(found, (value, tangent))
