"""A double of :mod:`mpi4py.MPI` whose ranks are threads of one process.

It has what the package and its tests call, with the meaning that the standard gives it. What the
standard leaves open is here as hard on the caller as it may be: a collective call, and a `Send`,
waits for all who take part; what is undefined is filled with bytes 0xff. What is erroneous, or
would wait for ever, is a RuntimeError that ends all ranks. `test_double` compares it with mpi4py.
"""

from __future__ import annotations

import functools
import itertools
import operator
import pickle
import sys
import threading
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from pararnn_solvers import communicators
from tests.mpi.turns import Stopped, Turns

Bytes = np.ndarray


def require(holds: bool, what: str) -> None:
    """Stop all ranks unless something holds."""
    if not holds:
        raise Stopped(what)


@dataclass
class Datatype:
    """So many numbers of one type, one after another."""

    code: str
    length: int = 1
    usable: bool = False

    @classmethod
    def fromcode(cls, code: str) -> Datatype:
        """Return the datatype of a NumPy character."""
        return cls(code, usable=True)

    def Create_contiguous(self, count: int) -> Datatype:
        """Return so many of these as one; to be committed before it is used."""
        return Datatype(self.code, self.length * count)

    def Commit(self) -> Datatype:
        """Let messages have this type."""
        self.usable = True
        return self

    def Free(self) -> None:
        """Let it be used no more."""
        require(self.usable, "a datatype is freed that is not there")
        self.usable = False

    @property
    def nbytes(self) -> int:
        """The size of one element."""
        return np.dtype(self.code).itemsize * self.length


class Op:
    """What reduces: ``function(earlier, later, datatype)`` puts its result into `later`."""

    def __init__(self, function: Callable[..., None], commute: bool, predefined: bool) -> None:
        self.function, self.commute, self.predefined = function, commute, predefined
        self.usable = True

    @classmethod
    def Create(cls, function: Callable[..., None], commute: bool = False) -> Op:
        """Return an operator of the user's."""
        return cls(function, commute, predefined=False)

    def Free(self) -> None:
        """Let it be used no more."""
        require(self.usable and not self.predefined, "an operator is freed that is not there")
        self.usable = False

    def of(self, values: list[Bytes], datatype: Datatype) -> Bytes:
        """Return what some values, at least one, are reduced to; in their order if it matters."""
        require(self.usable, "an operator is used that was freed")
        require(datatype.length == 1 or not self.predefined, "no numbers are reduced by name")
        *before, last = reversed(values) if self.commute else values
        found = last.copy()
        for earlier in reversed(before):
            try:
                self.function(memoryview(earlier).toreadonly(), memoryview(found), datatype)
            except Exception as error:
                raise Stopped(f"an operator raised {error!r}") from error
        return found


def least(earlier: Any, later: Any, datatype: Datatype) -> None:
    """Put the less of each number of two messages into the second."""
    a, b = (np.frombuffer(message, datatype.code) for message in (earlier, later))
    np.minimum(a, b, out=b)


MIN = Op(least, commute=True, predefined=True)


@dataclass
class Message:
    """Memory of some elements of a datatype, and how many: in all, or from each rank."""

    memory: Bytes
    counts: list[int]
    datatype: Datatype

    @classmethod
    def of(cls, said: Any) -> Message:
        """Return that of an array, or of ``[array, count(s), datatype]``, as mpi4py reads them."""
        array, *rest = said if isinstance(said, list) else [said]
        datatype = rest.pop() if rest else Datatype.fromcode(array.dtype.char)
        counts = rest[0] if rest else array.size
        counts = [counts] if np.ndim(counts) == 0 else list(counts)
        require(datatype.usable, "a datatype is used that is not committed, or was freed")
        require(array.flags.c_contiguous, "the memory of a message is not contiguous")
        require(sum(counts) * datatype.nbytes <= array.nbytes, "a message exceeds its memory")
        return cls(array.reshape(-1).view(np.uint8), counts, datatype)

    def sent(self) -> tuple[Bytes, Datatype]:
        """Return a copy of the elements."""
        return self.memory[: sum(self.counts) * self.datatype.nbytes].copy(), self.datatype

    def receive(self, elements: Bytes) -> None:
        """Put elements, as many as were expected at most, into the memory."""
        expected = sum(self.counts) * self.datatype.nbytes
        require(len(elements) <= expected, "a message is longer than what is to receive it")
        self.memory[: len(elements)] = elements


