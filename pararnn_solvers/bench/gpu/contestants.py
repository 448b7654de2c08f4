"""Who computes on the GPU: the contestants by name, the packages they need, what they are.

They are called with a `work.Work`. The ``collect`` of a variant returns the arrays that
`work.error` compares, or None where it has found by itself that all is right.
"""

from __future__ import annotations

from pararnn_solvers.bench.contestants import Contestant
from pararnn_solvers.bench.gpu.cases import COPY, GRADIENT, MAP, SCAN, SOLVE

LONGEST_LOOP = 4096
"""Steps of those that launch kernels for each step."""


TORCH, JAX = ("torch",), ("jax",)

CONTESTANTS = {
    COPY: Contestant("gpu.floors:copy", (), "the floor: as many bytes, read and written by a copy"),
    MAP: Contestant("gpu.floors:apply", (), "the second floor: f at given states, no recurrence"),
    "GEMM": Contestant(
        "gpu.floors:product", (), "of a dense step: one product for all steps, no gates"
    ),
    SCAN: Contestant("gpu.ours:scan", (), "this package's backend of linear recurrences"),
    "rollout": Contestant("gpu.ours:rollout", (), "this package's kernel: one lane a thread"),
    "shooting": Contestant("gpu.ours:shooting", (), "this package's kernels: one chunk a thread"),
    "newton pass": Contestant("gpu.ours:newton_pass", (), "this package's kernel: one iteration"),
    "adjoint": Contestant(
        "gpu.ours:adjoint", (), "this package's kernel: gradients at given states"
    ),
    "newton": Contestant("gpu.ours:newton", (), "this package: solve(method='newton'), end to end"),
    SOLVE: Contestant("gpu.ours:solve", (), "this package: solve, end to end"),
    GRADIENT: Contestant(
        "gpu.ours:gradient", (), "this package: solve, then gradients, end to end"
    ),
    "PyTorch loop": Contestant(
        "gpu.torch_loop:eager", TORCH, "step by step in Python", LONGEST_LOOP
    ),
    "torch.compile loop": Contestant(
        "gpu.torch_loop:compiled", TORCH, "the compiled cell, step by step in Python", LONGEST_LOOP
    ),
    "PyTorch graph": Contestant(
        "gpu.torch_loop:graph", TORCH, "1 or 8 compiled steps, all in one CUDA graph", LONGEST_LOOP
    ),
    "torch.nn.GRU": Contestant(
        "gpu.torch_loop:module", TORCH, "cuDNN, with its drives; dense only"
    ),
    "accelerated-scan": Contestant(
        "gpu.accelerated:scan",
        ("torch", "accelerated_scan"),
        "its CUDA kernel or its Triton kernel",
    ),
    "pararnn-torch": Contestant(
        "gpu.pararnn_torch:newton", ("torch", "pararnn"), "its fused Newton's method"
    ),
    "jax.lax.scan": Contestant("gpu.jax_device:scan", JAX, "jitted; unroll=1 or 8", LONGEST_LOOP),
    "JAX Newton": Contestant(
        "gpu.jax_device:newton", JAX, "Newton's method by associative_scan, jitted"
    ),
    "JAX associative_scan": Contestant("gpu.jax_device:associative", JAX, "of linear maps, jitted"),
}
"""The contestants by name, in the order of the table."""
