"""The CUDA backend, run on the CPU: the rules of every backend, however the work is cut."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pararnn_solvers.errors import InsufficientMemory, InvalidInput
from pararnn_solvers.linear import cuda, cupy_dense, cupy_scan, load
from pararnn_solvers.testing import check_backend
from tests.cuda_on_cpu import fake_cupy, nvrtc, raw_module

pytestmark = pytest.mark.usefixtures("device")

EPS_FACTOR = 32
SPLIT = {"IN_FLIGHT_BYTES": 1 << 62}
CUTS = {
    "a thread a lane": {"IN_FLIGHT_BYTES": 0},
    "tiles in a chain": SPLIT | {"_group": lambda nbytes: 1},
    "tiles in groups of three": SPLIT | {"_group": lambda nbytes: 3},
    "tiles of whole lines": SPLIT | {"MANY_LANES": 0},
}


def cuts(*names):
    return pytest.mark.parametrize("cut", [CUTS[name] for name in names], ids=names)


every_cut = cuts(*CUTS)
split = cuts("tiles in a chain", "tiles in groups of three")
# What is stored does not bear on how tiles wait for each other.
cuts_of_16_bit = cuts("a thread a lane", "tiles of whole lines")
either_way = pytest.mark.parametrize("adjoint", [False, True], ids=["forward", "adjoint"])
examples = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# (batch, k, n): one lane, few, whole rows of tiles and rows with a rest, sequences side by side.
SHAPES = [
    ((), 1, 1),
    ((2,), 1, 3),
    ((2, 1), 1, 21),
    ((), 1, 70),
    ((1,), 2, 1),
    ((9,), 2, 1),
    ((3,), 2, 19),
    ((), 2, 40),
    ((2, 3), 3, 1),
    ((), 3, 5),
    ((2,), 4, 16),
    ((5,), 4, 1),
    ((2,), 5, 3),
    ((3,), 17, 1),
]
LENGTHS = [1, 2, 3, 8, 17, 31, 33, 64, 65, 128, 129, 255, 257, 300, 600, 1100]


@contextlib.contextmanager
def cutting(cut):
    dense = {"SHORT": 2, "CHUNK": 3}
    with contextlib.ExitStack() as patches:
        for module, values in ((cupy_scan, cut), (cupy_dense, dense)):
            for name, value in values.items():
                patches.enter_context(mock.patch.object(module, name, value))
        yield


def scan(blocks, rhs, adjoint=False, cut=CUTS["a thread a lane"]):
    """The backend between host arrays."""
    import cupy

    with cutting(cut):
        h = cupy_scan.scan(cupy.asarray(blocks), cupy.asarray(rhs), adjoint=adjoint)
    assert h.shape == rhs.shape and h.dtype == rhs.dtype and h.flags.c_contiguous
    return h.get()


def reference(blocks, rhs, adjoint=False):
    return load("sequential")(blocks.astype(np.float64), rhs.astype(np.float64), adjoint=adjoint)


def magnitude(blocks, rhs, adjoint=False):
    """The solution with absolute values throughout: what rounding errors scale with."""
    return reference(np.abs(blocks), np.abs(rhs), adjoint)


def system(T, batch, k, n, dtype=np.float64, seed=0, scale=1.2):
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(-scale, scale, (T, *batch, k, k, n)) / k
    rhs = rng.normal(size=(T, *batch, k * n))
    blocks[:1] = np.nan  # A_1 is not used
    return blocks.astype(dtype), rhs.astype(dtype)


systems = st.builds(
    lambda T, shape, dtype, seed: system(T, *shape, dtype=dtype, seed=seed),
    T=st.sampled_from(LENGTHS),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([np.float64, np.float32]),
    seed=st.integers(0, 2**32 - 1),
)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_it_passes_the_checks_of_backends(device, dtype):
    def between_host_arrays(blocks, rhs, *, adjoint=False):
        blocks, rhs = device.asarray(blocks), device.asarray(rhs)
        return cupy_scan.scan(blocks, rhs, adjoint=adjoint).get()

    check_backend(between_host_arrays, dtypes=[dtype])


@every_cut
@given(problem=systems, adjoint=st.booleans())
@examples
def test_solution_is_the_sequential_one(cut, problem, adjoint):
    blocks, rhs = problem
    h = scan(blocks, rhs, adjoint, cut)
    bound = EPS_FACTOR * blocks.shape[-2] * len(rhs) * np.finfo(rhs.dtype).eps
    error = np.abs(h - reference(blocks, rhs, adjoint))
    assert np.all(error <= bound * magnitude(blocks, rhs, adjoint))
    assert np.array_equal(h[-1 if adjoint else 0], rhs[-1 if adjoint else 0])


@every_cut
@given(problem=systems, seed=st.integers(0, 2**32 - 1))
@settings(examples, max_examples=10)
def test_adjoint_is_the_transpose(cut, problem, seed):
    blocks, v = problem
    g = np.random.default_rng(seed).normal(size=v.shape).astype(v.dtype)
    h, lam = scan(blocks, v, cut=cut), scan(blocks, g, True, cut)
    left, right = np.vdot(h.astype(np.float64), g), np.vdot(v.astype(np.float64), lam)
    size = np.vdot(magnitude(blocks, v), np.abs(g))
    assert abs(left - right) <= EPS_FACTOR * len(v) * np.finfo(v.dtype).eps * size


@every_cut
@given(
    shape=st.sampled_from(SHAPES),
    T=st.sampled_from([2, 9, 70, 300, 2100]),
    at=st.floats(0, 0.999),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.sampled_from(["blocks", "rhs"]),
    adjoint=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@examples
def test_nan_and_inf_stay_in_their_lane_and_after_their_step(
    cut, shape, T, at, bad, where, adjoint, seed
):
    batch, k, n = shape
    blocks, rhs = system(T, *shape, seed=seed)
    clean = scan(blocks, rhs, adjoint, cut).reshape(T, *batch, k, n)
    t = 1 + int(at * (T - 1))
    *sequence, channel = (np.random.default_rng(seed).integers(size) for size in (*batch, n))
    if where == "blocks":
        blocks[(t, *sequence, slice(None), slice(None), channel)] = bad
    else:
        rhs.reshape(T, *batch, k, n)[(t, *sequence, slice(None), channel)] = bad
    h = scan(blocks, rhs, adjoint, cut).reshape(T, *batch, k, n)
    # In the adjoint, A_t first enters lam_{t-1}.
    solved_before = slice(t + (where == "rhs"), None) if adjoint else slice(0, t)
    spoilt = np.zeros(h.shape, bool)
    spoilt[(slice(None), *sequence, slice(None), channel)] = True
    spoilt[solved_before] = False
    assert np.array_equal(h[~spoilt], clean[~spoilt])
    assert not np.isfinite(h[spoilt]).any()


def check_overflow_of_products(dtype, largest, adjoint, cut, shape):
    k, n = shape
    T, large = 2100, dtype(largest)
    blocks, rhs = np.zeros((T, k, k, n), dtype), np.zeros((T, k * n), dtype)
    blocks[:, range(k), range(k)] = large  # products of a chunk overflow
    for t in (1010, 1020):  # these lanes become infinite, the others stay 0
        rhs[t, -1] = 1 / large
    h = scan(blocks, rhs, adjoint, cut)
    expected = load("sequential")(blocks, rhs, adjoint=adjoint)
    finite = np.isfinite(expected)
    assert finite.all(axis=1).sum() in range(1, T)
    assert np.array_equal(np.isfinite(h), finite)
    rtol = 1e-3 if dtype == np.float16 else 1e-5
    np.testing.assert_allclose(h[finite], expected[finite], rtol=rtol)


@every_cut
@either_way
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (5, 1)])
def test_overflow_of_products_does_not_reach_a_finite_recurrence(cut, adjoint, dtype, shape):
    check_overflow_of_products(dtype, np.finfo(dtype).max ** 0.4, adjoint, cut, shape)


@cuts_of_16_bit
@either_way
@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_overflow_of_products_of_16_bit_numbers(cut, adjoint, shape):
    check_overflow_of_products(np.float16, 60000.0, adjoint, cut, shape)


@cuts_of_16_bit
@either_way
def test_a_lane_of_16_bit_numbers_is_walked_again_from_its_start(cut, adjoint):
    """Down to 2**-120, up by 2**206, which overflows as a product, and down by 2**90."""
    factors = np.ones(120)
    factors[2:6], factors[18:31], factors[40:49] = 2.0**-24, 60000.0, 2.0**-10
    blocks, rhs = factors[:, None, None, None].astype(np.float16), np.zeros((120, 1), np.float16)
    rhs[0] = 2.0**-24
    expected = np.cumprod(factors) * 2.0**-24  # in float64, and 2**86 at most
    if adjoint:  # A_t enters the step before it is solved
        blocks, rhs = np.roll(blocks[::-1], 1, axis=0), rhs[::-1].copy()
    h = scan(blocks, rhs, adjoint, cut).ravel()
    with np.errstate(over="ignore"):
        expected = expected.astype(np.float16)
    assert np.isinf(expected).any() and expected[-1] > 0
    np.testing.assert_allclose(h[:: -1 if adjoint else 1], expected, rtol=2e-3)


@split
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("where", ["blocks", "rhs"])
def test_a_nan_of_all_ones_is_not_taken_for_unpublished(cut, dtype, where):
    """Tiles would wait for ever; the harness gives up on that."""
    blocks, rhs = system(1100, (), 2, 3, dtype, scale=0.5)
    bad = {"blocks": blocks, "rhs": rhs}[where]
    bad[:] = np.frombuffer(b"\xff" * bad.itemsize, dtype)[0]
    assert np.isnan(scan(blocks, rhs, cut=cut)[1:]).all()


@split
@either_way
@pytest.mark.parametrize("lanes", [1, 5])
@pytest.mark.parametrize("first", [2, 6, 7, 8, 255, 257, 1022, 1023, 1024, 1025, 1500, 2047])
def test_overflow_inside_a_chunk_whose_product_is_small(cut, adjoint, lanes, first):
    T = 2100
    blocks, rhs = np.full((T, 1, 1, lanes), 0.5), np.zeros((T, lanes))
    rhs[-1 if adjoint else 0] = 1e300
    blocks[..., 0] = 1.0
    for s in range(first, first + 4):  # up by 1e160, down by 1e170, and again
        blocks[T - s if adjoint else s, ..., 0] = (1e160, 1e-170)[(s - first) % 2]
    h = scan(blocks, rhs, adjoint, cut)
    expected = reference(blocks, rhs, adjoint)
    finite = np.isfinite(expected)
    assert not finite[0 if adjoint else -1, 0]
    assert np.array_equal(np.isfinite(h), finite)
    np.testing.assert_allclose(h[finite], expected[finite], rtol=1e-12)


@split
def test_lanes_whose_products_overflow_do_not_touch_the_others(cut):
    blocks, rhs = system(300, (), 1, 21, np.float32)
    clean = scan(blocks, rhs, cut=cut)
    blocks[..., 3], rhs[:, 3] = 1e20, 0
    h = scan(blocks, rhs, cut=cut)
    assert not h[:, 3].any()
    others = np.arange(21) != 3
    assert np.array_equal(h[:, others], clean[:, others])


@either_way
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "shape", [((), 1, 1), ((2,), 1, 21), ((3,), 2, 5), ((2,), 3, 1), ((), 4, 3)]
)
def test_bits_depend_neither_on_the_order_of_threads_nor_on_that_of_blocks(adjoint, dtype, shape):
    blocks, rhs = system(1100, *shape, dtype=dtype)
    for cut in (CUTS["tiles in a chain"], CUTS["tiles in groups of three"]):
        expected = scan(blocks, rhs, adjoint, cut)
        for order in (raw_module.REVERSE, raw_module.SHUFFLED, raw_module.INTERLEAVED):
            with raw_module.schedule(order, seed=5):
                assert np.array_equal(scan(blocks, rhs, adjoint, cut), expected)


@cuts_of_16_bit
@either_way
@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_is_stored_and_computed_in_single(cut, adjoint, shape):
    blocks, rhs = system(150, *shape, dtype=np.float16)
    wide = scan(blocks.astype(np.float32), rhs.astype(np.float32), adjoint, cut)
    # Tiles of another width and group have other seams, whose sums round otherwise.
    np.testing.assert_allclose(
        scan(blocks, rhs, adjoint, cut), wide.astype(np.float16), rtol=1e-3, atol=2e-6
    )


def bfloat16(x):
    """Bits of the nearest bfloat16, ties to even, by exact arithmetic in float64."""
    x = np.asarray(x, np.float32)
    below = (x.view(np.uint32) >> 16).astype(np.uint32)
    low, high = ((below + up << 16).astype(np.uint32).view(np.float32) for up in (0, 1))
    wide, low, high = x.astype(np.float64), low.astype(np.float64), high.astype(np.float64)
    high = np.where(np.isinf(high), np.copysign(2.0**128, wide), high)
    to_low, to_high = np.abs(wide - low), np.abs(high - wide)
    up = (to_high < to_low) | ((to_high == to_low) & (below % 2 == 1))
    return (below + up).astype(np.uint16)


def test_bfloat16_is_widened_exactly_and_rounded_to_nearest():
    """What dense blocks on a device do with CuPy's bfloat16 arrays, on NumPy's of ml_dtypes."""
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3e38, 3.4e38, np.inf, np.nan, -0.0])
    wide = np.concatenate([ties, np.random.default_rng(0).normal(size=1000)]).astype(np.float32)
    stored = cupy_dense._narrow(np, wide, dtype)
    again = cupy_dense._wide(np, stored)
    assert (stored.dtype, again.dtype) == (dtype, np.float32)
    np.testing.assert_array_equal(again, stored.astype(np.float32))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(again, wide.astype(dtype).astype(np.float32))
    assert np.isinf(again[4]) and np.signbit(again[7])


def scan_bfloat16(blocks, rhs, adjoint=False, cut=CUTS["a thread a lane"]):
    """Solve on bits, as CuPy's bfloat16 arrays hold them."""
    import cupy

    T, *batch, k, _, n = blocks.shape
    A, b = cupy.asarray(blocks.reshape(T, -1, k, k, n)), cupy.asarray(rhs.reshape(T, -1, k, n))
    h = cupy.empty(b.shape, np.uint16)
    with cutting(cut):
        cupy_scan.solve_unrolled(A, b, h, adjoint, "bfloat16")
    return h.get().reshape(rhs.shape)


