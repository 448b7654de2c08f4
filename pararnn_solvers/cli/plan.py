"""``pararnn-solvers plan``: what training a model of some size takes."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.planning import MODELS, Model, Plan, as_dict, nearest, plan

CHOICES = ("cell", "heads", "inner", "vocabulary")
SETTINGS = ("batch", "iterations", "precision", "keep", "devices")


def run_plan(args: Namespace) -> int:
    """Print what the arguments ask for, and return the exit status."""
    plans = {name: planned(model, args) for name, model in chosen(args).items()}
    if args.json:
        print(json.dumps({name: as_dict(found) for name, found in plans.items()}, indent=2))
        return 0
    print(heading(next(iter(plans.values()))))
    print(aligned(summary(plans)))
    if len(plans) == 1:
        print("\n" + aligned(layer(next(iter(plans.values())))))
    return 0


def chosen(args: Namespace) -> dict[str, Model]:
    """Return the models that are asked for, by name: one, or all that have names."""
    changes = {name: getattr(args, name) for name in CHOICES if getattr(args, name) is not None}
    if args.width is None and args.layers is None:
        names = list(MODELS) if args.params is None else [nearest(args.params)]
        return {name: Model(MODELS[name].width, MODELS[name].layers, **changes) for name in names}
    if args.width is None or args.layers is None or args.params is not None:
        raise InvalidInput("expected --params, or both --width and --layers, or none of them")
    return {"model": Model(args.width, args.layers, **changes)}


def planned(model: Model, args: Namespace) -> Plan:
    """Return the plan of one model."""
    return plan(model, args.length, **{name: getattr(args, name) for name in SETTINGS})


def heading(found: Plan) -> str:
    """Return what all columns have in common."""
    model, split = found.model, f", weights split over {found.devices}" * (found.devices > 1)
    return (
        f"{model.cell}, {model.heads} heads, vocabulary {model.vocabulary}; {found.batch} "
        f"sequence(s) of {found.length} on a device{split}; {found.precision} precision, layers "
        f"keep {found.keep}\n"
    )


def summary(plans: dict[str, Plan]) -> list[list[str]]:
    """Return a row for each quantity, a column for each plan."""
    columns = list(plans.values())
    steps = f"{columns[0].iterations} Newton iterations"

    def row(label: str, values: Iterable[object]) -> list[str]:
        return [label, *map(str, values)]

    return [
        row("", plans),
        row("width × layers", (f"{p.model.width} × {p.model.layers}" for p in columns)),
        row("inner width of the MLP", (p.model.inner for p in columns)),
        row("parameters", (scaled(p.parameters) for p in columns)),
        row("a token", [""] * len(columns)),
        row("  FLOPs of linear maps, forward", (scaled(p.forward) for p in columns)),
        row("  backward", (scaled(p.backward) for p in columns)),
        row("  operations of recurrences, one pass", (scaled(p.one_pass) for p in columns)),
        row(f"  with {steps}", (scaled(p.newton) for p in columns)),
        row("  gradients", (scaled(p.adjoint) for p in columns)),
        row("  bytes moved by recurrences, one pass", (scaled(p.moved_one_pass) for p in columns)),
        row(f"  with {steps}", (scaled(p.moved_newton) for p in columns)),
        row("  gradients", (scaled(p.moved_adjoint) for p in columns)),
        row("a device, GiB", [""] * len(columns)),
        *(
            row(f"  {label}", (gib(getattr(p, name)) for p in columns))
            for label, name in (
                ("weights", "weights"),
                ("gradients", "gradients"),
                ("Adam's moments", "moments"),
                ("stored for the backward pass", "stored"),
                ("greatest gradient beside them", "working"),
                ("all", "memory"),
            )
        ),
    ]


def layer(found: Plan) -> list[list[str]]:
    """Return a row for each part of a layer."""
    model = found.model
    rows = [["one layer, a token", "parameters", "FLOPs forward", "stored", "of it in float32"]]
    for name, part in {**model.parts, "all": model.layer}.items():
        counts = (part.parameters, part.flops, part.activations + part.states, part.states)
        rows.append([name if name == "all" else f"  {name}", *map(scaled, counts)])
    return rows


def scaled(number: float) -> str:
    """Return a number to three digits with the letter of its power of 1000.

    Examples
    --------
    >>> scaled(7159000000), scaled(0)
    ('7.16 G', '0')
    """
    for power, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * power:
            return f"{number / power:#.3g}".rstrip(".") + letter
    return str(number)


def gib(number: int) -> str:
    """Return bytes in GiB."""
    return f"{number / 2**30:.3g}" if number < 100 * 2**30 else f"{number / 2**30:.0f}"


def aligned(rows: list[list[str]]) -> str:
    """Return a table, its first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
