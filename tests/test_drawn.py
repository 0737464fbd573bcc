"""Whatever SciPy answers to arguments drawn at random, jaxconv answers: the same numbers, shapes, dtypes, refusals.

Entries are small integers and weights are quarters of them, so that sums are exact and must be equal to the last
bit. Where weights are real numbers, a sum of n products is off by at most n/2 eps * sum |x| |w| on either side.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal
from hypothesis import assume, given
from hypothesis import strategies as st

import jaxconv.ndimage
import jaxconv.signal
from jaxconv.engines import ENGINES
from jaxconv.padding import mode_axes
from jaxconv.problem import Problem, Triple
from tests.problems import error_bound

WHOLE = ["int8", "int16", "int32", "int64", "uint8"]
INEXACT = ["float32", "float64", "complex64", "complex128"]
REAL = [*WHOLE, "float32", "float64"]
SIGNED = [t for t in [*WHOLE, *INEXACT] if t != "uint8"]
MODES = ["reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant"]
REFUSALS = ValueError, TypeError, RuntimeError


def of(*options):
    return st.sampled_from(options)


def outcome(f, args, kwargs):
    """What f returns, or the error it raises."""
    with warnings.catch_warnings(), jax.enable_x64(True):
        warnings.simplefilter("ignore")  # SciPy's of casts; jaxconv's own have their tests
        try:
            return f(*args, **kwargs)
        except Exception as e:
            return e


def agree(name, args, kwargs=None, bound=0.0, theirs=None, ours=None, theirs_args=None):
    """Assert that jaxconv's function and SciPy's return the same, but for `bound`, or both refuse."""
    package, _, function = name.partition(".")
    theirs = theirs or getattr(getattr(scipy, package), function)
    ours = ours or getattr(getattr(jaxconv, package), function)
    expected = outcome(theirs, args if theirs_args is None else theirs_args, kwargs or {})
    found = outcome(ours, args, kwargs or {})
    if isinstance(expected, Exception):
        assert isinstance(found, REFUSALS), f"SciPy refuses: {expected!r}; jaxconv: {found!r}"
        return
    if isinstance(found, Exception):
        raise AssertionError(f"jaxconv refuses what SciPy answers with {expected!r}") from found
    near(found, expected, bound)


def near(found, expected, bound=0.0):
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype == bool:  # SciPy writes bytes other than 0 and 1 there
        expected = expected.view(np.uint8) != 0
    if np.all(np.asarray(bound) == 0) or not found.size:
        np.testing.assert_array_equal(found, expected)
    else:
        wide = complex if np.iscomplexobj(found) else float
        off = np.abs(found.astype(wide) - expected.astype(wide))
        assert np.all(off <= bound), f"off by {off.max()}, {np.max(off / np.maximum(bound, 1e-300))} of the bound"


def entries(draw, shape, dtype, low=-9, high=9):
    """Small integers, of both parts where the dtype is complex."""
    rng = np.random.default_rng(draw(st.integers(0, 50), label="seed"))
    x = rng.integers(0 if dtype == "uint8" else low, high + 1, shape)
    if dtype == "bool":
        return x > 2
    return (x + 1j * rng.integers(low, high + 1, shape) if "complex" in dtype else x).astype(dtype)


def shape_of(draw, least, most, sizes=(4, 3, 1, 2, 6, 0)):
    return tuple(draw(st.lists(of(*sizes), min_size=least, max_size=most), label="shape"))


def quarters(draw, shape, dtype):
    """Weights of which every sum here is exact: quarters where the dtype has them."""
    w = entries(draw, shape, dtype, -5, 5)
    return w / w.dtype.type(4) if dtype in INEXACT and draw(st.booleans(), label="quarters") else w


def cval_of(draw, dtype):
    return draw(of(0, 0.0, 3, -2, 1.5, *([2 - 1.5j] if "complex" in dtype else [])), label="cval")


def axes_of(draw, ndim):
    """All axes, one, or several in any order, counted from either end; now and then one that does not exist."""
    kind = draw(of("all", "some", "one", "wrong"), label="axes")
    if kind == "all":
        return None
    if kind == "one":
        return draw(st.one_of(st.integers(0, ndim - 1), st.tuples(st.integers(-ndim, ndim - 1))))
    if kind == "wrong":
        return draw(of((ndim,), (-ndim - 1,), (0, 0), (0, -ndim)))  # a single number SciPy does not look at
    order = draw(st.permutations(range(ndim)))[: draw(st.integers(1, ndim))]
    return tuple(d - ndim * draw(st.booleans()) for d in order)


def count_of(axes, ndim):
    return ndim if axes is None else np.size(axes)


def axis_of(draw, ndim):
    return draw(of(*range(-ndim, ndim), *range(-ndim, ndim), *range(-ndim, ndim), ndim), label="axis")


def each(draw, one, count):
    """One value, or one for each axis; now and then one too many."""
    if not draw(st.integers(0, 2)):
        count += not draw(st.integers(0, 9))
        return [draw(one) for _ in range(count)]
    return draw(one)


def image_of(draw, dtypes, sizes=(4, 3, 1, 2, 6, 0)):
    return entries(draw, shape_of(draw, 1, 3, sizes), draw(of(*dtypes), label="dtype"))


def output_of(draw, *summed):
    """A dtype that SciPy admits for sums of these arrays."""
    # SciPy refuses complex dtypes for real sums, and real ones for complex sums by name, or in passes; jaxconv answers.
    if any(a.dtype.kind == "c" for a in summed):
        if any(a.dtype.name in ("int32", "int64") for a in summed):
            return "complex128"  # where NumPy promotes to it, and JAX to complex64
        return draw(of(None, "complex64", "complex128"), label="output")
    return draw(of(None, None, *REAL), label="output")


# ---- scipy.ndimage


@pytest.mark.parametrize("name", ["correlate", "convolve"])
@given(st.data())
def test_sums_of_images(name, data):
    draw = data.draw
    x = image_of(draw, [*WHOLE, *INEXACT, "bool"])
    axes = axes_of(draw, x.ndim)
    rank = max(0, count_of(axes, x.ndim) + draw(of(0, 0, 0, 0, 0, 0, 0, 1, -1)))
    shape = tuple(draw(of(3, 2, 1, 4, 9 if x.ndim < 3 else 3, 0 if rank == 1 else 2)) for _ in range(rank))
    if x.dtype == bool:  # a fraction as bool: see output_of
        w, cval, output = entries(draw, shape, draw(of("int64", "bool"))), draw(of(0, 3)), None
    else:
        w = quarters(draw, shape, draw(of("int32", *INEXACT)))
        cval, output = cval_of(draw, draw(of(x.dtype.name, "complex64"))), output_of(draw, x, w)
    # SciPy looks at other weights, or not at all, where complex sums are over nothing.
    assume(x.size or (w.size and rank == count_of(axes, x.ndim)))
    mode = draw(of(*MODES, *MODES, "middle", ["reflect"]))
    origin = each(draw, of(0, 0, 1, -1, 2, -2), rank)
    kwargs = dict(output=output, mode=mode, cval=cval, origin=origin, axes=axes)
    agree(f"ndimage.{name}", (x, w), kwargs)


@pytest.mark.parametrize("name", ["correlate1d", "convolve1d"])
@given(st.data())
def test_sums_along_one_axis(name, data):
    draw = data.draw
    x = image_of(draw, [*WHOLE, *INEXACT, "bool"])
    size = (draw(of(3, 2, 1, 4, 5, 9, 14, 0)),)
    if x.dtype == bool:
        w, cval, output = entries(draw, size, "int64"), draw(of(0, 3)), None
    else:
        w = quarters(draw, size, draw(of("int32", *INEXACT)))
        cval, output = cval_of(draw, draw(of(x.dtype.name, "complex64"))), output_of(draw, x, w)
    kwargs = dict(
        axis=axis_of(draw, x.ndim), output=output, mode=draw(of(*MODES, *MODES, "middle")),
        cval=cval, origin=draw(of(0, 0, 1, -1, 2, -2)),
    )  # fmt: skip
    agree(f"ndimage.{name}", (x, w), kwargs)


def gaussian(sigma, order, radius):
    """Weights that are no smaller than the Gaussian's, nor than any term in the polynomials that make them."""
    k = np.arange(-radius, radius + 1)
    phi = np.exp(-0.5 / sigma**2 * k**2)
    q = [1.0]
    for _ in range(order):
        slope = [(n + 1) * c for n, c in enumerate(q[1:])] + [0.0, 0.0]
        q = [a + b for a, b in zip(slope, [0.0, *(c / sigma**2 for c in q)], strict=True)]
    return sum(c * np.abs(k.astype(float)) ** n for n, c in enumerate(q)) * phi / phi.sum()


