"""Every engine against the reference: the table, drawn problems, random engines per pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from jaxconv.engines import ENGINES
from jaxconv.engines.fft import fast_length
from jaxconv.padding import lax_axes, mode_axes
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.reference import reference
from scripts.problems import ROWS
from tests.problems import DTYPES, NHWC, PASSES, PROBLEMS, check, operands, x64


def test_the_table_is_long_enough():
    assert len(PROBLEMS) >= 120


@pytest.mark.covering
@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda e: e.name)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_and_pass(name, engine):
    for of in PASSES.values():
        problem = of(PROBLEMS[name])
        integers = [jnp.issubdtype(dtype, jnp.integer) for dtype in problem.dtypes]
        if engine.refusal(problem, "cpu") or (integers[2] and not all(integers)):
            continue  # (integers have no derivatives: nothing is their gradient)
        x, w = operands(problem)
        with x64(problem):
            y = contract(problem, x, w, Options(forward=engine.name))
        check(problem, engine, y, x, w)


@pytest.mark.sampled(13)
@pytest.mark.parametrize(("name", "engine"), [(name, engine) for name in PROBLEMS for engine in ENGINES])
def test_what_accelerators_run(name, engine):
    """The forms that an engine takes for a GPU, compiled for this processor."""
    engine = ENGINES[engine]
    problems = [of(PROBLEMS[name]) for of in PASSES.values()]
    if engine.name == "gemm" and problems[0].dtypes.x == "bfloat16":
        pytest.skip("XLA has no product of bfloat16 that is summed in float32 for this processor (DotThunk)")
    able = [p for p in problems if not engine.refusal(p, "gpu") and not p.is_empty]
    if jnp.issubdtype(problems[0].dtypes.y, jnp.integer) != jnp.issubdtype(problems[0].dtypes.x, jnp.integer):
        able = able[:1]  # (integers have no derivatives)
    run = jax.jit(lambda pairs: [engine.run(p, *pair, platform="gpu") for p, pair in zip(able, pairs, strict=True)])
    pairs = [operands(problem) for problem in able]
    with x64(problems[0]):
        found = run(pairs)
    for problem, (x, w), y in zip(able, pairs, found, strict=True):
        check(problem, engine, y, x, w)


@pytest.mark.parametrize("engine", [e for e in ENGINES.values() if not e.opaque], ids=lambda e: e.name)
def test_every_contraction_lowers_for_accelerators(engine):
    """All rows of the bench, in one program."""
    able = [p for p in ROWS if not engine.refusal(p, "gpu") and not engine.refusal(p, "tpu")]
    pairs = [tuple(jax.ShapeDtypeStruct(s, np.float32) for s in (p.x_shape, p.w_shape)) for p in able]

    def all_rows(pairs):
        return [contract(p, x, w, Options(engine.name)) for p, (x, w) in zip(able, pairs, strict=True)]

    for platform in ("cuda", "tpu"):
        text = jax.jit(all_rows).trace(pairs).lower(lowering_platforms=(platform,)).as_text()
        assert len(able) > 40
        assert ("stablehlo.convolution" in text) == (engine.name == "direct")


def test_every_refusal_of_the_table_has_its_reason():
    """Integers are never rounded; winograd has no strides, and bounded kernels and axes; nothing else is refused."""
    for name, problem in PROBLEMS.items():
        for of in PASSES.values():
            layer = of(problem)
            for engine in ENGINES.values():
                no = engine.refusal(layer, "cpu")
                if no is None:
                    continue
                assert no.startswith(f"{engine.name}: "), name
                assert no.endswith("."), name
                reasons = {
                    "it rounds, and": layer.is_exact and engine.name in ("winograd", "fft", "overlap"),
                    "it has no stride": engine.name == "winograd",
                    "taps are too many": engine.name == "winograd",
                    "leaves nothing to transform": engine.name in ("winograd", "overlap"),
                    "shifted copies": engine.name == "gemm",
                    "it has float32 only": engine.name == "native" and {*layer.dtypes} != {"float32"},
                    "convolves at most 3 axes": engine.name == "native" and len(layer.axes) > 3,
                    "of which there is one": engine.name == "native" and layer.g == 1,
                    "a stride and a dilated input": any(abs(axis.L) > 1 < abs(axis.S) for axis in layer.axes)
                    or len({abs(axis.L) > 1 for axis in layer.axes}) == 2,
                    "meet no input": engine.name == "native",
                    "is not installed": engine.name == "native",
                    "cannot be loaded": engine.name == "native",
                    "transforms at most 3 axes": engine.name in ("winograd", "overlap") and len(layer.axes) > 3,
                }
                assert any(text in no and true for text, true in reasons.items()), no


@pytest.mark.covering
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("engine", [e for e in ENGINES if e != "native"])
def test_eight_bit_floating_types(engine, dtype):
    """Small integers, which they hold: summed in float32, exactly (the FFT's are rounded to them again)."""
    problem = Problem((Axis(6, 3, 6, p=1),), n=2, c=2, m=2, dtypes=Triple(dtype, dtype, dtype))
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.integers(-1, 2, shape), dtype) for shape in (problem.x_shape, problem.w_shape))
    y = contract(problem, x, w, Options(forward=engine))
    assert y.dtype == x.dtype
    truth = reference(problem, *(np.asarray(a, np.int64) for a in (x, w)))
    np.testing.assert_array_equal(np.round(np.asarray(y, np.float64)), truth)


