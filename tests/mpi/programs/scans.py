"""Under mpirun: slabs of a linear recurrence, solved over ranks, are those of the whole."""

import numpy as np
from mpi4py import MPI

from pararnn_solvers import InvalidInput
from pararnn_solvers.linear import load, mpi_scan
from pararnn_solvers.linear.mpi_scan import OverRanks, product
from pararnn_solvers.ranks import Ranks
from pararnn_solvers.testing import check_backend
from tests.mpi.programs.slabs import cuts

COMM = MPI.COMM_WORLD
SHAPES = [((), 1, 1), ((3,), 1, 5), ((2,), 2, 3), ((2, 1), 3, 1), ((), 7, 1), ((0,), 2, 3)]
ROUNDING = {np.float64: 1e-13, np.float32: 2e-5, np.float16: 2e-2}


def local():
    """Numba's import takes longer than all of this: two ranks do with it what others do without."""
    return load("numba" if COMM.size < 3 else "sequential")


def over_ranks():
    return load("mpi") if COMM.size < 3 else OverRanks(Ranks(COMM), local())


def system(T, batch, k, n, dtype, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(-1.2, 1.2, (T, *batch, k, k, n)) / k
    blocks[:1] = np.nan  # the first of all is not used
    return blocks.astype(dtype), rng.normal(size=(T, *batch, k * n)).astype(dtype)


def whole_and_slab(T, batch, k, n, dtype, cut):
    blocks, rhs = system(T, batch, k, n, dtype)
    return blocks, rhs, slice(cut[COMM.rank], cut[COMM.rank + 1])


def slabs_are_those_of_the_whole():
    reference, scan = load("sequential"), over_ranks()
    for dtype in ROUNDING if COMM.size < 4 else [np.float64]:
        for shape in SHAPES:
            for T in (0, 1, 5, 30):
                for cut in cuts(T, COMM.size):
                    blocks, rhs, mine = whole_and_slab(T, *shape, dtype, cut)
                    for adjoint in (False, True):
                        expected = reference(blocks, rhs, adjoint=adjoint)
                        found = scan(blocks[mine], rhs[mine], adjoint=adjoint)
                        assert found.shape == rhs[mine].shape and found.dtype == dtype
                        assert found.flags.c_contiguous and not np.shares_memory(found, rhs)
                        size = ROUNDING[dtype] * max(1.0, np.abs(expected).max(initial=0))
                        assert np.abs(found - expected[mine]).max(initial=0) <= size


def the_adjoint_is_the_transpose():
    """<scan v, g> = <v, scan* g>, each product a sum over ranks."""
    scan = over_ranks()
    for shape in SHAPES[:5]:
        for cut in cuts(23, COMM.size):
            blocks, v, mine = whole_and_slab(23, *shape, np.float64, cut)
            g = np.random.default_rng(1).normal(size=v.shape)
            h = scan(blocks[mine], v[mine])
            lam = scan(blocks[mine], g[mine], adjoint=True)
            left, right = COMM.allreduce(np.vdot(h, g[mine])), COMM.allreduce(np.vdot(v[mine], lam))
            assert abs(left - right) <= 1e-12 * max(1.0, abs(left))


def bad_numbers_stay_behind():
    """NaN at a step changes none before it, in no other lane."""
    scan, cut = over_ranks(), cuts(24, COMM.size)[0]
    blocks, rhs, mine = whole_and_slab(24, (2,), 2, 3, np.float64, cut)
    clean = scan(blocks[mine], rhs[mine])
    for t in (1, 12, 23):
        bad = rhs.copy()
        bad[t, 0, 1] = np.nan
        found = scan(blocks[mine], bad[mine])
        reference = load("sequential")(blocks, bad)[mine]
        assert np.array_equal(np.isnan(found), np.isnan(reference))
        assert np.array_equal(found[~np.isnan(found)], clean[~np.isnan(found)])


def messages_do_not_grow_with_time():
    counts = []
    for T in (COMM.size, 50 * COMM.size):
        ranks = Ranks(COMM)
        blocks, rhs, mine = whole_and_slab(T, (2,), 2, 3, np.float32, cuts(T, COMM.size)[0])
        OverRanks(ranks, local())(blocks[mine], rhs[mine])
        counts.append((ranks.communication.calls, ranks.communication.nbytes))
    assert counts[0] == counts[1]
    if COMM.size > 1:  # one agreement, one map of k k n and k n numbers a sequence, and a flag
        assert counts[0] == (2, 4 + 4 * (1 + 2 * (2 * 2 * 3 + 2 * 3)))


def products_go_from_right_to_left():
    rng = np.random.default_rng(0)
    for T in range(1, 12):
        blocks = rng.normal(size=(T, 2, 3, 3, 1))
        expected = np.eye(3)
        for A in blocks[:, 0, :, :, 0]:
            expected = A @ expected
        np.testing.assert_allclose(product(blocks)[0, :, :, 0], expected, rtol=1e-12, atol=1e-12)


def what_does_not_fit_is_refused_on_all_ranks():
    last = COMM.rank == COMM.size - 1
    dtype = np.float32 if last else np.float64
    bad = np.ones((4, 1, 1, 3)), np.ones((4, 3 + last))
    refused = [
        (system(4, (2 + last,), 1, 3, np.float64), "the shape of a block differs"),
        (system(4, (2,), 1, 3, dtype), "dtype differs between ranks"),
        (bad, f"rank {COMM.size - 1}: rhs has trailing"),
    ]
    for arguments, message in refused:
        try:
            mpi_scan.scan(*arguments)
        except InvalidInput as error:
            assert message in str(error), error  # noqa: PT017
        else:
            raise AssertionError(message)


def the_backend_keeps_its_promises():
    """Those of one process; over ranks, arrays of one rank are no whole systems."""
    if COMM.size == 1:
        results = check_backend("mpi")
        assert {result.outcome for result in results} == {"passed"}, results


CHECKS = (
    slabs_are_those_of_the_whole,
    the_adjoint_is_the_transpose,
    bad_numbers_stay_behind,
    messages_do_not_grow_with_time,
)
IN_KERNELS = (what_does_not_fit_is_refused_on_all_ranks,)


def main():
    the_backend_keeps_its_promises()
    products_go_from_right_to_left()
    for check in CHECKS + IN_KERNELS * (COMM.size == 2):
        check()
