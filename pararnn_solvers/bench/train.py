"""A training step in PyTorch, forward and backward, by this package's layer and by others.

Every contestant runs a layer of a diagonal GRU on the same inputs with the same weights, and from
the same derivatives of a loss by its outputs computes those by inputs and by weights; there is no
optimizer. What it finds is compared with a loop in float64 under PyTorch's autograd.
``torch.nn.GRU`` computes another recurrence, of equal width: it is timed and not compared. There
are two loops, both of the same step: "PyTorch loop" calls the whole cell at each step, as
``torch.nn.GRUCell`` is used; "hoisted loop" makes the drives of all steps beforehand.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.bench.cases import Case
from pararnn_solvers.bench.check import difference
from pararnn_solvers.bench.contestants import OURS, NotComparable, Variant
from pararnn_solvers.bench.report import numbers, table
from pararnn_solvers.bench.timing import Entrant, Result, fastest, summarize
from pararnn_solvers.bench.torch_loop import on_threads
from pararnn_solvers.cells import diagonal_gru
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.measure import processor, significant, stopwatch, turns

CASE = Case(
    "training",
    "diagonal GRU, forward and backward, batch 8 × 256 channels of 256 inputs",
    "gru",
    2048,
    256,
    (8,),
    task="training",
)
ALLOWED = 2e-4
"""Of the greatest entry of each gradient; sums over 16384 steps in float32 differ by 1e-5."""
TARGETS = {"PyTorch loop": 10.0, "hoisted loop": 10.0, "torch.nn.GRU": 3.0, "pararnn-torch": 5.0}
"""How many times this package's time the others are to take."""
ITERATIONS = (3, 5, 10, 100)


class Work(NamedTuple):
    """What a step is computed from: inputs, derivatives by outputs, weights; and the answer."""

    case: Case
    x: Any
    dy: Any
    theta: diagonal_gru.Theta
    answer: tuple[Any, ...] = ()


def build(case: Case) -> Work:
    """Return the work of a case, with the gradients by x, a, B and b in float64."""
    rng = np.random.default_rng(0)
    shape = (case.steps, *case.batch, case.channels)
    theta = diagonal_gru.init(rng, case.channels, case.channels, dtype=np.float32)
    x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    work = Work(case, x, dy, theta)
    return work._replace(answer=gradients_by_loop(work, np.float64))


# ---- contestants


