"""Under mpirun: everything that one process computes, computed by several."""

import sys

from tests.mpi.programs import scans

scans.main()
sys.stdout.write("passed\n")
