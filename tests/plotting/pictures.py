"""The pictures of docs/pictures.md: ``python -m tests.plotting.pictures``, about a minute.

Each function computes what one shows and returns what draws it: ``draw(ax=None)`` returns axes.
``python -m tests.plotting.pictures NAME ...`` makes those alone.
"""

import json
import sys
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import plotting, problems
from pararnn_solvers.bench import report
from pararnn_solvers.bench.cases import CASES
from pararnn_solvers.bench.contestants import CONTESTANTS, OURS
from pararnn_solvers.bench.timing import run_case

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
THEMES = ("light", "dark")
DPI = 200
GAINS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
LENGTHS = (30, 100, 300, 1000, 3000)


def tanh_network(h, x, W):
    return np.tanh(h @ W.T + x)


def network(gain, T=300, d=16, seed=0):
    """Arguments of solve: a tanh network whose weights have standard deviation gain / sqrt(d)."""
    rng = np.random.default_rng(seed)
    W = rng.normal(0, gain / np.sqrt(d), (d, d))
    return tanh_network, 0.1 * rng.normal(size=(T, d)), rng.normal(size=d), W


def iterates_of(*problem, **options):
    """The iterates of a solve, whether or not it converges."""
    kept = []
    options = {"max_iter": 80, "compiled": False, **options}
    try:
        prs.solve(*problem, callback=lambda state: kept.append(state.h[:, 0].copy()), **options)
    except prs.ConvergenceError:
        pass
    return kept


def count(*problem, **options):
    """Iterations to convergence, or infinitely many."""
    try:
        return prs.solve(*problem, compiled=False, **options).n_iter
    except prs.ConvergenceError:
        return np.inf


def typical(gain, T=300, **options):
    """Iterations for a network of this gain, the median of three; None if most do not converge."""
    middle = np.median([count(*network(gain, T, seed=seed), **options) for seed in range(3)])
    return middle if np.isfinite(middle) else None


def convergence():
    """Six methods on a network at gain 0.7."""
    methods = ("newton", "levenberg_marquardt", "chord", "quasi_newton", "jacobi", "picard")
    solutions = {}
    for method in methods:
        try:
            solutions[method] = prs.solve(*network(0.7), method=method, max_iter=40)
        except prs.ConvergenceError as error:
            solutions[method] = error.solution
    return partial(plotting.plot_convergence, solutions)


def exact_prefix():
    """Jacobi's iteration on a network that remembers: one more step is exact each time."""
    problem = network(1.2, T=60, d=8)
    iterates = iterates_of(*problem, method="jacobi")
    return partial(plotting.plot_errors, iterates, prs.rollout(*problem))


def errors_of_newton():
    """Newton's method near the edge of chaos."""
    problem = network(1.2, T=300)
    iterates = iterates_of(*problem, method="newton")
    return partial(plotting.plot_errors, iterates, prs.rollout(*problem))


def iterates():
    """Newton's iterates of a network near the edge of chaos."""
    problem = network(1.0, T=60)
    found = iterates_of(*problem, method="newton")
    return partial(plotting.plot_iterates, found, prs.rollout(*problem))


def phase_plane():
    """Levenberg and Marquardt's method on Van der Pol's oscillator: every third iterate."""
    recurrence, x, h0, theta, steps, *_ = problems.van_der_pol(100)
    method = "levenberg_marquardt"
    found = iterates_of(recurrence, x, h0, theta, steps=steps, method=method, guess="repeat_h0")
    truth = prs.rollout(recurrence, x, h0, theta, steps=steps)
    every = [*found[1::3], found[-1]]
    return partial(plotting.plot_iterates, every, truth, component=(0, 1))


def gain():
    """Iterations against the gain: the edge of chaos."""
    methods = {"newton": "newton", "chunks of 8": prs.newton(chunk=8), "diagonal": "quasi_newton"}
    counts = {
        name: [typical(g, method=method, max_iter=300) for g in GAINS]
        for name, method in methods.items()
    }
    return partial(plotting.plot_iterations, GAINS, counts, label="gain g")


