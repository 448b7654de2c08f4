"""Checks of a backend's conduct: arrays, NaN, repeated and concurrent calls."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from pararnn_solvers.testing.backend_systems import (
    Subject,
    random_system,
    require_equal,
    require_spoilt,
)
from pararnn_solvers.testing.context import numbers
from pararnn_solvers.testing.results import CheckFailed


def results_are_new_arrays(subject: Subject) -> None:
    """The result is a new, writable, C-contiguous NumPy array of the dtype and shape of rhs.

    Proves: so for 1 and 9 steps, forward and adjoint; a second call leaves the first result alone.

    Costs: 8 scans for each dtype.

    A failure means: a cast to float64 inside, a reversed view returned, a buffer kept and returned
    by every call, or arguments that are not taken.
    """
    for dtype, adjoint in subject.directions():
        for T in (1, 9):
            blocks, rhs = random_system(T, (2,), 2, 3, dtype)
            try:
                h = subject.scan(blocks, rhs, adjoint=adjoint)
            except Exception as error:
                raise CheckFailed(
                    "scan(blocks, rhs, *, adjoint=False) solves every system of float32 or float64",
                    f"{type(error).__name__}: {error} (blocks {blocks.shape}, {rhs.dtype}, "
                    f"adjoint={adjoint})",
                    "take these arguments; call scan by hand for the traceback",
                ) from error
            array = isinstance(h, np.ndarray)
            if not array or (h.shape, h.dtype) != (rhs.shape, rhs.dtype):
                kind = f"shape {h.shape}, {h.dtype}" if array else f"a {type(h).__name__}"
                raise CheckFailed(
                    "the result is a NumPy array of the shape and dtype of rhs",
                    f"{kind}, expected shape {rhs.shape}, {rhs.dtype} (blocks {blocks.shape})",
                    "cast and reshape the result; compute in the dtype of rhs",
                )
            if not (h.flags.c_contiguous and h.flags.writeable):
                raise CheckFailed(
                    "the result is C-contiguous and writable",
                    f"strides {h.strides}, writeable {h.flags.writeable} (T={T}, {adjoint=})",
                    "return np.ascontiguousarray(h), not a reversed view",
                )
            before = h.copy()
            again = subject.scan(blocks, 2 * rhs, adjoint=adjoint)
            if np.shares_memory(h, rhs) or np.shares_memory(h, again) or not same(h, before):
                raise CheckFailed(
                    "the result shares memory with nothing",
                    f"it shares memory with rhs or with the next result (T={T}, adjoint {adjoint})",
                    "allocate the result in every call: a buffer that is kept is overwritten",
                )


def systems_without_entries_are_solved(subject: Subject) -> None:
    """No lanes, no sequences, or no steps: the result is empty, and no error.

    Proves: so for n = 0, for a batch axis of 0, and for T = 0, forward and adjoint.

    Costs: 6 scans for each dtype.

    A failure means: a reshape with -1, a first step that is not there, or a division by a size.
    """
    for dtype, adjoint in subject.directions():
        for T, batch, k, n in ((4, (), 1, 0), (4, (0,), 2, 3), (0, (2,), 1, 3)):
            blocks, rhs = random_system(T, batch, k, n, dtype)
            try:
                shape = np.shape(subject.scan(blocks, rhs, adjoint=adjoint))
            except Exception as error:
                shape, cause = None, f"{type(error).__name__}: {error}"
            if shape != rhs.shape:
                seen = cause if shape is None else f"shape {shape}"
                raise CheckFailed(
                    f"rhs {rhs.shape} has an empty result of that shape",
                    seen,
                    "return np.empty(rhs.shape, rhs.dtype) at once if rhs.size is 0",
                )


def bad_numbers_stay_in_their_lane(subject: Subject) -> None:
    """NaN or infinity at one step reaches only later states (adjoint: earlier) of its own lane.

    Proves: with NaN and infinity put into rhs or a block, at steps 1, 20 and 39 of 40, all other
    entries have the same bits as without, and those that the bad number reaches are not finite.

    Costs: 52 scans of 40 steps for each dtype.

    A failure means: a mask by multiplication (0 * NaN is NaN) where a selection belongs, or a
    direct solver that mixes lanes.
    """
    for dtype, adjoint in subject.directions():
        for batch, k, n in (((), 1, 4), ((3,), 2, 3)):
            blocks, rhs = random_system(40, batch, k, n, dtype)
            clean = np.array(subject.scan(blocks, rhs, adjoint=adjoint))
            for t in (1, 20, 39):
                for bad in (np.nan, np.inf):
                    for where in ("rhs", "blocks"):
                        A, b = blocks.copy(), rhs.copy()
                        lane = (0,) * len(batch)
                        if where == "rhs":
                            b[(t, *lane, 1)] = bad
                        else:
                            A[(t, *lane, 0, 0, 1)] = bad
                        h = np.array(subject.scan(A, b, adjoint=adjoint))
                        # A_t first enters lam_{t-1}
                        part = slice(0, t + (where == "rhs")) if adjoint else slice(t, None)
                        require_spoilt(h, A, b, adjoint, f"{bad} in {where} at time {t}")
                        lanes = h.reshape(40, *batch, k, n)
                        spoilt = (part, *lane, slice(None), 1)
                        lanes[spoilt] = clean.reshape(lanes.shape)[spoilt]
                        require_equal(
                            h,
                            clean,
                            blocks,
                            "a bad number changes nothing before its step and in no other lane",
                            f"{bad} in {where} at time {t}, channel 1, "
                            f"{'adjoint' if adjoint else 'forward'}",
                            "select (np.where) instead of multiplying by a mask: 0 * nan is nan",
                        )


def any_layout_is_read(subject: Subject) -> None:
    """Inputs may be read-only, strided, reversed or in Fortran's order.

    Proves: the result is that of contiguous copies, within bits.

    Costs: 8 scans for each dtype.

    A failure means: memory is read as if contiguous (call np.ascontiguousarray first), or a kernel
    refuses read-only arrays.
    """
    for dtype, adjoint in subject.directions():
        blocks, rhs = random_system(12, (4,), 2, 6, dtype)
        expected = np.array(subject.scan(blocks.copy(), rhs.copy(), adjoint=adjoint))
        layouts = {
            "Fortran": (np.asfortranarray(blocks), np.asfortranarray(rhs)),
            "strided": (np.repeat(blocks, 2, axis=1)[:, ::2], np.repeat(rhs, 2, axis=2)[..., ::2]),
            "reversed": (blocks[::-1].copy()[::-1], rhs[::-1].copy()[::-1]),
        }
        for name, arrays in layouts.items():
            for array in arrays:
                array.flags.writeable = False
            require_equal(
                subject.scan(*arrays, adjoint=adjoint),
                expected,
                blocks,
                "the layout of inputs does not matter",
                f"{name} and read-only",
                "read through strides, or call np.ascontiguousarray first",
            )


def inputs_are_not_mutated(subject: Subject) -> None:
    """Blocks and right-hand side are as before, after the call.

    Proves: all their bits are, for 9 steps, with k = 1 and k = 2.

    Costs: 4 scans for each dtype.

    A failure means: a solution in place; copy rhs first.
    """
    for dtype, adjoint in subject.directions():
        for k in (1, 2):
            blocks, rhs = random_system(9, (2,), k, 3, dtype)
            copies = blocks.copy(), rhs.copy()
            subject.scan(blocks, rhs, adjoint=adjoint)
            for name, now, before in zip(("blocks", "rhs"), (blocks, rhs), copies, strict=True):
                if not same(now, before):
                    at = tuple(int(i) for i in np.argwhere(now != before)[0])
                    was, is_now = numbers(before[at], now[at])
                    raise CheckFailed(
                        f"{name} is not written to",
                        f"{name}[{', '.join(map(str, at))}] was {was} and is {is_now}",
                        "solve in a copy: h = rhs.copy()",
                    )


def equal_inputs_give_equal_bits(subject: Subject) -> None:
    """The same call has the same bits, also after other calls.

    Proves: so for 4 calls with others between them, with 300 steps; and other right-hand sides of
    the same shape have another solution.

    Costs: 14 scans for each dtype.

    A failure means: state is kept between calls, a cache takes one system for another, memory is
    read that nothing has been written to, or threads share out sums by who comes first.
    """
    for dtype, adjoint in subject.directions():
        blocks, rhs = random_system(300, (2,), 2, 3, dtype)
        first = np.array(subject.scan(blocks, rhs, adjoint=adjoint))
        for seed in range(1, 4):
            other = random_system(300, (2,), 2, 3, dtype, seed)
            if np.array_equal(subject.scan(*other, adjoint=adjoint), first):
                raise CheckFailed(
                    "other systems have other solutions",
                    f"two systems of blocks {blocks.shape}, {rhs.dtype} have the same",
                    "keep nothing between calls",
                    "a cache takes one system for another of the same shape",
                )
            require_equal(
                subject.scan(blocks, rhs, adjoint=adjoint),
                first,
                blocks,
                "equal inputs give equal bits",
                f"call {seed + 1} of the same system",
                "keep nothing between calls; sum in an order that does not depend on threads",
            )


def threads_do_not_disturb_one_another(subject: Subject) -> None:
    """Calls from several threads at once return what each would have returned alone.

    Proves: so for 64 calls with 8 different systems on 8 threads, forward and adjoint, bit for
    bit.

    Costs: 144 scans of 200 steps for each dtype.

    A failure means: a race: calls share a workspace. A race that is rare may not be seen.
    """
    for dtype, adjoint in subject.directions():
        solve = partial(subject.scan, adjoint=adjoint)
        systems = [random_system(200, (2,), 2, 2, dtype, seed) for seed in range(8)]
        alone = [np.array(solve(*system)) for system in systems]
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(solve, *systems[i % 8]) for i in range(64)]
            results = [call.result() for call in calls]
        for i, h in enumerate(results):
            require_equal(
                h,
                alone[i % 8],
                systems[i % 8][0],
                "concurrent calls do not disturb one another",
                f"call {i} of 64 on 8 threads",
                "a race: give each call a workspace of its own (or each thread, threading.local)",
            )


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays are equal, NaN included."""
    return bool(np.array_equal(a, b, equal_nan=True))


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        results_are_new_arrays,
        systems_without_entries_are_solved,
        bad_numbers_stay_in_their_lane,
        any_layout_is_read,
        inputs_are_not_mutated,
        equal_inputs_give_equal_bits,
        threads_do_not_disturb_one_another,
    )
}
