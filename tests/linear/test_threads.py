"""The pool runs every task, whoever calls."""

from __future__ import annotations

import threading

import pytest

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import threads


@pytest.fixture(autouse=True)
def three_threads():
    before = threads.num_threads()
    threads.set_num_threads(3)
    yield
    threads.set_num_threads(before)


@pytest.mark.parametrize("tasks", [2, 3])
def test_tasks_run_side_by_side(tasks):
    barrier = threading.Barrier(tasks, timeout=10)
    seen = []
    threads.run([lambda: (barrier.wait(), seen.append(threading.get_ident()))] * tasks)
    assert len(set(seen)) == tasks and threading.get_ident() in seen


def test_a_child_that_a_task_forks_has_threads_of_its_own(monkeypatch):
    before = threads._state
    monkeypatch.setattr(threads._worker, "inside", True)
    threads._forget_pool()  # what the system calls in a forked child
    assert threads._state is not before and threads.num_threads() == 3
    test_tasks_run_side_by_side(3)


def test_no_more_tasks_run_at_once_than_there_are_threads():
    barrier = threading.Barrier(4, timeout=0.2)
    with pytest.raises(threading.BrokenBarrierError):
        threads.run([barrier.wait] * 4)


def test_one_task_or_one_thread_runs_in_the_caller():
    seen = []
    threads.run([lambda: seen.append(threading.get_ident())])
    threads.set_num_threads(1)
    threads.run([lambda: seen.append(threading.get_ident())] * 4)
    threads.run([])
    assert seen == [threading.get_ident()] * 5


def test_a_task_may_run_tasks():
    done = []
    inner = [lambda: done.append(1)] * 5
    threads.run([lambda: threads.run(inner)] * 6)
    assert len(done) == 30


def test_an_error_is_raised_after_all_tasks_have_ended():
    release, ended = threading.Event(), []

    def fail():
        release.set()
        raise ZeroDivisionError

    def wait():
        release.wait(10)
        ended.append(1)

    with pytest.raises(ZeroDivisionError):
        threads.run([fail, wait, wait])
    assert len(ended) == 2
    with pytest.raises(ZeroDivisionError):
        threads.run([wait, wait, fail])


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_the_number_of_threads_is_a_positive_integer(n):
    with pytest.raises(InvalidInput, match="integer >= 1"):
        threads.set_num_threads(n)
    assert threads.num_threads() == 3


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    affinities = {0: {3, 5}}  # of process 0, which is the caller
    monkeypatch.setattr(threads.os, "sched_getaffinity", affinities.get, raising=False)
    assert threads._available_cores() == 2


def test_a_system_without_affinities_tells_its_cores(monkeypatch):
    monkeypatch.delattr(threads.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 7)
    assert threads._available_cores() == 7
    monkeypatch.setattr(threads.os, "cpu_count", lambda: None)
    assert threads._available_cores() == 1
