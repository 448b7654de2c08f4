"""Tensors as arrays, and arrays as tensors, in the same memory and on the same stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pararnn_solvers import arrays
from pararnn_solvers.linear import cuda

__all__ = ["as_array", "as_tensor", "current_stream", "part_here"]


def as_array(tensor: Any) -> Any:
    """Return the array of NumPy, or of CuPy on a device, that shares a tensor's memory.

    Anything else, such as None, is returned as it is.
    """
    return arrays.from_any(tensor.detach()) if isinstance(tensor, torch.Tensor) else tensor


def part_here(tensor: Any) -> Any:
    """Return the part of a tensor that is in this process: all of it, unless it was sharded."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def as_tensor(array: Any) -> Any:
    """Return the tensor that shares an array's memory, which is made contiguous if it is not."""
    if not array.flags.c_contiguous:
        array = array.copy()
    return torch.from_dlpack(array) if arrays.is_device_array(array) else torch.from_numpy(array)


@contextmanager
def current_stream(tensor: Any) -> Iterator[None]:
    """Let CuPy work on the stream, and on the device, that is PyTorch's current one for a tensor.

    Without that, arrays that PyTorch has yet to write could be read. On the host, nothing.
    """
    if tensor.device.type != "cuda":
        yield
        return
    cupy, index = cuda.cupy(), tensor.device.index
    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
        yield
