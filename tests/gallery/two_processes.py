"""One process of two that torchrun starts for ``test_processes``."""

import sys
from pathlib import Path

import numpy as np
import torch

import tests.gallery  # noqa: F401 - finds the scripts

import blocks  # isort: skip
import processes  # isort: skip
import training  # isort: skip
from language_model import nats  # isort: skip

CHARACTERS, SIZES = 20, {"width": 8, "depth": 1, "hidden": 16}


def model_of(dropout):
    training.begin(0)
    return blocks.build("ParaGRU", CHARACTERS, dropout=dropout, **SIZES)


def run(steps, checkpoint, resume=False):
    """Train with dropout, and return losses, evaluations and weights."""
    model = model_of(dropout=0.3)
    replica = processes.replica(model)

    def loss(step):
        batch = np.random.default_rng(step).integers(0, CHARACTERS, size=(9, 4))
        return nats(replica, processes.share(batch))

    history = training.train(
        model, loss, steps, every=2, checkpoint=checkpoint, resume=resume,
        evaluate=lambda step: {"evaluated by": processes.rank()},
    )  # fmt: skip
    return history.losses, history.evaluations, model.state_dict()


def raised(call, *args):
    """Return what a ValueError says that each process raises."""
    try:
        call(*args)
    except ValueError as error:
        return str(error)
    raise AssertionError("no ValueError")


def main(folder):
    with processes.joined():
        rank = processes.rank()
        whole = run(6, folder / "whole.pt")
        run(4, folder / "resumed.pt")
        resumed = run(6, folder / "resumed.pt", resume=True)
        assert len(whole[0]) == 6
        assert resumed[:2] == whole[:2]
        assert all(torch.equal(whole[2][name], resumed[2][name]) for name in whole[2])
        assert [found["evaluated by"] for found in whole[1]] == [0, 0, 0]
        assert processes.gathered(whole[0]) == [whole[0]] * 2
        drawn = processes.gathered(torch.rand(3).tolist())
        assert drawn[0] != drawn[1]
        message = raised(processes.share, np.zeros((3, 5)))
        assert message.startswith("a batch has 5 sequences, and there are 2 processes; expected")
        mine = folder / ("resumed.pt" if rank == 0 else "not there.pt")
        message = raised(run, 8, mine, True)
        assert message.startswith("processes go on from steps [6, 0]; expected one checkpoint")
        # In one write, since torchrun's processes are unbuffered: print writes its newline apart.
        sys.stdout.write(f"process {rank} is fine\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
