"""Under mpirun: solves over ranks, and their derivatives, are those of one process."""

import warnings

import numpy as np
from mpi4py import MPI

import pararnn_solvers as prs
from pararnn_solvers import tree
from pararnn_solvers.solvers.slabs import Slabs
from tests.mpi.programs.slabs import cuts

COMM = MPI.COMM_WORLD
LOCAL = {"backend": "sequential", "compiled": False}


def tanh(h, x, a):
    return np.tanh(a * h + x)


def coupled(h, x, theta):
    W, b = theta["W"], theta["b"]
    return np.tanh(h @ W + x + b)


def pairs(h, x, a):
    u, v = h[..., :3], h[..., 3:]
    return np.concatenate([np.tanh(a * v + x), 0.5 * u - a * np.sin(v)], axis=-1)


def problem(name, T, batch=(), dtype=np.float64):
    """Return recurrence, x, h0 and theta."""
    rng = np.random.default_rng(3)
    m = {"diagonal": 4, "blocks": 3, "dense": 3}[name]
    d = {"diagonal": 4, "blocks": 6, "dense": 3}[name]
    x = rng.normal(size=(T, *batch, m)).astype(dtype)
    h0 = rng.normal(size=(*batch, d)).astype(dtype)
    W = {"W": (0.3 * rng.normal(size=(3, 3))).astype(dtype), "b": np.full(3, 0.1, dtype)}
    recurrence, theta = {
        "diagonal": (prs.Recurrence(tanh, block_size=1), dtype(0.6)),
        "blocks": (prs.Recurrence(pairs, block_size=2), dtype(0.4)),
        "dense": (prs.Recurrence(coupled), W),
    }[name]
    return recurrence, x, h0, theta


def slab(array, cut):
    return array[cut[COMM.rank] : cut[COMM.rank + 1]]


def shared(case, cut, **options):
    """Return the solution of this rank's slab."""
    recurrence, x, h0, theta = case
    return prs.solve(recurrence, slab(x, cut), h0, theta, comm=COMM, **options)


def both(case, cut, **options):
    """Return the solution of this rank's slab, and that of one process."""
    return shared(case, cut, **options), prs.solve(*case, **options)


METHODS = {
    "newton": prs.newton(),
    "quasi-newton": prs.quasi_newton(),
    "chord": prs.chord(),
    "broyden": prs.broyden(),
    "jacobi": prs.jacobi(),
    "relaxation": prs.relaxation(0.9),
    "hutchinson": prs.quasi_newton(prs.hutchinson(2)),
    "sequential": prs.sequential(),
}


def solutions_are_those_of_one_process():
    for name in ("diagonal", "blocks", "dense"):
        chosen = list(METHODS) if name == "blocks" and COMM.size < 4 else ["newton", "sequential"]
        for label in chosen:
            method = METHODS[label]
            for T, batch in ((1, ()), (12, (3,))):
                case = problem(name, T, batch)
                whole = prs.solve(*case, method=method, **LOCAL)
                for cut in cuts(T, COMM.size)[T == 1 :]:
                    mine = shared(case, cut, method=method, **LOCAL)
                    where = (name, label, T, cut, mine.n_iter, whole.n_iter)
                    assert mine.n_iter == whole.n_iter, where
                    assert (mine.sequence_status == whole.sequence_status).all(), where
                    np.testing.assert_allclose(mine.h, slab(whole.h, cut), rtol=0, atol=1e-12)
                    np.testing.assert_allclose(
                        mine.residual_norms, whole.residual_norms, rtol=1e-6, atol=1e-13
                    )
                    assert mine.steps_before == cut[COMM.rank]


