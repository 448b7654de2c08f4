"""Whether a solve runs kernels made from `step`, or `step` itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.autodiff.trace.graph import MOST_COMPONENTS
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.solvers.sequential import rollout_system
from pararnn_solvers.system import System, Tally
from pararnn_solvers.validation import close

COMPILE_FROM = 1 << 17  # numbers in a trajectory for which a second of compiling is soon earned
MOST_KNOWN = 64  # programs that are kept, and whether so many agree with a vjp

_known: dict[Any, Any] = {}
_lock = Lock()


def with_program(system: System, backend: Any, compiled: bool | None) -> System:
    """Return the system with the program of its step, or as it is.

    Parameters
    ----------
    system : System
        With one batch axis.
    backend : str or callable
        Kernels solve linear recurrences themselves, as ``"numba"`` or, on a device, ``"cupy"``;
        another one that is asked for by name is not passed over.
    compiled : bool, optional
        None compiles what can be compiled and is large enough.

    Raises
    ------
    NotTraceable, InvalidInput
        With ``compiled=True``: what in `step`, or in other arguments, cannot be compiled.
    """
    if not (compiled is None or isinstance(compiled, (bool, np.bool_))):
        raise InvalidInput(f"compiled is {compiled!r}; expected True, False, or None to choose")
    reason = obstacle(system, backend, compiled)
    if (compiled is not None and not compiled) or (reason and not compiled):
        return system
    if reason:
        raise InvalidInput(f"compiled=True is impossible: {reason}; leave out one of them")
    key = signature_of(system.recurrence.step, system)
    known = _known.get(key)  # another thread may forget it
    if known is not None:
        program, dense = known
        program = program and program.with_parameters(system.theta)
        return replace(system, program=program, dense=dense)
    try:
        found = traced(system)
    except NotTraceable:
        if compiled:
            raise
        return system
    if not agrees(found):
        return disagreement(system, compiled)
    if key is not None and (found.dense is None or not found.dense.trace.tape.reads_values):
        remember(_known, key, (found.program, found.dense))
    return found


def has_limits(system: System) -> bool:
    """Tell whether kernels may make NaN where `step` makes none; the same on all ranks."""
    program = system.dense if system.program is None else system.program
    return program is not None and bool(program.has_limits)


def obstacle(system: System, backend: Any, compiled: bool | None) -> str:
    """Return why there is no program, or nothing."""
    k, _ = system.recurrence.structure(system.shape[-1])
    if not compiled and math.prod(system.shape) < COMPILE_FROM:
        return f"the trajectory has fewer than {COMPILE_FROM} numbers"
    if system.recurrence.jacobian is not None:
        return f"kernels have derivatives of their own, and jacobian={system.recurrence.jacobian!r}"
    if backend not in ("auto", "mpi", "cupy" if arrays.is_device_array(system.h0) else "numba"):
        return f"kernels solve linear recurrences themselves, and backend={backend!r}"
    if k > MOST_COMPONENTS and system.recurrence.block_size is not None:
        return f"at most {MOST_COMPONENTS} components are compiled, and block_size={k}"
    return ""


def signature_of(function: Callable[..., Any], system: System) -> Any:
    """Return what a function of states, drives and theta depends on in a system.

    None where that may change unnoticed.
    """
    from pararnn_solvers.autodiff.trace.references import Unknown, signature

    recurrence = system.recurrence
    k, _ = recurrence.structure(system.shape[-1])
    try:
        found = signature(function, system.h0, system.x, system.theta, k)
        return bool(recurrence.fast_math), found
    except Unknown:
        return None


def remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep what was found for a `signature_of`, and forget the oldest."""
    with _lock:
        while len(known) >= MOST_KNOWN:
            del known[next(iter(known))]
        known[key] = value


def traced(system: System) -> System:
    """Return the system with its program: one call of `step` on traced arrays.

    A step whose channels couple is traced as elementwise stages between matrix products.
    """
    maker = makers(arrays.is_device_array(system.h0), bool(system.recurrence.fast_math))
    step, h0, x, theta = system.recurrence.step, system.h0, system.x, system.theta
    k, n = system.recurrence.structure(system.shape[-1])
    if k <= MOST_COMPONENTS:
        try:
            made = maker.channels(step, h0, x, theta, k)
            made.require_functions()
            return replace(system, program=made)
        except NotTraceable:
            if n > 1:
                raise
    return replace(system, dense=maker.dense(step, h0, x, theta))


class Makers(NamedTuple):
    """What makes programs: of steps whose channels do not couple, and of those with products."""

    channels: Callable[..., Any]
    dense: Callable[..., Any]


def makers(on_device: bool, fast_math: bool = False) -> Makers:
    """Return what makes programs for arrays on the host, where that imports Numba, or a device.

    `fast_math` is as of :class:`~pararnn_solvers.Recurrence`.
    """
    if on_device:
        from pararnn_solvers.compiled.cuda_dense import compile_dense_cuda, trace_dense
        from pararnn_solvers.compiled.cuda_dense_launch import require_room
        from pararnn_solvers.compiled.cuda_program import device_program

        def dense(*args: Any) -> Any:
            return require_room(compile_dense_cuda(trace_dense(*args), fast_math))

        return Makers(partial(device_program, fast_math=fast_math), dense)
    from pararnn_solvers.autodiff.trace.staged import trace_staged
    from pararnn_solvers.compiled.dense import compile_dense
    from pararnn_solvers.compiled.program import program

    return Makers(program, lambda *args: compile_dense(trace_staged(*args)))


def agrees(system: System) -> bool:
    """Tell whether program and step agree on a state: a step may deceive the tracer."""
    if 0 in system.shape:
        return True
    x = None if system.x is None else system.x[:1, :1]
    h0 = system.h0[:1] + system.h0.dtype.type(0.1)
    few = replace(system, x=x, h0=h0, steps=1, tally=Tally())
    h = few.empty()
    rollout_system(few, h)
    expected = replace(few, program=None, dense=None).evaluate(h0[None])
    return close(h, expected, system.recurrence.agreement)


def disagreement(system: System, compiled: bool | None) -> System:
    """Refuse, or do without the program."""
    if compiled:
        raise InvalidInput(
            "step computes something else on arrays than when it was traced: it depends on more "
            "than its arguments; pass compiled=False"
        )
    return system
