"""Whatever ends a solve, the same call again gives the file of one that ran through."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.errors import ConvergenceError, InvalidInput
from pararnn_solvers.out_of_core import part
from tests.out_of_core.test_solve_to import FREE, Zarr, names, store
from tests.strategies import block_tanh, rollout

T, WINDOW = 30, 7
CASE = block_tanh(k=2, T=T, batch=(2,))


@pytest.fixture(autouse=True)
def _checkpoints_after_every_window(monkeypatch):
    monkeypatch.setattr(part, "SECONDS", 0.0)


def fresh(cut=False):
    """The inputs of CASE as an array, or as an iterator of uneven chunks."""
    return iter(np.split(CASE.x, [4, 4, 11, 25])) if cut else CASE.x


class Crash(BaseException):
    """The process is gone."""


class Machine:
    """Stops at the n-th operation on the disk, and forgets then what was not forced there."""

    def __init__(self, monkeypatch, folder, n, forgets):
        self.folder, self.left, self.forgets, self.durable = folder, n, forgets, {}
        for owner, name, before in [
            (part, "write", self.write_half),
            (part.os, "fsync", lambda *_: None),
            (part.os, "replace", lambda *_: None),
            (Path, "unlink", lambda *_: None),
        ]:
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name), name, before))

    def watched(self, operation, name, before):
        def call(*args, **options):
            if not self.left:
                before(*args)
                raise Crash
            self.left -= 1
            found = operation(*args, **options)
            if name == "fsync":
                number = part.os.fstat(args[0]).st_ino
                for file in self.folder.iterdir():
                    if file.stat().st_ino == number:
                        self.durable[number] = file.read_bytes()
            return found

        return call

    @staticmethod
    def write_half(file, data):
        file.write(data[: len(data) // 2])

    def lose(self):
        for file in self.folder.iterdir() if self.forgets else ():
            file.write_bytes(self.durable.get(file.stat().st_ino, b""))


@pytest.mark.parametrize(("cut", "every", "forgets"), [
    (False, 1, False), (False, 1, True), (True, 4, True),
])  # fmt: skip
def test_a_crash_at_any_operation_is_survived(tmp_path, cut, every, forgets):
    options = {} if cut else {"window": WINDOW}
    options |= {"every": every, **FREE}
    expected, path = rollout(CASE)[every - 1 :: every], tmp_path / "h.npy"
    crashes, whole = 0, False
    while not whole:
        with pytest.MonkeyPatch.context() as patch:
            machine = Machine(patch, tmp_path, crashes, forgets)
            try:
                store(path, CASE, fresh(cut), **options)
                whole = machine.left > 0  # more operations allowed than there are
            except Crash:
                pass
        if not whole:
            machine.lose()
            crashes += 1
            if path.exists():  # only its checkpoint was left to be removed
                assert len(names(tmp_path)) <= 2
            else:
                found = store(path, CASE, fresh(cut), **options)
                assert found.resumed in {0, 4, 7, 11, 14, 21, 25, 28, 30}
                assert names(tmp_path) == ["h.npy"]
        np.testing.assert_array_equal(np.load(path), expected)
        path.unlink()
    assert crashes > 20
    (tmp_path / "h.npy.checkpoint").unlink(missing_ok=True)


def test_what_a_crash_left_beside_a_whole_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "h.npy"
    interrupt(path)
    (tmp_path / "h.npy.part").unlink()
    assert store(path, CASE, window=WINDOW, **FREE).resumed == 0
    assert names(tmp_path) == ["h.npy"]


SCRIPT = """
import sys, time
import numpy as np
import pararnn_solvers as prs
from pararnn_solvers.out_of_core import part

part.SECONDS = 0.0
def chunks():
    for i in range(100):
        print(i, flush=True)
        time.sleep(0.003 + (i == 99))  # it is not ready before it is killed
        yield np.random.default_rng(i).standard_normal((1 + i % 7, 2))

def step(h, x, a):
    return np.tanh(a * h + x)

