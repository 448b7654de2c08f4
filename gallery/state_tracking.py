"""Which recurrences can keep a state: ``python gallery/state_tracking.py --figures docs``.

*The word problem of a group*: read elements one after another, and say at each step what their
product is. Parity is that of the group of two elements. Each step takes one lookup in a table, so
anything that steps through the sequence can do it. A linear recurrence with positive decays cannot
even do parity, whatever its depth, once sequences are longer than those it was trained on (Sarrof
et al. 2024, arXiv 2405.17394; Grazzi et al. 2024, arXiv 2411.12537); the word problems of A5 and S5
are out of reach of such models of any fixed depth, unless TC0 = NC1 (Merrill et al. 2024, arXiv
2404.08819). Published for nonlinear cells with diagonal weights: parity 100 %, against 51-52 % for
linear ones (Danieli et al. 2025, arXiv 2510.21450).

The same network is trained with each cell: an embedding, blocks of a recurrence and an MLP, a
read-out. Training starts with short sequences, and doubles their length up to 128 each time they
are answered well. Every network is then tested on up to 512 steps. Recurrent weights are not
clipped: the authors do not for parity either.

Results go to ``state_tracking.json`` in ``--out``. A run of all tasks takes some 40 minutes on one
core. ``--resume`` goes on where one was interrupted, and keeps the results of what is not named by
``--tasks`` and ``--cells``. ``--quick`` trains two cells on parity alone, in seconds.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import blocks
import numpy as np
import processes
import torch
import training
from torch.nn.functional import cross_entropy

SHORTEST, LONGEST = 4, 128  # lengths of training
LENGTHS = (16, 32, 64, 128, 256, 512)  # of evaluation
TOKENS = 2048  # in each batch: many short sequences or few long ones
READ = 128  # sequences in each evaluation
PASSED, BATCHES = 0.98, 10  # accuracy of so many batches, after which lengths double


class Group(NamedTuple):
    """A finite group of permutations, and the elements that sequences are made of.

    Attributes
    ----------
    elements : array, shape (G, k)
        Row g maps i to ``elements[g, i]``; row 0 is the identity.
    table : array, shape (G, G)
        ``elements[table[g, f]]`` is "first f, then g".
    letters : array
        Numbers of the elements that are read.
    """

    elements: np.ndarray
    table: np.ndarray
    letters: np.ndarray


def group(k: int, *letters: tuple[int, ...], alternating: bool = False) -> Group:
    """Return the permutations of k things, or the even ones; all are letters if none is named."""
    rows = [p for p in itertools.permutations(range(k)) if not (alternating and odd(p))]
    number = {p: i for i, p in enumerate(rows)}
    table = [[number[tuple(g[i] for i in f)] for f in rows] for g in rows]
    read = [number[p] for p in letters or rows]
    return Group(np.array(rows), np.array(table), np.array(read))


def odd(p: tuple[int, ...]) -> bool:
    """Return whether an odd number of pairs changes order."""
    return sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 1


TASKS = {
    "parity": group(2),
    "S3": group(3),
    "A5": group(5, (1, 2, 3, 4, 0), (1, 2, 0, 3, 4), alternating=True),
    "S5": group(5, (1, 2, 3, 4, 0), (1, 0, 2, 3, 4)),
}
"""Name -> group. Of S3 all elements are read, of A5 and S5 two that generate them."""

CELLS: dict[str, tuple[str, dict[str, Any], float]] = {
    "ParaGRU": ("diagonal_gru", {}, 20.0),
    "ParaLSTM": ("diagonal_lstm", {}, 20.0),
    "block GRU": ("block_gru", {"heads": 8}, 2.0),
    "minGRU": ("min_gru", {}, 1.0),
    "selective SSM": ("selective_ssm", {"states": 8}, 1.0),
}
"""Name in the tables -> cell, options of its `init`, and a factor for its recurrent weights.

