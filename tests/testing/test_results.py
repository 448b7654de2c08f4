"""Results of checks: outcomes, what is raised, warned of or returned."""

import pickle

import numpy as np
import pytest

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.testing import CheckFailed, CheckFailures, CheckWarning, Inapplicable
from pararnn_solvers.testing.results import (
    chosen,
    explained,
    headline,
    require_dtypes,
    run,
)


def passes():
    return "measured 3"


def fails():
    raise CheckFailed("a", "b", "c")


def skips():
    raise Inapplicable("nothing there")


def breaks():
    raise ZeroDivisionError("by zero")


ALL = [("passes", passes), ("fails", fails), ("skips", skips), ("breaks", breaks)]


def test_outcomes_and_messages():
    results = run(ALL, on_failure="return")
    assert [result.outcome for result in results] == ["passed", "failed", "skipped", "failed"]
    assert results[0].message == "measured 3"
    assert results[1].message == "promised: a\nseen:     b\nremedy:   c"
    assert results[2].message == "nothing there"
    assert "ZeroDivisionError: by zero" in results[3].message
    assert all(result.seconds >= 0 for result in results)


def test_all_run_before_any_is_raised():
    seen = []
    with pytest.raises(CheckFailures, match="2 of 4 checks failed") as caught:
        run(ALL, callback=lambda result: seen.append(result.name))
    assert seen == [name for name, _ in ALL]
    assert "remedy:   c" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.results == caught.value.results
    assert isinstance(caught.value, AssertionError)


def test_each_failure_is_warned_of():
    with pytest.warns(CheckWarning) as caught:
        run(ALL, on_failure="warn")
    assert [str(warning.message).splitlines()[0] for warning in caught] == ["fails", "breaks"]


def test_expected_failures_are_told_apart_and_must_fail():
    results = run(ALL[:3], {"fails": "known"}, on_failure="return")
    assert results[1].outcome == "expected"
    assert results[1].message.startswith("known\npromised: a")
    (result,) = run(ALL[:1], {"passes": "known"}, on_failure="return")
    assert result.outcome == "failed"
    assert "take it out of expected_failures" in result.message
    (skipped,) = run(ALL[2:3], {"skips": "known"}, on_failure="return")
    assert skipped.outcome == "skipped"


def test_unknown_names_are_refused():
    with pytest.raises(InvalidInput, match="other"):
        run(ALL, {"other": "?"})
    with pytest.raises(InvalidInput, match="on_failure"):
        run(ALL, on_failure="no")
    with pytest.raises(InvalidInput, match="several names"):
        chosen({"a": passes}, "a")
    with pytest.raises(InvalidInput, match="'b'"):
        chosen({"a": passes}, ["b"])
    assert chosen({"a": passes, "b": passes}, ["b", "a"]) == ["a", "b"]


def test_a_failure_can_be_pickled():
    failure = pickle.loads(pickle.dumps(CheckFailed("a", "b", "c", "d")))
    found = failure.promised, failure.seen, failure.remedy, failure.defect
    assert found == ("a", "b", "c", "d")


def test_the_first_line_says_what_is_wrong():
    def named():
        raise CheckFailed("a", "b", "c", "the bug")

    for function, first in ((fails, "fails: b"), (named, "fails: the bug")):
        with pytest.raises(CheckFailures) as caught:
            run([("fails", function)])
        assert str(caught.value).splitlines()[0] == f"1 of 1 checks failed: {first}"
    assert headline("no such parts") == "no such parts"


def test_the_same_words_are_shown_once_and_what_follows_in_a_line():
    def failing(i):
        def check():
            raise CheckFailed("a", f"seen {i}", "c")

        return check

    with pytest.raises(CheckFailures) as caught:
        run([*((f"same {i}", fails) for i in range(5)), *((f"{i}", failing(i)) for i in range(4))])
    message = str(caught.value)
    assert "same 0, same 1, same 2 and 2 more\npromised: a" in message
    assert message.count("promised:") == 3
    assert message.endswith("mend the first ones first:\n2: seen 2\n3: seen 3")


def test_a_form_explains_the_error_of_a_check():
    assert explained(passes, fails) == "measured 3"
    with pytest.raises(CheckFailed, match="promised: a"):
        explained(breaks, fails)
    with pytest.raises(ZeroDivisionError):
        explained(breaks, passes)


@pytest.mark.parametrize("dtypes", [np.float32, "float32", [], [np.int32], 3])
def test_dtypes_are_several(dtypes):
    with pytest.raises(InvalidInput, match="dtypes is"):
        require_dtypes(dtypes)
