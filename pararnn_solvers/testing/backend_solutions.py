"""Checks of a backend's solutions: forward, adjoint, exact, at the ends of the range."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers.testing.backend_diagnosis import require_solution
from pararnn_solvers.testing.backend_systems import (
    LENGTHS,
    SHAPES,
    Subject,
    random_system,
    reference,
    require_equal,
    require_none,
    rounding,
)
from pararnn_solvers.testing.results import CheckFailed


def forward_is_the_recurrence(subject: Subject) -> None:
    """Forward, h_1 = b_1 and h_t = A_t h_{t-1} + b_t.

    Proves: for 13 lengths from 1 to 1025, among them powers of two and their neighbours, and 8
    shapes of lanes and blocks, every entry is that of a solution in long double, within rounding.

    Costs: 104 scans for each dtype.

    A failure means: a transposed block, the block of another step, another sign or the like, which
    the message names; or the least T that fails tells: not for powers of two, the tail of a tree;
    beyond a length, the end of a chunk.
    """
    solutions_at_all_lengths(
        subject,
        False,
        "h_t = A_t h_{t-1} + b_t",
        "solve step by step first; if only a greater T fails, look at the boundary of a chunk or "
        "at the tail of a tree of pairs",
    )


def adjoint_is_the_transposed_recurrence(subject: Subject) -> None:
    """Adjoint, lam_T = g_T and lam_t = g_t + A_{t+1}^T lam_{t+1}.

    Proves: what the check of the forward solution proves, backwards in time.

    Costs: 104 scans for each dtype.

    A failure means: blocks are not transposed (if only k > 1 fails), or A_t is taken where A_{t+1}
    belongs.
    """
    solutions_at_all_lengths(
        subject,
        True,
        "lam_t = g_t + A_{t+1}^T lam_{t+1}",
        "transpose each block (if only k > 1 fails); take A_{t+1}, not A_t, to solve for lam_t",
    )


def solutions_at_all_lengths(subject: Subject, adjoint: bool, promised: str, remedy: str) -> None:
    """Compare solutions of all lengths and shapes, shortest first."""
    for T in LENGTHS:
        for seed, shape in enumerate(SHAPES):
            for dtype in subject.dtypes:
                blocks, rhs = random_system(T, *shape, dtype, seed)
                require_solution(subject.scan, blocks, rhs, adjoint, promised, remedy)


def adjoint_passes_the_dot_test(subject: Subject) -> None:
    """The adjoint is the transpose of the forward solution: <g, M^-1 b> = <M^-T g, b>.

    Proves: the identity for 3 random pairs, within the rounding of both solutions.

    Costs: 6 scans for each dtype.

    A failure means: gradients do not belong to the states; forward and adjoint solve different
    systems.
    """
    for dtype in subject.dtypes:
        for seed, (batch, k, n) in enumerate((((), 1, 3), ((2,), 2, 2), ((), 4, 1))):
            blocks, b = random_system(33, batch, k, n, dtype, seed)
            g = random_system(33, batch, k, n, dtype, seed + 50)[1]
            h, lam = subject.scan(blocks, b), subject.scan(blocks, g, adjoint=True)
            left, right = (np.sum(u * v, dtype=np.longdouble) for u, v in ((g, h), (lam, b)))
            allowed = np.sum(np.abs(g) * rounding(blocks, b, False))
            allowed += np.sum(np.abs(b) * rounding(blocks, g, True))
            allowed += 2 * float(np.finfo(dtype).eps) * np.sum(np.abs(g * h) + np.abs(lam * b))
            if not abs(left - right) <= allowed:
                raise CheckFailed(
                    "<g, scan(b)> = <scan(g, adjoint), b>",
                    f"{float(left):.9g} and {float(right):.9g} (k={k}, n={n}, {b.dtype})",
                    "the adjoint solves another system: check the sign, the direction of time and "
                    "the transpose of blocks",
                )


def first_block_is_never_used(subject: Subject) -> None:
    """The first block A_1 has no effect, whatever is in it.

    Proves: with NaN, or a large number, in place of A_1 the result has the same bits.

    Costs: 18 scans for each dtype.

    A failure means: the first block is applied to the first right-hand side (h0 counts twice), or
    multiplied by a zero, which NaN survives.
    """
    for dtype, adjoint in subject.directions():
        for batch, k, n in (((), 1, 2), ((2,), 2, 3), ((), 4, 1)):
            blocks, rhs = random_system(6, batch, k, n, dtype)
            blocks[0] = 0
            expected = np.array(subject.scan(blocks, rhs, adjoint=adjoint))
            for value in (1e3, np.nan):
                blocks[0] = value
                require_equal(
                    subject.scan(blocks, rhs, adjoint=adjoint),
                    expected,
                    blocks,
                    "A_1 is never used",
                    f"A_1 = {value} instead of 0, {'adjoint' if adjoint else 'forward'}",
                    "h_1 = b_1: begin there. b_1 has A_1 h_0 in it already, so that a block on the "
                    "first step applies h0 twice; 0 * NaN is NaN",
                )


def exact_products_are_exact(subject: Subject) -> None:
    """Zero blocks, identities and permutations of whole numbers are without rounding.

    Proves: for small whole numbers, which every order of operations sums exactly, each entry is
    the exact one: blocks all zero, zero at one step, identities, permutations that do not commute.

    Costs: 10 scans of 40 steps for each dtype.

    A failure means: division by products of blocks (which a zero block breaks), logarithms, or
    matrix products in the wrong order.
    """
    rng = np.random.default_rng(0)
    T, k = 40, 3
    eye = np.broadcast_to(np.eye(k)[..., None], (T, k, k, 2))
    reset = eye.copy()
    reset[17] = 0
    swaps = np.stack([np.eye(k)[rng.permutation(k)] for _ in range(T)])
    permuted = np.broadcast_to(swaps[..., None], eye.shape)
    diagonal = np.ones((T, 1, 1, 2 * k))
    diagonal[17] = 0
    kinds = {"zero": 0 * eye, "identity": eye, "one step zero": reset, "permutation": permuted}
    for dtype, adjoint in subject.directions():
        rhs = rng.integers(-8, 9, (T, 2 * k)).astype(dtype)
        for name, exact in {**kinds, "diagonal with a zero": diagonal}.items():
            blocks = exact.astype(dtype)
            require_equal(
                subject.scan(blocks, rhs, adjoint=adjoint),
                reference(blocks, rhs, adjoint),
                blocks,
                "sums of small whole numbers are exact",
                f"{name} blocks, {'adjoint' if adjoint else 'forward'}",
                "do not divide by products of blocks or take logarithms; multiply later blocks "
                "from the left",
            )


def overflow_is_that_of_the_recurrence(subject: Subject) -> None:
    """States overflow where those computed step by step do, and nowhere else.

    Proves: where products of blocks overflow that meet only zero states, the result is finite;
    where a state overflows, it is the same infinity. With 1 lane and with 4.

    Costs: 8 scans of 64 steps for each dtype.

    A failure means: products of blocks are made on their own and infinity meets a zero (look at
    isfinite of the product, and step through such pieces), or results are clipped.
    """
    for dtype, adjoint in subject.directions():
        large = np.finfo(dtype).max ** 0.4
        for lanes in (1, 4):
            for start in (1 / large, 1.0):
                blocks = np.full((64, 1, 1, lanes), large, dtype)
                rhs = np.zeros((64, lanes), dtype)
                rhs[32, -1] = start
                h = np.asarray(subject.scan(blocks, rhs, adjoint=adjoint))
                expected = reference(blocks, rhs, adjoint, dtype)
                with np.errstate(invalid="ignore"):
                    close = np.abs(h - expected) <= 64 * 4 * np.finfo(dtype).eps * np.abs(expected)
                require_none(
                    ~np.where(np.isinf(expected), h == expected, close),
                    h,
                    expected,
                    blocks,
                    "a state is infinite where the step by step one is, and only there",
                    f"blocks of {large:.3g}, one right-hand side not 0, {rhs.dtype}",
                    "a product of blocks that overflows is 0 * inf = nan beside a zero state: step "
                    "through such pieces; do not clip",
                )


def subnormals_are_kept(subject: Subject) -> None:
    """States below the smallest normal number are not flushed to zero.

    Proves: 1024 times the smallest subnormal number halves exactly, ten times.

    Costs: 2 scans of 11 steps for each dtype.

    A failure means: the processor's flush-to-zero mode, or fast-math, is on.
    """
    for dtype, adjoint in subject.directions():
        tiny = np.finfo(dtype).smallest_subnormal
        blocks, rhs = np.full((11, 1, 1, 1), 0.5, dtype), np.zeros((11, 1), dtype)
        rhs[-1 if adjoint else 0] = 1024 * tiny
        require_equal(
            subject.scan(blocks, rhs, adjoint=adjoint),
            reference(blocks, rhs, adjoint, dtype),
            blocks,
            "subnormal states halve exactly",
            f"{rhs.dtype}",
            "compile without fast-math, and leave flush-to-zero and denormals-are-zero off",
        )


def long_memory_is_kept(subject: Subject) -> None:
    """Rounding is all that is lost over 4097 steps, whether states decay or go on for ever.

    Proves: blocks 0.99, blocks 1 and rotations (k = 2, n = 1) agree with long double within
    rounding.

    Costs: 6 scans of 4097 steps for each dtype.

    A failure means: products are cut off after some steps, or sums in a tree cancel: the order is
    not one of sums and products of the recurrence.
    """
    T = 4097
    c, s = 0.8, 0.6
    decay, marginal = np.full((T, 1, 1, 3), 0.99), np.ones((T, 1, 1, 3))
    rotation = np.broadcast_to(np.array([[c, -s], [s, c]])[..., None], (T, 2, 2, 1))
    for dtype, adjoint in subject.directions():
        for A in (decay, marginal, rotation):
            rhs = np.zeros((T, A.shape[-2] * A.shape[-1]), dtype)
            rhs[[0, T // 2, -1]] = 1
            require_solution(
                subject.scan,
                A.astype(dtype),
                rhs,
                adjoint,
                "what happened long ago is still there, to rounding",
                "do not cut products off; carry the state into every chunk, not only the next",
            )


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    check.__name__: check
    for check in (
        forward_is_the_recurrence,
        adjoint_is_the_transposed_recurrence,
        adjoint_passes_the_dot_test,
        first_block_is_never_used,
        exact_products_are_exact,
        overflow_is_that_of_the_recurrence,
        subnormals_are_kept,
        long_memory_is_kept,
    )
}
