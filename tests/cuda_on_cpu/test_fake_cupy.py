"""The double refuses what CuPy refuses, and says where data went."""

import copy
import gc
import importlib.util
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.special

from tests.cuda_on_cpu import fake_array, fake_cupy

copies = fake_cupy.copies


class Foreign:
    """An array of another library, which takes part in NumPy's dispatch."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return ufunc.__name__, [type(x) for x in inputs]

    def __array_function__(self, func, types, args, kwargs):
        return func.__name__

    def __radd__(self, other):
        raise AssertionError("NumPy's add is asked first")


class Deferred:
    __array_ufunc__ = None

    def __radd__(self, other):
        return "radd"


@pytest.fixture
def a(device):
    made = device.asarray(np.arange(12.0).reshape(3, 4))
    copies.clear()
    return made


def test_it_is_found_by_name_only_while_installed():
    before = sys.modules.get("cupy")
    with fake_cupy.installed() as cupy:
        import cupy as imported
        from cupyx.scipy.special import ndtr

        assert imported is cupy
        assert float(ndtr(cupy.zeros(()))) == 0.5
    assert sys.modules.get("cupy") is before


def test_arrays_say_what_they_are(device, a):
    assert type(a).__module__ == "cupy"
    assert isinstance(a, device.ndarray)
    assert (a.shape, a.dtype, a.ndim, a.size, a.nbytes) == ((3, 4), np.float64, 2, 12, 96)
    assert a.strides == (32, 8)
    assert a.flags.c_contiguous and not a.T.flags["C_CONTIGUOUS"]
    assert a.data.ptr == a.__cuda_array_interface__["data"][0]
    assert a[1].data.ptr == a.data.ptr + 32
    assert a.device == device.cuda.Device(0) != device.cuda.Device(1)
    assert a.__dlpack_device__() == (2, 0)
    assert not hasattr(a, "__array_interface__") and not hasattr(a, "__index__")
    assert repr(a) == repr(a.get())


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a, host: np.asarray(a),
        lambda a, host: np.array([a, a]),
        lambda a, host: a + host,
        lambda a, host: host + a,
        lambda a, host: a + np.array(1.0),
        lambda a, host: a.__iadd__(host),
        lambda a, host: host.__setitem__(0, a[0]),
        lambda a, host: a.__setitem__(0, host[0]),
        lambda a, host: np.add(a, host),
        lambda a, host: np.exp(a, out=host),
        lambda a, host: np.where(a > 1, a, host),
        lambda a, host: np.concatenate([a, host]),
        lambda a, host: a == host,
        lambda a, host: a @ host.T,
        lambda a, host: np.linalg.norm(host - a),
        lambda a, host: a.dot(host.T),
        lambda a, host: range(a[0, 0].astype(int)),
    ],
)
def test_host_and_device_never_mix(a, mixed):
    with pytest.raises(TypeError, match="Unsupported type|Implicit conversion|as an integer"):
        mixed(a, np.ones((3, 4)))
    assert not copies.to_host and not copies.to_device


@pytest.mark.parametrize(
    "compute",
    [
        lambda a: (a + 1) * np.float64(2) - a / 3,
        lambda a: 2**a - -a + abs(a) % 3 // 2,
        lambda a: (a > 3) & ~(a >= 7) | (a == 1),
        lambda a: np.tanh(a) + np.maximum(a, 3) + np.log1p(a),
        lambda a: np.where(a > 3, a, 0.0),
        lambda a: np.concatenate([a, a[::-1]], axis=1),
        lambda a: np.stack([a, a]).transpose(1, 0, 2),
        lambda a: np.einsum("ij,kj->ik", a, a) + a @ a.T,
        lambda a: np.add.reduce(a) + np.add.accumulate(a, axis=0),
        lambda a: np.sum(a, axis=1) + a.max(1) - a.mean(axis=-1),
        lambda a: a.reshape(2, 6).T.ravel() + np.moveaxis(a, 0, 1).ravel(),
        lambda a: a[a > 3],
        lambda a: a[[2, 0]][:, None, 1:],
        lambda a: a[1, 2] + a[-1, ...],
        lambda a: np.linalg.norm(a, axis=0) + np.tensordot(a, a, 2),
        lambda a: a.astype(np.float32) * 0.5 + np.isfinite(a),
        lambda a: (1j * a).imag + (1j * a + a).real,
        lambda a: np.clip(a, 1, 5) + np.broadcast_to(a[0], (3, 4)),
        lambda a: np.cumsum(a) + np.repeat(a, 1),
        lambda a: scipy.special.ndtr(a) + np.zeros_like(a) + np.full_like(a, 2),
        lambda a: np.array_equal(a, a) + a.any() + a.all(),
        lambda a: np.exp(a * 1000) - np.inf,  # overflows without a warning
    ],
)
def test_numpy_computes_on_the_device(a, compute):
    result = compute(a)
    assert type(result) is type(a)
    assert not copies.to_host and not copies.to_device
    with np.errstate(all="ignore"):
        expected = compute(a.get())
    np.testing.assert_array_equal(result.get(), expected)
    assert result.dtype == np.asarray(expected).dtype


def test_reductions_are_arrays_that_convert_by_a_copy(a):
    total = a.sum()
    assert (total.shape, type(total)) == ((), type(a))
    assert (float(total), int(total), bool(total), total.item()) == (66.0, 66, True, 66.0)
    assert copies.to_host == [8] * 4
    with pytest.raises(ValueError, match="ambiguous"):
        bool(a)
    assert a[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda a: np.insert(a, 0, 1), TypeError),
        (lambda a: np.spacing(a), TypeError),
        (lambda a: np.maximum.reduce(a), NotImplementedError),
        (lambda a: np.sum(a, where=a > 1), TypeError),
        (lambda a: np.max(a, initial=0), TypeError),
        (lambda a: a.resize(12), AttributeError),
    ],
)
def test_what_cupy_lacks_is_lacking(a, call, error):
    with pytest.raises(error):
        call(a)


def test_operators_defer_to_other_classes(a):
    array = type(a)
    assert a + Foreign() == ("add", [array, Foreign])
    assert np.multiply(a, Foreign()) == ("multiply", [array, Foreign])
    assert np.concatenate([a, Foreign()]) == "concatenate"
    assert a + Deferred() == "radd"


def test_views_share_memory_and_copies_do_not(a):
    a[1, 2:] = 7.0
    row, element = a[1], a[0, 0]
    row += 1
    element[...] = 5
    a.T[3, 0] = 9
    a.reshape(-1)[1] = 4
    assert a.get().tolist() == [[5, 4, 2, 9], [5, 6, 8, 8], [8, 9, 10, 11]]
    before = a.get()
    for other in (a.copy(), copy.deepcopy(a), +a, a[[0, 1, 2]], pickle.loads(pickle.dumps(a))):
        other[...] = 0
    assert (a.get() == before).all()
    a[a > 8] = -1
    z = 1j * a
    z.real = 3
    assert z.real.max() == 3 and a.max() == 8


def test_new_memory_is_poisoned(device):
    assert np.isnan(device.empty(5).get()).all()
    assert np.isnan(device.empty_like(device.zeros(5, np.float32)).get()).all()
    assert device.empty(5, np.uint8).get().tolist() == [0xA5] * 5
    assert device.empty((0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        device.empty(3, object)


def test_transfers_are_counted(device, a):
    device.asarray(a)
    assert not copies.to_device
    device.asarray(np.zeros(10))
    device.array([1.0, 2.0])
    a[np.array([0, 1])]
    assert copies.to_device == [80, 16, 16]
    device.asnumpy(a)
    assert copies.to_host == [96]


def test_arrays_belong_to_a_device(device, a):
    with device.cuda.Device(1):
        b = device.ones((3, 4))
        assert device.cuda.Device().id == 1
        with pytest.raises(ValueError, match="array device = 0 while current = 1"):
            a + b
        with pytest.raises(ValueError, match="must be same"):
            device.RawModule(code='extern "C" __global__ void k(double* x) {}').get_function("k")(
                (1,), (1,), (a,)
            )
        assert a[0].reshape(2, 2).device.id == 0  # views are nobody's work
    assert b.device.id == 1 and device.cuda.Device().id == 0
    with pytest.raises(device.cuda.runtime.CUDARuntimeError), device.cuda.Device(2):
        pass


def test_a_full_device_says_so(device):
    gc.collect()  # what other tests left behind does not count
    used = device.get_default_memory_pool().used_bytes()
    with fake_cupy.device_memory(used + 1000):
        kept = device.zeros(100)
        with pytest.raises(device.cuda.memory.OutOfMemoryError, match="allocating 800 bytes"):
            kept + 1
        assert device.cuda.Device().mem_info == (200, used + 1000)
    del kept
    assert device.get_default_memory_pool().used_bytes() == used


def test_dlpack_shares_memory(device, a):
    foreign = fake_cupy.ForeignTensor.from_dlpack(a)
    back = device.from_dlpack(foreign)
    back[0, 0] = 77
    assert float(a[0, 0]) == 77
    with pytest.raises(BufferError):
        device.from_dlpack(np.zeros(3))


def test_get_array_module(device, a):
    assert device.get_array_module(1, a) is device
    assert device.get_array_module(np.zeros(1)) is np


def test_events_and_streams(device):
    start, end = device.cuda.Event(), device.cuda.Event()
    with device.cuda.Stream(non_blocking=True) as stream:
        assert device.cuda.get_current_stream() is stream
        start.record()
        end.record(stream)
    end.synchronize()
    assert device.cuda.get_elapsed_time(start, end) >= 0
    assert device.cuda.get_current_stream() is device.cuda.Stream.null


def test_a_captured_graph_does_its_work_at_each_launch(device):
    code = 'extern "C" __global__ void k(double* x) { x[threadIdx.x] += 1; }'
    kernel = device.RawModule(code=code).get_function("k")
    W, x, y = device.full((3, 3), 2.0), device.ones(3), device.zeros(3)
    with device.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        product = W @ x
        np.add(product, 1, out=y)
        kernel((1,), (3,), (y,))
        x[...] = y
        with pytest.raises(device.cuda.runtime.CUDARuntimeError, match="CaptureUnsupported"):
            float(y.sum())
        graph = stream.end_capture()
    assert x.get().tolist() == [1] * 3 and y.get().tolist() == [0] * 3
    graph.launch()
    assert x.get().tolist() == [8] * 3
    graph.launch(stream)
    assert x.get().tolist() == [50] * 3


def test_a_kernel_that_does_not_compile(device):
    module = device.RawModule(code='extern "C" __global__ void k() { undeclared_thing(); }')
    with pytest.raises(device.cuda.compiler.CompileException, match="undeclared_thing"):
        module.get_function("k")


@pytest.mark.parametrize(
    "call",
    [
        lambda cp, a: np.add(a, 1, where=a > 0),
        lambda cp, a: cp.add(a, 1, where=a > 0),
        lambda cp, a: np.isfinite(a, where=a > 0),
        lambda cp, a: np.sum(a, where=a > 0),
        lambda cp, a: a.max(initial=0),
        lambda cp, a: cp.eye(3, device="cpu"),
        lambda cp, a: np.eye(3, like=a, device="cpu"),
        lambda cp, a: cp.full(3, 1.0, device="cpu"),
        lambda cp, a: cp.zeros(3, like=a),
        lambda cp, a: np.sort(a, stable=True),
    ],
)
def test_keywords_that_only_numpy_knows_are_refused(device, call):
    with pytest.raises(TypeError, match="unexpected keyword argument|got an unexpected"):
        call(device, device.ones(3))


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_has_what_the_double_has():
    """In a process of its own, where nothing is doubled; it needs no device."""
    names = [n for n, v in vars(fake_cupy.module).items() if callable(v)]
    # These have CuPy's signature: they are no functions of NumPy.
    own = "array asarray ascontiguousarray empty empty_like full full_like ones ones_like zeros"
    methods = [n for n in vars(fake_cupy.module.ndarray) if not n.startswith("_")]
    refused = {n: list(v) for n, v in fake_array.REFUSED.items()}
    refused |= {n: ["like", "device", "ndmax"] for n in [*own.split(), "zeros_like"]}
    code = """
