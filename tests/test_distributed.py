"""What ranks take and do not, without MPI; over ranks, see tests/mpi."""

import importlib.util

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.distributed import digest, require_one_process, require_shareable

NOTHING = {"lengths": None, "resets": None, "callback": None, "progress": False}


def step(h, x, a):
    return np.tanh(a * h + x)


@pytest.mark.parametrize(
    "method",
    [
        prs.newton(),
        prs.newton(8),
        prs.quasi_newton(),
        prs.chord(),
        prs.broyden(),
        prs.picard(),
        prs.jacobi(),
        prs.relaxation(0.5),
        prs.sequential(),
        prs.auto(),
    ],
    ids=str,
)
def test_methods_that_look_at_one_step_and_the_one_before_are_taken(method):
    require_shareable(method, None, "raise", NOTHING)
    require_shareable(method, np.ones(3), "warn", NOTHING)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (prs.levenberg_marquardt(), "need no sums over all of time"),
        (prs.damped_newton(), "need no sums over all of time"),
        (prs.anderson(3), "need no sums over all of time"),
        (prs.windowed(), "moves a window"),
        ("something else", "not known to work over ranks"),
    ],
    ids=str,
)
def test_methods_that_look_further_are_refused(method, words):
    with pytest.raises(prs.InvalidInput, match=words):
        require_shareable(method, None, "raise", NOTHING)


@pytest.mark.parametrize("name", NOTHING)
def test_options_that_ranks_cannot_take_are_refused(name):
    with pytest.raises(prs.InvalidInput, match=f"{name} cannot be used where ranks share"):
        require_shareable(prs.newton(), None, "raise", {**NOTHING, name: np.ones(3, bool)})


def test_digests_tell_equal_values_from_others():
    a = np.arange(6.0)
    assert digest(a) == digest(a.copy())
    others = [a + 1, a.astype(np.float32), a.reshape(2, 3), 1.0, "text", None]
    assert len({digest(value) for value in (a, *others)}) == 1 + len(others)
    assert digest(0.5) == digest(np.array(0.5))


def test_what_solves_in_one_process_says_so():
    x, h0 = np.ones((4, 1)), np.zeros(1)
    with pytest.raises(prs.InvalidInput, match="stream solves in one process"):
        prs.stream(step, [x], h0, 0.5, backend="mpi")
    with pytest.raises(prs.InvalidInput, match="stream solves in one process"):
        prs.stream(step, [x], h0, 0.5, comm=object())
    with pytest.raises(prs.InvalidInput, match="compare solves in one process"):
        prs.compare(step, x, h0, 0.5, backends=["mpi"])
    require_one_process("this", {"backend": step, "comm": None})
    require_one_process("this", {"backend": "numba"})


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_jax_solves_in_one_process():
    import pararnn_solvers.jax

    with pytest.raises(prs.InvalidInput, match="jax solves in one process"):
        pararnn_solvers.jax.solve(step, np.ones((4, 1)), np.zeros(1), 0.5, backend="mpi")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_pytorch_solves_in_one_process():
    from pararnn_solvers.torch.problem import Problem

    with pytest.raises(prs.InvalidInput, match="PyTorch solves in one process"):
        Problem(prs.Recurrence(step), tuple, options={"backend": "mpi"})
