"""Programs import mpi4py, which starts MPI; pytest must not."""

collect_ignore = ["programs"]
