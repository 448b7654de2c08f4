"""Scripts that torchrun starts in two processes train as in one, and only one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import language_model  # noqa: E402
import loss_curves  # noqa: E402
import processes  # noqa: E402
import state_tracking  # noqa: E402
import text  # noqa: E402
import training  # noqa: E402

from tests.gallery import two_processes  # noqa: E402

ROOT = Path(__file__).parents[2]
needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="PyTorch is built without gloo",
)


def torchrun(*arguments):
    """Start two processes on this machine, and return what they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


@needs_gloo
def test_the_language_model_has_the_losses_of_one_process(tmp_path):
    script = ROOT / "gallery" / "language_model.py"
    arguments = ["--quick", "--kinds", "ParaGRU", "--dropout", "0", "--out"]
    printed = torchrun(script, *arguments, tmp_path / "two")
    assert printed.count("characters to train on") == 1
    written = json.loads((tmp_path / "two" / "results.json").read_text(encoding="utf-8"))
    found = written["runs"][0]["history"]["losses"]
    options, data = language_model.parser().parse_args([*arguments, str(tmp_path)]), text.corpus()
    data = data._replace(held_out=data.held_out[:1000])
    one = language_model.run("ParaGRU", 0, language_model.QUICK, data, options)
    assert np.ptp(found) > 1e-2
    np.testing.assert_allclose(found, one["history"]["losses"], rtol=0, atol=1e-5)


@needs_gloo
def test_a_run_of_two_is_resumed_bit_for_bit_and_errors_are_told_by_both(tmp_path):
    printed = torchrun("-m", "tests.gallery.two_processes", tmp_path)
    assert sorted(printed.splitlines()) == ["process 0 is fine", "process 1 is fine"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["resumed.pt", "whole.pt"]
    model = two_processes.model_of(dropout=0.3)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match=r"was written by 2 process\(es\), and 1 go\(es\) on"):
        training.load(tmp_path / "whole.pt", model, optimizer)
    training.load(tmp_path / "whole.pt", model)  # to evaluate, that does not matter


@pytest.mark.parametrize("script", [state_tracking, loss_curves])
def test_scripts_that_do_not_share_their_work_refuse_to_be_two(monkeypatch, tmp_path, script):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="works in one process, and 2 were started"):
        script.main(["--quick", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.require_alone()


def test_a_process_that_was_started_alone_is_its_own_first(monkeypatch):
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    model, batch = torch.nn.Linear(1, 1), np.zeros((3, 5))
    with processes.joined():
        assert (processes.rank(), processes.count(), processes.mean(0.1)) == (0, 1, 0.1)
        assert processes.replica(model) is model
        assert np.array_equal(processes.share(batch), batch)
        assert processes.from_first("mine") == "mine"


def test_half_of_what_torchrun_sets_is_refused(monkeypatch):
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    message = "the environment lacks WORLD_SIZE, MASTER_ADDR, MASTER_PORT; .* start by torchrun"
    with pytest.raises(ValueError, match=message), processes.joined():
        pass
