"""A trajectory written window by window is the one that fits in memory, byte for byte."""

import io
import re
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.errors import ConvergenceError, InsufficientMemory, InvalidInput
from pararnn_solvers.out_of_core import part, sources
from tests.device.cases import inputs, on_device, scan
from tests.device.cases import step as step_of_device
from tests.strategies import BATCHES, DTYPES, SEEDS, allowed_error, block_tanh, gru, rollout

FREE = {"compiled": False, "backend": "sequential", "method": "sequential"}
WINDOWS = st.integers(1, 20)


def store(path, case, source=None, **options):
    """Solve a case into a file, from its own x by default."""
    source = case.x if source is None else source
    return prs.solve_to(path, case.recurrence, source, case.h0, case.theta, **options)


def as_saved(array):
    """The bytes that np.save would write."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def names(folder):
    return sorted(file.name for file in Path(folder).iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("out_of_core")


class Zarr:
    """What an array of zarr or h5py offers, no more."""

    def __init__(self, array, missing=0):
        self.shape, self.dtype = array.shape, array.dtype
        self._array, self._missing = array, missing
        self.largest = 0

    def __getitem__(self, steps):
        self.largest = max(self.largest, steps.stop - steps.start)
        return self._array[: len(self._array) - self._missing][steps]


# --- the numbers ---------------------------------------------------------------------------------


@given(window=WINDOWS, every=WINDOWS, batch=BATCHES, dtype=DTYPES, seed=SEEDS, T=st.integers(0, 16))
def test_windows_of_any_length_give_the_file_that_np_save_writes(
    folder, window, every, batch, dtype, seed, T
):
    case = block_tanh(k=2, T=T, batch=batch, dtype=dtype, seed=seed)
    expected, path = rollout(case), folder / "h.npy"
    found = store(path, case, window=window, every=every, overwrite=True, **FREE)
    assert path.read_bytes() == as_saved(expected[every - 1 :: every])
    np.testing.assert_array_equal(found.final, expected[-1] if T else case.h0)
    assert names(folder) == ["h.npy"]


@settings(max_examples=10)
@given(window=WINDOWS, batch=BATCHES, dtype=DTYPES, n=st.sampled_from([3, 16]))
def test_compiled_windows_give_the_bytes_of_a_compiled_solve(folder, window, batch, dtype, n):
    case = gru(n=n, T=16, batch=batch, dtype=dtype)
    whole = prs.solve(*case[:4], method="sequential", compiled=True)
    path = folder / "compiled.npy"
    store(path, case, window=window, overwrite=True, method="sequential")
    assert path.read_bytes() == as_saved(whole.h)


@given(cuts=st.lists(st.integers(0, 16), max_size=5).map(sorted), seed=SEEDS)
def test_an_iterable_is_solved_as_it_comes(folder, cuts, seed):
    case, path = block_tanh(T=16, seed=seed), folder / "iterable.npy"
    found = store(path, case, iter(np.split(case.x, cuts)), overwrite=True, **FREE)
    assert path.read_bytes() == as_saved(rollout(case))
    assert (found.steps, found.resumed) == (16, 0)


@pytest.mark.parametrize("kind", ["array", "path", "str", "memmap", "fortran", "zarr", "list"])
def test_sources_of_all_kinds(tmp_path, kind):
    case, file = block_tanh(k=2, T=50, batch=(3,)), tmp_path / "x.npy"
    np.save(file, np.asfortranarray(case.x) if kind == "fortran" else case.x)
    source = {
        "array": case.x, "path": file, "str": str(file), "memmap": np.load(file, mmap_mode="r"),
        "fortran": file, "zarr": Zarr(case.x), "list": [case.x[:7], case.x[7:]],
    }[kind]  # fmt: skip
    options = {} if kind == "list" else {"window": 8}
    found = store(tmp_path / "h.npy", case, source, **options, **FREE)
    np.testing.assert_array_equal(found.h, rollout(case))
    assert isinstance(found.h, np.memmap)
    assert not found.h.flags.writeable
    if kind == "zarr":
        assert source.largest == 8


def test_arrays_of_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    case = block_tanh(k=2, T=50, batch=(3,))
    source = zarr.create_array(tmp_path / "x.zarr", data=case.x, chunks=(11, 3, 6))
    found = store(tmp_path / "h.npy", case, source, window=8, **FREE)
    np.testing.assert_array_equal(found.h, rollout(case))


def test_arrays_of_h5py(tmp_path):
    h5py = pytest.importorskip("h5py")
    case = block_tanh(k=2, T=50, batch=(3,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        source = file.create_dataset("x", data=case.x)
        found = store(tmp_path / "h.npy", case, source, window=8, **FREE)
    np.testing.assert_array_equal(found.h, rollout(case))


def test_part_of_a_map_and_one_with_changes_of_its_own(tmp_path):
    case, file = block_tanh(T=30), tmp_path / "x.npy"
    np.save(file, np.zeros_like(case.x))
    changed = np.load(file, mmap_mode="c")
    changed[:] = case.x
    expected = rollout(case)
    np.testing.assert_array_equal(
        store(tmp_path / "a.npy", case, changed, window=4, **FREE).h, expected
    )
    np.testing.assert_array_equal(changed, case.x)
    np.save(file, np.concatenate([np.ones((5, 3)), case.x]))
    for source in [np.load(file, mmap_mode="r")[5:], np.load(file, mmap_mode="r")[5:] * 1.0]:
        found = store(tmp_path / "b.npy", case, source, window=4, overwrite=True, **FREE)
        np.testing.assert_array_equal(found.h, expected)


@pytest.mark.parametrize("method", ["auto", "newton", prs.newton(chunk=5)])
def test_methods_agree_with_the_whole(tmp_path, method):
    case = gru(n=4, T=200, batch=(2,))
    found = store(tmp_path / "h.npy", case, window=64, method=method)
    assert np.abs(found.h - rollout(case)).max() <= 2 * allowed_error(case)
    assert found.n_iter <= 8


def test_without_input(tmp_path):
    case = block_tanh(k=2, T=16, batch=(3,), x=False)
    arguments = case.recurrence, None, case.h0, case.theta
    found = prs.solve_to(tmp_path / "h.npy", *arguments, steps=16, window=5, **FREE)
    np.testing.assert_array_equal(found.h, rollout(case))


def test_states_of_a_device_are_brought_to_the_file_and_back(tmp_path, device):
    x, h0, theta = inputs()
    moved_h0, moved_theta = on_device(device, (h0, theta))
    options = {"backend": scan, "compiled": False, "window": 20}
    with pytest.raises(InvalidInput, match="it has become shorter"):
        source = Zarr(x, missing=5)
        prs.solve_to(tmp_path / "h.npy", step_of_device, source, moved_h0, moved_theta, **options)
    moved_h0, moved_theta = on_device(device, (h0, theta))  # and nothing is counted yet
    problem = step_of_device, Zarr(x), moved_h0, moved_theta
    found = prs.solve_to(tmp_path / "h.npy", *problem, **options)
    assert found.resumed == 40
    expected = prs.rollout(step_of_device, x, h0, theta)
    np.testing.assert_allclose(found.h, expected, rtol=1e-9, atol=1e-9)
    assert type(found.final).__module__ == "cupy"


# --- memory, progress ----------------------------------------------------------------------------


def test_the_default_window_is_64_megabytes_of_inputs_and_states():
    h0 = np.zeros((5, 3), np.float32)
    assert sources.default_window(h0, (5, 9)) * 4 * 5 * 12 <= 64 << 20
    assert (sources.default_window(h0, (5, 9)) + 1) * 4 * 5 * 12 > 64 << 20
    assert sources.default_window(np.zeros(1 << 25), (1 << 25,)) == 1


def test_memory_does_not_grow_with_the_number_of_steps(tmp_path):
    case = gru(n=16, T=1)

    def peak(windows):
        np.save(tmp_path / "x.npy", np.full((500 * windows, 48), 0.1))
        options = {"window": 500, "overwrite": True, "method": "sequential"}
        tracemalloc.start()
        store(tmp_path / "h.npy", case, tmp_path / "x.npy", **options)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    few, many = peak(3), peak(12)
    assert many < few + 100_000  # of 192 kB that x has in each window
    assert few < 1_500_000


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_pages_of_a_map_do_not_stay_in_memory(tmp_path):
    case = block_tanh(T=8000, n=64)
    np.save(tmp_path / "x.npy", case.x)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")

    def resident():
        mapping = Path("/proc/self/smaps").read_text().split(str(tmp_path / "x.npy"))[1]
        return int(re.search(r"Rss:\s+(\d+) kB", mapping)[1])

    assert x.sum() == case.x.sum()
    assert resident() > 3000
    store(tmp_path / "h.npy", case, x, window=1000, method="sequential")
    assert resident() < 500


def test_a_bar_shows_steps(tmp_path, capsys):
    store(tmp_path / "h.npy", block_tanh(T=12), window=5, progress=True, **FREE)
    assert re.search(r"h\.npy: 100%.* 12\.0/12\.0 ", capsys.readouterr().err)


# --- what is wrong -------------------------------------------------------------------------------

X = np.ones((4, 3))


@pytest.mark.parametrize(("source", "options", "message"), [
    (None, {}, "source is None and steps is None; pass steps=T"),
    (None, {"steps": -1}, "steps is -1; expected a whole number >= 0"),
    (X, {"steps": 4}, "steps is 4, and the source has its own"),
    (X, {"window": 0}, "window is 0; expected a whole number >= 1"),
    (X, {"every": 2.0}, "every is 2.0; expected a whole number >= 1"),
    ([X], {"window": 2}, "window is for arrays"),
    (5, {}, "source is 5; expected the path of an .npy file, an array, an iterable"),
    (X[0], {}, r"source has shape \(3,\); expected \(T, m\), time first, for h0 of shape \(3,\)"),
    (X.astype(np.float32), {}, "x is float32 and h0 float64"),
    ([], {}, "no chunk 0"),
    (X, {"on_failure": "warn"}, "on_failure is 'warn', and a file cannot tell"),
    (X, {"method": "newtn"}, "newtn"),
    (X, {"lengths": [1]}, "a stream has no lengths"),
    (X * np.nan, {}, "x is nan"),
])  # fmt: skip
def test_wrong_arguments_leave_nothing(tmp_path, source, options, message):
    options = {"compiled": False, **options}
    with pytest.raises(InvalidInput, match=message):
        prs.solve_to(tmp_path / "h.npy", lambda h, x, _: h, source, np.zeros(3), **options)
    assert names(tmp_path) == []


def test_a_source_that_is_no_array_of_numpy(tmp_path):
    case, file = block_tanh(), tmp_path / "x.npy"
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        store(tmp_path / "h.npy", case, file)
    file.write_text("1 2 3")
    with pytest.raises(InvalidInput, match="cannot read .*: expected an array written by numpy"):
        store(tmp_path / "h.npy", case, file)
    np.savez(file.with_suffix(".npz"), x=case.x)
    with pytest.raises(InvalidInput, match="is an archive; expected one array"):
        store(tmp_path / "h.npy", case, file.with_suffix(".npz"))


def test_a_file_that_exists_is_not_touched_unless_asked(tmp_path):
    case, path = block_tanh(), tmp_path / "h.npy"
    path.write_text("mine")
    with pytest.raises(InvalidInput, match="which exists; expected a new file: pass overwrite="):
        store(path, case, **FREE)
    assert path.read_text() == "mine"
    assert names(tmp_path) == ["h.npy"]
    with pytest.raises(ZeroDivisionError):
        store(path, case, (1 / 0 for _ in [1]), overwrite=True, **FREE)
    assert path.read_text() == "mine"
    (tmp_path / "link").symlink_to(path)
    store(tmp_path / "link", case, overwrite=True, **FREE)
    np.testing.assert_array_equal(np.load(path), rollout(case))
    assert names(tmp_path) == ["h.npy", "link"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_file(tmp_path, overwrite):
    (tmp_path / "results").mkdir()
    with pytest.raises(InvalidInput, match="is a folder; expected the name of a file in it"):
        store(tmp_path / "results", block_tanh(), overwrite=overwrite, **FREE)
    assert names(tmp_path) == ["results"]


def test_two_cannot_write_one_file(tmp_path):
    case, path = block_tanh(T=4), tmp_path / "h.npy"
    refused = []

    def other():
        with pytest.raises(InvalidInput, match="is being written by another call"):
            store(path, case, **FREE)
        refused.append(True)

    def chunks():
        yield case.x[:2]
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        yield case.x[2:]

    assert store(path, case, chunks(), **FREE).steps == 4
    assert refused == [True]


def test_a_file_that_was_put_in_place_meanwhile_is_not_written(tmp_path, monkeypatch):
    import fcntl

    case, path = block_tanh(), tmp_path / "h.npy"

    def finished(file, flags):  # between open and flock, the other call came to its end
        (tmp_path / "h.npy.part").rename(path)

    monkeypatch.setattr(fcntl, "flock", finished)
    with pytest.raises(InvalidInput, match="is being written by another call"):
        store(path, case, overwrite=True, **FREE)
    assert path.read_bytes() == b""


def test_a_disk_without_room_is_noticed_before(tmp_path, monkeypatch):
    usage = part.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(part.shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    h0 = np.zeros(1)
    with pytest.raises(InsufficientMemory, match=r"needs 8\.0 GB more, and 1\.0 GB are free"):
        prs.solve_to(tmp_path / "h.npy", lambda h, x, _: h / 2, None, h0, steps=10**9)
    assert names(tmp_path) == []
    few = prs.solve_to(
        tmp_path / "h.npy", lambda h, x, _: h / 2, None, h0, steps=10**4, every=9, **FREE
    )
    assert few.h.shape == (1111, 1)


def test_windows_that_do_not_converge(tmp_path):
    def explosive(h, x, _):
        return h * h + x

    chunks = [np.zeros((3, 1)), np.full((40, 1), 3.0)]
    path = tmp_path / "h.npy"
    for options in [{"method": "newton"}, {"method": "sequential"}]:
        arguments = path, explosive, chunks, np.ones(1)
        with pytest.raises(ConvergenceError, match="DIVERGED") as raised:
            prs.solve_to(*arguments, resume=False, **{**FREE, **options})
        assert raised.value.solution.h.shape == (40, 1)
        assert "3 steps are kept" in raised.value.__notes__[-1]
        assert names(tmp_path) == ["h.npy.checkpoint", "h.npy.part"]


def test_a_callback_that_stops_keeps_what_was_done(tmp_path):
    case = block_tanh(T=12)
    told = []

    def callback(state):
        told.append(state)
        if len(told) > 4:
            raise StopIteration

    with pytest.raises(ConvergenceError, match="STOPPED"):
        store(tmp_path / "h.npy", case, window=2, callback=callback, **{**FREE, "method": "newton"})
    assert not (tmp_path / "h.npy").exists()
