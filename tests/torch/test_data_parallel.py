"""Two processes with half a batch each train as one with the whole."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from tests.torch.cases import inputs, layer
from tests.torch.data_parallel import BOUND, train

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="PyTorch is built without gloo",
)
def test_two_processes_train_as_one(tmp_path):
    command = [sys.executable, "-m", "tests.torch.data_parallel"]
    paths = [str(tmp_path / "store"), str(tmp_path / "weights")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(rank), *paths], cwd=ROOT, env=environment, stderr=subprocess.PIPE
                )
            )
            for rank in range(2)
        ]
        for process in running:
            stack.callback(process.kill)
        for process in running:
            said = process.communicate(timeout=300)[1]
            assert process.returncode == 0, said.decode()
    x = inputs(6, 4).detach()
    for kind in ["", "-sharded"]:
        made = layer("diagonal_gru", 2)
        if kind:
            made.clip_recurrent(BOUND)
        train(made, x)
        for rank in range(2):
            for name, found in torch.load(f"{paths[1]}{rank}{kind}").items():
                torch.testing.assert_close(found, made.state_dict()[name], rtol=0, atol=1e-12)
