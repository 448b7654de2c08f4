"""How solves over MPI's ranks scale: ``mpirun -n 2 python -m mpi4py tests/benchmarks/ranks.py``.

*Measured*: milliseconds (least of some turns) of the linear recurrence, of Newton's method and of
``auto``, in one process and on all ranks, for as many steps in all (strong scaling) and for as many
on each (weak). A diagonal GRU of 16 channels in float32.

*Predicted*: speedups over one process that steps, by the model and (in brackets) by simulating
ranks that do not all take equally long, up to 4096 of them. What a message takes between machines
is an assumption (``--latency``, ``--bandwidth``); everything else was measured before.
``--predict`` prints these tables alone, from the figures of a former run in ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru
from pararnn_solvers.linear import load, threads
from pararnn_solvers.linear.mpi_scan import OverRanks, product
from pararnn_solvers.ranks import Ranks

CHANNELS = 16
STEPS = 1 << 18
FEW = 1 << 13  # what a solve takes at least: the fewest steps for which kernels run
TURNS = 5
RANKS = (8, 64, 512, 4096)
LENGTHS = (10**6, 10**8, 10**10, 10**12)
SPREAD = 0.05  # standard deviation of the time that equal work takes on different ranks


@dataclass(frozen=True)
class Costs:
    """Seconds: of a step in one process, of one over ranks with its exchanges, and of a message.

    Attributes
    ----------
    stepping, auto, scan, product : float
        In one process: by ``sequential``, by ``auto``; the linear recurrence, product of blocks.
    newton_shared, auto_shared : float
        Over ranks, of a step of the slab.
    fixed : float
        Of ``auto`` over ranks, whatever the number of steps; of one machine's exchanges, too.
    newton_exchanges, auto_exchanges : int
        Of a whole solve.
    latency, per_byte : float
        Of a message.
    nbytes : int
        Of the map of a slab.
    """

    stepping: float
    auto: float
    scan: float
    product: float
    newton_shared: float
    auto_shared: float
    fixed: float
    newton_exchanges: int
    auto_exchanges: int
    latency: float
    per_byte: float
    nbytes: int


def exchanges(costs: Costs, ranks: int, number: int) -> float:
    """Return the seconds of exchanges of a map and of the agreements before them: by a tree."""
    rounds = math.ceil(math.log2(ranks))
    return number * rounds * (2 * costs.latency + costs.nbytes * costs.per_byte)


def scan_seconds(costs: Costs, steps: float, ranks: int) -> float:
    """Return the seconds of a linear recurrence by the model."""
    return steps / ranks * (2 * costs.scan + costs.product) + exchanges(costs, ranks, 1)


def newton_seconds(costs: Costs, steps: float, ranks: int) -> float:
    """Return the seconds of Newton's method over ranks by the model."""
    between = exchanges(costs, ranks, costs.newton_exchanges)
    return steps / ranks * costs.newton_shared + between


def auto_seconds(costs: Costs, steps: float, ranks: int) -> float:
    """Return the seconds of ``auto`` over ranks, where each slab is solved alone, by the model."""
    between = exchanges(costs, ranks, costs.auto_exchanges)
    return costs.fixed + steps / ranks * costs.auto_shared + between


def simulated(costs: Costs, work: float, number: int, ranks: int) -> float:
    """Return the seconds of a solve by ranks that take unequal times and wait for one another.

    Parameters
    ----------
    work : float
        Seconds of work of a rank, between so many exchanges.
    """
    rng, clock = np.random.default_rng(0), np.zeros(ranks)
    for _ in range(number):
        clock += work / number * np.maximum(0.0, rng.normal(1, SPREAD, ranks))
        agree(clock, costs.latency)
        pass_on(clock, costs.latency + costs.nbytes * costs.per_byte)
    return float(clock.max())


def agree(clock: np.ndarray, message: float) -> None:
    """Advance the clocks of ranks by an Allreduce: in turn, with those that differ in one bit."""
    for reach in (1 << r for r in range(math.ceil(math.log2(len(clock))))):
        clock[:] = np.maximum(clock, clock[np.arange(len(clock)) ^ reach]) + message


def pass_on(clock: np.ndarray, message: float) -> None:
    """Advance the clocks of ranks by an Exscan: in turn, with those 1, 2, 4 ... before."""
    for reach in (1 << r for r in range(math.ceil(math.log2(len(clock))))):
        clock[reach:] = np.maximum(clock[reach:], clock[:-reach]) + message


def crossover(seconds, costs: Costs, steps: float, alone: float) -> str:
    """Return the fewest ranks, a power of two up to 2**16, with which ranks beat one process."""
    powers = (2**exponent for exponent in range(1, 17))
    return str(next((P for P in powers if seconds(costs, steps, P) < steps * alone), "none"))


def least(comm, call) -> float:
    """Return the least of some turns of the time that the slowest rank takes."""
    seconds = []
    for _ in range(TURNS):
        comm.Barrier()
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(min(np.max(comm.allgather(seconds), axis=0)))


def linear_problem(steps, seed):
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(-0.9, 0.9, (steps, 1, 1, 1, CHANNELS)).astype(np.float32)
    return blocks, rng.normal(size=(steps, 1, CHANNELS)).astype(np.float32)


def gru(steps, seed):
    theta = diagonal_gru.init(np.random.default_rng(0), 16, CHANNELS, dtype=np.float32)
    x = np.random.default_rng(seed).normal(size=(steps, 16)).astype(np.float32)
    return (
        diagonal_gru.recurrence,
        diagonal_gru.project(x, theta),
        np.zeros(CHANNELS, np.float32),
        theta,
    )


