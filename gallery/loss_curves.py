"""Training in parallel is training step by step: ``python gallery/loss_curves.py --figures docs``.

The same network, from the same weights and with the same data, is trained on parity twice: with
`ParallelRNN`, and with a loop over the steps in PyTorch, through which autograd goes back. The
losses agree to rounding, whether the states come from Newton's method or from what
``method="auto"`` chooses. As training goes on it amplifies rounding; what it makes of a last bit is
shown by a second loop, from weights that differ in theirs.

Then training steps of one layer (forward, backward, update) take turns, at lengths up to 4096.

`looped` can take the place of any diagonal `ParallelRNN`; ``blocks.Recurrent.run`` is made for it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blocks
import numpy as np
import processes
import state_tracking
import torch
import training
from torch import Tensor
from torch.nn.functional import cross_entropy

from pararnn_solvers.torch import ParallelRNN

LENGTHEN, STEPS = 50, 300  # lengths of the loss curves double after so many steps
SHOWN = (20, 100, STEPS)  # differences up to these steps
LENGTHS = (128, 256, 512, 1024, 2048, 4096)  # of the timings
CHANNELS, SEQUENCES = 256, 8
CELLS = {"ParaGRU": "diagonal_gru", "ParaLSTM": "diagonal_lstm"}


def gru(h: Tensor, u: Tensor, a: Tensor) -> Tensor:
    """Return the next states (B, n) of a diagonal GRU."""
    u_z, u_r, u_c = u.unbind(1)
    z = torch.sigmoid(a[0] * h + u_z)
    r = torch.sigmoid(a[1] * h + u_r)
    return h + z * (torch.tanh(a[2] * h * r + u_c) - h)


def lstm(h: tuple[Tensor, Tensor], u: Tensor, a: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next (y, c) of a diagonal LSTM."""
    (y, c), (u_f, u_g, u_o) = h, u.unbind(1)
    f = torch.sigmoid(a[0] * y + p[0] * c + u_f)
    c = f * c + (1 - f) * torch.tanh(a[1] * y + u_g)
    o = torch.sigmoid(a[2] * y + p[1] * c + u_o)
    return o * torch.tanh(c), c


