"""SciPy's own tests put to jaxconv: a pytest plugin that, while one of them runs, has jaxconv in SciPy's place.

    python -m pytest -p tests.scipys -c /dev/null --rootdir . --pyargs scipy.signal.tests.test_upfirdn

Only what the test itself names is replaced; SciPy's internals, and the oracles of `ORACLES`, stay SciPy's. Of each
module only the tests that reach a replaced function run. Those of `EXCEPT` must fail. The environment variable SCIPYS
holds words: 'all' runs every case, the slow ones too; 'bare' makes no exceptions. SCIPYS_REPORT names a file for the
numbers, as JSON.
"""

import ast
import functools
import importlib
import inspect
import json
import math
import os
import random
import re
import types
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

# What each module of SciPy's tests calls, by the package that it comes from.
MODULES = {
    "scipy.signal.tests.test_signaltools": (
        "convolve correlate convolve2d correlate2d fftconvolve oaconvolve correlation_lags choose_conv_method "
        "deconvolve resample_poly"
    ),
    "scipy.signal.tests.test_upfirdn": "upfirdn",
    "scipy.signal.tests.test_savitzky_golay": "savgol_coeffs savgol_filter",
    "scipy.signal.tests.test_bsplines": "sepfir2d",
    "scipy.linalg.tests.test_special_matrices": "convolution_matrix",
    "scipy.ndimage.tests.test_filters": (
        "correlate convolve correlate1d convolve1d gaussian_filter gaussian_filter1d uniform_filter uniform_filter1d "
        "sobel prewitt laplace generic_laplace gaussian_laplace gaussian_gradient_magnitude generic_gradient_magnitude"
    ),
}
OURS = {"scipy.signal": "jaxconv.signal", "scipy.linalg": "jaxconv.signal", "scipy.ndimage": "jaxconv.ndimage"}

# What the named tests compare with: SciPy's function there, so that jaxconv is not measured by itself.
ORACLES = {
    "test_signaltools::TestFFTConvolve::*": "convolve2d",
    "test_signaltools::TestOAConvolve::*": "fftconvolve",
    "test_signaltools::TestResample::*": "convolve",
    "test_signaltools::TestCorrelate2d::*_funcs_2*": "correlate",
    "test_signaltools::test_correlation_lags*": "correlate",
    "test_filters::TestNdimageFilters::test_prewitt*": "correlate1d",
    "test_filters::TestNdimageFilters::test_sobel*": "correlate1d",
    "test_filters::TestNdimageFilters::test_laplace*": "correlate1d",
    "test_filters::TestNdimageFilters::test_gaussian_laplace*": "gaussian_filter",
    "test_filters::TestNdimageFilters::test_gaussian_gradient_magnitude*": "gaussian_filter",
    "test_filters::TestNdimageFilters::test_generic_laplace*": "gaussian_laplace",
    "test_filters::TestNdimageFilters::test_generic_gradient_magnitude*": "gaussian_gradient_magnitude",
}
HELPERS = {"scipy.ndimage.tests.test_filters": ["_complex_correlate"]}  # oracles too: in them nothing is replaced

# Tests that ask for what JAX cannot have, or for what jaxconv documents otherwise. Each must fail.
EXCEPT = {
    "test_signaltools::test_convolve_longdtype_input*": "JAX has no long double.",
    "test_signaltools::test_choose_conv_method*": "The methods are jaxconv's engines.",
    "test_signaltools::TestConvolve::test_broadcastable*": "The FFT refuses integers: it rounds.",
    "test_signaltools::TestConvolve::test_convolve_method*": "The FFT refuses integers: it rounds.",
    "test_signaltools::TestCorrelateReal::test_method[numpy-int*": "The FFT refuses integers: it rounds.",
    "test_signaltools::TestCorrelateReal::test_method[numpy-uint*": "The FFT refuses integers: it rounds.",
    "test_signaltools::TestDecimate::test_complex_fir_dlti*": "To the last bit it is SciPy's own order of summation.",
    "test_signaltools::TestFFTConvolve::test_fft_nan*": "A compiled function cannot warn of the values it meets.",
    "test_signaltools::TestOAConvolve::test_1d_axes[numpy-same-*-3-1-*": "SciPy crops the broadcast axes too.",
    "test_signaltools::TestOAConvolve::test_2d_axes[numpy-*-3-1-*-same-axes*": "SciPy crops the broadcast axes too.",
    "test_filters::TestNdimageFilters::test_gauss03*": "Images of float32 are summed in float32.",
    "test_filters::TestNdimageFilters::test_gaussian_laplace0*[numpy-float32]": "float32 is summed in float32.",
    "test_filters::TestNdimageFilters::test_gaussian_laplace0*[numpy-complex64]": "complex64 is summed in complex64.",
    "test_filters::test_gaussian_filter_float16*": "float16 is allowed.",
} | {
    f"test_filters::TestNdimageFilters::test_{name}[numpy-uint64]": "SciPy loses 2**64 - k, in float64."
    for name in ["prewitt01", "prewitt02", "prewitt03", "sobel01", "sobel02", "sobel03"]
}

