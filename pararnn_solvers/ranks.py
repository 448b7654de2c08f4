"""The processes that share the steps of a trajectory, and all that passes between them.

Time is cut into slabs, one for each process (rank), in their order. What crosses is of the size of
a batch: states at the ends of slabs, norms, decisions.

Before each exchange the ranks agree that none of them has failed, so that an error on one of them
is raised on all, and no rank waits for another that will not come.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.communicators import mpi, own_communicators
from pararnn_solvers.errors import InvalidInput, PararnnError

__all__ = ["ALONE", "Communication", "Ranks"]

Array = Any  # of NumPy or of CuPy
Combine = Callable[[Array, Array], Array]


@dataclass
class Communication:
    """What one rank has passed to MPI.

    Attributes
    ----------
    calls : int
        Calls of MPI, those that only agree on whether all is well included.
    nbytes : int
        Bytes of this rank's own messages in them.
    seconds : float
        Time in these calls: most of it is spent waiting for other ranks.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> prs.solve(lambda h, x, _: 0.5 * h + x, np.ones((3, 1)), np.zeros(1)).communication.calls
    0
    """

    calls: int = 0
    nbytes: int = 0
    seconds: float = 0.0


class Ranks:
    """The processes of a communicator; alone, without one or in one of a single process.

    Alone, every method returns what it was given.

    Parameters
    ----------
    comm : mpi4py communicator, optional
        Messages pass through a duplicate of it, which is made once and kept with it.
    """

    def __init__(self, comm: Any = None) -> None:
        self.rank: int = 0 if comm is None else comm.rank
        self.size: int = 1 if comm is None else comm.size
        self.communication = Communication()
        self.agreed: BaseException | None = None
        if self.several:
            self.forwards, self.backwards = own_communicators(comm)

    def __reduce__(self) -> tuple[type[Ranks], tuple[()]]:
        return Ranks, ()  # whoever receives it is alone with it

    @property
    def several(self) -> bool:
        """Whether there is anybody to talk to."""
        return self.size > 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block that all ranks run: what one of them raises, all raise.

        An error keeps its type where it can be pickled, and says which rank it comes from.
        """
        try:
            yield
        except Exception as error:
            if self.several and error is not self.agreed:
                self.agree(error)
            raise
        if self.several:
            self.agree()

    def agree(self, error: Exception | None = None) -> None:
        """Raise the error of the first rank that has one, on all ranks."""
        MPI, first = mpi(), np.empty(1, np.intc)
        mine = np.array([self.size if error is None else self.rank], np.intc)
        with self._counted(mine.nbytes):
            self.forwards.Allreduce(mine, first, MPI.MIN)
        failed = int(first[0])
        if failed == self.size:
            return
        told = portable(error, failed) if error and failed == self.rank else None
        arrived: Exception = self.forwards.bcast(told, root=failed)
        self.agreed = arrived if told is None else told
        raise self.agreed

    @contextmanager
    def _counted(self, nbytes: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.communication.calls += 1
        self.communication.nbytes += nbytes
        self.communication.seconds += time.perf_counter() - began

    def before(self, value: Array, combine: Combine, *, backwards: bool = False) -> Array | None:
        """Return what the values of all ranks before this one combine to: MPI's Exscan.

        Parameters
        ----------
        value : array, shape (size,), on the host
            Of one dtype and size on all ranks.
        combine : callable
            ``combine(earlier, later)``, associative; it need not commute, and must not raise.
        backwards : bool
            The ranks after this one, the last of them as the earliest.

        Returns
        -------
        array, or None on the rank that has none before it
        """
        if not self.several:
            return None
        comm = self.backwards if backwards else self.forwards
        found = self._reduced(comm.Exscan, value, combine)
        return found if comm.rank else None

    def over_all(self, value: Array, combine: Combine) -> Array:
        """Return what the values of all ranks combine to, on each: MPI's Allreduce."""
        return self._reduced(self.forwards.Allreduce, value, combine) if self.several else value

    def _reduced(self, call: Callable[..., None], value: Array, combine: Combine) -> Array:
        """Let MPI reduce values as wholes: each is one element of a datatype of its own."""
        self.agree()
        if not value.size:
            return value.copy()
        MPI = mpi()

        def operator(earlier: Any, later: Any, _: Any) -> None:
            b = np.frombuffer(later, value.dtype)
            with np.errstate(all="ignore"):
                b[:] = combine(np.frombuffer(earlier, value.dtype), b.copy())

        value, found = np.ascontiguousarray(value), np.empty_like(value)
        whole = MPI.Datatype.fromcode(value.dtype.char).Create_contiguous(value.size).Commit()
        op = MPI.Op.Create(operator, commute=False)
        try:
            with self._counted(value.nbytes):
                call([value, 1, whole], [found, 1, whole], op)
        finally:
            op.Free()
            whole.Free()
        return found

    def greatest(self, values: Array) -> Array:
        """Return the greatest of each value over all ranks; NaN if any is."""
        # Sent in one dtype, whatever each rank computes in.
        return self.over_all(values.astype(np.float64), np.maximum).astype(values.dtype)

    def all(self, flags: Array) -> Array:
        """Tell of each flag whether it is set on all ranks."""
        return self.greatest((~flags).astype(np.float64)) == 0 if self.several else flags

    def total(self, values: Array) -> Array:
        """Return the sum of each value over all ranks."""
        return self.over_all(values, np.add)

    def steps_before(self, steps: int) -> int:
        """Return how many steps the slabs before this one have."""
        found = self.before(np.array([steps], np.int64), np.add)
        return 0 if found is None else int(found[0])

    def state_before(self, h: Array, h0: Array) -> Array:
        """Return the last state of the nearest slab before this one that has any, or else `h0`.

        Parameters
        ----------
        h : array, shape (T, *batch, d)
            The states of this slab.
        h0 : array, shape (*batch, d)
        """
        if not self.several:
            return h0
        message = np.zeros(1 + h0.size, h0.dtype)
        if len(h):
            message[0], message[1:] = 1, arrays.on_host(h[-1]).ravel()
        found = self.before(message, lambda earlier, later: later if later[0] else earlier)
        if found is None or not found[0]:
            return h0
        return arrays.beside(found[1:].reshape(h0.shape), h0)

    def relay(self, state: Array, work: Callable[[Array], Array]) -> None:
        """Call ``work(state)`` on one rank after another, each with what the one before returned.

        Those after a rank that fails do no work.
        """
        if not self.several:
            work(state)
            return
        self.agree()
        message = np.concatenate([np.ones(1, state.dtype), arrays.on_host(state).ravel()])
        if self.rank:
            self.forwards.Recv(message, self.rank - 1)
        going_on = bool(message[0])
        message[0] = 0
        try:
            if going_on:
                arrived = arrays.beside(message[1:].reshape(state.shape).copy(), state)
                message[1:] = arrays.on_host(work(arrived)).ravel()
                message[0] = 1
        finally:  # whatever happened: the next rank waits
            if self.rank + 1 < self.size:
                with self._counted(message.nbytes):
                    self.forwards.Send(message, self.rank + 1)

    def gather(self, h: Array, root: int) -> Array | None:
        """Return the slabs of all ranks, one after another, on the host of rank `root`."""
        if root not in range(self.size):
            raise InvalidInput(f"root is {root!r}; expected a rank, 0 to {self.size - 1}")
        self.require_same({"root": f"{root}"})
        if not self.several:
            return arrays.on_host(h)
        MPI, h = mpi(), np.ascontiguousarray(arrays.on_host(h))
        lengths = self.forwards.gather(len(h), root)
        row = int(np.prod(h.shape[1:]))
        whole = MPI.Datatype.fromcode(h.dtype.char).Create_contiguous(row).Commit()
        found = None if lengths is None else np.empty((sum(lengths), *h.shape[1:]), h.dtype)
        try:
            with self._counted(h.nbytes):
                received = None if found is None else [found, lengths, None, whole]
                self.forwards.Gatherv([h, len(h), whole], received, root)
        finally:
            whole.Free()
        return found

    def require_same(self, said: dict[str, str]) -> None:
        """Raise InvalidInput, on all ranks, unless all of them say the same under every name."""
        if not self.several:
            return
        self.agree()
        with self._counted(sum(map(len, said.values()))):
            of_all = self.forwards.allgather(said)
        for name, expected in of_all[0].items():
            for rank, other in enumerate(of_all):
                if other.get(name) != expected:
                    self.agreed = InvalidInput(
                        f"{name} differs between ranks: {other.get(name)} on rank {rank}, "
                        f"{expected} on rank 0; expected the same on every rank, where only x, an "
                        "array as guess and the number of steps may differ"
                    )
                    raise self.agreed


ALONE = Ranks()


def portable(error: Exception, rank: int) -> Exception:
    """Return an error that says where it was raised and that can be sent."""
    if isinstance(error, PararnnError):
        error.args = (f"rank {rank}: {error}",)
    else:
        error.add_note(f"raised on rank {rank}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a class that the other ranks cannot make
        return RuntimeError(f"rank {rank}: {type(error).__name__}: {error}")
    return error
