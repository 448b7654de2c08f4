"""A file that is being written: what is there is known after any crash, and it never looks whole.

Beside ``h.npy`` there are ``h.npy.part``, which becomes it in the end, and ``h.npy.checkpoint``.
A checkpoint is written after the data that it speaks of are on the disk, and replaces the one
before in one operation. What the part holds beyond its checkpoint is not looked at again.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InsufficientMemory, InvalidInput
from pararnn_solvers.out_of_core.fingerprints import tail
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.typing import Array

SECONDS = 2.0
"""From a checkpoint to the next, at least: a crash costs as much, and the window it falls into."""

BEGIN_AGAIN = "or resume=False to begin again"


@dataclass(frozen=True)
class Checkpoint:
    """How far a solve has come.

    Attributes
    ----------
    state : array, shape (*batch, d)
        After the last of its steps.
    last : int
        Steps of the last chunk that had any.
    tail : str
        Fingerprint of the end of that chunk.
    """

    state: Array
    steps: int = 0
    last: int = 0
    tail: str = ""
    n_iter: int = 0


@dataclass
class Part:
    """The states so far, of a file that one process has locked.

    Attributes
    ----------
    file : binary file without a buffer
    path : Path
        Of the file to be made.
    h0 : array, shape (*batch, d)
    every : int
        Of so many states one is kept.
    problem : dict
        Name -> fingerprint of what decides the numbers.
    """

    file: io.FileIO
    path: Path
    h0: Array
    every: int
    problem: dict[str, str]
    done: Checkpoint = field(init=False)
    saved: float = field(init=False)  # when the checkpoint was written

    def begin(self, resume: bool) -> Checkpoint:
        """Go to where the checkpoint says, or to the start, and return how far that is."""
        self.saved = time.monotonic()
        self.done = Checkpoint(self.h0)
        known = beside(self.path, "checkpoint")
        if resume and known.exists() and os.fstat(self.file.fileno()).st_size:
            self.done = self.checked(known)
        else:
            known.unlink(missing_ok=True)  # before what it speaks of
            self.file.truncate(0)
            write(self.file, self.header(0))
        self.file.truncate(self.size(self.done.steps))
        self.file.seek(0, os.SEEK_END)
        return self.done

    def checked(self, known: Path) -> Checkpoint:
        """Return the checkpoint in a file if it speaks of this problem, and of what is there."""
        part = str(beside(self.path, "part"))
        try:
            content = json.loads(known.read_text(encoding="utf-8"))
            before = content.pop("problem")
            differ = [
                f"{name} was {before.get(name, 'not known')} and is {now}"
                for name, now in self.problem.items()
                if before.get(name) != now
            ]
            if not differ:
                state = np.array(content.pop("state"), self.h0.dtype).reshape(self.h0.shape)
                found = Checkpoint(arrays.beside(state, self.h0), **content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(
                f"{str(known)!r} is no checkpoint ({error}); expected one that solve_to wrote: "
                f"restore it, {BEGIN_AGAIN}"
            ) from None
        if differ:
            raise InvalidInput(
                f"{part!r} is of another solve: {'; '.join(differ)}; expected the same as when it "
                f"began: pass that, {BEGIN_AGAIN}"
            )
        if os.fstat(self.file.fileno()).st_size < self.size(found.steps):
            raise InvalidInput(
                f"{part!r} is shorter than the {found.steps} steps of its checkpoint; expected it "
                f"as it was left: restore it, {BEGIN_AGAIN}"
            )
        return found

    def append(self, solution: Solution) -> None:
        """Write the states of a chunk, and a checkpoint if it is time."""
        h, done = solution.h, self.done
        if not len(h):
            return
        kept = h[-(done.steps + 1) % self.every :: self.every]
        kept = np.ascontiguousarray(arrays.on_host(kept))
        write(self.file, kept.reshape(-1).view(np.uint8).data)
        self.done = Checkpoint(
            state=h[-1].copy(),
            steps=done.steps + len(h),
            last=len(h),
            tail=tail(solution.system.x),
            n_iter=max(done.n_iter, solution.n_iter),
        )
        if time.monotonic() - self.saved >= SECONDS:
            self.save()

    def save(self) -> None:
        """Force the states to the disk, then say how far they go."""
        os.fsync(self.file.fileno())
        state = arrays.on_host(self.done.state).ravel().tolist()
        content = {**vars(self.done), "state": state, "problem": self.problem}
        known, new = (beside(self.path, name) for name in ("checkpoint", "checkpoint.new"))
        with open(new, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        replace(new, known)
        self.saved = time.monotonic()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Save what is done if the block fails, and say so; leave nothing of no steps."""
        try:
            yield
        except BaseException as error:  # Ctrl-C comes through here, too
            part, steps = beside(self.path, "part"), self.done.steps
            if steps:
                with suppress(OSError):  # a full disk: the checkpoint before remains
                    self.save()
                error.add_note(
                    f"{steps} steps are kept in {str(part)!r}: call again to resume at step "
                    f"{steps}, where what failed begins"
                )
            else:
                part.unlink()
            raise

    def complete(self) -> None:
        """Say in the file how many states it has, and force them to the disk."""
        self.file.seek(0)
        write(self.file, self.header(self.done.steps // self.every))
        os.fsync(self.file.fileno())

    def put_in_place(self) -> Checkpoint:
        """Let the file appear."""
        replace(beside(self.path, "part"), self.path)
        beside(self.path, "checkpoint").unlink(missing_ok=True)
        return self.done

    def require_room(self, steps: int | None) -> None:
        """Raise InsufficientMemory if a file of so many steps, where known, will not fit."""
        if steps is None:
            return
        needed = self.size(steps) - self.size(self.done.steps)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise InsufficientMemory(
                f"{str(self.path)!r} needs {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are "
                "free there; make room, name a path elsewhere, or keep fewer states: every=n"
            )

    def size(self, steps: int) -> int:
        """Return the bytes of a file of so many steps."""
        row = prod(self.h0.shape) * self.h0.dtype.itemsize
        return len(self.header(0)) + steps // self.every * row

    def header(self, rows: int) -> bytes:
        """Return the head of an ``.npy`` file: of one length, whatever the number of rows.

        (NumPy pads it for a first axis that grows.)
        """
        kind = np.dtype(self.h0.dtype)
        what = {"descr": kind.str, "fortran_order": False, "shape": (rows, *self.h0.shape)}
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, what)
        return buffer.getvalue()


@contextmanager
def locked(path: Path) -> Iterator[io.FileIO]:
    """Yield ``path.part``, open, while no other process or thread may have it.

    The lock is of the open file: it ends with the process, however that ends.
    """
    import fcntl  # POSIX has it

    if path.is_dir():
        raise InvalidInput(
            f"path is {str(path)!r}, which is a folder; expected the name of a file in it"
        )
    part = beside(path, "part")
    with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat())
        except BlockingIOError:
            mine = False
        if not mine:  # or the other one has put it in place between the two lines
            raise InvalidInput(
                f"{str(path)!r} is being written by another call; expected to be alone: wait for "
                "it, or name another file"
            )
        try:
            yield file
        finally:
            if not os.fstat(file.fileno()).st_size:  # the call was refused
                part.unlink()


def beside(path: Path, ending: str) -> Path:
    """Return the path of a file that belongs to another one."""
    return path.with_name(f"{path.name}.{ending}")


def replace(new: Path, old: Path) -> None:
    """Put a file in the place of another, for good."""
    os.replace(new, old)
    folder = os.open(old.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write all of some bytes: a call of the system may take a part of them."""
    while data:
        data = data[file.write(data) :]
