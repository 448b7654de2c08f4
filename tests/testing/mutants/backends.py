"""Backends that are wrong on purpose, each with the check that has to find it.

Each is a small change to `correct`, the definition step by step.
"""

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Mutant(NamedTuple):
    """A wrong scan; `says` is in the message of the check that catches it."""

    name: str
    wrong: str
    scan: Callable[..., Any]
    caught_by: str
    says: str


def times(A, h):
    """Return A h for blocks (..., k, k, n) and states (..., k, n)."""
    return np.sum(A * h[..., None, :, :], axis=-2)


def transposed(A):
    return np.swapaxes(A, -3, -2)


def state(rhs, blocks):
    return rhs.reshape(*blocks.shape[:-3], *blocks.shape[-2:])


def forward(A, b, product=times):
    h = b.copy()
    for t in range(1, len(b)):
        h[t] = b[t] + product(A[t], h[t - 1])
    return h


def reversed_in_time(A):
    """Return the blocks of the adjoint, which is a forward recurrence in reversed time."""
    flipped = np.zeros_like(A)
    flipped[1:] = transposed(A[:0:-1])
    return flipped


def scan_of(solve=forward, blocks_of=lambda A: A, adjoint_blocks=reversed_in_time):
    """Return a scan: `solve` forward, and backward in reversed time."""

    def scan(blocks, rhs, *, adjoint=False):
        with np.errstate(all="ignore"):
            b = state(rhs, blocks)
            if adjoint:
                h = solve(adjoint_blocks(blocks), b[::-1])[::-1]
            else:
                h = solve(blocks_of(blocks), b)
        return np.ascontiguousarray(h).reshape(rhs.shape)

    return scan


correct = scan_of()


def for_powers_of_two(A, b):
    whole = 2 ** (len(b).bit_length() - 1) if len(b) else 0
    return np.concatenate([forward(A[:whole], b[:whole]), b[whole:]])


def in_chunks_without_state(A, b):
    pieces = [forward(A[t : t + 64], b[t : t + 64]) for t in range(0, len(b), 64)]
    return np.concatenate(pieces) if pieces else b.copy()


def first_block_times_first_state(A, b):
    h = b.copy()
    previous = b[0] if len(b) else None
    for t in range(len(b)):
        h[t] = previous = b[t] + times(A[t], previous)
    return h


def from_a_zero_state(A, b):
    h, previous = b.copy(), np.zeros_like(b[:1].sum(axis=0))
    for t in range(len(b)):
        h[t] = previous = b[t] + times(A[t], previous)
    return h


def by_division(A, b):
    if A.shape[-2] > 1:
        return forward(A, b)
    factors = np.concatenate([np.ones_like(A[:1]), A[1:]])[..., 0, :, :]
    products = np.cumprod(factors, axis=0)
    return products * np.cumsum(b / products, axis=0)


def matmul(P, Q):
    return np.einsum("...ijn,...jkn->...ikn", P, Q)


def by_doubling(A, b, product=matmul):
    """Solve by the products of 1, 2, 4, ... blocks: overflows where no state does."""
    A, h = A.copy(), b.copy()
    step = 1
    while step < len(b):
        h[step:] = h[step:] + times(A[step:], h[:-step])
        A[2 * step :] = product(A[2 * step :], A[step:-step])
        step *= 2
    return h


def clipped(A, b):
    large = np.finfo(b.dtype).max
    return np.clip(forward(A, b), -large, large)


def flushed(A, b):
    tiny = np.finfo(b.dtype).tiny
    return forward(A, b, lambda A, h: times(A, np.where(np.abs(h) < tiny, 0, h)))


