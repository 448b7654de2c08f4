"""Where arrays are: on the host (NumPy) or on a CUDA device (CuPy), which nothing here imports.

Code of the package runs on either, by NumPy's own dispatch. What crosses between them does so in
:func:`on_host` and :func:`beside`, and is small: statuses, norms and positions of sequences.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from pararnn_solvers.errors import BackendUnavailable, InvalidInput

__all__ = [
    "beside",
    "device_of",
    "from_any",
    "greatest",
    "identity",
    "imported",
    "is_device_array",
    "leading",
    "namespace",
    "no_host_arrays",
    "on_host",
    "operand",
    "place",
    "positions",
]

Array = Any  # of NumPy or of CuPy

# Device types of DLPack (``DLDeviceType``) whose memory the host, or a CUDA device, reads in place.
HOST_MEMORY = (1, 3)  # ordinary, and pinned by CUDA
DEVICE_MEMORY = (2, 13)  # CUDA, and CUDA managed


def is_device_array(value: Any) -> bool:
    """Tell whether `value` is an array of CuPy, without importing it."""
    if isinstance(value, np.ndarray):
        return False
    kind = type(value)  # of an array itself, the interface would be made, each time
    library = kind.__module__.partition(".")[0]
    return library == "cupy" and hasattr(kind, "__cuda_array_interface__")


def namespace(array: Array) -> Any:
    """Return the module that an array comes from, ``numpy`` or ``cupy``."""
    return sys.modules["cupy"] if is_device_array(array) else np


def place(value: Any) -> str:
    """Name where an array is: ``"the host"`` or ``"cuda:0"``; ``""`` for what fits in anywhere.

    Numbers do: those of Python and NumPy, and host arrays without axes.

    Examples
    --------
    >>> place(np.zeros(2)), place(0.5), place(None)
    ('the host', '', '')
    """
    if is_device_array(value):
        return f"cuda:{value.device.id}"
    return "the host" if isinstance(value, np.ndarray) and value.ndim else ""


def device_of(array: Array) -> AbstractContextManager[Any]:
    """Return the context in which work on an array runs: its device is the current one.

    The stream is left alone: work goes to the stream that is current on that device.
    """
    return array.device if is_device_array(array) else nullcontext()


def on_host(array: Array) -> np.ndarray[Any, Any]:
    """Return a small array as one of NumPy: itself, or a copy that waits for the device."""
    host: np.ndarray[Any, Any] = array.get() if is_device_array(array) else array
    return host


def beside(array: np.ndarray[Any, Any], like: Array) -> Array:
    """Return a small host array where `like` is: itself, or a copy on the device."""
    return namespace(like).asarray(array) if is_device_array(like) else array


def operand(value: Any, like: Array) -> Any:
    """Return a value that arithmetic with `like` takes.

    On a device, host arrays without axes become NumPy's numbers, which promote in the same way.
    """
    if isinstance(value, np.ndarray) and not value.ndim and is_device_array(like):
        return value[()]
    return value


@contextmanager
def no_host_arrays(like: Array) -> Iterator[None]:
    """Turn what CuPy says of a host array beside `like` into InvalidInput with the remedy."""
    try:
        yield
    except TypeError as error:
        if is_device_array(like) and f"Unsupported type {np.ndarray}" in str(error):
            raise InvalidInput(
                f"step uses a NumPy array beside states on {place(like)}; pass it in theta, as an "
                "array of CuPy: a global one is on the host, and nothing is moved unasked"
            ) from error
        raise


def identity(size: int, like: Array) -> Array:
    """Return the identity matrix in the dtype of `like`, where that is.

    (``np.eye(size, like=like)`` passes on ``device=``, which CuPy's does not take.)
    """
    return namespace(like).eye(size, dtype=like.dtype)


def positions(chosen: np.ndarray[Any, Any], like: Array) -> Array:
    """Return what selects sequences of `like`: a host mask or host indices, as they are for NumPy.

    On a device, indices in its own memory: a mask would be counted there, which waits for it.
    """
    if not is_device_array(like):
        return chosen
    return beside(np.flatnonzero(chosen) if chosen.dtype == bool else chosen, like)


def greatest(array: Array, axis: Any) -> Array:
    """Return the maximum over axes of what is nowhere negative: NaN if any is, 0 of nothing."""
    if not is_device_array(array):
        return array.max(axis=axis, initial=0)
    return array.max(axis=axis) if array.size else array.sum(axis=axis)  # without initial= there


def leading(done: Array) -> Array:
    """Count the steps that are done before the first that is not: along axis 0 of a boolean array.

    Examples
    --------
    >>> leading(np.array([[True, False], [True, True], [False, True]]))
    array([2, 0])
    """
    if not len(done):
        return done.sum(axis=0)
    return np.where(done.all(axis=0), len(done), done.argmin(axis=0))


def imported(value: Any) -> Any:
    """Return the array that shares memory with another library's; anything else as it is.

    What has ``__dlpack__`` (PyTorch, JAX) becomes an array of NumPy or CuPy, by where its memory
    is, without a copy and on the current stream.

    Raises
    ------
    InvalidInput
        A tensor takes part in another library's differentiation, which would end here unnoticed;
        it is in parts in several processes; or it is in memory that neither reads.
    BackendUnavailable
        It is on a CUDA device, and CuPy is not installed.
    """
    if isinstance(value, (np.ndarray, np.generic, float, int)) or is_device_array(value):
        return value
    if not hasattr(value, "__dlpack_device__") or isinstance(value, type):
        return value
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if getattr(value, "requires_grad", False):
        raise InvalidInput(
            f"a {name} requires grad, and this package does not record for it: pass "
            "tensor.detach(), and take derivatives from pararnn_solvers.gradients"
        )
    if hasattr(value, "full_tensor"):  # of PyTorch's fully_shard; what DLPack gives is not its data
        raise InvalidInput(
            f"a {name} is in parts, one in each process; expected whole arrays: pass "
            "tensor.full_tensor(), called by all of them"
        )
    kind, number = (int(part) for part in value.__dlpack_device__())
    if kind in HOST_MEMORY:
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError):  # a type or an age that DLPack lacks here
            return np.asarray(value)
    if kind in DEVICE_MEMORY:
        cupy = _cupy(name)
        with cupy.cuda.Device(number):
            return cupy.from_dlpack(value)
    raise InvalidInput(
        f"a {name} is in memory of DLPack's device type {kind}; expected the host's (1) or a CUDA "
        "device's (2): copy it there"
    )


def _cupy(name: str) -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as cause:
        raise BackendUnavailable(
            f"a {name} is on a CUDA device, and CuPy cannot be imported: {cause}; pip install "
            "'pararnn_solvers[cuda13]' (or [cuda12]), or copy it to the host"
        ) from cause


def from_any(value: Any) -> Array:
    """Return an array: of NumPy or CuPy as it is, by DLPack without a copy, or of numbers anew.

    Examples
    --------
    >>> from_any([1.0, 2.0])
    array([1., 2.])
    """
    value = imported(value)
    return value if is_device_array(value) else np.asarray(value)
