"""From words to an Axis: lax's pads, SciPy's modes and origins, boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

import jaxconv
from jaxconv.padding import lax_axes, mode_axes
from jaxconv.problem import Problem
from jaxconv.reference import reference

sizes = st.integers(1, 9)


@given(
    sizes,
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from(["SAME", "SAME_LOWER", "VALID"]) | st.tuples(st.integers(-4, 6), st.integers(-4, 6)),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_lax_axes_have_the_meaning_that_lax_gives(I, K, S, padding, L, D):
    L = 1 if isinstance(padding, str) else L
    pads = padding if isinstance(padding, str) else [padding]
    x, w = np.arange(1.0, I + 1, dtype=np.float32), np.arange(1.0, K + 1, dtype=np.float32) ** 2
    if not isinstance(padding, str) and L * (I - 1) + 1 + sum(padding) < 0:
        with pytest.raises(ValueError, match="negative pads crop"):
            lax_axes("test", [I], [K], [S], pads, [L], [D])
        return
    problem = Problem(lax_axes("test", [I], [K], [S], pads, [L], [D]))
    shape = jax.eval_shape(
        lambda x, w: jax.lax.conv_general_dilated(x, w, (S,), pads, (L,), (D,)), x[None, None], w[None, None]
    ).shape
    assert problem.y_shape[3:] == shape[2:]
    # The meaning, where lax itself can compute it in integers.
    low, high = (
        jax.lax.padtype_to_pads([I], [D * (K - 1) + 1], [S], padding)[0] if isinstance(padding, str) else padding
    )
    v = np.zeros(max(0, L * (I - 1) + 1 + low + high))
    for i in range(I):
        if 0 <= L * i + low < len(v):
            v[L * i + low] = x[i]
    expected = [sum(v[S * o + D * k] * w[k] for k in range(K)) for o in range(shape[2])]
    y = reference(problem, x.reshape(problem.x_shape), w.reshape(problem.w_shape))
    np.testing.assert_array_equal(y.ravel(), expected)


@given(sizes, sizes, st.sampled_from(["full", "same", "valid"]), st.booleans())
def test_modes_are_scipys(N, M, mode, flip):
    x, h = np.arange(N) ** 2 + 1, 3 ** np.arange(M)
    problem = Problem(mode_axes("test", [N], [M], mode, flip))
    y = reference(problem, x.reshape(problem.x_shape), h.reshape(problem.w_shape)).ravel()
    oracle = scipy.signal.convolve if flip else scipy.signal.correlate
    np.testing.assert_array_equal(y, oracle(x, h, mode, method="direct"))


@pytest.mark.parametrize("shapes", [((5, 6), (3, 2)), ((3, 2), (4, 5)), ((4, 3, 2), (2, 3, 2)), ((4, 4), (5, 2))])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_modes_in_several_dimensions(shapes, mode, rng):
    x, h = (rng.integers(-9, 9, shape) for shape in shapes)
    for ours, theirs in ((jaxconv.convolve, scipy.signal.convolve), (jaxconv.correlate, scipy.signal.correlate)):
        if mode == "valid" and shapes == ((4, 4), (5, 2)):
            with pytest.raises(ValueError, match="at least as large"):
                ours(x, h, mode)
            continue
        np.testing.assert_array_equal(ours(x, h, mode), theirs(x, h, mode, method="direct"))


@pytest.mark.covering
@pytest.mark.parametrize("boundary", ["reflect", "mirror", "nearest", "wrap", "constant"])
@pytest.mark.parametrize("M", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("N", [1, 2, 5])
def test_origins_and_boundaries_are_ndimages(N, M, boundary, rng):
    """Every origin inside the kernel; kernels longer than the input."""
    x, h = rng.integers(-9, 9, N), rng.integers(-9, 9, M)
    for origin in range(-(M // 2), (M - 1) // 2 + 1):
        expected = scipy.ndimage.correlate(x, h, mode=boundary, origin=origin)
        found = jaxconv.correlate(x, h, "same", boundary=boundary, origin=origin)
        np.testing.assert_array_equal(found, expected)
    # scipy.ndimage.convolve's centre is M//2 where scipy.signal's is (M-1)//2: one apart for even M.
    even = M % 2 == 0
    for origin in range(-((M - 1) // 2), M // 2 + 1):
        expected = scipy.ndimage.convolve(x, h, mode=boundary, origin=origin - even)
        found = jaxconv.convolve(x, h, "same", boundary=boundary, origin=origin)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("boundary", ["grid-constant", "grid-mirror", "grid-wrap"])
def test_boundary_aliases(boundary, rng):
    x, h = rng.integers(-9, 9, (4, 5)), rng.integers(-9, 9, (3, 3))
    expected = scipy.ndimage.correlate(x, h, mode=boundary)
    np.testing.assert_array_equal(jaxconv.correlate(x, h, "same", boundary=boundary), expected)


@pytest.mark.parametrize("boundary", ["fill", "wrap", "symm"])
def test_full_with_a_boundary_is_convolve2ds(boundary, rng):
    x, h = rng.integers(-9, 9, (4, 5)), rng.integers(-9, 9, (3, 2))
    name = {"fill": "constant", "wrap": "wrap", "symm": "reflect"}[boundary]
    expected = scipy.signal.convolve2d(x, h, "full", boundary)
    np.testing.assert_array_equal(jaxconv.convolve(x, h, "full", boundary=name), expected)


@pytest.mark.parametrize(("N", "M"), [(5, 3), (3, 5)])
def test_valid_ignores_the_boundary(N, M, rng):
    """Also where the kernel is the longer one, and reaches beyond the input."""
    x, h = rng.integers(-9, 9, N), rng.integers(-9, 9, M)
    np.testing.assert_array_equal(
        jaxconv.correlate(x, h, "valid", boundary="wrap"), scipy.signal.correlate(x, h, "valid", method="direct")
    )


@pytest.mark.parametrize("boundary", ["reflect", "mirror", "nearest", "wrap", "constant"])
def test_gradients_through_a_boundary(boundary):
    """The operator's matrix, column by column, and its transpose by autodiff: integers, so exactly."""
    h = jnp.array([1.0, 2.0, 4.0, 8.0])

    def f(x):
        return jaxconv.correlate(x, h, "same", boundary=boundary, accuracy="elementwise")

    matrix = np.stack([f(e) for e in np.eye(3, dtype=np.float32)], 1)
    gradient = jax.vjp(f, jnp.zeros(3))[1](jnp.array([1.0, 10.0, 100.0]))[0]
    np.testing.assert_array_equal(gradient, matrix.T @ np.array([1, 10, 100]))
