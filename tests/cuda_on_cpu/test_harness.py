"""The harness runs right kernels rightly and catches wrong ones, whatever the schedule."""

from pathlib import Path

import numpy as np
import pytest

from tests.cuda_on_cpu import raw_module
from tests.cuda_on_cpu.memory import OutOfBounds
from tests.cuda_on_cpu.raw_module import FORWARD, INTERLEAVED, REVERSE, SHUFFLED, KernelError

EVERY = (FORWARD, REVERSE, SHUFFLED, INTERLEAVED)
SCAN = """
template <typename T, int ITEMS>
__global__ void __launch_bounds__(1024) scan(const T* __restrict__ x, T* __restrict__ y, int n) {
    __shared__ T totals[32];
    extern __shared__ __align__(16) unsigned char staged[];
    T* stage = reinterpret_cast<T*>(staged);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const int size = blockDim.x * ITEMS;
    const long long row = (long long)blockIdx.x * n;
    T carry = T(0);
    for (int base = 0; base < n; base += size) {
        for (int i = threadIdx.x; i < size; i += blockDim.x)
            stage[i] = base + i < n ? x[row + base + i] : T(0);
        __syncthreads();  // BARRIER: staged
        T sum = T(0);
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            sum += stage[threadIdx.x * ITEMS + i];
            stage[threadIdx.x * ITEMS + i] = sum;
        }
        T total = sum;
        for (int d = 1; d < 32; d <<= 1) {
            const T before = __shfl_up_sync(0xffffffffu, total, d);
            if (lane >= d) total += before;
        }
        T offset = __shfl_up_sync(0xffffffffu, total, 1);
        if (lane == 0) offset = T(0);
        if (lane == 31) totals[warp] = total;
        __syncthreads();  // BARRIER: totals
        for (int w = 0; w < warp; ++w) offset += totals[w];
        T all = T(0);
        for (int w = 0; w < warps; ++w) all += totals[w];
        for (int i = 0; i < ITEMS; ++i) {
            const int t = base + threadIdx.x * ITEMS + i;
            if (t < n) y[row + t] = carry + offset + stage[threadIdx.x * ITEMS + i];
        }
        carry += all;
        __syncthreads();  // BARRIER: used
    }
}
"""


def scan(cupy, code, threads=64, length=1000, items=2):
    name = f"scan<double, {items}>"
    kernel = cupy.RawModule(code=code, name_expressions=(name,)).get_function(name)
    x = cupy.asarray(np.random.default_rng(0).integers(-9, 9, (3, length)).astype(float))
    y = cupy.empty_like(x)
    arguments = (x, y, np.int32(length))
    kernel((3,), (threads,), arguments, shared_mem=threads * items * 8)
    return x.get(), y.get()


@pytest.mark.parametrize("order", EVERY)
@pytest.mark.parametrize(
    ("threads", "length", "items"), [(32, 1, 1), (64, 1000, 2), (1024, 4099, 3)]
)
def test_a_right_scan_is_right(device, order, threads, length, items):
    with raw_module.schedule(order):
        x, y = scan(device, SCAN, threads, length, items)
    np.testing.assert_array_equal(y, np.cumsum(x, 1))


@pytest.mark.parametrize("barrier", ["staged", "totals", "used"])
def test_a_missing_barrier_gives_wrong_results(device, barrier):
    """Under some schedule; that is why tests of kernels run under all."""
    line = f"        __syncthreads();  // BARRIER: {barrier}\n"
    assert line in SCAN
    code, wrong = SCAN.replace(line, ""), []
    for order in raw_module.SCHEDULES:
        with raw_module.schedule(order):
            x, y = scan(device, code)
        wrong.append(not np.array_equal(y, np.cumsum(x, 1)))
    assert any(wrong)


