"""Kernels compile wherever the package is installed."""

from __future__ import annotations

import numpy as np

from pararnn_solvers.linear.jit import compiled


def test_a_kernel_that_cannot_be_cached_is_compiled_all_the_same():
    scope = {}
    exec("def double(x):\n    x[0] *= 2", scope)  # no file, hence nowhere to keep the code
    x = np.array([21.0])
    compiled(scope["double"])(x)
    assert x[0] == 42
