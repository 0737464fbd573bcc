"""The catalogue of identities and its verifier, as a user runs them."""

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxconv import engines, plan
from jaxconv.cli import app
from jaxconv.identities import CATALOGUE, THEMES, sums
from jaxconv.identities.base import Case, Claim, Domain, Identity, Rounded, Witness, forced
from jaxconv.identities.diagnosis import diagnose
from jaxconv.identities.report import verify
from jaxconv.identities.rounding import bounds
from jaxconv.identities.verifier import _arguments, execute, refuted, runs
from jaxconv.signal import convolve, correlate


def identity(name: str) -> Identity:
    return next(i for i in CATALOGUE if i.name == name)


def test_the_catalogue_is_long_and_complete():
    assert len(CATALOGUE) >= 45
    assert len({i.name for i in CATALOGUE}) == len(CATALOGUE)
    assert list(THEMES) == ["algebra", "adjoint", "spectral", "structure", "equivariance", "network"]
    for i in CATALOGUE:
        assert i.statement
        assert i.latex
        assert i.source
        assert str(i.domain)


@pytest.mark.parametrize("theme", THEMES)
def test_the_default_run_holds(theme):
    """As `jaxconv verify` does."""
    report = verify([theme])
    assert report.holds, report.diagnoses
    assert all(v.comparisons for v in report.verdicts)


@pytest.mark.parametrize("i", [i for i in CATALOGUE if i.witness], ids=lambda i: i.name)
def test_every_witness_refutes_its_neighbour(i):
    assert refuted(i)
    left, _ = i.witness.sides()
    assert not refuted(replace(i, witness=i.witness._replace(sides=lambda: (left, left))))


@pytest.mark.parametrize(
    "dtype",
    ["complex128", "int64", *(pytest.param(d, marks=pytest.mark.nightly) for d in ("bfloat16", "float16", "int16"))],
)
def test_other_dtypes(dtype):
    themes = ["algebra", "network"] if dtype != "int16" else list(THEMES)
    report = verify(themes, engines=["auto"], dtypes=[dtype])
    assert report.holds, report.diagnoses


def test_an_engine_is_asked_for_in_loops_and_branches_and_not_within_custom_derivatives():
    def smooth(x):
        return convolve(x, jnp.ones(3), "same")

    def looped(x):
        x = jax.lax.scan(lambda y, _: (smooth(y), None), x, length=2)[0]
        return jax.lax.cond(x.sum() > 0, smooth, lambda x: -x, x)

    x = jnp.arange(4.0)
    for engine in ("direct", "gemm"):
        of = plan(forced(looped, engine), x)
        assert [p.options.forward for p in of] == [engine] * 2
        np.testing.assert_array_equal(forced(looped, engine)(x), looped(x))
    custom = jax.custom_jvp(smooth)
    custom.defjvp(lambda primals, tangents: (smooth(*primals), smooth(*tangents)))
    with pytest.raises(NotImplementedError, match="within a custom derivative"):
        forced(custom, "direct")(x)


@pytest.mark.parametrize("engine", ["auto", *engines.ENGINES])
def test_eight_seeds_meet_every_option(engine):
    """Modes, boundaries, strides and layers: no more than eight of each."""
    for count in range(1, 9):
        met = {Case("float32", size, 0, Domain(), engine).turn(range(count))[0] for size in range(8)}
        assert met == set(range(count))


@pytest.mark.parametrize("theme", THEMES)
def test_the_program_does_not_depend_on_the_seed(theme):
    """Seeds that are eight apart share one: what the first seed drew must not be part of it. Nothing is promoted."""
    for i in THEMES[theme].identities:
        dtype = "float32" if "real" in i.domain.kinds else "complex64" if "complex" in i.domain.kinds else "int32"
        for size in (0, 1):
            programs = []
            for seed in (size, size + 8):
                with jax.numpy_dtype_promotion("strict"):
                    claims = i.check(Case(dtype, size, seed, i.domain))
                    programs.append([jax.make_jaxpr(f)(*_arguments(c, dtype)) for c in claims for f in c.autodiff])
            for one, other in zip(*programs, strict=True):
                assert str(one) == str(other), i.name
                for a, b in zip(one.consts, other.consts, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=i.name)


