"""What CUDA kernels compute is what the CPU's kernels compute, in every shape.

Shapes in which lanes fill warps, are staged in shared memory or are padded to whole groups, and
time is one chunk or several, whole or not.
"""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.compiled import cuda_kernels, cuda_launch, gradients, numba_kernels
from pararnn_solvers.linear import cuda
from tests.compiled.cuda.on_device import FAMILIES, problem, rounding, states
from tests.cuda_on_cpu import fake_cupy, raw_module

LENGTHS = [0, 1, 5, 67]
BATCHES = [(), (5,)]
# One channel is another program: parameters for each channel are then shared by all of them.
families = pytest.mark.parametrize(
    ("family", "n"),
    [("diagonal", 1), ("diagonal", 33), ("cell", 3), ("cell", 40), ("autonomous", 3)],
)


def problems(device, family, n, lengths=LENGTHS):
    for T in lengths:
        for batch in BATCHES:
            yield problem(device, FAMILIES[family](n=n, T=T, batch=batch, seed=T))


@pytest.fixture(params=[False, True], ids=["whole", "chunks"])
def chunked(request, monkeypatch):
    """Whether passes that solve a linear recurrence cut time, in pieces of 7 steps at least."""
    if request.param:
        monkeypatch.setattr(cuda_launch, "SHORTEST", 7)
        monkeypatch.setattr(cuda_launch, "BUSY", 1 << 20)
    return request.param


def assert_near(found, expected, case, growth=1.0):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.get(), expected, rtol=0, atol=growth * rounding(case))


@families
def test_evaluate_linearize_and_rollout(device, family, n):
    for p in problems(device, family, n):
        h, on_device = states(p, device)
        assert_near(
            cuda_kernels.evaluate(p.gpu, on_device, p.x),
            numba_kernels.evaluate(p.cpu, h, p.system.x),
            p.case,
        )
        f, A = cuda_kernels.linearize(p.gpu, on_device, p.x)
        expected_f, expected_A = numba_kernels.linearize(p.cpu, h, p.system.x)
        assert_near(f, expected_f, p.case)
        assert_near(A, expected_A, p.case)
        expected = np.empty_like(h)
        numba_kernels.rollout(p.cpu, p.system.x, p.system.h0, expected)
        assert cuda_kernels.rollout(p.gpu, p.x, p.h0, on_device) is True
        assert_near(on_device, expected, p.case, growth=1 / (1 - p.case.lipschitz))


@families
def test_a_newton_pass(device, family, n, chunked):
    for p in problems(device, family, n):
        h, on_device = states(p, device)
        moved, norms = cuda_kernels.newton_pass(p.gpu, p.x, p.h0, on_device)
        expected, expected_norms = numba_kernels.newton_pass(p.cpu, p.system.x, p.system.h0, h)
        growth = 2 / (1 - p.case.lipschitz)
        assert_near(moved, expected, p.case, growth)
        assert_near(norms, expected_norms, p.case)
        np.testing.assert_array_equal(norms[1].get(), expected_norms[1])
        if h.size:
            first = cuda_kernels.evaluate(p.gpu, p.h0[None], p.x[:1] if p.x is not None else None)
            np.testing.assert_array_equal(moved[:1].get(), first.get())


@families
def test_gradients(device, family, n, chunked):
    for p in problems(device, family, n):
        h, on_device = states(p, device)
        g = np.random.default_rng(1).standard_normal(h.shape).astype(h.dtype)
        dx, dh0, products = cuda_kernels.pull_back(p.gpu, p.x, p.h0, on_device, device.asarray(g))
        expected = gradients.pull_back(p.cpu, p.system.x, p.system.h0, h, g, by_sequence(p, h))
        growth = 8 * n / (1 - p.case.lipschitz)
        if p.x is None:
            assert dx is None
        else:
            assert_near(dx, expected[0], p.case, growth)
        assert_near(dh0, expected[1], p.case, growth)
        assert_near(products, expected[2], p.case, growth * max(1, h.size) ** 0.5)


def by_sequence(p, h):
    """The adjoint by the linearization, where the CPU's kernels ask for it."""

    def solve(g):
        previous = p.system.previous(h)
        A = numba_kernels.linearize(p.cpu, previous, p.system.x)[1]
        carry, lam = np.zeros_like(p.system.h0), np.empty_like(g)
        for t in range(len(g) - 1, -1, -1):
            lam[t] = g[t] + carry
            blocks = lam[t].reshape(len(carry), A.shape[-2], A.shape[-1])
            carry = np.einsum("bijn,bin->bjn", A[t], blocks).reshape(carry.shape)
        return lam, carry

    return solve


NARROW_AND_WIDE = [("diagonal", 1, ()), ("diagonal", 33, (2,)), ("cell", 3, (2,))]


@pytest.mark.parametrize(("family", "n", "batch"), NARROW_AND_WIDE)
def test_a_nan_changes_nothing_before_it_and_no_other_lane(device, family, n, batch, chunked):
    T, at = 40, 22
    case = FAMILIES[family](n=n, T=T, batch=batch)
    p = problem(device, case)
    h, on_device = states(p, device)
    g = device.asarray(np.ones_like(h))

    def results(x):
        rolled = device.empty(h.shape, h.dtype)
        finite = cuda_kernels.rollout(p.gpu, x, p.h0, rolled)
        moved, norms = cuda_kernels.newton_pass(p.gpu, x, p.h0, on_device)
        dx, dh0, _ = cuda_kernels.pull_back(p.gpu, x, p.h0, on_device, g)
        return finite, *(a.get() for a in (rolled, moved, norms, dx, dh0))

    spoiled = p.system.x.copy()
    spoiled[at, 0, 0] = np.nan
    good, bad = results(p.x), results(device.asarray(spoiled))
    assert good[0] is True and bad[0] is False
    for before, after in zip(good[1:3], bad[1:3], strict=True):
        np.testing.assert_array_equal(after[:at], before[:at])
        np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
        assert np.isnan(after[at, 0]).any()
    np.testing.assert_array_equal(bad[3][:, :at], good[3][:, :at])
    assert np.isnan(bad[3][0, at, 0])
    np.testing.assert_array_equal(bad[4][at + 1 :], good[4][at + 1 :])  # the adjoint goes back
    np.testing.assert_array_equal(bad[4][:, 1:], good[4][:, 1:])
    assert np.isnan(bad[5][0]).any()
    if family == "diagonal":  # whose drives belong to one channel each
        for before, after in zip(good[1:3], bad[1:3], strict=True):
            np.testing.assert_array_equal(after[:, 0, 1:], before[:, 0, 1:])