def run(cupy, body, threads=64, blocks=1, signature="int* x", arguments=None):
    code = f'extern "C" __global__ void k({signature}) {{\n{body}\n}}'
    arguments = arguments or (cupy.zeros(64, np.int32),)
    cupy.RawModule(code=code).get_function("k")((blocks,), (threads,), arguments)
    return arguments[0].get()


def test_modules_share_their_stacks(device):
    """Linux grants a process 65,530 mappings; one pool for each module would use them up."""

    def mappings():
        return len(Path("/proc/self/maps").read_text().splitlines())

    before = None
    with raw_module.schedule(INTERLEAVED):
        for value in range(3):
            run(device, f"x[threadIdx.x % 64] = {value};", threads=1024, blocks=4)
            before = before or mappings()
    assert mappings() - before < 1024


DEFECTS = {
    "a barrier that exited threads never reach": (
        "if (threadIdx.x < 5) return; __syncthreads();",
        r"__syncthreads of line 2 for thread \(0, 0, 0\), which has exited",
    ),
    "a barrier in a branch": (
        "if (threadIdx.x < 5) __syncthreads();\nelse __syncthreads();",
        r"thread \(5, 0, 0\).* line 3, thread 0 in __syncthreads of line 2: a divergent barrier",
    ),
    "different barriers": (
        "if (threadIdx.x == 0) __syncthreads(); else __syncthreads_or(1);",
        r"thread \(1, 0, 0\).*waits in __syncthreads_or .* a divergent barrier",
    ),
    "a shuffle in a branch": (
        "if (threadIdx.x < 5) x[threadIdx.x] = __shfl_up_sync(0xffffffffu, 1, 1);",
        r"warp 0: deadlock: waits in __shfl_up_sync \(mask ffffffff\) for thread \(5, 0, 0\)",
    ),
    "masks that disagree": (
        "x[0] = __ballot_sync(threadIdx.x & 1 ? 0xffffffffu : 0x55555555u, 1);",
        r"deadlock: waits in __ballot_sync \(mask ffffffff\)|disagree on the mask",
    ),
    "a lane outside its mask": (
        "__syncwarp(0xfffffffeu);",
        r"thread \((0|32), 0, 0\), lane 0 of warp [01]: the calling lane is not in its own mask",
    ),
    "a shuffle from outside the mask": (
        "if (threadIdx.x < 4) x[threadIdx.x] = __shfl_down_sync(0xfu, 1, 1);",
        r"thread \(3, 0, 0\), lane 3 of warp 0: a shuffle reads a lane outside the mask",
    ),
    "a shuffle from a lane that does not exist": (
        "if (threadIdx.x >= 32) x[0] = __shfl_sync(0xffffffffu, 1, 20);",
        r"warp 1: a shuffle reads a lane outside the mask",
    ),
    "different operations of one warp": (
        "if (threadIdx.x % 2) __syncwarp(); else __any_sync(0xffffffffu, 1);",
        r"lanes of one mask meet in different calls",
    ),
    "a barrier against a warp operation": (
        "if (threadIdx.x == 7) __syncthreads(); else __syncwarp();",
        r"waits in __syncwarp .* for thread \(7, 0, 0\), which waits in __syncthreads",
    ),
    "a write behind an array": (
        "if (threadIdx.x == 3) x[64] = 1;",
        r"(?<=thread \(3, 0, 0\), lane 3 of warp 0: )out-of-bounds",
    ),
    "a read far before an array": (
        "if (threadIdx.x == 3) x[0] = x[-2000];",
        r"thread \(3, 0, 0\), lane 3 of warp 0: out-of-bounds",
    ),
    "a null pointer": ("int* p = x[0] ? x : nullptr;\n*p = 1;", r"kernel\.cu:3:\d+: null pointer"),
    "a misaligned vector": (
        "float4* v = (float4*)(x + 1);\nv->x += 1;",
        r"kernel\.cu:3:\d+: misaligned address",
    ),
    "an index outside shared memory": (
        "__shared__ int s[64];\ns[threadIdx.x + 1] = 1;",
        r"thread \(63, 0, 0\).*kernel\.cu:3:\d+: index outside the array \(64\)",
    ),
    "division of integers by zero": ("x[1] = 1 / x[threadIdx.x];", "integer division by zero"),
    "a shift too far": ("x[1] = 1 << threadIdx.x;", r"shift by more bits than there are \(\d+\)"),
    "waiting for what never comes": (
        "while (*(volatile int*)x != 77) __nanosleep(20);",
        "spins on memory that nobody writes",
    ),
    "endless recursion": (
        "struct S { static int f(int* x, int n) {"
        " volatile int a[999]; a[n % 9] = n; return n ? f(x, n - 1) + a[x[1]] : 0; } };"
        "x[0] = S::f(x, 99999 + x[1]);",
        "out-of-bounds",
    ),
    "a trap": (
        "if (threadIdx.x == 40) __trap();",
        r"thread \(40, 0, 0\), lane 8 of warp 1: __trap",
    ),
}


