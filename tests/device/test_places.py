"""Arrays of one solve are in one place; the solve runs there, with what memory there is."""

import gc

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import memory
from tests.cuda_on_cpu import fake_cupy, fake_devices
from tests.cuda_on_cpu.fake_array import copies
from tests.device.cases import LARGEST, B, D, T, assert_same, inputs, on_device, scan, step

pytestmark = pytest.mark.double


def refused(message, *problem, recurrence=step, **options):
    with pytest.raises(prs.InvalidInput, match=message):
        prs.solve(recurrence, *problem, **options)
    assert max(copies.to_device, default=0) <= LARGEST


def test_arrays_in_two_places_are_listed(device):
    x, h0, theta = inputs()
    X, H0, THETA = on_device(device, (x, h0, theta))
    refused(r"x on the host, h0 and theta\['W'\] on cuda:0; expected one", x, H0, THETA)
    refused(r"x on cuda:0, h0 and theta\['W'\] on the host", X, h0, theta)
    refused(r"x and h0 on cuda:0, theta\['W'\] on the host", X, H0, theta)
    refused(r"x and h0 on the host, theta\['W'\] on cuda:0", x, h0, THETA)
    refused("guess on the host, h0 on cuda:0", X, H0, THETA, guess=np.zeros((T, B, D)))
    refused("guess on the host", X, H0, THETA, guess=lambda s: np.zeros((T, B, D)), backend=scan)
    with pytest.raises(prs.InvalidInput, match="x on the host"):
        prs.rollout(step, x, H0, THETA)


def test_arrays_on_two_devices_are_listed(device):
    x, h0, theta = on_device(device, inputs())
    with device.cuda.Device(1):
        h1 = device.zeros_like(h0)
        theta1 = {"W": device.ones((D, D)), "s": 0.5}
    refused(r"x and theta\['W'\] on cuda:0, h0 on cuda:1", x, h1, theta)
    refused(r"x and h0 on cuda:0, theta\['W'\] on cuda:1", x, h0, theta1)


@pytest.mark.parametrize("number", [0.7, np.float64(0.7), np.array(0.7)])
def test_numbers_fit_in_anywhere(device, number):
    x, h0, theta = inputs()
    expected = prs.solve(step, x, h0, {**theta, "s": number})
    X, H0, THETA = on_device(device, (x, h0, theta))
    found = prs.solve(step, X, H0, {**THETA, "s": number}, backend=scan)
    assert_same(found.h, expected.h, rtol=1e-9)
    there = prs.solve(step, X, H0, {**THETA, "s": device.array(0.7)}, backend=scan)
    assert_same(there.h, found.h.get(), rtol=1e-12)


def test_work_runs_on_the_device_and_stream_of_the_arrays(device):
    seen = set()

    def watched(h, x, theta):
        seen.add((device.cuda.Device().id, device.cuda.get_current_stream().ptr))
        return step(h, x, theta)

    with device.cuda.Device(1):
        x, h0, theta = on_device(device, inputs())
    stream = device.cuda.Stream()
    with stream:
        for method in ("newton", "sequential", "auto"):
            found = prs.solve(watched, x, h0, theta, method=method, backend=scan)
            assert found.h.device.id == 1
        gradients = prs.gradients(found, found.h)
        changes = [prs.jvp(found, dx=x, dh0=h0), found.error_bound()]
        changes.append(prs.rollout(watched, x, h0, theta))
    assert seen == {(1, stream.ptr)}
    assert {a.device.id for a in (gradients.x, gradients.theta["W"], gradients.h0, *changes)} == {1}
    assert device.cuda.Device().id == 0


def test_backends_are_for_arrays_of_their_place(device):
    x, h0, theta = inputs()
    refused(r"'cupy', which takes arrays of CuPy.*cupy.asarray", x, h0, theta, backend="cupy")
    X, H0, THETA = on_device(device, (x, h0, theta))
    for name in ("numba", "sequential", "scipy"):
        refused(
            f"backend is '{name}', which takes NumPy arrays.*on cuda:0; leave it out",
            X, H0, THETA, backend=name,
        )  # fmt: skip


def test_a_scan_of_ones_own_gets_arrays_of_the_device(device):
    seen = []

    def own(blocks, rhs, *, adjoint=False):
        seen.append((type(blocks), type(rhs)))
        return scan(blocks, rhs, adjoint=adjoint)

    found = prs.solve(step, *on_device(device, inputs()), method="newton", backend=own)
    assert set(seen) == {(device.ndarray, device.ndarray)}
    assert found.backend.endswith("own")


def test_a_step_that_writes_into_its_arguments_is_found(device):
    def into_h(h, x, theta):
        h *= 0.5
        return np.tanh(h) + x[..., :1]

    def into_x(h, x, theta):
        x[..., 0] = 0
        return np.tanh(h)

    x, h0, _ = on_device(device, inputs())
    before = x.get()
    for recurrence in (into_h, into_x):
        refused("step writes into its argument", x, h0, recurrence=recurrence)
    np.testing.assert_array_equal(x.get(), before)


def test_a_step_or_jacobian_that_returns_host_arrays_is_found(device):
    x, h0, theta = on_device(device, inputs())
    refused(
        "step returned an array on the host for states on cuda:0; expected the same place",
        x, h0, theta, recurrence=lambda h, x, theta: np.zeros(h.shape),
    )  # fmt: skip
    given = prs.Recurrence(step, jacobian=lambda h, x, theta: np.zeros((*h.shape, D)))
    refused("what jacobian returned on the host, h on cuda:0", x, h0, theta, recurrence=given)