def test_products_of_whole_chunks_may_overflow_where_nothing_is_multiplied(device):
    """8**64 exceeds float32; the states, and the gradient of an early one, do not."""
    T, early = 256, 5
    x, h0 = np.zeros((T, 1), np.float32), np.zeros(1, np.float32)
    x[235:] = 0.01
    recurrence = prs.Recurrence(lambda h, x, a: a * h + x, block_size=1)
    options = dict(method="newton", compiled=True)
    host = prs.solve(recurrence, x, h0, np.float32(8), **options)
    moved = device.asarray(x), device.asarray(h0)
    found = prs.solve(recurrence, *moved, np.float32(8), **options)
    np.testing.assert_array_equal(found.h.get(), host.h)
    dh = np.zeros_like(x)
    dh[early] = 1
    gradients = prs.gradients(found, device.asarray(dh))
    np.testing.assert_array_equal(gradients.h0.get(), [8.0 ** (early + 1)])
    np.testing.assert_array_equal(gradients.x.get()[early + 1 :], 0)
    assert gradients.theta.get() == 0
    # What is not 0 does become too large, and must not look like a number.
    dh[-1] = 1e-30
    assert not np.isfinite(prs.gradients(found, device.asarray(dh)).h0.get()).any()


@pytest.mark.parametrize(("family", "n", "batch"), NARROW_AND_WIDE)
def test_every_order_of_threads_gives_the_same_bits(
    device, family, n, batch, chunked, thread_order
):
    p = problem(device, FAMILIES[family](n=n, T=40, batch=batch))
    h, on_device = states(p, device)
    g = device.asarray(h[::-1].copy())

    def digest():
        moved, norms = cuda_kernels.newton_pass(p.gpu, p.x, p.h0, on_device)
        return [
            a.get() for a in (moved, norms, *cuda_kernels.pull_back(p.gpu, p.x, p.h0, on_device, g))
        ]

    with raw_module.schedule(raw_module.FORWARD):
        expected = digest()
    for found, other in zip(digest(), expected, strict=True):
        np.testing.assert_array_equal(found, other)


@pytest.mark.double
def test_nothing_comes_to_the_host_but_a_number(device):
    p = problem(device, FAMILIES["cell"](n=3, T=67, batch=(5,)))
    h, on_device = states(p, device)
    fake_cupy.copies.clear()
    cuda_kernels.rollout(p.gpu, p.x, p.h0, on_device)
    cuda_kernels.newton_pass(p.gpu, p.x, p.h0, on_device)
    cuda_kernels.pull_back(p.gpu, p.x, p.h0, on_device, on_device)
    assert sum(fake_cupy.copies.to_host) <= 8
    assert not fake_cupy.copies.to_device


def test_tiles_of_any_size_give_the_same_bits(device, monkeypatch, chunked):
    p = problem(device, FAMILIES["diagonal"](n=1, T=67))
    h, on_device = states(p, device)
    results = []
    for tiles in [(8,), (16,), (32,)]:
        monkeypatch.setattr(cuda_launch, "STAGED_TILES", tiles)
        found = cuda_kernels.pull_back(p.gpu, p.x, p.h0, on_device, on_device)
        moved, norms = cuda_kernels.newton_pass(p.gpu, p.x, p.h0, on_device)
        results.append([a.get() for a in (*found[:2], moved, norms)])
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_few_lanes_are_staged_and_many_are_not(device):
    """What the shapes above are meant to reach."""
    reached = set()
    for n, B, T, S in [(1, 1, 100, 7), (3, 5, 67, 7), (33, 5, 67, 67), (1, 1, 67, 67)]:
        p = problem(device, FAMILIES["diagonal"](n=n, T=4))
        streams = (cuda_launch.Stream(n, 1), cuda_kernels.Stream(n, 1))
        reached.add(cuda_launch.plan(p.gpu, (T, B, n), S, streams).memory.partition("<")[0])
    assert reached == {"Staged", "Direct"}


@pytest.mark.parametrize("most", [3, 4, 7])
def test_any_number_of_channels_fits_a_grid(device, monkeypatch, most):
    """With 65535 blocks across, from 8.4 million channels on; here with a few."""
    monkeypatch.setattr(cuda_kernels, "MOST_ACROSS", most)
    p = problem(device, FAMILIES["diagonal"](n=777, T=3))  # 7 blocks
    grids, launch = [], cuda.launch

    def recording(kernel, grid, *more):
        grids.append(grid)
        launch(kernel, grid, *more)

    monkeypatch.setattr(cuda, "launch", recording)
    h, on_device = states(p, device)
    found = cuda_kernels.evaluate(p.gpu, on_device, p.x).get()
    expected = numba_kernels.evaluate(p.cpu, h, p.system.x)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    assert max(grids[-1][1:]) <= most and np.prod(grids[-1][1:]) >= 7