# One module, which takes a twentieth of the time; each kernel's text begins at line 1.
ALL_DEFECTS = "".join(
    f'\n#line 1 "kernel.cu"\nextern "C" __global__ void defect_{i}(int* x) {{\n{body}\n}}'
    for i, (body, _) in enumerate(DEFECTS.values())
)


@pytest.mark.parametrize("order", EVERY)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_caught_and_its_thread_named(device, defect, order):
    name = f"defect_{list(DEFECTS).index(defect)}"
    kernel = device.RawModule(code=ALL_DEFECTS).get_function(name)
    threads = 50 if "does not exist" in defect else 64
    with raw_module.schedule(order), pytest.raises(KernelError, match=DEFECTS[defect][1]) as caught:
        kernel((1,), (threads,), (device.zeros(64, np.int32),))
    assert str(caught.value).startswith(f"{name}: block (0, 0, 0) thread (")
    assert run(device, "x[threadIdx.x] = threadIdx.x;").tolist() == list(range(64))


def test_a_write_beside_an_array_is_caught_after_the_launch(device):
    """Where alignment leaves bytes between an array and the page that may not be touched."""
    array = device.zeros(3, np.int32)
    for index, where in ((-1, "before"), (3, "behind")):
        with pytest.raises(OutOfBounds, match=f"wrote {where} an array of 12 bytes"):
            run(device, f"x[{index}] = 1;", arguments=(array,))


@pytest.mark.parametrize("memory", ["__shared__ int s[64];", "extern __shared__ int s[];"])
def test_shared_memory_holds_nothing_at_the_start_of_a_block(device, memory):
    body = f"{memory}\nx[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x]; s[threadIdx.x] = 1;"
    code = f'extern "C" __global__ void k(int* x) {{\n{body}\n}}'
    x = device.zeros(64, np.int32)
    device.RawModule(code=code).get_function("k")((2,), (32,), (x,), shared_mem=256)
    assert (x.get() == np.array(0xA5A5A5A5, np.uint32).astype(np.int32)).all()


def test_blocks_have_shared_memory_of_their_own_when_interleaved(device):
    code = """
    template <int N> __global__ void k(int* x) {
        __shared__ int s[N];
        s[threadIdx.x] = blockIdx.x * N + threadIdx.x;
        __nanosleep(100);
        __syncthreads();
        x[blockIdx.x * N + threadIdx.x] = s[N - 1 - threadIdx.x];
    }"""
    kernel = device.RawModule(code=code, name_expressions=("k<32>",)).get_function("k<32>")
    x = device.zeros((9, 32), np.int32)
    with raw_module.schedule(INTERLEAVED):
        kernel((9,), (32,), (x,))
    np.testing.assert_array_equal(x.get()[:, ::-1].ravel(), np.arange(9 * 32))


