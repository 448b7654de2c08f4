"""Under mpirun: slabs on devices, of CuPy's double, are solved as those on the host are."""

import sys

import numpy as np
from mpi4py import MPI

import pararnn_solvers as prs
from tests.cuda_on_cpu import fake_cupy
from tests.mpi.programs.slabs import cuts
from tests.mpi.programs.solves import problem, slab

COMM = MPI.COMM_WORLD


def slabs_on_devices():
    import cupy  # the double, which is there now

    with cupy.cuda.Device(0):
        for name in ("diagonal", "dense"):
            recurrence, x, h0, theta = problem(name, 12, (2,), np.float32)
            whole = prs.solve(recurrence, x, h0, theta, method="newton", compiled=False)
            cut = cuts(12, COMM.size)[1]
            if name == "dense":
                theta = {key: cupy.asarray(value) for key, value in theta.items()}
            mine = prs.solve(recurrence, cupy.asarray(slab(x, cut)), cupy.asarray(h0), theta,
                             method="newton", compiled=False, comm=COMM)  # fmt: skip
            assert type(mine.h) is type(cupy.asarray(h0)) and mine.n_iter == whole.n_iter
            np.testing.assert_allclose(mine.h.get(), slab(whole.h, cut), rtol=0, atol=1e-5)
            expected, found = prs.gradients(whole, whole.h), prs.gradients(mine, mine.h)
            np.testing.assert_allclose(found.h0.get(), expected.h0, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.x.get(), slab(expected.x, cut), rtol=1e-4, atol=1e-5)
            turn = prs.solve(recurrence, cupy.asarray(slab(x, cut)), cupy.asarray(h0), theta,
                             method="sequential", compiled=False, comm=COMM)  # fmt: skip
            np.testing.assert_allclose(turn.h.get(), slab(whole.h, cut), rtol=0, atol=1e-5)
            gathered = mine.gather()
            assert (gathered is None) == (COMM.rank > 0)


if __name__ == "__main__":
    with fake_cupy.installed():
        slabs_on_devices()
    sys.stdout.write("passed\n")
