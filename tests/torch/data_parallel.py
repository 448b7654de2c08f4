"""One process of two that train a layer together: what ``test_data_parallel`` starts."""

import sys

import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel

from tests.torch.cases import inputs, layer


def main(rank, file, out):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = DistributedDataParallel(layer("diagonal_gru", 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = inputs(6, 4)[:, 2 * rank : 2 * rank + 2].detach()
    for _ in range(3):
        optimizer.zero_grad()
        model(x)[0].square().mean().backward()
        optimizer.step()
    torch.save(model.module.state_dict(), f"{out}{rank}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
