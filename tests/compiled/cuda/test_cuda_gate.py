"""NVIDIA's compiler keeps every kernel of the cells in registers, and float32 in float32."""

import numpy as np
import pytest

from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.compiled.cuda_dense import compile_dense_cuda, trace_dense
from pararnn_solvers.compiled.cuda_program import device_program
from pararnn_solvers.functions import sigmoid
from tests.cuda_on_cpu import nvrtc

pytestmark = [
    pytest.mark.double,
    pytest.mark.nvrtc,
    pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing())),
]
CELLS = {"gru": (diagonal_gru, 1), "lstm": (diagonal_lstm, 2)}


def program_of(cell, dtype, fast_math=False):
    module, k = CELLS[cell]
    theta = module.init(np.random.default_rng(0), 4, 16, 1, dtype)
    h, x = np.zeros((2, k * 16), dtype), np.zeros((2, 48), dtype)
    return device_program(module.step, h, x, theta, k, fast_math)


def kernels(k):
    """Every kernel, on every memory: the shortest and the longest tiles."""
    forward, backward = ["Direct<1, 4>", "Staged<1, 8>"], ["Direct<-1, 4>", "Staged<-1, 8>"]
    return [
        "count_right",
        "judge",
        "apply<0>",
        f"apply<{k * k}>",
        f"sweep<Direct<1, 8>, {k}>",
        *(f"front<Direct<1, 1>, {p}, {given}>" for p, given in ((4, "false"), (8, "true"))),
        *(f"sweep<{memory}, {c}>" for memory in forward for c in (k, k + k * k)),
        *(f"{name}<{m}>" for m in forward for name in ("meet", "newton_maps", "newton")),
        *(f"{name}<{m}>" for m in backward for name in ("adjoint_maps", "adjoint")),
    ]


@pytest.mark.parametrize("arch", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("cell", CELLS)
def test_float32(device, cell, arch):
    p = program_of(cell, np.float32)
    compiled = nvrtc.compile(p.code, kernels(p.k), arch)
    assert len(compiled.spills) == len(kernels(p.k))
    assert not any(compiled.spills.values()), compiled.spills
    assert not compiled.float64
    assert max(compiled.registers.values()) <= 128  # 512 threads of a multiprocessor


def test_float64(device):
    p = program_of("lstm", np.float64)
    compiled = nvrtc.compile(p.code, kernels(p.k), nvrtc.ARCHITECTURES[-1])
    assert not any(compiled.spills.values()), compiled.spills


APPROXIMATIONS = ("tanh.approx.f32", "ex2.approx", "div.approx.f32")


@pytest.mark.parametrize("arch", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("kernel", ["apply<0>", "sweep<Direct<1, 8>, 1>", "adjoint<Direct<-1, 4>>"])
def test_fast_math_is_the_hardware_s(device, kernel, arch):
    fast, exact = (
        nvrtc.compile(program_of("gru", np.float32, flag).code, [kernel], arch)
        for flag in (True, False)
    )
    assert all(name in fast.ptx for name in APPROXIMATIONS)
    assert "tanh.approx.f32" not in exact.ptx
    assert not any(fast.spills.values()) and not fast.float64
    assert fast.ptx.count("\n") < exact.ptx.count("\n")


def test_fast_math_of_steps_with_matrix_products(device):
    def step(h, x, W):
        return sigmoid(x) * np.tanh(h @ W)

    h, x, W = (np.zeros(shape, np.float32) for shape in ((2, 16), (2, 16), (16, 16)))
    fast, exact = (
        nvrtc.compile(
            compile_dense_cuda(trace_dense(step, h, x, W), flag).code, ["march<2, 2>"], "sm_90"
        )
        for flag in (True, False)
    )
    assert all(name in fast.ptx for name in APPROXIMATIONS)
    assert "tanh.approx.f32" not in exact.ptx
    assert not fast.float64


def test_float64_has_no_approximations(device):
    ptx = [
        nvrtc.compile(program_of("gru", np.float64, flag).code, ["apply<0>"], "sm_90").ptx
        for flag in (True, False)
    ]
    assert ptx[0] == ptx[1]
