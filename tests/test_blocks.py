"""The loops of the engines: with blocks of a few elements they give what they give in one piece."""

import re
from functools import partial
from itertools import product

import jax
import numpy as np
import pytest

from jaxconv.engines import ENGINES, gemm, overlap, shifts, winograd
from jaxconv.engines.base import LIMITS, Limits
from jaxconv.engines.blocks import divisor, over_outputs, over_sums, share
from jaxconv.engines.polyphase import axis_phases, units
from jaxconv.padding import lax_axes
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.reference import reference
from tests.problems import NHWC, PASSES, PROBLEMS, check, operands, x64

LARGER = {
    "image": Problem(lax_axes("test", [23, 17], [3, 3], [1, 1], "SAME")),
    "images, kernel of seven": Problem(lax_axes("test", [19, 18], [7, 7], [1, 1], "SAME"), n=3, c=2, m=3, layouts=NHWC),
    "kernel of eleven": Problem(lax_axes("test", [40], [11], [1], "SAME"), n=2, c=2, m=2),
    "depthwise": Problem(lax_axes("test", [13, 14], [3, 3], [1, 1], "SAME"), n=4, g=5, layouts=NHWC),
    "grouped": Problem(lax_axes("test", [9, 14], [3, 3], [1, 1], "SAME"), n=3, g=2, c=3, m=4, layouts=NHWC),
    "dilated": Problem(lax_axes("test", [21, 14], [3, 3], [1, 1], "SAME", None, [2, 3]), n=2, c=2, m=2),
    "strided": Problem(lax_axes("test", [21, 14], [3, 5], [2, 3], "SAME"), n=2, c=2, m=2, layouts=NHWC),
    "transposed": Problem(lax_axes("test", [8, 7], [4, 3], [1, 1], [(3, 2), (2, 3)], [2, 3]), n=2, c=2, m=2),
    "depthwise, one column": Problem(lax_axes("test", [30, 1], [3, 1], [1, 1], "SAME"), n=1, g=70, layouts=NHWC),
    "depthwise, prime": Problem(lax_axes("test", [13, 17], [5, 3], [1, 1], "SAME"), n=2, g=64, layouts=NHWC),
    "depthwise, strided": Problem(lax_axes("test", [13, 17], [3, 4], [2, 1], "SAME"), n=3, g=33, layouts=NHWC),
    "depthwise, wide": Problem(lax_axes("test", [9, 9], [8, 9], [1, 1], "SAME"), g=2),
    "kernel pass of many": Problem(lax_axes("test", [38, 38], [5, 5], [2, 2], [(1, 2)] * 2), n=2, g=2, c=6, m=4),
    "signal": Problem(lax_axes("test", [301], [20], [1], "SAME")),
    "volume": Problem(lax_axes("test", [9, 8, 10], [3, 3, 3], [1, 1, 1], "SAME"), n=2, c=2, m=2),
    "complex": Problem(lax_axes("test", [61], [9], [1], "SAME"), n=2, c=2, m=2, dtypes=Triple(*["complex64"] * 3)),
    "integers": Problem(
        lax_axes("test", [31, 9], [4, 3], [1, 1], "SAME"), n=2, c=3, m=2, dtypes=Triple(*["int32"] * 3)
    ),
}
SOME = {name: PROBLEMS[name] for name in list(PROBLEMS)[::9]}


@pytest.fixture(params=[1, 600])
def tiny(request, monkeypatch):
    """Blocks of about so many bytes, sums of few terms."""
    size = request.param
    for platform in ("cpu", "gpu"):
        monkeypatch.setitem(LIMITS, platform, Limits(fused=5, part=5, layer=size, kernel=size, windows=size))
    few = dict(UNROLLED=10, ACCUMULATED=7, STREAMS=3, NARROW=2, LANES=4, TERMS=3, KEPT=50, PAGE=1 << 9)
    for name, value in few.items():
        monkeypatch.setattr(shifts, name, value)
    monkeypatch.setattr(gemm, "NARROW", 1 if size == 1 else 20)