@cuts_of_16_bit
@either_way
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[1] <= 4])
def test_bfloat16_is_stored_and_computed_in_single(cut, adjoint, shape):
    blocks, rhs = (bfloat16(x) for x in system(150, *shape, np.float32, scale=0.9))
    wide = [(x.astype(np.uint32) << 16).view(np.float32) for x in (blocks, rhs)]
    wide[0][0] = 0
    h = (scan_bfloat16(blocks, rhs, adjoint, cut).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_allclose(h, scan(*wide, adjoint, cut), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("T", [1, 40], ids=["a thread a lane", "tiles"])
def test_16_bit_numbers_of_all_kinds_pass_unchanged(T):
    cut = CUTS["tiles of whole lines"]  # where T allows
    bits = np.zeros((T, 65536), np.uint16)
    bits[0] = np.arange(65536)
    zero = np.zeros((T, 1, 1, 65536), np.uint16)
    h = scan(zero.view(np.float16), bits.view(np.float16), cut=cut)
    assert np.array_equal(h[0].view(np.uint16)[~np.isnan(h[0])], bits[0][~np.isnan(h[0])])
    assert np.array_equal(np.isnan(h[0]), np.isnan(bits[0].view(np.float16)))
    h = scan_bfloat16(zero, bits, cut=cut)[0]
    wide = (bits[0].astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(h[~np.isnan(wide)], bits[0][~np.isnan(wide)])
    assert np.isnan((h.astype(np.uint32) << 16).view(np.float32)[np.isnan(wide)]).all()


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(-16, 16))
@examples
def test_results_are_rounded_to_the_nearest_16_bit_number(seed, scale):
    rng = np.random.default_rng(seed)
    a, b = 2.0**scale * rng.normal(size=(2, 200)), 2.0**scale * rng.normal(size=(2, 200))
    a[0, :20] = 1.0  # sums of neighbouring numbers: ties
    b[:, :20] = 1.0 + np.arange(40).reshape(2, 20) / 1024
    a[1] = a[0]
    for stored, solve in (("float16", scan), ("bfloat16", scan_bfloat16)):
        with np.errstate(over="ignore"):
            A, x = (v.astype(np.float16) if stored == "float16" else bfloat16(v) for v in (a, b))
        wide = [
            v.astype(np.float64) if stored == "float16"
            else (v.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
            for v in (A, x)
        ]  # fmt: skip
        with np.errstate(all="ignore"):  # products of 16-bit numbers are exact; one sum is rounded
            h = (wide[0][1] * wide[1][0] + wide[1][1]).astype(np.float32)
            expected = h.astype(np.float16).view(np.uint16) if stored == "float16" else bfloat16(h)
        result = solve(A[:, None, None, :], x)[1].view(np.uint16)
        known = np.isfinite(h)
        assert np.array_equal(result[known], expected[known])


@every_cut
@either_way
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_subnormal_states_are_not_flushed(cut, adjoint, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    T, rhs = 40, np.zeros((40, 1), dtype)
    rhs[-1 if adjoint else 0] = 1024 * tiny
    h = scan(np.full((T, 1, 1, 1), 0.5, dtype), rhs, adjoint, cut).ravel()
    assert np.array_equal(h[:: -1 if adjoint else 1][:11], tiny * 2.0 ** np.arange(10, -1, -1))


@every_cut
@either_way
@pytest.mark.parametrize("shape", [((2,), 1, 6), ((4,), 2, 6), ((2,), 5, 3)])
def test_any_layout_is_read_and_nothing_is_written(device, cut, adjoint, shape):
    blocks, rhs = system(70, *shape)
    expected = scan(blocks, rhs, adjoint, cut)
    on_device = device.asarray(blocks), device.asarray(rhs)
    device_copies = fake_cupy.copies
    device_copies.clear()
    for A, b in (
        tuple(device.array(x, order="F") for x in on_device),
        (
            device.repeat(on_device[0], 2, axis=1)[:, ::2],
            device.repeat(on_device[1], 2, 2)[..., ::2],
        ),
        tuple(x[::-1].copy()[::-1] for x in on_device),
    ):
        copies = A.copy(), b.copy()
        with cutting(cut):
            h = cupy_scan.scan(A, b, adjoint=adjoint)
        assert sum(device_copies.to_host) <= 8 and not device_copies.to_device
        assert np.array_equal(h.get(), expected)
        for x, copy in zip((A, b), copies, strict=True):
            assert np.array_equal(x.get(), copy.get(), equal_nan=True)
        device_copies.clear()


@every_cut
@either_way
@pytest.mark.parametrize(
    ("T", "batch", "k", "n"),
    [
        (0, (2,), 2, 3),
        (4, (0,), 1, 3),
        (4, (2,), 1, 0),
        (1, (2,), 3, 1),
        (1, (), 6, 2),
        (0, (), 6, 1),
    ],
)
def test_empty_and_single_step_systems(cut, adjoint, T, batch, k, n):
    blocks, rhs = system(T, batch, k, n)
    assert np.array_equal(scan(blocks, rhs, adjoint, cut), rhs)


@pytest.mark.parametrize(
    ("name", "kernels"), [("a thread a lane", ["lanes"]), ("tiles in a chain", ["tiles", "repair"])]
)
def test_cuts_are_what_they_are_called(name, kernels):
    blocks, rhs = system(2100, (), 1, 1)
    with mock.patch.object(cuda, "launch", wraps=cuda.launch) as launch:
        scan(blocks, rhs, cut=CUTS[name])
    assert [call.args[0].name.partition("<")[0] for call in launch.call_args_list] == kernels
    assert name == "a thread a lane" or launch.call_args_list[0].args[1] == 3  # tiles


@pytest.mark.double
@pytest.mark.parametrize("k", [1, 2])
def test_many_lanes_in_the_default_cut(k):
    """Enough lanes for the three multiprocessors of the double: no tiles."""
    blocks, rhs = system(40, (), k, 2000, np.float32)
    with mock.patch.object(cuda, "launch", wraps=cuda.launch) as launch:
        h = scan(blocks, rhs, cut={})
    assert [call.args[0].name.partition("<")[0] for call in launch.call_args_list] == ["lanes"]
    np.testing.assert_allclose(h, reference(blocks, rhs), rtol=1e-3, atol=1e-4)


@pytest.mark.double
def test_results_lie_on_the_device_of_the_arrays(device):
    blocks, rhs = system(70, (2,), 1, 3)
    with device.cuda.Device(1):
        A, b = device.asarray(blocks), device.asarray(rhs)
    h = load("cupy")(A, b)
    assert h.device.id == 1 and device.cuda.Device().id == 0
    assert np.array_equal(h.get(), scan(blocks, rhs, cut={}))


@pytest.mark.double
def test_arrays_in_different_places_are_named(device):
    blocks, rhs = system(5, (), 1, 1)
    A, b = device.asarray(blocks), device.asarray(rhs)
    with pytest.raises(InvalidInput, match=r"blocks on the host \(numpy.ndarray\), rhs on the dev"):
        cupy_scan.scan(blocks, b)
    with pytest.raises(InvalidInput, match=r"blocks on the device 0, rhs on the host"):
        cupy_scan.scan(A, rhs)
    with device.cuda.Device(1):
        elsewhere = device.asarray(rhs)
    with pytest.raises(InvalidInput, match="one device, got device 0 and device 1"):
        cupy_scan.scan(A, elsewhere)


@pytest.mark.parametrize(
    ("blocks", "rhs", "message"),
    [
        (np.ones((3, 1, 1, 1)), np.ones((3, 1), np.float32), "one dtype, got float64 and float32"),
        (np.ones((3, 1, 1, 1), int), np.ones((3, 1), int), "float16 or bfloat16, got int"),
        (np.ones((3, 1)), np.ones((3, 1)), r"blocks\[..., None, None, :\]"),
        (np.ones((3, 2, 1, 1, 1)), np.ones((3, 4, 1)), r"leading axes \(3, 4\), blocks has"),
        (np.ones((3, 2, 2, 3)), np.ones((3, 5)), r"k \* n = 5"),
    ],
)
def test_bad_arguments_are_named_with_a_remedy(blocks, rhs, message):
    with pytest.raises(InvalidInput, match=message):
        scan(blocks, rhs)


@pytest.mark.double
def test_a_full_device_is_an_error_with_sizes_and_leaves_nothing(device):
    blocks, rhs = (device.asarray(x) for x in system(4000, (), 1, 8))
    with fake_cupy.device_memory(blocks.nbytes + rhs.nbytes + 1000):
        with pytest.raises(InsufficientMemory, match="T = 4000 steps of 8 lanes.*shorter pieces"):
            cupy_scan.scan(blocks, rhs)
    cupy_scan.scan(blocks, rhs)


# ---- the compiler's own opinion -----------------------------------------------------------------

NAMES = [
    name
    for stored in cupy_scan.STORED
    for k in range(1, 5)
    for name in cupy_scan.names(stored, k).values()
]


@pytest.mark.nvrtc
@pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
@pytest.mark.parametrize("arch", nvrtc.ARCHITECTURES)
def test_every_kernel_compiles_without_spills_and_without_float64_where_none_is_stored(arch):
    compiled = nvrtc.compile(cuda.sources(*cupy_scan.KERNELS), NAMES, arch)
    assert len(compiled.spills) == len(NAMES)
    assert not any(compiled.spills.values())
    assert {name.partition(",")[0] for name in compiled.float64} == {
        "lanes<double", "tiles<double", "repair<double"
    }  # fmt: skip


def test_the_wheel_has_the_kernels(tmp_path):
    wheels = pytest.importorskip("hatchling.builders.wheel")
    builder = wheels.WheelBuilder(str(Path(cupy_scan.__file__).parents[2]))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        assert "pararnn_solvers/linear/kernels/scan.cu" in archive.namelist()