LOOK_BACK = """
extern "C" __global__ void k(const int* x, int* y, volatile int* flags) {
    int before = 0;
    if (blockIdx.x > 0) {
        while (flags[blockIdx.x - 1] == 0) __nanosleep(20);
        __threadfence();
        before = y[blockIdx.x - 1];
    }
    y[blockIdx.x] = before + x[blockIdx.x];
    __threadfence();
    flags[blockIdx.x] = 1;
}"""


@pytest.mark.parametrize("order", EVERY)
def test_a_block_may_look_back(device, order):
    x = device.asarray(np.arange(20, dtype=np.int32))
    y, flags = device.zeros_like(x), device.zeros_like(x)
    with raw_module.schedule(order):
        device.RawModule(code=LOOK_BACK).get_function("k")((20,), (1,), (x, y, flags))
    np.testing.assert_array_equal(y.get(), np.cumsum(np.arange(20)))


def test_a_block_may_not_look_ahead(device):
    code = LOOK_BACK.replace("blockIdx.x > 0", "blockIdx.x < 19").replace("x - 1]", "x + 1]")
    x = device.zeros(20, np.int32)
    with pytest.raises(KernelError, match=r"block \(0, 0, 0\).*a block that has not started"):
        device.RawModule(code=code).get_function("k")((20,), (1,), (x, x.copy(), x.copy()))


@pytest.mark.parametrize("order", EVERY)
def test_warps_shuffle_and_vote(device, order):
    body = """
    const int t = threadIdx.x, l = t & 31, full = -1;
    unsigned long long wide = 1ull << 40 | t;
    x[t] = __shfl_xor_sync(full, t, 5) == (t ^ 5)
        && __shfl_sync(full, t, 3) == (t & 32) + 3
        && __shfl_sync(full, t, 3, 8) == (t & 56) + 3
        && __shfl_up_sync(full, t, 2) == (l < 2 ? t : t - 2)
        && __shfl_down_sync(full, t, 3, 16) == ((t & 15) + 3 < 16 ? t + 3 : t)
        && __shfl_sync(full, wide, 1) == (1ull << 40 | ((t & 32) + 1))
        && __shfl_sync(full, 0.5 * t, 2) == 0.5 * ((t & 32) + 2)
        && __ballot_sync(full, l < 4) == 0xfu
        && __any_sync(full, l == 9) && !__any_sync(full, l == 99)
        && __all_sync(full, l < 32) && !__all_sync(full, l == 9)
        && __syncthreads_count(t < 40) == 40
        && __syncthreads_or(t == 63) && !__syncthreads_or(0)
        && __syncthreads_and(1) && !__syncthreads_and(t);
    if (l < 8) x[t] &= __ballot_sync(0xffu, 1) == 0xffu;"""
    with raw_module.schedule(order):
        assert run(device, body).all()


@pytest.mark.parametrize("order", EVERY)
def test_atomics_and_bits(device, order):
    body = """
    atomicAdd(x, 1); atomicMax(x + 1, threadIdx.x); atomicMin(x + 2, -int(threadIdx.x));
    atomicOr(x + 3, 1 << (threadIdx.x & 7)); atomicSub(x + 4, 2); atomicExch(x + 5, 9);
    atomicAdd((float*)(x + 6), 0.5f);
    if (atomicCAS(x + 7, 0, threadIdx.x + 1) == 0) atomicAdd(x + 8, 1);
    x[9] = __float_as_int(1.0f); x[10] = __popc(0xf0) * 100 + __clz(1) + __ffs(8) * 1000;
    x[11] = min(3, 2) + max(3u, 2u) * 10; x[12] = isnan(fmax(NAN, 1.0f)) || max(NAN, 1.0f) != 1.0f;
    x[13] = __double2hiint(1.0); x[14] = fma(2.0f, 3.0f, 1.0f) + rsqrtf(4.0f) * 2;"""
    with raw_module.schedule(order):
        x = run(device, body)
    one = 0x3F800000
    assert x[:7].tolist() == [64, 63, -63, 255, -128, 9, np.float32(32).view(np.int32)]
    assert x[8:15].tolist() == [1, one, 4431, 32, 0, 0x3FF00000, 8]


