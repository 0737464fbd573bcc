"""The table of problems that every engine must solve, and how an answer is judged."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.engines import Engine
from jaxconv.engines.base import accumulator
from jaxconv.padding import lax_axes, mode_axes
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.reference import reference

DTYPES = ("float32", "float64", "complex64", "complex128", "bfloat16", "float16", "int32", "int64", "int8", "uint8")
NHWC = Triple("n01gc", "01cgm", "n01gm")


def _typed(problem: Problem, dtype: str, out: str | None = None) -> Problem:
    return replace(problem, dtypes=Triple(dtype, dtype, out or dtype))


def _modes():
    """SciPy's modes and alignments, even and odd kernels, kernels larger than the input."""
    for (n, m), mode, flip in product(
        [(7, 3), (6, 4), (3, 8), (5, 5), (1, 3), (4, 1)], ("full", "same", "valid"), (True, False)
    ):
        name = f"{'convolve' if flip else 'correlate'}-{mode}-{n}x{m}"
        yield name, Problem(mode_axes("test", [n], [m], mode, flip))


def _layers():
    """lax's strides, dilations and pads, with groups, in one to three dimensions."""

    def layer(name, extents, kernel, strides=None, padding="SAME", L=None, D=None, **sizes):
        ones = [1] * len(extents)
        return name, Problem(lax_axes("test", extents, kernel, strides or ones, padding, L, D), **sizes)

    yield layer("1d", [9], [3], n=2, c=3, m=4)
    yield layer("1d-valid", [9], [4], padding="VALID", n=2, c=2, m=2)
    yield layer("1d-stride2", [9], [3], [2], n=2, c=2, m=3)
    yield layer("1d-stride3-even", [10], [4], [3], "SAME_LOWER", n=1, c=2, m=2)
    yield layer("1d-stride-over-kernel", [11], [2], [4], "VALID", n=2)
    yield layer("1d-dilated2", [9], [3], D=[2], n=2, c=2, m=2)
    yield layer("1d-dilated3-stride2", [12], [3], [2], D=[3], n=2, c=2, m=2)
    yield layer("1d-input-dilated2", [5], [3], padding=[(2, 2)], L=[2], n=2, c=2, m=2)
    yield layer("1d-input-dilated3-stride2", [5], [4], [2], [(1, 3)], L=[3], n=2, c=2, m=2)
    yield layer("1d-both-dilated-stride", [6], [3], [3], [(2, 1)], L=[2], D=[2], n=1, c=2, m=3)
    yield layer("1d-crop", [9], [3], padding=[(-2, -1)], n=2, c=2, m=2)
    yield layer("1d-crop-pad", [9], [3], [2], [(-3, 4)], n=2, c=2, m=2)
    yield layer("1d-crop-dilated", [6], [3], padding=[(-3, 2)], L=[2], n=1, c=2, m=2)
    yield layer("1d-wide-pad", [4], [3], padding=[(7, 9)], n=1, c=2, m=2)
    yield layer("1d-kernel-larger", [4], [9], padding=[(5, 6)], n=2, c=2, m=2)
    yield layer("1d-kernel-larger-dilated", [4], [5], padding=[(4, 6)], D=[3], n=2, c=1, m=2)
    yield layer("1d-long-kernel", [40], [33], n=1, c=2, m=2)
    yield layer("1d-many-taps", [90], [70], padding="VALID", n=1, c=2, m=1)
    yield layer("1d-many-taps-outputs", [140], [70], padding="VALID", n=1, c=1, m=1)
    yield layer("1d-groups", [8], [3], n=2, g=2, c=2, m=3)
    yield layer("1d-depthwise", [8], [5], n=2, g=4)
    yield layer("1d-depthwise-multiplier", [8], [3], [2], n=2, g=3, m=2)
    yield layer("1d-causal", [8], [3], padding=[(2, 0)], n=2, c=2, m=2)
    yield layer("1d-pointwise", [8], [1], n=2, c=3, m=4)
    yield layer("1d-pointwise-stride", [8], [1], [3], n=2, c=3, m=2)
    yield layer("2d", [6, 5], [3, 3], n=2, c=3, m=2)
    yield layer("2d-valid-even", [6, 5], [2, 4], padding="VALID", n=2, c=2, m=2)
    yield layer("2d-stride", [7, 6], [3, 3], [2, 2], n=2, c=2, m=2)
    yield layer("2d-strides-differ", [7, 6], [3, 2], [1, 3], "SAME_LOWER", n=2, c=2, m=2)
    yield layer("2d-dilated", [7, 7], [3, 3], D=[2, 1], n=1, c=2, m=2)
    yield layer("2d-dilations-pads", [4, 5], [3, 2], [2, 1], [(1, 2), (-1, 3)], [2, 3], [1, 2], n=2, c=2, m=2)
    yield layer("2d-transposed", [4, 4], [3, 3], padding=[(2, 1), (2, 1)], L=[2, 2], n=2, c=2, m=3)
    yield layer("2d-groups", [5, 5], [3, 3], n=2, g=2, c=2, m=2)
    yield layer("2d-groups-stride", [6, 5], [3, 3], [2, 2], n=2, g=3, c=1, m=2)
    yield layer("2d-depthwise", [6, 6], [3, 3], n=2, g=4)
    yield layer("2d-depthwise-dilated", [6, 6], [3, 3], [1, 2], D=[2, 2], n=1, g=3, m=2)
    yield layer("2d-kernel-larger", [3, 4], [5, 7], n=1, c=2, m=2)
    yield layer("2d-one-column", [5, 1], [3, 3], n=2, c=2, m=2)
    yield layer("2d-one-row-kernel", [5, 4], [1, 3], n=2, c=2, m=2)
    yield layer("2d-crop", [7, 7], [3, 3], padding=[(-1, -2), (2, -3)], n=1, c=2, m=2)
    yield layer("2d-many-taps", [9, 9], [9, 9], n=1)
    yield layer("2d-few-inputs", [3, 2], [3, 3], n=2, c=50, m=3)
    yield layer("2d-few-inputs-groups", [2, 3], [2, 4], padding=[(1, 2), (2, -1)], D=[2, 1], n=1, g=2, c=24, m=2)
    yield layer("2d-single-output", [5, 5], [5, 5], padding="VALID", n=3, c=2, m=4)
    yield layer("3d", [4, 3, 4], [2, 3, 2], n=1, c=2, m=2)
    yield layer("3d-stride", [4, 5, 4], [2, 3, 2], [2, 1, 3], n=1, c=2, m=2)
    yield layer("3d-transposed", [2, 3, 2], [3, 2, 3], padding=[(1, 1)] * 3, L=[2, 1, 2], n=1, c=2, m=1)
    yield layer("3d-groups-dilated", [4, 4, 3], [2, 2, 2], padding="VALID", D=[2, 1, 2], n=2, g=2, c=1, m=2)
    yield layer("4d", [3, 2, 3, 2], [2, 2, 1, 2], n=1, c=2, m=1)
    yield layer("0d", [], [], n=2, g=2, c=3, m=2)


