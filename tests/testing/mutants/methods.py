"""Methods that are wrong on purpose, each with the check that has to find it.

Each is a small change to `Own`, Newton's method written out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.solvers.guess import resolve
from pararnn_solvers.solvers.stopping import Status, max_norm
from pararnn_solvers.solvers.unsolved import State


class Mutant(NamedTuple):
    """A wrong method; `says` is in the message of the check that catches it."""

    name: str
    wrong: str
    method: Any
    caught_by: str
    says: str


def newton_step(system, h, scan, A=None):
    """Return h + delta with (I - S A) delta = -F(h), and f(h_0, x_1) as the first state."""
    F = system.residual(h)
    A = system.linearize(h) if A is None else A
    moved = h + BlockBidiagonal(A).solve(-F, scan)
    moved[:1] = h[:1] - F[:1]
    return moved


def euclidean(norm):
    return np.sqrt((norm**2).sum(axis=0))


def by_residual(norm, h, before, stopping):
    """Tell which sequences are solved, by their own residual; False for NaN."""
    return (norm <= stopping.tolerance(h)).all(axis=0)


def largest(norm):
    return norm.max(axis=0, initial=0)


def ends(solved, finite, spent):
    """Return the status of each sequence, None while it is open."""
    found = np.full(solved.shape, None, object)
    found[np.broadcast_to(spent, solved.shape)] = Status.MAX_ITER
    found[~finite] = Status.DIVERGED
    found[solved] = Status.CONVERGED
    return found


def told(observe, state):
    """Call the callback; tell whether it wants to stop."""
    try:
        observe(state)
    except StopIteration:
        return True
    return False


@dataclass(frozen=True)
class Own:
    """Newton's method, each of its decisions a function that a mutant replaces."""

    start: Callable[..., Any] = resolve
    move: Callable[..., Any] = newton_step
    norm_of: Callable[..., Any] = lambda system, h: max_norm(system.residual(h))
    judge: Callable[..., Any] = by_residual
    largest: Callable[..., Any] = largest
    ends: Callable[..., Any] = ends
    told: Callable[..., Any] = told
    seen_from: int = 0
    finish: Callable[..., Any] = lambda solution, before: solution

    def solve(self, system, guess, scan, stopping, observe=None):
        with np.errstate(all="ignore"):
            return self.iterate(system, guess, scan, stopping, observe)

    def iterate(self, system, guess, scan, stopping, observe):
        h = before = self.start(guess, system)
        status, norms = np.full(h.shape[1], None, object), []
        while True:
            norm = self.norm_of(system, h)
            norms.append(np.where(status == None, self.largest(norm), norms[-1] if norms else 0))  # noqa: E711
            n_iter = len(norms) - 1
            found = self.ends(
                self.judge(norm, h, before, stopping),
                np.isfinite(norms[-1]),
                n_iter >= stopping.max_iter,
            )
            status = np.where(status == None, found, status)  # noqa: E711
            is_open = np.array([s is None for s in status], bool)
            state = State(n_iter, h, norms[-1].astype(h.dtype), 0)
            if observe is not None and n_iter >= self.seen_from and self.told(observe, state):
                status[is_open] = Status.STOPPED
                break
            if not is_open.any():
                break
            before, h = h, np.where(is_open[:, None], self.move(system, h, scan), h)
        solution = prs.Solution(
            h=h,
            sequence_status=status,
            residual_norms=np.stack(norms).astype(h.dtype),
            n_step_evaluations=system.tally.steps,
            system=system,
            scan=scan,
            stopping=stopping,
        )
        return self.finish(solution, before)


correct = Own()


@dataclass(frozen=True)
class Pieces:
    """Solve pieces of 8 steps one after another, each by `correct` from the end of the last."""

    start_of: Callable[..., Any] = lambda system, h, t: system.h0 if t == 0 else h[t - 1]
    skips: int = 0

    def solve(self, system, guess, scan, stopping, observe=None):
        h = resolve(guess, system)
        solution = None
        for t in range(0, max(1, len(h)), 8):
            part = system.part(h, t, min(t + 8, len(h)))
            part = replace(part, h0=self.start_of(system, h, t))
            solution = correct.solve(part, h[t : t + 8], scan, stopping)
            kept = len(solution.h) - (self.skips if t + 8 < len(h) else 0)
            h[t : t + kept] = solution.h[:kept]
        return replace(solution, h=h, system=system)


def without_the_first_drive(system, h, scan):
    moved = newton_step(system, h, scan)
    moved[:1] = system.h0
    return moved


