"""Filters of images: types, sizes and borders at which a sum could go wrong, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxconv import batched, ndimage

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("cval", [-1.0, 300.0, 5, 2.5])
@pytest.mark.parametrize("name", ["correlate", "convolve"])
def test_a_floating_cval_beside_integers(name, cval, dtype):
    """What does not fit wraps around, as C's conversion does."""
    image = RNG.integers(0, 100, (4, 5)).astype(dtype)
    weights = np.array([[1, -2, 3], [0, 4, -1]])
    found = getattr(ndimage, name)(image, weights, mode="constant", cval=cval)
    np.testing.assert_array_equal(found, getattr(scipy.ndimage, name)(image, weights, mode="constant", cval=cval))
    assert found.dtype == dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_mean_does_not_overflow_and_a_constant_stays(dtype):
    image = jnp.full((200,), 1000, dtype)
    np.testing.assert_array_equal(ndimage.uniform_filter(image, 101), image)


def test_complex_images_stay_complex():
    image = RNG.normal(size=(4, 4)) + 1j * RNG.normal(size=(4, 4))
    for f in (lambda m, **k: m.uniform_filter(image, 3, **k), lambda m, **k: m.sobel(image, **k)):
        with pytest.warns(UserWarning, match="promoting specified output dtype to complex"):
            found = f(ndimage, output=np.float32)
        np.testing.assert_allclose(found, f(scipy.ndimage), rtol=1e-5)


def test_integers_with_complex_weights_are_as_wide_as_numpys():
    with jax.enable_x64(True):
        for dtype in ("int8", "int16", "int32", "int64"):
            image = np.arange(5).astype(dtype)
            found = ndimage.correlate1d(image, [1j, 2.0])
            expected = scipy.ndimage.correlate1d(image, [1j, 2.0])
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_booleans_as_scipys():
    image = RNG.random((6, 7)) < 0.3
    for f in (
        lambda m: m.laplace(image),
        lambda m: m.gaussian_filter(image, 1.0),
        lambda m: m.correlate(image, np.ones((2, 2), int)),
        lambda m: m.uniform_filter(image, 2),
    ):
        found, expected = f(ndimage), f(scipy.ndimage)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected.view(np.uint8) != 0)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_traced_sigma_is_the_static_one(order):
    image = RNG.normal(size=(9, 8)).astype(np.float32)
    for sigma in (0.0, 0.7, 1.5):
        traced = jax.jit(lambda s: ndimage.gaussian_filter(image, s, order, radius=3))(sigma)
        static = scipy.ndimage.gaussian_filter1d(image, max(sigma, 1e-9), 0, order, radius=3) if sigma else None
        if sigma:
            static = scipy.ndimage.gaussian_filter(image, sigma, order, radius=3)
            np.testing.assert_allclose(traced, static, rtol=0, atol=2e-6 * np.abs(image).max() * 9)
        else:
            np.testing.assert_array_equal(traced, image)


@pytest.mark.usefixtures("nan")
def test_a_nan_stays_where_it_is():
    """By default every sum is a direct one, however large the kernel."""
    image = np.zeros((64, 64), np.float32)
    image[32, 32] = np.nan
    for weights in (RNG.normal(size=(3, 3)), RNG.normal(size=(25, 25))):
        reach = weights.shape[0] // 2
        found = np.isnan(ndimage.correlate(image, weights))
        assert found.sum() == weights.size
        assert found[32 - reach : 33 + reach, 32 - reach : 33 + reach].all()


def test_a_filter_compiles_once(monkeypatch):
    """What is decided in the trace is decided once."""
    traced, extend = [], batched.extend
    monkeypatch.setattr(batched, "extend", lambda *args: traced.append(args) or extend(*args))
    image = jnp.ones((8, 9))
    ndimage.gaussian_filter(image, 1.0)
    assert len(traced) == 2
    ndimage.gaussian_filter(image + 1, 1.0)
    assert len(traced) == 2
