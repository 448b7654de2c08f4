"""Arrays that start a cache line; memory that is used again only when nobody holds it."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from pararnn_solvers.linear import alignment

MANY = (1 << 19,)  # numbers: a large array


@pytest.fixture(autouse=True)
def none_waiting(monkeypatch):
    gc.collect()
    alignment._waiting.clear()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (1 << 18, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_arrays_start_a_cache_line(shape, dtype):
    for make in (alignment.empty, alignment.zeros):
        array = make(shape, dtype)
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.c_contiguous and array.flags.writeable
        assert address(array) % 64 == 0 or array.size == 0
        assert array.base.nbytes == array.nbytes + 64 or array.nbytes >= alignment.LARGE
    assert not array.any()


def test_memory_that_nobody_holds_is_used_again():
    array = alignment.empty(MANY, np.float64)
    before = address(array)
    del array
    assert address(alignment.empty(MANY, np.float64)) == before


def test_memory_that_a_view_holds_is_not():
    array = alignment.empty(MANY, np.float64)
    array[:] = 1
    view = array[5::7].reshape(1, -1)
    del array
    other = alignment.zeros(MANY, np.float64)
    assert not np.shares_memory(view, other)
    assert (view == 1).all()


def test_small_arrays_do_not_take_the_memory_of_large_ones():
    array = alignment.empty((1 << 21,), np.float64)
    before = address(array)
    del array
    assert address(alignment.empty(MANY, np.float64)) != before


@pytest.mark.parametrize(("nbytes", "kept"), [(alignment.LARGE - 1, 0), (alignment.LARGE, 1)])
def test_memory_of_large_arrays_is_kept(nbytes, kept):
    array = alignment.empty((nbytes,), np.int8)
    del array
    assert len(alignment._waiting) == kept


@pytest.mark.parametrize(("less", "used"), [(1, True), (0, False)])
def test_memory_is_used_again_for_what_fills_more_than_half_of_it(less, used):
    nbytes = 2 * (alignment.LARGE + alignment.LINE) - alignment.LINE - less
    before = address(alignment.empty((nbytes,), np.int8))
    array = alignment.empty((alignment.LARGE,), np.int8)
    assert (address(array) == before) == used


def test_as_much_waits_as_may():
    arrays = [alignment.empty((alignment.KEPT // 4 - alignment.LINE,), np.int8) for _ in range(5)]
    for _ in range(4):
        arrays.pop()
    assert sum(memory.size for memory in alignment._waiting) == alignment.KEPT
    arrays.pop()
    assert sum(memory.size for memory in alignment._waiting) == alignment.KEPT


def test_what_waits_is_bounded():
    arrays = [alignment.empty(MANY, np.float64) for _ in range(20)]
    del arrays
    assert 0 < sum(memory.size for memory in alignment._waiting) <= alignment.KEPT
    del (huge := [alignment.empty((alignment.KEPT,), np.float64)])[0]
    assert sum(memory.size for memory in alignment._waiting) <= alignment.KEPT
    assert huge == []


def test_an_array_that_outlives_the_module_is_let_go_in_silence():
    code = """
from pararnn_solvers.linear import alignment
kept = alignment.empty(1 << 21, "f8")
alignment.last = lambda: kept  # goes after the names that the module uses
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert not ended.stderr


def test_threads_never_share():
    wrong = []

    def work(number):
        for _ in range(200):
            array = alignment.empty((1 << 17,), np.float64)
            array[::512] = number
            wrong.append(bool((array[::512] != number).any()))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 800 and not any(wrong)


def test_memory_that_may_not_be_written_is_viewed_as_if_it_might():
    constant = np.arange(3.0)
    constant.flags.writeable = False
    view = alignment.as_writable(constant)
    assert view.flags.writeable and np.shares_memory(view, constant)
    np.testing.assert_array_equal(view, constant)
