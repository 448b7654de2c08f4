"""One process of two that train a layer together: what ``test_data_parallel`` starts.

First by DistributedDataParallel, then with the parameters in halves, one in each process.
"""

import sys

import torch
import torch.distributed as distributed
import torch.distributed.fsdp as fsdp
from torch.nn.parallel import DistributedDataParallel

import pararnn_solvers as prs
from tests.torch.cases import inputs, layer

BOUND = 0.3  # of recurrent weights
SHARDS = hasattr(fsdp, "fully_shard")  # PyTorch 2.6 has it


def train(model, x):
    """Three steps against the mean of squares."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x)[0].square().mean().backward()
        optimizer.step()


def main(rank, file, out):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    x = inputs(6, 4)[:, 2 * rank : 2 * rank + 2].detach()
    model = DistributedDataParallel(layer("diagonal_gru", 2))
    train(model, x)
    torch.save(model.module.state_dict(), f"{out}{rank}")
    if SHARDS:
        in_parts(rank, x, out)
    distributed.destroy_process_group()


def in_parts(rank, x, out):
    """Train with a half of the parameters."""
    sharded = fsdp.fully_shard(layer("diagonal_gru", 2))
    sharded.clip_recurrent(BOUND)
    try:
        sharded.theta()
        raise AssertionError("a part is not the whole")
    except prs.InvalidInput as error:
        assert "is in parts, one in each process" in str(error)
    train(sharded, x)
    weights = sharded.state_dict()
    assert weights["a_l0"].to_local().shape[0] == (2, 1)[rank]  # of three rows
    torch.save({name: p.full_tensor() for name, p in weights.items()}, f"{out}{rank}-sharded")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
