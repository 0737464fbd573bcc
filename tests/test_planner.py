"""The planner: what it chooses, what it honours, what it refuses, and how it says so."""

import math
from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconv
from jaxconv import costs
from jaxconv.effort import CALLS
from jaxconv.engines import ENGINES
from jaxconv.engines.base import LAUNCHED
from jaxconv.padding import lax_axes, mode_axes
from jaxconv.planner import Options, candidates, choose, options_of
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.separable import chain
from tests.problems import PASSES, PROBLEMS, operands

LAYER = Problem((Axis(32, 3, 32, p=1), Axis(32, 3, 32, p=1)), n=4, c=8, m=8)
LONG = Problem((Axis(1 << 16, 1 << 12, 1 << 16, p=1 << 11),))


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_cheapest_admitted_engine_is_chosen(platform):
    for problem in PROBLEMS.values():
        for of in PASSES.values():
            answers = candidates(of(problem), Options(), platform)
            admitted = [c for c in answers if c.refusal is None]
            assert admitted == sorted(admitted, key=lambda c: c.cost(CALLS["balanced"]))
            assert choose(of(problem), Options(), platform) is admitted[0].engine
            for c in answers:
                assert (c.seconds is None) == (c.refusal is not None)
                assert c.refusal is None or (c.refusal.startswith(c.engine.name) and c.refusal.endswith("."))


def test_long_kernels_take_the_fft_and_layers_do_not():
    assert choose(LONG, Options(), "cpu").name in ("fft", "overlap")
    assert choose(LAYER, Options(), "cpu").name not in ("fft", "overlap")


def test_on_a_gpu_each_family_has_its_engine():
    """One pass over memory, tensor units, transforms, cuDNN's kernels for depthwise images; full precision costs."""
    image, channels = Problem(mode_axes("test", [1024] * 2, [3] * 2, "same", True)), dict(n=32, g=256)
    depthwise = Problem(lax_axes("test", [56] * 2, [3] * 2, [1] * 2, "SAME"), **channels)
    dense = Problem(lax_axes("test", [56] * 2, [3] * 2, [1] * 2, "SAME"), n=32, c=64, m=64)
    strided = Problem(lax_axes("test", [56] * 2, [3] * 2, [2] * 2, "SAME"), **channels)
    causal = Problem(lax_axes("test", [4096], [4], [1], [(3, 0)]), **channels)
    families = {"direct": (depthwise, dense, dense.kernel_pass), "shifts": (image, strided, causal)}
    for name, problem in ((name, problem) for name, problems in families.items() for problem in problems):
        assert choose(problem, Options(), "gpu").name == name
    assert choose(LONG, Options(), "gpu").name in ("fft", "overlap")
    full = Options(precision=(jax.lax.Precision.HIGHEST,) * 2)
    slow, fast = (next(c for c in candidates(dense, w, "gpu") if c.engine.name == "direct") for w in (full, Options()))
    assert slow.seconds > 2 * fast.seconds
    halves = replace(dense, dtypes=Triple(*["bfloat16"] * 3))
    assert candidates(halves, Options(), "gpu")[0].seconds < fast.seconds


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("name", ENGINES)
def test_kinds_of_work_are_the_declared_ones_and_have_a_price(name, platform):
    """A misspelled kind would cost nothing."""
    engine, kinds = ENGINES[name], set(ENGINES[name].kinds) if platform == "cpu" else LAUNCHED
    found = set()
    for problem in (of(problem) for problem in PROBLEMS.values() for of in PASSES.values()):
        if not problem.is_empty and not engine.refusal(problem, platform):
            for precision in (None, (jax.lax.Precision.HIGHEST,) * 2):
                found |= set(engine.work(problem, platform, precision))
    assert found or name == "native"  # which has no accelerator, and may have no library
    assert found <= kinds
    for device in costs.devices(platform):
        for table in costs.tables(platform, device).values():
            priced = {kind for kind in table.get(name, ()) if not kind.startswith("times ")}
            assert priced <= kinds
            assert found <= priced


