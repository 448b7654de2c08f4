"""Processes that share what is imported, and change it for themselves alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

FAILED = 3  # the status of a child that raised


def forked(told: Callable[[], str], seconds: float) -> tuple[int, str]:
    """Let a child tell something; return its exit status (1 unless it is nothing), and that."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        ended = FAILED  # whatever is raised here, nothing of it may leave the child
        try:
            text = told()
            ended = int(bool(text))
        except BaseException as error:
            text = repr(error)
        os.write(write, text.encode()[:50000])  # what a pipe holds
        os._exit(ended)
    os.close(write)
    status = waited(child, seconds)
    with os.fdopen(read) as pipe:
        return status, pipe.read()


def waited(child: int, seconds: float) -> int:
    """Return the exit status of a child, which gets so many seconds by the clock."""
    end = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
