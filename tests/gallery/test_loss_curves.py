"""Training with ParallelRNN and with a loop over the steps is the same training."""

import argparse
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import blocks  # noqa: E402
import loss_curves as lc  # noqa: E402

from pararnn_solvers.torch import ParallelRNN  # noqa: E402


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("cell", lc.CELLS.values())
@pytest.mark.parametrize("started", [False, True])
def test_the_loop_computes_what_the_layer_does(cell, started):
    torch.manual_seed(0)
    layer = ParallelRNN(cell, 6, 4, heads=2, dtype=torch.float64)
    x = torch.randn(9, 3, 6, dtype=torch.float64)
    one = torch.randn(1, 3, 4, dtype=torch.float64)
    state = None if not started else one if cell == "diagonal_gru" else (one, -one / 2)
    y, final = layer(x, state)
    y_loop, final_loop = lc.looped(layer, x, state)
    torch.testing.assert_close(y_loop, y, rtol=0, atol=1e-11)
    torch.testing.assert_close(final_loop, final, rtol=0, atol=1e-11)


@pytest.mark.parametrize("cell", lc.CELLS)
@pytest.mark.parametrize("method", ["newton", "auto"])
def test_the_first_losses_agree_to_rounding(cell, method):
    options = argparse.Namespace(seed=0, threads=1)
    losses = []
    for run in (blocks.solved, lc.looped):
        torch.manual_seed(0)
        model = lc.network(lc.CELLS[cell], torch.float64, method, run)
        losses.append(lc.curve(model, options, 20, "test"))
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-9)
    assert len(set(losses[0])) == 20  # and it has learned in between


def test_the_script_writes_its_results(tmp_path, capsys):
    lc.main(["--quick", "--out", str(tmp_path), "--figures", str(tmp_path)])
    results = json.loads((tmp_path / "loss_curves.json").read_text(encoding="utf-8"))
    assert set(results["curves"]["ParaGRU"]) == {*lc.RUNS, "loop"}
    assert results["timings"]["ParaGRU"]["loop"]["128"] > 0
    assert "float64, nudged loop" in capsys.readouterr().out
    assert (tmp_path / "state_tracking-training.png").stat().st_size > 10_000