class Passes:
    """How far apart two results of passes along one axis each may be.

    `mid` is SciPy's result after each pass, `off` by how much another one may differ from it. A pass of n weights, each
    of up to e roundings, adds (n + e) eps * sum |x| |w| for both sides together, and passes on what there was.
    A result made an integer may be off by one where the sum is within that of an integer, and else not at all.
    """

    def __init__(self, x, output):
        self.mid, self.off = x, np.zeros(x.shape)
        self.dtype = np.dtype(output or x.dtype)
        self.eps = max(np.finfo(t).eps for t in (self.dtype, x.dtype, np.dtype(float)) if t.kind in "fc")

    def along(self, axis, weights, more, f, mode, cval):
        """f(mid, axis, output) is SciPy's pass, `weights` bound its weights."""
        sums = partial(scipy.ndimage.correlate1d, weights=weights, axis=axis, mode=mode)
        sums = sums(np.abs(self.mid).astype(float), cval=abs(cval))
        passed = scipy.ndimage.correlate1d(self.off, weights, axis, mode=mode, cval=0.0)
        self.off = passed + (len(weights) + more) * self.eps * (sums + passed)
        if self.dtype.kind in "iu":
            exact = f(self.mid.astype(float), axis, float)
            self.off = np.trunc(np.abs(exact) + self.off) - np.trunc(np.maximum(np.abs(exact) - self.off, 0))
        self.mid = f(self.mid, axis, self.dtype)
        return self


