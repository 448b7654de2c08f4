"""Under mpirun: what goes wrong on one rank is raised on all, and nobody waits."""

import os
import signal
import sys

import numpy as np
from mpi4py import MPI

import pararnn_solvers as prs

COMM = MPI.COMM_WORLD
T = 8


class Unsendable(Exception):
    """Cannot be made from its message."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def is_last():
    return COMM.rank == COMM.size - 1


def tanh(h, x, a):
    return np.tanh(a * h + x)


def solve(step=tanh, x=None, h0=None, theta=0.5, **options):
    x = np.random.default_rng(COMM.rank).normal(size=(T, 2, 3)) if x is None else x
    h0 = np.zeros((2, 3)) if h0 is None else h0
    options = {"method": "newton", "backend": "sequential", "comm": COMM, **options}
    return prs.solve(step, x, h0, theta, **options)


def raised_by(call):
    try:
        call()
    except Exception as error:
        return error
    return None


def everywhere(call, kind, *words):
    """Check that all ranks raise an error of one kind whose text and notes have these words."""
    error = raised_by(call)
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert type(error) is kind, (type(error), text)
    for word in words:
        assert word in text, (word, text)
    texts = COMM.allgather(str(error))
    assert len(set(texts)) == 1, texts
    assert solve().success  # and the next solve is not disturbed


def failing(error, after=0):
    """Return a step that raises on the last rank, on whole slabs, after so many calls."""
    calls = 0

    def step(h, x, a):
        nonlocal calls
        calls += h.ndim == 3 and len(h) == T
        if is_last() and calls > after:
            raise error
        return tanh(h, x, a)

    return step


def a_step_that_raises():
    last = COMM.size - 1
    for after in (0, 1, 2, 4):  # the guess, the first residual, in iterations
        everywhere(lambda n=after: solve(failing(ZeroDivisionError("oh"), n)), ZeroDivisionError,
                   "oh", f"raised on rank {last}")  # fmt: skip
    everywhere(lambda: solve(failing(Unsendable(1, 2))), RuntimeError,
               f"rank {last}: Unsendable: 1 2")  # fmt: skip
    everywhere(lambda: solve(failing(prs.InvalidInput("bad"))), prs.InvalidInput,
               f"rank {last}: bad")  # fmt: skip


def a_step_that_raises_in_its_turn():
    made = 0

    def step(h, x, a):
        nonlocal made
        made += h.ndim == 2
        if COMM.rank == 0 and made > 12:  # beyond what is tried beforehand
            raise KeyError("turn")
        return tanh(h, x, a)

    everywhere(lambda: solve(step, x=np.ones((20, 2, 3)), method="sequential"), KeyError, "turn")
    assert COMM.rank == 0 or made <= 12, made  # those after it do not begin


def data_that_are_not_finite():
    x = np.ones((T, 2, 3))
    x[3, 1, 2] = np.nan if is_last() else 1.0
    where = f"rank {COMM.size - 1}: x is nan at index (3, 1, 2)"
    everywhere(lambda: solve(x=x), prs.InvalidInput, where)


def a_recurrence_that_overflows():
    def step(h, x, _):
        return np.where(x > 0, h * h, 0.5 * h) + x

    x = np.full((T, 2, 3), 1e4 if is_last() else 0.0)
    for method in ("newton", "sequential"):
        error = raised_by(lambda m=method: solve(step, x=x, h0=np.ones((2, 3)), method=m))
        assert type(error) is prs.ConvergenceError and error.solution.status.name == "DIVERGED"
        assert ("on another rank" in str(error)) != is_last()
        assert ("first of this rank at step" in str(error)) == is_last()
        assert len(error.solution.h) == T
    assert solve().success


def problems_that_differ():
    refuse = [
        ({"theta": 0.5 + is_last()}, "theta differs"),
        ({"h0": np.full((2, 3), float(is_last()))}, "h0 differs"),
        ({"method": "chord" if is_last() else "newton"}, "method differs"),
        ({"atol": 1e-3 * (1 + is_last())}, "stopping differs"),
        (
            {"x": np.ones((T, 2 + is_last(), 3)), "h0": np.zeros((2 + is_last(), 3))},
            "the shape of h0 differs",
        ),
        ({"x": np.ones((T, 2, 1 if is_last() else 3))}, "x differs"),
    ]
    kind = np.float32 if is_last() else np.float64
    arrays = {"x": np.ones((T, 2, 3), kind), "h0": np.zeros((2, 3), kind), "theta": None}
    refuse.append(({**arrays, "step": lambda h, x, _: h + x}, "the dtype differs"))
    for options, message in refuse:
        everywhere(
            lambda o=options: solve(**o), prs.InvalidInput, message, f"on rank {COMM.size - 1}"
        )


def what_ranks_do_not_take():
    refuse = [
        ({"method": "levenberg_marquardt"}, "take full steps"),
        ({"method": "damped_newton"}, "take full steps"),
        ({"method": prs.anderson(2)}, "take full steps"),
        ({"method": prs.windowed()}, "moves a window"),
        ({"callback": print}, "callback cannot be used"),
        ({"lengths": np.array([3, 4])}, "lengths cannot be used"),
        ({"on_failure": "sequential"}, "on_failure='sequential'"),
        ({"guess": prs.jacobi_sweeps(1)}, "guess is a function"),
        ({"method": prs.newton(3)}, "no whole number of chunks of 3"),
        ({"backend": "numbr"}, "no backend is called"),
    ]
    for options, message in refuse:
        everywhere(lambda o=options: solve(**o), prs.InvalidInput, "rank 0: ", message)
    assert type(raised_by(lambda: solve(comm="world"))) is prs.InvalidInput


def derivatives_that_fail():
    def vjp(h, x, a, lam):
        raise FloatingPointError("in vjp")

    recurrence = prs.Recurrence(tanh, block_size=1, vjp=vjp if is_last() else None)
    solution = solve(recurrence)
    everywhere(lambda: prs.gradients(solution, solution.h), FloatingPointError, "in vjp")
    everywhere(
        lambda: prs.gradients(solution, solution.h[is_last() :]), prs.InvalidInput, "dh has shape"
    )


def roots_that_are_none():
    solution = solve()
    everywhere(lambda: solution.gather(root=COMM.size), prs.InvalidInput, "expected a rank, 0 to")
    everywhere(
        lambda: solution.gather(root=int(is_last())), prs.InvalidInput, "root differs between"
    )


CHECKS = (
    a_step_that_raises,
    a_step_that_raises_in_its_turn,
    data_that_are_not_finite,
    a_recurrence_that_overflows,
    problems_that_differ,
    what_ranks_do_not_take,
    derivatives_that_fail,
    roots_that_are_none,
)


def main():
    for check in CHECKS:
        check()
    sys.stdout.write("passed\n")


def killed():
    """A rank that the system kills: MPI ends the others."""

    def step(h, x, a):
        if is_last() and h.ndim == 3 and len(h) == T:
            os.kill(os.getpid(), signal.SIGKILL)
        return tanh(h, x, a)

    solve(step)
    sys.stdout.write("passed\n")


def uncaught():
    """An error outside of what ranks do together, under ``python -m mpi4py``."""
    solve()
    if is_last():
        raise KeyError("outside of a solve")
    solve()
    sys.stdout.write("passed\n")


def alone():
    """Several processes that do not know of one another."""
    try:
        prs.solve(tanh, np.ones((3, 1)), np.zeros(1), 0.5, backend="mpi")
    except prs.BackendUnavailable as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    {"main": main, "killed": killed, "uncaught": uncaught, "alone": alone}[sys.argv[1]]()