# At most so many cases of one parametrised test, unless all are wanted: each shape is compiled anew.
CASES = 6 if os.environ.get("NIGHTLY") else 1
# And in the short form of the suite tests until so many reach each function.
TESTS = math.inf if os.environ.get("NIGHTLY") else 4
FEWER = {"test_signaltools::TestResample::test_resample_methods": 1}
HUGE = "test_signaltools::TestConvolve2d::test_large_array*"  # 2 GB for one number

WORDS = os.environ.get("SCIPYS", "").replace(",", " ").split()
calls: Counter[str] = Counter()
counts: Counter[str] = Counter()
missing: set[str] = set()


def package_of(module: str) -> types.ModuleType:
    return importlib.import_module(module.partition(".tests.")[0])


def matches(pattern: str, name: str) -> bool:
    """With '*' for anything; the brackets of parametrised tests stand for themselves."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def id_of(item: pytest.Item) -> str:
    return item.module.__name__.rpartition(".")[2] + "::" + item.nodeid.partition("::")[2]


def oracles(item: pytest.Item) -> set[str]:
    return {name for pattern, name in ORACLES.items() if matches(pattern, id_of(item))}


def to_numpy(x):
    """A JAX array as NumPy's functions return it: writable, and a scalar where it has no dimensions."""
    return np.array(x)[()] if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) else x


def stand_in(name: str, ours, theirs):
    """`ours` behind SciPy's signature, with what JAX cannot have: `xp`, an array to write into."""

    # A compiled function of SciPy's has no signature; none of those takes `output`.
    parameters = [] if inspect.isbuiltin(theirs) else list(inspect.signature(theirs).parameters)

    @functools.wraps(theirs)
    def call(*args, **kwargs):
        calls[name] += 1
        kwargs.pop("xp", None)
        args = list(args)
        place = parameters.index("output") if "output" in parameters else len(args)
        out = args[place] if place < len(args) else kwargs.get("output")
        if isinstance(out, np.ndarray):
            if place < len(args):
                args[place] = out.dtype
            else:
                kwargs["output"] = out.dtype
        result = jax.tree.map(to_numpy, ours(*args, **kwargs))
        if not isinstance(out, np.ndarray):
            return result
        if (result.shape, result.dtype) != (out.shape, out.dtype):
            raise RuntimeError(f"{name} gives {result.dtype}{result.shape}, output is {out.dtype}{out.shape}")
        out[...] = result
        return out

    return call


@functools.cache
def stand_ins(module: str) -> dict:
    """By SciPy's function, jaxconv's behind its signature."""
    package, found = package_of(module), {}
    try:
        ours = importlib.import_module(OURS[package.__name__])
    except ModuleNotFoundError:
        ours = None
    for name in MODULES[module].split():
        if hasattr(ours, name):
            theirs = getattr(package, name)
            found[theirs] = stand_in(name, getattr(ours, name), theirs)
        else:
            missing.add(f"{OURS[package.__name__]}.{name}")
    return found


class Package(types.ModuleType):
    """A package of SciPy's with some functions replaced, for one test module's eyes."""

    def __init__(self, package: types.ModuleType, replaced: dict):
        super().__init__(package.__name__)
        self.__dict__.update(replaced, __getattr__=lambda name: getattr(package, name))