def test_other_mistakes_are_told_as_on_the_host(device):
    x, h0, theta = on_device(device, inputs())
    refused(r"x has shape \(50, 4\); expected", x[..., 0], h0, theta)
    refused("x is float32 and h0 float64", x.astype(np.float32), h0, theta)
    refused("step returned shape", x, h0, theta, recurrence=lambda h, x, theta: h[..., :1])
    refused(
        "never mixes leading axes", x, h0, theta, recurrence=lambda h, x, theta: h * 0 + h.mean()
    )
    refused("channels couple beyond block_size 1", x, h0, theta, recurrence=prs.Recurrence(step, 1))
    x[7, 3, 1] = np.nan
    refused(r"x is nan at index \(7, 3, 1\), and not finite at 1 place", x, h0, theta)
    theta["W"][1, 1] = np.inf
    refused(r"theta\['W'\] is inf at index \(1, 1\)", x, h0, theta)


def test_a_step_is_explained_whose_arguments_are_on_a_device(device):
    x, h0, theta = on_device(device, inputs())
    on_host = prs.Recurrence(step).explain(*inputs()[1::-1], inputs()[2])
    assert str(prs.Recurrence(step).explain(h0, x, theta)) == str(on_host)
    assert not copies.to_host


# --- memory --------------------------------------------------------------------------------------


def test_free_memory_is_that_of_the_device(device):
    a = device.zeros(1000)
    with fake_cupy.device_memory(20_000):
        assert memory.free_memory(a) == 20_000 - fake_devices.used_bytes()
    assert memory.free_memory(np.zeros(1)) > 1 << 20


def test_what_would_not_fit_is_refused_beforehand(device):
    x, h0, theta = on_device(device, inputs())
    with fake_cupy.device_memory(fake_devices.used_bytes() + 30_000):
        with pytest.raises(prs.InsufficientMemory, match=r"newton\(\) on 50 × 4 × 4 states needs"):
            prs.solve(step, x, h0, theta, method="newton", backend=scan)


@pytest.mark.parametrize("method", ["newton", "windowed", "sequential"])
def test_a_full_device_is_told_with_sizes_and_leaves_nothing_behind(device, method):
    kept = []

    def hungry(h, x, theta):
        if kept:
            np.zeros_like(h, shape=(1 << 20,))
        return step(h, x, theta)

    def callback(state):
        kept.append(state.n_iter)

    if method == "windowed":
        method = prs.windowed(prs.newton(), 8)
    x, h0, theta = on_device(device, inputs())
    gc.collect()  # what other tests left behind does not count
    before = fake_devices.used_bytes()
    with fake_cupy.device_memory(before + (1 << 20)):
        if method == "sequential":
            kept.append(0)
        with pytest.raises(
            prs.InsufficientMemory,
            match=r"on 50 × 4 × 4 states does not fit on cuda:0, .* GiB are free: Out of memory "
            r"allocating 8,388,608 bytes.*; declare a block_size, use windowed",
        ) as caught:
            prs.solve(hungry, x, h0, theta, method=method, backend=scan, callback=callback)
    assert fake_devices.used_bytes() == before  # though the error is still at hand
    assert isinstance(caught.value.__cause__, MemoryError)
    kept.clear()
    assert prs.solve(hungry, x, h0, theta, method="newton", backend=scan).success


def test_a_full_device_is_told_by_derivatives_too(device):
    x, h0, theta = on_device(device, inputs())
    found = prs.solve(step, x, h0, theta, method="newton", backend=scan)
    gc.collect()  # what other tests left behind does not count
    before = fake_devices.used_bytes()
    for task, call in {
        "gradients": lambda: prs.gradients(found, found.h),
        "jvp": lambda: prs.jvp(found, dx=x),
        "error_bound": found.error_bound,
    }.items():
        with fake_cupy.device_memory(before + 1000):
            with pytest.raises(prs.InsufficientMemory, match=f"{task} on 50 × 4 × 4"):
                call()
        with fake_cupy.device_memory(before + T * B * D * D * 8 * 2 + 1000):
            with pytest.raises(
                prs.InsufficientMemory, match=f"{task} on .* does not fit on cuda:0"
            ):
                call()
        assert fake_devices.used_bytes() == before


WEIGHTS, MATRIX = np.full(D, 0.3), np.full((D, D), 0.1)
FORGETFUL = {
    "channels": (lambda h, x, _: np.tanh(WEIGHTS * h + x), 1),
    "products": (lambda h, x, _: np.tanh(h @ MATRIX + x), None),
}


@pytest.mark.parametrize("name", FORGETFUL)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("call", [prs.solve, prs.rollout])
def test_a_global_host_array_has_to_be_in_theta(device, call, compiled, name):
    recurrence, x = prs.Recurrence(*FORGETFUL[name]), device.zeros((5, 2, D))
    message = r"step uses a NumPy array beside states on cuda:0; pass it in theta"
    with pytest.raises(prs.InvalidInput, match=message):
        call(recurrence, x, x[0], compiled=compiled)


def test_other_errors_of_a_step_stay_as_they_are(device):
    def step(h, x, _):
        raise TypeError("Unsupported type <class 'str'>")

    with pytest.raises(TypeError, match="Unsupported type <class 'str'>"):
        prs.rollout(step, device.zeros((5, 2, D)), device.zeros((2, D)))
