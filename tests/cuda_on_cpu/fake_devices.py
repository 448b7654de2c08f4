"""Devices, streams, events and memory limits of the fake CuPy.

Everything runs at once, on the host: a stream only knows whether a graph is being captured.
"""

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cuda_on_cpu import memory

COUNT = 2
ATTRIBUTES = {
    "MultiProcessorCount": 3,
    "MaxThreadsPerBlock": 1024,
    "MaxThreadsPerMultiProcessor": 2048,
    "MaxSharedMemoryPerBlock": 48 << 10,
    "MaxSharedMemoryPerBlockOptin": 227 << 10,
    "MaxSharedMemoryPerMultiprocessor": 228 << 10,
    "WarpSize": 32,
    "MaxGridDimX": 2**31 - 1,
    "MaxGridDimY": 65535,
    "MaxGridDimZ": 65535,
    "ComputeCapabilityMajor": 9,
    "ComputeCapabilityMinor": 0,
    "L2CacheSize": 50 << 20,
}
_state = threading.local()
_total = [1 << 30]  # bytes of a device
_used = [0] * COUNT


class CUDARuntimeError(RuntimeError):
    """What CuPy raises when the CUDA runtime refuses."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status = 1


class CUDADriverError(RuntimeError):
    """What CuPy raises when the CUDA driver refuses."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises when a device is full."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )


@contextmanager
def device_memory(size: int) -> Iterator[None]:
    """Let devices have so many bytes."""
    before, _total[0] = _total[0], size
    try:
        yield
    finally:
        _total[0] = before


def _give_back(device: int, size: int) -> None:
    _used[device] -= size


def allocate(size: int) -> memory.Allocation:
    """Return memory of the current device; OutOfMemoryError where it is full."""
    device = current()
    if _used[device] + size > _total[0]:
        raise OutOfMemoryError(size, _used[device])
    allocation = memory.Allocation(size, device)
    _used[device] += size
    weakref.finalize(allocation, _give_back, device, size)
    return allocation


def used_bytes(device: int | None = None) -> int:
    """Return how many bytes of arrays are alive on a device."""
    return _used[current() if device is None else device]


def current() -> int:
    """Return the number of this Python thread's device."""
    return getattr(_state, "device", 0)


def set_current(number: int) -> None:
    """Make a device this Python thread's."""
    if not 0 <= number < COUNT:
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _state.device = number


class Device:
    """A device; current inside ``with``."""

    def __init__(self, device: "int | Device | None" = None) -> None:
        self.id = current() if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> "Device":
        _stack().append(current())
        set_current(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        set_current(_stack().pop())

    def use(self) -> None:
        """Make it current."""
        set_current(self.id)

    def synchronize(self) -> None:
        """Do nothing: everything has run."""
        refuse_in_capture()

    attributes = property(lambda self: dict(ATTRIBUTES))
    compute_capability = "90"
    mem_info = property(lambda self: (_total[0] - _used[self.id], _total[0]))


def _stack() -> list[int]:
    if not hasattr(_state, "stack"):
        _state.stack = []
    return _state.stack


# ---- streams and graphs -------------------------------------------------------------------------


class Graph:
    """Operations recorded by a capture; each launch does them again, on the same memory."""

    def __init__(self, operations) -> None:
        self._operations = operations

    def launch(self, stream=None) -> None:
        """Do them."""
        for operation in self._operations:
            operation()

    def upload(self, stream=None) -> None:
        """Do nothing."""


class Stream:
    """A stream; current inside ``with``."""

    null: "Stream"

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        self.ptr = 0 if null else id(self)
        self.device_id = current()
        self._captured: list | None = None

    def __enter__(self) -> "Stream":
        _streams().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _streams().pop()

    def use(self) -> "Stream":
        """Make it current."""
        _streams()[-1] = self
        return self

    def synchronize(self) -> None:
        """Do nothing: everything has run."""
        refuse_in_capture()

    def record(self, event: "Event | None" = None) -> "Event":
        """Note the time."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        """Do nothing: it has happened."""

    done = True

    def begin_capture(self, mode: int | None = None) -> None:
        """Record what follows instead of doing it."""
        if self.ptr == 0:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the null stream")
        self._captured = []

    def is_capturing(self) -> bool:
        """Tell whether operations are recorded."""
        return self._captured is not None

    def end_capture(self) -> Graph:
        """Return what was recorded."""
        if self._captured is None:
            raise CUDARuntimeError("cudaErrorIllegalState: no capture has begun")
        graph, self._captured = Graph(self._captured), None
        return graph


Stream.null = Stream(null=True)


def _streams() -> list[Stream]:
    if not hasattr(_state, "streams"):
        _state.streams = [Stream.null]
    return _state.streams


def current_stream() -> Stream:
    """Return this Python thread's stream."""
    return _streams()[-1]


def captured() -> "list | None":
    """Return the operations recorded so far, or None when none are."""
    return current_stream()._captured


def refuse_in_capture() -> None:
    """Raise as CUDA does when a capture meets what needs its result."""
    if captured() is not None:
        raise CUDARuntimeError(
            "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
        )


class Event:
    """A moment, by the host's clock."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self._timing, self.time = not disable_timing, None

    def record(self, stream: Stream | None = None) -> None:
        """Note the time."""
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """Do nothing: it has happened."""
        refuse_in_capture()

    done = True


def elapsed_time(start: Event, end: Event) -> float:
    """Return the milliseconds between two events."""
    if start.time is None or end.time is None or not (start._timing and end._timing):
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    return (end.time - start.time) * 1000
