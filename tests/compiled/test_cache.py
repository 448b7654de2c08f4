"""A second process starts warm, and nothing that is wrong on disk makes a result wrong."""

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from pararnn_solvers.compiled import cache

ROOT = Path(cache.__file__).parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")

# A factory as this package has them: a generated step, a hand-written kernel. Steps of other
# recurrences have the same names, and are too long for LLVM to inline.
FACTORY = '''
import json, os, sys
import numpy as np
from numba import njit
from pararnn_solvers.compiled import cache

LONG = "".join(f"    if h > {i}.5 + x: h = h * {i}.25 - x / (h + {i})\\n" for i in range(80))

def make(factor):
    source = f"def step(h, x):\\n{LONG}    return 0 * h + {factor}\\n"
    space = {"__name__": __name__}
    exec(source, space)
    step = njit(cache.unique(space["step"], cache.digest("step", source)))

    def kernel(h):
        return step(h, 1.0) + step(2 * h, 3.0)

    kernel = njit(kernel)
    cache.keep(kernel, cache.digest("kernel", source))
    return kernel

def report(factor):
    """The result, how often it was found on disk and compiled, and what LLVM calls it."""
    kernel = make(factor)
    value = kernel(1.0)
    result, = kernel.overloads.values()
    names = [f.name for f in result.library.get_defined_functions()]
    hits, misses = (sum(count.values()) for count in kernel.stats[1:])
    return {"value": value, "hits": hits, "misses": misses, "names": names}
'''


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    """An empty folder, and a process that has not warned."""
    monkeypatch.setenv("PARARNN_SOLVERS_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "kernels"


def start(tmp_path, code):
    (tmp_path / "factory.py").write_text(FACTORY, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", f"from factory import *\n{code}"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    return json.loads(out)


def reports(*factors):
    return f"print(json.dumps([report(factor) for factor in {factors}]))"


def scaled(factor, text="", salt=""):
    """A kernel that multiplies, new in this process."""

    @njit(forceinline=True)
    def step(h):
        return factor * h

    def kernel(h):
        return step(h)

    kernel = njit(kernel)
    cache.keep(kernel, cache.digest("scaled", str(factor), salt))
    return kernel


def counts(kernel):
    return tuple(sum(count.values()) for count in kernel.stats[1:])


def stored(where):
    return sorted(where.glob("*.kernel"))


def test_a_second_process_starts_warm_and_equal_names_stay_apart(tmp_path):
    """Two processes compile functions with equal names but for the tag; a third loads both."""
    (two,), (three,) = map(finish, [start(tmp_path, reports(2)), start(tmp_path, reports(3))])
    assert (two["value"], three["value"]) == (4, 6)
    assert [(one["hits"], one["misses"]) for one in (two, three)] == [(0, 1)] * 2
    untagged = [
        [cache.re.sub("_[0-9a-f]{32}", "", name) for name in r["names"]] for r in (two, three)
    ]
    assert untagged[0] == untagged[1]
    assert two["names"] != three["names"]
    assert any("step" in name for name in two["names"])  # not inlined, or there is nothing to see
    loaded = finish(start(tmp_path, reports(2, 3, 2)))
    assert [one["value"] for one in loaded] == [4, 6, 4]
    assert [(one["hits"], one["misses"]) for one in loaded] == [(1, 0)] * 3


def test_two_processes_at_once_leave_a_valid_file(tmp_path, disk):
    racing = [start(tmp_path, reports(5)) for _ in range(2)]
    assert [finish(process)[0]["value"] for process in racing] == [10, 10]
    assert len(stored(disk)) == 1
    assert not list(disk.glob("*.tmp"))
    assert finish(start(tmp_path, reports(5)))[0]["hits"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_loads_and_saves(tmp_path, disk):
    code = """
report(2)
child = os.fork()
if child == 0:
    found = [report(2), report(3)]
    good = [(one["value"], one["hits"]) for one in found] == [(4, 1), (6, 0)]
    os._exit(0 if good else 1)
assert os.waitpid(child, 0)[1] == 0
print(json.dumps(report(3)["hits"]))
"""
    assert finish(start(tmp_path, code)) == 1


def test_threads_compile_a_kernel_once(disk):
    kernel, values, barrier = scaled(2.0, salt="threads"), [], threading.Barrier(2)

    def call():
        barrier.wait()
        values.append(kernel(3.0))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [6, 6]
    assert counts(kernel) == (0, 1)
    assert len(stored(disk)) == 1


def test_each_signature_has_its_file(disk):
    kernel = scaled(2.0)
    assert kernel(1.5) == kernel(np.float32(1.5)) == 3
    assert len(stored(disk)) == 2
    again = scaled(2.0)
    assert again(1.5) == again(np.float32(1.5)) == 3
    assert counts(again) == (2, 0)
    assert again.stats.cache_path == disk


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


class Bomb:
    def __reduce__(self):
        return os._exit, (1,)


CORRUPTIONS = {
    "empty": lambda good, other: b"",
    "truncated": lambda good, other: good[:-10],
    "only the hash": lambda good, other: good[:64],
    "flipped in the hash": lambda good, other: flipped(good, 3),
    "flipped in the header": lambda good, other: flipped(good, 70),
    "flipped in the payload": lambda good, other: flipped(good, len(good) // 2),
    "flipped at the end": lambda good, other: flipped(good, len(good) - 1),
    "longer": lambda good, other: good + b"\0",
    "not ours": lambda good, other: b"\xff" * 1000,
    "another key": lambda good, other: other,
    "a bomb": lambda good, other: good[: good.index(b"\x80\x04")] + pickle.dumps(Bomb()),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_wrong_file_is_a_miss_and_replaced(disk, monkeypatch, corruption):
    unpickled = []

    def loads(data):
        unpickled.append(len(data))
        return pickle.loads(data)

    monkeypatch.setattr(cache, "pickle", types.SimpleNamespace(loads=loads))
    assert scaled(7.0)(1.0) == 7
    (other,) = stored(disk)
    other = other.rename(disk / "other")
    assert scaled(2.0)(1.0) == 2
    (path,) = stored(disk)
    path.write_bytes(CORRUPTIONS[corruption](path.read_bytes(), other.read_bytes()))
    kernel = scaled(2.0)
    assert kernel(1.0) == 2
    assert counts(kernel) == (0, 1)
    assert not unpickled
    kernel = scaled(2.0)
    assert kernel(1.0) == 2
    assert counts(kernel) == (1, 0)
    assert len(unpickled) == 1


def test_a_file_of_another_signature_is_a_miss(disk):
    scaled(2.0)(1.5)
    (double,) = stored(disk)
    scaled(2.0)(np.float32(1.5))
    (single,) = set(stored(disk)) - {double}
    single.write_bytes(double.read_bytes())
    kernel = scaled(2.0)
    assert kernel(np.float32(1.5)) == 3
    assert counts(kernel) == (0, 1)


def test_what_cannot_be_rebuilt_is_a_miss(disk, monkeypatch):
    scaled(2.0)(1.0)

    def fails(data):
        raise ModuleNotFoundError

    monkeypatch.setattr(cache, "pickle", types.SimpleNamespace(loads=fails))
    kernel = scaled(2.0)
    assert kernel(1.0) == 2
    assert counts(kernel) == (0, 1)


def results_and_warnings():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kernels = [scaled(factor) for factor in (2.0, 3.0)]
        values = [kernel(1.0) for kernel in kernels]
        assert cache.keep_source(cache.digest("source"), "x = 1\n") is None
    assert values == [2, 3]
    assert [counts(kernel) for kernel in kernels] == [(0, 1)] * 2
    return [str(one.message) for one in caught if one.category is RuntimeWarning]


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["tempfile.mkstemp", "os.replace", "os.fdopen"])
def test_a_full_disk_gives_one_warning(disk, monkeypatch, failing):
    module, name = failing.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(cache, module), name, full)
        (message,) = results_and_warnings()
    assert "No space left" in message
    assert str(disk) in message
    assert "set PARARNN_SOLVERS_CACHE" in message
    assert not stored(disk)


def test_a_folder_that_cannot_be_made_gives_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARARNN_SOLVERS_CACHE", str(tmp_path / "file" / "kernels"))
    (message,) = results_and_warnings()
    assert "not kept on disk" in message


def test_a_missing_home_gives_one_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARARNN_SOLVERS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    (message,) = results_and_warnings()
    assert "is HOME set?" in message
    assert not list(tmp_path.iterdir())


@POSIX
@pytest.mark.parametrize("who", ["group", "world", "another owner"])
def test_a_folder_others_can_write_to_is_refused(disk, monkeypatch, who):
    scaled(2.0)(1.0)
    if who == "another owner":
        monkeypatch.setattr(cache.os, "geteuid", lambda: disk.stat().st_uid + 1)
    else:
        disk.chmod(0o770 if who == "group" else 0o702)
    (message,) = results_and_warnings()
    assert "not yours" in message
    assert len(stored(disk)) == 1


@POSIX
def test_the_folder_is_private(disk):
    scaled(2.0)(1.0)
    assert disk.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in disk.iterdir())


@pytest.mark.parametrize("word", ["", "off", "OFF"])
def test_off_leaves_nothing_on_disk(tmp_path, monkeypatch, word):
    monkeypatch.setenv("PARARNN_SOLVERS_CACHE", word)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() is None
    assert not results_and_warnings()
    assert not list(tmp_path.iterdir())


def test_where_the_folder_is(tmp_path, monkeypatch):
    assert cache.folder() == tmp_path / "kernels"
    monkeypatch.delenv("PARARNN_SOLVERS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "pararnn_solvers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    expected = {"linux": ".cache", "darwin": "Library/Caches", "win32": ""}
    for platform, part in expected.items():
        monkeypatch.setattr(cache.sys, "platform", platform)
        assert cache.folder() == tmp_path / part / "pararnn_solvers"


def test_a_digest_tells_texts_apart():
    texts = [
        (),
        ("",),
        ("ab",),
        ("a", "b"),
        ("ab", ""),
        ("", "ab"),
        ("b", "a"),
        ("\N{GREEK SMALL LETTER TAU}",),
    ]
    assert len({cache.digest(*text) for text in texts}) == len(texts)
    assert cache.digest("a") == cache.digest("a")
    assert len(cache.digest("a")) == 64


def test_a_digest_depends_on_the_surroundings(monkeypatch):
    before = cache.digest("a")
    for module in (cache.numba, cache.llvmlite, cache.np, cache.pararnn_solvers):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "0.0.0")
            patch.setattr(cache, "_surroundings", cache._surroundings.__wrapped__)
            assert cache.digest("a") != before
    assert cache.digest("a") == before
    assert "def digest" in cache._surroundings()


@pytest.mark.parametrize("key", ["", "a", "../" + "a" * 61, "A" * 64, "a" * 64 + "\n"])
def test_a_key_is_a_digest(disk, key):
    for use in (cache.keep_source, lambda key, _: cache.unique(scaled, key)):
        with pytest.raises(ValueError, match="not 64 hexadecimal digits"):
            use(key, "")
    assert not disk.exists()


def test_keep_comes_before_the_first_call():
    kernel = scaled(2.0)
    kernel(1.0)
    with pytest.raises(ValueError, match="before its first call"):
        cache.keep(kernel, cache.digest("late"))


def test_a_plain_function_is_left_alone():
    def kernel(h):
        return h

    cache.keep(kernel, cache.digest("plain"))
    assert kernel.__name__ == "kernel"


def test_a_name_is_tagged_once():
    def kernel(h):
        return h

    key = cache.digest("name")
    assert cache.unique(cache.unique(kernel, key), key) is kernel
    assert kernel.__name__ == f"kernel_{key[:32]}"
    assert kernel.__qualname__.endswith(f".{kernel.__name__}")


def recursive():
    @njit
    def step(h, n):
        return h if n <= 0 else step(h, n - 1) + step(h, n - 2)

    return lambda h: step(h, 5)


def without_name():
    space = {}
    exec("def kernel(h): return h", space)
    return space["kernel"]


def not_inlined():
    lines = "".join(f"    if h > {i}.5 + x: h = h * {i}.25 - x / (h + {i})\n" for i in range(80))
    space = {"__name__": __name__}
    exec(f"def step(h, x):\n{lines}    return h\n", space)
    step = njit(space["step"])
    return lambda h: step(h, 1.0) + step(2 * h, 3.0)


REFUSED = {
    recursive: "recursive",
    without_name: "__name__",
    not_inlined: "step.* is not inlined",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_would_harm_another_process_is_not_kept(disk, make):
    kernel = njit(make())
    cache.keep(kernel, cache.digest(make.__name__))
    with pytest.warns(RuntimeWarning, match=REFUSED[make]):
        kernel(1.0)
    assert not stored(disk)


def test_a_function_as_an_argument_is_not_kept(disk):
    """Its type is named by an address, which the next process may use for something else."""

    def kernel(step, h):
        return step(h)

    kernel = njit(kernel)
    cache.keep(kernel, cache.digest("argument"))
    with pytest.warns(RuntimeWarning, match="address"):
        assert kernel(njit(lambda h: 2 * h), 1.0) == 2
    assert not stored(disk)


def test_recompiling_compiles(disk):
    kernel = scaled(2.0)
    kernel(1.0)
    kernel.recompile()
    assert kernel(1.0) == 2
    assert counts(kernel) == (0, 2)
    assert len(stored(disk)) == 1


def source(name, age=0, size=0):
    path = cache.keep_source(cache.digest(name), "#" * size)
    if path.exists():
        os.utime(path, ns=(10**18 - age * 10**9,) * 2)
    return path


def test_sources_are_readable(disk):
    path = cache.keep_source(cache.digest("s"), "# \N{GREEK SMALL LETTER TAU}\n")
    assert path == disk / f"{cache.digest('s')}.py"
    assert path.read_bytes().decode() == "# \N{GREEK SMALL LETTER TAU}\n"


def test_the_number_of_files_is_bounded(disk, monkeypatch):
    monkeypatch.setattr(cache, "MAX_FILES", 3)
    disk.mkdir(mode=0o700)
    foreign = disk / "thesis.py"
    foreign.write_text("")
    os.utime(foreign, (0, 0))
    old, middle, new = (source(name, age) for name, age in [("a", 30), ("b", 20), ("c", 10)])
    newest = source("d")
    assert [path.exists() for path in (old, middle, new, newest, foreign)] == [0, 1, 1, 1, 1]


def test_the_bytes_are_bounded(disk, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BYTES", 250)
    paths = [source(name, age, 100) for name, age in [("a", 30), ("b", 20), ("c", 10)]]
    assert [path.exists() for path in paths] == [0, 1, 1]


def test_a_kernel_in_use_is_not_the_oldest(disk):
    scaled(2.0)(1.0)
    (path,) = stored(disk)
    os.utime(path, (0, 0))
    scaled(2.0)(1.0)
    assert path.stat().st_mtime > 10**9


def test_files_may_vanish_meanwhile(disk, monkeypatch):
    source("a")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda where: iter([disk / f"{cache.digest('gone')}.py"]))
        assert source("b").exists()