@pytest.mark.covering
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "engine", [e for e in ENGINES.values() if e.name not in ("direct", "fft")], ids=lambda e: e.name
)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.nightly) for name in SOME), *LARGER])
def test_blocks_of_a_few_elements(name, engine, platform):
    for of in PASSES.values():
        problem = of((SOME | LARGER)[name])
        if engine.refusal(problem, platform) or problem.is_empty:
            continue
        x, w = operands(problem)
        with x64(problem):
            y = jax.jit(partial(engine.run, problem, platform=platform))(x, w)
        check(problem, engine, y, x, w)


@pytest.mark.covering
@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda e: e.name)
@pytest.mark.parametrize(
    "problem",
    [
        Problem((Axis(40, 31, 40, p=15),) * 3),
        Problem((Axis(2000, 1000, 1001),)),
        Problem((Axis(512, 512, 1), Axis(4096, 1, 4096))),
        Problem((Axis(2000, 31, 1970),) * 2, n=1, c=2, m=2).kernel_pass,
        Problem((Axis(9000, 1024, 32, S=256),)),
        Problem((Axis(9000, 1024, 32, S=256),)).input_pass,
        Problem((Axis(3000, 3, 100, S=31, D=29),)),
        Problem((Axis(2001, 9, 1, D=240),)),
        Problem((Axis(8, 64, 288, L=32, p=63),) * 2),
    ],
    ids=["cube", "signal", "columns", "kernel pass", "spectrogram", "its gradient", "coprime", "dilated", "upsampling"],
)
def test_what_is_written_out_is_bounded(problem, engine):
    """However many terms there are: LIMITS' `fused` in a loop, before it and after it, for each of two axes at most."""
    if engine.refusal(problem, "cpu"):
        return
    x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (problem.x_shape, problem.w_shape))
    terms = 9 * LIMITS["cpu"].fused
    assert str(jax.make_jaxpr(partial(engine.run, problem))(x, w)).count("\n") < 18 * terms


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("of", PASSES.values(), ids=PASSES)
def test_accelerators_multiply_half_types_in_blocks(of):
    """The products are float32: so is what a loop over blocks begins with."""
    halves = Triple(*["bfloat16"] * 3)
    problem = of(Problem(lax_axes("test", [31, 9], [4, 3], [1, 1], "SAME"), n=2, c=3, m=2, dtypes=halves))
    x, w = operands(problem)
    check(problem, gemm.GEMM, jax.jit(partial(gemm.GEMM.run, problem, platform="gpu"))(x, w), x, w)


def test_divisors():
    assert [divisor(n, most) for n, most in ((12, 5), (7, 6), (7, 7), (1, 0), (30, 29))] == [4, 1, 7, 1, 15]


def test_shares():
    """At most the fraction, unless that is less than one; and not much less, whatever the divisors."""
    for n in (1, 2, 7, 12, 127, 128, 509):
        for size in (0.001, 0.1, 0.3, 0.5, 0.99):
            count = share(n, size)
            assert 1 <= count <= max(1, size * n)
            assert count >= size * n / 2 - 1


@pytest.mark.parametrize(
    "problem",
    [
        Problem(lax_axes("test", [5, 4], [3, 3], [1, 1], "SAME"), g=1024, layouts=NHWC),
        Problem(lax_axes("test", [12, 1024], [9, 2], [1, 1], "VALID")),
    ],
    ids=["features", "rows"],
)
def test_terms_a_page_apart(problem):
    """`shifts` reads them from rows that are longer by a line, and the result is that of the shorter rows."""
    x, w = operands(problem)
    _, v = shifts._staggered(problem, x)
    assert v.size > shifts.padded(problem, x).size
    check(problem, ENGINES["shifts"], jax.jit(partial(ENGINES["shifts"].run, problem))(x, w), x, w)


