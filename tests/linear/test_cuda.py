"""The door to CuPy: what is missing is said with its remedy, kernels are compiled once a device."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from pararnn_solvers.errors import BackendUnavailable, InsufficientMemory
from pararnn_solvers.linear import cuda
from tests.cuda_on_cpu import fake_cupy
from tests.cuda_on_cpu.fake_cupy import CompileException

pytestmark = pytest.mark.double

ADD = """
template <typename T> __global__ void add(T* x, T a, long long n) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) x[i] += a;
}
extern "C" __global__ void reversed(const double* x, double* y) {
    extern __shared__ double s[];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}
"""


@pytest.fixture(autouse=True)
def forgotten():
    """What this process has learned of CuPy, forgotten before and after."""
    cuda._usable.clear()
    cuda._kernels.clear()
    yield
    cuda._usable.clear()
    cuda._kernels.clear()


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


# ---- what is missing ----------------------------------------------------------------------------


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailable, match=r"cannot be imported.*pip install .*\[cuda13\]"):
        cuda.cupy()


@pytest.mark.parametrize("version", ["13.3.0", "12.0.0rc1", "9.9"])
def test_with_an_old_cupy(device, monkeypatch, version):
    monkeypatch.setattr(device, "__version__", version)
    with pytest.raises(BackendUnavailable, match=f"CuPy {version} is too old, 13.4 is needed"):
        cuda.cupy()


@pytest.mark.parametrize("version", ["13.4.0", "14.0.0a1", "20.1"])
def test_with_a_cupy_that_is_new_enough(device, monkeypatch, version):
    monkeypatch.setattr(device, "__version__", version)
    assert cuda.cupy() is device


def test_without_a_driver(device, monkeypatch):
    runtime = device.cuda.runtime
    error = runtime.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is ...")
    monkeypatch.setattr(runtime, "getDeviceCount", failing(error))
    with pytest.raises(BackendUnavailable, match="cudaErrorInsufficientDriver.*nvidia-smi"):
        cuda.cupy()
    monkeypatch.undo()
    assert cuda.cupy() is device  # a failure is not remembered


def test_without_a_device(device, monkeypatch):
    monkeypatch.setattr(device.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(BackendUnavailable, match="no CUDA device is visible.*CUDA_VISIBLE_DEVICES"):
        cuda.cupy()


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvrtc.so.13: cannot open shared object file"),
        RuntimeError("Failure finding libnvrtc.so.13"),
        OSError("libnvrtc-builtins.so.13.0: cannot open shared object file"),
    ],
)
def test_without_nvrtc(device, monkeypatch, error):
    monkeypatch.setattr(device.RawModule, "get_function", failing(error))
    with pytest.raises(BackendUnavailable, match=r"libnvrtc.*pip install .*nvidia-cuda-nvrtc"):
        cuda.kernel(ADD, "reversed")


def test_with_an_nvrtc_older_than_the_device(device, monkeypatch):
    error = CompileException(
        "nvrtc: error: invalid value for --gpu-architecture (-arch)", ADD, "", ()
    )
    monkeypatch.setattr(device.RawModule, "get_function", failing(error))
    with pytest.raises(
        BackendUnavailable, match=r"(?s)'reversed'; NVRTC must be .*gpu-architecture"
    ):
        cuda.kernel(ADD, "reversed")


def test_a_kernel_that_does_not_compile_shows_the_head_of_the_log(device):
    code = 'extern "C" __global__ void k() {\n' + "undeclared_thing();\n" * 50 + "}"
    with pytest.raises(BackendUnavailable, match="'k'.*compiled=False") as caught:
        cuda.kernel(code, "k")
    message = str(caught.value)
    assert "kernel.cu:2" in message and "undeclared_thing" in message
    assert len(message.splitlines()) <= 1 + cuda.LOG_LINES


def test_importing_it_imports_no_cupy():
    code = "import sys, pararnn_solvers.linear.cuda; assert 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- arrays and sources -------------------------------------------------------------------------


def test_device_arrays_are_told_from_others(device):
    assert cuda.is_device_array(device.zeros(3))
    assert not cuda.is_device_array(np.zeros(3))
    assert not cuda.is_device_array(1.0)
    assert not cuda.is_device_array(device.cuda.Device(0))


@pytest.mark.parametrize("name", ["scan.cu", "newton.cu"])
def test_sources_are_found_by_name(name):
    assert "__global__" in cuda.source(name)


def test_an_unknown_source():
    with pytest.raises(FileNotFoundError, match=r"no CUDA source is called 'nothing\.cu'"):
        cuda.source("nothing.cu")


def test_multiprocessors(device):
    assert cuda.multiprocessors() == cuda.multiprocessors(1) == 3


# ---- kernels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_template_runs(device, thread_order, dtype):
    names = ("add<float>", "add<double>")
    name = names[dtype is np.float64]
    x = device.asarray(np.arange(100, dtype=dtype))
    cuda.launch(cuda.kernel(ADD, name, names=names), 4, 32, (x, dtype(2), np.int64(99)))
    np.testing.assert_array_equal(x.get(), np.arange(100) + 2 * (np.arange(100) < 99))


@pytest.mark.parametrize("threads", [4, 1024])
def test_shared_memory_beyond_48_KiB_is_asked_for(device, threads):
    x = device.asarray(np.arange(threads, dtype=float))
    y = device.empty_like(x)
    shared = max(8 * threads, 100 << 10)
    cuda.launch(cuda.kernel(ADD, "reversed"), (1, 1), (threads,), [x, y], shared=shared)
    np.testing.assert_array_equal(y.get(), np.arange(threads)[::-1])


def test_no_blocks_is_no_launch(device):
    x = device.zeros(3)
    arguments = (x, np.float64(1), np.int64(3))
    cuda.launch(cuda.kernel(ADD, "add<double>"), (0, 5), 32, arguments)
    assert not x.any()


@pytest.mark.parametrize("wrong", [1, 1.0, np.zeros(3), None])
def test_arguments_of_no_certain_size_are_refused(device, wrong):
    function = cuda.kernel(ADD, "add<double>")
    for blocks in (0, 1):
        with pytest.raises(TypeError, match=f"argument 1 of a kernel is a {type(wrong).__name__}"):
            cuda.launch(function, blocks, 32, (device.zeros(3), wrong, np.int64(3)))


@pytest.fixture
def compilations(device, monkeypatch):
    """A list that gets the device of each compilation."""
    seen, compile = [], device.RawModule.get_function

    def counted(self, name):
        seen.append(device.cuda.Device().id)
        return compile(self, name)

    monkeypatch.setattr(device.RawModule, "get_function", counted)
    return seen


def test_kernels_are_compiled_once_for_each_device(device, compilations):
    for number in (0, 1, 0, 1):
        with device.cuda.Device(number):
            x = device.zeros(3)
            function = cuda.kernel(ADD, "add<double>")
            cuda.launch(function, 1, 32, (x, np.float64(1), np.int64(3)))
            assert x.get().tolist() == [1, 1, 1]
    assert compilations == [0, 1]
    cuda.kernel(ADD, "add<double>", options=("-DOTHER",))
    cuda.kernel(ADD + " ", "add<double>")
    cuda.kernel(ADD, "add<float>")
    assert compilations == [0, 1, 0, 0, 0]


def test_threads_share_one_compilation(device, compilations):
    found, barrier = [], threading.Barrier(8)

    def ask():
        barrier.wait()
        found.append(cuda.kernel(ADD, "add<double>"))

    workers = [threading.Thread(target=ask) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert compilations == [0]
    assert len(set(map(id, found))) == 1


def test_options_reach_the_compiler(device):
    code = 'extern "C" __global__ void k(int* x) { x[0] = VALUE; }'
    x = device.zeros(1, np.int32)
    cuda.launch(cuda.kernel(code, "k", options=("-DVALUE=7",)), 1, 1, (x,))
    assert int(x[0]) == 7


# ---- memory -------------------------------------------------------------------------------------


def test_a_full_device_is_insufficient_memory_and_leaks_nothing(device):
    pool = device.get_default_memory_pool()
    gc.collect()  # what other tests left behind does not count
    before = pool.used_bytes()

    def scan():
        first = device.zeros(1000)
        with cuda.device_memory("the scan of 1000 × 2 states", "take fewer sequences at a time"):
            return first, device.zeros(1 << 20)

    with fake_cupy.device_memory(before + (1 << 20)):
        with pytest.raises(
            InsufficientMemory,
            match="the scan of 1000 × 2 states does not fit on device 0, .* GiB are free: "
            "Out of memory allocating 8,388,608 bytes.*; take fewer sequences at a time",
        ) as caught:
            scan()
        assert isinstance(caught.value, MemoryError)
        del caught
        gc.collect()
        assert pool.used_bytes() == before


def test_other_errors_pass_through(device):
    with pytest.raises(ZeroDivisionError), cuda.device_memory("nothing", ""):
        1 / 0  # noqa: B018


def test_a_cooperative_launch_has_room_for_all_its_blocks(device):
    """Two blocks of 1024 threads on each of three multiprocessors; the double refuses what CuPy
    would launch a part of."""
    x = device.zeros(7 * 1024)
    names = ("add<double>",)
    together, usual = (cuda.kernel(ADD, *names, cooperative=flag) for flag in (True, False))
    arguments = [x, np.float64(1), np.int64(x.size)]
    cuda.launch(together, 6, 1024, arguments)
    with pytest.raises(device.cuda.driver.CUDADriverError, match="COOPERATIVE_LAUNCH_TOO_LARGE"):
        cuda.launch(together, 7, 1024, arguments)
    cuda.launch(usual, 7, 1024, arguments)
    np.testing.assert_array_equal(x.get(), [2] * 6144 + [1] * 1024)
