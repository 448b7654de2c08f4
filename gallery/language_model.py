"""A language model of characters: recurrences trained in parallel, beside a transformer.

Python's own help texts (`text`), models of equal size (`blocks`), the same batches in the same
order, the same number of steps: how many bits does each need for a character of topics it has not
seen? Then every recurrent model writes, one character at a time (`generation`).

    python gallery/language_model.py                    # all models, one seed after another
    python gallery/language_model.py --resume           # goes on where it was interrupted
    python gallery/language_model.py --resume --figures docs    # and puts it into the docs
    torchrun --nproc_per_node=2 gallery/language_model.py       # two processes share each batch

Prints the tables of docs/language_model.md; checkpoints and results (JSON) go to ``--out``. With
``--figures`` the loss curves are drawn, and the tables replaced in the page that is there.
"""

from __future__ import annotations

import math
import time
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any

import generation
import numpy as np
import processes
import torch
import training
from blocks import MIXERS, Model, build, size, solved
from loss_curves import looped
from text import Corpus, corpus, repeated, streams, windows
from torch import Tensor
from torch.nn.functional import cross_entropy

RATE, WEIGHT_DECAY, DROPOUT = 3e-3, 0.1, 0.1
BOUND = 0.9  # of recurrent weights, as ParaRNN's authors train
TURNS = 5  # of timings
WAYS = {"parallel": solved, "loop": looped}
LOOPED = ("ParaGRU", "ParaLSTM")  # kinds that `looped` knows
PIECE = 50  # characters that count as a repetition
READERS = 4  # streams in which the held-out text is read from end to end

FULL = {"width": 128, "depth": 3, "hidden": 256, "length": 256, "batch": 16, "steps": 1200}
QUICK = {"width": 16, "depth": 2, "hidden": 32, "length": 32, "batch": 4, "steps": 6}


def parser() -> ArgumentParser:
    """Return the parser of the script's options."""
    made = training.arguments(__doc__, out="build/language_model")
    made.add_argument("--kinds", nargs="+", choices=MIXERS, default=list(MIXERS), metavar="KIND")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="one run for each")
    made.add_argument("--dropout", type=float, default=DROPOUT)
    made.add_argument("--prompt", default="The function ", help="for the texts it writes")
    return made


def model_of(kind: str, sizes: dict[str, int], characters: int, dropout: float = DROPOUT) -> Model:
    """Return an untrained model; PyTorch's generator decides its parameters."""
    chosen = {name: sizes[name] for name in ("width", "depth", "hidden")}
    # Compiled: also the short solves of evaluation and generation are to be.
    return build(kind, characters, dropout=dropout, compiled=True, **chosen)


def nats(model: torch.nn.Module, piece: np.ndarray) -> Tensor:
    """Return the mean cross entropy of a piece of text (T + 1, B), in nats a character."""
    piece = torch.from_numpy(piece)
    logits, _ = model(piece[:-1])
    return cross_entropy(logits.flatten(0, 1), piece[1:].flatten())


def bits(model: Model, text: np.ndarray, length: int) -> float:
    """Return bits a character of a text cut into windows, the memory empty at each one's start."""
    count = (len(text) - 1) // length
    starts = length * np.arange(count)
    return nats(model, text[starts + np.arange(length + 1)[:, None]]).item() / math.log(2)


def bits_remembering(model: Model, text: np.ndarray, length: int) -> float:
    """Return bits a character of a text read from end to end, `length` characters at a time."""
    text = torch.from_numpy(streams(text, READERS))
    total, states = 0.0, None
    for first in range(0, len(text) - 1, length):
        piece = text[first : first + length + 1]
        logits, states = model(piece[:-1], states)
        loss = cross_entropy(logits.flatten(0, 1), piece[1:].flatten(), reduction="sum")
        total += loss.item()
    return total / (math.log(2) * (len(text) - 1) * READERS)


