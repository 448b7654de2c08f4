"""The same solve on the host and on the (fake) device, and how much was copied between them."""

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import arrays, tree
from pararnn_solvers.linear import sequential
from tests.cuda_on_cpu.fake_array import copies, place

T, B, M, D = 50, 4, 3, 4
LARGEST = 192  # bytes that may cross at once: a probe's 3 steps of 2 sequences


def step(h, x, theta):
    return np.tanh(h @ theta["W"] + theta["s"] * x[..., :1])


def inputs(dtype=np.float64, batch=(B,), seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, *batch, M)).astype(dtype)
    h0 = rng.standard_normal((*batch, D)).astype(dtype)
    W = (0.4 * rng.standard_normal((D, D))).astype(dtype)
    return x, h0, {"W": W, "s": dtype(0.7)}


def scan(blocks, rhs, *, adjoint=False):
    """The definition of a backend, behind the double's back where arrays are on its device."""
    if isinstance(rhs, np.ndarray):
        return sequential.scan(blocks, rhs, adjoint=adjoint)
    if not hasattr(rhs, "_array"):  # a real device
        found = sequential.scan(blocks.get(), rhs.get(), adjoint=adjoint)
        return arrays.beside(found, rhs)
    return place(sequential.scan(blocks._array, rhs._array, adjoint=adjoint))


def on_device(cupy, nested):
    """Copy the arrays in nested containers to the current device; numbers stay numbers."""
    leaves, rebuild = tree.flatten(nested)
    moved = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in leaves]
    copies.clear()
    return rebuild(moved)


def to_host(nested):
    leaves, rebuild = tree.flatten(nested)
    return rebuild([a.get() if hasattr(a, "get") else a for a in leaves])


def assert_only_small_copies(most=10_000):
    """Nothing of the length of time crossed, and what did was not much in all."""
    both = copies.to_host + copies.to_device
    assert max(both, default=0) <= LARGEST
    assert len(both) <= most


def solve_both(cupy, *problem, recurrence=step, **options):
    """Return the solution on the host and the one on the device."""
    host = prs.solve(recurrence, *problem, backend=scan, compiled=False, **options)
    x, h0, *theta = on_device(cupy, problem)
    device = prs.solve(recurrence, x, h0, *theta, backend=scan, **options)
    return host, device


def assert_same(device, host, rtol=1e-12):
    """The device's arrays hold what the host's do, to rounding beside the greatest entry."""
    theirs, ours = tree.flatten(device)[0], tree.flatten(host)[0]
    assert len(theirs) == len(ours)
    for a, b in zip(theirs, ours, strict=True):
        assert type(a).__module__ == "cupy"
        assert a.dtype == np.asarray(b).dtype
        largest = np.max(np.abs(b), initial=0)
        np.testing.assert_allclose(a.get(), b, rtol=rtol, atol=rtol * largest)
