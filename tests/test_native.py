"""The engine that calls oneDNN: its library, its calls from compiled programs, and what can go wrong with either."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding, PartitionSpec

import jaxconv
from jaxconv import planner
from jaxconv.engines import ENGINES, native, onednn
from jaxconv.engines.calls import WEIGHTS
from jaxconv.padding import lax_axes
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.reference import reference
from tests.problems import NHWC, PASSES, PROBLEMS, check, operands

ROOT = Path(__file__).parent.parent
ENGINE = ENGINES["native"]
NATIVE = Options("native", "native", "native")
LAYER = Problem((Axis(9, 3, 9, p=1), Axis(8, 3, 8, p=1)), n=4, c=8, m=16, layouts=NHWC)
LAYERS = {
    "dense": LAYER,
    "pointwise": Problem((Axis(9, 1, 9), Axis(8, 1, 8)), n=4, c=8, m=16, layouts=NHWC),
    "strided": Problem((Axis(9, 3, 5, S=2, p=1), Axis(8, 3, 4, S=2, p=1)), n=4, c=8, m=16, layouts=NHWC),
    "depthwise": Problem(LAYER.axes, n=4, g=24, layouts=NHWC),
    "grouped": Problem(LAYER.axes, n=4, g=4, c=8, m=8, layouts=NHWC),
    "stem": Problem((Axis(17, 7, 9, S=2, p=3),) * 2, n=2, c=3, m=16, layouts=NHWC),
    "signal": Problem((Axis(50, 5, 50, p=2),), n=3, c=8, m=8, layouts=Triple("n0gc", "0cgm", "n0gm")),
    "volume": Problem((Axis(6, 3, 6, p=1),) * 3, n=2, c=8, m=8, layouts=Triple("n012gc", "012cgm", "n012gm")),
}
ALL = [pytest.param(of(layer), id=f"{name}, {which}") for name, layer in LAYERS.items() for which, of in PASSES.items()]
needed = pytest.mark.skipif(
    isinstance(onednn._loaded(), onednn.Missing), reason=f"there is no library: {onednn._loaded()}"
)


@pytest.fixture
def reload(monkeypatch):
    """Load the library anew, with what is changed before; all that was asked of it is forgotten, then and after."""

    def forget():
        for known in (onednn._loaded, onednn.primitive, onednn.parted, native._asked, planner._candidates):
            known.cache_clear()
        onednn.handler().forget()
        jax.clear_caches()

    yield forget
    monkeypatch.undo()
    forget()


@pytest.fixture(params=["whole", "in parts"])
def parted(request, monkeypatch, reload):
    """Once as small problems are, once in parts, as on a machine with three threads."""
    reload()
    if request.param == "in parts":
        monkeypatch.setattr(onednn, "ALONE", 64)
        monkeypatch.setattr(onednn.library(), "threads", 3)
    yield request.param == "in parts"
    reload()


def python(code: str, timeout: float = 120, **variables) -> subprocess.CompletedProcess:
    """Run a program that begins with the imports and a layer."""
    start = """
        import os, sys, time
        import jax, jax.numpy as jnp, numpy as np
        from functools import partial
        from jaxconv.engines import native, onednn
        from jaxconv.planner import Options
        from jaxconv.primitive import contract
        from jaxconv.problem import Axis, Problem
        from tests.test_native import LAYER, NATIVE
        x, w = (jnp.ones(shape, jnp.float32) for shape in (LAYER.x_shape, LAYER.w_shape))
    """
    text = textwrap.dedent(start) + textwrap.dedent(code)
    env = os.environ | variables
    return subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout
    )


# ---- what it computes


@needed
@pytest.mark.parametrize("problem", ALL)
def test_each_kind_of_loops(problem):
    x, w = operands(problem)
    check(problem, ENGINE, contract(problem, x, w, NATIVE), x, w)


def test_each_kind_of_loops_is_met():
    """Those of this processor, at least: the kinds of which there is a price."""
    if not ENGINE.refusal(LAYER, "cpu"):
        met = {kind for case in ALL for kind in native.work(case.values[0])}
        assert {"forward, blocks", "forward, depthwise", "input, depthwise", "kernel, loops"} <= met


def _drawn(rng: np.random.Generator) -> Problem:
    """Layers of one to three axes with strides or dilations, pads of either sign, groups, any order of the letters."""
    d = int(rng.integers(1, 4))
    while True:
        size, kernel = rng.integers(1, (60, 20, 9)[d - 1], d), rng.integers(1, (9, 6, 4)[d - 1], d)
        stride, dilation, dilated = ([int(rng.choice([1, 1, 1, 2, 3])) for _ in range(d)] for _ in range(3))
        dilated = dilated if max(stride) == 1 and rng.random() < 0.3 else [1] * d
        pads = [tuple(map(int, rng.integers(-2, 5, 2))) for _ in range(d)]
        try:
            axes = lax_axes("drawn", [*map(int, size)], [*map(int, kernel)], stride, pads, dilated, dilation)
        except ValueError:
            continue
        if all(axis.O > 0 for axis in axes):
            break
    axes = tuple(axis.kernel_flipped if rng.random() < 0.3 else axis for axis in axes)
    sizes = [1 if rng.random() < 0.3 else int(rng.integers(1, 40)) for _ in range(3)]
    g = int(rng.choice([1, 1, 2, 4, 16]))
    problem = Problem(axes, int(rng.integers(1, 4)), g, *((1, 1) if rng.random() < 0.2 else sizes[:2]))
    layouts = ("".join(rng.permutation(list(layout))) if rng.random() < 0.5 else layout for layout in problem.layouts)
    channels_last = Triple("n" + problem.spatial + "gc", problem.spatial + "cgm", "n" + problem.spatial + "gm")
    layouts = channels_last if rng.random() < 0.5 else Triple(*layouts)
    return Problem(axes, problem.n, g, problem.c, problem.m, layouts)


@needed
@pytest.mark.parametrize("drawn", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 35))])
def test_drawn_layers_in_all_passes(seed, drawn, monkeypatch, reload):
    """60 a seed, against float64; in one part each, and in drawn ones."""
    reload()
    rng, met = np.random.default_rng(seed), 0
    ways = [(bool(rng.integers(2)), int(rng.integers(2, 9))) for _ in range(40)]
    if drawn:
        monkeypatch.setattr(onednn, "_ways", lambda whole: iter(rng.permutation(ways).tolist()))
    layers = [_drawn(rng) for _ in range(20)]
    problems = [problem for layer in layers for problem in (layer, layer.input_pass, layer.kernel_pass)]
    able = [problem for problem in problems if not ENGINE.refusal(problem, "cpu")]
    assert len(able) > 20
    pairs = [operands(problem, seed) for problem in able]
    run = jax.jit(lambda pairs: [contract(p, *pair, NATIVE) for p, pair in zip(able, pairs, strict=True)])
    for problem, pair, y in zip(able, pairs, run(pairs), strict=True):
        check(problem, ENGINE, y, *pair)
        met += 1
    assert met == len(able)
    counts = [len(native._asked(problem)[1].parts) for problem in able]
    assert not drawn or sum(count > 1 for count in counts) > 20


@needed
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("problem", ALL)
@pytest.mark.usefixtures("nan", "parted")
def test_a_nan_of_x_stays_where_it_is(problem, value):
    x, w = operands(problem)
    place = tuple(0 if c in problem.spatial else size - 1 for c, size in zip(problem.layouts.x, x.shape, strict=True))
    marked = np.zeros_like(x)
    marked[place] = 1
    reads = reference(problem, marked, np.ones_like(w)) != 0
    x[place] = value
    np.testing.assert_array_equal(~np.isfinite(contract(problem, x, w, NATIVE)), reads)


@needed
@pytest.mark.parametrize("problem", ALL)
def test_the_same_call_has_the_same_bits(problem, parted):
    assert (len(native._asked(problem)[1].parts) > 1) == parted
    x, w = operands(problem)
    f = jax.jit(partial(contract, problem, options=NATIVE))
    first = np.asarray(f(x, w))
    for _ in range(4):
        np.testing.assert_array_equal(np.asarray(f(x, w)), first)


@needed
def test_derivatives_of_any_order_vmap_and_loops():
    x, w = map(jnp.asarray, operands(LAYER))
    shifts = Options("shifts", "shifts", "shifts")

    def loss(options, x, w):
        return jnp.tanh(contract(LAYER, x, w, options)).sum()

    for f in (
        lambda o: jax.grad(lambda x, w: (jax.grad(partial(loss, o), (0, 1))(x, w)[0] ** 2).sum(), (0, 1))(x, w),
        lambda o: jax.vmap(lambda w: contract(LAYER, x, w, o))(jnp.stack([w, 2 * w])),
        lambda o: jax.vmap(lambda x, w: contract(LAYER, x, w, o))(jnp.stack([x, 2 * x]), jnp.stack([w, 2 * w])),
        lambda o: jax.lax.map(lambda w: contract(LAYER, x, w, o), jnp.stack([w, 2 * w])),
        lambda o: jax.grad(jax.checkpoint(partial(loss, o)))(x, w),
        lambda o: jax.lax.while_loop(
            lambda v: v.sum() < 9, lambda v: v + contract(LAYER, x, v, o)[0, 0, 0, 0, 0] ** 2, w
        ),
        lambda o: jax.jit(partial(contract, LAYER, options=o), donate_argnums=0)(x + 0, w),
    ):
        pairs = zip(*(jax.tree.leaves(jax.jit(lambda f=f, o=o: f(o))()) for o in (NATIVE, shifts)), strict=True)
        for got, want in pairs:
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * float(jnp.abs(want).max()))


# ---- where it is not seen


@needed
def test_the_weights_of_many_layers_are_not_brought_to_the_librarys_format_at_once():
    """They would be new pages at every call, and take longer than the layers."""
    problem = Problem((Axis(4, 3, 4, p=1),) * 2, n=1, c=128, m=128, layouts=NHWC)
    x, ws = jnp.ones(problem.x_shape, jnp.float32), [jnp.ones(problem.w_shape, jnp.float32)] * 8

    def layers(x, ws):
        for w in ws:
            x = contract(problem, x, w, NATIVE)
        return x

    ready = native._asked(problem)[1].ready
    assert ready >= 4 * problem.w_shape[0] * 128
    assert jax.jit(layers).lower(x, ws).compile().memory_analysis().temp_size_in_bytes < 3 * ready


@needed
def test_what_xla_must_see_into_has_another_engine():
    x, w = operands(LAYER)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("d")))
    auto, forced = (jax.jit(partial(contract, LAYER, options=o)) for o in (Options(("native", "shifts")), NATIVE))
    assert native.TARGET in auto.lower(x, w).as_text()
    assert native.TARGET not in auto.lower(sharded, w).as_text()
    assert native.TARGET not in export.export(auto)(x, w).mlir_module()
    for platform in ("cuda", "tpu"):
        assert native.TARGET not in auto.trace(x, w).lower(lowering_platforms=(platform,)).as_text()
    check(LAYER, ENGINE, auto(sharded, w), x, w)
    for lower in (lambda: forced.lower(sharded, w), lambda: export.export(forced)(x, w)):
        with pytest.raises(ValueError, match=r"'native'` was refused .* XLA cannot see into it"):
            lower()

    half = Problem(LAYER.axes, n=2, c=8, m=16, layouts=NHWC)
    each = PartitionSpec("d"), PartitionSpec()
    mapped = jax.shard_map(partial(contract, half, options=NATIVE), mesh=mesh, in_specs=each, out_specs=each[0])
    assert native.TARGET in jax.jit(mapped).lower(x, w).as_text()
    check(LAYER, ENGINE, jax.jit(mapped)(x, w), x, w)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem(LAYER.axes, c=8, m=8, dtypes=Triple(*["float64"] * 3)), "it has float32 only, and not float64"),
        (Problem(LAYER.axes, c=8, m=8, dtypes=Triple("bfloat16", "bfloat16", "float32")), "not bfloat16, float32"),
        (Problem((Axis(5, 3, 5),) * 4, c=8, m=8), "at most 3 axes, and there are 4"),
        (Problem(LAYER.axes), "loops are over features, of which there is one"),
        (Problem((Axis(9, 3, 9, L=2, S=2),), c=8, m=8), "a stride and a dilated input together"),
        (Problem((Axis(9, 3, 9, p=20),), c=8, m=8), "meet no input"),
    ],
)
@needed
def test_refusals_are_sentences(problem, reason):
    no = ENGINE.refusal(problem, "cpu")
    assert reason in no
    assert no.startswith("native: ")
    assert no.endswith(".")
    assert "for gpu" in ENGINE.refusal(LAYER, "gpu")


# ---- the library


@pytest.mark.parametrize("name", PROBLEMS)
@needed
def test_a_key_holds_the_whole_call(name):
    for of in PASSES.values():
        for plan in native._plans(of(PROBLEMS[name])) if len(PROBLEMS[name].axes) < 4 else ():
            assert onednn.call_of(plan.call.numbers()) == plan.call


class Fake:
    """A library of which some functions are others, or are missing."""

    def __init__(self, real, **others):
        self._real, self._others = real, others

    def __getattr__(self, name):
        found = self._others.get(name, getattr(self._real, name))
        if found is None:
            raise AttributeError(name)
        return found


@pytest.fixture
def faked(monkeypatch, reload):
    """Load the library with other functions in their places."""
    real = ctypes.CDLL

    def load(**others):
        monkeypatch.setattr(ctypes, "CDLL", lambda path: Fake(real(path), **others))
        reload()

    return load


@needed
@pytest.mark.parametrize(
    ("stride", "dilation", "kernel", "low", "high"), [(2, 3, 7, 15, 11), (3, 5, 8, 20, 9), (5, 8, 4, 24, 2)]
)
def test_what_the_library_sums_wrongly_is_asked_otherwise(stride, dilation, kernel, low, high):
    """Kernel gradients of strided rows with many zeros before them, of 29 to 56 outputs, with AVX-512: oneDNN 3.2."""
    size = 39 * stride + dilation * (kernel - 1) + 1 - low - high  # 40 outputs
    layer = Problem(
        (Axis(size, kernel, 40, S=stride, D=dilation, p=low),), n=2, c=8, m=16, layouts=LAYERS["signal"].layouts
    )
    near = Problem(
        (Axis(size + low - 14, kernel, 40, S=stride, D=dilation, p=14),), n=2, c=8, m=16, layouts=layer.layouts
    )
    for problem in (layer.kernel_pass, near.kernel_pass):
        x, w = operands(problem)
        check(problem, ENGINE, contract(problem, x, w, NATIVE), x, w)
    kinds = [native._asked(problem)[0].call.kind for problem in (layer.kernel_pass, near.kernel_pass)]
    assert kinds[0] != WEIGHTS == kinds[1]


@needed
@pytest.mark.parametrize("name", onednn.FUNCTIONS)
def test_a_library_that_lacks_a_function(name, faked):
    faked(**{name: None})
    no = ENGINE.refusal(LAYER, "cpu")
    assert f"lacks {name}; it must be oneDNN 3.2 on OpenMP" in no
    assert "JAXCONV_ONEDNN" in no


@needed
def test_a_library_of_another_version(monkeypatch, faked):
    other = onednn._Version(3, 13)

    class Asked:
        def __call__(self):
            return [other]

    faked(dnnl_version=Asked())
    assert "is oneDNN 3.13, and tested is 3.2. Set JAXCONV_ONEDNN_UNTESTED=1" in ENGINE.refusal(LAYER, "cpu")
    monkeypatch.setenv(onednn.UNTESTED, "1")
    faked(dnnl_version=Asked())
    assert ENGINE.refusal(LAYER, "cpu") is None


@needed
def test_a_processor_without_avx2(faked):
    faked(dnnl_get_effective_cpu_isa=lambda: 3)
    assert "has no AVX2" in ENGINE.refusal(LAYER, "cpu")


def test_no_library(monkeypatch, reload, tmp_path):
    x, w = operands(LAYER)
    nothing, text = tmp_path / "libnone.so", tmp_path / "text.so"
    text.write_text("no library\n")
    for path in (nothing, text):
        monkeypatch.setenv(onednn.VARIABLE, str(path))
        reload()
        with pytest.raises(ValueError, match=rf"'native'` was refused .*{path} cannot be loaded .*libgomp"):
            contract(LAYER, x, w, NATIVE)
        check(LAYER, ENGINES["direct"], contract(LAYER, x, w), x, w)
        assert str(jaxconv.plan(LAYER, platform="cpu")).count(" native: ") == 3
    monkeypatch.delenv(onednn.VARIABLE)
    monkeypatch.setattr(onednn, "WHEEL", "no-such-wheel")
    reload()
    with pytest.raises(ValueError, match=r"no-such-wheel is not installed; install jaxconv\[native\]"):
        contract(LAYER, x, w, NATIVE)
    monkeypatch.setattr(onednn, "machine", lambda: "aarch64")
    reload()
    with pytest.raises(ValueError, match=r"no wheel of oneDNN for \w+ on aarch64. Name a library of your own"):
        contract(LAYER, x, w, NATIVE)


FAILURES = (ValueError, RuntimeError)  # JAX has either for an error of a program
INFALLIBLE = ("destroy", "equal", "size", "md", "version", "isa")
FALLIBLE = [name for name in onednn.FUNCTIONS if name.startswith("dnnl") and not name.endswith(INFALLIBLE)]


@needed
@pytest.mark.parametrize("name", FALLIBLE)
def test_calls_that_fail(name, faked):
    """A refusal, or an error that says which function failed, and of which problem: out of memory, say."""
    problem = LAYERS["strided"].kernel_pass if "weights" in name else LAYERS["strided"].input_pass
    x, w = operands(problem)
    seen = []

    @ctypes.CFUNCTYPE(ctypes.c_int)
    def failing():
        seen.append(name)
        return 1

    faked(**{name: failing})
    if "weights" in name:  # the sum is a layer with dilations, too
        check(problem, ENGINE, contract(problem, x, w, NATIVE), x, w)
        assert seen
        return
    with pytest.raises(FAILURES) as caught:
        jax.block_until_ready(contract(problem, x, w, NATIVE))
    assert seen
    said = str(caught.value)
    when = "dnnl_primitive_execute" if name == "dnnl_stream_wait" else name
    if "was refused" in said:
        assert f"native: oneDNN's {when} failed: out of memory; use method='auto'." in said
    else:
        assert re.search(
            rf"oneDNN's {when} failed.*, in backward_data of \[4, 16, 5, 4\] and .*, strides \(2, 2\)", said
        )
        assert "Use another method than 'native' for it." in said


@needed
def test_memories_are_destroyed_whatever_happens(faked):
    """As many as were made, also where the third of them or a primitive fails."""
    real, counts = ctypes.CDLL(str(onednn._path())), {}
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)

    @kind
    def create(*args):
        counts["asked"] = counts.get("asked", 0) + 1
        if counts["asked"] == counts.get("fails at"):
            return 1
        counts["made"] = counts.get("made", 0) + 1
        return real.dnnl_memory_create(*map(ctypes.c_void_p, args))

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    def destroy(memory):
        counts["destroyed"] = counts.get("destroyed", 0) + 1
        return real.dnnl_memory_destroy(ctypes.c_void_p(memory))

    x, w = operands(LAYER)
    faked(dnnl_memory_create=create, dnnl_memory_destroy=destroy)
    check(LAYER, ENGINE, contract(LAYER, x, w, NATIVE), x, w)
    assert counts["made"] == counts["destroyed"] >= 4
    counts.clear()
    counts["fails at"] = 3
    with pytest.raises(FAILURES, match="dnnl_memory_create failed, in forward of"):
        jax.block_until_ready(contract(LAYER, x, w, NATIVE))
    assert counts["made"] == counts["destroyed"] == 2
    counts.clear()
    faked(
        dnnl_memory_create=create, dnnl_memory_destroy=destroy,
        dnnl_primitive_execute=ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5),
    )  # fmt: skip
    with pytest.raises(FAILURES, match="dnnl_primitive_execute failed, in forward of"):
        jax.block_until_ready(contract(LAYER, x, w, NATIVE))
    assert counts["made"] == counts["destroyed"] >= 2


@needed
def test_what_is_no_longer_asked_about_is_destroyed(faked):
    """Descriptions: what is compiled stays, since programs may call it."""
    real, counts = ctypes.CDLL(str(onednn._path())), {"made": 0, "destroyed": 0}

    @ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 13)
    def make(*args):
        counts["made"] += 1
        training, direct, *others = args[2:]
        others = (ctypes.c_void_p(one) for one in others)
        return real.dnnl_convolution_forward_primitive_desc_create(
            *map(ctypes.c_void_p, args[:2]), training, direct, *others
        )

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    def destroy(description):
        counts["destroyed"] += 1
        return real.dnnl_primitive_desc_destroy(ctypes.c_void_p(description))

    faked(dnnl_convolution_forward_primitive_desc_create=make, dnnl_primitive_desc_destroy=destroy)
    assert ENGINE.refusal(LAYER, "cpu") is None
    assert counts["made"] > 0 == counts["destroyed"]
    for known in (onednn.primitive, onednn.parted, native._asked):
        known.cache_clear()
    assert counts["made"] == counts["destroyed"]


@needed
def test_a_program_of_another_processor_is_refused():
    """Its arrays for the library's formats have other lengths than are needed here."""
    call = native._asked(LAYER)[0].call
    found = onednn.parted(call)
    assert found.ready > 0
    assert onednn._recipe([0, found.ready, found.bytes, *found.how, *call.numbers()]).task_count == 1
    for ready, scratch in ((found.ready + 64, found.bytes), (found.ready, found.bytes - 1)):
        with pytest.raises(RuntimeError, match=r"compiled on another processor, .* Compile it anew. In forward of"):
            onednn._recipe([0, ready, scratch, *found.how, *call.numbers()])


