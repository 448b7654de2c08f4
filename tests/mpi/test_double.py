"""The double of mpi4py does what mpi4py does, and ends what would wait for ever."""

import json

import numpy as np
import pytest

from tests.mpi import double
from tests.mpi.launch import launch, needs_mpi

with double.installed():
    from tests.mpi.programs import calls

COMM = double.COMM_WORLD


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_calls_are_those_of_mpi4py(ranks):
    ended = launch(ranks, "calls")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert double.run(ranks, calls.results) == json.loads(ended.stdout)


def crossed():
    """Receive from the other before sending to it."""
    COMM.Recv(np.zeros(1), 1 - COMM.rank)
    COMM.Send(np.zeros(1), 1 - COMM.rank)


def absent():
    """Call together with one that does not come."""
    if COMM.rank:
        COMM.bcast(None)


def different():
    COMM.allgather(0) if COMM.rank else COMM.bcast(0)


def too_long():
    if COMM.rank:
        COMM.Recv(np.zeros(1), 0)
    else:
        COMM.Send(np.zeros(2), 1)


def not_committed():
    pair = double.Datatype.fromcode("d").Create_contiguous(2)
    COMM.Allreduce([np.zeros(2), 1, pair], [np.zeros(2), 1, pair], double.MIN)


def lengths_that_differ():
    values = np.zeros(1 + COMM.rank, np.intc)
    COMM.Allreduce(values, values.copy(), double.MIN)


def more_room():
    COMM.Allreduce(np.zeros(1, np.intc), np.zeros(2, np.intc), double.MIN)


def no_key():
    COMM.Get_attr(None)


def no_color():
    COMM.Split(-1, COMM.rank)


def freed():
    one = COMM.Dup()
    one.Free()
    one.bcast(0)


def operator_that_raises():
    op = double.Op.Create(lambda earlier, later, _: 1 / 0, commute=False)
    COMM.Allreduce(np.zeros(1), np.zeros(1), op)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (crossed, "all that are left wait for ever: 0 in Recv from 1; 1 in Recv from 0"),
        (absent, "all that are left wait for ever: 1 in bcast from 0"),
        (different, "ranks call allgather and bcast from 0 together"),
        (too_long, "a message is longer than what is to receive it"),
        (not_committed, "a datatype is used that is not committed"),
        (lengths_that_differ, "messages of Allreduce differ"),
        (more_room, "Allreduce sends .1. for .2."),
        (no_key, "None is no key"),
        (no_color, "a color is -1"),
        (freed, "bcast from 0 on a communicator that was freed"),
        (operator_that_raises, "an operator raised ZeroDivisionError"),
    ],
)
def test_what_is_erroneous_ends_all_ranks(program, message):
    def even_if_errors_are_handled():
        try:
            program()
        except Exception:
            COMM.bcast(0)

    with pytest.raises(RuntimeError, match=message):
        double.run(2, even_if_errors_are_handled)


def test_a_rank_that_fails_ends_those_that_wait_for_it():
    ended = []

    def program():
        try:
            if COMM.rank == 1:
                raise KeyError("here")
            COMM.allgather(0)
        finally:
            ended.append(COMM.rank)

    with pytest.raises(KeyError, match="here"):
        double.run(3, program)
    assert sorted(ended) == [0, 1, 2]


def test_ranks_run_one_at_a_time():
    """Each until it waits; so they may share what is no safer than a number."""
    order = []

    def program():
        order.append(COMM.rank)
        order.append(COMM.rank)
        COMM.bcast(None)
        order.append(COMM.rank)

    double.run(3, program)
    assert order[:6] == [0, 0, 1, 1, 2, 2]
    assert sorted(order[6:]) == [0, 1, 2]