def _signed():
    """Relations that no user writes but that transposes and flips make."""
    yield "flipped-output", Problem((Axis(7, 3, 5, S=-1, p=-4),), n=2, c=2, m=2)
    yield "flipped-input", Problem((Axis(7, 3, 5, L=-1, p=6),), n=2, c=2, m=2)
    yield "flipped-all", Problem((Axis(7, 3, 4, L=-1, S=-2, D=-1, p=0),), n=2, c=2, m=2)
    yield "convolution-stride2", Problem((Axis(8, 3, 4, S=2, D=-1, p=-1),), n=2, c=2, m=2)
    yield "convolution-dilated", Problem((Axis(8, 3, 8, D=-2, p=-2), Axis(5, 2, 6, D=-1)), n=2, c=2, m=2)
    yield "coefficients-2-3-5", Problem((Axis(6, 4, 7, L=2, S=3, D=5, p=4),), n=2, c=2, m=2)
    yield "coefficients-4-2-2", Problem((Axis(6, 3, 9, L=4, S=2, D=-2, p=1),), n=1, c=2, m=2)
    yield "nothing-meets", Problem((Axis(4, 3, 5, p=50),), n=2, c=2, m=2)
    yield "nothing-meets-parity", Problem((Axis(4, 1, 5, L=2, S=2, p=1),), n=2, c=2, m=2)
    yield "far-left", Problem((Axis(9, 2, 3, p=-6),), c=2)