axes = st.builds(
    Axis,
    *[st.integers(0, 7)] * 3,
    L=st.sampled_from([1, 1, 2, 3, -1, -2]),
    S=st.sampled_from([1, 1, 2, 3, -1, -2]),
    D=st.sampled_from([1, -1, 2, -2, 3]),
    p=st.integers(-8, 8),
)
problems = st.builds(
    Problem,
    st.lists(axes, min_size=0, max_size=2).map(tuple),
    n=st.integers(0, 2),
    g=st.integers(1, 2),
    c=st.integers(1, 3),
    m=st.integers(1, 2),
    dtypes=st.sampled_from([Triple(t, t, t) for t in ("float32", "int32", "complex64")]),
)


@given(problems, st.sampled_from(sorted(ENGINES)), st.integers(0, 2**16))
def test_drawn_problems(problem, name, seed):
    note(repr(problem))  # to be pasted back
    engine = ENGINES[name]
    if engine.refusal(problem, "cpu"):
        return
    x, w = operands(problem, seed)
    check(problem, engine, contract(problem, x, w, Options(forward=name)), x, w)


def test_padding_that_cancels():
    """What one end crops the other pads: XLA's own convolution on CPU, of few channels, read outside x there."""
    crops = [([8, 8], [(-1, 1), (0, 0)]), ([8, 8], [(0, 0), (-2, 2)]), ([16], [(-2, 2)]), ([16], [(2, -2)])]
    layers = [
        Problem(lax_axes("test", extents, [5] * len(pads), [1] * len(pads), pads), n=2, c=8, m=8)
        for extents, pads in crops
    ]
    problems = [of(layer) for of in PASSES.values() for layer in layers]
    for options in (Options("direct"), Options("direct", accuracy="elementwise")):
        _check_together(problems, options, range(3))


def _check_together(problems, options, seeds):
    """All in one program: compiling takes the time."""
    run = jax.jit(lambda pairs: [contract(p, x, w, options) for p, (x, w) in zip(problems, pairs, strict=True)])
    for seed in seeds:
        pairs = [operands(problem, seed) for problem in problems]
        for problem, (x, w), y in zip(problems, pairs, run(pairs), strict=True):
            check(problem, ENGINES[options.forward], y, x, w)


def _far(rng: np.random.Generator) -> Problem:
    """Pads of either sign that may be larger than input and kernel, with strides and dilations, in any dtype."""
    axes = tuple(
        Axis(*map(int, rng.integers(1, 8, 3)), *map(int, rng.integers(1, 4, 2)), int(rng.choice([-3, -2, -1, 1, 2, 3])),
             p=int(rng.integers(-12, 13)))
        for _ in range(rng.integers(1, 3))
    )  # fmt: skip
    dtype = str(rng.choice(DTYPES))
    return Problem(axes, *map(int, rng.integers(1, 3, 4)), dtypes=Triple(dtype, dtype, dtype))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 30))])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda e: e.name)
def test_pads_of_every_sign(engine, seed):
    rng = np.random.default_rng(seed)
    problems = [of(_far(rng)) for of in [*PASSES.values()] * 7]
    with jax.enable_x64(True):
        _check_together([p for p in problems if not engine.refusal(p, "cpu")], Options(engine.name), [seed])


