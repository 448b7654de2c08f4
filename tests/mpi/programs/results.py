"""Under mpirun: everything that one process computes, computed by several."""

import sys

from tests.mpi.programs import scans, solves

scans.main()
solves.main()
sys.stdout.write("passed\n")