@needed
def test_a_program_of_another_process_asks_for_its_recipe(faked):
    x, w = operands(LAYER)
    f = jax.jit(partial(contract, LAYER, options=NATIVE)).lower(x, w).compile()
    first = np.asarray(f(x, w))
    onednn.handler().forget()
    np.testing.assert_array_equal(f(x, w), first)
    faked(dnnl_primitive_create=ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1))
    with pytest.raises(
        jax.errors.JaxRuntimeError, match="RuntimeError: oneDNN's dnnl_primitive_create failed: out of mem"
    ):
        jax.block_until_ready(f(x, w))


# ---- threads and processes


@needed
def test_a_users_own_openmp_settings_stay():
    lib = onednn.library()
    x, w = operands(LAYER)
    assert lib.threads > 0
    before = lib.c.omp_get_max_threads()
    try:
        lib.c.omp_set_num_threads(lib.threads + 3)
        check(LAYER, ENGINE, contract(LAYER, x, w, NATIVE), x, w)
        onednn.Primitive(native._asked(LAYER)[0].call, False, 1)
        assert lib.c.omp_get_max_threads() == lib.threads + 3
    finally:
        lib.c.omp_set_num_threads(before)


@needed
def test_openmp_has_no_threads(faked, monkeypatch):
    """XLA's run the parts: each primitive is run by one thread alone, whatever that had for its parallel loops."""
    real, seen = ctypes.CDLL(str(onednn._path())), []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def execute(primitive, stream, count, arguments):
        seen.append(real.omp_get_max_threads())
        return real.dnnl_primitive_execute(
            *map(ctypes.c_void_p, (primitive, stream)), count, ctypes.c_void_p(arguments)
        )

    faked(dnnl_primitive_execute=execute)
    monkeypatch.setattr(onednn, "ALONE", 64)
    monkeypatch.setattr(onednn.library(), "threads", 3)
    x, w = operands(LAYER)
    check(LAYER, ENGINE, contract(LAYER, x, w, NATIVE), x, w)
    assert len(seen) > len(native._asked(LAYER)[1].parts) > 1
    assert {*seen} == {1}


