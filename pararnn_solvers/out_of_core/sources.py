"""Where inputs come from: a file, an array that may be on disk, an iterable, or nowhere."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.checks import require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.out_of_core.fingerprints import tail
from pararnn_solvers.out_of_core.part import Checkpoint
from pararnn_solvers.typing import Array

WINDOW_BYTES = 64 << 20
"""Of inputs and states together, in a window whose length is not given."""


class Source(NamedTuple):
    """Inputs in chunks.

    Attributes
    ----------
    about : str
        What a checkpoint remembers of it.
    steps : int, optional
        T, where that is known.
    window : int, optional
        Steps of a chunk, where that is chosen here.
    chunks : callable
        Returns the chunks from a step on; those of an iterable from its start.
    """

    about: str
    steps: int | None
    window: int | None
    chunks: Callable[[int], Iterator[Any]]

    def after(self, done: Checkpoint) -> Iterator[Any]:
        """Return the chunks that follow those that are done, with an empty one at the head.

        Raises
        ------
        InvalidInput
            The last chunk that was done is not there any more, or not the same.
        """
        if not done.steps:
            return self.chunks(0)
        step = 0 if self.steps is None else done.steps - done.last
        chunks = self.chunks(step)
        while step < done.steps:
            chunk = next(chunks, None)
            if chunk is None:
                raise InvalidInput(
                    f"source ends after {step} steps, and {done.steps} are done; expected the "
                    "same as before, from its start (an iterator may have been used up)"
                )
            step += steps_of(chunk)
        if step > done.steps or tail(chunk) != done.tail:
            raise InvalidInput(
                f"source differs from the one before: {done.steps} steps are done, and the last "
                f"{done.last} of them are other numbers now, or another chunk; expected the same: "
                "pass that, or resume=False to begin again"
            )
        return itertools.chain([nothing_of(chunk)], chunks)


def opened(source: Any, h0: Array, steps: int | None, window: int | None) -> Source:
    """Return inputs of any kind as a source: the arguments are those of ``solve_to``."""
    if window is not None:
        require_whole("window", window)
    if source is None:
        if steps is None:
            raise InvalidInput("source is None and steps is None; pass steps=T, the steps to take")
        require_whole("steps", steps, least=0)
        window = window or default_window(h0, ())
        return Source("no input", int(steps), window, partial(counts, int(steps), window))
    if steps is not None:
        raise InvalidInput(f"steps is {steps}, and the source has its own; leave steps out")
    if isinstance(source, str | os.PathLike):
        source = mapped(source)
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return of_array(source, h0, window)
    if window is not None:
        raise InvalidInput("window is for arrays; chunks of an iterable are solved as they come")
    if not isinstance(source, Iterable):
        raise InvalidInput(
            f"source is {source!r}; expected the path of an .npy file, an array, an iterable of "
            "arrays (T, *batch, m), or None"
        )
    return Source("an iterable", None, None, lambda start: iter(source))


def of_array(source: Any, h0: Array, window: int | None) -> Source:
    """Return an array, in memory or on disk, as a source."""
    shape = tuple(map(int, source.shape))
    if len(shape) != len(h0.shape) + 1:
        batch = "".join(f"{size}, " for size in h0.shape[:-1])
        raise InvalidInput(
            f"source has shape {shape}; expected (T, {batch}m), time first, for h0 of shape "
            f"{h0.shape}"
        )
    window = window or default_window(h0, shape[1:])
    chunks = partial(windows, source, h0, window, bytes_on_disk(source))
    return Source(f"{source.dtype} {shape}", shape[0], window, chunks)


def mapped(path: str | os.PathLike[str]) -> Any:
    """Return the array in an ``.npy`` file, memory-mapped."""
    try:
        found = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise InvalidInput(
            f"cannot read {os.fspath(path)!r}: expected an array written by numpy.save ({error})"
        ) from None
    if not isinstance(found, np.ndarray):
        raise InvalidInput(f"{os.fspath(path)!r} is an archive; expected one array (.npy)")
    return found


def default_window(h0: Array, inputs: tuple[int, ...]) -> int:
    """Return the steps that have so many bytes of inputs and states."""
    return max(1, WINDOW_BYTES // ((prod(inputs) + prod(h0.shape)) * h0.dtype.itemsize))


def windows(source: Any, like: Array, window: int, size: int, start: int) -> Iterator[Array]:
    """Yield windows of an array from a step on; one that is empty for an array without steps."""
    T = int(source.shape[0])  # zarr's arrays have no len
    for t in range(start, max(T, 1), window):
        if bytes_on_disk(source) < size:  # reading a map beyond its file kills the process
            raise InvalidInput(f"{source.filename} has become shorter since it was opened")
        yield window_of(source, like, slice(t, min(t + window, T)))


def window_of(source: Any, like: Array, steps: slice) -> Array:
    """Return some steps of an array, on disk or not, where `like` is."""
    x = arrays.from_any(source[steps])
    if len(x) != steps.stop - steps.start:
        raise InvalidInput(
            f"source has {len(x)} steps from {steps.start} on; expected "
            f"{steps.stop - steps.start}: it has become shorter"
        )
    mapping = vars(source)["_mmap"] if isinstance(source, np.memmap) else None
    if mapping is not None:
        x = np.array(x)
        if source.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):  # "c" has changes of its own
            mapping.madvise(mmap.MADV_DONTNEED)  # what was read counts as memory of the process
    there: Array = arrays.beside(x, like)
    return there


def counts(T: int, window: int, start: int) -> Iterator[int]:
    """Yield the numbers of steps of windows from a step on."""
    for t in range(start, max(T, 1), window):
        yield min(window, T - t)


def bytes_on_disk(source: Any) -> int:
    """Return the size of the file that an array maps; 0 of other arrays."""
    name = getattr(source, "filename", None) if isinstance(source, np.memmap) else None
    return os.path.getsize(name) if name else 0


def steps_of(chunk: Any) -> int:
    """Return the steps of a chunk: of an array, or a number."""
    return len(chunk) if hasattr(chunk, "__len__") else int(chunk)


def nothing_of(chunk: Any) -> Any:
    """Return a chunk of no steps like this one."""
    return chunk[:0] if hasattr(chunk, "__len__") else 0