SIGMAS = of(1.0, 0.5, 0.75, 2.0, 0.0)
ORDERS = of(0, 0, 1, 2, 3)
ROUNDINGS = 16  # of a Gaussian's weight: exp and its argument, the sum, and of each order two products and a sum


def width(sigma, truncate, radius):
    return int(truncate * sigma + 0.5) if radius is None else radius


@given(st.data())
def test_gaussian_along_one_axis(data):
    draw = data.draw
    x = image_of(draw, SIGNED)
    sigma, order = draw(of(1.0, 0.5, 0.75, 2.0)), draw(of(0, 0, 1, 2, 3, -1))
    kwargs = dict(
        axis=axis_of(draw, x.ndim), order=order, output=draw(of(None, None, "int32", "float32", "float64")),
        mode=draw(of(*MODES)), cval=draw(of(0, 2, -1.5)), truncate=draw(of(4.0, 2.0, 0.4)),
        radius=draw(of(None, None, 0, 1, 3, -1)),
    )  # fmt: skip
    n = width(sigma, kwargs["truncate"], kwargs["radius"])
    bound = 0.0
    if order >= 0 and n >= 0 and kwargs["axis"] < x.ndim:
        if x.dtype.kind == "c" and kwargs["output"] in ("int32", "float32", "float64"):
            kwargs["output"] = None

        def f(y, d, t):
            return scipy.ndimage.gaussian_filter1d(y, sigma, **kwargs | dict(axis=d, output=t))

        passes = Passes(x, kwargs["output"])
        bound = passes.along(kwargs["axis"], gaussian(sigma, order, n), ROUNDINGS, f, kwargs["mode"], kwargs["cval"])
        bound = bound.off
    agree("ndimage.gaussian_filter1d", (x, sigma), kwargs, bound)


def plain(value, count):
    return list(value) if isinstance(value, list | tuple) else [value] * count


def one_pass(x, axis, output, **kwargs):
    return scipy.ndimage.gaussian_filter1d(x, axis=axis, output=output, **kwargs)


def gaussian_passes(x, output, axes, sigma, order, mode, cval, truncate, radius):
    """Passes of `gaussian_filter`; None where the arguments do not fit."""
    along = [d % x.ndim for d in along_or_all(axes, x.ndim)]
    values = [plain(v, len(along)) for v in (sigma, order, mode, radius)]
    passes = Passes(x, output)
    if any(len(v) != len(along) for v in values):
        return passes
    for d, s, o, m, r in zip(along, *values, strict=True):
        if s > 1e-15:
            f = partial(one_pass, sigma=s, order=o, mode=m, cval=cval, truncate=truncate, radius=r)
            passes.along(d, gaussian(s, o, width(s, truncate, r)), ROUNDINGS, f, m, cval)
    return passes


def along_or_all(axes, ndim):
    return range(ndim) if axes is None else np.atleast_1d(axes)


def exists(axes, ndim):
    given = along_or_all(axes, ndim)
    return all(-ndim <= d < ndim for d in given) and len({d % ndim for d in given}) == len(given)


