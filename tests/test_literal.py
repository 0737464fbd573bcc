"""accuracy='elementwise': a NaN or an infinity of either operand is in those sums alone that it is a term of."""

from dataclasses import replace
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.literal import literal
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.reference import reference
from tests.problems import NHWC, PASSES

LAYERS = {
    "same": Problem((Axis(6, 3, 6, p=1), Axis(5, 2, 5, D=-1)), n=2, c=2, m=3, layouts=NHWC),
    "wide, stride 2": Problem((Axis(5, 3, 7, S=2, p=4),), n=2, g=2, c=2, m=3),
    "crop and pad, dilated": Problem((Axis(7, 3, 6, D=2, p=-2),), c=2, m=3),
    "input dilated": Problem((Axis(4, 3, 8, L=2, p=1),), n=2, c=2, m=3),
    "input dilated, stride 2": Problem((Axis(4, 4, 6, L=3, S=2, D=-2, p=-2),), n=2, m=3),
    "a kernel beside one entry": Problem((Axis(1, 5, 5, D=-1), Axis(6, 3, 4)), m=3),
}
SPOILT = {  # the values of w, one for each place; and of x
    "first": ([np.nan], []),
    "last": ([1, 2, -np.inf], []),
    "all": ([np.inf, np.nan, -np.inf, 1, np.inf], []),
    "both": ([1, np.inf], [-np.inf, np.nan]),
    "input": ([], [np.inf]),
    "none": ([], []),
}


def spoilt(problem, values, dtype, rng):
    """x and w of small integers, which sum exactly in any type; with `values` spread over them."""
    arrays = []
    for shape, those in ((problem.w_shape, values[0]), (problem.x_shape, values[1])):
        array = rng.integers(-2, 3, shape).astype(np.float32)
        for value, place in zip(those, np.linspace(0, array.size - 1, max(2, len(those))).astype(int), strict=False):
            array.flat[place] = value
        arrays.append(jnp.asarray(array).astype(dtype))
    return arrays[::-1]


def seen(y):
    """Values; of complex numbers, whose infinite products are a matter of taste, whether they are finite."""
    y = np.asarray(y)
    return np.where(np.isfinite(y), y, np.nan) if y.dtype.kind == "c" else y.astype(np.float64)


@pytest.mark.parametrize(("dtype", "passes"), [("float32", 3), ("bfloat16", 1), ("complex64", 1)])
@pytest.mark.usefixtures("nan")
def test_nothing_is_spread(dtype, passes):
    """The literal sum of NumPy, whatever the engine and wherever the kernel's NaN is: beside, between and in x."""
    problems, methods = [], []
    for d, layer in enumerate(LAYERS.values()):
        for t in range(d, d + passes):
            problem = replace(list(PASSES.values())[t % 3](layer), dtypes=Triple(dtype, dtype, dtype))
            able = [e.name for e in ENGINES.values() if e.elementwise(problem) and not e.refusal(problem, "cpu")]
            methods.append(["auto", *able][len(problems) % (1 + len(able))])
            problems.append(problem)
    assert len(set(methods)) > 2

    @jax.jit
    def run(operands):
        options = [Options(method, accuracy="elementwise") for method in methods]
        return [contract(p, x, w, wish) for p, (x, w), wish in zip(problems, operands, options, strict=True)]

    for values in SPOILT.values():
        operands = [spoilt(problem, values, dtype, np.random.default_rng(0)) for problem in problems]
        for problem, method, (x, w), y in zip(problems, methods, operands, run(operands), strict=True):
            with np.errstate(invalid="ignore"):
                truth = reference(problem, np.asarray(x), np.asarray(w))
            np.testing.assert_array_equal(seen(y), seen(truth), f"{method}, {problem}")


@pytest.mark.parametrize("axis", [Axis(4096, 4096, 1), Axis(4199, 2100, 2100)], ids=["by outputs", "by taps"])
def test_half_types_sum_in_float32(axis):
    """As many ones: float16 would stop counting at 2048."""
    problem = Problem((axis,), dtypes=Triple("float16", "float16", "float16"))
    y = literal(problem, jnp.ones(problem.x_shape, jnp.float16), jnp.ones(problem.w_shape, jnp.float16))
    assert y.dtype == jnp.float16
    np.testing.assert_array_equal(y, axis.K)


def test_only_where_a_zero_may_be_met():
    """Nothing is asked where the kernel stays within the input, of integers, or under accuracy='normwise'."""
    x, h = jnp.ones(9), jnp.ones(3)

    def conditions(x, mode, accuracy):
        f = partial(jaxconv.correlate, mode=mode, accuracy=accuracy)
        return jax.jit(f).lower(x, h.astype(x.dtype)).as_text().count("stablehlo.case")

    assert conditions(x, "same", "elementwise") == 1
    assert conditions(x, "valid", "elementwise") == 0
    assert conditions(x, "same", "normwise") == 0
    assert conditions(x.astype(int), "same", "elementwise") == 0


@pytest.mark.usefixtures("nan")
def test_functions_that_sum_directly():
    """SciPy's functions, whose default it is."""
    x, h = np.arange(1, 6, dtype=np.float32), np.array([1, np.nan, 2], np.float32)
    full = [1, np.nan, np.nan, np.nan, np.nan, np.nan, 10]
    np.testing.assert_array_equal(jaxconv.signal.convolve2d(x[None], h[None])[0], full)
    np.testing.assert_array_equal(jaxconv.signal.upfirdn(h, x, up=3)[:7], [1, np.nan, 2, 2, np.nan, 4, 3])
    h = np.array([np.inf, 1, 1], np.float32)
    found = jaxconv.ndimage.correlate1d(x, h, mode="constant")
    np.testing.assert_array_equal(found, [3, np.inf, np.inf, np.inf, np.inf])


@pytest.mark.usefixtures("nan")
def test_under_shard_map_and_export():
    """Each device asks its own part of the kernels; other platforms have the same program."""
    problem = Problem((Axis(8, 3, 8, p=1),), n=2, c=2, m=4)
    part = replace(problem, m=2)
    x, w = spoilt(problem, ([np.nan], []), "float32", np.random.default_rng(0))
    options = Options(accuracy="elementwise")
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        lambda x, w: contract(part, x, w, options),
        mesh=mesh,
        in_specs=(P(), P(None, "d")),
        out_specs=P(None, None, "d"),
    )
    truth = reference(problem, x, w)
    np.testing.assert_array_equal(mapped(x, w), truth)
    exported = jax.export.export(jax.jit(partial(contract, problem, options=options)), platforms=["cpu", "cuda", "tpu"])
    np.testing.assert_array_equal(exported(x, w).call(x, w), truth)