def run(kind: str, seed: int, sizes: dict[str, int], data: Corpus, options: Namespace) -> dict:
    """Train one model, and return what a row of the table needs, with its losses."""
    training.begin(seed, options.threads)
    model = model_of(kind, sizes, len(data.alphabet), options.dropout)
    replica = processes.replica(model)
    length, batch, steps = sizes["length"], sizes["batch"], sizes["steps"]

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        return nats(replica, processes.share(windows(data.train, length, batch, rng)))

    history = training.train(
        model,
        loss,
        steps,
        rate=training.warm_cosine(RATE, steps, warm=min(100, steps // 2)),
        weight_decay=WEIGHT_DECAY,
        after_step=partial(model.clip_recurrent, BOUND),
        evaluate=lambda step: {"bits": bits(model, data.held_out, length)},
        every=max(1, steps // 12),
        checkpoint=checkpoint(options.out, kind, seed),
        resume=options.resume,
        label=f"{kind}, seed {seed}",
    )
    remembering = None
    if model.recurrences():
        evaluate = partial(bits_remembering, model, data.held_out, length)
        remembering = training.evaluated(model, lambda step: {"bits": evaluate()}, steps)["bits"]
    return {
        "kind": kind,
        "seed": seed,
        "parameters": size(model),
        "bits": history.evaluations[-1]["bits"],
        "bits remembering": remembering,
        "history": history.as_dict(),
    }


def checkpoint(folder: Path, kind: str, seed: int) -> Path:
    """Return the file of a model's checkpoint."""
    return folder / f"{kind.replace(' ', '_')}-{seed}.pt"


def trained(kind: str, seed: int, sizes: dict[str, int], data: Corpus, folder: Path) -> Model:
    """Return the model of a checkpoint, for evaluation."""
    model = model_of(kind, sizes, len(data.alphabet))
    training.load(checkpoint(folder, kind, seed), model)
    return model.eval()


def timings(kinds: list[str], sizes: dict[str, int], data: Corpus) -> dict[str, dict[str, float]]:
    """Return seconds of a whole training step of each kind, and with its recurrence in a loop.

    All take turns, the least of each counts. The loop goes through PyTorch's operations.
    """
    piece = windows(data.train, sizes["length"], sizes["batch"], np.random.default_rng(0))
    calls: dict[tuple[str, str], Any] = {}
    for kind in kinds:
        model = model_of(kind, sizes, len(data.alphabet))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        for way, run in WAYS.items() if kind in LOOPED else [("parallel", solved)]:
            calls[kind, way] = partial(timed_step, model, optimizer, run, piece)
    seconds = [{name: call() for name, call in calls.items()} for _ in range(1 + TURNS)]
    found: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    for kind, way in calls:
        found[kind][way] = min(turn[kind, way] for turn in seconds[1:])
    return found


def timed_step(model: Model, optimizer: Any, run: Any, piece: np.ndarray) -> float:
    """Return the seconds of a training step with recurrences evaluated by `run`."""
    for mixer in model.recurrences():
        mixer.run = run
    start = time.perf_counter()
    training.update(model, nats(model, piece), optimizer, 1.0)
    return time.perf_counter() - start


def table(runs: list[dict[str, Any]], seconds: dict[str, dict[str, float]]) -> str:
    """Return the results in Markdown: a row for each kind, an entry for each of its seeds."""
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    header = ["model", "parameters", f"held-out bits a character, seeds {seeds}"]
    header += ["read from end to end", "ms a training step", "by a loop over steps"]
    rows = []
    for kind in dict.fromkeys(run["kind"] for run in runs):
        mine = [run for run in runs if run["kind"] == kind]
        remembering = [run["bits remembering"] for run in mine if run["bits remembering"]]
        rows.append(
            [
                kind,
                f"{mine[0]['parameters']:,}",
                ", ".join(f"{run['bits']:.3f}" for run in mine),
                ", ".join(f"{value:.3f}" for value in remembering) or "–",
                f"{1e3 * seconds[kind]['parallel']:.0f}",
                f"{1e3 * seconds[kind]['loop']:.0f}" if kind in LOOPED else "–",
            ]
        )
    return training.table(header, rows)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the losses of training (thin) and of the held-out topics (dots), of one seed."""
    ax = training.axes()
    chosen = [run for run in runs if run["seed"] == runs[0]["seed"]]
    for run, color in zip(chosen, training.COLORS, strict=False):
        losses = training.smoothed(run["history"]["losses"], 20) / math.log(2)
        ax.plot(np.arange(1, len(losses) + 1), losses, color=color, linewidth=0.9, alpha=0.55)
        held_out = run["history"]["evaluations"]
        steps, values = [e["step"] for e in held_out], [e["bits"] for e in held_out]
        ax.plot(steps, values, "o-", color=color, markersize=3.5, linewidth=1.4, label=run["kind"])
    ax.set_ylim(1.2, 4)
    ax.set_xlabel("training step")
    ax.set_ylabel("bits a character")
    ax.legend(frameon=False, fontsize=8, title="dots: held out\nthin: training", title_fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(path)


def fill(page: Path, parts: dict[str, str]) -> None:
    """Put texts between ``<!-- name -->`` and ``<!-- end -->`` in a page, if there is one."""
    if not page.exists():
        return
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        if mark:
            text = before + mark + part + "\n<!-- end -->" + rest.partition("<!-- end -->")[2]
    page.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Train, compare, write."""
    options = parser().parse_args(arguments)
    sizes, data = (QUICK if options.quick else FULL), corpus()
    if options.quick:
        options.seeds = options.seeds[:1]
        data = data._replace(held_out=data.held_out[:1000])
    with processes.joined():
        first = processes.rank() == 0
        if first:
            print(
                f"{len(data.train)} characters to train on, {len(data.held_out)} held out, "
                f"{len(data.alphabet)} different ones; {100 * repeated(data, PIECE):.1f} % of the "
                f"held-out pieces of {PIECE} characters occur in training; digest {data.digest}"
            )
        runs = [
            run(kind, seed, sizes, data, options)
            for seed in options.seeds
            for kind in options.kinds
        ]
    if first:
        report(runs, sizes, data, options)


def report(
    runs: list[dict[str, Any]], sizes: dict[str, int], data: Corpus, options: Namespace
) -> None:
    """Time the models that were trained, let them write, and print and write it all."""
    seconds = timings(options.kinds, sizes, data)
    results = {"sizes": sizes, "digest": data.digest, "seconds a step": seconds, "runs": runs}
    training.write(options.out / "results.json", results, options)
    models = {
        kind: trained(kind, options.seeds[0], sizes, data, options.out) for kind in options.kinds
    }
    parts = {"models": table(runs, seconds), **generation.report(models, data.alphabet, options)}
    print("\n\n".join(parts.values()))
    if options.figures:
        draw(runs, options.figures / "language_model-loss.png")
        fill(options.figures / "language_model.md", parts)


if __name__ == "__main__":
    main()
