"""Threads that take turns: one runs until it waits for what another has to do.

So nothing depends on how the system switches between threads, and what modules keep need not be
safe for ranks that are threads. Where all that are left wait, nobody will ever come: this is an
error at once, on all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

PATIENCE = 600  # seconds for one turn: for a thread that waits elsewhere, as for a lock


class Stopped(BaseException):
    """Ends threads, through all that handles exceptions: what they do is wrong, or never over."""


class Turns:
    """So many threads, of which one at a time runs.

    Parameters
    ----------
    work : list of callables
        One for each thread.
    """

    def __init__(self, work: list[Callable[[], Any]]) -> None:
        self.work = work
        self.turn = [threading.Semaphore(0) for _ in work]
        self.waiting = {i: ("its first turn", lambda: True) for i in range(len(work))}
        self.returned: list[Any] = [None] * len(work)
        self.raised: BaseException | None = None
        self.stopped = ""

    def run(self) -> list[Any]:
        """Return what each thread returns; or raise what the first to fail raises."""
        threads = [threading.Thread(target=self._run, args=(i,)) for i in range(len(self.work))]
        for thread in threads:
            thread.start()
        self._pass_on(-1)
        for thread in threads:
            thread.join()
        if isinstance(self.raised, Stopped):
            raise RuntimeError(str(self.raised)) from self.raised
        if self.raised is not None:
            raise self.raised
        return self.returned

    def _run(self, i: int) -> None:
        try:
            self._await_turn(i)
            self.returned[i] = self.work[i]()
        except BaseException as error:
            self.raised = self.raised or error
            self.stopped = self.stopped or f"thread {i} raised {error!r}"
        finally:
            self._pass_on(i)

    def wait(self, i: int, what: str, over: Callable[[], bool]) -> None:
        """Let others run, on thread i, until ``over()``."""
        if not self.stopped:
            self.waiting[i] = what, over
            self._pass_on(i)
            self._await_turn(i)
        if self.stopped:
            raise Stopped(self.stopped)

    def _await_turn(self, i: int) -> None:
        if not self.turn[i].acquire(timeout=PATIENCE):
            self.stopped = f"thread {i} waited {PATIENCE} s for a thread that did not give way"

    def _pass_on(self, i: int) -> None:
        """Let the next one run that can; where none can, let all run, to be stopped."""
        others = sorted(self.waiting, key=lambda j: (j - i - 1) % len(self.work))
        able = [j for j in others if self.stopped or self.waiting[j][1]()]
        if others and not able:
            told = "; ".join(f"{j} in {self.waiting[j][0]}" for j in sorted(others))
            self.stopped = f"all that are left wait for ever: {told}"
            able = others
        if able:
            del self.waiting[able[0]]
            self.turn[able[0]].release()