def test_an_engine_without_a_row_has_rates_of_its_own(monkeypatch):
    engine = replace(ENGINES["direct"], name="new", rates={"products": 1e-3})
    assert costs.estimated(engine, LAYER, "cpu").seconds == pytest.approx(1e-3 * engine.work(LAYER, "cpu")["products"])
    assert costs.estimated(replace(engine, rates={}), LAYER, "cpu").seconds == math.inf  # never chosen unasked


def test_a_tpu_has_no_transforms_in_double_precision():
    double = replace(LONG, dtypes=Triple(*["float64"] * 3))
    for name in ("fft", "overlap"):
        assert "no FFT in double precision on tpu; use" in ENGINES[name].refusal(double, "tpu")
        assert ENGINES[name].refusal(LONG, "tpu") is ENGINES[name].refusal(double, "gpu") is None
    assert choose(double, Options(), "tpu").name in ("shifts", "direct", "gemm")


def test_a_plan_of_cufft_holds_no_more_than_it_can():
    large = replace(LONG, n=1 << 15)
    assert "more than plans of cuFFT do; use method='overlap'" in ENGINES["fft"].refusal(large, "gpu")
    assert ENGINES["fft"].refusal(large, "cpu") is ENGINES["fft"].refusal(LONG, "gpu") is None
    assert choose(large, Options(), "gpu").name == "overlap"


def test_a_device_that_was_not_measured_is_served_by_the_one_most_alike():
    [nearest] = {id(costs.tables("gpu", name)) for name in ("NVIDIA H100 PCIe", "NVIDIA H200", "")}
    assert nearest == id(costs.tables("gpu", "NVIDIA H100 80GB HBM3"))
    assert costs.is_prior("gpu") == ("prior" in costs.tables("gpu", costs.device_kind("gpu")))
    assert not costs.is_prior("cpu")
    text = str(jaxconv.plan(LAYER, platform="gpu")[0])
    assert ("no measurements were fitted" in text) == costs.is_prior("gpu")
    assert "no measurements were fitted" not in str(jaxconv.plan(LAYER, platform="cpu")[0])


def test_accuracy_elementwise():
    assert not ENGINES["fft"].elementwise(LAYER)
    for problem in (LONG, LAYER, LONG.kernel_pass):
        assert choose(problem, Options(accuracy="elementwise"), "cpu").elementwise(problem)


@pytest.mark.parametrize("method", ENGINES)
def test_a_forced_method_is_honoured(method):
    """The lowered program has the engine's operations and no other's."""
    if ENGINES[method].refusal(LAYER, "cpu"):
        pytest.skip("there is no native library")
    x, w = operands(LAYER)
    text = jax.jit(lambda x, w: contract(LAYER, x, w, Options(forward=method))).lower(x, w).as_text()
    assert ("custom_call" in text) == (method == "native")
    assert ("stablehlo.convolution" in text) == (method == "direct")
    assert ("stablehlo.fft" in text) == (method in ("fft", "overlap"))
    assert ("stablehlo.dot_general" in text) == (method in ("gemm", "winograd", "fft", "overlap"))


def test_a_forced_method_is_refused_with_the_engines_sentence():
    with pytest.raises(ValueError, match=r"`method='fft'` was refused for the contraction of x .*fft: it rounds"):
        jaxconv.convolve(jnp.arange(3), jnp.arange(2), method="fft")
    with pytest.raises(ValueError, match=r"accuracy='elementwise' was asked for"):
        jaxconv.convolve(jnp.ones(3), jnp.ones(2), method="fft", accuracy="elementwise")


def test_a_refusal_in_a_later_pass_is_raised_there():
    x, h = jnp.ones(3), jnp.ones(2)

    def f(x):
        return jaxconv.convolve(x, h, method={"input": "fft"}, accuracy="elementwise").sum()

    assert f(x) == 6
    with pytest.raises(ValueError, match="was refused"):
        jax.grad(f)(x)


