"""What ranks compute together is what one process computes: with threads as ranks, without MPI.

They run what `test_mpi` runs in processes.
"""

import pytest

from tests.mpi import double

with double.installed():
    from tests.mpi.programs import devices, faults, scans, solves

CHECKS = [
    *(scans.CHECKS + solves.CHECKS + faults.CHECKS),
    *(scans.IN_KERNELS + solves.IN_KERNELS),
    devices.slabs_on_devices,
]


@pytest.mark.filterwarnings("ignore::pararnn_solvers.ConvergenceWarning")
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__qualname__)
def test_ranks_that_are_threads(check, ranks):
    double.run(ranks, check)