def test_indices_of_three_dimensions(device):
    code = """extern "C" __global__ void k(int* x) {
        const int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        const int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        x[b * blockDim.x * blockDim.y * blockDim.z + t] += 1 + t;
    }"""
    x = device.zeros((24, 24), np.int32)
    device.RawModule(code=code).get_function("k")((2, 3, 4), (4, 3, 2), (x,))
    assert (x.get() == np.arange(1, 25)).all()


@pytest.mark.parametrize(
    ("signature", "arguments", "message"),
    [
        ("float* x, int n", "fi", None),
        ("float* x, int n", "fl", "argument 1 is a scalar of another size"),
        ("float* x, int n", "ff", "argument 1 is a scalar of another kind|argument 1 is a device"),
        ("double* x, int n", "fi", "argument 0 is an array whose elements have another size"),
        ("int* x, int n", "fi", "argument 0 is an array of floating-point numbers"),
        ("float* x", "fi", "2 arguments given, the kernel declares 1"),
        ("int x, int n", "fi", "argument 0 is a device array"),
        ("float* x, int* n", "fi", "argument 1 is a scalar, and the kernel declares a pointer"),
    ],
)
def test_arguments_must_be_those_the_kernel_declares(device, signature, arguments, message):
    values = {"f": device.zeros(64, np.float32), "i": np.int32(1), "l": np.int64(1)}
    arguments = tuple(values[a] for a in arguments)
    if message is None:
        run(device, "x[0] = n;", signature=signature, arguments=arguments)
        return
    with pytest.raises(KernelError, match=message):
        run(device, "", signature=signature, arguments=arguments)


def test_launches_that_the_driver_refuses(device):
    code = 'extern "C" __global__ void k(int* x) { extern __shared__ int s[]; s[0] = x[0]; }'
    kernel = device.RawModule(code=code).get_function("k")
    x, error = device.zeros(1, np.int32), device.cuda.driver.CUDADriverError
    for grid, block, shared in [((0,), (1,), 0), ((1,), (1025,), 0), ((1, 65536), (1,), 0)]:
        with pytest.raises(error, match="INVALID_VALUE"):
            kernel(grid, block, (x,), shared_mem=shared)
    with pytest.raises(error, match="max_dynamic_shared_size_bytes"):
        kernel((1,), (1,), (x,), shared_mem=100 << 10)
    kernel.max_dynamic_shared_size_bytes = 100 << 10
    kernel((1,), (1,), (x,), shared_mem=100 << 10)
    with pytest.raises(error, match="INVALID_VALUE"):
        kernel.max_dynamic_shared_size_bytes = 300 << 10
    with pytest.raises(TypeError, match="argument 0 is a int; a kernel takes device arrays"):
        kernel((1,), (1,), (1,))
    with pytest.raises(error, match="NOT_FOUND.*'nobody'"):
        device.RawModule(code=code).get_function("nobody")


def test_the_same_kernel_in_two_modules_shares_no_memory(device):
    """Templates of equal names are one for the linker, unless it is told otherwise."""

    def build(n):
        code = f"""template <typename T> __global__ void k(T* x) {{
            __shared__ T s[{n}];
            for (int i = 0; i < {n}; ++i) s[i] = {n};
            x[0] = s[{n} - 1];
        }}"""
        return device.RawModule(code=code, name_expressions=("k<int>",)).get_function("k<int>")

    small, large = build(4), build(4000)
    x = device.zeros(1, np.int32)
    for kernel, n in ((small, 4), (large, 4000), (small, 4)):
        kernel((1,), (1,), (x,))
        assert int(x[0]) == n