def everything_is_empty():
    for T, batch in ((0, ()), (0, (2,)), (4, (0,))):
        case, cut = problem("diagonal", T, batch), cuts(T, COMM.size)[2]
        for method in ("newton", "sequential", "auto", Slabs(prs.sequential()), prs.newton(2)):
            mine = shared(case, cut, method=method, **LOCAL)
            assert mine.success and mine.h.shape == slab(case[1], cut).shape, method
            assert mine.residual_norms.shape == (mine.n_iter + 1, *batch)
            gathered = mine.gather()
            assert gathered is None or gathered.shape == case[1].shape
            assert np.array_equal(prs.gradients(mine, mine.h).h0, np.zeros(case[2].shape))


def chunks_end_where_slabs_do():
    case = problem("dense", 67, (2,))
    for sizes in (1, 2, 3):
        cut = np.minimum(np.arange(COMM.size + 1) * 8 * sizes, 67)
        cut[-1] = 67
        for method in (
            prs.newton(8),
            prs.quasi_newton(prs.scaled(0.1)),
            prs.newton(8, linearization=prs.diagonal),
        ):
            mine, whole = both(case, cut, method=method, **LOCAL)
            assert mine.n_iter == whole.n_iter and mine.status is whole.status
            np.testing.assert_allclose(mine.h, slab(whole.h, cut), rtol=0, atol=1e-12)


def ends_differ_between_sequences():
    """One sequence overflows, one converges at once, one later: as in one process."""

    def step(h, x, _):
        return np.where(x > 0, x * h * h, 0.5 * h + x)

    rng = np.random.default_rng(0)
    x = -rng.uniform(size=(40, 3, 1))
    x[:, 0] = 0
    x[20:, 1] = 4.0
    case = step, x, np.array([[0.0], [3.0], [1.0]]), None
    for cut in cuts(40, COMM.size):
        mine, whole = both(case, cut, method="newton", on_failure="warn", **LOCAL)
        assert (mine.sequence_status == whole.sequence_status).all(), mine
        assert whole.status is prs.Status.DIVERGED
        finite = [status.success for status in whole.sequence_status]
        np.testing.assert_allclose(mine.h[:, finite], slab(whole.h, cut)[:, finite], atol=1e-12)
    few = both(
        problem("diagonal", 40),
        cuts(40, COMM.size)[0],
        method="jacobi",
        max_iter=3,
        on_failure="warn",
        **LOCAL,
    )
    assert few[0].status is few[1].status is prs.Status.MAX_ITER


def kernels_run_in_slabs():
    case = problem("diagonal", 300, (2,), np.float32)
    even, _, empty = cuts(300, COMM.size)
    for method in ("newton", "sequential", "auto"):
        whole = prs.solve(*case, method=method, compiled=True)
        expected = prs.gradients(whole, whole.h)
        for cut in (even, empty):
            mine = shared(case, cut, method=method, compiled=True)
            assert mine.compiled and mine.success and mine.backend == "numba"
            assert (method == "auto") == mine.method.startswith("slabs("), mine.method
            np.testing.assert_allclose(mine.h, slab(whole.h, cut), rtol=0, atol=3e-6)
            found = prs.gradients(mine, mine.h)
            np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-4)
            np.testing.assert_allclose(found.x, slab(expected.x, cut), rtol=0, atol=1e-4)
    solution = prs.solve(case[0], slab(case[1], even), *case[2:], backend="mpi")
    assert solution.backend == "mpi" and solution.ranks.several


def slabs_meet():
    """Recurrences that forget, that never do, and one that overflows."""
    rng = np.random.default_rng(1)
    method = Slabs(prs.sequential())

    def add(h, x, _):
        return h + x

    def grow(h, x, _):
        return h * h + x

    sums = add, np.round(100 * rng.normal(size=(700, 2, 1))), np.ones((2, 1)), None
    overflow = grow, np.full((700, 2, 1), [[0.0], [2.0]]), np.zeros((2, 1)), None
    for case in (problem("diagonal", 700, (2,)), sums, overflow):
        whole = prs.rollout(*case, compiled=False)
        for cut in cuts(700, COMM.size):
            mine = shared(case, cut, method=method, on_failure="warn", **LOCAL)
            good = np.isfinite(whole).all(axis=(0, 2))
            expected = np.where(good, prs.Status.CONVERGED, prs.Status.DIVERGED)
            assert (mine.sequence_status == expected).all() or COMM.size == 1
            found, right = mine.h[:, good], slab(whole, cut)[:, good]
            np.testing.assert_allclose(found, right, rtol=0, atol=1e-11)
            if case is sums:
                assert np.array_equal(found, right)
    mine = shared(problem("diagonal", 0, (2,)), cuts(0, COMM.size)[0], method=method, **LOCAL)
    assert mine.success and mine.h.shape == (0, 2, 4)


