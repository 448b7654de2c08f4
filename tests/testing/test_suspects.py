"""A slope of any step that was written wrongly is named, whatever the step."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.autodiff.trace.tracing import trace
from pararnn_solvers.testing import check_recurrence
from pararnn_solvers.testing import strategies as ours
from pararnn_solvers.testing.context import make_context
from pararnn_solvers.testing.diagnosis import dense, name_the_bug, traced_terms
from pararnn_solvers.testing.oracles import HALF, beyond
from pararnn_solvers.testing.suspects import explain
from pararnn_solvers.testing.terms import Terms
from tests.testing.mutants.derivatives import gru_network

FACTORS = {0.0: "left out", -1.0: "wrong sign", 2.0: "2 times what it should be"}


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def share_of(terms, node):
    """The part of the Jacobian (S, k, k, n) that goes through a node."""
    outer = [terms.adjoints(output).get(node.id, 0.0) for output in terms.traced.outputs]
    inner = [terms.tangents(state).get(node.id, 0.0) for state in terms.traced.states]
    zeros = np.zeros((len(terms.arguments[0]), terms.traced.channels))
    return np.stack([np.stack([zeros + a * b for b in inner], 1) for a in outer], 1)


@settings(max_examples=40)
@given(
    ours.contractive_problems(max_T=6, dtypes=st.just(np.float64)),
    st.integers(0, 50),
    st.sampled_from(list(FACTORS)),
)
def test_whatever_operation_is_differentiated_wrongly_something_is_named(problem, number, factor):
    """Which may be another name for the same: of ``tanh(a)``, of ``a``."""
    context = make_context(*problem[:4], problem.steps, None)
    terms = traced_terms(context)
    node = terms.operations[number % len(terms.operations)]
    share = dense(share_of(terms, node)).reshape(context.jacobian.shape)
    got = context.jacobian + (factor - 1) * share
    wrong = beyond(got, context.jacobian, HALF, context.oracles.noise.T)
    assume(wrong.any())
    assert name_the_bug(context, got, wrong)


@settings(max_examples=25)
@given(ours.contractive_problems(max_T=4, dtypes=st.just(np.float64)))
def test_the_terms_add_up_to_the_jacobian(problem):
    """What the numbers on the graph say of its outputs is what the oracles say."""
    context = make_context(*problem[:4], problem.steps, None)
    terms = traced_terms(context)
    total = [
        [terms.tangents(state).get(out.id, 0.0) for state in terms.traced.states]
        for out in terms.traced.outputs
    ]
    zeros = np.zeros((len(terms.arguments[0]), terms.traced.channels))
    blocks = np.stack([np.stack([zeros + entry for entry in row], 1) for row in total], 1)
    found = dense(blocks).reshape(context.jacobian.shape)
    assert not beyond(found, context.jacobian, HALF, context.oracles.noise.T).any()


def terms_of(step, h, theta=None, k=1):
    return Terms(trace(step, h, None, theta, k), (h, None, theta))


def named(step, h, change, theta=None):
    """The explanation where `change` makes a wrong derivative of the right one."""
    terms = terms_of(step, h, theta)
    (out,), (state,) = terms.traced.outputs, terms.traced.states
    right = terms.tangents(state)[out.id][:, None, None]
    wrong = change(right, h[:, None, None])
    return explain(terms, [state], wrong, right, np.ones((1, 1), bool))


H = np.random.default_rng(0).uniform(0.5, 1.5, (12, 3))
A = np.array([0.7, -0.4, 0.2])


@pytest.mark.parametrize(
    ("step", "change", "says"),
    [
        (lambda h, x, a: np.tanh(h), lambda J, h: 1 - np.tanh(h), "written as 1 - v; it is 1 - v"),
        (lambda h, x, a: prs.sigmoid(h), lambda J, h: 1 - prs.sigmoid(h) ** 2, "1 - v**2; it is v"),
        (lambda h, x, a: np.exp(h), lambda J, h: np.exp(h) + 1, "written as 1 + v"),
        (lambda h, x, a: np.sqrt(h), lambda J, h: J**2, "written as its square"),
        (lambda h, x, a: np.log(h), lambda J, h: h, "written as h; it is 1/a"),
        (lambda h, x, a: np.sin(a * h), lambda J, h: np.cos(A * h), "the factor theta is left out"),
        (lambda h, x, a: np.sin(a * h), lambda J, h: A * np.cos(h), "written as that at h"),
        (lambda h, x, a: a * h + np.sin(h), lambda J, h: 3.0 + np.cos(h), "written as 3"),
        (lambda h, x, a: np.where(h > 1, h * h, h), lambda J, h: 0 * J + 1, "no chain rule"),
        (
            lambda h, x, a: np.maximum(h, 1.0) * a,
            lambda J, h: A + 0 * h,
            "1 where it is the larger",
        ),
    ],
)
def test_mistakes_have_names(step, change, says):
    text, all_of_it = named(step, H, change, A)
    assert says in text
    assert all_of_it


def test_what_nobody_writes_has_no_name():
    noise = np.random.default_rng(1).standard_normal(H.shape)
    text, _ = named(lambda h, x, a: np.tanh(a * h), H, lambda J, h: J + noise[:, None, None], A)
    assert text == ""


def test_formulas_are_written_as_in_python_and_kept_short():
    def step(h, x, p):
        return -np.tanh(p["a"] * (h - 1) / 2) + sum(i * np.sin(i * h) for i in range(2, 8))

    terms = terms_of(step, H, {"a": A})
    texts = {terms.formula(node) for node in terms.operations}
    assert "theta['a']*(h - 1)" in " ".join(texts) or "(h - 1)*theta['a']" in " ".join(texts)
    assert max(map(len, texts)) <= 80


def test_the_right_jacobian_of_a_gru_with_matrices_passes():
    (result,) = check_recurrence(*gru_network(), checks=["jacobian_is_the_derivative"])
    assert result.outcome == "passed"


def test_gates_of_a_gru_with_matrices_are_told_apart():
    """Each operation of step on an array is one group: two sigmoids, the tanh, their products."""
    recurrence, x, _, W = gru_network()
    h = np.random.default_rng(0).standard_normal((5, 4))
    terms = Terms(trace(recurrence.step, h, x[:5, 0], W, 4), (h, x[:5, 0], W))
    groups = [[node.op for node in group] for group in terms.vectors]
    assert groups.count(["sigmoid"] * 4) == 2
    assert groups.count(["tanh"] * 4) == 1
