"""Under mpirun, and in threads: what each call of MPI that the package makes does."""

import json
import sys

import numpy as np
from mpi4py import MPI

COMM = MPI.COMM_WORLD


def reductions():
    """Of wholes that do not commute, on a communicator and in reversed order."""

    def after(earlier, later, datatype):
        """Compose x -> a x + b."""
        (a, b), second = np.frombuffer(earlier), np.frombuffer(later)
        second[:] = second[0] * a, second[0] * b + second[1]

    duplicate, reversed_ranks = COMM.Dup(), COMM.Split(0, -COMM.rank)
    pair = MPI.Datatype.fromcode("d").Create_contiguous(2).Commit()
    op = MPI.Op.Create(after, commute=False)
    results = [reversed_ranks.rank, reversed_ranks.size, duplicate.rank]
    for comm in (duplicate, reversed_ranks):
        sent = np.array([2.0 + COMM.rank, 1.0 + COMM.rank])
        for call in (comm.Exscan, comm.Allreduce):
            found = np.full(3, -1.0)
            call([sent, 1, pair], [found, 1, pair], op)
            defined = comm.rank > 0 or call == comm.Allreduce
            results.append([sent.tolist(), found.tolist()[0 if defined else 2 :]])
    op.Free()
    pair.Free()
    first = np.empty(2, np.intc)
    duplicate.Allreduce(np.array([5 - COMM.rank, COMM.rank], np.intc), first, MPI.MIN)
    duplicate.Free()
    reversed_ranks.Free()
    return [*results, first.tolist(), COMM.allreduce(COMM.rank + 0.5)]


def objects():
    """Those of others are copies."""
    mine = {"rank": COMM.rank, "error": ValueError(f"on {COMM.rank}")}
    last = COMM.size - 1
    told = COMM.bcast(mine if COMM.rank == last else None, root=last)
    of_all, gathered = COMM.allgather(mine), COMM.gather(COMM.rank, last)
    return [
        [told["rank"], repr(told["error"]), told is mine],
        [[other["rank"], repr(other["error"]), other is mine] for other in of_all],
        gathered,
    ]


def rows():
    """Of as many rows as each has, one after another, on one rank."""
    row = MPI.Datatype.fromcode("f").Create_contiguous(3).Commit()
    mine = np.full((2 * COMM.rank % 3, 3), COMM.rank, np.float32)
    counts = COMM.gather(len(mine), COMM.size - 1)
    found = None if counts is None else np.empty((sum(counts), 3), np.float32)
    received = None if found is None else [found, counts, None, row]
    COMM.Gatherv([mine, len(mine), row], received, COMM.size - 1)
    row.Free()
    return [counts, None if found is None else found.tolist()]


def letters():
    """One rank after another; in the order in which they were sent, and the memory is free then."""
    message = np.array([1.0, COMM.rank])
    if COMM.rank:
        COMM.Recv(message, COMM.rank - 1)
    arrived = message.tolist()
    if COMM.rank + 1 < COMM.size:
        for _ in range(2):
            message[0] += 1
            COMM.Send(message, COMM.rank + 1)
            message[1] = -1.0
    if COMM.rank:
        COMM.Recv(message, COMM.rank - 1)
    return [arrived, message.tolist()]


def attributes():
    """They belong to one communicator, not to its duplicates, and are told of its end."""
    freed = []
    key = MPI.Comm.Create_keyval(delete_fn=lambda comm, key, value: freed.append(value))
    one = COMM.Dup()
    before = one.Get_attr(key)
    one.Set_attr(key, ["kept"])
    two = one.Dup()
    results = [before, one.Get_attr(key), two.Get_attr(key)]
    two.Free()
    results.append(list(freed))
    one.Free()
    return [*results, freed]


def results():
    """Return what this rank sees of each of them, as plain lists and numbers."""
    return [call() for call in (reductions, objects, rows, letters, attributes)]


if __name__ == "__main__":
    of_all = COMM.gather(results(), 0)
    if of_all is not None:
        sys.stdout.write(json.dumps(of_all))