@functools.cache
def reached(module: types.ModuleType) -> dict[str, set[str]]:
    """By qualified name, which of `MODULES` each function of the module calls, itself or through another one."""
    package, wanted = package_of(module.__name__), MODULES[module.__name__].split()
    functions = {}
    for node in ast.parse(inspect.getsource(module)).body:
        for f in [node] if isinstance(node, ast.FunctionDef) else node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(f, ast.FunctionDef):
                functions[f.name if f is node else f"{node.name}.{f.name}"] = f
    calls, uses = {}, {}
    for key, f in functions.items():
        nodes = [n for statement in f.body for n in ast.walk(statement)]
        plain = {n.id for n in nodes if isinstance(n, ast.Name)}
        dotted = {(n.value.id, n.attr) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
        theirs = {n for n in plain if n in wanted and getattr(module, n, None) is getattr(package, n)}
        calls[key] = theirs | {n for of, n in dotted if n in wanted and getattr(module, of, None) is package}
        used = plain | {n for _, n in dotted}
        uses[key] = {other for other in functions if not used.isdisjoint(other.split("."))}
    for _ in functions:
        before = sum(map(len, calls.values()))
        for key, others in uses.items():
            calls[key] |= set().union(*(calls[other] for other in others))
        if sum(map(len, calls.values())) == before:
            break
    return calls


def reaches(item: pytest.Item) -> set[str]:
    """Which of `MODULES` a test tries; one that is parametrised by SciPy's functions, those among them."""
    package = package_of(item.module.__name__)
    given = item.callspec.params.values() if hasattr(item, "callspec") else []
    given = {f.__name__ for f in given if callable(f) and getattr(package, getattr(f, "__name__", ""), None) is f}
    if given:
        return given & set(MODULES[item.module.__name__].split())
    return reached(item.module).get(item.function.__qualname__, set()) - oracles(item)


def pytest_configure(config):
    jax.config.update("jax_enable_x64", True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    wanted = [item for item in items if item.module.__name__ in MODULES and reaches(item)]
    if not any("::" in argument for argument in config.args):
        modules = {item.module.__name__.rpartition(".")[2] for item in wanted}
        for pattern in [*EXCEPT, *ORACLES]:
            if pattern.partition("::")[0] in modules and not any(matches(pattern, id_of(item)) for item in wanted):
                raise pytest.UsageError(f"tests/scipys.py speaks of {pattern}, which matches no test")

    cases: dict[str, list] = {}
    for item in wanted:
        replaced = {theirs.__name__ for theirs in stand_ins(item.module.__name__)}
        slow = item.get_closest_marker("slow") and "all" not in WORDS
        if reaches(item) & replaced and not slow and not matches(HUGE, id_of(item)):
            cases.setdefault(id_of(item).partition("[")[0], []).append(item)
    kept, met = set(), Counter()
    for name, group in random.Random(0).sample([*cases.items()], len(cases)):
        functions = set().union(*map(reaches, group))
        if "all" not in WORDS and all(met[f] >= TESTS for f in functions):
            continue
        met.update(functions)
        n = len(group) if "all" in WORDS else min(len(group), FEWER.get(name, CASES))
        kept.update(random.Random(0).sample(group, n))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]

    for item in items if "bare" not in WORDS else []:
        for pattern, reason in EXCEPT.items():
            if matches(pattern, id_of(item)):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    module, before = item.module, calls.total()
    replaced = {f: ours for f, ours in stand_ins(module.__name__).items() if f.__name__ not in oracles(item)}
    np.random.seed(0)  # many of SciPy's tests draw from it unseeded
    with pytest.MonkeyPatch.context() as patch:
        theirs = dict(vars(module))
        for name in HELPERS.get(module.__name__, []):
            f = theirs[name]
            patch.setitem(vars(module), name, types.FunctionType(f.__code__, theirs, name, f.__defaults__))
        package = package_of(module.__name__)
        for scope in vars(module), item.funcargs:
            for name, value in list(scope.items()):
                if value is package:
                    patch.setitem(scope, name, Package(package, {f.__name__: ours for f, ours in replaced.items()}))
                elif inspect.isroutine(value) and value in replaced:
                    patch.setitem(scope, name, replaced[value])
        try:
            return (yield)
        finally:
            item.called = calls.total() > before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        counts[report.outcome] += 1
        counts["passed by jaxconv"] += report.passed and item.called
    return report


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"jaxconv: {dict(counts)}; calls: {dict(calls)}; not there: {sorted(missing)}")


def pytest_sessionfinish():
    if "SCIPYS_REPORT" in os.environ:
        report = dict(passed=counts["passed by jaxconv"], calls=calls, missing=sorted(missing))
        Path(os.environ["SCIPYS_REPORT"]).write_text(json.dumps(report))