def _degenerate():
    """Empty arrays, and extents of one."""
    yield "empty-batch", Problem((Axis(5, 3, 3),), n=0, c=2, m=2)
    yield "empty-channels", Problem((Axis(5, 3, 3),), n=2, c=0, m=2)
    yield "empty-features", Problem((Axis(5, 3, 3),), n=2, c=2, m=0)
    yield "empty-groups", Problem((Axis(5, 3, 3),), n=2, g=0, c=2, m=2)
    yield "empty-input", Problem((Axis(0, 3, 4, p=3),), n=2, c=2, m=2)
    yield "empty-kernel", Problem((Axis(5, 0, 4),), n=2, c=2, m=2)
    yield "empty-output", Problem((Axis(3, 5, 0),), n=2, c=2, m=2)
    yield "one-of-all", Problem((Axis(1, 1, 1),))
    yield "one-input", Problem((Axis(1, 4, 6, p=3),), n=2, c=2, m=2)
    yield "one-output", Problem((Axis(6, 4, 1, p=1),), n=2, c=2, m=2)


def _typed_rows():
    """Each dtype in a layer, a strided grouped layer, a convolution; wider results."""
    layer = Problem(lax_axes("test", [6, 5], [3, 2], [1, 1], "SAME"), n=2, c=3, m=2)
    grouped = Problem(lax_axes("test", [9], [3], [2], "SAME", None, [2]), n=2, g=2, c=2, m=2)
    plain = Problem(mode_axes("test", [12], [5], "full", True))
    for dtype in DTYPES:
        for name, problem in (("layer", layer), ("grouped", grouped), ("convolve", plain)):
            yield f"{dtype}-{name}", _typed(problem, dtype)
    wider = [("bfloat16", "float32"), ("float16", "float32"), ("int8", "int32"), ("float32", "float64")]
    for dtype, out in [*wider, ("int8", "float32"), ("int32", "float32"), ("uint8", "float64")]:
        yield f"{dtype}-to-{out}", _typed(layer, dtype, out)


def _layouts():
    """Other orders of the arrays' axes: channels last, batch groups, mixtures."""
    axes = lax_axes("test", [5, 4], [3, 2], [1, 2], "SAME")
    for name, layouts in {
        "channels-last": NHWC,
        "batch-groups": Triple("gnc01", "gmc01", "ngm01"),
        "groups-apart": Triple("g0n1c", "mc10g", "g1n0m"),
        "reversed": Triple("10cgn", "10cmg", "10mgn"),
    }.items():
        yield f"layout-{name}", Problem(axes, n=2, g=2, c=3, m=2, layouts=layouts)
        yield f"layout-{name}-depthwise", Problem(axes, n=2, g=3, layouts=layouts)
        yield f"layout-{name}-one-group", _typed(Problem(axes, n=2, c=2, m=3, layouts=layouts), "float64")


PROBLEMS: dict[str, Problem] = dict(
    [*_modes(), *_layers(), *_signed(), *_degenerate(), *_typed_rows(), *_layouts()],
)
PASSES = {
    "forward": lambda problem: problem,
    "input": lambda problem: problem.input_pass,
    "kernel": lambda problem: problem.kernel_pass,
}


