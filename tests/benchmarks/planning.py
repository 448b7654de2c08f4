"""What ``pararnn_solvers.planning`` predicts, beside what is counted and measured.

``python -m tests.benchmarks.planning`` prints the tables of ``docs/scaling.md``; those that need
PyTorch are left out without it. Set OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 for the times.
"""

import importlib.util
import multiprocessing
import sys
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import planning
from pararnn_solvers.autodiff.trace.explanation import explain
from pararnn_solvers.autodiff.trace.graph import reachable
from pararnn_solvers.cells import load, stack

ROOT = str(Path(__file__).parents[2])
HAS_TORCH = importlib.util.find_spec("torch") is not None


def counted_parameters(cell, width, heads):
    """Count the numbers in the parameters that a cell draws."""
    theta = load(cell).init(np.random.default_rng(0), width, width, heads)
    return sum(leaf.size for leaf in theta)


def predicted_parameters(cell, width, heads):
    parts = planning.Model(width, 1, cell, heads).parts
    return parts["drives"].parameters + parts["recurrence"].parameters


def traced_operations(name):
    """Return the operations of f, of f with its Jacobian, of its products, by tracing the step."""
    cell, k = load(name), planning.CELLS[name].components
    theta = cell.init(np.random.default_rng(0), 4, 8)
    u = cell.project(np.zeros((1, 4)), theta)[0]
    found = explain(cell.step, cell.initial_state(theta), u, theta, k)
    vjp = found.trace.vjp()
    nodes = reachable([*vjp.h, *vjp.x, *vjp.theta])
    products = sum(node.op not in ("input", "constant") for node in nodes)
    sums = k + len(vjp.theta)  # of dL/dh, and over time
    return found.step.operations, found.linearization.operations, products + sums


class Counting(np.ndarray):
    """An array that counts the numbers which NumPy computes from it."""

    count = 0

    def __array_ufunc__(self, ufunc, method, *args, **options):
        assert method == "__call__"
        result = ufunc(*(np.asarray(a) for a in args), **options)
        Counting.count += result.size
        return result.view(Counting)

    def __pararnn_primitive__(self, name, function):
        Counting.count += self.size
        return np.asarray(function(np.asarray(self))).view(Counting)


def executed_operations(name):
    """Return the operations a channel that NumPy makes of one step, which no trace has seen."""
    cell, n = load(name), 8
    theta = cell.init(np.random.default_rng(0), 4, n)
    u = np.ones(planning.CELLS[name].gates * n).view(Counting)
    h = cell.initial_state(theta).view(Counting)
    Counting.count = 0
    cell.step(h, u, theta)
    return Counting.count / n


def in_new_process(function, *args):
    """Return what a function returns where no memory waits to be used again."""
    if ROOT not in sys.path:  # the new process looks for `tests` there, and pytest does not
        sys.path.append(ROOT)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def measured_memory(cell, steps, batch, inputs, channels):
    """Return the bytes that a layer keeps and those at its peak, by tracemalloc, as NumPy asks."""
    rng = np.random.default_rng(0)
    layers = stack.init(cell, rng, inputs, channels, dtype=np.float32)

    def run(steps):
        x = rng.standard_normal((steps, batch, inputs), dtype=np.float32)
        before = tracemalloc.get_traced_memory()[0]
        found = stack.apply(cell, layers, x, compiled=True)
        kept = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.reset_peak()
        stack.gradients(cell, layers, found, np.ones_like(found.y))
        return kept, tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        run(16)  # compiles
        return run(steps)
    finally:
        tracemalloc.stop()