options = dict(method="sequential", backend="sequential", compiled=False, every=3)
print("resumed", prs.solve_to(sys.argv[1], step, chunks(), np.zeros(2), 0.5, **options).resumed)
"""


def test_a_process_that_is_killed_is_resumed_to_the_same_bytes(tmp_path):
    def start(path):
        command = [sys.executable, "-c", SCRIPT, str(path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    path, rng, steps = tmp_path / "h.npy", np.random.default_rng(0), []
    for moment in (30, 60, 90):
        process = start(path)
        while process.stdout.readline() != f"{moment}\n":
            pass
        with pytest.raises(InvalidInput, match="is being written by another call"):
            store(path, CASE, **FREE)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not path.exists()
        known = json.loads((tmp_path / "h.npy.checkpoint").read_text(encoding="utf-8"))
        steps.append(known["steps"])
    assert steps == sorted(set(steps))
    last, _ = start(path).communicate()
    assert last.splitlines()[-1] == f"resumed {steps[-1]}"
    assert names(tmp_path) == ["h.npy"]
    undisturbed = tmp_path / "other.npy"
    assert start(undisturbed).communicate()[0].endswith("resumed 0\n")
    assert path.read_bytes() == undisturbed.read_bytes()


# --- errors that are told ------------------------------------------------------------------------


def interrupt(path, error=KeyboardInterrupt, **options):
    """Solve until after the second chunk."""

    def chunks():
        yield CASE.x[:WINDOW]
        yield CASE.x[WINDOW : 2 * WINDOW]
        raise error

    source = CASE.x if options.pop("array", True) else None
    if source is None:
        with pytest.raises(error) as raised:
            store(path, CASE, chunks(), **{**FREE, **options})
        return raised.value

    class Failing(Zarr):
        def __getitem__(self, steps):
            if steps.start >= 2 * WINDOW:
                raise error
            return super().__getitem__(steps)

    with pytest.raises(error) as raised:
        store(path, CASE, Failing(CASE.x), **{"window": WINDOW, **FREE, **options})
    return raised.value


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_error_says_what_is_kept(tmp_path, error):
    path = tmp_path / "h.npy"
    raised = interrupt(path, error)
    assert "14 steps are kept in" in raised.__notes__[-1]
    assert names(tmp_path) == ["h.npy.checkpoint", "h.npy.part"]
    assert np.load(tmp_path / "h.npy.part").shape == (0, 2, 6)  # does not look whole
    assert store(path, CASE, Zarr(CASE.x), window=WINDOW, **FREE).resumed == 14
    np.testing.assert_array_equal(np.load(path), rollout(CASE))


def test_what_is_not_wanted_is_begun_again(tmp_path):
    path = tmp_path / "h.npy"
    interrupt(path)
    with pytest.raises(InvalidInput, match="source has 0 steps from 0 on; expected 7"):
        store(path, CASE, Zarr(CASE.x, missing=T), window=WINDOW, resume=False, **FREE)
    assert names(tmp_path) == []  # neither of the two solves
    interrupt(path)
    assert store(path, CASE, window=WINDOW, resume=False, **FREE).resumed == 0
    np.testing.assert_array_equal(np.load(path), rollout(CASE))


def test_with_no_room_what_is_there_stays(tmp_path):
    path, limit = tmp_path / "h.npy", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            store(path, CASE, window=WINDOW, **FREE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "14 steps are kept" in raised.value.__notes__[-1]
    assert store(path, CASE, window=WINDOW, **FREE).resumed == 14
    np.testing.assert_array_equal(np.load(path), rollout(CASE))


def test_an_error_at_the_very_end_keeps_all_steps(tmp_path, monkeypatch):
    path, fsync = tmp_path / "h.npy", part.os.fsync
    monkeypatch.setattr(part, "SECONDS", 1e9)  # no checkpoint before
    calls = []

    def fails_once(number):
        calls.append(number)
        if len(calls) == 1:
            raise OSError("no room")
        fsync(number)

    monkeypatch.setattr(part.os, "fsync", fails_once)
    with pytest.raises(OSError, match="no room") as raised:
        store(path, CASE, window=WINDOW, **FREE)
    assert "30 steps are kept" in raised.value.__notes__[-1]
    assert not path.exists()
    assert store(path, CASE, window=WINDOW, **FREE).resumed == 30
    np.testing.assert_array_equal(np.load(path), rollout(CASE))


def test_an_error_after_resuming_says_where_it_is(tmp_path):
    path, x = tmp_path / "h.npy", CASE.x.copy()
    interrupt(path)
    x[2 * WINDOW + 3] = np.nan
    with pytest.raises(InvalidInput, match=r"x is nan at index \(3, 0, 0\)") as raised:
        store(path, CASE, x, window=WINDOW, **FREE)
    assert "call again to resume at step 14, where what failed begins" in raised.value.__notes__[-1]


def test_a_window_that_failed_is_done_otherwise(tmp_path):
    path, few = tmp_path / "h.npy", {**FREE, "method": "newton"}

    def step(h, x, a):
        return np.tanh(a * h + x)

    x = np.concatenate([np.full((20, 1), 20.0), np.zeros((20, 1))])  # saturated: one iteration
    arguments = path, step, x, np.zeros(1), 1.5
    with pytest.raises(ConvergenceError, match="MAX_ITER") as raised:
        prs.solve_to(*arguments, window=20, max_iter=2, **few)
    assert "20 steps are kept" in raised.value.__notes__[-1]
    found = prs.solve_to(*arguments, window=20, max_iter=2, on_failure="sequential", **few)
    assert found.resumed == 20
    np.testing.assert_allclose(found.h, prs.rollout(step, *arguments[2:]), rtol=1e-9)


# --- what does not belong together ---------------------------------------------------------------


def other_step(h, x, a):
    return np.tanh(h + x)


@pytest.mark.parametrize(("change", "message"), [
    ({"recurrence": other_step}, "recurrence was [0-9a-f]{16} and is [0-9a-f]{16}; expected"),
    ({"theta": CASE.theta + 1e-9}, "theta was"),
    ({"h0": CASE.h0 * 0.5}, "h0 was"),
    ({"h0": CASE.h0[:1], "source": CASE.x[:, :1]}, "h0 was .*; source was 'float64 "),
    ({"source": CASE.x[:-1]}, r"source was 'float64 \(30, 2, 6\)' and is 'float64 \(29, 2, 6\)'"),
    ({"source": [CASE.x]}, "source was .* and is 'an iterable'; window was 7 and is None"),
    ({"window": 8}, "window was 7 and is 8"),
    ({"every": 2, "atol": 1e-3}, "atol was None and is 0.001; every was 1 and is 2"),
    ({"method": "newton"}, "method was 'sequential' and is 'newton'"),
    ({"source": CASE.x + 1e-9}, "the last 7 of them are other numbers now"),
])  # fmt: skip
def test_a_checkpoint_of_another_solve_is_refused_and_kept(tmp_path, change, message):
    path = tmp_path / "h.npy"
    interrupt(path)
    left = {file: (tmp_path / file).read_bytes() for file in names(tmp_path)}
    given = {"recurrence": CASE.recurrence, "source": CASE.x, "h0": CASE.h0, "theta": CASE.theta}
    options = {"window": WINDOW, **FREE, **given, **change}
    if isinstance(options["source"], list):
        del options["window"]
    with pytest.raises(InvalidInput, match=message):
        prs.solve_to(path, **options)
    assert {file: (tmp_path / file).read_bytes() for file in names(tmp_path)} == left


def test_other_versions_are_refused(tmp_path, monkeypatch):
    interrupt(tmp_path / "h.npy")
    monkeypatch.setattr(prs, "__version__", "0.0.1")
    with pytest.raises(InvalidInput, match=r"pararnn_solvers was '.*' and is '0\.0\.1'"):
        store(tmp_path / "h.npy", CASE, window=WINDOW, **FREE)


@pytest.mark.parametrize(("chunks", "message"), [
    ([], "source ends after 0 steps, and 14 are done"),
    ([CASE.x[:7]], "source ends after 7 steps, and 14 are done"),
    ([CASE.x[:7], CASE.x[7:15]], "14 steps are done, and .* or another chunk"),
    ([CASE.x[:7], CASE.x[7:14] + 1e-9], "the last 7 of them are other numbers now"),
])  # fmt: skip
def test_an_iterable_comes_again_from_its_start(tmp_path, chunks, message):
    path = tmp_path / "h.npy"
    interrupt(path, array=False)
    with pytest.raises(InvalidInput, match=message):
        store(path, CASE, chunks, **FREE)
    found = store(path, CASE, [CASE.x[:7], CASE.x[7:14], CASE.x[14:]], **FREE)
    assert found.resumed == 14
    np.testing.assert_array_equal(found.h, rollout(CASE))


@pytest.mark.parametrize(("content", "message"), [
    ("{", "is no checkpoint"),
    ("[]", "is no checkpoint"),
    ('{"problem": 5}', "is no checkpoint"),
    ('{"problem": {}}', "is of another solve: recurrence was not known"),
])  # fmt: skip
def test_a_checkpoint_that_was_changed(tmp_path, content, message):
    interrupt(tmp_path / "h.npy")
    (tmp_path / "h.npy.checkpoint").write_text(content)
    with pytest.raises(InvalidInput, match=message):
        store(tmp_path / "h.npy", CASE, window=WINDOW, **FREE)


def test_a_part_that_was_cut(tmp_path):
    interrupt(tmp_path / "h.npy")
    with open(tmp_path / "h.npy.part", "r+b") as file:
        file.truncate(200)
    with pytest.raises(InvalidInput, match="is shorter than the 14 steps of its checkpoint"):
        store(tmp_path / "h.npy", CASE, window=WINDOW, **FREE)


# --- sources that become shorter -----------------------------------------------------------------


def test_a_file_that_becomes_shorter_is_noticed(tmp_path):
    np.save(tmp_path / "x.npy", CASE.x)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")

    def cut(state):
        with open(tmp_path / "x.npy", "r+b") as file:
            file.truncate(500)

    with pytest.raises(InvalidInput, match=r"x\.npy has become shorter"):
        store(tmp_path / "h.npy", CASE, x, window=WINDOW, callback=cut, **FREE)


def test_an_array_that_becomes_shorter_is_noticed(tmp_path):
    with pytest.raises(InvalidInput, match="source has 4 steps from 21 on; expected 7") as raised:
        store(tmp_path / "h.npy", CASE, Zarr(CASE.x, missing=5), window=WINDOW, **FREE)
    assert "21 steps are kept" in raised.value.__notes__[-1]
