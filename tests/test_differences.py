"""docs/differences.md names every function that differs from SciPy's or lax's, and each of its rows is so."""

import inspect
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from jax import export

import jaxconv
from jaxconv import lax, ndimage, signal
from tests.scipys import EXCEPT

PAGE = (Path(__file__).parent.parent / "docs" / "differences.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
FILTERS = (
    "correlate convolve gaussian_filter uniform_filter sobel prewitt laplace gaussian_laplace correlate1d convolve1d"
)
FILTERS = [*FILTERS.split(), "gaussian_filter1d", "uniform_filter1d", "gaussian_gradient_magnitude"]


def filtered(package, name, image, **how):
    weights = [1.0, 1.0, 1.0]
    arguments = {
        "uniform": [3],
        "gaussian": [0.5],
        "correlate": [weights],
        "convolve": [weights],
    }.get(re.match(r"[a-z]+", name)[0], [])
    return getattr(package, name)(image, *arguments, **how)


def raises(error, f, *args, **kwargs):
    with pytest.raises(error):
        f(*args, **kwargs)
    return True


def same(ours, theirs):
    return np.shape(ours) == np.shape(theirs) and bool(np.all(np.asarray(ours) == theirs))


WHOLE, NAN = np.arange(1, 5), np.array([1, np.nan, 3])
EMPTY = jnp.zeros(0)
FEW, MORE = np.ones((1, 5)), np.ones((3, 3))
NONE, COLUMN = np.zeros((0, 2)), np.ones((3, 1))
FLOAT32 = np.array([2**24, 1, 1], np.float32)
UNSIGNED = np.array([[5, 3, 1]], np.uint64)
HUGE, PARTS = np.array([2**30], np.int32), np.array([2.1, 2.8, 1.9, 1.1, 0.3, 1.7])
TENS, TENTHS = np.array([27, 19, 17, 15, 2, 4]), np.array([13, 7, 10, 7, 13]) / 10


def arrays_and_types():
    y = signal.convolve(WHOLE, WHOLE)
    with jax.enable_x64(False):
        assert signal.convolve(np.ones(3), np.ones(3)).dtype == np.float32
    assert raises(TypeError, signal.convolve, np.array([1, 2], object), WHOLE)
    return isinstance(y, jax.Array) and y.dtype == np.int64


def symbolic():
    shape = jax.ShapeDtypeStruct((1, 1, *export.symbolic_shape("n")), jnp.float32)
    layer = jax.jit(lambda x: lax.conv(x, jnp.ones((1, 1, 3), jnp.float32), (1,), "SAME"))
    return raises(TypeError, export.export(layer), shape)


def no_warning():
    with pytest.warns(RuntimeWarning, match="Use of fft"):
        scipy.signal.convolve(NAN, np.ones(2), method="fft")
    return bool(jnp.isnan(signal.convolve(NAN, np.ones(2), method="fft")).all())


def complex_savgol():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scipy.signal.savgol_filter(WHOLE * 1j, 3, 1)
    ours = signal.savgol_filter(WHOLE * 1j, 3, 1)
    halves = [package.savgol_filter(WHOLE.astype(np.float16), 3, 1).dtype for package in (signal, scipy.signal)]
    return not theirs.any() and np.allclose(ours, WHOLE * 1j) and halves == [np.float16, np.float64]


def by_another_order():
    x = np.arange(9.0)
    pairs = [(package.upfirdn([0.1, 0.7, 0.3], x, 2, 3), package.resample_poly(x, 2, 3)) for package in PACKAGES]
    return all(np.allclose(ours, theirs, rtol=1e-14) for ours, theirs in zip(*pairs, strict=True))


PACKAGES = signal, scipy.signal


# A word of the row, and what shows it. `x64` is on.
CLAIMS = {
    "Results are JAX arrays": arrays_and_types,
    "Symbolic shapes": symbolic,
    "names jaxconv's engines": lambda: (
        same(scipy.signal.convolve(WHOLE, WHOLE, method="fft"), np.convolve(WHOLE, WHOLE))
        and raises(ValueError, signal.convolve, WHOLE, WHOLE, method="fft")
    ),
    "does not warn": no_warning,
    "An empty array gives": lambda: all(
        raises(ValueError, getattr(scipy.signal, name), WHOLE, np.zeros(0), mode)
        and getattr(signal, name)(WHOLE, EMPTY, mode).shape == shape
        for name in ("convolve", "correlate")
        for mode, shape in [("full", (0,)), ("same", (4,)), ("valid", (0,))]
    ),
    "name of an engine": lambda: (
        scipy.signal.choose_conv_method(np.ones(9), np.ones(3)) == "direct"
        and signal.choose_conv_method(np.ones(100), np.ones(3)) == "shifts"
    ),
    "Axes that are not convolved": lambda: all(
        getattr(package, name)(FEW, MORE, "same", axes=1).shape == shape
        for package, shape in [(signal, (3, 5)), (scipy.signal, (1, 5))]
        for name in ("fftconvolve", "oaconvolve")
    ),
    "leaves the others' axes": lambda: all(
        getattr(package, name)(np.zeros((3, 0)), MORE, mode).shape == shape
        for package, shapes in [(signal, [(5, 0), (3, 0)]), (scipy.signal, [(0,), (0,)])]
        for mode, shape in zip(("full", "same"), shapes, strict=True)
        for name in ("fftconvolve", "oaconvolve")
    ),
    "'full' with an empty array": lambda: all(
        getattr(package, name)(NONE, COLUMN).size == size
        for package, size in [(signal, 0), (scipy.signal, 4)]
        for name in ("convolve2d", "correlate2d")
    ),
    "In mode 'valid' in2": lambda: (
        same(scipy.signal.correlate2d([[1]], [[1, 2j]], "valid"), [[2j, 1]])
        and same(signal.correlate2d([[1]], [[1, 2j]], "valid"), [[-2j, 1]])
    ),
    "SciPy's lags are one more": lambda: same(
        signal.correlation_lags(5, 4, "same") + 1, scipy.signal.correlation_lags(5, 4, "same")
    ),
    "Lengths are integers": lambda: (
        same(scipy.signal.correlation_lags(2.0, 1), [0, 1]) and raises(RuntimeError, signal.correlation_lags, 2.0, 1)
    ),
    "a divisor that begins with 0": lambda: (
        raises(ValueError, scipy.signal.deconvolve, [1.0, 1.0], [0.0, 1.0])
        and raises(ValueError, signal.deconvolve, [1.0, 1.0], [0.0, 1.0])
        and not np.isfinite(jax.jit(signal.deconvolve)(jnp.ones(2), jnp.array([0.0, 1.0]))[0]).any()
    ),
    "drops the imaginary part": complex_savgol,
    "the last bit": by_another_order,
    "`output` is a dtype": lambda: all(
        raises(TypeError, filtered, ndimage, name, np.ones(3), output=np.zeros(3)) for name in FILTERS
    ),
    "Images of float32": lambda: (
        same(scipy.ndimage.correlate(FLOAT32, np.ones(3)), np.array([2**25, 2**24 + 2, 3], np.float32))
        and same(ndimage.correlate(FLOAT32, np.ones(3), method="shifts"), np.array([2**25, 2**24, 3], np.float32))
    ),
    "float16 is allowed": lambda: all(
        filtered(ndimage, name, np.ones(3, np.float16)).dtype == np.float16
        and raises(RuntimeError, filtered, scipy.ndimage, name, np.ones(3, np.float16))
        for name in FILTERS
    ),
    "A sigma that is traced": lambda: (
        raises(ValueError, jax.jit(lambda s: ndimage.gaussian_filter(jnp.ones(3), s)), 1.0)
        and raises(ValueError, jax.jit(lambda s: ndimage.gaussian_filter1d(jnp.ones(3), s)), 1.0)
        and np.allclose(
            jax.jit(lambda s: ndimage.gaussian_filter1d(jnp.arange(5.0) ** 2, s, radius=2))(1.0),
            scipy.ndimage.gaussian_filter1d(np.arange(5.0) ** 2, 1.0, radius=2),
            rtol=1e-14,
        )
    ),
    "uint64 is exact": lambda: (
        same(ndimage.prewitt(UNSIGNED), np.array([[-6, -12, -6]]).astype(np.uint64))
        and not same(scipy.ndimage.prewitt(UNSIGNED), ndimage.prewitt(UNSIGNED))
    ),
    "wrap around": lambda: (
        same(ndimage.correlate(HUGE, [4.0]), [0])
        and same(ndimage.correlate(HUGE, [4]), [0])
        and not same(scipy.ndimage.correlate(HUGE, [4]), [0])
    ),
    "Weights that are traced": lambda: (
        same(ndimage.correlate1d(TENS, TENTHS)[:2], [106, 104])
        and same(jax.jit(ndimage.correlate1d)(TENS, TENTHS)[:2], [105, 104])
    ),
    "summed anew": lambda: (
        same(scipy.ndimage.uniform_filter1d(PARTS, 2, output=int, mode="wrap"), [1, 2, 2, 1, 0, 0])
        and same(ndimage.uniform_filter1d(PARTS, 2, output=int, mode="wrap"), [1, 2, 2, 1, 0, 1])
    ),
    "The function that is passed": lambda: (
        same(ndimage.generic_laplace(np.ones(3), lambda x, axis, output, mode, cval: jnp.full(3, 2.0)), np.full(3, 2))
        and same(ndimage.generic_gradient_magnitude(np.ones(3), lambda x, *_: jnp.full(3, 2.0)), np.full(3, 2))
    ),
    "What is not finite": lambda: (
        same(lax.conv_general_dilated_patches(np.array([[[1, np.inf]]]), (2,), (1,), "VALID").ravel(), [1, np.inf])
        and np.isnan(jax.lax.conv_general_dilated_patches(np.array([[[1, np.inf]]]), (2,), (1,), "VALID")).any()
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_row_is_so(claim):
    assert len([row for row in ROWS if claim in row[1]]) == 1
    with jax.enable_x64(True):
        assert CLAIMS[claim]()


def test_every_row_is_shown():
    assert all(len(row) == 3 and any(claim in row[1] for claim in CLAIMS) for row in ROWS)
    assert len(ROWS) == len(CLAIMS) == PAGE.count("\n| ") - 2  # the head's two lines


def test_every_function_that_differs_is_named():
    named = set(re.findall(r"`(\w+\.\w+)`", " ".join(row[0] for row in ROWS)))
    assert all(hasattr(getattr(jaxconv, name.split(".")[0]), name.split(".")[1]) for name in named)
    differing = {
        f"{module.__name__.removeprefix('jaxconv.')}.{name}"
        for module in (signal, ndimage, lax)
        for name in module.__all__
        if re.search("Differs from (SciPy|lax)", inspect.getdoc(getattr(module, name)))
    }
    assert len(differing) > 10
    assert differing <= named


def test_every_exception_of_scipys_tests_stands_on_the_page():
    plain = PAGE.replace("`", "")
    assert [reason for reason in EXCEPT.values() if reason not in plain] == []
