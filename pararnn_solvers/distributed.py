"""Solves whose steps are shared by ranks: what they take, and what all must be given alike."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.communicators import mpi
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import Scan
from pararnn_solvers.linear.mpi_scan import OverRanks
from pararnn_solvers.ranks import ALONE, Ranks
from pararnn_solvers.solvers.auto import Auto
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.solvers.sequential import Sequential
from pararnn_solvers.solvers.slabs import Slabs
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.step_length import full_step, relaxed
from pararnn_solvers.system import System

# Options that ranks cannot take -> what to do instead.
REFUSED = {
    "lengths": "cut padding off, or give each sequence a process of its own",
    "resets": "give each sequence a process of its own",
    "callback": "look at the solution; a callback would have to stop all ranks at once",
    "progress": "leave it out",
}
POINTWISE = "take full steps or relaxed(omega), which need no sums over all of time"


def ranks_of(comm: Any, backend: Any) -> Ranks:
    """Return the ranks that share a solve: those of `comm`, or of COMM_WORLD for ``"mpi"``.

    Raises
    ------
    BackendUnavailable, InvalidInput
    """
    if comm is None:
        is_mpi = isinstance(backend, str) and backend == "mpi"
        return Ranks(mpi().COMM_WORLD) if is_mpi else ALONE
    if not all(hasattr(comm, name) for name in ("Exscan", "Split", "rank", "size")):
        raise InvalidInput(
            f"comm is {comm!r}; expected a communicator of mpi4py, such as MPI.COMM_WORLD"
        )
    mpi()  # says so if the launcher belongs to another MPI
    return Ranks(comm)


def require_one_process(who: str, options: dict[str, Any]) -> None:
    """Raise InvalidInput for options of `solve` that share the steps between ranks."""
    backend = options.get("backend")
    if options.get("comm") is not None or (isinstance(backend, str) and backend == "mpi"):
        raise InvalidInput(
            f"{who} solves in one process, and comm= or backend='mpi' shares the steps between "
            "ranks; call pararnn_solvers.solve(..., comm=comm) for that"
        )


def require_shareable(method: Any, guess: Any, on_failure: str, given: dict[str, Any]) -> None:
    """Raise InvalidInput for a method or an option that cannot work over ranks.

    Parameters
    ----------
    given : dict
        The values of the options in :data:`REFUSED`.
    """
    for name, remedy in REFUSED.items():
        if given[name] is not None and given[name] is not False:
            raise InvalidInput(f"{name} cannot be used where ranks share the steps: {remedy}")
    if on_failure == "sequential":
        raise InvalidInput(
            "on_failure='sequential' cannot be used where ranks share the steps: catch "
            "ConvergenceError on all ranks, and solve again by method='sequential'"
        )
    if callable(guess):
        raise InvalidInput(
            "guess is a function, which would see one slab as a whole trajectory; pass this rank's "
            "slab of the guess, or the name of one"
        )
    if isinstance(method, Newton):
        if method.window is not None:
            raise InvalidInput(
                f"{method} moves a window, which lies within one slab or few; ranks take newton(), "
                "quasi_newton(), newton(chunk=S) and their like, or sequential()"
            )
        if method.step_length is not full_step and not isinstance(method.step_length, relaxed):
            raise InvalidInput(f"{method} cannot be used where ranks share the steps; {POINTWISE}")
    elif not isinstance(method, (Auto, Sequential, Slabs)):
        raise InvalidInput(f"{method} is not known to work over ranks; pass newton() or its like")


def over_ranks(system: System, method: Any, scan: Scan, said: dict[str, str]) -> Scan:
    """Return the scan over all ranks, after a look at whether they were given the same problem.

    Parameters
    ----------
    system : System
        This rank's slab.
    scan : callable
        Solves the linear recurrence of a slab.
    said : dict
        What else has to be the same everywhere, as text.

    Raises
    ------
    InvalidInput
        On all ranks, and says which two differ in what.
    """
    leaves, _ = tree.flatten(system.theta)
    paths, recurrence, x = tree.paths(system.theta), system.recurrence, system.x
    alike = {
        "the shape of h0": f"{system.h0.shape}",
        "the dtype": f"{system.h0.dtype}",
        "x": "None" if x is None else f"an array (T, ..., {x.shape[-1]})",
        "step": getattr(recurrence.step, "__qualname__", type(recurrence.step).__name__),
        "block_size": f"{recurrence.block_size}",
        **said,
        "h0": digest(system.h0),
        "the nesting of theta": " ".join(paths),
        **{path: digest(leaf) for path, leaf in zip(paths, leaves, strict=True)},
    }
    system.ranks.require_same(alike)
    require_whole_chunks(system, method)
    return OverRanks(system.ranks, scan)


def digest(value: Any) -> str:
    """Return a text that is the same for equal values."""
    array = np.asarray(arrays.on_host(value))
    if array.dtype == object:
        return repr(value)
    text = hashlib.sha256(array.tobytes()).hexdigest()[:12]
    return f"an array {array.shape} in {array.dtype} with digest {text}"


def require_whole_chunks(system: System, method: Any) -> None:
    """Raise InvalidInput unless chunks of multiple shooting end where slabs do, but the last."""
    chunk = method.chunk if isinstance(method, Newton) else 1
    T = system.shape[0]
    if T % chunk and system.steps_before + T < system.steps_in_all:
        raise InvalidInput(
            f"a slab of {T} steps is no whole number of chunks of {chunk}; share the steps out so "
            "that every slab but the last is: chunks do not reach from one rank to the next"
        )


def slab_solution(solution: Solution, flat: System, system: System) -> tuple[Solution, System]:
    """Return the solution of a slab and its equations, from the state that arrives.

    Parameters
    ----------
    flat : System
        What was solved, with one batch axis.
    system : System
        The same with the user's.
    """
    before = flat.ranks.state_before(solution.h, flat.h0).reshape(system.h0.shape)
    return replace(solution, steps_before=flat.steps_before), system.alone(before)