The authors' initialization makes recurrent weights so small that cells start almost linear.
"""
LINEAR = ("minGRU", "selective SSM")


class Recipe(NamedTuple):
    """How a task is trained."""

    depth: int
    width: int
    rate: float
    steps: int


RECIPES = {
    "parity": Recipe(1, 64, 3e-3, 1000),
    "S3": Recipe(2, 64, 1e-2, 2500),
    "A5": Recipe(2, 64, 5e-3, 2500),
    "S5": Recipe(2, 64, 5e-3, 2500),
}


class Tracker(torch.nn.Module):
    """The network; how long its training sequences are now is saved along with its weights."""

    def __init__(self, task: str, name: str) -> None:
        super().__init__()
        cell, options, factor = CELLS[name]
        depth, width = RECIPES[task][:2]
        mixers = [blocks.Recurrent(cell, width, compiled=True, **options) for _ in range(depth)]
        elements = len(TASKS[task].elements)
        self.model = blocks.Model(
            elements, width, [blocks.Block(m, width, 2 * width, 0.0) for m in mixers]
        )
        enlarge(self.model, factor)
        self.register_buffer("length", torch.tensor(SHORTEST))
        self.register_buffer("passed", torch.tensor(0))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return logits (T, B, G) of the product at each step of words (T, B)."""
        return self.model(words)[0]

    def advance(self, accuracy: float) -> None:
        """Double the length of training sequences after `BATCHES` batches that went well."""
        self.passed += int(accuracy >= PASSED)
        if self.passed >= BATCHES and self.length < LONGEST:
            self.length *= 2
            self.passed.zero_()


@torch.no_grad()
def enlarge(model: torch.nn.Module, factor: float) -> None:
    """Multiply the recurrent weights, which are called a, p or A in all cells that have any."""
    for name, weights in model.named_parameters():
        if name.rsplit(".")[-1].split("_l")[0] in ("a", "p", "A"):
            weights *= factor


def words(task: Group, rng: np.random.Generator, length: int, batch: int) -> tuple[Any, Any]:
    """Return random words (T, B) as numbers of elements, and their products up to each step."""
    read = rng.choice(task.letters, size=(length, batch))
    products = np.empty_like(read)
    product = np.zeros(batch, dtype=int)
    for t, letters in enumerate(read):
        products[t] = product = task.table[letters, product]
    return torch.from_numpy(read), torch.from_numpy(products)


