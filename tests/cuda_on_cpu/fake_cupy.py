"""A double of CuPy for machines without a GPU: `with installed() as cupy: ...`.

`fake_array.py` says what its arrays emulate and what not, `raw_module.py` runs kernels. There are
two devices; `copies` lists every copy between host and device. Of CuPy's other parts there are
`cuda.Device`, `Stream` (with capture of graphs), `Event`, memory limits (`device_memory`), and the
exceptions. Absent: `random`, `fft`, `ElementwiseKernel`, `RawKernel`, `fuse` and others: asking for
them is an AttributeError.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import scipy.special

from tests.cuda_on_cpu import fake_devices as devices
from tests.cuda_on_cpu import raw_module
from tests.cuda_on_cpu.fake_array import (
    LACKING,
    LACKING_LINALG,
    Capsule,
    check_device,
    copies,
    forward,
    from_host,
    ndarray,
    wrap,
)
from tests.cuda_on_cpu.fake_devices import device_memory

__all__ = ["ForeignTensor", "copies", "device_memory", "installed", "module"]

VERSION = "14.2.0"


class CompileException(Exception):
    """What CuPy raises when a kernel does not compile."""

    def __init__(self, message, source, name, options, backend="nvrtc"):
        super().__init__(message)
        self._msg, self.source, self.name, self.options = message, source, name, options

    def get_message(self):
        return self._msg


class NVRTCError(RuntimeError):
    """What CuPy raises when NVRTC refuses."""


class RawModule(raw_module.RawModule):
    """Kernels, with CuPy's exceptions, and arrays checked to lie on the current device."""

    def compile(self, log_stream=None):
        try:
            super().compile(log_stream)
        except raw_module.CompileError as error:
            raise CompileException(str(error), self.code, "kernel.cu", self.options) from None

    def get_function(self, name):
        try:
            return RawKernel(super().get_function(name))
        except raw_module.LaunchError as error:
            raise devices.CUDADriverError(str(error)) from None


class RawKernel:
    """One kernel."""

    def __init__(self, kernel):
        object.__setattr__(self, "_kernel", kernel)

    def __getattr__(self, name):
        return getattr(self._kernel, name)

    def __setattr__(self, name, value):
        try:
            setattr(self._kernel, name, value)
        except raw_module.LaunchError as error:
            raise devices.CUDADriverError(str(error)) from None

    def __call__(self, grid, block, args, *, shared_mem=0):
        check_device([a for a in args if isinstance(a, ndarray)])
        operations = devices.captured()

        def launch():
            try:
                self._kernel(grid, block, args, shared_mem=shared_mem)
            except raw_module.LaunchError as error:
                raise devices.CUDADriverError(str(error)) from None

        launch() if operations is None else operations.append(launch)


class ForeignTensor:
    """Another library's array on a device, known by DLPack alone."""

    def __init__(self, array: ndarray) -> None:
        self._array = array

    @classmethod
    def from_dlpack(cls, source: Any) -> "ForeignTensor":
        assert source.__dlpack_device__()[0] == 2
        return cls(source.__dlpack__(stream=1).array)

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Capsule:
        return Capsule(self._array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


# ---- functions that make arrays -----------------------------------------------------------------


def array(value, dtype=None, copy=True, order="K", subok=False, ndmin=0):
    """`numpy.array` on the device; what comes from the host is counted in `copies`."""
    if isinstance(value, ndarray):
        result = value if dtype in (None, value.dtype) else value.astype(dtype)
        if order in ("C", "F") and not getattr(result.flags, f"{order.lower()}_contiguous"):
            result = result.copy(order)
        return result.copy() if copy and result is value else result
    if isinstance(value, list | tuple) and _has_device_arrays(value):
        return module.stack([array(v, dtype, copy=False) for v in value])
    host = np.array(value, dtype, order=order, ndmin=ndmin)
    return from_host(host)


def _has_device_arrays(value):
    if isinstance(value, list | tuple):
        return any(_has_device_arrays(v) for v in value)
    return isinstance(value, ndarray)


def asarray(value, dtype=None, order=None, *, blocking=False):
    """`numpy.asarray` on the device."""
    return array(value, dtype, copy=False, order=order or "K")


def ascontiguousarray(value, dtype=None):
    """`numpy.ascontiguousarray` on the device."""
    result = array(value, dtype, copy=False, order="C")
    return result.reshape(1) if result.ndim == 0 else result


def asnumpy(value, stream=None, order="C", out=None, *, blocking=True):
    """Copy to the host."""
    return value.get(order=order, out=out) if isinstance(value, ndarray) else np.asarray(value)


def empty(shape, dtype=float, order="C"):
    """Return memory that nobody has written: NaN, or bytes 0xA5."""
    return ndarray(shape, dtype, order=order)


def full(shape, fill_value, dtype=None, order="C"):
    """`numpy.full` on the device."""
    if dtype is None:
        dtype = getattr(fill_value, "dtype", np.result_type(type(fill_value)))
    result = ndarray(shape, dtype, order=order)
    result[...] = fill_value
    return result


def zeros(shape, dtype=float, order="C"):
    """`numpy.zeros` on the device."""
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order="C"):
    """`numpy.ones` on the device."""
    return full(shape, 1, dtype, order)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    """`numpy.empty_like` on the device."""
    fortran = order == "F" or (order in "KA" and prototype.flags.fnc)
    return ndarray(
        prototype.shape if shape is None else shape,
        prototype.dtype if dtype is None else dtype,
        order="F" if fortran else "C",
    )


