import json
from pathlib import Path

import numpy as np
import parity_numpy as parity
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "parity.ipynb"


def test_labels_count_the_ones():
    x, odd = parity.sequences(np.random.default_rng(0), 20, 5)
    ones = x[..., 0] > 0
    assert all(odd[t, b] == ones[: t + 1, b].sum() % 2 for t in range(20) for b in range(5))
    assert set(np.unique(x)) == {-1.0, 1.0}


def test_the_gradient_is_the_derivative_of_the_loss():
    rng = np.random.default_rng(0)
    model = parity.init(rng, 3)
    x, odd = parity.sequences(rng, 12, 4)
    along = rng.standard_normal(parity.flat(model).shape)

    def loss(eps):
        return parity.loss_and_gradient(
            parity.shaped(parity.flat(model) + eps * along, model), x, odd
        )

    slope = (loss(1e-5)[0] - loss(-1e-5)[0]) / 2e-5
    np.testing.assert_allclose(parity.flat(loss(0)[1]) @ along, slope, rtol=1e-6)


def test_a_model_as_a_vector_keeps_its_parameters():
    model = parity.init(np.random.default_rng(0), 3)
    again = parity.shaped(parity.flat(model), model)
    for one, other in zip((*model.theta, *model[1:]), (*again.theta, *again[1:]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", [0, 1])
def test_parity_is_learned_and_holds_at_16_times_the_length(seed):
    rng = np.random.default_rng(seed)
    untrained = parity.init(rng, 8)
    model, losses = parity.fit(untrained, rng)
    test = parity.sequences(rng, 64, 64)
    assert parity.accuracy(untrained, *test) < 0.7
    assert parity.accuracy(model, *test) == 1.0
    assert parity.accuracy(model, *parity.sequences(rng, 1024, 64)) > 0.99
    assert losses[4][0] > 0.5 and losses[64][-1] < 1e-6


def test_the_script_prints_its_accuracy(capsys):
    parity.main(["--seed", "0"])
    assert "accuracy at length   64: 1.0000" in capsys.readouterr().out


def test_the_notebook_is_stored_with_outputs_and_without_errors():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = [out for cell in cells for out in cell.get("outputs", [])]
    assert not [out for out in outputs if out["output_type"] == "error"]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 2
    assert NOTEBOOK.stat().st_size < 200_000


@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_the_notebook_runs():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(book, timeout=120, resources=where).execute()
