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
from tests.torch.data_parallel import BOUND, SHARDS, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The start of the names of files into which two processes wrote their weights."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("PyTorch is built without gloo")
    folder = tmp_path_factory.mktemp("data_parallel")
    command = [sys.executable, "-m", "tests.torch.data_parallel"]
    paths = [str(folder / "store"), str(folder / "weights")]
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
    return paths[1]


def assert_trained_as_one(made, weights, ending=""):
    train(made, inputs(6, 4).detach())
    for rank in range(2):
        for name, found in torch.load(f"{weights}{rank}{ending}").items():
            torch.testing.assert_close(found, made.state_dict()[name], rtol=0, atol=1e-12)


def test_two_processes_train_as_one(weights):
    assert_trained_as_one(layer("diagonal_gru", 2), weights)


@pytest.mark.skipif(not SHARDS, reason="fully_shard needs PyTorch 2.6")
def test_two_processes_with_half_of_the_parameters_each_train_as_one(weights):
    made = layer("diagonal_gru", 2)
    made.clip_recurrent(BOUND)
    assert_trained_as_one(made, weights, "-sharded")
