"""The one door to CuPy: the module, kernels compiled from CUDA C++, and their launches.

Nothing here imports CuPy before it is asked to. Kernels are compiled by NVRTC on first use and
kept, one for each device.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import math
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from pararnn_solvers.arrays import is_device_array
from pararnn_solvers.errors import BackendUnavailable, InsufficientMemory

__all__ = [
    "attribute",
    "cupy",
    "device_memory",
    "is_device_array",
    "kernel",
    "launch",
    "multiprocessors",
    "source",
    "sources",
]

OLDEST = (13, 4)  # as in pyproject.toml
STANDARD = "--std=c++17"
STATIC_SHARED = 48 << 10  # bytes; a kernel that takes more of it must say so beforehand
LOG_LINES = 12
_INSTALL = "pip install 'pararnn_solvers[cuda13]' (or [cuda12], for an older driver)"
_NEWER_NVRTC = (
    "NVRTC must be installed, and of a version that driver and device know: "
    "pip install --upgrade nvidia-cuda-nvrtc (nvidia-cuda-nvrtc-cu12 for cupy-cuda12x)"
)
_OTHER_STEP = (
    "where the step holds what CUDA cannot express, compiled=False runs it as array operations; "
    "otherwise please report this"
)
_lock = threading.Lock()
# Keyed by the module, so that nothing survives one that is unloaded.
_usable: weakref.WeakSet[ModuleType] = weakref.WeakSet()
_kernels: weakref.WeakKeyDictionary[ModuleType, dict[Any, Any]] = weakref.WeakKeyDictionary()


def cupy() -> Any:
    """Return the module ``cupy``, of an age we know and with a device behind it.

    Raises
    ------
    BackendUnavailable
        CuPy is not installed, cannot be loaded or is too old, or there is no device or driver;
        the message has the cause and the remedy.
    """
    try:
        module = importlib.import_module("cupy")
    except ImportError as cause:
        raise BackendUnavailable(f"CuPy cannot be imported: {cause}; {_INSTALL}") from cause
    if module not in _usable:
        _require_version(module)
        _require_device(module)
        _usable.add(module)
    return module


def _require_version(module: ModuleType) -> None:
    found = tuple(map(int, re.findall(r"\d+", module.__version__)[:2]))
    if found < OLDEST:
        raise BackendUnavailable(
            f"CuPy {module.__version__} is too old, {'.'.join(map(str, OLDEST))} is needed; "
            f"{_INSTALL} --upgrade"
        )


def _require_device(module: Any) -> None:
    try:
        count = module.cuda.runtime.getDeviceCount()
    except RuntimeError as cause:  # CUDARuntimeError, or a library that cannot be loaded
        raise BackendUnavailable(
            f"CuPy {module.__version__} finds no NVIDIA driver that it can use: {cause}; see "
            "whether nvidia-smi runs, and install the wheel of CuPy for the driver's CUDA version"
        ) from cause
    if count == 0:
        raise BackendUnavailable(
            "no CUDA device is visible; see nvidia-smi and the variable CUDA_VISIBLE_DEVICES"
        )


@functools.cache
def source(name: str) -> str:
    """Return the text of the CUDA source ``name``, from ``linear/kernels`` or ``compiled``.

    Raises
    ------
    FileNotFoundError
        Neither has it.
    """
    package = importlib.resources.files("pararnn_solvers")
    for folder in ("linear/kernels", "compiled"):
        file = package.joinpath(folder, name)
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"no CUDA source is called {name!r}")


@functools.cache
def sources(*names: str) -> str:
    """Return CUDA sources as one text, in this order."""
    return "\n".join(map(source, names))


def kernel(
    code: str,
    name: str,
    *,
    options: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    cooperative: bool = False,
) -> Callable[..., None]:
    """Return a kernel of ``code``, compiled for the current device.

    Parameters
    ----------
    code : str
        CUDA C++17, without headers.
    name : str
        The kernel: an ``extern "C"`` name, or an expression such as ``scan<float, 2>``.
    options : tuple of str
        For NVRTC, beside the standard.
    names : tuple of str
        All expressions wanted from this code, which are then compiled together. They include
        ``name``; by default, it alone.
    cooperative : bool
        Whether blocks wait for each other: a launch then begins with all of them or not at all. No
        more than fit on the device at once; of a larger grid CuPy would launch a part.

    Raises
    ------
    BackendUnavailable
        NVRTC is missing or does not know this device, or refuses the code; the message has its
        first lines.
    """
    module = cupy()
    names = names or (name,)
    key = (code, options, names, name, cooperative, module.cuda.Device().id)
    with _lock:
        found = _kernels.setdefault(module, {})
        if key not in found:
            with _compiling(module, name):
                raw = module.RawModule(
                    code=code,
                    backend="nvrtc",
                    options=(STANDARD, *options),
                    name_expressions=names,
                    enable_cooperative_groups=cooperative,
                )
                found[key] = raw.get_function(name)
        kept: Callable[..., None] = found[key]
        return kept


@contextmanager
def _compiling(module: Any, name: str) -> Iterator[None]:
    """Turn what goes wrong while compiling into one error with a remedy."""
    try:
        yield
    except module.cuda.compiler.CompileException as cause:
        log = "\n".join(str(cause).splitlines()[:LOG_LINES])
        remedy = _NEWER_NVRTC if "gpu-architecture" in log else _OTHER_STEP
        raise BackendUnavailable(
            f"NVRTC does not compile the CUDA kernel {name!r}; {remedy}. Its log begins:\n{log}"
        ) from cause
    except (ImportError, OSError, RuntimeError) as cause:
        # CuPy looks for NVRTC on first use, and the driver may refuse what NVRTC has compiled.
        raise BackendUnavailable(
            f"the CUDA kernel {name!r} cannot be compiled or loaded: {cause}; {_NEWER_NVRTC}"
        ) from cause


def launch(
    function: Any,
    blocks: int | tuple[int, ...],
    threads: int | tuple[int, ...],
    args: Sequence[Any],
    shared: int = 0,
) -> None:
    """Run a kernel on the current stream.

    Parameters
    ----------
    function : callable
        What :func:`kernel` returned.
    blocks, threads : int or tuple of at most three ints
        Size of the grid, and of a block. A grid without blocks does nothing.
    args : sequence
        Device arrays, and NumPy scalars of the type that the kernel declares.
    shared : int
        Bytes of dynamic shared memory of a block.

    Raises
    ------
    TypeError
        An argument is neither.
    """
    grid, block = _extents(blocks), _extents(threads)
    for i, argument in enumerate(args):
        if not (isinstance(argument, np.generic) or is_device_array(argument)):
            raise TypeError(
                f"argument {i} of a kernel is a {type(argument).__name__}; pass device arrays and "
                "NumPy scalars such as np.int64(n), whose size is that of the parameter"
            )
    if math.prod(grid) == 0:
        return
    if shared > STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
        function.max_dynamic_shared_size_bytes = shared
    function(grid, block, tuple(args), shared_mem=shared)


def _extents(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


@contextmanager
def device_memory(task: str, remedy: str) -> Iterator[None]:
    """Turn a full device into InsufficientMemory, which names the task and the way out.

    Parameters
    ----------
    task : str
        What needs the memory, with its sizes: the subject of the message.
    remedy : str
        What the user can do.

    Raises
    ------
    InsufficientMemory
        CuPy found no room inside.
    """
    module = cupy()
    try:
        yield
    except module.cuda.memory.OutOfMemoryError as cause:
        full = cause
    else:
        return
    free, total = module.cuda.Device().mem_info
    raise InsufficientMemory(
        f"{task} does not fit on device {module.cuda.Device().id}, {free / 2**30:.3g} of "
        f"{total / 2**30:.3g} GiB are free: {full}; {remedy}"
    ) from full


def multiprocessors(device: int | None = None) -> int:
    """Return how many multiprocessors a device has, by default the current one."""
    return attribute("MultiProcessorCount", device)


def attribute(name: str, device: int | None = None) -> int:
    """Return an attribute of a device, by CuPy's name; asked once, as CuPy then asks for all."""
    module = cupy()
    number = module.cuda.Device().id if device is None else device
    with _lock:
        known = _kernels.setdefault(module, {})
        if (name, number) not in known:
            known[name, number] = int(module.cuda.Device(number).attributes[name])
        return int(known[name, number])