def looped(layer: ParallelRNN, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Return what ``layer(x, state)`` does, computed one step after another with autograd.

    Parameters
    ----------
    layer : ParallelRNN
        Of the cell "diagonal_gru" or "diagonal_lstm", one layer, one direction.
    x : Tensor, shape (T, B, m)
    state : Tensor (1, B, n), or a pair of them, optional
        Zeros if not given.

    Returns
    -------
    y : Tensor, shape (T, B, n)
    state : as given
    """
    B, b = layer.B_l0, layer.b_l0  # (gates, heads, m/heads, n/heads), (gates, n)
    parts = x.unflatten(-1, (B.shape[1], -1))
    drives = torch.einsum("tshm,ghmn->tsghn", parts, B).flatten(-2) + b
    zeros = x.new_zeros(x.shape[1], b.shape[1])
    ys = []
    if layer.cell == "diagonal_gru":
        h = zeros if state is None else state[0]
        for u in drives.unbind():
            h = gru(h, u, layer.a_l0)
            ys.append(h)
        return torch.stack(ys), h[None]
    pair = (zeros, zeros) if state is None else (state[0][0], state[1][0])
    for u in drives.unbind():
        pair = lstm(pair, u, layer.a_l0, layer.p_l0)
        ys.append(pair[0])
    return torch.stack(ys), (pair[0][None], pair[1][None])


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Make the default dtype of PyTorch another one for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


RUNS = {
    "float64, Newton": (torch.float64, "newton", blocks.solved),
    "float64, auto": (torch.float64, "auto", blocks.solved),
    "float64, nudged loop": (torch.float64, "auto", looped),
    "float32, auto": (torch.float32, "auto", blocks.solved),
    "float32, nudged loop": (torch.float32, "auto", looped),
}
"""Name -> precision, how `ParallelRNN` solves, and what is compared with the loop.

A loop from weights that differ in the last bit shows what training makes of rounding by itself.
"""


def network(cell: str, dtype: torch.dtype, method: str, run: Callable[..., Any]) -> torch.nn.Module:
    """Return a network for parity with one block, whose recurrence is evaluated by `run`."""
    with precision(dtype):
        # A network that remembers for ever needs up to as many iterations as there are steps.
        mixer = blocks.Recurrent(cell, 32, method=method, max_iter=state_tracking.LONGEST)
        model = blocks.Model(2, 32, [blocks.Block(mixer, 32, 64, 0.0)])
    state_tracking.enlarge(model, 20.0)
    mixer.run = run
    return model


def curve(model: torch.nn.Module, options: argparse.Namespace, steps: int, label: str) -> list:
    """Return the losses of training a network on parity, of length 4 at first and 128 at last."""

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([options.seed, step])
        length = state_tracking.SHORTEST << step // LENGTHEN
        batch = state_tracking.TOKENS // length
        read, products = state_tracking.words(state_tracking.TASKS["parity"], rng, length, batch)
        return cross_entropy(model(read)[0].flatten(0, 1), products.flatten())

    return training.train(model, loss, steps, rate=3e-3, label=label).losses


def curves(cell: str, options: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Return the losses of all `RUNS`, and of the loop in both precisions, from equal weights."""
    found: dict[str, Any] = {"loop": {}}
    for name, (dtype, method, run) in RUNS.items():
        training.begin(options.seed, options.threads)
        model = network(CELLS[cell], dtype, method, run)
        if run is looped:
            nudge(model)
        found[name] = curve(model, options, steps, f"{cell}, {name}")
    for dtype in (torch.float64, torch.float32):
        training.begin(options.seed, options.threads)
        losses = curve(network(CELLS[cell], dtype, "auto", looped), options, steps, f"{cell}, loop")
        found["loop"][str(dtype).removeprefix("torch.")] = losses
    return found


@torch.no_grad()
def nudge(model: torch.nn.Module) -> None:
    """Change the last bit of all weights."""
    for weights in model.parameters():
        weights.copy_(torch.nextafter(weights, torch.full_like(weights, torch.inf)))


def training_step(layer: ParallelRNN, run: Callable[..., Any], x: Tensor) -> Callable[[], None]:
    """Return a function that takes one training step of a layer."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-6)

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        run(layer, x, None)[0].square().mean().backward()
        optimizer.step()

    return once


def timings(
    cell: str, options: argparse.Namespace, lengths: tuple[int, ...], turns: int
) -> dict[str, dict[int, float]]:
    """Return the seconds of a training step in parallel and in the loop, the least of all turns."""
    found: dict[str, dict[int, float]] = {"parallel": {}, "loop": {}}
    for length in lengths:
        training.begin(options.seed, options.threads)
        layer = ParallelRNN(CELLS[cell], CHANNELS, CHANNELS)
        x = torch.randn(length, SEQUENCES, CHANNELS)
        calls = [training_step(layer, run, x) for run in (blocks.solved, looped)]
        seconds = [[measured(call) for call in calls] for _ in range(1 + turns)][1:]
        for way, least in zip(found, np.min(seconds, axis=0), strict=True):
            found[way][length] = float(least)
    return found


def measured(call: Callable[[], None]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def differences(found: dict[str, Any], name: str) -> np.ndarray:
    """Return how far, relatively, a run's losses have been from the loop's up to each step."""
    losses, loop = np.array(found[name]), np.array(found["loop"][name.split(",")[0]])
    return np.maximum.accumulate(abs(losses - loop) / loop)


def report(results: dict[str, Any]) -> str:
    """Return two tables: how far loss curves are apart, and milliseconds of training steps."""
    apart = [
        [cell, name, *(f"{differences(found, name)[:n][-1]:.0e}" for n in SHOWN)]
        for cell, found in results["curves"].items()
        for name in RUNS
    ]
    times = [
        [cell, n, f"{1e3 * seconds:.1f}", f"{1e3 * found['loop'][n]:.1f}",
         f"{found['loop'][n] / seconds:.1f}"]
        for cell, found in results["timings"].items()
        for n, seconds in found["parallel"].items()
    ]  # fmt: skip
    return "\n\n".join([
        training.table(["cell", "run", *(f"{n} steps" for n in SHOWN)], apart),
        training.table(["cell", "length", "ParallelRNN, ms", "loop, ms", "ratio"], times),
    ])  # fmt: skip


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw loss curves on one another, how far they are apart, and times against lengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.1), layout="constrained", dpi=150)
    left, middle, right = figure.subplots(1, 3)
    for ax in (left, middle, right):
        training.style(ax)
    found = results["curves"]["ParaGRU"]
    loop = found["loop"]["float64"]
    steps = np.arange(1, len(loop) + 1)
    left.plot(steps, loop, color=training.GREY, linewidth=3, alpha=0.5, label="loop")
    left.plot(
        steps, found["float64, Newton"], color=training.COLORS[0], linewidth=1, label="ParallelRNN"
    )
    left.set_ylabel("loss (nats)")
    left.set_yscale("log")
    for name, color in zip(RUNS, training.COLORS, strict=False):
        style = "--" if "loop" in name else "-"
        apart = np.maximum(differences(found, name), 1e-17)
        middle.plot(steps, apart, style, color=color, linewidth=1.2, label=name)
    middle.set_yscale("log")
    middle.set_ylabel("greatest relative difference so far")
    for ax in (left, middle):
        ax.set_xlabel("training step")
    for (cell, times), color in zip(results["timings"].items(), training.COLORS, strict=False):
        for way, style in (("loop", "--"), ("parallel", "-")):
            lengths = [int(n) for n in times[way]]
            right.plot(lengths, [1e3 * s for s in times[way].values()], style, color=color,
                       marker="o", markersize=3.5,
                       label=cell if way == "parallel" else f"{cell}, loop")  # fmt: skip
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xticks(lengths, [str(n) for n in lengths])
    right.set_xlabel("length")
    right.set_ylabel("ms per training step")
    for ax in (left, middle, right):
        ax.legend(frameon=False, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    """Train, measure, and write results, tables and pictures."""
    options = training.arguments(__doc__, out="build/loss_curves").parse_args(arguments)
    processes.require_alone()
    steps, lengths, turns = (STEPS, LENGTHS, 5) if not options.quick else (20, LENGTHS[:1], 1)
    kinds = list(CELLS)[: 1 if options.quick else None]
    results = {
        "curves": {cell: curves(cell, options, steps) for cell in kinds},
        "timings": {cell: timings(cell, options, lengths, turns) for cell in kinds},
    }
    path = options.out / "loss_curves.json"
    training.write(path, results, options)
    written = json.loads(path.read_text(encoding="utf-8"))
    print(report(written))
    if options.figures:
        draw(written, options.figures / "state_tracking-training.png")


if __name__ == "__main__":
    main()
