"""A fingerprint changes with the content of a thing, and with nothing else."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru
from pararnn_solvers.out_of_core.fingerprints import fingerprint
from tests.strategies import gru

BASE = """
import numpy as np
SCALE = 2.0
TABLE = {"a": np.arange(3.0)}
def helper(h):
    return SCALE * np.tanh(h)
def make(w):
    def step(h, x, theta, bias=1.0):
        f = lambda v: helper(v) + TABLE["a"][0]
        return f(w * h) + x + bias if x in {"p", "q"} else np.linalg.norm(h)
    return step
step = make(0.5)
"""
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.floats())
NESTED = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner)
)


def step_of(source):
    made = {"__name__": "script"}
    exec(compile(source, "script", "exec"), made)
    return made["step"]


@pytest.mark.parametrize(("old", "new"), [
    ("w * h", "w + h"),
    ("SCALE = 2.0", "SCALE = 2.5"),
    ("np.tanh(h)", "np.sin(h)"),
    ("np.arange(3.0)", "np.arange(4.0)"),
    ("bias=1.0", "bias=1.5"),
    ("make(0.5)", "make(0.6)"),
    ('["a"][0]', '["a"][1]'),
    ('{"p", "q"}', '{"p", "r"}'),
    ("np.linalg.norm", "np.linalg.det"),
])  # fmt: skip
def test_whatever_a_step_computes_from_counts(old, new):
    assert old in BASE
    assert fingerprint(step_of(BASE)) != fingerprint(step_of(BASE.replace(old, new)))


@pytest.mark.parametrize(("old", "new"), [
    ("return step", "# a comment\n    return step"),
    ("f = lambda v: helper(v)", "g = lambda u: helper(u)"),
])  # fmt: skip
def test_how_it_is_written_does_not(old, new):
    changed = BASE.replace(old, new).replace("f(w", "g(w" if "g =" in new else "f(w")
    assert fingerprint(step_of(BASE)) == fingerprint(step_of(changed))


def test_it_is_the_same_in_every_process():
    code = f"{BASE}\nfrom pararnn_solvers.out_of_core.fingerprints import fingerprint"
    found = {
        subprocess.run(
            [sys.executable, "-c", f"{code}\nprint(fingerprint(step))"],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in "12"
    }
    assert found == {fingerprint(step_of(BASE))}


@given(a=NESTED, b=NESTED)
def test_values_have_one_fingerprint_if_and_only_if_they_are_written_alike(a, b):
    assert (fingerprint(a) == fingerprint(b)) == (repr(a) == repr(b))
    assert fingerprint([a, a]) == fingerprint([a, eval(repr(a), {"nan": np.nan, "inf": np.inf})])


def test_arrays_differ_by_dtype_shape_and_bits():
    a = np.arange(6.0)
    others = [a.astype(np.float32), a.reshape(2, 3), a + 0.0 * a - [0, 0, 0, 0, 0, 1e-15], a[:5]]
    assert len({fingerprint(other) for other in [a, *others]}) == 5
    assert fingerprint(a.reshape(2, 3).T.copy()) == fingerprint(a.reshape(2, 3).T)


def test_problems_differ_by_their_parameters():
    steps = [prs.problems.logistic_map(r).recurrence for r in (3.8, 3.9)]
    thetas = [prs.problems.logistic_map(r).theta for r in (3.8, 3.9)]
    assert fingerprint([steps[0], thetas[0]]) != fingerprint([steps[1], thetas[1]])


def test_methods_and_recurrences():
    methods = [
        "newton", prs.newton(), prs.newton(chunk=4), prs.quasi_newton(),
        prs.windowed(prs.newton(), 8), prs.windowed(prs.newton(), 9),
        prs.quasi_newton(prs.scaled(0.5)), prs.quasi_newton(prs.scaled(0.6)),
    ]  # fmt: skip
    assert len({fingerprint(method) for method in methods}) == len(methods)
    assert fingerprint(prs.newton(chunk=4)) == fingerprint(prs.newton(chunk=4))
    before = fingerprint(prs.linear.load("numba"))
    prs.solve(*gru()[:4], backend="numba", method="newton")  # fills caches
    assert fingerprint(prs.linear.load("numba")) == before
    cell, case = diagonal_gru.recurrence, gru()
    assert fingerprint(cell) != fingerprint(replace(cell, block_size=None))
    assert fingerprint(case.theta) != fingerprint(tuple(case.theta))


class Step:
    def __init__(self, scale):
        self.scale = scale
        self.itself = self

    def __call__(self, h, x, theta):
        return self.scale * h + x

    def step(self, h, x, theta):
        return h + x


class Other(Step):
    def __call__(self, h, x, theta):
        return self.scale * h - x


def test_objects_that_can_be_called():
    made = [Step(1.0), Step(2.0), Other(1.0), Step(1.0).step, Step(2.0).step, partial(np.add, 1),
            partial(np.add, 2), partial(np.subtract, 1), np.add, prs.sigmoid]  # fmt: skip
    assert len({fingerprint(value) for value in made}) == len(made)
    assert fingerprint(Step(1.0)) == fingerprint(Step(1.0))


def test_functions_that_call_each_other_come_to_an_end():
    source = "def f(h):\n    return g(h)\ndef g(h):\n    return f(h)\nstep = f"
    assert fingerprint(step_of(source)) == fingerprint(step_of(source))


def test_numbers_in_modules_of_the_user_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_constants.py").write_text("scale = 1.0\nunused = 5\n")
    source = "import my_constants\ndef step(h, x, theta):\n    return my_constants.scale * h"
    before = fingerprint(step_of(source))
    import my_constants

    monkeypatch.setattr(my_constants, "unused", 6)
    assert fingerprint(step_of(source)) == before
    monkeypatch.setattr(my_constants, "scale", 2.0)
    assert fingerprint(step_of(source)) != before


CLASSES = """
import abc, enum
from functools import cached_property
from collections import deque
import numpy as np
from scipy.interpolate import CubicSpline
class Base(abc.ABC):
    def helper(self, h):
        return 2 * h