import inspect, json, sys
import cupy, numpy

def parameters(function):
    try:
        return inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []

def taken(function):
    usual = [] if isinstance(function, type) else parameters(function)
    return [p.name for p in usual if p.default is not p.empty]

def accepted(name):
    found = getattr(cupy, name)
    ufunc = isinstance(getattr(numpy, name, None), numpy.ufunc)  # see require_known
    if ufunc or isinstance(found, type) or not parameters(found):
        return taken(getattr(numpy, name))
    if any(p.kind is p.VAR_KEYWORD for p in parameters(found)):
        return taken(getattr(numpy, name))
    of_methods = ["min", "max"] if name == "clip" else []
    return [*(p.name for p in parameters(found)), *refused.get(name, []), *of_methods]

names, methods, refused = json.loads(sys.stdin.read())
print(json.dumps([
    [n for n in names if not hasattr(cupy, n)],
    [n for n in methods if not hasattr(cupy.ndarray, n)],
    [[n, k] for n, v in refused.items() for k in v
     if k in inspect.signature(getattr(cupy, n, getattr(cupy.linalg, n, None))).parameters],
    [[n, k] for n in names for k in taken(getattr(numpy, n, None)) if k not in accepted(n)],
]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([names, methods, refused]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout.splitlines()[-1]) == [[], [], [], []]