@given(st.data())
def test_gaussian_filter(data):
    draw = data.draw
    x = image_of(draw, SIGNED)
    axes = axes_of(draw, x.ndim)
    count = count_of(axes, x.ndim)
    sigma, order = each(draw, SIGMAS, count), each(draw, ORDERS, count)
    kwargs = dict(
        order=order, output=draw(of(None, None, "int32", "float32", "float64")) if x.dtype.kind != "c" else None,
        mode=each(draw, of(*MODES), count), cval=draw(of(0, 2, -1.5)), truncate=draw(of(4.0, 2.0)),
        radius=draw(of(None, None, 0, 2)), axes=axes,
    )  # fmt: skip
    bound = 0.0
    if exists(axes, x.ndim):
        bound = gaussian_passes(x, kwargs["output"], axes, sigma, order, *map(kwargs.get, TAIL)).off
    agree("ndimage.gaussian_filter", (x, sigma), kwargs, bound)


TAIL = "mode", "cval", "truncate", "radius"


@pytest.mark.parametrize(("name", "order"), [("gaussian_laplace", 2), ("gaussian_gradient_magnitude", 1)])
@given(st.data())
def test_derivatives_by_gaussians(name, order, data):
    draw = data.draw
    # An axis' result made an integer is squared in that integer type: floating types, where that cannot wrap.
    x = image_of(draw, ["float32", "float64"])
    # With fewer axes SciPy's gradient magnitude (not its Laplace) smooths along the others too: no bound for that.
    axes = axes_of(draw, x.ndim) if order == 2 else draw(of(None, tuple(range(x.ndim))))
    count = count_of(axes, x.ndim)
    kwargs = dict(mode=each(draw, of(*MODES), count), cval=draw(of(0, 2, -1.5)), axes=axes)
    kwargs |= draw(of({}, {"truncate": 2.0}, {"radius": 2}))
    sigma = each(draw, of(1.0, 0.5, 2.0), count)
    bound = 0.0
    modes = plain(kwargs["mode"], count)
    if exists(axes, x.ndim) and len(modes) == count and len(plain(sigma, count)) == count:
        along = [d % x.ndim for d in along_or_all(axes, x.ndim)]
        parts = [
            gaussian_passes(
                x, None, along, sigma, [order * (d == e) for e in along], m, kwargs["cval"],
                kwargs.get("truncate", 4.0), kwargs.get("radius"),
            )
            for d, m in zip(along, modes, strict=True)
        ]  # fmt: skip
        off, size = sum(p.off for p in parts), sum(np.abs(p.mid) for p in parts)
        # The sum of `count` parts, and the root of the sum of squares, which is a norm: it moves no more than they do.
        bound = off + 2 * (count + 2) * np.finfo(x.dtype).eps * (size + off)
    agree(f"ndimage.{name}", (x, sigma), kwargs, bound)


@given(st.data())
def test_uniform_filter_along_one_axis(data):
    draw = data.draw
    x = image_of(draw, [*WHOLE, *INEXACT])
    size, cval = draw(of(3, 2, 1, 4, 5, 9, 0)), cval_of(draw, "float64")
    kwargs = dict(
        axis=axis_of(draw, x.ndim), output=None if x.dtype.kind == "c" else draw(of(None, "int32", "float64")),
        mode=draw(of(*MODES)), cval=cval, origin=draw(of(0, 0, 1, -1, 2)),
    )  # fmt: skip
    agree("ndimage.uniform_filter1d", (x, size), kwargs, uniform_bound(x, [size], kwargs))


def uniform_bound(x, sizes, kwargs):
    """SciPy's mean is a running sum along a line, divided: the error of all that came before stays in it.

    Integers are summed exactly, and divided once, on either side; with a fraction for cval too, in double.
    """
    output = np.dtype(kwargs["output"] or x.dtype)
    integers = output.kind in "iu"
    if integers and x.dtype.kind in "iu":
        return 0.0
    eps = max(np.finfo(t).eps for t in (x.dtype, output, np.dtype(float)) if t.kind in "fc")
    line = max([1, *x.shape]) + max([1, *sizes])
    return 2 * len(sizes) * (2 * line + 2) * eps * (13 + abs(kwargs["cval"])) + len(sizes) * integers


@given(st.data())
def test_uniform_filter(data):
    draw = data.draw
    x = image_of(draw, [*WHOLE, *INEXACT])
    axes = axes_of(draw, x.ndim)
    count = count_of(axes, x.ndim)
    size = each(draw, of(3, 2, 1, 4, 9), count)
    kwargs = dict(
        output=None if x.dtype.kind == "c" else draw(of(None, "float64")), mode=each(draw, of(*MODES), count),
        cval=cval_of(draw, "float64"), origin=each(draw, of(0, 0, 1, -1), count), axes=axes,
    )  # fmt: skip
    agree("ndimage.uniform_filter", (x, size), kwargs, uniform_bound(x, plain(size, count), kwargs))