def torch_model(model):
    """Return the model of ``planning`` in PyTorch, float32, from tokens to the loss.

    Its norms are LayerNorm without bias, one kernel on the CPU that keeps its input, as RMSNorm is
    on a GPU. (RMSNorm on the CPU keeps as much again.)
    """
    import torch
    from torch import nn
    from torch.nn import functional

    from pararnn_solvers.torch import solve

    cell, d = load(model.cell), model.width
    norm = partial(nn.LayerNorm, bias=False)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(norm(d) for _ in range(3))
            self.split, self.out = nn.Linear(d, 2 * d, False), nn.Linear(d, d, False)
            kernel = planning.models.KERNEL
            self.convolution = nn.Conv1d(d, d, kernel, padding=kernel - 1, groups=d)
            theta = cell.init(np.random.default_rng(0), d, d, model.heads, dtype=np.float32)
            self.fields = type(theta)
            self.theta = nn.ParameterList(nn.Parameter(torch.from_numpy(leaf)) for leaf in theta)
            self.up = nn.Linear(d, model.inner, False)
            self.gate = nn.Linear(d, model.inner, False)
            self.down = nn.Linear(model.inner, d, False)

        def mix(self, v):  # (T, batch, d)
            theta = self.fields(*self.theta)
            B = theta.B.permute(1, 2, 0, 3).reshape(model.heads, d // model.heads, -1)
            parts = v.reshape(-1, model.heads, d // model.heads).transpose(0, 1)
            u = (parts @ B).reshape(model.heads, len(parts[0]), len(theta.b), -1)
            u = u.permute(1, 2, 0, 3).reshape(-1, theta.b.numel()) + theta.b.flatten()
            h0 = torch.from_numpy(cell.initial_state(cell_theta(theta), v.shape[1:2]))
            h = solve(cell.recurrence, u.reshape(*v.shape[:2], -1), h0, theta, compiled=True)
            return cell.output(h)

        def forward(self, x):
            v, z = self.split(self.norms[0](x)).chunk(2, dim=-1)
            v = self.convolution(v.permute(1, 2, 0))[..., : len(x)].permute(2, 0, 1)
            y = self.mix(functional.silu(v).contiguous())
            x = x + self.out(self.norms[1](y) * functional.silu(z))
            v = self.norms[2](x)
            return x + self.down(functional.silu(self.gate(v)) * self.up(v))

    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(model.vocabulary, d)
            self.blocks = nn.ModuleList(Block() for _ in range(model.layers))
            self.norm, self.head = norm(d), nn.Linear(d, model.vocabulary, False)

        def forward(self, tokens):
            x = self.embedding(tokens[:-1])
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.norm(x)).flatten(0, 1)
            return functional.cross_entropy(logits, tokens[1:].flatten())

    def cell_theta(theta):
        return type(theta)(*(leaf.detach().numpy() for leaf in theta))

    return LanguageModel()


def torch_measured(model, length, batch):
    """Return the parameters of a model in PyTorch, and the bytes that autograd keeps for it."""
    import torch

    network = torch_model(model)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held: no address comes twice
        return tensor

    tokens = torch.randint(model.vocabulary, (length + 1, batch))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(tokens)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    parameters = sum(p.numel() for p in network.parameters())
    return parameters, sum(size for size, _ in kept.values())


def least_in_turns(functions, clock=time.perf_counter, turns=7):
    """Return the least time of each call, after one that may compile."""
    for function in functions:
        function()
    times = np.empty((turns, len(functions)))
    for turn in times:
        for i, function in enumerate(functions):
            start = clock()
            function()
            turn[i] = clock() - start
    return times.min(axis=0)


def least(function):
    """Return the least time of a call."""
    return least_in_turns([function])[0]


def layer_step(cell, width, tokens, batch=4):
    """Return a training step of one layer of a cell: drives, states, gradients by all."""
    rng = np.random.default_rng(0)
    layers = stack.init(cell, rng, width, width, dtype=np.float32)
    x = rng.standard_normal((tokens // batch, batch, width), dtype=np.float32)

    def run():
        found = stack.apply(cell, layers, x, compiled=True)
        return stack.gradients(cell, layers, found, found.y)

    return run


def recurrence_step(cell, width, tokens, batch=4):
    """Return a solve and its gradients, without the drives."""
    rng, module = np.random.default_rng(0), load(cell)
    theta = module.init(rng, 1, width, dtype=np.float32)
    shape = (tokens // batch, batch, planning.CELLS[cell].gates * width)
    u, h0 = rng.standard_normal(shape, dtype=np.float32), module.initial_state(theta, (batch,))

    def run():
        found = prs.solve(module.recurrence, u, h0, theta, compiled=True)
        return prs.gradients(found, found.h)

    return run


def rates(width, tokens):
    """Return FLOPs a second of products, operations a second of a diagonal GRU, at one size."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((tokens, width), dtype=np.float32)
    b = rng.standard_normal((width, 3 * width), dtype=np.float32)
    flops = 2 * tokens * b.size / least(lambda: a @ b)
    cell = planning.CELLS["diagonal_gru"]
    operations = tokens * width * (cell.step + cell.adjoint)
    return flops, operations / least(recurrence_step("diagonal_gru", width, tokens))


def predicted_time(cell, width, tokens, flops, operations):
    """Return the time of `layer_step`: six FLOPs a weight of the drives, and the recurrence."""
    one = planning.CELLS[cell]
    linear = 6 * one.gates * width * width / flops
    return tokens * (linear + width * (one.step + one.adjoint) / operations)


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |")


def compare(label, predicted, measured, form="{:.4g}"):
    row(label, form.format(predicted), form.format(measured), f"{predicted / measured:.3f}")


def main():
    row("", "predicted", "counted or measured", "ratio")
    row("---", "---", "---", "---")
    for cell in planning.CELLS:
        for width, heads in ((64, 1), (1024, 2)):
            label = f"{cell}: parameters, width {width}, {heads} head(s)"
            compare(
                label,
                predicted_parameters(cell, width, heads),
                counted_parameters(cell, width, heads),
                "{}",
            )
        one = planning.CELLS[cell]
        for label, predicted, found in zip(
            ("f", "f and its Jacobian", "gradients"),
            (one.step, one.linearized, one.adjoint),
            traced_operations(cell),
            strict=True,
        ):
            compare(f"{cell}: operations, {label}", predicted, found, "{}")
        for sizes in ((2048, 8, 256, 256), (1024, 4, 512, 256)):
            steps, batch, inputs, channels = sizes
            found = in_new_process(measured_memory, cell, *sizes)
            expected = planning.layer_memory(cell, inputs, channels, steps * batch)
            for label, a, b in zip(("kept", "at the peak"), expected, found, strict=True):
                compare(
                    f"{cell}: MB {label}, NumPy, {' × '.join(map(str, sizes))}", a / 1e6, b / 1e6
                )
        if HAS_TORCH:
            model = planning.Model(128, 3, cell, vocabulary=300)
            parameters, kept = torch_measured(model, 256, 4)
            found = planning.plan(model, 256, batch=4, precision="float32")
            compare(f"{cell}: parameters of a model in PyTorch", found.parameters, parameters, "{}")
            compare(f"{cell}: MB stored in PyTorch", found.stored / 1e6, kept / 1e6)
    flops, operations = rates(256, 8192)
    print(f"\n{flops / 1e9:.1f} GFLOP/s and {operations / 1e9:.2f} G operations/s, width 256\n")
    row("", "predicted", "measured", "ratio")
    row("---", "---", "---", "---")
    for cell in planning.CELLS:
        for width, tokens in ((256, 16384), (512, 8192), (1024, 4096)):
            predicted = 1e3 * predicted_time(cell, width, tokens, flops, operations)
            measured = 1e3 * least(layer_step(cell, width, tokens))
            compare(f"{cell}: ms, a layer, width {width}, {tokens} tokens", predicted, measured)
            one = planning.CELLS[cell]
            predicted = 1e3 * tokens * width * (one.step + one.adjoint) / operations
            measured = 1e3 * least(recurrence_step(cell, width, tokens))
            compare(f"{cell}: ms, its recurrence", predicted, measured)


if __name__ == "__main__":
    main()
