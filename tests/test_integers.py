"""Results of integer types are SciPy's, to the last bit, under every transformation and without `jax_enable_x64`."""

import platform
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax import export, lax
from jax.sharding import PartitionSpec

from jaxconv import ndimage
from jaxconv.ndimage.integers import divided

# SciPy is built without contraction of a*b + c there; elsewhere its last bit is its compiler's choice.
SAME_BITS = platform.machine().lower() in ("x86_64", "amd64")
FLAT = np.full((9, 8), 100, np.uint8)


def image_of(rng, dtype, shape=(6, 7)):
    """Entries of 26 bits, or of all that the dtype has."""
    if dtype == "bool":
        return rng.random(shape) < 0.4
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -(2**26)), min(info.max, 2**26), shape, dtype, endpoint=True)


def alike(found, theirs, passes=1):
    """SciPy's integers; on other processors each pass may be one off."""
    found = np.asarray(found)
    assert (found.shape, found.dtype) == (theirs.shape, theirs.dtype)
    if found.dtype == bool:  # SciPy writes bytes other than 0 and 1 there
        theirs = theirs.view(np.uint8) != 0
    if SAME_BITS:
        np.testing.assert_array_equal(found, theirs)
    elif found.dtype != bool:
        assert np.abs(found.astype(float) - theirs).max(initial=0) <= passes


def both(f, passes=1):
    alike(f(ndimage), f(scipy.ndimage), passes)


def weights_of(rng, shape):
    """Whole numbers by 10, 7 or 4, now and then divided by their sum."""
    w = rng.integers(1, 10, shape) / rng.choice([10, 7, 4])
    return w / w.sum() if rng.random() < 0.3 else w * rng.choice([-1, 1], shape)


def sums(dtype, mode, cval, seeds):
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x, w, h, g = image_of(rng, dtype), weights_of(rng, (3, 2)), weights_of(rng, 5), weights_of(rng, 4)
        how = dict(mode=mode, cval=cval)
        for name in ("correlate", "convolve"):
            both(lambda m: getattr(m, name)(x, w, **how))
            both(lambda m: getattr(m, name + "1d")(x, g, 0, **how))
        for sign in (1, -1, 0):  # SciPy adds in three orders
            both(lambda m: m.correlate1d(x, h + sign * h[::-1], **how))


@pytest.mark.parametrize(
    ("dtype", "mode", "cval"),
    [("bool", "reflect", 0), ("int8", "mirror", 0), ("uint16", "nearest", 0), ("int32", "wrap", 0),
     ("uint32", "constant", 2.5)],
)  # fmt: skip
def test_sums_with_fractional_weights(dtype, mode, cval):
    sums(dtype, mode, cval, 20)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("mode", ["reflect", "mirror", "nearest", "wrap", "constant"])
def test_sums_with_fractional_weights_in_every_mode(dtype, mode):
    with jax.enable_x64("64" in dtype):
        for cval in [0, 2.5, 0.1, -300] if mode == "constant" else [0]:
            sums(dtype, mode, cval, 100)


@pytest.mark.parametrize("name", ["correlate", "correlate1d"])
def test_whole_sums_are_whole(name, rng):
    """Integers times tenths whose sum is whole: the sum, wherever SciPy has it, on every processor."""
    seen = 0
    for _ in range(300):
        x, tenths = rng.integers(-50, 50, 7).astype(np.int32), rng.integers(1, 10, 7)
        exact = Fraction(int(x @ tenths), 10)
        found, theirs = (getattr(m, name)(x, tenths / 10)[3] for m in (ndimage, scipy.ndimage))
        if exact.denominator == 1 and theirs == exact:
            seen += 1
            assert found == theirs
        elif exact.denominator > 1:  # at least a tenth away from a whole number
            assert found == int(exact)
    assert seen > 10


@pytest.mark.parametrize("output", [None, np.int16])
def test_constants_stay_where_scipys_do(output):
    """Weights that sum to 1 but for roundoff leave 98, 99 or 100 of 100."""
    left = set()
    for sigma in (0.4, 0.6, 1.4):
        both(lambda m: m.gaussian_filter(FLAT, sigma, output=output), 2)
        left |= set(np.unique(ndimage.gaussian_filter(FLAT, sigma, output=output)).tolist())
    assert len(left) > 1


