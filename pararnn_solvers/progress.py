"""What watches a solve: the user's callback and a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pararnn_solvers.solvers.unsolved import State
from pararnn_solvers.system import System


@contextmanager
def observer(
    system: System, callback: Callable[[State], Any] | None, progress: bool
) -> Iterator[Callable[[State], None] | None]:
    """Yield what a method calls after each iteration, or None if nobody watches."""
    if not progress:
        yield callback
        return
    from tqdm import tqdm

    with tqdm(total=system.shape[0], unit="step", desc="converged") as bar:

        def observe(state: State) -> None:
            if state.h.shape[0] != bar.total:  # the condensed system of multiple shooting
                bar.reset(total=state.h.shape[0])
            bar.update(state.converged_steps - bar.n)
            residual = state.residual_norm.max(initial=0)
            bar.set_postfix(iteration=state.n_iter, residual=f"{residual:.1e}", refresh=False)
            if callback is not None:
                callback(state)

        yield observe


@contextmanager
def steps_bar(
    name: str, total: int | None, done: int, progress: bool
) -> Iterator[Callable[[int], Any]]:
    """Yield what is told of steps as they are done, of a total that may not be known."""
    if not progress:
        yield lambda steps: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit="step", unit_scale=True, desc=name) as bar:
        yield bar.update