@pytest.mark.parametrize("name", ["sobel", "prewitt"])
@given(st.data())
def test_derivatives_along_one_axis(name, data):
    draw = data.draw
    x = image_of(draw, [*WHOLE, *INEXACT])
    kwargs = dict(
        axis=axis_of(draw, x.ndim), output=output_of(draw, x), mode=each(draw, of(*MODES), x.ndim),
        cval=cval_of(draw, x.dtype.name),
    )  # fmt: skip
    agree(f"ndimage.{name}", (x,), kwargs)


@given(st.data())
def test_laplace(data):
    draw = data.draw
    x = image_of(draw, [*WHOLE, *INEXACT])
    axes = axes_of(draw, x.ndim)
    kwargs = dict(
        output=output_of(draw, x), mode=each(draw, of(*MODES), count_of(axes, x.ndim)),
        cval=cval_of(draw, x.dtype.name),
        axes=axes,
    )  # fmt: skip
    agree("ndimage.laplace", (x,), kwargs)


@pytest.mark.parametrize("name", ["generic_laplace", "generic_gradient_magnitude"])
@given(st.data())
def test_derivatives_of_the_callers(name, data):
    draw = data.draw
    x = image_of(draw, SIGNED if "laplace" in name else ["int32", "int64", "float32", "float64"])
    derivative = draw(of("sobel", "prewitt"))
    axes = axes_of(draw, x.ndim)
    kwargs = dict(mode=each(draw, of(*MODES), count_of(axes, x.ndim)), cval=draw(of(0, 2)), axes=axes)
    # The sum of squares is exact; its root is rounded once on either side.
    size = 9 * 4**3 * 3
    bound = 0.0 if "laplace" in name or x.dtype.kind == "i" else 2 * np.finfo(x.dtype).eps * size

    def by(package):
        return lambda x, **kwargs: getattr(package, name)(x, getattr(package, derivative), **kwargs)

    theirs, ours = by(scipy.ndimage), by(jaxconv.ndimage)
    agree(f"ndimage.{name}", (x,), kwargs, bound, theirs, ours)


# ---- scipy.signal


def pair(draw, least=0, most=3, dtypes=(*WHOLE, *INEXACT), small=(1, 2, 3, 4, 7)):
    """Two arrays of (mostly) as many dimensions and of one dtype or two, and both in their common dtype."""
    ndim = draw(st.integers(least, most))
    other = ndim if draw(st.integers(0, 9)) else min(most, ndim + 1)
    sizes = small if ndim < 3 else small[:-1]
    shapes = [tuple(draw(of(*sizes)) for _ in range(n)) for n in (ndim, other)]
    one = draw(of(*dtypes))
    two = draw(of(one, one, *dtypes))
    x, h = entries(draw, shapes[0], one), entries(draw, shapes[1], two)
    with jax.enable_x64(True):
        common = jnp.result_type(x, h)  # as documented; NumPy's differs where integers meet float32
    return (x, h), (x.astype(common), h.astype(common))


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@given(st.data())
def test_sums_of_two_arrays(name, data):
    draw = data.draw
    args, common = pair(draw)
    mode = draw(of("full", "same", "valid", "full", "same", "valid", "some"))
    assume(mode != "some" or args[0].ndim + args[1].ndim)  # SciPy multiplies scalars before it looks at the mode
    ours = getattr(jaxconv.signal, name)
    ours = partial(ours, accuracy="elementwise", method=draw(of("auto", "auto", "direct")))
    theirs = partial(getattr(scipy.signal, name), method="direct")
    agree(f"signal.{name}", args, dict(mode=mode), 0.0, theirs, ours, common)


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@given(st.data())
def test_sums_of_empty_arrays_are_empty(name, data):
    """SciPy returns no axes there, or refuses: documented otherwise."""
    draw = data.draw
    shapes = [tuple(draw(of(0, 1, 3)) for _ in range(2)) for _ in range(2)]
    assume(0 in shapes[0] + shapes[1])
    mode = draw(of("full", "same", "valid"))
    found = outcome(getattr(jaxconv.signal, name), [np.ones(s) for s in shapes], dict(mode=mode))
    if isinstance(found, Exception):
        assert mode == "valid"
        assert isinstance(found, ValueError)
    elif mode == "same":
        assert found.shape == shapes[0]
    else:
        assert found.size == 0


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
@given(st.data())
def test_sums_by_the_fft(name, data):
    draw = data.draw
    ndim = draw(st.integers(0, 3))
    axes = axes_of(draw, ndim) if ndim else None  # SciPy multiplies scalars before it looks at the axes
    mode = draw(of("full", "same", "valid", *(["some"] if ndim else [])))  # nor at the mode
    along = range(ndim) if axes is None or not exists(axes, ndim) else [d % ndim for d in np.atleast_1d(axes)]
    one, two = [], []
    for d in range(ndim):
        n, m = draw(of(1, 2, 4, 7)), draw(of(1, 2, 3, 9 if ndim < 3 else 4))
        if d not in along and draw(st.integers(0, 9)):
            n, m = draw(of((n, n), (n, 1), (1, n)))
            # Documented: axes of the batch broadcast in mode 'same' too, where SciPy crops them.
            n, m = (max(n, m), 1) if mode == "same" else (n, m)
        elif d not in along:
            n, m = n + 8, n + 1  # not to be broadcast: refused
        one, two = [*one, n], [*two, m]
    dtype = draw(of(*WHOLE, *INEXACT))
    x, h = entries(draw, one, dtype), entries(draw, two, draw(of(dtype, dtype, *INEXACT)))
    # Where one entry stands along every axis the arrays are multiplied, in the type that jnp.result_type says.
    assume(x.dtype == h.dtype or not all(1 in (one[d], two[d]) for d in along))
    # A transform of n numbers is off by 7 u log2(n) of its 2-norm (Higham, Accuracy and Stability, 24.2); there
    # are three, and a product, on either side; 1-norms are no smaller than 2-norms.
    inexact = [a.dtype for a in (x, h) if a.dtype.kind in "fc"]
    eps = max([np.finfo(float).eps, *(np.finfo(t).eps for t in inexact)])
    n = np.prod([2.0 * (a + b) for a, b in zip(one, two, strict=True)])
    bound = (21 * np.log2(max(n, 2)) + 3) * eps * np.abs(x.astype(complex)).sum() * np.abs(h.astype(complex)).sum()
    agree(f"signal.{name}", (x, h), dict(mode=mode, axes=axes), bound)