def test_options_follow_the_passes():
    options = options_of("test", {"forward": "direct", "kernel": "fft"})
    assert (options.forward, options.input, options.kernel) == ("direct", "auto", "fft")
    assert options.input_pass.forward == "auto"
    assert options.kernel_pass.forward == "fft"
    assert options.kernel_pass.kernel == "direct"
    assert options.input_pass.input_pass == options == options.kernel_pass.kernel_pass
    # The kernel pass's own gradient in its input is the layer's gradient in its input.
    assert options.kernel_pass.input_pass.forward == options.input


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_refusals_of_accelerators(platform):
    integers = Problem((Axis(8, 3, 8),), dtypes=Triple(*["int32"] * 3))
    assert "no integer convolution" in str(ENGINES["direct"].refusal(integers, platform))
    assert choose(integers, Options(), platform).name == "shifts"
    four = Problem((Axis(4, 3, 4),) * 4)
    assert "at most 3 spatial axes" in str(ENGINES["direct"].refusal(four, platform))
    assert ENGINES["direct"].refusal(four, "cpu") is None


# ---- plan


def test_plan_of_a_call():
    [found] = jaxconv.plan(jaxconv.correlate, jnp.ones((64, 64)), jnp.ones((3, 3)), "same", "shifts")
    assert found.engines == {"forward": "shifts", "input": "shifts", "kernel": "shifts"}
    assert list(found.candidates) == ["forward", "input", "kernel"]
    text = str(found)
    assert text.startswith("correlation, n=1 g=1 c=1 m=1, float32, on cpu")
    assert "forward pass (method='shifts' forced)" in text
    assert "kernel pass, if differentiated in w (method" in text
    assert "1*i + 1 = 1*o + 1*k,  I=64 K=3 O=64" in text
    assert text.count("-> shifts") == 3


def test_plan_shows_why_not():
    [found] = jaxconv.plan(jaxconv.correlate, jnp.arange(8), jnp.arange(3))
    assert "fft: it rounds, and int32 arithmetic is exact; use method='direct', 'shifts' or 'gemm'" in str(found)
    assert "about" in str(found)


def test_plan_finds_every_contraction():
    """Inside jit, scan, grad and a model's parameters; nothing is run."""

    def f(parameters, x):
        y = jax.lax.scan(lambda x, _: (jaxconv.convolve(x, parameters["h"], "same"), None), x, None, length=2)[0]
        return jax.jit(jaxconv.correlate)(y, parameters["k"]).sum()

    x = jax.ShapeDtypeStruct((1 << 30,), jnp.float32)
    parameters = {name: jax.ShapeDtypeStruct((3,), jnp.float32) for name in "hk"}
    assert [p.problem.axes[0].D for p in jaxconv.plan(f, parameters, x)] == [-1, 1]
    assert len(jaxconv.plan(jax.grad(f), parameters, x)) == 2 * 3  # two layers, three passes


def test_plan_shows_a_refusal_of_a_later_pass():
    def f(x):
        return jaxconv.convolve(x, jnp.ones(2), method={"input": "fft"}, accuracy="elementwise")

    [found] = jaxconv.plan(f, jnp.ones(3))
    assert [which for which, engine in found.engines.items() if engine is None] == ["input"]
    assert "input pass, if differentiated in x (method='fft' forced)" in str(found)


def test_plan_takes_keywords():
    x = jax.ShapeDtypeStruct((9,), jnp.float32)
    [found] = jaxconv.plan(jaxconv.convolve, x, in2=x, mode="same")
    assert found.problem.axes[0].O == 9


def test_elementwise_asks_for_the_highest_precision():
    highest = jax.lax.Precision.HIGHEST
    assert options_of("test", accuracy="elementwise").precision == (highest, highest)
    assert options_of("test", accuracy="elementwise", precision="default").precision != (highest, highest)


def test_plan_of_a_problem_and_of_nothing():
    [found] = jaxconv.plan(LAYER, platform="gpu")
    assert found.platform == "gpu"
    assert found.problem is LAYER
    assert jaxconv.plan(jnp.sin, 1.0) == ()
    assert repr(jaxconv.plan(jnp.sin, 1.0)) == "no contraction"
    assert repr(jaxconv.plan(LAYER)) == str(jaxconv.plan(LAYER)[0])