@dataclass
class Place:
    """Where the ranks of one communicator meet.

    Attributes
    ----------
    threads : list of int
        Of each rank.
    meetings : dict
        Number of a collective call -> rank -> what it is, and what the rank gives.
    mail : dict
        (from, to) -> messages on their way.
    """

    threads: list[int]
    meetings: dict[int, dict[int, tuple[str, Any]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    mail: dict[tuple[int, int], list[Any]] = field(default_factory=lambda: defaultdict(list))


class Comm:
    """A communicator, as one of its ranks sees it."""

    keys = itertools.count(1)
    delete: dict[int, Any] = {}

    def __init__(self, turns: Turns, place: Place, rank: int) -> None:
        self.turns, self.place, self.rank, self.size = turns, place, rank, len(place.threads)
        self.calls = 0
        self.attributes: dict[int, Any] = {}

    def _wait(self, what: str, over: Callable[[], bool]) -> None:
        self.turns.wait(self.place.threads[self.rank], what, over)

    def _meet(self, call: str, given: Any) -> list[Any]:
        """Return what each rank gives to a collective call."""
        require(self.calls >= 0, f"{call} on a communicator that was freed")
        meeting = self.place.meetings[self.calls]
        self.calls += 1
        meeting[self.rank] = call, given
        self._wait(call, lambda: len(meeting) == self.size)
        calls = {called for called, _ in meeting.values()}
        require(len(calls) == 1, f"ranks call {' and '.join(sorted(calls))} together")
        return [meeting[rank][1] for rank in range(self.size)]

    # Communicators

    def Split(self, color: int = 0, key: int = 0) -> Comm:
        """Return a communicator of the ranks of one color, by key."""
        require(color >= 0, f"a color is {color}")
        of_all = self._meet("Split", (color, key))
        ranks = [rank for rank, (of_rank, _) in enumerate(of_all) if of_rank == color]
        return self._of("Split", sorted(ranks, key=lambda rank: of_all[rank][1]))

    def Dup(self) -> Comm:
        """Return a communicator of the same ranks, without attributes."""
        return self._of("Dup", list(range(self.size)))

    def _of(self, call: str, ranks: list[int]) -> Comm:
        places = self._meet(call, Place([self.place.threads[rank] for rank in ranks]))
        return Comm(self.turns, places[ranks[0]], ranks.index(self.rank))

    def Free(self) -> None:
        """Let it be used no more."""
        self._meet("Free", None)
        for key, value in self.attributes.items():
            if Comm.delete[key] is not None:
                Comm.delete[key](self, key, value)
        self.calls = -1

    @classmethod
    def Create_keyval(cls, copy_fn: Any = None, delete_fn: Any = None) -> int:
        """Return a key for attributes."""
        require(copy_fn is None, "attributes are not copied here")
        key = next(cls.keys)
        cls.delete[key] = delete_fn
        return key

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        """Keep something with the communicator."""
        require(keyval in Comm.delete, f"{keyval} is no key of attributes")
        self.attributes[keyval] = attrval

    def Get_attr(self, keyval: int) -> Any:
        """Return what was kept, or None."""
        require(keyval in Comm.delete, f"{keyval} is no key of attributes")
        return self.attributes.get(keyval)

    # Arrays

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op) -> None:
        """Reduce what all ranks send."""
        of_all = self._reduction("Allreduce", sendbuf, recvbuf)
        Message.of(recvbuf).receive(op.of(*of_all))

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op) -> None:
        """Reduce what the ranks before this one send; of the first, the result is undefined."""
        values, datatype = self._reduction("Exscan", sendbuf, recvbuf)
        before = values[: self.rank]
        undefined = np.full(values[0].size, 0xFF, np.uint8)
        Message.of(recvbuf).receive(op.of(before, datatype) if before else undefined)

    def _reduction(self, call: str, sent: Any, received: Any) -> tuple[list[Bytes], Datatype]:
        own, room = Message.of(sent), Message.of(received)
        require(not np.shares_memory(own.memory, room.memory), f"{call} within one memory")
        require(own.counts == room.counts, f"{call} sends {own.counts} for {room.counts}")
        of_all = self._meet(call, own.sent())
        kinds = {(len(value), kind.code, kind.length) for value, kind in of_all}
        require(len(kinds) == 1, f"messages of {call} differ: {sorted(kinds)}")
        return [value for value, _ in of_all], own.datatype

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Put what all ranks send one after another, on rank `root`."""
        of_all = self._meet(f"Gatherv to {root}", Message.of(sendbuf).sent())
        if self.rank == root:
            array, counts, displacements, datatype = recvbuf
            require(displacements is None, "elements are put one after another")
            room = Message.of([array, counts, datatype])
            sizes = [count * datatype.nbytes for count in counts]
            require(sizes == [len(value) for value, _ in of_all], "other counts are expected")
            room.receive(np.concatenate([value for value, _ in of_all]))

    def Send(self, buf: Any, dest: int) -> None:
        """Send to one rank; wait until it has received."""
        letter = Message.of(buf).sent()
        mail = self.place.mail[self.rank, dest]
        mail.append(letter)
        self._wait(f"Send to {dest}", lambda: not any(other is letter for other in mail))

    def Recv(self, buf: Any, source: int) -> None:
        """Receive from one rank."""
        room = Message.of(buf)
        mail = self.place.mail[source, self.rank]
        self._wait(f"Recv from {source}", lambda: bool(mail))
        elements, datatype = mail.pop(0)
        require(datatype.code == room.datatype.code, "a message is received as another type")
        room.receive(elements)

    # Objects

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return a copy of the object of rank `root`, there too."""
        sent = self._meet(f"bcast from {root}", pickle.dumps(obj) if self.rank == root else None)
        return pickle.loads(sent[root])

    def allgather(self, sendobj: Any) -> list[Any]:
        """Return copies of the objects of all ranks."""
        return [pickle.loads(sent) for sent in self._meet("allgather", pickle.dumps(sendobj))]

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Return, on rank `root`, copies of the objects of all ranks."""
        of_all = self._meet(f"gather to {root}", pickle.dumps(sendobj))
        return [pickle.loads(sent) for sent in of_all] if self.rank == root else None

    def allreduce(self, sendobj: Any) -> Any:
        """Return the sum of the objects of all ranks."""
        return functools.reduce(operator.add, self.allgather(sendobj))


class World:
    """``COMM_WORLD``: that of whichever rank asks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(of_thread.world, name)


COMM_WORLD = World()
of_thread = threading.local()


@contextmanager
def installed() -> Iterator[None]:
    """Let this module be found in the place of :mod:`mpi4py.MPI`."""
    this = sys.modules[__name__]
    instead = {"mpi4py": types.SimpleNamespace(MPI=this), "mpi4py.MPI": this}
    before = {name: sys.modules[name] for name in instead if name in sys.modules}
    sys.modules.update(instead)
    try:
        with mock.patch.object(communicators, "_attribute", None):  # a key of the other module
            yield
    finally:
        for name in instead:  # and keep what was imported meanwhile
            del sys.modules[name]
        sys.modules.update(before)


def run(size: int, program: Callable[[], Any]) -> list[Any]:
    """Return what ``program()`` returns on each of so many ranks; or raise what one raises."""
    place = Place(list(range(size)))

    def of_rank(rank: int) -> Any:
        of_thread.world = Comm(turns, place, rank)
        return program()

    turns = Turns([functools.partial(of_rank, rank) for rank in range(size)])
    with installed():
        return turns.run()