PLANES = ["fill", "wrap", "symm", "pad", "circular", "symmetric", "fold"]


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
@given(st.data())
def test_sums_of_planes(name, data):
    draw = data.draw
    rank = (2, 2) if draw(st.integers(0, 9)) else (1, 3)
    args, common = pair(draw, *rank)
    mode, boundary = draw(of("full", "same", "valid", "some")), draw(of(*PLANES))
    complexes = common[1].dtype.kind == "c"
    swapped = [n < m for n, m in zip(*(a.shape for a in args), strict=False)]
    # Documented: SciPy does not conjugate a larger in2 in mode 'valid'.
    assume(not (name == "correlate2d" and mode == "valid" and complexes and any(swapped)))
    kind = common[0].dtype.kind  # SciPy warns of what an unsigned type does not hold, and warnings are errors
    fills = (0, 0, 3, 5 if kind == "u" else -2, 2.5 if kind in "fc" else 4)
    kwargs = dict(mode=mode, boundary=boundary, fillvalue=draw(of(*fills)))
    agree(f"signal.{name}", args, kwargs, theirs_args=common)


@given(st.data())
def test_separable_planes(data):
    draw = data.draw
    x = entries(
        draw,
        tuple(draw(of(9, 5, 6, 7)) for _ in range(2)),
        draw(of("float32", "float64", "complex64", "complex128", "int32", "uint8")),
    )
    # SciPy refuses kernels of float64 for narrower images; jaxconv answers.
    wide = x.dtype in (np.float64, np.complex128, np.int32)
    kernel = of("float32", "float64") if wide else st.just("float32")
    rows, columns = (quarters(draw, (draw(of(3, 1, 5, 2)),), draw(kernel)) for _ in range(2))
    agree("signal.sepfir2d", (x, rows, columns))


EXTENSIONS = ["constant", "wrap", "edge", "symmetric", "reflect", "smooth", "antisymmetric", "antireflect", "line"]