@pytest.mark.parametrize(
    "f",
    {
        "gaussian_filter": lambda m, x: m.gaussian_filter(x, 0.7, (1, 2)),
        "gaussian_laplace": lambda m, x: m.gaussian_laplace(x, 1.0, radius=2),
        "gaussian_gradient_magnitude": lambda m, x: m.gaussian_gradient_magnitude(x, 1.0, radius=2),
        "sobel": lambda m, x: m.sobel(x, 0),
        "prewitt": lambda m, x: m.prewitt(x, mode="constant", cval=0.75),
        "laplace": lambda m, x: m.laplace(x),
        "uniform_filter": lambda m, x: m.uniform_filter(x, (4, 3), origin=(1, -1)),
        "uniform_filter1d": lambda m, x: m.uniform_filter1d(x, 70, mode="constant", cval=2.5),
        "generic_laplace": lambda m, x: m.generic_laplace(x, m.sobel),
        "generic_gradient_magnitude": lambda m, x: m.generic_gradient_magnitude(x, m.prewitt),
    }.values(),
)
def test_filters_of_integers(f, rng):
    for dtype, shift in (("bool", 0), ("int32", 14)):  # squares that do not fit become NaN in SciPy
        x = image_of(rng, dtype)
        both(partial(f, x=x >> shift if shift else x), 4)


def test_many_weights(rng):
    x = image_of(rng, "int32")
    both(lambda m: m.convolve(x, np.arange(100).reshape(4, 25) / 90))


def test_floating_images_made_integer(rng):
    x = rng.integers(-800, 800, (8, 9)).astype(np.float32) / 8
    for output in (np.uint8, np.int16):
        both(lambda m: m.correlate(x, np.full((3, 3), 0.1), output, "mirror"))
        both(lambda m: m.sobel(x, output=output), 2)


def test_a_mean_of_large_integers():
    x = np.array([2**31 - 1, 2**31 - 3, -(2**31), 7], np.int32)
    for size in (2, 3, 9):
        both(lambda m: m.uniform_filter1d(x, size))


def test_64_bits():
    """Above 2**63 too; exact where all is integer."""
    with jax.enable_x64(True):
        x = np.array([2**63 + 2**12, 2**62, 3, 2**64 - 2**11], np.uint64)
        both(lambda m: m.correlate(x, [0.0, 1.0, 0.0]))
        both(lambda m: m.gaussian_filter(x.astype(np.int64) // 9, 0.5))
        assert ndimage.correlate(x, [0, 1, 0], mode="wrap").tolist() == x.tolist()


def test_a_length_is_cut_not_rounded():
    """200**2 + 20000**2 = 20001**2 - 1, whose root is 20001 in float32."""

    def derivative(x, axis, output, mode, cval):
        return jnp.full(x.shape, [200, 20000][axis], output)

    assert (ndimage.generic_gradient_magnitude(np.zeros((2, 2), np.int32), derivative) == 20000).all()


def test_a_length_along_no_axes_is_the_image():
    x = np.array([-5, 100], np.int8)
    for image in (x, x.astype(np.float32)):
        both(lambda m: m.gaussian_gradient_magnitude(image, 1.0, axes=()))
        both(lambda m: m.gaussian_filter(image / 400, 1.0, output=bool, axes=()))


# Of these sizes n, n * (1 / n) is not 1: in float32, and in float64.
@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 41), ("float32", 55), ("float64", 49), ("complex64", 47), ("bfloat16", 41)]
)
def test_a_mean_of_ones_is_one(dtype, size):
    with jax.enable_x64(dtype == "float64"):
        ones = jnp.ones((60,), dtype)
        assert (ndimage.uniform_filter(ones, size) == ones).all()
        assert (jax.jit(partial(divided, size=size))(size * ones) == ones).all()


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_mean_of_ones_is_one_for_every_size(dtype):
    with jax.enable_x64(dtype == "float64"):
        for size in range(1, 130):
            ones = jnp.ones((3, 5), dtype)
            assert (ndimage.uniform_filter(ones, size) == ones).all(), size


def test_division_rounds_once():
    x = jnp.arange(3000, dtype=jnp.float32)
    np.testing.assert_array_equal(divided(x, 41), np.asarray(x) / np.float32(41))
    (turned,) = jax.linear_transpose(partial(divided, size=41), x)(x)
    np.testing.assert_array_equal(turned, divided(x, 41))