def layer(work: Work) -> list[Variant]:
    """Return a step of this package's layer."""
    import torch

    from pararnn_solvers.torch import ParallelRNN

    n = work.case.channels
    made = ParallelRNN("diagonal_gru", n, n)
    with torch.no_grad():
        for parameter, value in zip(made.parameters(), work.theta, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return on_threads(Variant(backward(work, lambda x: made(x)[0], [*made.parameters()]), collect))


def loop(work: Work) -> list[Variant]:
    """Return the recurrence step by step, its drives made for all steps at once."""
    call = partial(gradients_by_loop, work, np.float32)
    return on_threads(Variant(call, lambda found: found, lambda found: "drives made at once"))


def loop_of_cells(work: Work) -> list[Variant]:
    """Return the whole cell step by step, its drives too, as ``torch.nn.GRUCell`` is used."""
    call = partial(gradients_by_loop, work, np.float32, drives_by_step)
    return on_threads(Variant(call, lambda found: found))


def products(work: Work) -> list[Variant]:
    """Return the three products of matrices alone, which all but the loop of cells make as well."""
    import torch

    linear = torch.nn.Linear(work.case.channels, 3 * work.case.channels)
    shape = (*work.x.shape[:-1], 3)
    along = np.broadcast_to(work.dy[..., None, :], (*shape, work.case.channels))
    wide = work._replace(dy=along.reshape(*work.x.shape[:-1], 3 * work.case.channels))
    call = backward(wide, linear, [*linear.parameters()])
    return on_threads(Variant(call, lambda found: (), lambda found: "the floor: no recurrence"))


def module(work: Work) -> list[Variant]:
    """Return ``torch.nn.GRU`` of equal width."""
    import torch

    gru = torch.nn.GRU(work.case.channels, work.case.channels)
    call = backward(work, lambda x: gru(x)[0], [*gru.parameters()])
    note = "not compared: its recurrent weights are dense"
    return on_threads(Variant(call, lambda found: (), lambda found: note))


def newton(work: Work) -> list[Variant]:
    """Return ``pararnn-torch`` with the fewest iterations that give the right answer."""
    import pararnn
    import torch

    n = work.case.channels
    cell = pararnn.ParaGRU(n, n, max_recurrent_norm=None)
    own = [cell.a_z, cell.a_r, cell.a_n, cell.W_x.weight, cell.W_x.bias]
    B = work.theta.B[:, 0].swapaxes(1, 2).reshape(3 * n, n)
    with torch.no_grad():
        for parameter, value in zip(own, (*work.theta.a, B, work.theta.b.ravel()), strict=True):
            parameter.copy_(torch.from_numpy(value))

    def gathered(found: Any) -> tuple[Any, ...]:
        dx, *da, dW, db = (v.numpy() for v in found)
        dB = dW.reshape(3, n, n).swapaxes(1, 2)[:, None]
        return dx, np.stack(da), dB, db.reshape(3, n)

    def iterated(count: int) -> Variant:
        config = pararnn.NewtonConfig(
            max_iters=count,
            scan_backend="eager",
            residual_atol=float(np.finfo(np.float32).eps) ** 0.75,
            residual_fail=None,
        )

        def outputs(x: Any) -> Any:
            return pararnn.newton_apply(cell, x.transpose(0, 1), config).transpose(0, 1)

        note = f"eager, at most {count} iterations"
        return Variant(backward(work, outputs, own), gathered, lambda found: note)

    ways = (iterated(count) for count in ITERATIONS)
    right = (way for way in ways if not off(work, way.collect(way.call())) > ALLOWED)
    found = next(right, None)
    if found is None:
        raise NotComparable(f"is not right to {ALLOWED:g} after {ITERATIONS[-1]} iterations")
    return on_threads(found)


class Contestant(NamedTuple):
    """What prepares a contestant, and the packages it needs beside PyTorch."""

    variants: Callable[[Work], list[Variant]]
    packages: tuple[str, ...] = ()


CONTESTANTS = {
    OURS: Contestant(layer),
    "products": Contestant(products),
    "torch.nn.GRU": Contestant(module),
    "pararnn-torch": Contestant(newton, ("pararnn",)),
    "PyTorch loop": Contestant(loop_of_cells),
    "hoisted loop": Contestant(loop),
}


def backward(
    work: Work, outputs: Callable[[Any], Any], parameters: Sequence[Any]
) -> Callable[[], tuple[Any, ...]]:
    """Return a step: the gradients by x and by parameters, from outputs (T, B, n) of x."""
    import torch

    x, dy = torch.from_numpy(work.x).requires_grad_(), torch.from_numpy(work.dy)
    return lambda: torch.autograd.grad(outputs(x), [x, *parameters], dy)


def collect(found: Any) -> tuple[Any, ...]:
    """Return tensors as arrays."""
    return tuple(v.numpy() for v in found)


def drives_at_once(x: Any, W: Any, b: Any) -> Any:
    """Yield the drives of each step, (B, 3 n), out of one product."""
    import torch

    yield from torch.nn.functional.linear(x, W, b).unbind()


def drives_by_step(x: Any, W: Any, b: Any) -> Any:
    """Yield the drives of each step, (B, 3 n), out of a product for each."""
    import torch

    yield from (torch.nn.functional.linear(row, W, b) for row in x.unbind())


def gradients_by_loop(work: Work, dtype: Any, drives: Any = drives_at_once) -> tuple[Any, ...]:
    """Return the gradients by x, a, B and b from a loop over the steps under autograd."""
    import torch

    def tensor(value: Any) -> Any:
        return torch.from_numpy(value.astype(dtype)).requires_grad_()

    x, a, B, b = leaves = [tensor(value) for value in (work.x, *work.theta)]
    n = work.case.channels
    W = B[:, 0].transpose(1, 2).reshape(3 * n, n)
    h, states = torch.zeros_like(x[0]), []
    for u in drives(x, W, b.reshape(-1)):
        u_z, u_r, u_c = u.split(n, -1)
        z = torch.sigmoid(a[0] * h + u_z)
        r = torch.sigmoid(a[1] * h + u_r)
        h = torch.lerp(h, torch.tanh(a[2] * h * r + u_c), z)
        states.append(h)
    dy = torch.from_numpy(work.dy.astype(dtype))
    return collect(torch.autograd.grad(torch.stack(states), leaves, dy))


# ---- times


def run(case: Case, repeats: int) -> list[Result]:
    """Check and time all contestants; results come in their order.

    Raises
    ------
    InvalidInput
        PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise InvalidInput(
            "a training step needs PyTorch, which is not installed; "
            'pip install "pararnn_solvers[torch]"'
        )
    work = build(case)
    admitted = [admit(name, one, work) for name, one in CONTESTANTS.items()]
    entrants = [one for one in admitted if isinstance(one, Entrant)]
    timed = iter(summarize(entrants, turns([one.call for one in entrants], repeats), case))
    return [next(timed) if isinstance(one, Entrant) else one for one in admitted]


def admit(name: str, contestant: Contestant, work: Work) -> Entrant | Result:
    """Return the faster way of a contestant whose answer is right, or why there is none."""
    missing = [package for package in contestant.packages if not importlib.util.find_spec(package)]
    if missing:
        return Result(name, "not installed", f"needs {', '.join(missing)}")
    try:
        ways = [enter(name, way, work) for way in contestant.variants(work)]
    except NotComparable as reason:
        return Result(name, "not comparable", str(reason))
    wrong = next((way for way in ways if way.error > ALLOWED), None)
    if wrong is not None:
        return Result(name, "wrong", f"off by {wrong.error:.1e}, allowed {ALLOWED:.0e}")
    return fastest(ways)


def enter(name: str, way: Variant, work: Work) -> Entrant:
    """Call a variant for the first time and measure its error, NaN where it is not compared."""
    seconds, found = stopwatch(way.call)
    return Entrant(
        name, way.call, work.case.steps, seconds, off(work, way.collect(found)), way.note(found)
    )


def off(work: Work, found: Sequence[Any]) -> float:
    """Return the greatest error of any gradient, relative to its greatest entry; NaN of none."""
    return difference(found, work.answer) if found else np.nan


# ---- reports


def targets(results: Sequence[Result]) -> str:
    """Return whether the ratios asked for were reached."""
    lines = []
    for one in results:
        asked = TARGETS.get(one.contestant)
        if asked and one.ratio:
            found = "reached" if one.ratio[1] >= asked else "missed"
            text = f"{significant(one.ratio[1], 2)}x, asked for {asked:g}x: {found}"
            lines.append(f"  {one.contestant:<16}{text}")
    return "\n".join(lines)


def text(case: Case, results: Sequence[Result]) -> str:
    """Return the table, the time of a step of this package, and what was asked for."""
    ours = next((one for one in results if one.contestant == OURS and one.ns), None)
    step = ours.ns[1] * case.steps * case.lanes / 1e6 if ours and ours.ns else None
    lines = [table(case, results)]
    lines += [] if step is None else [f"  a step of this package: {significant(step, 3)} ms"]
    return "\n".join([*lines, targets(results)])


def as_json(
    case: Case, results: Sequence[Result], repeats: int, environment: Mapping[str, Any]
) -> str:
    """Return everything as one JSON object; what was not measured is null."""
    report = {
        "environment": {"processor": processor(), **environment},
        "unit": "ns per step and channel",
        "quartiles": [25, 50, 75],
        "repeats": repeats,
        "case": asdict(case),
        "targets": TARGETS,
        "results": [numbers(asdict(one)) for one in results],
    }
    return json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
