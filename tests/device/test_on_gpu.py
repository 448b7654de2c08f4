"""The same checks on a real GPU, where there is one, and on its double everywhere.

``pytest -m gpu`` runs the former; without a GPU they skip and say why.
"""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import linear
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.errors import BackendUnavailable
from pararnn_solvers.linear import cuda
from tests.device.cases import to_host

CELLS = {"gru": (diagonal_gru, 1), "lstm": (diagonal_lstm, 2)}
METHODS = ["auto", "newton", "sequential", prs.newton(chunk=64), prs.windowed(prs.newton(), 64)]
SHAPES = [
    ((), 1, 1),
    ((3,), 1, 5),
    ((), 1, 70),
    ((2,), 2, 3),
    ((2,), 3, 4),
    ((), 4, 9),
    ((2,), 6, 1),
]


@pytest.fixture(params=["double", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    if request.param == "double":
        return request.getfixturevalue("device")
    try:
        return cuda.cupy()
    except BackendUnavailable as reason:
        pytest.skip(str(reason))


def moved(cupy, theta):
    return type(theta)(*(cupy.asarray(a) for a in theta))


def problem(name, dtype, T=200, B=3, n=5):
    cell, k = CELLS[name]
    rng = np.random.default_rng(0)
    theta = cell.init(rng, n, n)
    theta = type(theta)(*(np.asarray(a, dtype) for a in theta))
    x = rng.standard_normal((T, B, 3 * n)).astype(dtype)
    return cell.recurrence, x, np.zeros((B, k * n), dtype), theta


@pytest.mark.parametrize(("batch", "k", "n"), SHAPES)
@pytest.mark.parametrize("T", [1, 2, 65, 300])
@pytest.mark.parametrize("adjoint", [False, True], ids=["forward", "adjoint"])
def test_the_scan_solves_what_the_definition_does(cupy, batch, k, n, T, adjoint):
    rng = np.random.default_rng(T)
    blocks = rng.uniform(-0.9, 0.9, (T, *batch, k, k, n)) / k
    rhs = rng.standard_normal((T, *batch, k * n))
    expected = linear.load("sequential")(blocks, rhs, adjoint=adjoint)
    found = linear.load("cupy")(cupy.asarray(blocks), cupy.asarray(rhs), adjoint=adjoint)
    np.testing.assert_allclose(found.get(), expected, atol=1e-12)


def test_nan_stays_in_its_lane_and_after_its_step(cupy):
    blocks, rhs = np.full((300, 1, 1, 5), 0.5), np.ones((300, 5))
    rhs[100, 2] = np.nan
    found = linear.load("cupy")(cupy.asarray(blocks), cupy.asarray(rhs)).get()
    assert np.isnan(found[100:, 2]).all()
    found[100:, 2] = 0
    assert np.isfinite(found).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_kernels_find_the_rollout(cupy, name, method, dtype):
    recurrence, x, h0, theta = problem(name, dtype)
    expected = prs.rollout(recurrence, x, h0, theta, compiled=False)
    arrays = cupy.asarray(x), cupy.asarray(h0), moved(cupy, theta)
    found = prs.solve(recurrence, *arrays, method=method, compiled=True)
    assert found.success and found.compiled
    np.testing.assert_allclose(found.h.get(), expected, atol=100 * np.finfo(dtype).eps ** 0.75)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_by_kernels_are_those_of_the_host(cupy, name):
    recurrence, x, h0, theta = problem(name, np.float64)
    host = prs.solve(recurrence, x, h0, theta, compiled=True)
    expected = prs.gradients(host, host.h)
    arrays = cupy.asarray(x), cupy.asarray(h0), moved(cupy, theta)
    found = prs.solve(recurrence, *arrays, compiled=True)
    ours = prs.gradients(found, cupy.asarray(host.h))
    for a, b in zip(to_host(ours.theta), expected.theta, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    np.testing.assert_allclose(ours.x.get(), expected.x, atol=1e-9)


@pytest.mark.parametrize("method", ["sequential", prs.newton(chunk=40)], ids=str)
@pytest.mark.parametrize("d", [5, 48])
def test_dense_kernels_find_the_rollout(cupy, d, method):
    rng = np.random.default_rng(0)
    W, x = rng.standard_normal((d, d)) / (4 * np.sqrt(d)), rng.standard_normal((160, 2, d))
    recurrence = prs.Recurrence(lambda h, x, W: np.tanh(h @ W + x))
    expected = prs.rollout(recurrence, x, np.zeros((2, d)), W, compiled=False)
    arrays = cupy.asarray(x), cupy.zeros((2, d)), cupy.asarray(W)
    found = prs.solve(recurrence, *arrays, method=method, compiled=True)
    assert found.success and found.compiled
    np.testing.assert_allclose(found.h.get(), expected, atol=1e-10)