def by_update(norm, h, before, stopping):
    changed = max_norm(h - before)
    return (changed <= stopping.tolerance(h)).all(axis=0) & (h is not before)


def by_mean_over_time(norm, h, before, stopping):
    return np.sqrt((norm**2).sum(axis=0) / max(1, len(norm))) <= stopping.tolerance(h).min(
        axis=0, initial=np.inf
    )


def by_mean_over_the_batch(norm, h, before, stopping):
    mean = norm.mean(axis=1, keepdims=True) if norm.size else norm
    return (mean <= stopping.tolerance(h)).all(axis=0)


def by_not_greater(norm, h, before, stopping):
    return ~(norm > stopping.tolerance(h)).any(axis=0)


def only_after_an_iteration(norm, h, before, stopping):
    return by_residual(norm, h, before, stopping) & (h is not before)


def without_diverged(solved, finite, spent):
    return ends(solved, np.ones_like(finite), spent)


def converged_when_spent(solved, finite, spent):
    return ends(solved | (finite & spent), finite, spent)


def one_status_for_all(solved, finite, spent):
    return ends(np.full_like(solved, solved.all()), finite, spent)


def all_end_with_one(solved, finite, spent):
    return ends(solved, np.full_like(finite, finite.all()), spent)


def unjudged_when_spent(solved, finite, spent):
    return ends(solved & (not spent), finite, spent)


def fraction(omega):
    def move(system, h, scan):
        return h + h.dtype.type(omega) * (newton_step(system, h, scan) - h)

    return move


def blocks_of_the_step_before(system, h, scan):
    A = system.linearize(h)
    return newton_step(system, h, scan, np.concatenate([A[:1], A[:-1]]))


def diagonal_only(system, h, scan):
    A = system.linearize(h)
    k = A.shape[-2]
    return newton_step(system, h, scan, np.where(np.eye(k, dtype=bool)[..., None], A, 0))


def without_the_transpose(solution, before):
    return replace(solution, scan=lambda blocks, rhs, *, adjoint=False: solution.scan(blocks, rhs))


def one_iterate_old(solution, before):
    return replace(solution, h=before)


def without_the_guess(solution, before):
    norms = solution.residual_norms
    return replace(solution, residual_norms=norms[1:] if len(norms) > 1 else norms)


def sequences_by_a_mask(system, h, scan):
    mask = np.eye(h.shape[1], dtype=h.dtype)
    return np.einsum("bc,tcd->tbd", mask, newton_step(system, h, scan))


def line_search(least):
    """Halve the step of the whole batch until its residual falls."""

    def move(system, h, scan):
        delta, alpha = newton_step(system, h, scan) - h, 1.0
        before = np.nanmax(max_norm(system.residual(h)))
        while alpha > least:
            trial = h + h.dtype.type(alpha) * delta
            if np.max(max_norm(system.residual(trial))) < before:
                return trial
            alpha /= 2
        return h + delta

    return move


def failing(solution, before):
    if not solution.success and solution.status is not Status.STOPPED:
        raise RuntimeError("did not converge")
    return solution


def swallowing(observe, state):
    try:
        observe(state)
    except Exception:
        return True
    return False


def escaping(observe, state):
    observe(state)
    return False


def in_the_guess(guess, system):
    return (
        guess if isinstance(guess, np.ndarray) and guess.flags.writeable else resolve(guess, system)
    )


def into(h, moved):
    h[...] = moved
    return h


def as_if_contiguous(a):
    return None if a is None else a.ravel(order="K").reshape(a.shape)


@dataclass(frozen=True)
class Through:
    """Solve another system in place of the given one."""

    changed: Callable[..., Any]
    method: Own = correct

    def solve(self, system, guess, scan, stopping, observe=None):
        solution = self.method.solve(self.changed(system), guess, scan, stopping, observe)
        dtype = system.h0.dtype
        norms = solution.residual_norms.astype(dtype)
        return replace(solution, h=solution.h.astype(dtype), residual_norms=norms, system=system)


def in_double(system):
    x = None if system.x is None else system.x.astype(np.float64)
    return replace(system, x=x, h0=system.h0.astype(np.float64))


def cast(guess, system):
    return resolve(guess.astype(system.h0.dtype) if hasattr(guess, "astype") else guess, system)


class WithoutErrstate(Own):
    def solve(self, system, guess, scan, stopping, observe=None):
        return self.iterate(system, guess, scan, stopping, observe)