@given(problems)
def test_a_problem_can_be_pasted_back(problem):
    assert eval(repr(problem), {"Problem": Problem, "Axis": Axis, "Triple": Triple}) == problem


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", range(12))
def test_random_engines_per_pass(seed):
    """Which engine runs in which pass changes no result beyond the engines' bounds."""
    rng = np.random.default_rng(seed)
    names = [name for name, problem in PROBLEMS.items() if problem.dtypes == Triple(*["float32"] * 3)]
    problem = PROBLEMS[str(rng.choice(names))]
    able = {
        name: [e.name for e in ENGINES.values() if not e.refusal(of(problem), "cpu")] for name, of in PASSES.items()
    }
    methods = {name: rng.choice(names) for name, names in able.items()}
    options = Options(**{name: str(method) for name, method in methods.items()})
    x, w = operands(problem, seed)
    dy = np.asarray(rng.normal(size=problem.y_shape), np.float32)
    y, vjp = jax.vjp(lambda x, w: contract(problem, x, w, options), x, w)
    dx, dw = vjp(dy)
    check(problem, ENGINES[options.forward], y, x, w)
    check(problem.input_pass, ENGINES[options.input], dx, dy, w)
    check(problem.kernel_pass, ENGINES[options.kernel], dw, x, dy)

    # Second order: the derivative of dx in w and of dw in x, by the third engine each.
    hvp = jax.vjp(lambda dy, w: contract(problem.input_pass, dy, w, options.input_pass), dy, w)[1]
    ddy, ddw = hvp(x)
    check(problem, ENGINES[options.forward], ddy, x, w)
    check(problem.kernel_pass, ENGINES[options.kernel], ddw, x, dy)


@pytest.mark.covering
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda e: e.name)
@pytest.mark.parametrize("name", ["layer", "input", "kernel", "depthwise kernel", "strided kernel"])
@pytest.mark.usefixtures("nan")
def test_elementwise_engines_keep_a_nan_local(name, engine, value):
    """It reaches the outputs that read it, and no other: in each pass, whatever is padded or cut into blocks."""
    axes = (Axis(9, 3, 9, p=1), Axis(8, 3, 8, p=1))
    layer = Problem(axes, n=2, c=3, m=4, layouts=NHWC)
    problem = {
        "layer": layer,
        "input": layer.input_pass,
        "kernel": layer.kernel_pass,
        "depthwise kernel": Problem(axes, n=2, g=40, layouts=NHWC).kernel_pass,
        "strided kernel": Problem((Axis(9, 3, 5, S=2, p=1), axes[1]), n=2, c=3, m=4, layouts=NHWC).kernel_pass,
    }[name]
    if engine.refusal(problem, "cpu") or not engine.elementwise(problem):
        return
    x, w = operands(problem)
    place = tuple(0 if c in problem.spatial else size - 1 for c, size in zip(problem.layouts.x, x.shape, strict=True))
    marked = np.zeros_like(x)
    marked[place] = 1
    reads = reference(problem, marked, np.ones_like(w)) != 0
    assert not reads.all()
    x[place] = value
    y = np.asarray(contract(problem, x, w, Options(forward=engine.name)))
    np.testing.assert_array_equal(~np.isfinite(y), reads)


@pytest.mark.usefixtures("nan")
def test_the_fft_spreads_a_nan():
    """Why 'elementwise' excludes it."""
    problem = Problem((Axis(32, 3, 32, p=1),))
    x, w = operands(problem)
    x[..., 16] = np.nan
    assert np.isnan(np.asarray(contract(problem, x, w, Options(forward="fft")))).all()


def test_elementwise_bounds_hold_across_magnitudes():
    """A tiny output beside a huge one: right to its own size in the elementwise engines, not in the FFT."""
    problem = Problem((Axis(64, 3, 62),))
    x, w = operands(problem)
    x[..., 40:] *= 1e12
    for name in ("direct", "shifts"):
        y = contract(problem, x, w, Options(forward=name))
        check(problem, ENGINES[name], y, x, w)
    small = np.asarray(contract(problem, x, w, Options(forward="fft")))[..., :30]
    right = np.asarray(contract(problem, x, w, Options(forward="shifts")))[..., :30]
    assert np.abs(small - right).max() > np.abs(right).max()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("n", [64, 243, 1000, 2401, 8192])
