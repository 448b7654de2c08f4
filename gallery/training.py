"""What the training scripts share: options, the loop, checkpoints, results, pictures.

A script reads like this::

    import training

    options = training.arguments(__doc__, out="build/mine").parse_args()
    training.begin(options.seed, options.threads)
    model = ...                                     # a torch.nn.Module

    def loss(step):                                 # of the batch of this step, alone
        rng = np.random.default_rng([options.seed, step])
        ...
        return torch.nn.functional.cross_entropy(...)

    history = training.train(
        model, loss, 2000, rate=training.warm_cosine(3e-3, 2000),
        evaluate=lambda step: {"accuracy": ...}, every=100, until=lambda m: m["accuracy"] == 1,
        checkpoint=options.out / "mine.pt", resume=options.resume, label="mine",
    )
    training.write(options.out / "mine.json", {"mine": history.as_dict()}, options)
    training.draw_losses({"mine": history.losses}, options.figures / "mine.png")

The batch of a step depends on the seed and the step alone, so a run that was interrupted and
resumed from its checkpoint continues bit for bit; a run that had ended is not run again. Several
processes train together as `processes` says; the first one evaluates and writes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import processes
import torch
from tqdm import tqdm

# Okabe and Ito's colours, which the colour-blind tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"


def arguments(description: str | None, out: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all scripts have; a script adds its own.

    ``--out`` (checkpoints and results), ``--figures`` (pictures for the docs), ``--seed``,
    ``--threads``, ``--resume`` (from the checkpoints in ``--out``) and ``--quick`` (a small run
    that only shows that everything works).
    """
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form)
    parser.add_argument("--out", type=Path, default=Path(out), help="checkpoints and results")
    parser.add_argument("--figures", type=Path, help="draw the pictures into this folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and of the package")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints")
    parser.add_argument("--quick", action="store_true", help="a small run, in seconds")
    return parser


def begin(seed: int, threads: int = 1) -> None:
    """Seed PyTorch's default generator and set the threads of PyTorch and of the package."""
    from pararnn_solvers.linear.threads import set_num_threads

    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    set_num_threads(threads)


@dataclass
class History:
    """What a training run did.

    Attributes
    ----------
    losses : list of float
        Of each step, before its update.
    evaluations : list of dict
        What `evaluate` returned, with the ``"step"`` after which it was called.
    seconds : float
        Spent in training steps, evaluations not counted.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the history for JSON."""
        return asdict(self)


def train(
    model: torch.nn.Module,
    loss: Callable[[int], torch.Tensor],
    steps: int,
    *,
    rate: Callable[[int], float] | float = 1e-3,
    weight_decay: float = 0.0,
    clip_gradient: float = 1.0,
    after_step: Callable[[], Any] | None = None,
    evaluate: Callable[[int], dict[str, Any]] | None = None,
    every: int = 100,
    until: Callable[[dict[str, Any]], bool] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    label: str = "",
) -> History:
    """Minimize ``loss(step)`` for step = 0, 1, ..., steps - 1 by AdamW, with a progress bar.

    Parameters
    ----------
    model : torch.nn.Module
        Its parameters are trained in place.
    loss : callable
        ``loss(step)`` returns a scalar tensor; it draws its batch from the number of the step. Of
        several processes, each returns that of its share.
    steps : int
    rate : float or callable
        The learning rate, or ``rate(step)``, such as `warm_cosine`.
    weight_decay : float
        Of AdamW, for all parameters.
    clip_gradient : float
        Greatest 2-norm of the gradient of all parameters together; longer ones are shortened.
    after_step : callable, optional
        Called after each update; clips recurrent weights, for instance.
    evaluate : callable, optional
        ``evaluate(step)`` returns a dict of numbers; called without autograd, in evaluation mode,
        after every `every` steps and after the last one.
    every : int
        Steps between evaluations and between checkpoints.
    until : callable, optional
        Ends the run early if ``until(evaluate(step))``.
    checkpoint : Path, optional
        The file to which model, optimizer, history and generator are written.
    resume : bool
        Go on from the checkpoint if there is one; the result is that of a run never interrupted.
    label : str
        Shown beside the progress bar.

    Returns
    -------
    History
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=weight_decay)
    history, ended = History(), False
    if resume and checkpoint is not None and checkpoint.exists():
        history, ended = load(checkpoint, model, optimizer)
    first = len(history.losses)
    require_one_start(first)
    quiet = ended or processes.rank() > 0
    bar = tqdm(range(first, steps), desc=label, initial=first, total=steps, disable=quiet)
    for step in range(0) if ended else bar:
        for group in optimizer.param_groups:
            group["lr"] = rate(step) if callable(rate) else rate
        start = time.perf_counter()
        found = update(model, loss(step), optimizer, clip_gradient)
        history.losses.append(processes.mean(found))
        if after_step is not None:
            after_step()
        history.seconds += time.perf_counter() - start
        if (step + 1) % every and step + 1 < steps:
            continue
        shown = {"loss": float(np.mean(history.losses[-every:]))}
        if evaluate is not None:
            first_one = processes.rank() == 0
            metrics = evaluated(model, evaluate, step + 1) if first_one else None
            metrics = processes.from_first(metrics)
            history.evaluations.append({"step": step + 1, **metrics})
            shown.update(metrics)
            ended = until is not None and until(metrics)
        bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items() if isinstance(v, float)})
        if checkpoint is not None:
            save(checkpoint, model, optimizer, history, ended)
        if ended:
            break
    bar.close()
    return history


def update(
    model: torch.nn.Module, loss: torch.Tensor, optimizer: torch.optim.Optimizer, clip: float
) -> float:
    """Take one step against the gradient of a loss, and return that loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluated(
    model: torch.nn.Module, evaluate: Callable[[int], dict[str, Any]], step: int
) -> dict[str, Any]:
    """Return what `evaluate` says, in evaluation mode and without autograd."""
    model.eval()
    try:
        return evaluate(step)
    finally:
        model.train()


