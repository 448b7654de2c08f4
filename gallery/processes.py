"""Several processes that train one model, each on its share of every batch.

    torchrun --nproc_per_node=2 gallery/language_model.py --kinds ParaGRU

torchrun starts them and tells each its number; DistributedDataParallel makes the mean of their
gradients. To a process that was started alone, what is here does nothing. A script reads like
this::

    with processes.joined():
        model = ...
        replica = processes.replica(model)          # what losses are computed with
        loss = lambda step: nats(replica, processes.share(batch(step)))
        history = training.train(model, loss, ...)
        if processes.rank() == 0:
            ...                                     # print, draw, write
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""By which torchrun tells a process of the others."""


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, if torchrun started this one, and leave them at the end.

    Raises
    ------
    ValueError
        Only a part of what torchrun sets is there.
    """
    missing = [name for name in VARIABLES if name not in os.environ]
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        yield
        return
    if missing:
        raise ValueError(
            f"of {', '.join(VARIABLES)} the environment lacks {', '.join(missing)}; expected all, "
            "or neither of the first two: start by torchrun --nproc_per_node=2 SCRIPT, or unset "
            "them"
        )
    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def require_alone() -> None:
    """Refuse to be one of several: what a script calls that does not share its work.

    Raises
    ------
    ValueError
    """
    others = os.environ.get("WORLD_SIZE", "1")
    if others != "1":
        raise ValueError(
            f"this script works in one process, and {others} were started, which would all do the "
            "same and write the same files; start it by python, not by torchrun"
        )


def together() -> bool:
    """Tell whether there are others."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Return the number of this process: 0 prints and writes."""
    return distributed.get_rank() if together() else 0


def count() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if together() else 1


def replica(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model as one of equal copies, which take the mean of their gradients.

    Their parameters become those of process 0. From here on each process draws its own numbers,
    for dropout.
    """
    if not together():
        return model
    torch.manual_seed(torch.initial_seed() + rank())
    return DistributedDataParallel(model)


def share(batch: Any) -> Any:
    """Return the part of a batch that this process works on: axis 1, of sequences, cut evenly.

    Raises
    ------
    ValueError
        It cannot be cut evenly, and the mean of means would not be the mean.
    """
    size, parts = batch.shape[1], count()
    if size % parts:
        raise ValueError(
            f"a batch has {size} sequences, and there are {parts} processes; expected a multiple: "
            "choose another batch, or another --nproc_per_node"
        )
    each = size // parts
    return batch[:, rank() * each : (rank() + 1) * each]


def mean(value: float) -> float:
    """Return the mean of a number over all processes."""
    if not together():
        return value
    total = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(total)
    return total.item() / count()


def gathered(value: Any) -> list[Any]:
    """Return what all processes have, by their numbers; in each of them."""
    found = [value] * count()
    if together():
        distributed.all_gather_object(found, value)
    return found


def from_first(value: Any) -> Any:
    """Return what process 0 has."""
    return gathered(value)[0]