def test_the_fft_is_as_accurate_as_ffts_are(n, dtype):
    """The bound of `error` is a worst case. On random numbers rounding errors cancel, to about sqrt(log2(N))
    units of the result's norm; 4*log2(N) is generous and still sees two lost bits."""
    problem = Problem(mode_axes("test", [n - 7], [8], "full", True), dtypes=Triple(dtype, dtype, dtype))
    x, w = operands(problem)
    with x64(problem):
        y = np.asarray(contract(problem, x, w, Options(forward="fft")))
    truth = np.convolve(x.ravel().astype(np.clongdouble), w.ravel().astype(np.clongdouble))
    u = np.finfo(dtype).eps / 2
    assert np.linalg.norm((y.ravel() - truth).astype(complex)) <= 4 * np.log2(n) * u * np.linalg.norm(
        truth.astype(complex)
    )


def test_integers_wrap_around():
    problem = Problem((Axis(3, 3, 1),), dtypes=Triple("int8", "int8", "int8"))
    x, w = (np.full((1, 1, 1, 3), 100, np.int8) for _ in range(2))
    expected = np.int64(30000).astype(np.int8)
    for name in ("direct", "shifts"):
        assert np.asarray(contract(problem, x, w, Options(forward=name))).item() == expected


def test_half_types_sum_in_float32():
    """4096 ones: float16 would stop counting at 2048."""
    problem = Problem((Axis(4096, 4096, 1),), dtypes=Triple("float16", "float16", "float16"))
    x = np.ones((1, 1, 1, 4096), np.float16)
    able = [name for name, engine in ENGINES.items() if not engine.refusal(problem, "cpu")]
    assert {"direct", "shifts", "gemm", "fft"} <= set(able)
    for name in able:
        assert float(contract(problem, x, x, Options(forward=name)).item()) == 4096


def test_fast_length():
    for n in range(1, 400):
        found = fast_length(n)
        smooth = [m for m in range(n, 2 * n + 1) if _largest_prime(m) <= 7]
        assert found == smooth[0]


def _largest_prime(n: int) -> int:
    largest = 1
    for r in range(2, n + 1):
        while n % r == 0:
            n, largest = n // r, r
    return largest


def test_no_engine_uses_batch_groups():
    """The gradient of a grouped layer is a plain grouped convolution, in HLO too."""
    problem = Problem((Axis(8, 3, 6), Axis(8, 3, 6)), n=2, g=4, c=2, m=2)
    x, w = (jnp.zeros(shape, jnp.float32) for shape in (problem.x_shape, problem.w_shape))
    options = Options("direct", "direct", "direct")

    def gradient(x, w):
        return jax.grad(lambda x, w: contract(problem, x, w, options).sum(), (0, 1))(x, w)

    text = jax.jit(gradient).lower(x, w).as_text()
    assert text.count("stablehlo.convolution") == 2  # the layer itself is not needed for its gradient
    assert text.count("batch_group_count = 1 ") == 2


def test_convolutions_are_lowered_with_channels_last():
    """XLA on CPU transposes by itself, but not inside loops, where it is then slow (jax-ml/jax issue 12868)."""
    problem = Problem((Axis(8, 3, 6), Axis(8, 3, 6)), n=2, g=1, c=2, m=2)  # channels first
    x, w = (jnp.zeros(shape, jnp.float32) for shape in (problem.x_shape, problem.w_shape))

    def repeated(x, w):
        return jax.lax.fori_loop(0, 3, lambda _, y: y + contract(problem, x, w, Options("direct")).sum(), 0.0)

    text = jax.jit(repeated).lower(x, w).as_text()
    assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in text


def test_gemm_of_one_tap_is_one_product():
    """No patches and no loop, whatever the layout."""
    for layouts in (NHWC, Triple("ngc01", "gmc01", "ngm01")):
        problem = Problem((Axis(8, 1, 8), Axis(8, 1, 8)), n=2, c=16, m=16, layouts=layouts)
        x, w = operands(problem)
        text = jax.jit(lambda x, w, p=problem: contract(p, x, w, Options("gemm"))).lower(x, w).as_text()
        assert text.count("stablehlo.dot_general") == 1
        assert "stablehlo.while" not in text
        assert "stablehlo.concatenate" not in text
