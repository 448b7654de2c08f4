"""Writing text one character at a time, in constant memory: a whole model as one recurrence.

Embedding, norms, recurrences, MLPs and readout of all blocks are *one* function of what the model
remembers and of the next character, so one stepper of the package runs a whole model: the state is
``[h of each block | logits]``. Where it can be compiled, a character is a single call of a kernel.

Beside it, the same model by PyTorch, once with what it remembers (of a transformer, the KV cache)
and once by reading everything again for each character, as a parallel layer alone would have to.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import training
from blocks import Model
from text import decode, encode

import pararnn_solvers as prs
from pararnn_solvers import cells

Next = Callable[[int], np.ndarray]  # the next character -> logits of the one after it
EPS = 1e-6  # of the norms


class BlockTheta(NamedTuple):
    """Parameters of a block; ``W (w, g w)`` and ``b`` make the drives of cells that have such."""

    norm1: Any
    cell: Any
    W: Any
    b: Any
    norm2: Any
    inner: Any
    out: Any


class Writer:
    """``logits = write(character)``: the next row of the parallel forward pass, step by step.

    Parameters
    ----------
    model : Model
        Of recurrences, on the CPU; its parameters are copied.
    compiled : bool, optional
        As of :func:`pararnn_solvers.stepper`.

    Attributes
    ----------
    stepper : Stepper
        Its state is all that the model remembers; ``stepper.reset()`` starts a new text.
    """

    def __init__(self, model: Model, compiled: bool | None = None) -> None:
        recurrence, theta, h0 = as_recurrence(model)
        characters = model.readout.out_features
        self.embedding = array(model.embedding.weight)
        self.stepper = prs.stepper(
            recurrence, theta, h0, example=self.embedding[0], compiled=compiled
        )
        padded = theta["readout"].shape[1]
        self.logits = self.stepper.state[len(h0) - padded :][:characters]

    def __call__(self, character: int) -> np.ndarray:
        """Read a character; the logits returned are overwritten by the next call."""
        self.stepper(self.embedding[character])
        return self.logits


def as_recurrence(model: Model) -> tuple[prs.Recurrence, dict[str, Any], np.ndarray]:
    """Return a model of recurrences as one recurrence, its parameters and its first state.

    ``x`` is the embedding of a character, the last part of the state the logits of the next one,
    filled up with zeros to a multiple of the width: compiled steps know channels, of which every
    part of the state and of each product has a whole number.
    """
    w, characters = model.embedding.embedding_dim, model.readout.out_features
    modules = [cells.load(mixer.cell) for mixer in model.recurrences()]
    thetas = [mixer.layer.theta() for mixer in model.recurrences()]
    starts = [m.initial_state(theta) for m, theta in zip(modules, thetas, strict=True)]
    ends = np.cumsum([len(start) for start in starts]).tolist()
    readout = np.zeros((w, -(-characters // w) * w), starts[0].dtype)
    readout[:, :characters] = array(model.readout.weight).T
    theta = {
        "blocks": tuple(map(block_theta, model.blocks, thetas)),
        "norm": array(model.norm.weight),
        "readout": readout,
        # A product with it is the mean over channels, for each of them: a compiled step can
        # multiply by matrices, and does not sum over channels otherwise.
        "mean": np.full((w, w), 1 / w, readout.dtype),
    }

    def step(h: Any, x: Any, theta: Any) -> Any:
        after = []
        for cell, first, last, p in zip(modules, [0, *ends], ends, theta["blocks"], strict=False):
            seen = norm(x, p.norm1, theta["mean"])
            drives = cell.project(seen, p.cell) if p.W is None else seen @ p.W + p.b
            after.append(cell.step(h[..., first:last], drives, p.cell))
            x = x + cell.output(after[-1], seen, p.cell)
            inner = norm(x, p.norm2, theta["mean"]) @ p.inner
            hidden = inner.shape[-1] // 2
            gate = inner[..., :hidden]
            x = x + (gate * prs.sigmoid(gate) * inner[..., hidden:]) @ p.out
        logits = norm(x, theta["norm"], theta["mean"]) @ theta["readout"]
        return np.concatenate([*after, logits], axis=-1)

    h0 = np.concatenate([*starts, np.zeros(readout.shape[1], readout.dtype)])
    return prs.Recurrence(step), theta, h0


def norm(x: Any, weight: Any, mean: Any) -> Any:
    """Return RMSNorm of (..., w)."""
    return x / np.sqrt((x * x) @ mean + EPS) * weight


def block_theta(block: Any, theta: Any) -> BlockTheta:
    """Return the parameters of a block as arrays."""
    W = b = None
    if "B" in theta._fields:  # (gates, 1 head, w, w)
        W, b = np.concatenate(list(theta.B[:, 0]), axis=1), theta.b.reshape(-1)
    inner, out = array(block.mlp.inner.weight).T, array(block.mlp.out.weight).T
    norms = array(block.norm1.weight), array(block.norm2.weight)
    return BlockTheta(
        norms[0], theta, W, b, norms[1], np.ascontiguousarray(inner), np.ascontiguousarray(out)
    )


def array(parameter: torch.Tensor) -> np.ndarray:
    """Return a parameter as an array."""
    return parameter.detach().numpy()


def stepping(model: Model, text: np.ndarray) -> Next:
    """Return a writer that has read a text."""
    writer = Writer(model)
    for character in text:
        writer(int(character))
    return writer


def remembering(model: Model, text: np.ndarray) -> Next:
    """Return what reads a character by PyTorch, having read a text at once and kept the states."""
    with torch.no_grad():
        states = model(torch.from_numpy(text)[:, None])[1] if len(text) else None

    @torch.no_grad()
    def read(character: int) -> np.ndarray:
        nonlocal states
        logits, states = model(torch.tensor([[character]]), states)
        return logits[0, 0].numpy()

    return read


def rereading(model: Model, text: np.ndarray) -> Next:
    """Return what reads the whole text again by PyTorch for each further character."""
    seen = text.tolist()

    @torch.no_grad()
    def read(character: int) -> np.ndarray:
        seen.append(character)
        return model(torch.tensor(seen)[:, None])[0][-1, 0].numpy()

    return read


def write(
    read: Next, prompt: np.ndarray, count: int, rng: np.random.Generator, temperature: float = 0.7
) -> np.ndarray:
    """Return `count` characters that follow a prompt, drawn from the model's distribution."""
    for character in prompt:
        logits = read(int(character))
    written = np.empty(count, np.int64)
    for i in range(count):
        written[i] = drawn(logits, rng, temperature)
        logits = read(int(written[i]))
    return written