def length():
    """Iterations against the length, either side of the edge."""
    counts = {
        f"g = {g}": [typical(g, T, method="newton", max_iter=T) for T in LENGTHS]
        for g in (0.5, 0.8, 1.2)
    }
    return partial(plotting.plot_iterations, LENGTHS, counts, label="steps T")


def block_size():
    """Iterations against the size of the blocks that are kept of a dense Jacobian."""
    sizes = (1, 2, 4, 8, 16)
    counts = {
        f"g = {g}": [
            typical(g, method=prs.quasi_newton(prs.block_diagonal(k)), max_iter=300) for k in sizes
        ]
        for g in (0.5, 0.7, 0.9)
    }

    def draw(ax):
        ax = plotting.plot_iterations(sizes, counts, ax=ax, label="block size k of 16")
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, list(map(str, sizes)))
        ax.minorticks_off()
        return ax

    return draw


def tolerance():
    """Iterations against the tolerance: quadratic and linear convergence."""
    tolerances = 10.0 ** np.arange(-13, 0, 2)
    counts = {
        name: [typical(0.7, method=name, atol=tol, rtol=0.0, max_iter=300) for tol in tolerances]
        for name in ("newton", "chord", "quasi_newton")
    }
    return partial(plotting.plot_iterations, tolerances, counts, label="tolerance of the residual")


def sparsity():
    """The Jacobian of an LSTM: 2 x 2 blocks over channels."""
    problem = problems.long_memory_lstm(8, n=4, forget_bias=1.0)
    sol = prs.solve(*problem[:4], method="newton")
    return partial(plotting.plot_sparsity, sol.system.linearize(sol.h))


def lyapunov():
    """The logistic map at r = 3.9."""
    recurrence, x, h0, r, steps, *_ = problems.logistic_map(3.9, 400)
    sol = prs.solve(recurrence, x, h0, r, steps=steps, method="sequential")
    return partial(plotting.plot_lyapunov, plotting.local_growth(sol.system.linearize(sol.h)))


def speed():
    """Newton's method by each backend against the length, and the rollout; 8 channels."""
    cell = prs.Recurrence(lambda h, x, a: np.tanh(a * h + x), block_size=1)
    comparisons = {}
    for T in (100, 300, 1000, 3000, 10000):
        x = np.random.default_rng(0).normal(size=(T, 8))
        comparisons[T] = prs.compare(
            cell, x, np.zeros(8), 0.9, methods=["newton"], compiled=False, repeats=5,
            backends=["sequential", "numba", "scipy"],
        )  # fmt: skip
    return partial(plotting.plot_speed, plotting.speeds(comparisons))


def times():
    """The rows of one comparison."""
    methods = ("newton", prs.newton(chunk=16), "quasi_newton", "levenberg_marquardt", "picard")
    found = prs.compare(*network(0.7), methods=methods, repeats=5, max_iter=30)
    return partial(plotting.plot_times, found)


def bench():
    """Three cases of the benchmark, four of the contestants."""
    cases = [CASES[name] for name in ("64-channels", "lstm", "dense-128")]
    few = {name: CONTESTANTS[name] for name in (OURS, "map", "Numba loop", "NumPy loop")}
    results = {case.name: run_case(case, 5, few) for case in cases}
    return partial(plotting.plot_bench, json.loads(report.as_json(results, 5, {})))


PICTURES = {
    function.__name__: function
    for function in (
        convergence, exact_prefix, errors_of_newton, iterates, phase_plane, gain, length,
        block_size, tolerance, sparsity, lyapunov, speed, times, bench,
    )
}  # fmt: skip


def figure(draw, theme):
    """Return a picture in one of the styles."""
    with plotting.style(theme):
        return draw(ax=None).figure


def save(picture, path):
    """Write a small PNG, of 256 colours."""
    from PIL import Image

    buffer = BytesIO()
    picture.savefig(buffer, dpi=DPI, facecolor=picture.get_facecolor())
    image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def main(names):
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        draw = PICTURES[name]()
        for theme in THEMES:
            save(figure(draw, theme), FOLDER / f"{name}-{theme}.png")
    print(f"{sum(file.stat().st_size for file in FOLDER.glob('*.png')) / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
