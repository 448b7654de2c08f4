"""The gate on what NVIDIA's compiler makes of kernels catches spills and float64."""

import pytest

from tests.cuda_on_cpu import nvrtc

pytestmark = [
    pytest.mark.nvrtc,
    pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing())),
]

CODE = """
template <typename T> __global__ void doubled(T* x) { x[threadIdx.x] *= T(2); }
__global__ void literal(float* x) { x[threadIdx.x] = x[threadIdx.x] * 0.1; }
template <int N> __global__ void __launch_bounds__(1024) crowded(float* x, int n) {
    float a[N];
#pragma unroll
    for (int i = 0; i < N; ++i) a[i] = x[i * n + threadIdx.x];
    for (int j = 0; j < n; ++j) {
#pragma unroll
        for (int i = 0; i < N; ++i) a[i] = a[i] * a[(i + 7) % N] + x[j];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i * n + threadIdx.x] = a[i];
}
"""
NAMES = ("doubled<float>", "doubled<double>", "literal", "crowded<4>", "crowded<100>")


@pytest.fixture(params=nvrtc.ARCHITECTURES, scope="module")
def compiled(request):
    return nvrtc.compile(CODE, NAMES, request.param)


def test_every_name_is_compiled(compiled):
    assert {name.partition("(")[0] for name in compiled.registers} == set(NAMES)
    assert all(0 < count <= 255 for count in compiled.registers.values())
    assert compiled.cubin[:4] == b"\x7fELF"


def test_spills_are_found(compiled):
    spilling = {name for name, size in compiled.spills.items() if size}
    assert spilling == {"crowded<100>(float*, int)"}


def test_float64_in_a_kernel_for_float32_is_found(compiled):
    assert set(compiled.float64) == {"doubled<double>(double*)", "literal(float*)"}
    assert any(line.startswith("cvt.f64.f32") for line in compiled.float64["literal(float*)"])


def test_declarations_are_no_instructions():
    ptx = ".visible .entry f(\n.param .f64 p\n)\n{\n\t.reg .f64 %fd<3>;\n\tret;\n}\n"
    assert not nvrtc.float64_instructions(ptx)
    assert nvrtc.float64_instructions(ptx.replace("ret;", "add.f64 %fd1, %fd1, %fd1;"))


def test_an_error_has_the_compilers_log():
    with pytest.raises(RuntimeError, match=r"kernel\.cu\(2\).*undeclared_thing"):
        nvrtc.compile("\n__global__ void k() { undeclared_thing(); }", ["k"], "sm_90")