def test_a_batch_of_means():
    """In float64, 49 * (1 / 49) is less than 1."""
    x = np.arange(120, dtype=np.uint8).reshape(3, 40)
    means = jax.jit(jax.vmap(lambda x: ndimage.uniform_filter1d(x, 49, mode="wrap")))(x)
    alike(means, scipy.ndimage.uniform_filter1d(x, 49, mode="wrap"))
    constant = np.full_like(x, 7)
    assert (jax.vmap(lambda x: ndimage.uniform_filter1d(x, 49, mode="wrap"))(constant) == constant).all()


X = np.random.default_rng(1).integers(0, 200, (2, 6, 5)).astype(np.uint8)
TENTHS = np.random.default_rng(2).integers(1, 10, (3, 3)) / 10
EXPECTED = [scipy.ndimage.correlate(x, TENTHS, mode="constant", cval=2.5) for x in X]
MESH = jax.make_mesh((2,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))


def tenths(x):
    return ndimage.correlate(x, TENTHS, mode="constant", cval=2.5)


def loss(s, x):
    y = tenths(x)
    return (s * y.astype(jnp.float32)).sum(), y


WAYS = {
    "jit": lambda: jax.jit(lambda x: jnp.stack([tenths(a) for a in x]))(X),
    "vmap": lambda: jax.vmap(tenths)(X),
    "scan": lambda: lax.scan(lambda c, x: (c, tenths(x)), 0, X)[1],
    "fori": lambda: lax.fori_loop(0, 2, lambda i, y: y.at[i].set(tenths(jnp.asarray(X)[i])), jnp.zeros_like(X)),
    "grad": lambda: jax.vmap(jax.checkpoint(jax.grad(loss, has_aux=True)), (None, 0))(1.0, X)[1],
    "shard_map": lambda: jax.jit(
        jax.shard_map(jax.vmap(tenths), mesh=MESH, in_specs=PartitionSpec("b"), out_specs=PartitionSpec("b"))
    )(X),
    "export": lambda: export.deserialize(export.export(jax.jit(jax.vmap(tenths)))(X).serialize()).call(X),
}


# As XLA compiles by default, where the short form takes less: what is rounded twice there may be rounded once here.
AS_USERS_GET_IT = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


@pytest.mark.parametrize("cval", [0, 2.5])
def test_optimised_programs(cval):
    """Known weights and border, of which a compiler knows the most."""
    rng = np.random.default_rng(0)
    for shape in ((3, 3), (1, 5), (4, 2)):
        x, w = rng.integers(0, 200, (40, 30)).astype(np.uint8), rng.integers(1, 10, shape) / 10
        program = jax.jit(lambda x: ndimage.correlate(x, w, mode="constant", cval=cval)).lower(x)
        alike(program.compile(AS_USERS_GET_IT)(x), scipy.ndimage.correlate(x, w, mode="constant", cval=cval))


@pytest.mark.parametrize("way", WAYS)
def test_transformations_without_x64(way):
    with jax.enable_x64(False):
        alike(WAYS[way](), np.stack(EXPECTED))


@pytest.mark.parametrize("cval", [np.inf, -np.inf, 2.5])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "bool"])
def test_a_border_that_is_no_integer(dtype, cval):
    x = np.array([1, 2, 3, 4]).astype(dtype)
    with np.errstate(invalid="ignore"):
        expected = scipy.ndimage.correlate1d(x, [1, 2, 1], mode="constant", cval=cval)
    alike(ndimage.correlate1d(x, [1, 2, 1], mode="constant", cval=cval), expected)


def test_integers_that_jax_would_cut_are_refused():
    for image in (np.array([2**40, 1]), np.array([[2**40]])[0, 0]):
        with (
            jax.enable_x64(False),
            pytest.raises(ValueError, match=r"input with the integer 1099511627776: .*int32. Pa"),
        ):
            ndimage.correlate(image, np.ones([3] * image.ndim, int))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_export_to_other_platforms(platform):
    assert export.export(jax.jit(tenths), platforms=[platform])(X[0]).out_avals[0].dtype == np.uint8


def test_traced_weights_have_no_derivative():
    """They keep their float32 values, as SciPy would take them; float64 stays inside."""
    w = TENTHS.astype(np.float32)
    value, slope = jax.value_and_grad(lambda w: ndimage.correlate(X[0], w).astype(jnp.float32).sum() + w.sum())(w)
    assert value == scipy.ndimage.correlate(X[0], w).astype(np.float32).sum() + w.sum()
    assert slope.dtype == np.float32
    assert (slope == 1).all()
    alike(jax.vmap(lambda w: ndimage.correlate(X[0], w))(w[None])[0], scipy.ndimage.correlate(X[0], w))
