"""NVIDIA's compiler keeps every kernel of the cells in registers, and float32 in float32."""

import numpy as np
import pytest

from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.compiled.cuda_program import device_program
from tests.cuda_on_cpu import nvrtc

pytestmark = pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
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
        "apply<0>",
        f"apply<{k * k}>",
        f"sweep<Direct<1, 8>, {k}>",
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


def test_fast_math_is_the_hardware_s(device):
    def instructions(fast_math):
        code = program_of("gru", np.float32, fast_math).code
        return nvrtc.compile(code, ["apply<0>"], nvrtc.ARCHITECTURES[0]).ptx

    assert "tanh.approx.f32" in instructions(True)
    assert "tanh.approx.f32" not in instructions(False)
    assert "approx" not in program_of("gru", np.float64, True).step_source
