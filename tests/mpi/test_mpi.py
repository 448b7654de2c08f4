"""What ranks compute together is what one process computes."""

import pytest

from tests.mpi.launch import launch, needs_mpi

pytestmark = needs_mpi


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_ranks_compute_what_one_process_does(ranks):
    ended = launch(ranks, "results")
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert ended.stdout.count("passed") == ranks
