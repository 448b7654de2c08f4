"""The tasks against permutations multiplied one by one; a network that learns; and resuming."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import state_tracking as st  # noqa: E402
import training  # noqa: E402


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "size"), [("parity", 2), ("S3", 6), ("A5", 60), ("S5", 120)])
def test_labels_are_products_of_permutations(name, size):
    task = st.TASKS[name]
    assert len(task.elements) == size
    read, products = st.words(task, np.random.default_rng(0), 12, 7)
    for b in range(7):
        things = np.arange(task.elements.shape[1])  # where each of them is
        for t in range(12):
            things = task.elements[read[t, b]][things]
            np.testing.assert_array_equal(task.elements[products[t, b]], things)


@pytest.mark.parametrize("name", st.TASKS)
def test_letters_generate_the_whole_group(name):
    task = st.TASKS[name]
    reached = {0}
    while (more := reached | {task.table[g, f] for g in task.letters for f in reached}) != reached:
        reached = more
    assert len(reached) == len(task.elements)
    assert np.array_equal(task.elements[0], np.arange(task.elements.shape[1]))


def test_recurrent_weights_are_enlarged_and_no_others():
    torch.manual_seed(0)
    tracker = st.Tracker("parity", "ParaLSTM")
    before = {name: p.clone() for name, p in tracker.named_parameters()}
    st.enlarge(tracker, 3.0)
    scaled = {
        name.rsplit(".")[-1]
        for name, p in tracker.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert scaled == {"a_l0", "p_l0"}


def test_a_diagonal_gru_learns_parity_and_a_linear_recurrence_does_not(tmp_path, capsys):
    st.main(["--quick", "--out", str(tmp_path), "--figures", str(tmp_path)])
    results = json.loads((tmp_path / "state_tracking.json").read_text(encoding="utf-8"))
    found = {name: one["accuracy"] for name, one in results["parity"].items()}
    assert found["ParaGRU"]["512"] > 0.99
    assert found["minGRU"]["512"] < 0.6
    assert results["about"]["threads"] == 1
    assert "| ParaGRU | 100.0 |" in capsys.readouterr().out
    assert (tmp_path / "state_tracking-accuracy.png").stat().st_size > 10_000


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    def run(steps, resume):
        training.begin(0)
        tracker, task = st.Tracker("parity", "ParaGRU"), st.TASKS["parity"]
        history = training.train(
            tracker, lambda step: st.loss(tracker, task, 0, step), steps, rate=3e-3, every=10,
            checkpoint=tmp_path / f"{resume}.pt", resume=resume,
        )  # fmt: skip
        return history, tracker.state_dict()

    whole, weights = run(40, False)
    run(20, True)
    assert (tmp_path / "True.pt").exists()
    resumed, again = run(40, True)
    assert resumed.losses == whole.losses and len(whole.losses) == 40
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_run_that_ended_is_not_run_again(tmp_path):
    model = torch.nn.Linear(1, 1)
    asked = []

    def loss(step):
        asked.append(step)
        return model(torch.ones(1)).square().sum()

    for _ in range(2):
        training.train(
            model, loss, 50, every=5, evaluate=lambda step: {"accuracy": float(step >= 10)},
            until=lambda m: m["accuracy"] == 1.0, checkpoint=tmp_path / "c.pt", resume=True,
        )  # fmt: skip
    assert asked == list(range(10))


def test_lengths_double_after_batches_that_go_well():
    tracker = st.Tracker("parity", "minGRU")
    for accuracy in [1.0] * (st.BATCHES - 1) + [0.5]:
        tracker.advance(accuracy)
    assert tracker.length == st.SHORTEST
    tracker.advance(1.0)
    assert tracker.length == 2 * st.SHORTEST
    for _ in range(20 * st.BATCHES):
        tracker.advance(1.0)
    assert tracker.length == st.LONGEST


def test_smoothed_losses_are_means_of_those_before():
    np.testing.assert_allclose(training.smoothed([1.0, 2.0, 6.0, 4.0], 2), [1.0, 1.5, 4.0, 5.0])


def test_the_rate_warms_up_and_falls_to_a_tenth():
    rate = training.warm_cosine(1.0, 200, warm=10)
    assert rate(0) == 0.1 and rate(9) == 1.0 and rate(200) == pytest.approx(0.1)