def test_seeds_share_a_program():
    [run] = runs([identity("commutativity")], ["fft"], ["float32"], 1)
    found = execute(replace(run, seeds=tuple(range(200))))
    assert len({f.seed for f in found}) == 200
    assert all(f.holds for f in found)


def false_law(case):
    """f ⋆ g = g ⋆ f, said with the literal sums of the left side."""
    f, g = case.pair()
    yield Claim("f ⋆ g", (f, g), [lambda f, g: case.on(correlate)(g, f)], sums.correlate(f, g))


def nearly_true(case):
    """f * g with one term of one output missing."""
    f, g = case.positive(*case.shape), case.positive(*case.kernel_shape)
    y = sums.convolve(f, g)
    y[(-1,) * y.ndim] = 0
    yield Claim("f * g", (f, g), [case.on(convolve)], y)


def false_matrix(case):
    """True on the route of JAX, false on the route of the matrices."""
    f, g = case.positive(*case.shape), case.positive(*case.kernel_shape)
    y = sums.convolve(f, g)
    yield Claim("f * g", (f, g), [case.on(convolve)], y, [y + 1])


def late(case):
    """False for one seed only."""
    f, g = case.pair()
    y = sums.convolve(f, g) + (case.seed == 9)
    yield Claim("f * g", (f, g), [case.on(convolve)], y)


def test_the_seed_that_failed_is_replayed():
    planted = Identity("planted", "algebra", "f * g", "f", Domain(), "nowhere", late)
    report = verify(identities=[planted], engines=["direct"], seeds=10)
    [line] = report.diagnoses
    assert "'f * g' on the route autodiff: off by" in line
    assert "not to be trusted" not in line


def test_a_progress_bar_changes_nothing():
    chosen = dict(identities=[identity("commutativity")], engines=["direct"], dtypes=["int32"])
    assert verify(**chosen, progress=True).verdict == verify(**chosen).verdict


def test_a_witness_that_does_not_refute_fails():
    law = identity("commutativity")
    true = replace(law, witness=Witness("f * g = g * f", lambda: (np.ones(3), np.ones(3))))
    broken = replace(law, witness=Witness("f ⋆ g = g ⋆ f", lambda: 1 / 0))
    for planted, words in ((true, "it is true"), (broken, "ZeroDivisionError")):
        report = verify(identities=[planted], engines=["direct"])
        assert not report.holds
        assert "FAIL" in report.verdict
        assert words in report.diagnoses[0]


def test_an_engine_that_serves_nothing_is_not_said_to_hold():
    report = verify(["algebra"], engines=["fft"], dtypes=["int32"])
    assert not report.holds
    assert report.verdict == "nothing was served"
    # Layers with strides: winograd refuses them, whatever it would do in another pass.
    report = verify(engines=["winograd"], identities=[identity("average pooling")])
    assert report.verdicts[0].verdict == "not served"


def test_a_bound_that_is_as_large_as_the_result_says_nothing(monkeypatch):
    """An engine is not excused by an analysis that excuses everything."""
    engine = engines.ENGINES["fft"]
    ones = replace(engine, run=lambda p, *_: jnp.ones(p.y_shape, p.dtypes.y), error=lambda p: (0.0, 8e6))
    monkeypatch.setitem(engines.ENGINES, "fft", ones)
    report = verify(engines=["fft"], identities=[identity("commutativity")])
    assert not report.holds


@pytest.mark.parametrize("check", [false_law, nearly_true, false_matrix])
def test_a_false_identity_is_refuted(check):
    planted = Identity("planted", "algebra", "f ⋆ g = g ⋆ f", "f", Domain(), "nowhere", check)
    report = verify(identities=[planted, identity("commutativity")])
    assert not report.holds
    assert [v.verdict for v in report.verdicts] == ["FAILS", "holds"]
    assert "planted" in report.summary
    [line] = report.diagnoses
    assert "whatever the engine" in line