def without_what_is_old(A, b, memory=2048):
    h = forward(A, b)
    for t in range(memory, len(b), memory):
        h[t:] = forward(A[t - memory // 2 :], b[t - memory // 2 :])[memory // 2 :]
    return h


def channels_by_a_mask(A, h):
    mask = np.eye(A.shape[-1], dtype=A.dtype)
    return times(A, np.sum(h[..., None, :] * mask, axis=-1))


def without_nan(A, b):
    return forward(np.nan_to_num(A), np.nan_to_num(b))


def in_double(blocks, rhs, *, adjoint=False):
    h = correct(blocks.astype(np.float64), rhs.astype(np.float64), adjoint=adjoint)
    return h


def a_reversed_view(blocks, rhs, *, adjoint=False):
    h = correct(blocks, rhs, adjoint=adjoint)
    return h[::-1].copy()[::-1] if adjoint else h


def into_one_buffer():
    buffers = {}

    def scan(blocks, rhs, *, adjoint=False):
        buffer = buffers.setdefault((rhs.shape, rhs.dtype), np.empty(rhs.shape, rhs.dtype))
        buffer[...] = correct(blocks, rhs, adjoint=adjoint)
        return buffer

    return scan


def from_the_first_step(blocks, rhs, *, adjoint=False):
    rhs[-1 if adjoint else 0]
    return correct(blocks, rhs, adjoint=adjoint)


def in_the_order_of_memory(blocks, rhs, *, adjoint=False):
    return correct(
        blocks.ravel(order="K").reshape(blocks.shape),
        rhs.ravel(order="K").reshape(rhs.shape),
        adjoint=adjoint,
    )


def in_place(blocks, rhs, *, adjoint=False):
    rhs[...] = correct(blocks, rhs, adjoint=adjoint)
    return rhs.copy()


def with_a_count():
    calls = itertools.count()

    def scan(blocks, rhs, *, adjoint=False):
        if next(calls) % 3:
            return correct(blocks, rhs, adjoint=adjoint)
        eps = np.finfo(rhs.dtype).eps
        return correct(blocks, rhs, adjoint=adjoint) * rhs.dtype.type(1 + eps)

    return scan


def with_a_shared_workspace():
    workspaces = {}

    def scan(blocks, rhs, *, adjoint=False):
        work = workspaces.setdefault((rhs.shape, rhs.dtype), np.empty(rhs.shape, rhs.dtype))
        work[...] = rhs
        time.sleep(1e-4)
        return correct(blocks, work, adjoint=adjoint)

    return scan


def without_transpose(A):
    return transposed(reversed_in_time(A))


def one_step_early(A):
    return transposed(A[::-1])


def previous_blocks(A):
    return np.concatenate([A[:1], A[:-1]])


def wrong_sign(A):
    return -reversed_in_time(A)


def by_shape():
    """Return a scan that keeps the solution of the last system of each shape."""
    known: dict[object, np.ndarray] = {}

    def scan(blocks, rhs, *, adjoint=False):
        key = blocks.shape, rhs.dtype, adjoint
        return known.setdefault(key, correct(blocks, rhs, adjoint=adjoint)).copy()

    return scan


def in_single(blocks, rhs, *, adjoint=False):
    with np.errstate(over="ignore"):
        found = correct(blocks.astype(np.float32), rhs.astype(np.float32), adjoint=adjoint)
    return found.astype(rhs.dtype)


def side_by_side(blocks, rhs, *, adjoint=False):
    """Take the components of each channel to lie side by side."""
    k, n = blocks.shape[-2:]
    lead = rhs.shape[:-1]
    b = rhs.reshape(*lead, n, k).swapaxes(-1, -2).reshape(rhs.shape)
    h = correct(blocks, b, adjoint=adjoint).reshape(*lead, k, n)
    return np.ascontiguousarray(h.swapaxes(-1, -2)).reshape(rhs.shape)


MUTANTS = [
    Mutant(
        "transposed block",
        "blocks transposed, forward",
        scan_of(blocks_of=transposed),
        "forward_is_the_recurrence",
        "T=2",
    ),
    Mutant(
        "previous block",
        "the block of the step before",
        scan_of(blocks_of=previous_blocks),
        "forward_is_the_recurrence",
        "A_{t-1}",
    ),
    Mutant(
        "powers of two",
        "right only for powers of two",
        scan_of(for_powers_of_two),
        "forward_is_the_recurrence",
        "T=3",
    ),
    Mutant(
        "chunk boundary dropped",
        "chunks of 64 steps that begin from zero",
        scan_of(in_chunks_without_state),
        "forward_is_the_recurrence",
        "T=65",
    ),
    Mutant(
        "adjoint without transpose",
        "adjoint without the transpose",
        scan_of(adjoint_blocks=without_transpose),
        "adjoint_is_the_transposed_recurrence",
        "transpose each block",
    ),
    Mutant(
        "adjoint one step early",
        "A_t for A_{t+1} in the adjoint",
        scan_of(adjoint_blocks=one_step_early),
        "adjoint_is_the_transposed_recurrence",
        "A_{t+1}, not A_t",
    ),
    Mutant(
        "adjoint sign",
        "wrong sign in the adjoint",
        scan_of(adjoint_blocks=wrong_sign),
        "adjoint_passes_the_dot_test",
        "<g, scan(b)>",
    ),
    Mutant(
        "first block applied",
        "first block applied to `h0` twice",
        scan_of(first_block_times_first_state),
        "first_block_is_never_used",
        "A_1 = 1000.0",
    ),
    Mutant(
        "first block times zero",
        "first block multiplied by a state of zeros",
        scan_of(from_a_zero_state),
        "first_block_is_never_used",
        "A_1 = nan",
    ),
    Mutant(
        "division by products",
        "division by products of blocks",
        scan_of(by_division),
        "exact_products_are_exact",
        "diagonal with a zero",
    ),
    Mutant(
        "products in the wrong order",
        "products of blocks in the wrong order",
        scan_of(lambda A, b: by_doubling(A, b, lambda P, Q: matmul(Q, P))),
        "exact_products_are_exact",
        "permutation",
    ),
    Mutant(
        "products that overflow",
        "products of blocks that overflow where no state does",
        scan_of(by_doubling),
        "overflow_is_that_of_the_recurrence",
        "nan",
    ),
    Mutant(
        "clipped",
        "infinite states clipped to the largest number",
        scan_of(clipped),
        "overflow_is_that_of_the_recurrence",
        "expected inf",
    ),
    Mutant(
        "flush to zero",
        "subnormal states flushed to zero",
        scan_of(flushed),
        "subnormals_are_kept",
        "fast-math",
    ),
    Mutant(
        "old states dropped",
        "what is older than 2048 steps dropped",
        scan_of(without_what_is_old),
        "long_memory_is_kept",
        "T=4097",
    ),
    Mutant(
        "mask by multiplication",
        "channels separated by a mask of zeros",
        scan_of(lambda A, b: forward(A, b, channels_by_a_mask)),
        "bad_numbers_stay_in_their_lane",
        "in no other lane",
    ),
    Mutant(
        "NaN replaced",
        "NaN replaced by zero",
        scan_of(without_nan),
        "bad_numbers_stay_in_their_lane",
        "nan_to_num",
    ),
    Mutant("cast", "result in float64", in_double, "results_are_new_arrays", "float64"),
    Mutant(
        "reversed view",
        "a reversed view returned",
        a_reversed_view,
        "results_are_new_arrays",
        "strides",
    ),
    Mutant(
        "one buffer",
        "a buffer kept and returned by every call",
        into_one_buffer(),
        "results_are_new_arrays",
        "shares memory",
    ),
    Mutant(
        "a first step",
        "a first step taken for granted",
        from_the_first_step,
        "systems_without_entries_are_solved",
        "IndexError",
    ),
    Mutant(
        "order of memory",
        "memory read as if contiguous",
        in_the_order_of_memory,
        "any_layout_is_read",
        "Fortran",
    ),
    Mutant(
        "in place",
        "the right-hand side overwritten",
        in_place,
        "inputs_are_not_mutated",
        "rhs[",
    ),
    Mutant(
        "state between calls",
        "every third call rounds otherwise",
        with_a_count(),
        "equal_inputs_give_equal_bits",
        "of the same system",
    ),
    Mutant(
        "race",
        "a workspace shared by threads",
        with_a_shared_workspace(),
        "threads_do_not_disturb_one_another",
        "race",
    ),
    Mutant(
        "cache by shape",
        "a cache that takes one system for another of its shape",
        by_shape(),
        "equal_inputs_give_equal_bits",
        "a cache takes one system for another",
    ),
    Mutant(
        "no keyword",
        "no argument `adjoint`",
        lambda blocks, rhs: correct(blocks, rhs),
        "results_are_new_arrays",
        "take these arguments",
    ),
    Mutant(
        "sign of the blocks",
        "blocks with the other sign",
        scan_of(blocks_of=lambda A: -A),
        "forward_is_the_recurrence",
        "the blocks have the other sign",
    ),
    Mutant(
        "diagonal of the blocks",
        "couplings within blocks left out",
        scan_of(blocks_of=lambda A: A * np.eye(A.shape[-2], dtype=A.dtype)[..., None]),
        "forward_is_the_recurrence",
        "only the diagonal of the blocks",
    ),
    Mutant(
        "single inside",
        "float32 inside",
        in_single,
        "forward_is_the_recurrence",
        "computed in float32",
    ),
    Mutant(
        "side by side",
        "components of a channel side by side",
        side_by_side,
        "forward_is_the_recurrence",
        "components and channels are exchanged",
    ),
    Mutant(
        "pair",
        "a pair in place of an array",
        lambda blocks, rhs, *, adjoint=False: (correct(blocks, rhs, adjoint=adjoint), None),
        "results_are_new_arrays",
        "a tuple, expected shape",
    ),
    Mutant(
        "adjoint ignored",
        "the forward solution in place of the adjoint",
        lambda blocks, rhs, *, adjoint=False: correct(blocks, rhs),
        "adjoint_is_the_transposed_recurrence",
        "this is the forward solution",
    ),
]
