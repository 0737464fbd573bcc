"""convolve and correlate against SciPy and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.padding import mode_axes
from jaxconv.problem import Problem, Triple
from tests.problems import error_bound

PAIRS = [(jaxconv.convolve, scipy.signal.convolve), (jaxconv.correlate, scipy.signal.correlate)]
ids = ["convolve", "correlate"]


@st.composite
def shapes(draw):
    ndim = draw(st.integers(0, 3))
    return tuple(tuple(draw(st.lists(st.integers(1, 5), min_size=ndim, max_size=ndim))) for _ in range(2))


@given(
    shapes(),
    st.sampled_from(["full", "same", "valid"]),
    st.sampled_from([np.int32, np.int8, np.uint8, np.float32, np.complex64]),
    st.sampled_from(["auto", "direct", "shifts"]),
    st.booleans(),
)
def test_scipy_to_the_last_bit(shape, mode, dtype, method, flip):
    """Integers, and small integers in floating types: nothing rounds, so everything must be equal."""
    rng = np.random.default_rng(0)
    ours, theirs = PAIRS[not flip]
    x, h = (rng.integers(0, 5, s).astype(dtype) for s in shape)
    if dtype == np.complex64:
        x, h = (
            x + 1j * rng.integers(-4, 5, shape[0]).astype(dtype),
            h - 1j * rng.integers(-4, 5, shape[1]).astype(dtype),
        )
    try:
        expected = theirs(x, h, mode, method="direct")
    except ValueError:
        with pytest.raises(ValueError, match="at least as large"):
            ours(x, h, mode, method)
        return
    y = ours(x, h, mode, method, accuracy="elementwise")
    assert y.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.covering
@pytest.mark.parametrize("flip", [True, False], ids=ids)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_every_method_in_double_precision(flip, mode, rng):
    """SciPy's direct sum within the engine's bound and its own (as many units as shifts')."""
    ours, theirs = PAIRS[not flip]
    x, h = rng.normal(size=(31, 20)) + 1j * rng.normal(size=(31, 20)), rng.normal(size=(6, 9)) - 2j
    problem = Problem(mode_axes("test", x.shape, h.shape, mode, flip), dtypes=Triple(*["complex128"] * 3))
    expected = theirs(x, h, mode, method="direct")
    weights = (h if flip else h.conj()).reshape(problem.w_shape)
    for method, engine in ENGINES.items():
        if method == "native":  # it has float32 only
            continue
        with jax.enable_x64(True):
            y = np.asarray(ours(x, h, mode, method))
        bound = error_bound(problem, [engine, ENGINES["shifts"]], x.reshape(problem.x_shape), weights)
        assert np.all(np.abs(y - expected) <= 2 * bound[0, 0, 0])


def test_booleans_are_numpys():
    x, h = np.array([True, False, False, True]), np.array([True, True])
    y = jaxconv.convolve(x, h)
    assert y.dtype == jnp.bool_
    np.testing.assert_array_equal(y, np.convolve(x, h))
    counts = jaxconv.convolve(x, h, preferred_element_type=jnp.int32)
    np.testing.assert_array_equal(counts, np.convolve(x.astype(int), h.astype(int)))


def test_numpys_alignment_where_it_agrees(rng):
    x, h = rng.integers(-9, 9, 8), rng.integers(-9, 9, 3)
    for mode in ("full", "same", "valid"):
        np.testing.assert_array_equal(jaxconv.convolve(x, h, mode), np.convolve(x, h, mode))
        np.testing.assert_array_equal(jaxconv.correlate(x, h, mode), np.correlate(x, h, mode))


def test_worked_example():
    y = jaxconv.convolve(jnp.array([1, 0.5, 1, 1]), jnp.array([1, 0.5, 0.25]))
    assert y.tolist() == [1, 1, 1.5, 1.625, 0.75, 0.25]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=ids)
def test_scalars_and_zero_dimensions(ours, theirs):
    assert ours(2, 3).shape == ()
    assert ours(jnp.asarray(2j), 3j) == theirs(np.array(2j), np.array(3j))


@pytest.mark.parametrize("shapes", [((0,), (3,)), ((3,), (0,)), ((0,), (0,)), ((0, 2), (3, 2)), ((3, 3), (2, 0))])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("ours", [f for f, _ in PAIRS], ids=ids)
@pytest.mark.parametrize("xp", [np, jnp])
def test_empty_arrays(ours, shapes, mode, xp):
    """As scipy.signal.fftconvolve in one dimension: an empty axis stays empty."""
    x, h = (xp.ones(s) for s in shapes)
    try:
        y = ours(x, h, mode)
    except ValueError as e:
        assert "at least as large" in str(e)  # noqa: PT017
        return
    if mode == "same":
        assert y.shape == x.shape
        assert not y.any()
    else:
        assert y.size == 0
    if len(shapes[0]) == 1 and mode != "same":
        assert y.shape == scipy.signal.fftconvolve(np.ones(shapes[0]), np.ones(shapes[1]), mode).shape
    jax.grad(lambda x: ours(x, h, mode).sum())(jnp.asarray(x))


def test_boundary_of_an_empty_array():
    assert jaxconv.convolve(jnp.ones(0), jnp.ones(3), "same", boundary="wrap").shape == (0,)


def test_numpy_arrays_and_flax_variables():
    from flax import nnx

    h = nnx.Param(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(jaxconv.convolve(np.array([1.0, 3.0], np.float32), h), [1, 5, 6])


def test_preferred_element_type():
    y = jaxconv.convolve(jnp.full(4, 100, jnp.int8), jnp.full(4, 100, jnp.int8), preferred_element_type=jnp.int32)
    assert y.dtype == jnp.int32
    assert y[3] == 40000


def test_a_mapping_forces_each_pass():
    x, h = jnp.arange(9.0), jnp.arange(3.0)
    method = {"forward": "fft", "input": "shifts", "kernel": "direct"}
    [found] = jaxconv.plan(jaxconv.correlate, x, h, "same", method)
    assert found.engines == method
    text = jax.jit(jax.grad(lambda x, h: jaxconv.correlate(x, h, "same", method).sum(), (0, 1))).lower(x, h).as_text()
    assert "stablehlo.convolution" in text
    assert "fft" not in text  # the layer itself is not needed for its gradient


def test_elementwise_accuracy_never_takes_the_fft():
    x, h = jax.ShapeDtypeStruct((1 << 20,), jnp.float32), jax.ShapeDtypeStruct((1 << 16,), jnp.float32)
    [free] = jaxconv.plan(jaxconv.correlate, x, h)
    assert set(free.engines.values()) <= {"fft", "overlap"}
    [bound] = jaxconv.plan(lambda x, h: jaxconv.correlate(x, h, accuracy="elementwise"), x, h)
    assert not {"fft", "overlap"} & set(bound.engines.values())