@pytest.mark.parametrize(
    "wrong", ["value", "raises", *(pytest.param(w, marks=pytest.mark.nightly) for w in ("nan", "shape"))]
)
def test_a_wrong_backend_is_named(monkeypatch, wrong):
    """Identity, engine, pass and smallest failing shape."""
    true = engines.ENGINES["fft"].run

    def run(problem, x, w, precision=None, platform="cpu"):
        y = true(problem, x, w, precision, platform)
        if problem.axes[0].I < 10:  # small ones are right
            return y
        if wrong == "raises":
            raise RuntimeError("device lost")
        return {"value": y.at[..., 0].add(1), "nan": y * jnp.nan, "shape": y[:0]}[wrong]

    monkeypatch.setitem(engines.ENGINES, "fft", replace(engines.ENGINES["fft"], run=run))
    [step] = [r for r in runs([identity("commutativity")], ["fft"], ["float32"], 4) if r.size == 2]
    findings = execute(step)
    assert findings
    assert not all(f.holds for f in findings)
    told = diagnose(step, step.seeds[0])
    assert "commutativity" in told
    assert "engine fft, forward pass" in told
    assert "smallest failing shapes 40, 9 (float32)" in told
    report = verify(engines=["fft"], dtypes=["float32"], seeds=4, identities=[identity("commutativity")])
    assert not report.holds


def test_a_wrong_pass_is_named(monkeypatch):
    true = engines.ENGINES["shifts"].run

    def run(problem, x, w, precision=None, platform="cpu"):
        y = true(problem, x, w, precision, platform)
        return y + 1 if problem.axes and problem.axes[0].p < 0 and problem.axes[0].D < 0 else y  # an input pass

    monkeypatch.setitem(engines.ENGINES, "gemm", replace(engines.ENGINES["gemm"], run=run))
    law = identity("gradient of correlation in its input")
    failing = [r for r in runs([law], ["gemm"], ["float32"], 4) if not all(f.holds for f in execute(r))]
    told = diagnose(failing[0], failing[0].seeds[0])
    assert "engine gemm, input pass" in told


class TestBounds:
    """The running error analysis covers what float arithmetic does, and is not empty."""

    @pytest.mark.parametrize("method", ["shifts", "fft", "overlap", "winograd"])
    def test_of_a_composition(self, method, rng):
        x, a, b = (rng.normal(size=n).astype(np.float32) for n in (60, 5, 4))

        def f(x, a, b):
            y = convolve(convolve(x, a, method=method), b, method=method)
            return jnp.cumsum(y * y) / 3

        with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
            doubles = [v.astype(np.float64) for v in (x, a, b)]
            [finer] = bounds(jax.make_jaxpr(f)(*doubles), doubles, "cpu")
        [bound] = bounds(jax.make_jaxpr(f)(x, a, b), (x, a, b), "cpu")
        assert (finer.error < bound.error / 2**28).all()
        y = np.convolve(np.convolve(*(v.astype(np.longdouble) for v in (x, a))), b.astype(np.longdouble))
        truth = np.cumsum(y * y) / 3
        np.testing.assert_allclose(bound.value.astype(float), truth.astype(float), rtol=1e-13)
        error = np.abs(np.asarray(f(x, a, b)) - truth)
        assert (error <= bound.error).all()
        assert error.max() > 0
        assert bound.error.max() < 1e-2 * truth.max()

    def test_integers_are_exact_until_the_mantissa_is_full(self):
        x = np.full(40, 3.0, np.float32)
        f = jax.make_jaxpr(lambda x: convolve(x, x, method="direct"))
        assert not bounds(f(x), (x,), "cpu")[0].error.any()
        assert bounds(f(x), (1e6 * x,), "cpu")[0].error.all()

    def test_a_rounded_argument_brings_its_error(self):
        third = np.asarray(1, np.longdouble) / np.asarray([3, 7], np.longdouble)

        def check(case):
            yield Claim("3 x", (Rounded(third),), [lambda x: 3 * x], 3 * third)

        planted = Identity("planted", "algebra", "3 x", "x", Domain(("real",)), "nowhere", check)
        report = verify(identities=[planted], engines=["auto"])
        assert report.holds
        assert report.verdicts[0].worst.bound > 0

    @pytest.mark.parametrize(
        "f",
        [
            lambda x, y: x / y,
            lambda x, y: -x - y,
            lambda x, y: jnp.minimum(x, y) * jnp.maximum(x, y),
            lambda x, y: jnp.square(x) + y**3,
            lambda x, y: abs(jax.lax.complex(x, y)),
            lambda x, y: (jax.lax.complex(x, y) * jax.lax.complex(y, x)).imag,
            lambda x, y: (jax.lax.complex(x, y).conj() * 3).real,
            lambda x, y: jnp.where(jnp.arange(40) < 7, x, y) * jnp.where(jnp.arange(40) > 5, 2, y),
            lambda x, y: jnp.expand_dims(x, 1) @ jnp.expand_dims(y, 0),
            lambda x, y: jnp.cumsum(x / 7) + y.max(),
            lambda x, y: jnp.concatenate([x[::3], y[5:]]).sum() / 3,
            lambda x, y: jnp.dot(x, y, precision="highest"),
        ],
    )
    def test_of_every_rule(self, f, rng):
        x, y = (rng.normal(size=40).astype(np.float32) for _ in range(2))
        closed = jax.make_jaxpr(f)(x, y)
        [bound] = bounds(closed, (x, y), "cpu")
        with jax.enable_x64(True):
            truth = np.asarray(f(x.astype(np.float64), y.astype(np.float64)))
        np.testing.assert_allclose(bound.value.astype(truth.dtype), truth, rtol=1e-12, atol=1e-12)
        error = np.abs(np.asarray(jax.jit(f)(x, y), np.float64) - truth)
        assert (error <= bound.error + 1e-14).all()
        assert np.max(bound.error) < 1e-4

    def test_a_quotient_of_integers_is_rounded(self):
        [bound] = bounds(jax.make_jaxpr(lambda x: x / 3)(np.float32(1)), (np.float32(1),), "cpu")
        assert bound.error >= abs(float(np.float32(1) / np.float32(3)) - 1 / 3) > 0

    def test_out_of_range_there_is_no_bound(self):
        x = np.full(3, 200, np.float16)
        [bound] = bounds(jax.make_jaxpr(lambda x: x * x * 3)(x), (x,), "cpu")
        assert np.isinf(bound.error).all()

    def test_an_unknown_primitive_is_refused(self):
        with pytest.raises(NotImplementedError, match="'sin'"):
            bounds(jax.make_jaxpr(jnp.sin)(1.0), (1.0,), "cpu")


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["verify", "--no-progress", *arguments])