def full_like(prototype, fill_value, dtype=None, order="K", subok=None, shape=None):
    """`numpy.full_like` on the device."""
    result = empty_like(prototype, dtype, order, subok, shape)
    result[...] = fill_value
    return result


def zeros_like(prototype, dtype=None, order="K", subok=None, shape=None):
    """`numpy.zeros_like` on the device."""
    return full_like(prototype, 0, dtype, order, subok, shape)


def ones_like(prototype, dtype=None, order="K", subok=None, shape=None):
    """`numpy.ones_like` on the device."""
    return full_like(prototype, 1, dtype, order, subok, shape)


def from_dlpack(source, /, *, device=None, copy=None):
    """Return the array of another library, without a copy."""
    kind, _ = source.__dlpack_device__()
    if kind != 2:
        raise BufferError("Unsupported device: only arrays on a CUDA device are taken")
    shared = source.__dlpack__(stream=devices.current_stream().ptr or 1).array
    return wrap(shared._array[...], [shared])


def get_array_module(*args):
    """Return this module where an argument is a device array, else NumPy."""
    return module if any(isinstance(a, ndarray) for a in args) else np


class MemoryPool:
    """How much is in use."""

    def used_bytes(self):
        return devices.used_bytes()

    total_bytes = used_bytes

    def free_all_blocks(self, stream=None):
        """Do nothing: memory is freed when arrays are."""

    def free_bytes(self):
        return 0


_pool = MemoryPool()


# ---- the modules --------------------------------------------------------------------------------


def _module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__path__ = []  # a package, so that its parts can be imported
    vars(made).update(contents)
    return made


def _forwarded(library: Any, lacking: frozenset[str]) -> dict[str, Any]:
    names = [n for n in dir(library) if not n.startswith("_") and n not in lacking]
    values = {n: getattr(library, n) for n in names}
    return {n: forward(v, n) for n, v in values.items() if callable(v) and not isinstance(v, type)}


def _modules() -> dict[str, ModuleType]:
    runtime = _module(
        "cupy.cuda.runtime",
        CUDARuntimeError=devices.CUDARuntimeError,
        getDeviceCount=lambda: devices.COUNT,
        getDevice=devices.current,
        setDevice=devices.set_current,
        deviceSynchronize=devices.refuse_in_capture,
        memGetInfo=lambda: devices.Device().mem_info,
        getDeviceProperties=lambda number: {
            "name": b"fake device",
            "multiProcessorCount": devices.ATTRIBUTES["MultiProcessorCount"],
        },
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
    )
    cuda = _module(
        "cupy.cuda",
        runtime=runtime,
        memory=_module("cupy.cuda.memory", OutOfMemoryError=devices.OutOfMemoryError),
        compiler=_module("cupy.cuda.compiler", CompileException=CompileException),
        driver=_module("cupy.cuda.driver", CUDADriverError=devices.CUDADriverError),
        nvrtc=_module("cupy.cuda.nvrtc", NVRTCError=NVRTCError, getVersion=lambda: (13, 0)),
        Device=devices.Device,
        Stream=devices.Stream,
        Graph=devices.Graph,
        Event=devices.Event,
        get_current_stream=devices.current_stream,
        get_elapsed_time=devices.elapsed_time,
        is_available=lambda: True,
    )
    taken = "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 "
    taken += "complex64 complex128 number integer floating inexact complexfloating generic intp "
    taken += "dtype finfo iinfo pi e inf nan euler_gamma newaxis"
    cupy = _module(
        "cupy",
        **_forwarded(np, LACKING),
        **{name: getattr(np, name) for name in taken.split()},
        linalg=_module(
            "cupy.linalg",
            LinAlgError=np.linalg.LinAlgError,
            **_forwarded(np.linalg, LACKING_LINALG),
        ),
        cuda=cuda,
    )
    made = (array, asarray, ascontiguousarray, asnumpy, empty, full, zeros, ones, empty_like)
    made += (full_like, zeros_like, ones_like, from_dlpack, get_array_module)
    vars(cupy).update({function.__name__: function for function in made})
    vars(cupy).update(
        __version__=VERSION,
        ndarray=ndarray,
        RawModule=RawModule,
        bool=np.bool_,
        is_available=lambda: True,
        get_default_memory_pool=lambda: _pool,
    )
    special = _module("cupyx.scipy.special", **_special())
    scipy_double = _module("cupyx.scipy", special=special)
    modules = {"cupy": cupy, "cupy.cuda": cuda, "cupy.linalg": cupy.linalg}
    for part in ("runtime", "memory", "compiler", "driver", "nvrtc"):
        modules[f"cupy.cuda.{part}"] = getattr(cuda, part)
    modules["cupyx"] = _module("cupyx", scipy=scipy_double)
    modules["cupyx.scipy"], modules["cupyx.scipy.special"] = scipy_double, special
    return modules


def _special() -> dict[str, Any]:
    names = "ndtr log_ndtr expit logit log_expit erf erfc erfinv gamma gammaln xlogy".split()
    return {name: forward(getattr(scipy.special, name), name) for name in names}


_all = _modules()
module: Any = _all["cupy"]


@contextmanager
def installed() -> Iterator[Any]:
    """Let `import cupy` find the double, whatever else is installed."""
    names = [n for n in sys.modules if n.partition(".")[0] in ("cupy", "cupyx")]
    before = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(_all)
    try:
        yield module
    finally:
        for name in _all:
            sys.modules.pop(name, None)
        sys.modules.update(before)
