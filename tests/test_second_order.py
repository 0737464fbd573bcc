"""First and second derivatives are the differences of the function itself, to the last bit where it is a sum.

A function that is linear in each argument, but for a constant, has differences for derivatives: in small integers both
are exact. Where weights are real numbers, a sum of n products is off by n/2 eps * sum |x| |w| on either side.
"""

from functools import partial
from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv import lax, ndimage, signal

BOUNDARIES = ["constant", "reflect", "mirror", "nearest", "wrap"]
EXTENSIONS = ["constant", "wrap", "edge", "symmetric", "reflect", "smooth", "antisymmetric", "antireflect", "line"]


def whole(*shape):
    """Distinct small integers in no order, so that minima, maxima and medians stay where they are."""
    n = int(np.prod(shape))
    return 4.0 * (np.random.default_rng(n).permutation(n) - n // 3).reshape(shape)


def parts(f):
    """f of complex arrays as a function of their real and imaginary parts."""

    def real(a, b, c, d):
        y = f(jax.lax.complex(a, b), jax.lax.complex(c, d))
        return jnp.stack([y.real, y.imag])

    return real


SLOPE = np.array([[0.5, 1.0, 4.0], [2.0, -3.0, 7.0]])  # nowhere level
X, H, IMAGE, KERNEL, FILL = whole(5), whole(3) - 1, whole(2, 3), whole(2, 2) + 1, np.array(3.0)

# name: (function, arguments, terms): linear in each argument; `terms` is n where weights are real numbers, else 0.
SUMS = {
    f"signal.{f}-{mode}-{boundary}": (partial(getattr(signal, f), mode=mode, boundary=boundary, **EXACT), (X, H), 0)
    for EXACT in [dict(accuracy="elementwise")]
    for f in ("convolve", "correlate")
    for mode, boundaries in {"full": BOUNDARIES, "same": BOUNDARIES, "valid": ["constant"]}.items()
    for boundary in boundaries
}
SUMS |= {
    f"signal.{f}2d-{mode}-{boundary}": (
        lambda x, h, fill, f=f, m=mode, b=boundary: getattr(signal, f"{f}2d")(x, h, m, b, fill),
        (IMAGE, KERNEL, FILL), 0,
    )
    for f in ("convolve", "correlate")
    for mode in ("full", "same", "valid")
    for boundary in (["fill"] if mode == "valid" else ["fill", "wrap", "symm"])
}  # fmt: skip
SUMS |= {
    "signal.correlate-complex": (
        parts(partial(signal.correlate, accuracy="elementwise")), (X, X[::-1] + 1, H, H[::-1] - 2), 0
    ),
    "signal.correlate-lags": (partial(signal.correlate, lags=(-4, 1), accuracy="elementwise"), (X, H), 0),
    "signal.sepfir2d": (signal.sepfir2d, (IMAGE, H, H + 2), 0),
    "signal.deconvolve": (lambda a: jnp.concatenate(signal.deconvolve(a, np.array([2.0, 1.0, -1.0]))), (X,), 0),
}  # fmt: skip
SUMS |= {
    f"signal.{f}-{mode}": (partial(getattr(signal, f), mode=mode), (X, H), 100)
    for f in ("fftconvolve", "oaconvolve")
    for mode in ("full", "same", "valid")
}
SUMS |= {
    f"signal.convolution_matrix-{mode}": (partial(signal.convolution_matrix, n=3, mode=mode), (X,), 0)
    for mode in ("full", "same", "valid")
}
SUMS |= {
    f"signal.upfirdn-{mode}": (
        lambda h, x, c, m=mode: signal.upfirdn(h, x, 2, 3, mode=m, cval=c),
        (whole(6), X, FILL),
        0,
    )
    for mode in EXTENSIONS
}
SUMS |= {
    f"signal.resample_poly-{padtype}": (
        partial(signal.resample_poly, up=3, down=2, padtype=padtype, window=WINDOW),
        (X,),
        0,
    )
    for WINDOW in [np.array([1.0, 2.0, 4.0, 3.0, 1.0])]
    for padtype in [*EXTENSIONS, "median", "minimum", "maximum"]
}
SUMS |= {
    "signal.resample_poly-mean": (partial(signal.resample_poly, up=2, down=1, padtype="mean", window=H), (X,), 20),
    "signal.resample_poly-window": (lambda x, h: signal.resample_poly(x, 3, 2, window=h), (X, H), 0),
}
SUMS |= {
    f"signal.savgol_filter-{mode}": (
        lambda x, c, m=mode: signal.savgol_filter(x, 3, 1, mode=m, cval=c), (X, FILL), 20
    )
    for mode in ("interp", "mirror", "constant", "nearest", "wrap")
}  # fmt: skip


def other(image, axis, output, mode, cval):
    return ndimage.correlate1d(image, np.array([3, -1, 2]), axis, output, mode, cval)


FILTERS = {
    "correlate": (ndimage.correlate, (IMAGE, KERNEL, FILL), 0),
    "convolve": (ndimage.convolve, (IMAGE, KERNEL, FILL), 0),
    "correlate1d": (partial(ndimage.correlate1d, origin=1), (X, H, FILL), 0),
    "convolve1d": (partial(ndimage.convolve1d, origin=-1), (X, whole(7), FILL), 0),
    "sobel": (partial(ndimage.sobel, axis=0), (IMAGE, FILL), 0),
    "prewitt": (ndimage.prewitt, (IMAGE, FILL), 0),
    "laplace": (ndimage.laplace, (IMAGE, FILL), 0),
    "generic_laplace": (partial(ndimage.generic_laplace, derivative2=other), (IMAGE, FILL), 0),
    "uniform_filter1d": (partial(ndimage.uniform_filter1d, size=4, origin=1), (X, FILL), 0),
    "uniform_filter": (partial(ndimage.uniform_filter, size=(2, 4)), (IMAGE, FILL), 0),
    "gaussian_filter1d": (partial(ndimage.gaussian_filter1d, sigma=1.0, order=1, radius=2), (X, FILL), 20),
    "gaussian_filter": (partial(ndimage.gaussian_filter, sigma=0.75, order=(1, 0), radius=2), (IMAGE, FILL), 40),
    "gaussian_laplace": (partial(ndimage.gaussian_laplace, sigma=0.75, radius=2), (IMAGE, FILL), 60),
}


def filled(f, mode):
    """f with cval for its last argument."""
    return lambda *args: f(*args[:-1], mode=mode, cval=args[-1])


LOCAL = {
    f"ndimage.{name}-{mode}": (filled(f, mode), args, terms)
    for name, (f, args, terms) in FILTERS.items()
    for mode in BOUNDARIES
}

GEOMETRY = dict(window_strides=(2,), padding=[(1, 2)], lhs_dilation=(1,), rhs_dilation=(2,))
LAYERS = {
    "lax.conv_general_dilated-features": (
        partial(lax.conv_general_dilated, feature_group_count=2, **GEOMETRY), (whole(1, 2, 4), whole(2, 1, 2)), 0
    ),
    "lax.conv_general_dilated-batches": (
        partial(lax.conv_general_dilated, batch_group_count=2, **GEOMETRY), (whole(2, 1, 4), whole(2, 1, 2)), 0
    ),
    "lax.conv_general_dilated-flipped": (
        partial(lax.conv_general_dilated, flip_kernel=True, **GEOMETRY), (whole(1, 1, 5), whole(2, 1, 3)), 0
    ),
    "lax.conv_transpose": (
        partial(lax.conv_transpose, strides=(2,), padding="SAME", output_padding=(1,), feature_group_count=2),
        (whole(1, 3, 2), whole(3, 1, 2)), 0,
    ),
    "lax.conv_transpose-adjoint": (
        partial(lax.conv_transpose, strides=(3,), padding="VALID", output_padding=(2,), transpose_kernel=True),
        (whole(1, 3, 1), whole(2, 2, 1)), 0,
    ),
    "lax.conv_general_dilated_patches": (
        partial(lax.conv_general_dilated_patches, filter_shape=(2,), **GEOMETRY), (whole(1, 2, 4),), 0
    ),
    "lax.fold": (partial(lax.fold, shape=(1, 2, 4), filter_shape=(2,), **GEOMETRY), (whole(1, 4, 3),), 0),
    "lax.conv_general_dilated_local": (
        partial(lax.conv_general_dilated_local, filter_shape=(2,), **GEOMETRY), (whole(1, 1, 4), whole(2, 2, 3)), 0
    ),
}  # fmt: skip
CASES = SUMS | LOCAL | LAYERS


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def stepped(args, i, step):
    return [a + step if k == i else a for k, a in enumerate(args)]


def units(a):
    return np.eye(a.size).reshape(-1, *a.shape)


def differences(f, args, i):
    """The derivative in argument i of a function that is linear in it, its axes behind those of the result."""
    here = np.asarray(f(*args))
    steps = [np.asarray(f(*stepped(args, i, e))) - here for e in units(args[i])]
    return np.stack(steps, -1).reshape(here.shape + args[i].shape)


def bound(name, y):
    """n/2 eps on either side, of sums with entries up to 20 and what is near 0 by cancellation; 0 for exact sums."""
    return CASES[name][2] * np.finfo(float).eps * 20 * max(1.0, np.abs(y).max(initial=0.0))


@pytest.mark.sampled(16)
@pytest.mark.parametrize("name", CASES)
def test_first_derivatives_are_differences(name):
    f, args = jax.jit(CASES[name][0]), CASES[name][1]
    every = range(len(args))
    forward, reverse = jax.jit(lambda *a: (jax.jacfwd(f, tuple(every))(*a), jax.jacrev(f, tuple(every))(*a)))(*args)
    for i in every:
        expected = differences(f, args, i)
        for found in forward[i], reverse[i]:
            assert np.all(np.abs(found - expected) <= bound(name, f(*args))), i


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_differences_of_differences(name):
    f, args = jax.jit(CASES[name][0]), CASES[name][1]
    every = tuple(range(len(args)))
    y = np.asarray(f(*args))
    weights = 1.0 + np.arange(y.size).reshape(y.shape) % 3
    slope = jax.grad(lambda *a: jnp.vdot(weights, f(*a)), every)
    for found in jax.jit(lambda *a: (jax.jacfwd(slope, every)(*a), jax.jacrev(slope, every)(*a)))(*args):
        for i, j in combinations_with_replacement(every, 2):
            expected = np.zeros(args[i].shape + args[j].shape)
            if i != j:
                by_unit = [differences(f, stepped(args, j, e), i) - differences(f, args, i) for e in units(args[j])]
                expected = np.tensordot(weights, np.stack(by_unit, -1), y.ndim).reshape(expected.shape)
            off = 3 * y.size * bound(name, y)
            assert np.all(np.abs(found[i][j] - expected) <= off), (i, j)
            back = np.moveaxis(found[j][i], range(args[j].ndim), range(-args[j].ndim, 0))
            assert np.all(np.abs(back - expected) <= off), (j, i)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", LOCAL)
def test_no_derivative_of_a_filter_gathers_or_scatters(name):
    """What lies beyond the border is folded back by slices and sums."""
    f, args, _ = LOCAL[name]
    every = tuple(range(len(args)))
    slope = jax.grad(lambda *a: (f(*a) ** 2).sum(), every)
    curvature = jax.grad(lambda *a: sum((s**2).sum() for s in slope(*a)), every)
    text = str(jax.make_jaxpr(curvature)(*args))  # the slope is a part of it
    assert "gather" not in text
    assert "scatter" not in text


@pytest.mark.sampled(16)
@pytest.mark.parametrize("name", CASES)
def test_jit_and_vmap_change_no_number(name):
    f, args, _ = CASES[name]
    plain = np.asarray(f(*args))
    off = bound(name, plain)
    assert np.all(np.abs(jax.jit(f)(*args) - plain) <= off)
    stacked = [np.stack([a, 2 * a + 1]) for a in args]
    other = np.asarray(f(*(a[1] for a in stacked)))
    mapped = jax.vmap(f)(*stacked)
    assert np.all(np.abs(mapped - np.stack([plain, other])) <= bound(name, other) + off)
    axes = [0, *(None for _ in args[1:])]
    assert np.all(np.abs(jax.vmap(f, axes)(stacked[0], *args[1:])[0] - plain) <= off)


def test_the_second_derivative_of_an_autocorrelation():
    """Of a quadratic form it is the form's two orders, added up."""
    f = partial(signal.autocorrelation, accuracy="elementwise")
    found = jax.jit(jax.jacfwd(jax.jacrev(f)))(X)
    expected = [[f(a + b) - f(a) - f(b) for b in units(X)] for a in units(X)]
    np.testing.assert_array_equal(found, np.moveaxis(np.array(expected), -1, 0))


# What is not linear: (function, arguments) where it is smooth.
CURVED = {
    "gaussian_gradient_magnitude": (
        lambda x, s: ndimage.gaussian_gradient_magnitude(x, s, radius=2, mode="mirror"), (SLOPE, np.array(0.8))
    ),
    "gaussian_gradient_magnitude-constant": (
        lambda x, c: ndimage.gaussian_gradient_magnitude(x, 0.8, mode="constant", cval=c), (SLOPE, FILL)
    ),
    "generic_gradient_magnitude": (
        lambda x: ndimage.generic_gradient_magnitude(x, ndimage.sobel, mode="wrap"), (SLOPE,)
    ),
    "gaussian_filter": (
        lambda x, s: ndimage.gaussian_filter(x, s, order=(0, 1), radius=2), (IMAGE / 5, np.array(0.9))
    ),
    "gaussian_laplace": (lambda x, s: ndimage.gaussian_laplace(x, s, radius=2), (IMAGE / 5, np.array(0.9))),
    "autocorrelation": (lambda x: signal.autocorrelation(x, scale="normalized"), (X / 5,)),
    "deconvolve": (lambda a, d: signal.deconvolve(a, d), (X / 5, np.array([2.0, 0.5, -1.0]))),
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", CURVED)
def test_curved_functions_to_second_order(name):
    f, args = CURVED[name]
    check_grads(jax.jit(f), args, order=2, modes=["fwd", "rev"])