@pytest.mark.parametrize("size", [0.12, 0.3, 0.6, 0.9])
def test_blocks_of_a_prime_number(size):
    """Seven images and seven channels: blocks that overlap, and blocks and a rest."""
    problem = Problem((Axis(11, 3, 11, p=1),), n=7, c=7, m=2)
    x, w = operands(problem)
    for blocks in (over_outputs, over_sums):
        y = jax.jit(partial(blocks, problem, size=size, run=ENGINES["direct"].run))(x, w)
        check(problem, ENGINES["direct"], y, x, w)


@pytest.mark.parametrize("seed", range(40))
def test_phases_are_the_relation_again(seed):
    """Every meeting of an axis is one of exactly one phase, and no phase has others."""
    rng = np.random.default_rng(seed)
    I, K, O = (int(n) for n in rng.integers(1, 12, 3))
    L, S, D = (int(n) for n in rng.integers(1, 7, 3))
    axis = Axis(I, K, O, L, S, D, int(rng.integers(-9, 9)))
    q, r = L // np.gcd(L, S), L // np.gcd(L, D)
    found = []
    for a, b, sub in axis_phases(axis):
        if sub is not None:
            assert sub.L == 1
            found += [(i, b + r * k, a + q * o) for i, k, o in sub.meetings()]
    assert sorted(found) == sorted(axis.meetings())


@pytest.mark.parametrize("seed", range(40))
def test_units_are_the_relation_again(seed):
    """Every meeting of an axis with L = 1 is one of exactly one image and one feature of its unit."""
    rng = np.random.default_rng(seed)
    I, K, O, S, D = (int(n) for n in (*rng.integers(1, 12, 3), *rng.integers(1, 7, 2)))
    axis = Axis(I, K, O, 1, S, D, int(rng.integers(-9, 9)))
    [unit] = units(Problem((axis,)))
    images, features, step = unit.n, unit.c, np.lcm(S, D)
    found = []
    for a, b in product(range(images), range(features)):
        for j, s, t in unit.axes[0].meetings():
            i, k, o = step * j + S * a + D * b - axis.p, b + features * s, a + images * t
            if 0 <= i < I and k < K and o < O:
                found.append((i, k, o))
    assert sorted(found) == sorted(axis.meetings())
    assert (unit.axes[0].L, unit.axes[0].S, unit.axes[0].D) == (1, 1, 1)


@pytest.mark.covering
@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda e: e.name)
@pytest.mark.parametrize(
    "problem",
    [
        Problem((Axis(40, 5, 7, S=5, D=3, p=2),), n=2, c=2, m=2),
        Problem((Axis(70, 9, 12, S=4, D=-5, p=-3),)),
        Problem((Axis(130, 5, 9, S=12, D=3, p=1),), n=2),
        Problem((Axis(150, 10, 30, S=9, D=8, p=5),), c=2),
        Problem((Axis(5, 18, 44, L=9, p=8), Axis(4, 16, 40, L=8, p=7))),
        Problem((Axis(21, 3, 1, D=10),)),
    ],
    ids=["coprime", "coprime, flipped", "nested", "many parts", "many phases", "one output"],
)
def test_large_steps(problem, engine):
    for of in PASSES.values():
        layer = of(problem)
        if not engine.refusal(layer, "cpu"):
            x, w = operands(layer)
            check(layer, engine, jax.jit(partial(engine.run, layer))(x, w), x, w)


@pytest.mark.parametrize(
    "engine", [e for e in ENGINES.values() if e.name not in ("direct", "native")], ids=lambda e: e.name
)
@pytest.mark.parametrize("name", ["strided", "transposed", "dilated"])
def test_no_zeros_are_inserted(name, engine):
    """Strides and dilations are phases: in no pass does an engine of ours put zeros between numbers."""
    for of in PASSES.values():
        problem = of(LARGER[name])
        if engine.refusal(problem, "cpu"):
            continue
        x, w = (jax.ShapeDtypeStruct(shape, np.float32) for shape in (problem.x_shape, problem.w_shape))
        text = str(jax.make_jaxpr(partial(engine.run, problem))(x, w))
        configs = re.findall(r"padding_config=\((.*?)\)\s*\]", text, re.DOTALL)
        interiors = [int(n) for config in configs for n in re.findall(r"\(-?\d+, -?\d+, (\d+)\)", config)]
        assert interiors
        assert not any(interiors)


