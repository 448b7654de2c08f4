"""Trajectories longer than memory: solved window by window, from one file into another."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.api import solve
from pararnn_solvers.checks import require_whole
from pararnn_solvers.errors import ConvergenceError, InvalidInput
from pararnn_solvers.out_of_core.fingerprints import fingerprint, versions
from pararnn_solvers.out_of_core.part import Part, locked
from pararnn_solvers.out_of_core.sources import opened
from pararnn_solvers.progress import steps_bar
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.streaming import OF_THE_WHOLE, OPTIONS, stream
from pararnn_solvers.typing import Array

__all__ = ["Stored", "solve_to"]

FREE = {"callback", "progress", "max_iter", "on_failure"}
"""Options that may change in between: they have no say in windows that converged."""


@dataclass(frozen=True)
class Stored:
    """A trajectory in a file.

    Attributes
    ----------
    path : Path
        Of the ``.npy`` file.
    steps : int
        T, those of which no state was kept included.
    final : array, shape (*batch, d)
        The state after the last step.
    n_iter : int
        Iterations made for the window that took most.
    resumed : int
        Steps that an earlier call had done.

    Examples
    --------
    >>> import tempfile, numpy as np, pararnn_solvers as prs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = (np.full((2, 1), i) for i in (1.0, 2.0))
    ...     print(prs.solve_to(folder + "/h.npy", lambda h, x, _: h + x, x, np.zeros(1)).final)
    [6.]
    """

    path: Path
    steps: int
    final: Array = field(repr=False)
    n_iter: int
    resumed: int

    @property
    def h(self) -> np.ndarray[Any, Any]:
        """The states in the file, memory-mapped and read-only: shape (T // every, *batch, d)."""
        states: np.ndarray[Any, Any] = np.load(self.path, mmap_mode="r")
        return states


def solve_to(
    path: str | os.PathLike[str],
    recurrence: Recurrence | Callable[..., Any],
    source: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    window: int | None = None,
    every: int = 1,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> Stored:
    """Write the trajectory of ``h_t = step(h_{t-1}, x_t, theta)`` into a file, in bounded memory.

    ``np.load(path)`` equals ``solve(...).h`` for the whole of x, to the tolerance; for
    ``method="sequential"`` bit for bit, however it is cut, where ``solve`` runs compiled as this
    does. The file appears when it is whole. Until then states are in ``path + ".part"``, and
    ``path + ".checkpoint"`` says how far they go: the same call after a crash goes on from there,
    to the same bytes.

    Parameters
    ----------
    path : str or path
        Of the ``.npy`` file to make.
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, as of :func:`solve`.
    source : path, array, iterable of arrays, or None
        x of shape (T, *batch, m): the path of an ``.npy`` file; an array in memory or on disk
        (``np.memmap``, or with ``shape``, ``dtype`` and slices, as those of zarr and h5py); or
        arrays (T_i, *batch, m) one after another, T not known before the end. What comes from disk
        is copied to where `h0` is. None for a recurrence without input: then give `steps`.
    h0 : array, shape (*batch, d)
        Initial states; their dtype is that of the source and of the file.
    theta : nested containers of arrays, optional
    steps : int, optional
        T where `source` is None.
    window : int, optional
        Steps solved at once of an array, or without input. Default: as many as have 64 MB of
        inputs and states. Chunks of an iterable are solved as they come.
    every : int
        Keep the states after every so many steps only, ``h_every, h_{2 every}, ...``; the last
        state is in ``Stored.final`` in any case.
    resume : bool
        Go on from a checkpoint if there is one. False begins again, and discards it.
    overwrite : bool
        Replace an existing file, once the new one is whole.
    progress : bool
        Show a progress bar on stderr.
    **options
        Those of :func:`stream` but ``on_failure="warn"``; they hold for each window.

    Returns
    -------
    Stored
        ``Stored.h`` opens the file.

    Raises
    ------
    InvalidInput
        For wrong arguments; for a file that exists, or that another process is writing; for a
        checkpoint that other arguments have left (the message says which ones); for a source that
        is shorter or holds other numbers than before.
    InsufficientMemory
        The disk has not enough space, as far as T is known beforehand.
    ConvergenceError
        A window did not converge. It can be resumed with another ``max_iter``, or
        ``on_failure="sequential"``.
    OSError
        A file cannot be read or written. As of any error, a note says how many steps are kept.

    Notes
    -----
    Cost: that of ``stream``, and memory for one window: what its method needs, inputs and states at
    least. Each 2 seconds data are forced to the disk, then a checkpoint replaces the one before.

    Resuming: an iterable is given again from its start, and chunks that are done are passed over.
    A checkpoint knows recurrence, theta, h0 and options by fingerprints of their content (of
    functions: their code and what it refers to; in installed packages, name and version), the
    source by its shape and by the last inputs that were read, and the versions of this package,
    NumPy, Numba and Python. Bits are those of one machine and number of threads. ``max_iter``,
    ``on_failure`` and ``callback`` may change.

    Locks and atomic replacement are those of POSIX: Linux and macOS.

    Examples
    --------
    >>> import tempfile, numpy as np, pararnn_solvers as prs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/x.npy", np.ones((4, 1)))
    ...     step = lambda h, x, _: h + x
    ...     prs.solve_to(folder + "/h.npy", step, folder + "/x.npy", np.zeros(1)).h.ravel().tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    require_whole("every", every)
    if options.get("on_failure") == "warn":
        raise InvalidInput(
            "on_failure is 'warn', and a file cannot tell; expected 'raise' or 'sequential'"
        )
    stream(recurrence, [], h0, theta, **options)  # refuses arguments before anything is written
    h0 = arrays.from_any(h0)
    given = opened(source, h0, steps, window)
    problem = {
        **{"recurrence": recurrence, "h0": h0, "theta": theta, **with_defaults(options)},
        **{"source": given.about, "window": given.window, "every": every, **versions()},
    }
    path = Path(path).resolve()  # a link stays; the file it points to is replaced
    with locked(path) as file:
        if path.exists() and not overwrite:
            raise InvalidInput(
                f"path is {str(path)!r}, which exists; expected a new file: pass overwrite=True, "
                "or another name"
            )
        part = Part(file, path, h0, every, {k: fingerprint(v) for k, v in problem.items()})
        begun = part.begin(resume)
        with part.kept(), steps_bar(path.name, given.steps, begun.steps, progress) as advance:
            part.require_room(given.steps)
            for solution in stream(recurrence, given.after(begun), begun.state, theta, **options):
                if not solution.success:  # a callback stopped it, or the recurrence overflows
                    raise ConvergenceError(solution.message, solution)
                part.append(solution)
                advance(len(solution.h))
                del solution  # before the next one is there
            part.complete()
        done = part.put_in_place()
    return Stored(path, done.steps, done.state, done.n_iter, begun.steps)


def with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a stream that decide its numbers."""
    parameters = inspect.signature(solve).parameters
    names = sorted(OPTIONS - OF_THE_WHOLE.keys() - FREE)
    return {name: options.get(name, parameters[name].default) for name in names}
