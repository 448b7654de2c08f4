"""Properties that are computed once."""

import threading

from pararnn_solvers.lazy import cached_property


class Counted:
    def __init__(self, wait=lambda: None):
        self.calls, self.wait = 0, wait

    @cached_property
    def value(self):
        """What it says."""
        self.wait()
        self.calls += 1
        return self.calls


def test_a_value_is_computed_when_it_is_first_asked_for():
    one, other = Counted(), Counted()
    assert one.calls == 0
    assert (one.value, one.value, one.calls) == (1, 1, 1)
    assert other.calls == 0
    assert Counted.value.__doc__ == "What it says."


def test_threads_do_not_wait_for_values_of_other_instances():
    """Each waits in its computation until the other is there, too."""
    both = threading.Barrier(2)
    pair = [Counted(lambda: both.wait(timeout=60)) for _ in range(2)]
    threads = [threading.Thread(target=getattr, args=(each, "value")) for each in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.calls for each in pair] == [1, 1]