def require_one_start(step: int) -> None:
    """Raise ValueError unless all processes go on from the same step."""
    steps = processes.gathered(step)
    if set(steps) != {step}:
        raise ValueError(
            f"processes go on from steps {steps}; expected one checkpoint for all: put it into a "
            "folder that each of them sees"
        )


def warm_cosine(peak: float, steps: int, warm: int = 50) -> Callable[[int], float]:
    """Return a learning rate that rises linearly, then falls by a cosine to a tenth of `peak`.

    Source: Loshchilov & Hutter 2017 (arXiv 1608.03983).
    """

    def rate(step: int) -> float:
        if step < warm:
            return peak * (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, steps - warm))
        return peak * (0.55 + 0.45 * float(np.cos(np.pi * done)))

    return rate


def save(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    ended: bool = False,
) -> None:
    """Write a checkpoint; a file half written never takes the place of a whole one.

    Of several processes the first one writes, with the generators of all.
    """
    generators = processes.gathered(torch.get_rng_state())
    if processes.rank():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history.as_dict(),
        "generators": generators,
        "ended": ended,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> tuple[History, bool]:
    """Read a checkpoint into a model and an optimizer; return the history and whether it ended.

    Without an optimizer only the model is read: for evaluation and generation.

    Raises
    ------
    ValueError
        With an optimizer: another number of processes wrote it.
    """
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
        generators, count = state["generators"], processes.count()
        if len(generators) != count:
            raise ValueError(
                f"{str(path)!r} was written by {len(generators)} process(es), and {count} go(es) "
                "on; expected as many, or others would draw other numbers: start that many"
            )
        torch.set_rng_state(generators[processes.rank()])
    return History(**state["history"]), state["ended"]


def about(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader of results has to know: when, by which command, with what."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "options": {name: str(value) for name, value in vars(options).items()},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
    }


def write(path: Path, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Write results as JSON, with ``"about"`` saying how they were made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about(options), **results}, indent=1), encoding="utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def smoothed(losses: list[float], width: int) -> np.ndarray:
    """Return means over `width` steps; the first ones over as many steps as there were."""
    sums = np.cumsum(np.concatenate([[0.0], losses]))
    end = np.arange(1, len(sums))
    start = np.maximum(0, end - width)
    return (sums[end] - sums[start]) / (end - start)


def axes(width: float = 5.6, height: float = 3.4) -> Any:
    """Return the axes of a new figure in the style of the docs; ``ax.figure.savefig`` writes it."""
    from matplotlib.figure import Figure

    ax = Figure(figsize=(width, height), layout="constrained", dpi=150).subplots()
    style(ax)
    return ax


def style(ax: Any) -> None:
    """Take what is not needed off axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)


def draw_losses(
    curves: dict[str, list[float]],
    path: Path,
    *,
    unit: str = "loss (nats)",
    width: int = 20,
    scale: str = "linear",
) -> None:
    """Draw losses against the training step, means over `width` steps, one line for each name.

    Parameters
    ----------
    curves : dict
        From names to the losses of all steps.
    path : Path
        Of the picture.
    unit : str
        What the vertical axis says.
    width : int
        Steps to average over; 1 draws each step's loss.
    scale : str
        Scale of the horizontal axis, of matplotlib: ``"linear"`` or ``"log"``.
    """
    ax = axes()
    for (name, losses), color in zip(curves.items(), COLORS, strict=False):
        steps = np.arange(1, len(losses) + 1)
        ax.plot(steps, smoothed(losses, width), color=color, linewidth=1.4, label=name)
    ax.set_xscale(scale)
    ax.set_xlabel("training step")
    ax.set_ylabel(unit)
    ax.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(path)