@given(st.data())
def test_upfirdn(data):
    draw = data.draw
    x = entries(draw, shape_of(draw, 1, 2, (4, 3, 6, 1, 2)), draw(of("int32", "int64", *INEXACT)))
    h = quarters(draw, (draw(of(3, 1, 2, 5, 8, 4, 7, 10, 0)),), draw(of("int64", *INEXACT)))
    kwargs = dict(
        up=draw(of(1, 2, 3, 1, 2, 3, 4, 5, 0)), down=draw(of(1, 2, 3)), axis=axis_of(draw, x.ndim),
        mode=draw(of(*EXTENSIONS, *EXTENSIONS, "around")), cval=draw(of(0, 2, -1.5)),
    )  # fmt: skip
    # For a single entry SciPy divides by n - 1 = 0, or reads beyond the array.
    beyond = kwargs["mode"] in ("reflect", "antireflect", "smooth", "line")
    assume(not (beyond and kwargs["axis"] < x.ndim and x.shape[kwargs["axis"]] == 1))
    # A line's slope is a quotient; the line goes on for no more than len(h) positions of x.
    eps = max(np.finfo(t).eps for t in (x.dtype, h.dtype, np.dtype(float)) if t.kind in "fc")
    bound = (4 + h.size) * eps * np.abs(h).sum() * 13 * (2 * h.size + 3) if kwargs["mode"] == "line" else 0.0
    agree("signal.upfirdn", (h, x), kwargs, bound)


PADTYPES = [*EXTENSIONS, "mean", "median", "minimum", "maximum"]


@given(st.data())
def test_resample_poly(data):
    draw = data.draw
    x = entries(draw, shape_of(draw, 1, 2, (4, 3, 6, 2)), draw(of(*INEXACT)))
    up, down = draw(of(1, 2, 3, 4, 0)), draw(of(1, 2, 3, 6))
    window = draw(of(("kaiser", 5.0), "hamming", None))
    if window is None:
        window = quarters(draw, (draw(of(3, 1, 2, 5)),), "float64").real
    padtype = draw(of(*PADTYPES, *PADTYPES, "around"))
    assume(not (padtype == "median" and x.dtype.kind == "c"))  # the order of complex numbers
    kwargs = dict(axis=axis_of(draw, x.ndim), padtype=padtype, cval=draw(of(None, None, 2.0)), window=window)
    assume(kwargs["axis"] < x.ndim or up != down)  # SciPy returns x before it looks at the axis
    # Taps add up to no more than `most`; a background, or a line's slope, is a mean that is rounded; a line goes on
    # for no more than the filter's length.
    taps = np.size(window) if isinstance(window, np.ndarray) else 20 * max(up, down, 1) + 1
    most = np.abs(window).sum() if isinstance(window, np.ndarray) else 4.0
    eps = max(np.finfo(x.dtype).eps, np.finfo(float).eps)
    reach = 2 * (taps / max(up, 1) + 2) if padtype in ("line", "smooth", "antireflect") else 1
    bound = 2 * (taps + 8) * eps * 13 * reach * max(up, 1) * most
    agree("signal.resample_poly", (x, up, down), kwargs, bound)


def windows(draw):
    length = draw(of(3, 5, 4, 1, 7, 2))
    return length, draw(st.integers(0, length)), draw(of(0, 0, 1, 2, 3))


def conditioned(length, order):
    """The condition of the fit over positions 0 .. length - 1, times the dimensions: what least squares may lose."""
    A = np.vander(np.arange(-length, length + 1.0), order + 1)
    return length * (order + 1) * np.linalg.cond(A)


@given(st.data())
def test_savgol_coeffs(data):
    draw = data.draw
    length, order, deriv = windows(draw)
    kwargs = dict(
        deriv=deriv, delta=draw(of(1.0, 0.5)), pos=draw(of(None, None, 0, 1, 2, 7)), use=draw(of("conv", "dot", "so"))
    )
    try:
        h = scipy.signal.savgol_coeffs(length, order, **kwargs | dict(use="dot"))
    except ValueError:
        h = np.zeros(1)
    bound = conditioned(length, order) * np.finfo(float).eps * max(np.linalg.norm(h), kwargs["delta"] ** -deriv)
    agree("signal.savgol_coeffs", (length, order), kwargs, bound)


@given(st.data())
def test_savgol_filter(data):
    draw = data.draw
    length, order, deriv = windows(draw)
    # Documented: complex arrays keep their types.
    x = entries(draw, shape_of(draw, 1, 2, (9, 7, 4, 12)), draw(of("int32", "int8", "float32", "float64")))
    kwargs = dict(
        deriv=deriv, delta=draw(of(1.0, 0.5)), axis=axis_of(draw, x.ndim), cval=draw(of(0.0, 2.5)),
        mode=draw(of("interp", "mirror", "constant", "nearest", "wrap", "reflect")),
    )  # fmt: skip
    # Weights as above, and at the ends a polynomial of that order over the window's positions.
    eps = np.finfo(x.dtype if x.dtype == np.float32 else float).eps
    scale = 9 * length * float(max(length, 2)) ** order * 6 * kwargs["delta"] ** -deriv
    bound = conditioned(length, order) * np.finfo(float).eps * scale + 4 * length * eps * scale
    agree("signal.savgol_filter", (x, length, order), kwargs, bound)