# With the points 0, 1, -1, 2, -2, ... these are 3.9, 10.7, 19.5 and 25.
@pytest.mark.parametrize(("m", "r", "most"), [(2, 3, 3.9), (3, 3, 6.0), (4, 3, 9.7), (4, 4, 17.4)])
def test_winograds_points_let_errors_grow_little(m, r, most):
    """The factor by which the bound of an output exceeds the norms of what it reads, along one axis."""
    at, g, bt = map(np.abs, winograd.matrices(m, r))
    assert (at @ (np.linalg.norm(g, axis=1) * np.linalg.norm(bt, axis=1))).max() <= most


@pytest.mark.parametrize("taps", range(1, 13))
def test_winograds_matrices_are_an_identity(taps):
    """y = A^T [(G w) * (B^T x)] is the correlation, for every scheme, to the roundings of float64."""
    rng = np.random.default_rng(taps)
    for scheme in winograd.schemes(taps):
        if scheme.n == 1:
            continue
        at, g, bt = winograd.matrices(scheme.m, scheme.r)
        x, w = rng.integers(-4, 5, scheme.n).astype(float), rng.integers(-4, 5, scheme.r).astype(float)
        expected = np.correlate(x, w, "valid")
        bound = 40 * 2.0**-53 * (np.abs(at) @ (np.abs(g) @ np.abs(w) * (np.abs(bt) @ np.abs(x))))
        assert np.all(np.abs(at @ (g @ w * (bt @ x)) - expected) <= bound)
        assert scheme.r * scheme.blocks >= taps
        assert scheme.blocks == 1 or scheme.r % scheme.m == 0


def test_transform_lengths_hold_the_kernel():
    for span, count in [(3, 5), (31, 1024), (1001, 10**5), (63, 64), (2, 1), (1, 100)]:
        [n] = overlap.lengths([span], [count])
        assert n >= span
        assert n == 1 or n - span + 1 >= 1
    assert np.all(np.array(overlap.lengths([10**5], [10**8])) < 2**22)  # blocks, not one transform of all


def test_a_phase_that_meets_nothing_is_zero():
    problem = Problem((Axis(4, 1, 7, L=2, p=0),))
    x, w = operands(problem)
    for engine in (engine for engine in ENGINES.values() if not engine.refusal(problem, "cpu")):
        check(problem, engine, jax.jit(partial(engine.run, problem))(x, w), x, w)
    assert (reference(problem, x, w)[..., 1::2] == 0).all()


@pytest.mark.parametrize("of", PASSES.values(), ids=PASSES)
@pytest.mark.parametrize("channels", [8, 64, 512])
@pytest.mark.parametrize(("extents", "kernel"), [((24, 20), 3), ((24, 20), 5), ((300,), 3), ((9, 8, 7), 3)])
def test_winograds_tiles_are_smaller_where_errors_are_to_be(extents, kernel, channels, of):
    """Of 'normwise' and 'close' the estimated error is within 3 and 1.6 times the plain sum's, or it is refused."""
    problem = of(
        Problem(lax_axes("test", extents, (kernel,) * len(extents), (1,) * len(extents), "SAME"), c=channels, m=8)
    )
    layer = problem.is_layer
    for engine, most in ((winograd.WINOGRAD, 3.0), (winograd.CLOSE, 1.6)):
        if not engine.refusal(problem, "cpu"):
            assert winograd._error_ratio(problem, layer, winograd._plan(problem, layer, most)) <= most
    if not winograd.CLOSE.refusal(problem, "cpu"):
        assert winograd.CLOSE.error(problem)[1] <= winograd.WINOGRAD.error(problem)[1]