def test_every_row_has_a_plan():
    for name, problem in PROBLEMS.items():
        [found] = jaxconv.plan(problem)
        assert set(found.engines) == set(PASSES), name
        assert len(str(found).splitlines()) == 4 + len(problem.axes) + 3 * len(ENGINES)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_leave_dense_layers_to_lax(platform):
    """Of short kernels, transposed ones too, in all passes."""
    problems = [Problem((Axis(8, 2 * L, 8 * L + L, L=L, p=2 * L - 1),) * 2, n=32, c=64, m=64) for L in (1, 2, 4)]
    for problem in [*problems, replace(LAYER, c=64, m=64)]:
        for of in PASSES.values():
            assert choose(of(problem), Options(), platform).name == "direct", of(problem)


def test_the_methods_that_an_error_names():
    with pytest.raises(ValueError, match=r"'native', 'separable'. Pass one"):
        jaxconv.convolve(jnp.ones(3), jnp.ones(2), method="none")
    with pytest.raises(ValueError, match=r"'native'. Pass one"):
        jaxconv.convolve(jnp.ones(3), jnp.ones(2), method={"forward": "separable"})
    with pytest.raises(ValueError, match=r"'native'. Pass one"):
        jaxconv.lax.conv(jnp.ones((1, 1, 3)), jnp.ones((1, 1, 2)), (1,), "SAME", method="separable")


def test_a_known_kernel_is_split_where_that_pays_on_the_platform_that_is_asked_for():
    """Also where a function was traced for another one before."""

    def cost(problem, platform):
        return candidates(problem, Options(), platform)[0].cost(CALLS["balanced"])

    seen = set()
    for taps, size in product((5, 7, 11, 15), (32, 64, 256, 512)):
        kernel = np.outer(*[np.hanning(taps + 2)[1:-1]] * 2).astype("float32")
        image = jax.ShapeDtypeStruct((size, size), jnp.float32)
        f = jax.jit(lambda x, kernel=kernel: jaxconv.correlate(x, kernel, "same"))
        jax.eval_shape(f, image)
        [whole] = jaxconv.plan(jaxconv.correlate, image, jax.ShapeDtypeStruct(kernel.shape, jnp.float32), "same")
        found = [len(jaxconv.plan(f, image, platform=platform)) for platform in ("gpu", "tpu", "cpu")]
        for count, platform in zip(found, ("gpu", "tpu", "cpu"), strict=True):
            links = sum(cost(link, platform) for link in chain(whole.problem))
            assert count == (2 if links < cost(whole.problem, platform) else 1)
        seen.add(tuple(found))
    assert any(len(set(found)) > 1 for found in seen)  # there are kernels that are split on one of them only


def test_a_numpy_kernel_beside_a_traced_image_is_known():
    """As in the call itself: the plan is of the two passes along the axes."""
    kernel = np.outer(np.hanning(15)[1:-1], np.hanning(13)[1:-1]).astype("float32")
    image = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    found = jaxconv.plan(jaxconv.convolve, image, kernel, "same", platform="cpu")
    assert len(found) == len(jaxconv.plan(lambda x: jaxconv.convolve(x, kernel, "same"), image, platform="cpu")) == 2
    assert len(jaxconv.plan(jaxconv.convolve, np.zeros((512, 512), "float32"), kernel, "same", platform="cpu")) == 1


@pytest.mark.parametrize(
    ("call", "new"),
    [
        (lambda: jaxconv.planner.Wishes, Options),
        (lambda: jaxconv.planner.parse_wishes, options_of),
        (lambda: jaxconv.plan(LAYER)[0].wishes, Options()),
    ],
)
def test_old_names_work_with_a_warning_that_names_the_new_one(call, new):
    with pytest.warns(DeprecationWarning, match="is named `.*; the old name goes"):
        assert call() == new