@given(st.data())
def test_correlation_lags(data):
    draw = data.draw
    # At least one entry: for none, SciPy has as many lags as the other array, jaxconv none.
    n, m, mode = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(of("full", "same", "valid", "some"))
    # Documented: there SciPy's are one more than those of its own correlate.
    assume(not (mode == "same" and n % 2 == 1 and m % 2 == 0))
    agree("signal.correlation_lags", (n, m, mode))


@given(st.data())
def test_convolution_matrix(data):
    draw = data.draw
    a = entries(draw, shape_of(draw, 1, 3, (3, 1, 4, 6, 0)), draw(of(*WHOLE, *INEXACT)))
    n, mode = draw(of(4, 3, 1, 2, 5, 8, 6, 0)), draw(of(*["full", "same", "valid"] * 3, "some"))
    agree("signal.convolution_matrix", (a, n, mode), theirs=scipy.linalg.convolution_matrix)


@given(st.data())
def test_deconvolve(data):
    """The leading coefficient is a power of two: quotients are exact."""
    draw = data.draw
    double = of(*WHOLE, "float64", "complex128")  # SciPy's quotient is of double precision always
    a = entries(draw, (draw(of(5, 1, 3, 6, 0)),), draw(double))
    d = entries(draw, (draw(of(2, 1, 3, 7, 0)),), draw(double), -2, 2)
    d[:1] = draw(of(1, 2, 4, 0))
    assume(not (d.size == 1 and d[0] == 0))  # SciPy divides by it; jaxconv documents a ValueError
    for part in (0, 1) if d.size <= a.size else (1,):  # SciPy's empty quotient is float64 always
        theirs, ours = (lambda *a, f=f: f(*a)[part] for f in (scipy.signal.deconvolve, jaxconv.signal.deconvolve))
        agree("signal.deconvolve", (a, d), {}, 0.0, theirs, ours)


@given(st.data())
def test_autocorrelation(data):
    """SciPy's correlation of an array with itself, at the lags that are asked for."""
    draw = data.draw
    x = entries(draw, (draw(of(5, 1, 4, 7)),), draw(of("int32", *INEXACT)))
    low = draw(st.integers(-9, 4))
    lags = draw(of(None, 2, 8, (low, low + 3)))
    scale = draw(of("none", "none", "biased", "unbiased", "normalized"))
    n = len(x)
    first, last = (1 - n, n - 1) if lags is None else (-lags, lags) if isinstance(lags, int) else lags
    every = np.arange(first, last + 1)
    full = np.pad(scipy.signal.correlate(x, x, method="direct"), 20)
    by = {
        "none": 1, "biased": n, "unbiased": np.maximum(n - np.abs(every), 1),
        "normalized": max((np.abs(x) ** 2).sum(), np.abs(x).max() == 0),
    }[scale]  # fmt: skip
    with jax.enable_x64(True):
        found = jaxconv.signal.autocorrelation(x, lags, scale=scale, accuracy="elementwise")
    expected = (full[every + n - 1 + 20] / (1 if scale == "none" else by)).astype(found.dtype)
    assert found.dtype == x.dtype or (scale != "none" and x.dtype == np.int32 and found.dtype.kind == "f")
    # One quotient, rounded on either side; abs squares a root.
    near(found, expected, 0.0 if scale == "none" else 8 * np.finfo(found.dtype).eps * np.abs(expected))


@given(st.data())
def test_the_method_that_is_chosen(data):
    """Its name differs from SciPy's, as documented; what it computes does not."""
    draw = data.draw
    (x, h), common = pair(draw, 1, 2, INEXACT)
    mode = draw(of("full", "same", "valid"))

    try:
        expected = scipy.signal.convolve(*common, mode, method="direct")
    except ValueError:
        return
    with jax.enable_x64(True):
        method = jaxconv.signal.choose_conv_method(x, h, mode)
        found = jaxconv.signal.convolve(x, h, mode, method)
    problem = Problem(mode_axes("test", x.shape, h.shape, mode, True), dtypes=Triple(*[common[0].dtype.name] * 3))
    arrays = common[0].reshape(problem.x_shape), common[1].reshape(problem.w_shape)
    near(found, expected, 2 * error_bound(problem, [ENGINES[method], ENGINES["shifts"]], *arrays)[0, 0, 0])