def test_the_command(tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    chosen = ("--theme", "spectral", "--engine", "fft", "--engine", "auto", "--dtype", "complex64")
    done = invoke(*chosen, "--json", str(out), "--html", str(page))
    assert done.exit_code == 0, done.output
    assert "circular convolution theorem" in done.output
    assert not list(tmp_path.glob("*.part"))
    found = json.loads(out.read_text())
    assert found["holds"] is True
    assert set(found["environment"]) == {"device", "processor", "python", "jax", "jaxlib", "date"}
    served = [i for i in found["identities"] if i["comparisons"]]
    assert len(served) >= 10
    for i in served:
        assert {"statement", "latex", "domain", "source", "verdict", "failures", "worst"} <= set(i)
        assert all(cell["error"] <= cell["bound"] for cell in i["worst"])
    text = page.read_text()
    assert text.count("<math") == len(found["identities"])
    assert "<svg" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert not re.search(r"@import|url\(http", text)


def test_a_failure_ends_the_command_with_1(monkeypatch):
    true = engines.ENGINES["shifts"].run
    broken = replace(engines.ENGINES["shifts"], run=lambda *a, **k: true(*a, **k) + 1)
    monkeypatch.setitem(engines.ENGINES, "shifts", broken)
    done = invoke("--theme", "spectral", "--engine", "shifts", "--dtype", "int32")
    assert done.exit_code == 1
    assert "FAILS" in done.output
    assert "engine shifts" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--theme", "magic"), "algebra"),
        (("--engine", "magic"), "overlap"),
        (("--dtype", "float8"), "bfloat16"),
        (("--device", "abacus"), "cpu:0"),
        (("--device", "cpu:77"), "cpu:0"),
        (("--seeds", "0"), "seeds"),
        (("--device", "cpu:-1"), "cpu:0"),
        (("--device", ""), "cpu:0"),
        (("--json", "no/such/folder/out.json"), "Make it first"),
        (("--html", "."), "it is a folder"),
        (("--html", "x", "--json", "x"), "one would overwrite"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in re.sub(r"[\s│]+", " ", done.output)