def operands(problem: Problem, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random x and w of the problem's shapes and dtypes: normal, or any integers."""
    rng = np.random.default_rng(seed)
    return tuple(
        _draw(rng, shape, jnp.dtype(dtype))
        for shape, dtype in ((problem.x_shape, problem.dtypes.x), (problem.w_shape, problem.dtypes.w))
    )  # type: ignore[return-value]


def _draw(rng, shape, dtype) -> np.ndarray:
    if jnp.issubdtype(dtype, jnp.integer):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
    a = rng.normal(size=shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        a = a + 1j * rng.normal(size=shape)
    return np.asarray(a, dtype)


def wide(problem: Problem) -> bool:
    """Whether the problem needs 64-bit types."""
    return any(jnp.dtype(dtype).name in ("float64", "complex128", "int64") for dtype in problem.dtypes)


def check(problem: Problem, engines, y, x, w) -> None:
    """Assert that y is the reference's answer: exactly for integers, else within the engine's bound.

    The bound is `Engine.error`'s, in units of the accumulation type, over 1 - u*a for the higher
    orders; to it comes the rounding of y to its own type (and the smallest number that it holds),
    and the reference's own error of as many float64 units as it sums terms.
    """
    engines = [engines] if isinstance(engines, Engine) else engines
    y = np.asarray(y)
    assert y.shape == problem.y_shape
    assert y.dtype == jnp.dtype(problem.dtypes.y)
    if problem.is_exact:
        np.testing.assert_array_equal(y, reference(problem, x, w).astype(y.dtype))
        return
    truth = reference(problem, _wide(x), _wide(w))
    bound = error_bound(problem, engines, x, w)
    error = np.abs(y.astype(truth.dtype) - truth)
    assert np.all(error <= bound), (
        f"error {error.max():.3g}, {np.nanmax(error / bound):.3g} of the bound, for\n{problem}"
    )


def by_taps(problem: Problem, x, w) -> np.ndarray:
    """The reference's sum, one kernel position at a time: for problems too large for it."""
    lx, lw, ly = problem.layouts
    x = _wide(x).transpose([lx.index(letter) for letter in problem.spatial + "ngc"])
    w = _wide(w).transpose([lw.index(letter) for letter in problem.spatial + "gmc"])
    O = [axis.O for axis in problem.axes]
    y = np.zeros((*O, problem.n, problem.g, problem.m), np.result_type(x, w))
    meetings = []
    for axis in problem.axes:
        found = [[] for _ in range(axis.K)]
        for i, k, o in axis.meetings():
            found[k].append((i, o))
        meetings.append(found)
    for k in product(*(range(axis.K) for axis in problem.axes)):
        pairs = [found[j] for found, j in zip(meetings, k, strict=True)]
        if all(pairs):
            i, o = (np.ix_(*([pair[end] for pair in axis] for axis in pairs)) for end in (0, 1))
            if problem.g == 1:
                y[*o, :, 0] += x[*i, :, 0] @ w[*k, 0].T
            else:
                y[o] += np.einsum("...ngc,gmc->...ngm", x[i], w[k])
    return y.transpose([(problem.spatial + "ngm").index(letter) for letter in ly])


def error_bound(problem: Problem, engines, x, w, sums=reference) -> np.ndarray:
    total = sums(problem, np.abs(_wide(x)), np.abs(_wide(w)))
    x_norm = _norms(_wide(x), problem.layouts.x, "ng")
    w_norm = _norms(_wide(w), problem.layouts.w, "gm")
    norms = np.einsum("ng,gm->ngm", x_norm, w_norm)
    norms = norms.reshape(norms.shape + (1,) * len(problem.axes)) * np.ones([axis.O for axis in problem.axes])
    norms = norms.transpose([("ngm" + problem.spatial).index(letter) for letter in problem.layouts.y])
    u = float(jnp.finfo(accumulator(problem)).eps) / 2
    computed = np.zeros(problem.y_shape)
    for engine in engines:
        a, b = engine.error(problem)
        computed = np.maximum(computed, u * (a * total + b * norms) / (1 - u * (a + b)))
    info = jnp.finfo(problem.dtypes.y)
    rounded = float(info.eps) / 2 * (total + computed) * 2**0.5 + float(info.smallest_subnormal)
    return computed + rounded + 2.0**-53 * 4 * (problem.terms + 3) * total


def _wide(a) -> np.ndarray:
    return np.asarray(a).astype(np.complex128 if np.asarray(a).dtype.kind == "c" else np.float64)


def _norms(a: np.ndarray, layout: str, kept: str) -> np.ndarray:
    a = a.transpose([layout.index(letter) for letter in kept + "".join(c for c in layout if c not in kept)])
    return np.sqrt((np.abs(a) ** 2).sum(tuple(range(2, a.ndim))))


def x64(problem: Problem):
    """The context in which the problem's dtypes exist."""
    return jax.enable_x64(wide(problem))
