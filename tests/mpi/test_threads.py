"""What ranks compute together is what one process computes: with threads as ranks, without MPI.

They run what `test_mpi` runs in processes.
"""

import warnings

import pytest

import pararnn_solvers as prs
from tests.cuda_on_cpu import fake_cupy
from tests.mpi import double

with double.installed():
    from tests.mpi.programs import devices, faults, scans, solves

CHECKS = [
    *(scans.CHECKS + solves.CHECKS + faults.CHECKS),
    *(scans.IN_KERNELS + solves.IN_KERNELS),
]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(
    "check", CHECKS, ids=lambda c: f"{c.__module__.rpartition('.')[2]}.{c.__name__}"
)
def test_ranks_that_are_threads(check, ranks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", prs.ConvergenceWarning)
        double.run(ranks, check)


@pytest.mark.parametrize("ranks", [2, 3])
def test_slabs_on_devices(ranks):
    with fake_cupy.installed():
        double.run(ranks, devices.slabs_on_devices)
