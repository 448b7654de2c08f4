"""What every cell promises: the same interface, and derivatives that are those of its functions."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import cells
from tests.cells.common import (
    CHANNELWISE,
    CLIPPED,
    DENSE,
    LINEAR,
    OPTIONS,
    M,
    N,
    directional,
    draw,
    inner,
    like,
    matrix,
)

EVERY = pytest.mark.parametrize("name", cells.CELLS)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["newton", "auto"])
def test_the_fixed_point_is_the_rollout(name, dtype, method):
    made = draw(name, T=150, dtype=dtype)
    data = made.recurrence, made.u, made.h0, made.theta
    solution = prs.solve(*data, method=method)
    assert solution.h.dtype == dtype
    error = np.abs(solution.h - prs.rollout(*data))
    scale = 64 * np.finfo(dtype).eps * max(1, np.abs(solution.h).max())
    assert (error <= 2 * solution.error_bound() + scale).all()


@EVERY
def test_the_step_can_be_traced(name):
    made = draw(name)
    assert made.recurrence.explain(made.h0[0], made.u[0, 0], made.theta).traced


# Those of the diagonal GRU and LSTM are what the tests of the kernels are made of.
@pytest.mark.parametrize("name", ["block_gru", "slstm", *LINEAR])
def test_kernels_compute_the_step(name):
    made = draw(name, T=40)
    data = made.recurrence, made.u, made.h0, made.theta
    compiled = prs.rollout(*data, compiled=True)
    np.testing.assert_allclose(compiled, prs.rollout(*data, compiled=False), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["block_gru", "slstm"])
def test_kernels_compute_the_gradients(name):
    made = draw(name, T=40)
    data = made.recurrence, made.u, made.h0, made.theta
    dh = np.random.default_rng(1).standard_normal((40, *made.h0.shape))
    ours, theirs = (
        prs.gradients(prs.solve(*data, method="sequential", compiled=compiled), dh)
        for compiled in (True, False)
    )
    for kernels, vjp in zip(ours.theta, theirs.theta, strict=True):
        np.testing.assert_allclose(0 * vjp if kernels is None else kernels, vjp, atol=1e-11)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.h0, theirs.h0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_linear_cell_takes_one_iteration(name, dtype):
    made = draw(name, T=300, dtype=dtype)
    solution = prs.solve(made.recurrence, made.u, made.h0, made.theta, method="newton")
    assert solution.n_iter == 1


@pytest.mark.parametrize("name", [name for name in cells.CELLS if name not in LINEAR])
def test_a_nonlinear_cell_takes_more_than_one(name):
    made = draw(name, T=300)
    assert prs.solve(made.recurrence, made.u, made.h0, made.theta, method="newton").n_iter > 1


@EVERY
@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
def test_leading_axes_do_not_mix(name, lead):
    made = draw(name, T=1, batch=lead)
    together = made.cell.step(made.h0, made.u[0], made.theta)
    assert together.shape == made.h0.shape
    for i in np.ndindex(lead):
        alone = made.cell.step(made.h0[i], made.u[0][i], made.theta)
        np.testing.assert_allclose(together[i], alone, rtol=1e-14, atol=1e-15)


@EVERY
def test_vjp_is_the_transposed_derivative_of_step(name):
    """``<lam, f' v> = <f'^T lam, v>`` along random directions of the state, drives, parameters."""
    made, rng = draw(name, T=3), np.random.default_rng(1)
    h = like(rng, np.broadcast_to(made.h0, (3, *made.h0.shape)))
    lam = like(rng, h)
    products = made.recurrence.vjp(h, made.u, made.theta, lam)
    points = h, made.u, made.theta
    for i, (product, at) in enumerate(zip(products, points, strict=True)):
        along = like(rng, at)

        def function(value, i=i):
            arguments = list(points)
            arguments[i] = value
            return made.cell.step(*arguments)

        expected = np.vdot(lam, directional(function, at, along))
        assert inner(product, along) == pytest.approx(expected, rel=1e-11, abs=1e-12)


@EVERY
def test_the_blocks_are_the_derivative_of_step(name):
    made = draw(name, T=1)
    _, blocks = made.recurrence.linearize(made.h0, made.u[0], made.theta)
    expected = matrix(lambda h: made.cell.step(h, made.u[0], made.theta), made.h0)
    k, n = blocks.shape[-2:]
    embedded = np.einsum("bijn,nm->binjm", blocks, np.eye(n)).reshape(expected.shape)
    np.testing.assert_allclose(embedded, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", DENSE)
def test_analytic_jacobians_are_the_derivative_of_step(name):
    made = draw(name, T=1)
    arguments = made.h0, made.u[0], made.theta
    expected = matrix(lambda h: made.cell.step(h, made.u[0], made.theta), made.h0)
    np.testing.assert_allclose(made.cell.jacobian(*arguments), expected, rtol=1e-11, atol=1e-14)
    diagonal = np.diagonal(expected, axis1=-2, axis2=-1)
    np.testing.assert_allclose(made.cell.diagonal(*arguments), diagonal, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", DENSE)
def test_analytic_jacobians_serve_the_methods(name):
    made = draw(name, T=50)
    data = made.u, made.h0, made.theta
    by_hand = prs.Recurrence(made.cell.step, jacobian=made.cell.jacobian, vjp=made.cell.vjp)
    exact = prs.solve(by_hand, *data, method="newton")
    assert exact.n_iter == prs.solve(made.recurrence, *data, method="newton").n_iter
    quasi = prs.Newton(linearization=prs.block_diagonal(1, made.cell.diagonal))
    solution = prs.solve(made.recurrence, *data, method=quasi)
    assert solution.n_iter == prs.solve(made.recurrence, *data, method="quasi_newton").n_iter
    np.testing.assert_allclose(solution.h, exact.h, rtol=0, atol=1e-9)


@EVERY
def test_project_vjp_is_the_transposed_derivative_of_project(name):
    made, rng = draw(name, T=3), np.random.default_rng(1)
    du = like(rng, made.u)
    dx, dtheta = made.cell.project_vjp(made.x, made.theta, du)
    assert dx.shape == made.x.shape
    assert [a.shape for a in dtheta] == [a.shape for a in made.theta]
    along = like(rng, made.x)
    expected = np.vdot(du, directional(lambda x: made.cell.project(x, made.theta), made.x, along))
    assert np.vdot(dx, along) == pytest.approx(expected, rel=1e-11)
    along = like(rng, made.theta)
    expected = directional(lambda theta: made.cell.project(made.x, theta), made.theta, along)
    assert inner(dtheta, along) == pytest.approx(np.vdot(du, expected), rel=1e-11)


@EVERY
def test_output_vjp_is_the_transposed_derivative_of_output(name):
    made, rng = draw(name, T=3), np.random.default_rng(1)
    h = like(rng, np.broadcast_to(made.h0, (3, *made.h0.shape)))
    y = made.cell.output(h, made.x, made.theta)
    assert y.shape == (3, 2, N)
    dy = like(rng, y)
    points = h, made.x, made.theta
    for i, product in enumerate(made.cell.output_vjp(dy, *points)):
        along = like(rng, points[i])

        def function(value, i=i):
            arguments = list(points)
            arguments[i] = value
            return made.cell.output(*arguments)

        expected = np.vdot(dy, directional(function, points[i], along))
        assert (0 if product is None else inner(product, along)) == pytest.approx(expected)


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_drives_and_states_have_one_dtype(name, dtype):
    cell = cells.load(name)
    theta = cell.init(np.random.default_rng(0), M, N, dtype=dtype, **OPTIONS.get(name, {}))
    assert {leaf.dtype for leaf in theta} == {np.dtype(dtype)}
    x = np.ones((5, 3, M), dtype)
    state, u = cell.initial_state(theta, (3,)), cell.project(x, theta)
    assert state.dtype == u.dtype == cell.step(state, u[0], theta).dtype == dtype
    assert cell.initial_state(theta).shape == state.shape[1:]


@EVERY
def test_equal_generators_give_equal_parameters(name):
    cell = cells.load(name)
    options = OPTIONS.get(name, {})
    first, second, third = (cell.init(np.random.default_rng(s), M, N, **options) for s in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, third, strict=True))


@EVERY
def test_inputs_of_another_size_are_refused(name):
    made = draw(name)
    with pytest.raises(prs.InvalidInput, match=r"shape \(9, 2, 5\); expected \(\.\.\., 6\)"):
        made.cell.project(made.x[..., :5], made.theta)


@pytest.mark.parametrize("name", [name for name in OPTIONS if "heads" in OPTIONS[name]])
def test_heads_that_do_not_divide_are_refused(name):
    cell, rng = cells.load(name), np.random.default_rng(0)
    with pytest.raises(prs.InvalidInput, match="channels is 8, not a multiple of heads = 3"):
        cell.init(rng, 6, 8, heads=3)
    if name != "block_gru":  # whose heads see all inputs
        with pytest.raises(prs.InvalidInput, match="inputs is 7, not a multiple of heads = 4"):
            cell.init(rng, 7, 8, heads=4)
    with pytest.raises(prs.InvalidInput, match="heads is 0"):
        cell.init(rng, 6, 8, heads=0)


@EVERY
def test_sizes_that_are_no_numbers_of_channels_are_refused(name):
    cell, rng = cells.load(name), np.random.default_rng(0)
    with pytest.raises(prs.InvalidInput, match="channels is 0"):
        cell.init(rng, 6, 0)
    with pytest.raises(prs.InvalidInput, match=r"inputs is 2\.5"):
        cell.init(rng, 2.5, 4)


@pytest.mark.parametrize("name", CLIPPED)
def test_clipping_bounds_the_recurrent_weights_and_nothing_else(name):
    made = draw(name)
    wide = made.theta._replace(a=np.linspace(-3, 3, made.theta.a.size).reshape(made.theta.a.shape))
    narrow = made.cell.clip_recurrent(wide, 0.9)
    assert np.abs(narrow.a).max() == 0.9
    within = np.abs(wide.a) <= 0.9
    np.testing.assert_array_equal(narrow.a[within], wide.a[within])
    np.testing.assert_array_equal(np.sign(narrow.a), np.sign(wide.a))
    np.testing.assert_array_equal(narrow.B, wide.B)
    np.testing.assert_array_equal(narrow.b, wide.b)
    with pytest.raises(prs.InvalidInput, match=r"bound is -0\.9; expected a number > 0"):
        made.cell.clip_recurrent(wide, -0.9)


def test_every_module_of_a_cell_is_listed():
    assert set(DENSE) | set(CHANNELWISE) == set(cells.CELLS)
    for name in cells.CELLS:
        assert f"``{name}``" in cells.__doc__


def test_an_unknown_cell_is_refused():
    with pytest.raises(prs.InvalidInput, match="cell is 'rnn'; expected one of elman, gru, lstm"):
        cells.load("rnn")
    assert cells.load(cells.load("gru")) is cells.load("gru")
