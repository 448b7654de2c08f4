"""What tells arrays of NumPy from those of CuPy, and takes in those of other libraries."""

import sys

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import arrays, checks
from tests.cuda_on_cpu.fake_array import copies
from tests.cuda_on_cpu.fake_cupy import ForeignTensor
from tests.device.cases import assert_same, inputs, on_device, scan, step, to_host

pytestmark = pytest.mark.double


def test_places(device):
    a = device.zeros(3)
    with device.cuda.Device(1):
        b = device.zeros(())
    assert arrays.place(a) == "cuda:0" and arrays.place(b) == "cuda:1"
    assert arrays.place(np.zeros(1)) == "the host"
    for number in (1, 0.5, np.float32(1), np.array(2.0), None, "text"):
        assert arrays.place(number) == ""
    assert arrays.namespace(a) is device and arrays.namespace(np.zeros(1)) is np
    assert arrays.is_device_array(a)
    assert not any(map(arrays.is_device_array, (np.zeros(1), 1.0, device, device.ndarray, None)))


def test_small_copies_are_explicit(device):
    host = np.arange(3)
    assert arrays.on_host(host) is host and arrays.beside(host, host) is host
    moved = arrays.beside(host, device.zeros(1))
    assert type(moved) is device.ndarray and copies.to_device == [24]
    assert arrays.on_host(moved).tolist() == [0, 1, 2] and copies.to_host == [24]


@pytest.mark.parametrize("chosen", [[True, False, True], [0, 2]])
def test_positions_select_the_same_anywhere(device, chosen):
    host, chosen = np.arange(6.0).reshape(2, 3), np.array(chosen)
    there = device.asarray(host)
    assert arrays.positions(chosen, host) is chosen
    found = there[:, arrays.positions(chosen, there)]
    np.testing.assert_array_equal(found.get(), host[:, chosen])


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (3, 0)])
def test_reductions_of_anything(device, shape):
    values = np.arange(float(np.prod(shape))).reshape(shape)
    there = device.asarray(values)
    expected = values.max(axis=0, initial=0)
    np.testing.assert_array_equal(arrays.greatest(values, 0), expected)
    np.testing.assert_array_equal(arrays.greatest(there, 0).get(), expected)
    expected = np.logical_and.accumulate(values < 5, axis=0).sum(axis=0)
    np.testing.assert_array_equal(arrays.leading(values < 5), expected)
    np.testing.assert_array_equal(arrays.leading(there < 5).get(), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_found_on_a_device(device, value):
    a = device.full((4, 3), 1e308)  # whose sum overflows
    assert checks.all_finite(a)
    a[2, 1] = value
    assert checks.all_finite(a) == (value == 1e300)
    assert max(copies.to_host) == 8 or max(copies.to_host) == 1


def test_a_tensor_on_a_device_enters_and_leaves_without_a_copy(device):
    expected = prs.rollout(step, *inputs())
    x, h0, theta = on_device(device, inputs())
    tensors = ForeignTensor(x), ForeignTensor(h0), {**theta, "W": ForeignTensor(theta["W"])}
    guess = ForeignTensor(device.zeros(expected.shape))
    found = prs.solve(step, *tensors, guess=guess, backend=scan)
    assert_same(found.h, expected, rtol=1e-9)
    assert found.system.x.data.ptr == x.data.ptr
    assert ForeignTensor.from_dlpack(found.h).__dlpack_device__() == (2, 0)
    dh = device.ones_like(found.h)
    expected = to_host(prs.gradients(found, dh))
    assert_same(prs.gradients(found, ForeignTensor(dh)), expected)


def test_a_tensor_on_a_device_wants_cupy(device, monkeypatch):
    tensor = ForeignTensor(device.zeros((2, 3)))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(prs.BackendUnavailable, match=r"CUDA device, and CuPy cannot be imported"):
        prs.solve(step, tensor, np.zeros(3))


def test_memory_that_neither_reads_is_refused():
    class Metal:
        def __dlpack_device__(self):
            return (8, 0)

    with pytest.raises(prs.InvalidInput, match="device type 8"):
        prs.solve(step, Metal(), np.zeros(3))


def test_tensors_of_torch_on_the_host_are_read_in_place():
    torch = pytest.importorskip("torch")
    x, h0, theta = inputs()
    expected = prs.rollout(step, x, h0, theta)
    tensors = torch.from_numpy(x), torch.from_numpy(h0), {**theta, "W": torch.tensor(theta["W"])}
    found = prs.solve(step, *tensors)
    assert type(found.h) is np.ndarray and np.shares_memory(found.system.x, x)
    np.testing.assert_allclose(found.h, expected, atol=1e-9)
    assert torch.from_dlpack(found.h).data_ptr() == found.h.ctypes.data
    dh = torch.ones(found.h.shape, dtype=torch.float64)
    np.testing.assert_array_equal(
        prs.gradients(found, dh).x, prs.gradients(found, np.ones(found.h.shape)).x
    )
    with pytest.raises(prs.InvalidInput, match=r"requires grad.*detach\(\).*gradients"):
        prs.solve(step, tensors[0].requires_grad_(), *tensors[1:])
    with pytest.raises(prs.InvalidInput, match="requires grad"):
        prs.solve(step, x, h0, {**theta, "W": torch.nn.Parameter(tensors[2]["W"])})


def test_a_tensor_in_parts_is_refused_with_the_remedy():
    """As `torch.distributed` has it; through DLPack it would give the part that is here."""
    double = type("DTensor", (), {"__dlpack_device__": None, "full_tensor": None})()
    with pytest.raises(prs.InvalidInput, match=r"one in each process; .*tensor\.full_tensor\(\)"):
        prs.solve(lambda h, x, a: a * h + x, double, np.zeros(1), 0.5)


def test_arrays_of_jax_on_the_host_are_read_in_place():
    jax = pytest.importorskip("jax")
    x, h0, theta = inputs(np.float32)
    theirs = jax.numpy.asarray(x)
    found = prs.solve(step, theirs, h0, {**theta, "W": jax.numpy.asarray(theta["W"])})
    assert type(found.h) is np.ndarray
    assert found.system.x.ctypes.data == theirs.unsafe_buffer_pointer()
    np.testing.assert_allclose(found.h, prs.rollout(step, x, h0, theta), atol=1e-4)
    np.testing.assert_array_equal(np.asarray(jax.dlpack.from_dlpack(found.h)), found.h)


def test_what_dlpack_cannot_carry_is_converted_by_numpy():
    class Old:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **_):
            raise BufferError("no")

        def __array__(self, dtype=None, copy=None):
            return np.ones(2)

    assert arrays.from_any(Old()).tolist() == [1, 1]