def measured(comm) -> tuple[dict[str, float], Costs]:
    """Return milliseconds, and the costs."""
    from mpi4py import MPI

    shared, sent = {}, {}
    for kind, steps in (("few", FEW), ("same", STEPS // comm.size), ("each", STEPS)):
        system, problem = linear_problem(steps, comm.rank), gru(steps, comm.rank)
        scan = OverRanks(Ranks(comm), load("numba"))
        shared[f"linear, {kind}"] = least(comm, partial(scan, *system))
        for method in ("newton", "auto"):
            solve = partial(prs.solve, *problem, method=method, comm=comm)
            shared[f"{method}, {kind}"] = least(comm, solve)
            sent[method] = solve().communication.calls // 2
    quick, slow = exchanged(comm, 1, 200), exchanged(comm, 1 << 20, 5)
    system, problem, one = linear_problem(STEPS, 0), gru(STEPS, 0), {}
    if comm.rank == 0:  # the others wait
        one["linear"] = least(MPI.COMM_SELF, partial(load("numba"), *system))
        one["product"] = least(MPI.COMM_SELF, partial(product, system[0]))
        for method in ("newton", "auto", "sequential"):
            one[method] = least(MPI.COMM_SELF, partial(prs.solve, *problem, method=method))
    one = comm.bcast(one)
    rate = (shared["auto, each"] - shared["auto, few"]) / (STEPS - FEW)
    costs = Costs(
        stepping=one["sequential"] / STEPS,
        auto=one["auto"] / STEPS,
        scan=one["linear"] / STEPS,
        product=one["product"] / STEPS,
        newton_shared=shared["newton, each"] / STEPS,
        auto_shared=rate,
        fixed=max(0.0, shared["auto, few"] - rate * FEW),
        newton_exchanges=sent["newton"],
        auto_exchanges=sent["auto"],
        latency=quick / 2 / math.log2(comm.size),
        per_byte=max(0.0, slow - quick) / (4 << 20),
        nbytes=4 * (2 * CHANNELS + 1),
    )
    return {name: 1e3 * seconds for name, seconds in {**one, **shared}.items()}, costs


def exchanged(comm, numbers: int, times: int) -> float:
    """Return the seconds of one exchange of so many numbers, with the agreement before it."""
    ranks, value = Ranks(comm), np.zeros(numbers, np.float32)

    def exchange():
        for _ in range(times):
            ranks.before(value, np.add)

    return least(comm, exchange) / times


def rows(table) -> str:
    """Return rows of Markdown."""
    first, *rest = [" | ".join(map(str, row)) for row in table]
    line = " | ".join(["---"] * len(table[0]))
    return "\n".join(f"| {row} |" for row in [first, line, *rest])


def report_measured(ms: dict[str, float], costs: Costs, size: int) -> str:
    """Return what was measured, beside what the model says of it."""
    table = [
        [
            "ms",
            "one process",
            f"{size} ranks, the same steps",
            "model",
            f"{size} ranks, as many on each",
            "model",
        ]
    ]
    models = {"linear": scan_seconds, "newton": newton_seconds, "auto": auto_seconds}
    for name, model in models.items():
        expected = [1e3 * model(costs, steps, size) for steps in (STEPS, size * STEPS)]
        each = ms[f"{name}, same"], expected[0], ms[f"{name}, each"], expected[1]
        table.append([name, *(f"{number:.1f}" for number in (ms[name], *each))])
    return rows([*table, ["sequential", f"{ms['sequential']:.1f}", "", "", "", ""]])


def report_predicted(costs: Costs, name: str) -> str:
    """Return speedups over one process that steps, and the crossovers."""
    seconds = {"newton": newton_seconds, "auto": auto_seconds}[name]
    per_step = getattr(costs, f"{name}_shared")
    number = getattr(costs, f"{name}_exchanges")
    head = [f"{name}, steps", *(f"{ranks} ranks" for ranks in RANKS)]
    table = [[*head, "to beat stepping", "to beat auto"]]
    for steps in LENGTHS:
        row = []
        for ranks in RANKS:
            alone = steps * costs.stepping
            model = seconds(costs, steps, ranks)
            work = steps / ranks * per_step + (costs.fixed if name == "auto" else 0.0)
            events = simulated(costs, work, number, ranks)
            row.append(f"{alone / model:.3g} ({alone / events:.3g})")
        fewest = [crossover(seconds, costs, steps, one) for one in (costs.stepping, costs.auto)]
        table.append([f"10^{round(math.log10(steps))}", *row, *fewest])
    return rows(table)


def main() -> None:
    """Measure or read, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="keep the costs there, or read them")
    parser.add_argument("--predict", action="store_true", help="do not measure")
    parser.add_argument("--latency", type=float, default=5e-6, help="seconds between machines")
    parser.add_argument("--bandwidth", type=float, default=1e9, help="bytes a second between them")
    args = parser.parse_args()
    if args.predict:
        costs = Costs(**json.loads(args.json.read_text()))
    else:
        from mpi4py import MPI

        threads.set_num_threads(1)
        ms, costs = measured(MPI.COMM_WORLD)
        if MPI.COMM_WORLD.rank:
            return
        if args.json:
            args.json.write_text(json.dumps(asdict(costs), indent=1))
        print(report_measured(ms, costs, MPI.COMM_WORLD.size))
    print("\n", {name: float(f"{value:.3g}") for name, value in asdict(costs).items()}, "\n")
    between = replace(costs, latency=args.latency, per_byte=1 / args.bandwidth)
    for method in ("newton", "auto"):
        print(report_predicted(between, method), "\n")


if __name__ == "__main__":
    main()