def derivatives_are_those_of_one_process():
    for name in ("diagonal", "blocks", "dense"):
        case = problem(name, 25, (2,))
        whole = prs.solve(*case, method="newton", **LOCAL)
        dh = np.random.default_rng(5).normal(size=whole.h.shape)
        expected, expected_bound = prs.gradients(whole, dh), whole.error_bound()
        dx, dh0 = np.cos(np.arange(case[1].size)).reshape(case[1].shape), np.ones_like(case[2])
        expected_change = prs.jvp(whole, dx=dx, dtheta=case[3], dh0=dh0)
        for cut in cuts(25, COMM.size):
            mine = shared(case, cut, method="newton", **LOCAL)
            found = prs.gradients(mine, slab(dh, cut))
            close = {"rtol": 1e-10, "atol": 1e-11}
            np.testing.assert_allclose(found.x, slab(expected.x, cut), **close)
            np.testing.assert_allclose(found.h0, expected.h0, **close)
            for a, b in zip(*(tree.flatten(g.theta)[0] for g in (found, expected)), strict=True):
                np.testing.assert_allclose(a, b, **close)
                assert len(set(COMM.allgather(np.asarray(a).tobytes()))) == 1
            change = prs.jvp(mine, dx=slab(dx, cut), dtheta=case[3], dh0=dh0)
            np.testing.assert_allclose(change, slab(expected_change, cut), **close)
            bound = mine.error_bound()
            np.testing.assert_allclose(bound, slab(expected_bound, cut), rtol=1e-2, atol=1e-13)
            gathered = mine.gather()
            if COMM.rank == 0:
                np.testing.assert_allclose(gathered, whole.h, rtol=0, atol=1e-12)
            else:
                assert gathered is None


def messages_do_not_grow_with_time():
    """What an iteration sends is within what docs/distributed.md says, whatever T is."""
    B, k, n, d = 2, 2, 3, 6
    for method in ("newton", "jacobi"):
        sent = []
        for T in (16 * COMM.size, 64 * COMM.size):
            recurrence, x, h0, theta = problem("blocks", T, (B,))
            few = {"method": method, "on_failure": "warn", "atol": 0.0, "rtol": 0.0, **LOCAL}
            mine = slab(x, cuts(T, COMM.size)[0])
            a, b = (
                prs.solve(
                    recurrence, mine, h0, theta, comm=COMM, max_iter=limit, **few
                ).communication
                for limit in (1, 2)
            )
            sent.append((b.calls - a.calls, b.nbytes - a.nbytes))
        assert sent[0] == sent[1], sent
        numbers = B * (k * k * n + d) + 1 + 3 * (B * d + 1) + 4 * B + 1
        calls, nbytes = sent[0]
        assert calls <= 14 and nbytes <= 8 * numbers + 4 * 7, sent
        assert (sent[0][1] > 0) == (COMM.size > 1)


CHECKS = (
    solutions_are_those_of_one_process,
    everything_is_empty,
    chunks_end_where_slabs_do,
    ends_differ_between_sequences,
    slabs_meet,
    derivatives_are_those_of_one_process,
    messages_do_not_grow_with_time,
)
IN_KERNELS = (kernels_run_in_slabs,)


def main():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", prs.ConvergenceWarning)
        for check in CHECKS + IN_KERNELS * (COMM.size == 2):
            check()
