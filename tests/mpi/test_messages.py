"""What ranks say to one another, and to MPI: with threads as ranks."""

import time

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import communicators
from pararnn_solvers.linear import load
from pararnn_solvers.linear.mpi_scan import OverRanks
from pararnn_solvers.ranks import Ranks
from tests.mpi import double

COMM = double.COMM_WORLD


def test_the_state_before_may_end_in_0():
    """That there are states is told by a number of its own."""
    own = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    before = double.run(3, lambda: Ranks(COMM).state_before(own[COMM.rank][None], np.full(2, 9.0)))
    assert np.array_equal(before, [[9, 9], own[0], own[1]])


@pytest.mark.parametrize("adjoint", [False, True])
def test_what_arrives_may_end_in_0(adjoint):
    blocks, rhs = np.full((6, 1, 1, 2), 0.5), np.tile([1.0, 0.0], (6, 1))

    def program():
        mine = slice(2 * COMM.rank, 2 * COMM.rank + 2)
        scan = OverRanks(Ranks(COMM), load("sequential"))
        return scan(blocks[mine], rhs[mine], adjoint=adjoint)

    found = np.concatenate(double.run(3, program))
    assert np.array_equal(found, load("sequential")(blocks, rhs, adjoint=adjoint))


def test_of_several_errors_that_of_the_first_rank_is_raised():
    def program():
        with pytest.raises(ValueError) as raised, Ranks(COMM).together():  # noqa: PT011
            if COMM.rank:
                raise ValueError(f"of {COMM.rank}")
        return str(raised.value), raised.value.__notes__

    assert double.run(3, program) == 3 * [("of 1", ["raised on rank 1"])]


def test_time_in_messages_is_part_of_all_time():
    def program():
        ranks, began = Ranks(COMM), time.perf_counter()
        ranks.total(np.ones(1))
        return ranks.communication.seconds, time.perf_counter() - began

    for within, whole in double.run(2, program):
        assert 0 < within < whole


def test_communicators_are_made_once_and_freed_with_the_user_s():
    def program():
        mine = COMM.Dup()
        made = communicators.own_communicators(mine)
        assert communicators.own_communicators(mine) is made
        assert [one.rank for one in made] == [COMM.rank, 1 - COMM.rank]
        mine.Free()
        return made

    made = double.run(2, program)

    for i in range(2):
        with pytest.raises(RuntimeError, match="allgather on a communicator that was freed"):
            double.run(2, lambda i=i: made[COMM.rank][i].allgather(0))


def test_a_launcher_is_asked_for_where_a_rank_is_alone(monkeypatch):
    monkeypatch.setenv(communicators.LAUNCHED[0], "2")
    assert double.run(2, communicators.mpi) == [double, double]
    with pytest.raises(prs.BackendUnavailable, match="the launcher started 2 processes"):
        double.run(1, communicators.mpi)


def test_a_slab_between_others_is_a_whole_number_of_chunks():
    cut = [0, 8, 11, 19]

    def program():
        x = np.ones((cut[COMM.rank + 1] - cut[COMM.rank], 1))
        with pytest.raises(prs.InvalidInput) as raised:
            prs.solve(lambda h, x, _: 0.5 * h + x, x, np.zeros(1), method=prs.newton(8), comm=COMM)
        return str(raised.value)

    told = double.run(3, program)
    assert len(set(told)) == 1
    assert told[0].startswith("rank 1: a slab of 3 steps is no whole number of chunks of 8")