def loss(tracker: Tracker, task: Group, seed: int, step: int) -> torch.Tensor:
    """Return the mean cross-entropy at all steps of the batch of this training step."""
    length = int(tracker.length)
    rng = np.random.default_rng([seed, step])
    read, products = words(task, rng, length, TOKENS // length)
    logits = tracker(read)
    tracker.advance(share(logits, products))
    return cross_entropy(logits.flatten(0, 1), products.flatten())


def share(logits: torch.Tensor, products: torch.Tensor) -> float:
    """Return the share of steps whose product has the greatest logit."""
    return (logits.argmax(-1) == products).float().mean().item()


@torch.no_grad()
def accuracy(tracker: Tracker, task: Group, seed: int, length: int) -> float:
    """Return the share of right products after the last step of words that were not trained on."""
    read, products = words(task, np.random.default_rng([seed, length, READ]), length, READ)
    return share(tracker(read)[-1:], products[-1:])


@torch.no_grad()
def all_steps(tracker: Tracker, task: Group, seed: int, length: int) -> float:
    """Return the share of right products at all steps of such words."""
    read, products = words(task, np.random.default_rng([seed, length, READ]), length, READ)
    return share(tracker(read), products)


def learn(task: str, name: str, options: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Train one cell on one task, and return what it then can do, for JSON."""
    training.begin(options.seed, options.threads)
    tracker, problem, recipe = Tracker(task, name), TASKS[task], RECIPES[task]
    history = training.train(
        tracker,
        lambda step: loss(tracker, problem, options.seed, step),
        steps,
        rate=training.warm_cosine(recipe.rate, recipe.steps),
        evaluate=lambda step: {
            "trained": int(tracker.length),
            "accuracy": all_steps(tracker, problem, options.seed + 1, LONGEST),
        },
        until=lambda metrics: metrics["accuracy"] == 1.0,
        checkpoint=options.out / f"{task}-{name.replace(' ', '-')}.pt",
        resume=options.resume,
        label=f"{task}, {name}",
    )
    tracker.eval()
    return {
        "accuracy": {n: all_steps(tracker, problem, options.seed + 2, n) for n in LENGTHS},
        "last": {n: accuracy(tracker, problem, options.seed + 2, n) for n in LENGTHS},
        "parameters": blocks.size(tracker),
        "trained_length": int(tracker.length),
        "steps": len(history.losses),
        "seconds": history.seconds,
        "losses": history.losses,
    }


def in_order(found: dict[str, Any]) -> dict[str, Any]:
    """Return the results of one task in the order of `CELLS`."""
    return {name: found[name] for name in CELLS if name in found}


def report(results: dict[str, Any]) -> str:
    """Return the tables of results: one for each task, in per cent."""
    header = ["cell", *(f"T = {n}" for n in LENGTHS), "trained to", "steps", "seconds"]
    parts = []
    for task in TASKS:
        if task not in results:
            continue
        rows = [
            [
                name,
                *(f"{100 * found['accuracy'][str(n)]:.1f}" for n in LENGTHS),
                str(found["trained_length"]),
                str(found["steps"]),
                f"{found['seconds']:.0f}",
            ]
            for name, found in in_order(results[task]).items()
        ]
        parts.append(f"{task}\n\n{training.table(header, rows)}")
    return "\n\n".join(parts)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the accuracy against the length, one panel for each task."""
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if task in results]
    figure = Figure(figsize=(1.2 + 2.3 * len(tasks), 3.0), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    lines: dict[str, Any] = {}
    for ax, task in zip(panels, tasks, strict=True):
        training.style(ax)
        for name, found in in_order(results[task]).items():
            place = list(CELLS).index(name)
            shown = [100 * found["accuracy"][str(n)] for n in LENGTHS]
            (lines[name],) = ax.plot(
                LENGTHS, shown, ":" if name in LINEAR else "-", color=training.COLORS[place],
                marker="o", markersize=7 - place, linewidth=1.5,
            )  # fmt: skip
        ax.axhline(100 / len(TASKS[task].elements), color=training.GREY, linewidth=0.8)
        ax.axvspan(SHORTEST, LONGEST, color=training.GREY, alpha=0.08, linewidth=0)
        ax.set_xscale("log", base=2)
        ax.set_xlim(LENGTHS[0] * 0.85, LENGTHS[-1] * 1.15)
        ax.set_xticks([16, 64, 256], ["16", "64", "256"])
        ax.set_ylim(0, 104)
        ax.set_title(task, fontsize=10)
        ax.set_xlabel("length")
    panels[0].set_ylabel("right products, %")
    figure.legend(
        lines.values(), lines, loc="outside upper center", ncols=5, frameon=False, fontsize=8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    """Train all cells on all tasks, or those named, and write results, tables and pictures."""
    parser = training.arguments(__doc__, out="build/state_tracking")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options = parser.parse_args(arguments)
    processes.require_alone()
    if options.quick:
        options.tasks, options.cells = ["parity"], ["ParaGRU", "minGRU"]
    path = options.out / "state_tracking.json"
    resumed = options.resume and path.exists()
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if resumed else {}
    results.pop("about", None)
    for task, name in itertools.product(options.tasks, options.cells):
        steps = 300 if options.quick else RECIPES[task].steps
        results.setdefault(task, {})[name] = learn(task, name, options, steps)
        training.write(path, results, options)
    written = json.loads(path.read_text(encoding="utf-8"))
    print(report(written))
    if options.figures:
        draw(written, options.figures / "state_tracking-accuracy.png")


if __name__ == "__main__":
    main()
