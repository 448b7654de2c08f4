"""A model around the layer compiles as one graph, with the same values and gradients."""

import copy

import pytest

pytest.importorskip("torch")

import torch

from tests.torch.cases import OPTIONS, inputs, layer


class Model(torch.nn.Module):
    def __init__(self, cell, *args, **options):
        super().__init__()
        self.layer = layer(cell, *args, **options)
        self.head = torch.nn.LazyLinear(1, dtype=torch.float64)
        self(inputs(2, 1))

    def forward(self, x, lengths=None):
        return self.head(torch.tanh(self.layer(x, lengths=lengths)[0]))


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(model, x, *args):
    y = model(x, *args)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [y, *torch.autograd.grad(y.square().sum(), [x, *parameters], allow_unused=True)]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", OPTIONS)
def test_one_graph(cell):
    model, x = Model(cell, 1, True), inputs(5, 2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    lengths = torch.tensor([3, 5])
    assert_same(gradients(compiled, x, lengths), gradients(model, x, lengths))


def test_one_graph_as_traced():
    model, x = Model("diagonal_gru", 2), inputs(5, 2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_same(gradients(compiled, x), gradients(model, x))
    assert model.layer.statistics.solves >= 4  # those of compiled code count too


def test_lengths_of_time_that_change():
    model = Model("diagonal_gru")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for T in (4, 9, 6):
        x = inputs(T, 2)
        assert_same(gradients(compiled, x), gradients(model, x))


def test_a_copy_of_a_compiled_model_is_its_own():
    model, x = Model("diagonal_gru"), inputs(5, 2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(x)
    other = copy.deepcopy(compiled)
    with torch.no_grad():
        model.layer.a_l0 += 1
    before = model.layer.statistics.solves
    other(x)
    assert model.layer.statistics.solves == before
    assert not torch.equal(other(x), compiled(x))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch's own
def test_the_inductor():
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("no C++ compiler")
    model, x = Model("diagonal_gru"), inputs(5, 2)
    assert_same(gradients(torch.compile(model, fullgraph=True), x), gradients(model, x))