def drawn(logits: np.ndarray, rng: np.random.Generator, temperature: float = 0.7) -> int:
    """Draw a character: the greatest logit plus Gumbel noise is a draw from their softmax."""
    return int(np.argmax(logits / temperature + rng.gumbel(size=logits.shape)))


def best_of(call: Callable[[], Any], count: int, repeats: int = 7) -> float:
    """Return seconds a call, the least of some means over `count` calls."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - start) / count)
    return best


def speeds(models: dict[str, Model], lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure all ways to write: characters a second, sampling included, after texts so long."""
    rows = []
    for kind, model in models.items():
        ways = {"PyTorch, text read again": (rereading, 3)}
        if model.recurrences():
            how = "compiled" if Writer(model).stepper.compiled else "NumPy"
            ways |= {f"stepper, {how}": (stepping, 300), "PyTorch, states kept": (remembering, 30)}
        else:
            ways |= {"PyTorch, KV cache": (remembering, 30)}
        for how, (make, count) in reversed(ways.items()):
            after = []
            for length in lengths:
                text = np.random.default_rng(0).integers(0, model.readout.out_features, length)
                read, rng = make(model, text[:-1]), np.random.default_rng(0)
                once = partial(write, read, text[-1:], count, rng)
                after.append((count + 1) / best_of(once, 1))
            rows.append({"kind": kind, "how": how, "after": after})
    return rows


def profile(model: Model) -> dict[str, float]:
    """Return the microseconds that parts of writing a character take, of a model of ParaGRUs."""
    writer, numpy = Writer(model), Writer(model, compiled=False)
    _, theta, _ = as_recurrence(model)
    p, x = theta["blocks"][0], writer.embedding[0]
    cell = cells.load(model.recurrences()[0].cell)
    drives = cell.project(x, p.cell)
    one = prs.stepper(cell.recurrence, p.cell, cell.initial_state(p.cell), example=drives)
    rng, logits = np.random.default_rng(0), writer.logits
    state, mean = one.state, theta["mean"]
    parts: dict[str, Callable[[], Any]] = {
        f"the whole model, stepper, {'compiled' if writer.stepper.compiled else 'NumPy'}": (
            partial(writer, 0)
        ),
        "the whole model, NumPy": partial(numpy, 0),
        "drawing a character": partial(drawn, logits, rng),
        "one block: a norm, NumPy": lambda: norm(x, p.norm1, mean),
        "one block: `project` of one row": lambda: cell.project(x, p.cell),
        "one block: the same product, `x @ W + b`": lambda: x @ p.W + p.b,
        "one block: step of the recurrence, stepper": lambda: one(drives),
        "one block: step of the recurrence, NumPy": lambda: cell.step(state, drives, p.cell),
        "one block: products of the MLP, NumPy": lambda: (x @ p.inner)[: len(p.out)] @ p.out,
    }
    return {name: 1e6 * best_of(call, 300) for name, call in parts.items()}


def report(models: dict[str, Model], alphabet: str, options: Namespace) -> dict[str, str]:
    """Return tables of speeds and of where the time goes, and what each model writes.

    The numbers behind them go to ``generation.json``.
    """
    lengths = (16,) if options.quick else (256, 2048)
    rows = speeds(models, lengths)
    texts = {kind: written(model, alphabet, options) for kind, model in models.items()}
    results: dict[str, Any] = {"speeds": rows, "texts": texts}
    header = ["model", "by", *(f"characters a second after {length}" for length in lengths)]
    shown = [[row["kind"], row["how"], *map("{:,.0f}".format, row["after"])] for row in rows]
    parts = {
        "speeds": training.table(header, shown),
        "texts": "\n\n".join(f"{kind}:\n\n" + indented(text) for kind, text in texts.items()),
    }
    if "ParaGRU" in models:
        results["microseconds"] = profile(models["ParaGRU"])
        times = [[name, f"{time:.1f}"] for name, time in results["microseconds"].items()]
        parts["profile"] = training.table(["part", "µs"], times)
    training.write(options.out / "generation.json", results, options)
    return parts


def written(model: Model, alphabet: str, options: Namespace) -> str:
    """Return what a model writes after the prompt."""
    prompt = encode(options.prompt, alphabet)
    read = (stepping if model.recurrences() else remembering)(model, prompt[:-1])
    count, rng = (40 if options.quick else 400), np.random.default_rng(options.seed)
    return options.prompt + decode(write(read, prompt[-1:], count, rng), alphabet)


def indented(text: str) -> str:
    """Return a text as Markdown's code."""
    return "\n".join("    " + line for line in text.splitlines())
