"""The PyPI package ``accelerated-scan``: diagonal scans whose lanes lie apart, time inside."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.gpu.cases import components
from pararnn_solvers.bench.gpu.torch_loop import from_device, to_device
from pararnn_solvers.bench.gpu.work import Work
from pararnn_solvers.bench.models import Parts
from pararnn_solvers.typing import Array

LONGEST_WARP = 1 << 16
"""Steps, a power of two, of its CUDA kernel."""


def scan(work: Work) -> list[Variant]:
    """Return its Triton kernel, and its CUDA kernel where that takes the length and compiles."""
    if components(work.case) > 1:
        raise NotComparable("has no blocks")
    triton_scan = importlib.import_module("accelerated_scan.scalar").scan
    (blocks,), rhs = work.problem.theta, work.problem.u
    assert rhs is not None
    gates = to_device(lanes_first(blocks[..., 0, 0, :]))
    tokens = to_device(lanes_first(rhs))

    def way(function: Any, note: str) -> Variant:
        return Variant(
            lambda: function(gates, tokens),
            lambda h: time_first(h, work),
            lambda _: note,
        )

    steps = work.case.steps
    if steps > LONGEST_WARP or steps & (steps - 1):
        return [way(triton_scan, "Triton; its CUDA kernel takes 2^16 steps at most")]
    try:
        cuda_scan = importlib.import_module("accelerated_scan.warp").scan
    except Exception as cause:  # it compiles when imported, for which much can be missing
        return [way(triton_scan, f"Triton; its CUDA kernel: {type(cause).__name__}")]
    return [way(triton_scan, "Triton"), way(cuda_scan, "CUDA")]


def lanes_first(v: Array) -> Array:
    """Return (T, *batch, n) as (batch, n, T), contiguous."""
    return np.ascontiguousarray(np.moveaxis(v.reshape(len(v), -1, v.shape[-1]), 0, -1))


def time_first(h: Any, work: Work) -> Parts:
    """Return what `lanes_first` moved, as `work.error` compares it."""
    states = from_device(h.movedim(-1, 0))
    return (states.reshape(work.case.steps, *work.h0.shape),)
