"""Problems of the CPU's kernels, with their arrays on the device."""

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.compiled.cuda_program import device_program
from tests.compiled.cases import autonomous, cell, diagonal, program_of, system_of
from tests.strategies import gru

SINGLE = {"dtype": np.float32}
FAMILIES = {
    "diagonal": diagonal,
    "single gru": lambda **options: gru(**options, **SINGLE),
    "cell": cell,
    "autonomous": autonomous,
}


class Problem(NamedTuple):
    case: Any
    system: Any  # on the host
    cpu: Any  # the program of the CPU's kernels
    gpu: Any
    x: Any  # on the device
    h0: Any


def put(device, array):
    return None if array is None else device.asarray(array)


def problem(device, case, fast_math=False):
    system = system_of(case)
    k, _ = system.recurrence.structure(system.shape[-1])
    theta = put_tree(device, system.theta)
    x, h0 = put(device, system.x), put(device, system.h0)
    made = device_program(system.recurrence.step, h0, x, theta, k, fast_math)
    return Problem(case, system, program_of(case), made, x, h0)


def put_tree(device, theta):
    leaves, rebuild = tree.flatten(theta)
    return rebuild([put(device, a) if isinstance(a, np.ndarray) else a for a in leaves])


def states(problem, device, seed=0):
    """Some states of a trajectory, on the host and on the device."""
    rng = np.random.default_rng(seed)
    h = rng.uniform(-1, 1, problem.system.shape).astype(problem.system.h0.dtype)
    return h, device.asarray(h)


def rounding(case):
    """What one evaluation of a step may be off by: tens of operations on numbers of at most 1."""
    return 32 * float(np.finfo(case.h0.dtype).eps)
