"""Kernels that are sums of outer products: the rank is decided by the bound, and the result is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import jaxconv
from jaxconv.separable import terms

RNG = np.random.default_rng(0)
GAUSS = np.exp(-0.5 * (np.arange(-7, 8) / 2.5) ** 2)
KERNELS = {
    "gaussian": np.outer(GAUSS, GAUSS),
    "sobel": np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0]),
    "box": np.ones((9, 6)) / 54,
    "random rank 1": np.outer(RNG.normal(size=11), RNG.normal(size=8)),
    "volume": np.einsum("i,j,k->ijk", RNG.normal(size=4), RNG.normal(size=5), RNG.normal(size=3)),
}


def reached(vectors):
    """The sum of the outer products, in float64."""
    total = 0
    for term in vectors:
        product = np.asarray(term[0], float)
        for v in term[1:]:
            product = np.multiply.outer(product, np.asarray(v, float))
        total = total + product
    return total


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_these_have_one_term(name, dtype):
    w = KERNELS[name].astype(dtype)
    u = np.finfo(dtype).eps / 2
    for accuracy in ("normwise", "elementwise"):
        found = terms(w, accuracy)
        assert len(found) == 1
        # Beside the bound of the cut, each of the d vectors is rounded to w's type: one u each.
        assert np.all(np.abs(reached(found) - w) <= ((4 + w.ndim) * u + 16 * 2.0**-53) * np.abs(w))


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_the_rank_is_found_and_not_hoped_for(rank):
    w = sum(np.outer(RNG.normal(size=12), RNG.normal(size=9)) for _ in range(rank)).astype(np.float32)
    found = terms(w)
    assert len(found) == rank
    assert np.linalg.norm(reached(found) - w) <= (2 + 2) * np.finfo(np.float32).eps / 2 * np.linalg.norm(w) * rank**0.5
    assert terms(w, "elementwise") is None


def test_a_small_second_term_is_kept():
    """Just above the roundoff: to leave it out would be hope."""
    w = np.outer(GAUSS, GAUSS) + 1e-5 * np.outer(RNG.normal(size=15), RNG.normal(size=15))
    assert len(terms(w.astype(np.float32))) == 2
    assert len(terms((np.outer(GAUSS, GAUSS) * (1 + 1e-9 * RNG.normal(size=(15, 15)))).astype(np.float32))) == 1


def test_what_cannot_be_cut():
    assert terms(np.array([[1.0, np.nan], [0.0, 1.0]])) is None
    assert len(terms(np.zeros((3, 3), np.float32))) == 1


@pytest.mark.parametrize("mode", ["same", "full", "valid"])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("f", ["convolve", "correlate"])
def test_parity_with_scipy(f, name, mode):
    w = KERNELS[name].astype(np.float32)
    x = RNG.normal(size=(24, 21, 10)[: w.ndim]).astype(np.float32)
    y = getattr(jaxconv, f)(jnp.asarray(x), w, mode, "separable")
    expected = getattr(scipy.signal, f)(x.astype(float), w.astype(float), mode)
    total = getattr(scipy.signal, f)(np.abs(x.astype(float)), np.abs(w.astype(float)), mode)
    bound = (sum(w.shape) + 4 + 2 * w.ndim) * np.finfo(np.float32).eps / 2 * total
    assert y.shape == expected.shape
    assert np.all(np.abs(y - expected) <= bound)


def test_gradients_flow_through():
    w = KERNELS["gaussian"]
    x, dy = RNG.normal(size=(2, 30, 31)).astype(np.float32)
    dx = jax.vjp(lambda x: jaxconv.convolve(x, w.astype(np.float32), "same", "separable"), x)[1](dy)[0]
    expected = scipy.signal.correlate(dy.astype(float), w, "same")
    np.testing.assert_allclose(dx, expected, atol=1e-5)


def test_complex_kernels_are_conjugated_in_a_correlation():
    u, v = RNG.normal(size=5) + 1j, RNG.normal(size=4) - 2j
    w = np.outer(u, v).astype(np.complex64)
    x = (RNG.normal(size=(12, 12)) + 1j * RNG.normal(size=(12, 12))).astype(np.complex64)
    y = jaxconv.correlate(x, w, "same", "separable")
    np.testing.assert_allclose(y, scipy.signal.correlate(x, w, "same"), atol=1e-4)


def test_auto_takes_it_where_it_pays():
    x = jnp.ones((256, 256))
    known = KERNELS["gaussian"].astype(np.float32)
    assert len(jaxconv.plan(lambda x: jaxconv.convolve(x, known, "same"), x)) == 2  # one pass along each axis
    assert len(jaxconv.plan(lambda x: jaxconv.convolve(x, jnp.asarray(known), "same"), x)) == 1
    full_rank = RNG.normal(size=(15, 15)).astype(np.float32)
    assert len(jaxconv.plan(lambda x: jaxconv.convolve(x, full_rank, "same"), x)) == 1
    integers = np.ones((5, 5), int)
    assert len(jaxconv.plan(lambda x: jaxconv.convolve(x, integers, "same"), jnp.ones((64, 64), int))) == 1


def test_refusals():
    x = jnp.ones((9, 9))
    with pytest.raises(ValueError, match=r"must be known when the .*Pass a NumPy array"):
        jaxconv.convolve(x, jnp.ones((3, 3)), method="separable")
    with pytest.raises(ValueError, match=r"must be a sum of outer products.*Pass method='auto'"):
        jaxconv.convolve(x.astype(int), np.ones((3, 3), int), method="separable")
    with pytest.raises(ValueError, match="must be a sum of outer products"):
        jaxconv.convolve(x, RNG.normal(size=(3, 3)), method="separable", accuracy="elementwise")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_nothing_is_rounded_to_a_half_type_between_the_axes(dtype):
    """One rounding of the result, beside the kernel's own terms in float32."""
    x, w = jnp.asarray(RNG.normal(size=(40, 40)), dtype), np.asarray(jnp.asarray(KERNELS["box"], dtype))
    y = jaxconv.convolve(x, w, "same", "separable")
    expected = scipy.signal.convolve(np.asarray(x, float), w.astype(float), "same")
    total = scipy.signal.convolve(np.abs(np.asarray(x, float)), w.astype(float), "same")
    assert y.dtype == x.dtype
    u = float(jnp.finfo(dtype).eps) / 2
    assert np.all(np.abs(np.asarray(y, float) - expected) <= u * np.abs(expected) + 40 * 2.0**-24 * total)


def test_a_wider_result_can_be_asked_for():
    x, w = jnp.ones((20, 20), jnp.bfloat16), np.asarray(jnp.ones((3, 3), jnp.bfloat16))
    y = jaxconv.convolve(x, w, "valid", "separable", preferred_element_type=jnp.float32)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, np.full((18, 18), 9.0), rtol=1e-6)


def test_a_large_known_kernel_is_not_taken_apart_unasked(monkeypatch):
    def never(*_):
        raise AssertionError("the singular values of a large kernel")

    monkeypatch.setattr(jaxconv.separable, "terms", never)
    x = jax.ShapeDtypeStruct((300, 300), jnp.float32)
    known = np.ones((100, 100), np.float32)
    assert len(jaxconv.plan(lambda x: jaxconv.convolve(x, known, "same"), x)) == 1