@dataclass(frozen=True)
class OneMore:
    """Make one iteration more than is allowed."""

    def solve(self, system, guess, scan, stopping, observe=None):
        stopping = replace(stopping, max_iter=stopping.max_iter + 1)
        return correct.solve(system, guess, scan, stopping, observe)


@dataclass
class Remembering:
    """Start from the trajectory that was solved last."""

    last: Any = None

    def solve(self, system, guess, scan, stopping, observe=None):
        if guess is None and self.last is not None and self.last.shape == system.shape:
            guess = self.last.astype(system.h0.dtype)
        solution = correct.solve(system, guess, scan, stopping, observe)
        self.last = solution.h
        return solution


@dataclass
class InItself:
    """Keep the iterate in the method, where other threads find it."""

    h: dict[str, Any] = field(default_factory=dict)

    def solve(self, system, guess, scan, stopping, observe=None):
        def move(system, h, scan):
            self.h["now"] = h
            time.sleep(1e-4)
            h = self.h["now"]
            return newton_step(system, h, scan) if h.shape == system.shape else h

        return Own(move=move).solve(system, guess, scan, stopping, observe)


class EverySecond:
    """Do nothing in every second iteration."""

    def solve(self, system, guess, scan, stopping, observe=None):
        calls = []

        def move(system, h, scan):
            calls.append(1)
            return newton_step(system, h, scan) if len(calls) % 2 else h.copy()

        return Own(move=move).solve(system, guess, scan, stopping, observe)


