"""What users call: validate, pick, call. No mathematics."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pararnn_solvers import arrays, linear, solvers
from pararnn_solvers.checks import all_finite, require_one_place
from pararnn_solvers.compilation import has_limits, obstacle, with_program
from pararnn_solvers.distributed import over_ranks, ranks_of, require_shareable, slab_solution
from pararnn_solvers.errors import (
    ConvergenceError,
    ConvergenceWarning,
    InvalidInput,
    NotTraceable,
)
from pararnn_solvers.memory import where_arrays_are
from pararnn_solvers.progress import observer
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sequences import Sequences, masked, with_shared_marks
from pararnn_solvers.solvers.guess import named
from pararnn_solvers.solvers.memory import check_memory
from pararnn_solvers.solvers.sequential import finish_sequentially, rollout_system
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping
from pararnn_solvers.system import System, Tally
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import check_inputs, make_system, probe

ON_FAILURE = ("raise", "warn", "sequential")
HOST_BACKENDS = ("numba", "sequential", "scipy")
# Of this process so far: read by pararnn_solvers.testing.plugin, and by nothing else.
STATISTICS: dict[str, float] = {"solves": 0, "iterations": 0, "failures": 0, "seconds": 0.0}


def solve(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    lengths: Any = None,
    resets: Any = None,
    method: Any = "auto",
    backend: Any = "auto",
    guess: Any = None,
    atol: float | None = None,
    rtol: float | None = None,
    max_iter: int = 100,
    on_failure: str = "raise",
    callback: Callable[..., Any] | None = None,
    progress: bool = False,
    compiled: bool | None = None,
    comm: Any = None,
) -> Solution:
    """Return the trajectory of ``h_t = step(h_{t-1}, x_t, theta)``, solved for all t at once.

    Arrays are NumPy or CuPy arrays, or anything with DLPack (PyTorch, JAX), which is read where it
    is, without a copy. Those of one solve are all on the host, or all on one device; there the
    solve runs, on the current stream, and there its states are, as an array of NumPy or CuPy.

    Parameters
    ----------
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, or a :class:`Recurrence` that says more about it.
    x : array, shape (T, *batch, m), or None
        Inputs, float32 or float64. None for a recurrence without input: then give `steps`.
    h0 : array, shape (*batch, d)
        Initial states, dtype of x.
    theta : nested containers of arrays, optional
        Parameters, shared by all steps and sequences. Numbers of Python and NumPy fit in anywhere.
    steps : int, optional
        T where x is None.
    lengths : integers, shape (*batch), optional
        Steps of each sequence of a padded batch, at most T. Padding may hold anything; states
        there equal the sequence's final one (``Solution.final``; h0 of no steps), gradients are 0.
        Costs a copy of x with a column more for each channel, or one for all where m is no
        multiple of their number; nothing where all are T.
    resets : bool, shape (T, *batch), optional
        Where set, the state returns to h0 before that step: for sequences packed one after another.
        Costs a copy of x with d columns more.
    method : str or method
        A name out of ``solvers.METHODS`` or a value such as ``newton(chunk=64)``.
    backend : str or scan
        What solves the linear recurrences: ``"auto"`` (numba, or cupy for arrays on a device), a
        name out of ``linear.BACKENDS``, or a function ``scan(blocks, rhs, *, adjoint=False)``.
        ``"mpi"`` is ``comm=MPI.COMM_WORLD``.
    guess : array, callable or str, optional
        The trajectory to start from, a function from the system to one, or a name out of
        ``guess.GUESSES``. Default ``f(0, x)``; a moving window holds its last state, and chunks in
        kernels start from ``h_0`` (those of dense steps always).
    atol, rtol : float, optional
        Tolerance ``|F_t| <= atol + rtol |h_t|`` (maximum norm) on the residual of the returned
        states at every step. Default ``eps**0.75`` of the dtype.
    max_iter : int
        Most iterations; for a moving window, since it last moved. ``auto`` allows as many again to
        the moving window that gets what its first choice leaves.
    on_failure : {"raise", "warn", "sequential"}
        What to do about sequences that do not converge: raise ConvergenceError (it carries the
        partial solution), warn, or compute them step by step from their converged prefix (and
        warn if the recurrence itself overflows).
    callback : callable, optional
        Called with a :class:`State` after each iteration; may raise StopIteration to stop. Kernels
        for a rollout or for chunks call it once, at the end.
    progress : bool
        Show a progress bar on stderr.
    compiled : bool, optional
        Whether to run kernels made from `step` in its place (``Recurrence.explain`` tells what
        they compute). None: for trajectories of 2**17 numbers and more, if `step` can be traced and
        no ``jacobian=`` or other backend is asked for.
        Steps with matrix products have kernels for ``auto``, ``sequential`` and ``newton(chunk=S)``
        only. Where kernels diverge that compute sines or cosines, which they do up to 2**20 in
        float32 and 2**49 in float64, `step` itself is tried. ``Solution.compiled`` says which ran.
    comm : mpi4py communicator, optional
        Its ranks share the steps: each passes its own slab of x (or `steps`; and of `guess`), of
        any length, and all else alike, with `h0` before the first step of all. Each gets the
        solution of its slab, with the same statuses and norms; what one raises, all do. Methods:
        ``auto``, ``sequential``, and those with full or relaxed steps at all times at once.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidInput, InsufficientMemory, BackendUnavailable, NotDifferentiable
        Before the first iteration; for an x that is not finite, kernels may notice in it.
    NotTraceable
        With ``compiled=True``: what in `step` cannot be compiled.
    ConvergenceError
        With ``on_failure="raise"``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(1000.0))[:, None]
    >>> sol = prs.solve(lambda h, x, a: np.tanh(a * h + x), x, np.zeros(1), 0.5)
    >>> sol.status.name, sol.h.shape
    ('CONVERGED', (1000, 1))
    """
    began = time.perf_counter()
    ranks = ranks_of(comm, backend)
    with ranks.together():
        require_options(on_failure, backend, callback)
        stopping = Stopping(atol, rtol, max_iter)
        system, sequences = masked(make_system(recurrence, x, h0, theta, steps), lengths, resets)
        chosen, (backend_name, scan) = solvers.load(method), load_backend(backend, system.h0)
        label = f"{method}()" if isinstance(method, str) else str(chosen)
        if ranks.several:
            options = {"lengths": lengths, "resets": resets, "callback": callback}
            require_shareable(chosen, guess, on_failure, {**options, "progress": progress})
        with where_arrays_are(system, label):
            flat = compiled_or_not(system, sequences, backend, compiled)
            if not (flat.is_compiled and solvers.reads_drives(chosen)):
                check_inputs(system)
            if not flat.is_compiled:
                probe(flat)  # for what a trace would have shown
            check_memory(flat, chosen)
            flat = replace(flat, tally=Tally(), ranks=ranks)  # what was only tried does not count
            start = flatten_guess(guess, system, sequences)
            if ranks.several:
                scan = over_ranks(flat, chosen, scan, {"method": label, "stopping": f"{stopping}"})
            with observer(flat, callback, progress) as observe:
                solution = chosen.solve(flat, start, scan, stopping, observe)
                if has_limits(flat) and Status.DIVERGED in solution.sequence_status:
                    check_inputs(system)  # NaN of theirs is not the kernels'
                    flat = replace(with_one_batch_axis(system), tally=Tally(), ranks=ranks)
                    solution = chosen.solve(flat, start, scan, stopping, observe)
            if flat.tally.suspect:
                check_inputs(system)  # as a kernel noticed while it read them
            if on_failure == "sequential":
                solution = finish_sequentially(solution, stopping)
            if flat.recurrence is system.recurrence:
                system = replace(system, program=flat.program)
            if ranks.several:
                solution, system = slab_solution(solution, flat, system)
            solution = with_batch_axes(
                solution,
                system,
                sequences,
                method=solution.method or label,
                backend=backend_name,
                compiled=solution.compiled or flat.program is not None,
                ranks=ranks,
            )
    count(solution, time.perf_counter() - began)
    if not solution.success and solution.status is not Status.STOPPED:
        if on_failure == "raise":
            raise ConvergenceError(solution.message, solution)
        warnings.warn(solution.message, ConvergenceWarning, stacklevel=2)
    return solution


def require_options(on_failure: str, backend: Any, callback: Any) -> None:
    """Raise InvalidInput for options that no solve takes."""
    if on_failure not in ON_FAILURE:
        raise InvalidInput(f"on_failure is {on_failure!r}; expected one of {ON_FAILURE}")
    if not (isinstance(backend, str) or callable(backend)):
        raise InvalidInput(f"backend is {backend!r}; expected one name, such as 'numba', or a scan")
    if not (callback is None or callable(callback)):
        raise InvalidInput(f"callback is {callback!r}; expected a function of a State, or None")


def count(solution: Solution, seconds: float) -> None:
    """Add a solve to what this process has solved."""
    STATISTICS["solves"] += 1
    STATISTICS["iterations"] += solution.n_iter
    STATISTICS["failures"] += not solution.success
    STATISTICS["seconds"] += seconds


def rollout(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    lengths: Any = None,
    resets: Any = None,
    compiled: bool | None = None,
) -> Array:
    """Return the trajectory computed one step after another, shape (T, *batch, d).

    Parameters are those of :func:`solve`.

    Notes
    -----
    Cost: T calls of `step`, one after another; or one compiled loop over time; or both, if there
    are angles that kernels compute no sine of (see `compiled` there).

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> prs.rollout(lambda h, x, _: h + x, np.ones((3, 1)), np.zeros(1)).ravel()
    array([1., 2., 3.])
    """
    system, sequences = masked(make_system(recurrence, x, h0, theta, steps), lengths, resets)
    with where_arrays_are(system, "rollout"):
        check_inputs(system)
        flat = compiled_or_not(system, sequences, "auto", compiled)
        h = system.empty()
        if not flat.is_compiled:
            rollout_system(system, h)  # whose batch axes `step` may tell apart
        else:
            rollout_system(flat, h.reshape(flat.shape))
            if has_limits(flat) and not all_finite(h):
                rollout_system(system, h)
        return h if sequences is None else sequences.hold(h, system.h0)


def compiled_or_not(
    system: System, sequences: Sequences | None, backend: Any, compiled: bool | None
) -> System:
    """Return the equations with one batch axis, with a program or without."""
    flat = with_one_batch_axis(system)
    try:
        found = with_program(flat, backend, compiled)
        failure = None
    except NotTraceable as error:
        found, failure = flat, error
    # Marks for each channel may be what could not be traced: then others may do.
    wanted = not found.is_compiled and (compiled is None or compiled)
    if sequences is not None and wanted and not obstacle(flat, backend, compiled):
        other = with_shared_marks(sequences, flat)
        if other is not None:
            other = with_program(other, backend, compiled)
            if other.is_compiled:
                return other
    if failure is not None:
        if sequences is not None and sequences.resets is not None:
            failure.add_note(
                "with resets, drives that are no whole number of columns for each channel are "
                "compiled only where all sequences start from the same state"
            )
        raise failure
    return found


def load_backend(backend: Any, h0: Any = None) -> tuple[str, linear.Scan]:
    """Return the name and the function of a backend given by name or as a function.

    Parameters
    ----------
    backend : str or callable
        ``"auto"`` is what works where the arrays are.
    h0 : array, optional
        One of the arrays; a backend for arrays elsewhere is refused. None stands for the host.

    Raises
    ------
    InvalidInput, BackendUnavailable
    """
    if callable(backend):
        return getattr(backend, "__qualname__", type(backend).__name__), backend
    on_device = arrays.is_device_array(h0)
    name = ("cupy" if on_device else "numba") if backend in ("auto", "mpi") else backend
    if on_device and name in HOST_BACKENDS:
        raise InvalidInput(
            f"backend is {name!r}, which takes NumPy arrays, and the arrays are on "
            f"{arrays.place(h0)}; leave it out, pass 'cupy', or move the arrays: a.get()"
        )
    if name == "cupy" and h0 is not None and not on_device:
        raise InvalidInput(
            "backend is 'cupy', which takes arrays of CuPy, and the arrays are on the host; leave "
            "it out, or move the arrays: cupy.asarray(a)"
        )
    return ("mpi" if backend == "mpi" else name), linear.load(name)


def with_one_batch_axis(system: System) -> System:
    """Return the same equations with all batch axes in one: what the methods work on."""
    T, *batch, d = system.shape
    sequences = math.prod(batch)
    x = None if system.x is None else system.x.reshape(T, sequences, system.x.shape[-1])
    return replace(system, x=x, h0=system.h0.reshape(sequences, d))


def flatten_guess(guess: Any, system: System, sequences: Sequences | None = None) -> Any:
    """Return an array guess with one batch axis, after checking it; the function of a name."""
    if isinstance(guess, str):
        return named(guess)
    if guess is None or callable(guess):
        return guess
    guess = arrays.from_any(guess)
    require_one_place({"guess": guess, "h0": system.h0})
    if guess.shape != system.shape:
        raise InvalidInput(f"guess has shape {guess.shape}; expected (T, *batch, d) {system.shape}")
    if sequences is not None:
        guess = sequences.blank(guess)
    return guess.reshape(with_one_batch_axis(system).shape)


def with_batch_axes(
    solution: Solution, system: System, sequences: Sequences | None = None, **more: Any
) -> Solution:
    """Return a solution of the flattened equations in the shapes of the user's, with `more`."""
    batch = system.h0.shape[:-1]
    h = solution.h.reshape(system.shape)
    return replace(
        solution,
        h=h if sequences is None else sequences.hold(h, system.h0),
        sequences=sequences,
        sequence_status=solution.sequence_status.reshape(batch),
        residual_norms=solution.residual_norms.reshape(solution.n_iter + 1, *batch),
        system=system,
        **more,
    )
