"""The table of boundaries: under each library's name, an array goes on as that library has it."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

import jaxconv
from jaxconv.boundary import BOUNDARIES, extended, names

X = np.array([3.0, -1.0, 4.0, 1.0, -5.0])
LOW, HIGH = 4, 3  # mirrors without the end's own entry go no farther in PyTorch


def by_numpy(name):
    return np.pad(X, (LOW, HIGH), name)


def by_ndimage(name):
    """Each entry is read by the kernel that has its only 1 there."""
    taps = 2 * LOW + 1
    reads = [scipy.ndimage.correlate1d(X, np.eye(taps)[k], mode=name) for k in range(taps)]
    return np.array([reads[LOW + min(i, 0) + max(i - len(X) + 1, 0)][np.clip(i, 0, len(X) - 1)] for i in positions()])


def by_upfirdn(name):
    """The output o of a filter whose tap LOW alone is 1 is x[o - LOW]."""
    return scipy.signal.upfirdn(np.eye(LOW + HIGH + 1)[LOW], X, mode=name)


def by_signal(name):
    taps = 2 * LOW + 1
    reads = [scipy.signal.correlate2d(X[None], np.eye(taps)[k][None], "same", name)[0] for k in range(taps)]
    return np.array([reads[LOW + min(i, 0) + max(i - len(X) + 1, 0)][np.clip(i, 0, len(X) - 1)] for i in positions()])


def by_torch(name):
    torch = pytest.importorskip("torch")
    mode = "constant" if name == "zeros" else name
    return torch.nn.functional.pad(torch.tensor(X)[None, None], (LOW, HIGH), mode)[0, 0].numpy()


def positions():
    return range(-LOW, len(X) + HIGH)


ORACLES = {"numpy": by_numpy, "ndimage": by_ndimage, "upfirdn": by_upfirdn, "signal": by_signal, "torch": by_torch}


@pytest.mark.parametrize(("library", "name"), [(library, name) for library in ORACLES for name in names(library)])
def test_an_array_goes_on_as_the_library_has_it(library, name):
    found = extended(jnp.asarray(X, jnp.float32), 0, LOW, HIGH, names(library)[name])
    np.testing.assert_allclose(found, ORACLES[library](name), rtol=0, atol=8 * np.finfo(np.float32).eps * 60)


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda b: b.name)
@pytest.mark.parametrize("axis", [0, 1])
def test_along_any_axis_and_of_a_single_entry(boundary, axis):
    rows = np.stack([X, X[::-1], 2 * X])
    found = extended(jnp.asarray(np.moveaxis(rows, 1, axis)), axis, 2, 6, boundary)
    for row, ours in zip(rows, np.moveaxis(np.asarray(found), axis, 1), strict=True):
        np.testing.assert_array_equal(ours, extended(jnp.asarray(row), 0, 2, 6, boundary))
    single = extended(jnp.array([7.0]), 0, 1, 2, boundary)
    signs = {"constant": (0, 0, 0), "antisymmetric": (-1, -1, 1)}.get(boundary.name, (1, 1, 1))
    np.testing.assert_array_equal(single, 7 * np.array([signs[0], 1, *signs[1:]]))


@pytest.mark.parametrize("name", sorted(set(names("upfirdn")) - set(names("ndimage"))))
def test_what_only_upfirdn_has_only_upfirdn_takes(name):
    with pytest.raises(ValueError, match="the boundaries are 'constant'"):
        jaxconv.convolve(X, X, boundary=name)
