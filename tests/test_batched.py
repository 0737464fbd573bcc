"""Batches and axes of plain arrays: every way to lay them out gives the sums of the single arrays."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

import jaxconv
from jaxconv.padding import lag_axes


def draw_integers(seed, shape):
    return np.random.default_rng(seed).integers(-9, 9, shape)


@given(st.data())
def test_axes_and_broadcasting_are_loops(data):
    """Each axis is convolved, in both arrays, or in one only; NumPy's broadcasting over the last two kinds."""
    draw = data.draw
    kinds = draw(st.lists(st.sampled_from(["convolved", "both", "first", "second"]), min_size=1, max_size=4))
    mode = draw(st.sampled_from(["full", "same", "valid"]))
    sizes = {"convolved": (4, 3), "both": (2, 2), "first": (3, 1), "second": (1, 2)}
    x, h = (draw_integers(n, [sizes[kind][n] for kind in kinds]) for n in range(2))
    axes = [d for d, kind in enumerate(kinds) if kind == "convolved"]
    given = tuple(d - len(kinds) if draw(st.booleans()) else d for d in axes)
    for ours, theirs in [(jaxconv.convolve, scipy.signal.convolve), (jaxconv.correlate, scipy.signal.correlate)]:
        found = ours(x, h, mode, axes=given)
        batch = [max(sizes[kind]) if kind != "convolved" else None for kind in kinds]
        for place in product(*(range(size) if size else [slice(None)] for size in batch)):
            one, two = (
                a[tuple(p if isinstance(p, slice) else p % size for p, size in zip(place, a.shape, strict=True))]
                for a in (x, h)
            )
            expected = theirs(one, two, mode, method="direct") if axes else one * two
            np.testing.assert_array_equal(found[place], expected)


def test_leading_axes_may_be_missing():
    images, kernel = draw_integers(0, (2, 3, 5, 6)), draw_integers(1, (2, 2))
    found = jaxconv.convolve(images, kernel, "same", axes=(-2, -1))
    for place in product(range(2), range(3)):
        np.testing.assert_array_equal(found[place], scipy.signal.convolve(images[place], kernel, "same"))
    kernels = jaxconv.convolve(images[0, 0], draw_integers(2, (4, 2, 2)), axes=(-2, -1))
    assert kernels.shape == (4, 6, 7)


@pytest.mark.parametrize("lags", [2, (0, 3), (-9, -1), (-7, 9), ((-1, 2), (0, 0)), ((0, 1), (-3, 8))])
def test_lags_are_a_window_of_the_whole_correlation(lags):
    """Also lags at which the arrays do not meet: there the sum is 0."""
    shape = (5, 4) if isinstance(lags, tuple) and isinstance(lags[0], tuple) else (6,)
    x, h = draw_integers(0, shape), draw_integers(1, [n - 2 for n in shape])
    found = np.asarray(jaxconv.correlate(x, h, lags=lags))
    axes = lag_axes("test", x.shape, h.shape, lags)
    for place in np.ndindex(found.shape):
        lag = [p - axis.p for p, axis in zip(place, axes, strict=True)]
        terms = [
            x[tuple(k + l for k, l in zip(position, lag, strict=True))] * h[position]
            for position in np.ndindex(h.shape)
            if all(0 <= k + l < n for k, l, n in zip(position, lag, x.shape, strict=True))
        ]
        assert found[place] == sum(terms)


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
@pytest.mark.parametrize("shapes", [((2, 1), (1, 2)), ((1, 1), (3, 1)), ((1,), (4,)), ((4,), (1,)), ((1, 2), (2, 1))])
def test_where_nothing_is_transformed_the_arrays_are_multiplied(name, shapes):
    x, h = (draw_integers(n, shape) for n, shape in enumerate(shapes))
    for mode in ("full", "same", "valid"):
        expected = getattr(scipy.signal, name)(x, h, mode)
        np.testing.assert_array_equal(getattr(jaxconv.signal, name)(x, h, mode), expected)


def test_only_the_lags_that_are_asked_for_are_computed():
    x = jax.ShapeDtypeStruct((100_000,), jnp.float32)
    [plan] = jaxconv.plan(lambda x: jaxconv.signal.autocorrelation(x, 10), x)
    assert plan.problem.y_shape[-1] == 21


@pytest.mark.parametrize("scale", ["none", "biased", "unbiased", "normalized"])
def test_the_scales_of_an_autocorrelation_are_matlabs(scale):
    x = draw_integers(0, (3, 7)).astype(float)
    with jax.enable_x64(True):
        y = np.asarray(jaxconv.signal.autocorrelation(x, scale=scale))
    for row, found in zip(x, y, strict=True):
        plain = np.correlate(row, row, "full")
        divisor = {
            "none": 1,
            "biased": 7,
            "unbiased": 7 - np.abs(np.arange(-6, 7)),
            "normalized": (row * row).sum(),
        }[scale]
        # The sums are exact; XLA may divide by a product with the reciprocal, which rounds twice.
        np.testing.assert_allclose(found, plain / divisor, rtol=2 * np.finfo(float).eps, atol=0)