class Config(Base):
    \"\"\"Says something.\"\"\"
    scale = 1.5
    table = {"a": 1}
    @staticmethod
    def rest(h):
        return h + 3
    @classmethod
    def more(cls, h):
        return h + 4
    @property
    def bias(self):
        return 5
    @cached_property
    def late(self):
        return 6
class Kind(enum.Enum):
    A = 7
class Slotted:
    __slots__ = ("a", "missing")
    def __init__(self):
        self.a = 8
config, slotted, last = Config(), Slotted(), deque([9])
spline = CubicSpline([0, 1, 2], [0, 1, 10])
vectorized = np.vectorize(lambda h: h + 11)
def step(h, x, theta):
    return Config, config, Kind, slotted, last, spline, vectorized
"""


@pytest.mark.parametrize(("old", "new"), [
    ("2 * h", "3 * h"), ("1.5", "1.6"), ('"a": 1', '"b": 1'), ("h + 3", "h - 3"),
    ("h + 4", "h - 4"), ("return 5", "return 6"), ("return 6", "return 7"), ("A = 7", "A = 8"),
    ("self.a = 8", "self.a = 9"), ("deque([9])", "deque([8])"), ("1, 10]", "1, 11]"),
    ("h + 11", "h - 11"),
])  # fmt: skip
def test_classes_and_objects_count_by_all_that_they_hold(old, new):
    assert old in CLASSES
    before = fingerprint(step_of(CLASSES))
    assert fingerprint(step_of(CLASSES.replace(old, new))) != before
    assert fingerprint(step_of(CLASSES.replace("Says something", "Says more"))) == before


def test_what_cannot_be_copied_counts_by_its_kind():
    import threading

    def step_with(thing):
        return lambda h, x, theta: thing

    assert fingerprint(step_with(threading.Lock())) == fingerprint(step_with(threading.Lock()))
    assert fingerprint(step_with(threading.Lock())) != fingerprint(step_with(open))


def test_what_is_met_often_is_looked_at_once():
    many = [np.zeros(1)]
    for _ in range(60):  # 2**60 ways to the first one
        many = [many, many]
    assert fingerprint(many) != fingerprint(many[0])
    equal = [np.zeros(1), np.zeros(1)]
    assert fingerprint(equal) == fingerprint([equal[0], equal[0]])


def test_installed_packages_count_by_name_and_version(monkeypatch):
    import hypothesis

    def step(h, x, theta):
        return given(h)

    before = fingerprint(step)
    monkeypatch.setattr(hypothesis, "__version__", "0.0.1")
    assert fingerprint(step) != before
