"""The catalogue of identities and its verifier, as a user runs them."""

import json
import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxconv import engines
from jaxconv.cli import app
from jaxconv.identities import CATALOGUE, THEMES, sums
from jaxconv.identities.base import Claim, Domain, Identity, Rounded
from jaxconv.identities.diagnosis import diagnose
from jaxconv.identities.report import verify
from jaxconv.identities.rounding import bounds
from jaxconv.identities.verifier import execute, refuted, runs
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
    """Every engine in float32, the planner's choice in the other kinds: as `jaxconv verify` does."""
    report = verify([theme])
    assert report.holds, report.diagnoses
    assert all(v.cases for v in report.verdicts)


@pytest.mark.parametrize("i", [i for i in CATALOGUE if i.witness], ids=lambda i: i.name)
def test_every_witness_refutes_its_neighbour(i):
    assert refuted(i)
    left, _ = i.witness.sides()
    assert not refuted(replace(i, witness=i.witness._replace(sides=lambda: (left, left))))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "complex128", "int64", "int16"])
def test_other_dtypes(dtype):
    report = verify(["algebra", "network"], engines=["auto"], dtypes=[dtype])
    assert report.holds, report.diagnoses


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
    """True on the road of JAX, false on the road of the matrices."""
    f, g = case.positive(*case.shape), case.positive(*case.kernel_shape)
    y = sums.convolve(f, g)
    yield Claim("f * g", (f, g), [case.on(convolve)], y, [y + 1])


@pytest.mark.parametrize("check", [false_law, nearly_true, false_matrix])
def test_a_false_identity_is_refuted(check):
    planted = Identity("planted", "algebra", "f ⋆ g = g ⋆ f", "f", Domain(), "nowhere", check)
    report = verify(identities=[planted, identity("commutativity")])
    assert not report.holds
    assert [v.verdict for v in report.verdicts] == ["FAILS", "holds"]
    assert "planted" in report.summary
    [line] = report.diagnoses
    assert "whatever the engine" in line


@pytest.mark.parametrize("wrong", ["value", "nan", "shape", "raises"])
def test_a_wrong_backend_is_named(monkeypatch, wrong):
    """Identity, engine, pass and smallest failing shape."""
    true = engines.ENGINES["fft"].run

    def run(problem, x, w, precision=None):
        y = true(problem, x, w, precision)
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
    told = diagnose(step)
    assert "commutativity" in told
    assert "engine fft, forward pass" in told
    assert "smallest failing shape 40 and 9 (float32)" in told
    report = verify(engines=["fft"], dtypes=["float32"], seeds=4, identities=[identity("commutativity")])
    assert not report.holds


def test_a_wrong_pass_is_named(monkeypatch):
    true = engines.ENGINES["shifts"].run

    def run(problem, x, w, precision=None):
        y = true(problem, x, w, precision)
        return y + 1 if problem.axes and problem.axes[0].p < 0 and problem.axes[0].D < 0 else y  # an input pass

    monkeypatch.setitem(engines.ENGINES, "gemm", replace(engines.ENGINES["gemm"], run=run))
    law = identity("gradient of correlation in its input")
    failing = [r for r in runs([law], ["gemm"], ["float32"], 4) if not all(f.holds for f in execute(r))]
    told = diagnose(failing[0])
    assert "engine gemm, input pass" in told


class TestBounds:
    """The running error analysis covers what float arithmetic does, and is not empty."""

    @pytest.mark.parametrize("method", ["shifts", "fft", "overlap", "winograd"])
    def test_of_a_composition(self, method, rng):
        import jax

        x, a, b = (rng.normal(size=n).astype(np.float32) for n in (60, 5, 4))

        def f(x, a, b):
            y = convolve(convolve(x, a, method=method), b, method=method)
            return jnp.cumsum(y * y) / 3

        [bound] = bounds(jax.make_jaxpr(f)(x, a, b), (x, a, b), "cpu")
        y = np.convolve(np.convolve(*(v.astype(np.longdouble) for v in (x, a))), b.astype(np.longdouble))
        truth = np.cumsum(y * y) / 3
        np.testing.assert_allclose(bound.value.astype(float), truth.astype(float), rtol=1e-13)
        error = np.abs(np.asarray(f(x, a, b)) - truth)
        assert (error <= bound.error).all()
        assert error.max() > 0
        assert bound.error.max() < 1e-2 * truth.max()

    def test_integers_are_exact_until_the_mantissa_is_full(self):
        import jax

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

    def test_an_unknown_primitive_is_refused(self):
        import jax

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
    served = [i for i in found["identities"] if i["cases"]]
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
    done = invoke("--theme", "network", "--engine", "shifts")
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
        (("--json", "no/such/folder/out.json"), "Make it first"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in re.sub(r"[\s│]+", " ", done.output)