MUTANTS = [
    Mutant(
        "chunk boundary dropped",
        "each chunk starts from h_0",
        Pieces(start_of=lambda system, h, t: system.h0),
        "solution_is_the_rollout",
        "all states before step 8 are right",
    ),
    Mutant(
        "window skips its last step",
        "the last step of a window stays as it was guessed",
        Pieces(skips=1),
        "solution_is_the_rollout",
        "all states before step 7 are right",
    ),
    Mutant(
        "first drive left out",
        "the first state is h_0",
        Own(move=without_the_first_drive),
        "solution_is_the_rollout",
        "T=1",
    ),
    Mutant(
        "maximum over nothing",
        "a maximum over no steps",
        Own(largest=lambda norm: norm.max(axis=0)),
        "problems_without_entries_are_solved",
        "ValueError",
    ),
    Mutant(
        "tolerance on the update",
        "the update, not the residual, compared with the tolerance",
        Own(move=fraction(0.2), judge=by_update),
        "converged_states_meet_the_tolerance",
        "not the update",
    ),
    Mutant(
        "mean over time",
        "the root mean square over time compared with the tolerance",
        Own(judge=by_mean_over_time),
        "converged_states_meet_the_tolerance",
        "not a mean",
    ),
    Mutant(
        "false CONVERGED",
        "CONVERGED when the iterations run out",
        Own(ends=converged_when_spent),
        "converged_states_meet_the_tolerance",
        "is CONVERGED",
    ),
    Mutant(
        "one iterate old",
        "the states before the last iteration returned",
        Own(finish=one_iterate_old),
        "converged_states_meet_the_tolerance",
        "iterate before",
    ),
    Mutant(
        "last iterate not judged",
        "the last iterate not judged when the iterations run out",
        Own(ends=unjudged_when_spent),
        "converged_states_meet_the_tolerance",
        "judge the last iterate",
    ),
    Mutant(
        "mean over the batch",
        "the mean residual of the batch compared with the tolerance",
        Own(judge=by_mean_over_the_batch),
        "each_sequence_is_judged_alone",
        "no mean, sum or norm over the batch",
    ),
    Mutant(
        "one status for all",
        "the worst status given to all sequences",
        Own(ends=one_status_for_all),
        "each_sequence_is_judged_alone",
        "statuses ['MAX_ITER', 'MAX_ITER'",
    ),
    Mutant(
        "Euclidean norms",
        "Euclidean norms over time in residual_norms",
        Own(largest=euclidean),
        "residual_norms_are_those_of_the_iterates",
        "row 0",
    ),
    Mutant(
        "guess not counted",
        "no row for the guess: one iteration too few is told",
        Own(finish=without_the_guess),
        "residual_norms_are_those_of_the_iterates",
        "residual of the guess",
    ),
    Mutant(
        "three quarters of a step",
        "three quarters of each step taken",
        Own(move=fraction(0.75)),
        "full_steps_make_the_prefix_exact",
        "step 0",
    ),
    Mutant(
        "idle iterations",
        "nothing done in every second iteration",
        EverySecond(),
        "full_steps_need_at_most_T_iterations",
        "at most T",
    ),
    Mutant(
        "blocks of another step",
        "A_{t-1} in place of A_t",
        Own(move=blocks_of_the_step_before),
        "linear_recurrences_take_one_iteration",
        "exact A_t",
    ),
    Mutant(
        "diagonal of the blocks",
        "couplings within blocks left out",
        Own(move=diagonal_only),
        "linear_recurrences_take_one_iteration",
        "k=2",
    ),
    Mutant(
        "one iteration more",
        "one iteration more than max_iter",
        OneMore(),
        "max_iter_is_obeyed",
        "n_iter is 1 for max_iter=0",
    ),
    Mutant(
        "guess not judged",
        "an iteration made before the guess is judged",
        Own(judge=only_after_an_iteration),
        "a_solved_guess_takes_no_iteration",
        "n_iter=1",
    ),
    Mutant(
        "arrays only",
        "a guess taken for an array",
        Own(start=lambda guess, system: guess.copy()),
        "every_kind_of_guess_is_taken",
        "NoneType",
    ),
    Mutant(
        "scan without adjoint",
        "a scan returned that solves forwards only",
        Own(finish=without_the_transpose),
        "gradients_are_those_of_the_rollout",
        "the scan that was given",
    ),
    Mutant(
        "stale gradient",
        "gradients at the iterate before the last",
        Own(finish=one_iterate_old),
        "gradients_are_those_of_the_rollout",
        "the last iterate",
    ),
    Mutant(
        "mask by multiplication",
        "sequences separated by a mask of zeros",
        Own(move=sequences_by_a_mask),
        "bad_numbers_stay_in_their_sequence",
        "select (np.where)",
    ),
    Mutant(
        "NaN converged",
        "NaN not greater than the tolerance, hence converged",
        Own(judge=by_not_greater, ends=without_diverged),
        "bad_numbers_stay_in_their_sequence",
        "'CONVERGED', 'CONVERGED', 'CONVERGED'",
    ),
    Mutant(
        "all end with one",
        "the batch given up when one sequence overflows",
        Own(ends=all_end_with_one),
        "bad_numbers_stay_in_their_sequence",
        "other sequences are solved",
    ),
    Mutant(
        "endless line search",
        "a line search that halves for ever where the residual is NaN",
        Own(move=line_search(least=-1.0)),
        "overflow_ends_and_is_named",
        "a line search needs a least step",
    ),
    Mutant(
        "warnings of NumPy",
        "NumPy's warnings of overflow let through",
        WithoutErrstate(largest=euclidean),
        "overflow_ends_and_is_named",
        "RuntimeWarning",
    ),
    Mutant(
        "one step length",
        "one step length for the whole batch",
        Own(move=line_search(least=1e-3)),
        "batch_is_each_sequence_alone",
        "its own step length",
    ),
    Mutant(
        "callback without the guess",
        "the callback not called for the guess",
        Own(seen_from=1),
        "callback_sees_iterates_and_can_stop",
        "it was called for [1, 2",
    ),
    Mutant(
        "StopIteration escapes",
        "StopIteration not caught",
        Own(told=escaping),
        "callback_sees_iterates_and_can_stop",
        "StopIteration",
    ),
    Mutant(
        "errors swallowed",
        "every error of the callback taken for a stop",
        Own(told=swallowing),
        "callback_sees_iterates_and_can_stop",
        "KeyError",
    ),
    Mutant(
        "raises by itself",
        "an error of the method's own where it does not converge",
        Own(finish=failing),
        "failures_are_reported_as_asked",
        "RuntimeError",
    ),
    Mutant(
        "in the guess",
        "iterates written into the guess",
        Own(start=in_the_guess, move=lambda s, h, scan: into(h, newton_step(s, h, scan))),
        "inputs_are_not_mutated",
        "guess[",
    ),
    Mutant(
        "order of memory",
        "drives read as if contiguous",
        Through(lambda system: replace(system, x=as_if_contiguous(system.x))),
        "any_layout_is_read",
        "Fortran",
    ),
    Mutant(
        "double inside",
        "float64 inside, float32 returned",
        Through(in_double, Own(start=cast)),
        "dtype_is_kept",
        "h of step is float64",
    ),
    Mutant(
        "warm start kept",
        "the last trajectory kept as the next guess",
        Remembering(),
        "equal_calls_give_equal_bits",
        "keep nothing between calls",
    ),
    Mutant(
        "race",
        "the iterate kept in the method, shared by threads",
        InItself(),
        "threads_do_not_disturb_one_another",
        "a race",
    ),
]