@needed
@pytest.mark.parametrize(("variable", "threads"), [("NPROC", 1), ("PJRT_NPROC", 3)])
def test_as_many_threads_as_xla_is_told(variable, threads):
    code = """
        problem = Problem((Axis(64, 3, 64, p=1),) * 2, n=4, c=32, m=32, layouts=LAYER.layouts)
        x, w = (jnp.ones(shape, jnp.float32) for shape in (problem.x_shape, problem.w_shape))
        assert contract(problem, x, w, NATIVE).max() == 288
        print(onednn.library().threads, len(native._asked(problem)[1].parts))
    """
    done = python(code, **{variable: str(threads)})
    assert done.returncode == 0, done.stderr
    found, parts = map(int, done.stdout.split())
    assert found == threads
    assert (parts > 1) == (threads > 1)


@needed
def test_one_core_one_thread():
    done = subprocess.run(
        [
            *("taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c"),
            "from jaxconv.engines.onednn import library; print(library().threads)",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["1"], done.stderr


@needed
def test_eight_threads_on_four_devices():
    code = """
        from concurrent.futures import ThreadPoolExecutor
        onednn.ALONE, onednn.library().threads = 64, 3
        small = Problem(tuple(Axis(5, 3, 5, p=1) for _ in range(2)), n=3, c=8, m=8)
        rng = np.random.default_rng(0)
        jobs = []
        for problem in (LAYER, LAYER.input_pass, LAYER.kernel_pass, small):
            a, b = (np.asarray(rng.integers(-3, 4, s), np.float32) for s in (problem.x_shape, problem.w_shape))
            jobs.append((jax.jit(partial(contract, problem, options=NATIVE)), a, b,
                         np.asarray(contract(problem, a, b, Options("shifts")))))
        def work(k):
            device = jax.devices()[k % 4]
            for i in range(60):
                f, a, b, want = jobs[(i + k) % 4]
                y = f(jax.device_put(a, device), jax.device_put(b, device))
                assert (np.asarray(y) == want).all()
            return k
        with ThreadPoolExecutor(8) as pool:
            print(sorted(pool.map(work, range(8))))
    """
    done = python(code, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert done.stdout.strip() == str([*range(8)]), done.stderr


LOOP = """
    onednn.ALONE, onednn.library().threads = 64, 3
    f = jax.jit(lambda x, w: jax.lax.fori_loop(0, {trips}, lambda i, x: contract(square, x, w, NATIVE) / 99, x))
    square = Problem(LAYER.axes, n=4, c=16, m=16, layouts=LAYER.layouts)
    x, w = (jnp.ones(shape, jnp.float32) for shape in (square.x_shape, square.w_shape))
    compiled = f.lower(x, w).compile()
"""


@needed
def test_the_interpreter_may_end_while_a_call_runs():
    done = python(LOOP.format(trips=3000) + "    y = compiled(x, w)\n    print('ends', flush=True)\n")
    assert (done.returncode, done.stdout.strip()) == (0, "ends"), done.stderr


@needed
def test_a_forked_child_and_its_parent():
    code = """
        import warnings
        warnings.simplefilter("ignore")
        onednn.ALONE = 1 << 9
        contract(LAYER, x, w, NATIVE).block_until_ready()
        f = jax.jit(partial(contract, LAYER, options=NATIVE)).lower(x, w).compile()
        assert f(x, w).max() == 72
        assert len(native._asked(LAYER)[1].parts) > 1 or onednn.library().threads == 1
        if (child := os.fork()) == 0:  # no thread of XLA comes to help there
            y = f(x, w)  # computed in this thread; NumPy's maximum starts no other program
            os._exit(0 if np.asarray(y).max() == 72 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert f(x, w).max() == 72
        print("well")
    """
    done = python(code)
    assert done.stdout.strip() == "well", done.stderr


@needed
def test_a_killed_process_leaves_nothing_behind(tmp_path):
    """The next one takes its programs from the same cache."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    killed = python(LOOP.format(trips=100_000) + "    y = compiled(x, w)\n    os.kill(os.getpid(), 9)\n", **cache)
    assert killed.returncode == -signal.SIGKILL
    before = set(os.listdir(tmp_path))
    assert before
    done = python(LOOP.format(trips=9) + "    print(float(compiled(x, w).max()) > 0)\n", **cache)
    assert done.stdout.strip() == "True", done.stderr


@needed
def test_python_threads_at_once():
    x, w = operands(LAYER)
    f = jax.jit(partial(contract, LAYER, options=NATIVE))
    first = np.asarray(f(x, w))
    with ThreadPoolExecutor(8) as pool:
        for y in pool.map(lambda _: np.asarray(f(x, w)), range(64)):
            np.testing.assert_array_equal(y, first)
