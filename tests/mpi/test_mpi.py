"""What ranks compute together is what one process computes, or an error on all of them."""

import pytest

from tests.mpi.launch import ROOT, launch, needs_mpi

pytestmark = needs_mpi


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_ranks_compute_what_one_process_does(ranks):
    ended = launch(ranks, "results")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.count("passed") == ranks


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_goes_wrong_on_one_rank_is_raised_on_all(ranks):
    ended = launch(ranks, "faults", "main")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.count("passed") == ranks


def test_slabs_on_devices_are_solved_as_on_the_host():
    ended = launch(2, "devices")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.count("passed") == 2


def test_a_rank_that_is_killed_ends_the_job():
    ended = launch(3, "faults", "killed")
    assert ended.returncode != 0
    assert "passed" not in ended.stdout


def test_an_error_that_nobody_catches_ends_the_job():
    ended = launch(2, "faults", "uncaught")
    assert ended.returncode != 0
    assert "passed" not in ended.stdout
    assert "KeyError: 'outside of a solve'" in ended.stderr


def test_processes_that_do_not_know_of_one_another_are_told():
    """As under the launcher of another MPI: it started two, and each sees itself."""
    other = ["env", "-u", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS=2"]
    ended = launch(1, "faults", "alone", through=other)
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "started 2 processes (SLURM_STEP_NUM_TASKS)" in ended.stdout
    assert "srun --mpi=pmix" in ended.stdout


def test_the_page_of_the_docs_runs_as_it_is_printed(tmp_path):
    """And the gradient that it prints is that of one rank."""
    page = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
    program = tmp_path / "shared.py"
    program.write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    printed = []
    for ranks in (1, 2):
        ended = launch(ranks, program)
        assert ended.returncode == 0, ended.stderr[-4000:]
        printed += [float(line.split()[-1]) for line in ended.stdout.splitlines() if "by a" in line]
        assert ended.stdout.count("CONVERGED") == ranks
    assert printed[1] == pytest.approx(printed[0], rel=1e-9)
