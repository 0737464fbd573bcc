"""Settings of all tests: the short form, and with NIGHTLY=1 the long one."""

import ctypes
import gc
import os
import zlib
from collections import defaultdict
from functools import cache
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one worker has compiled, the other one and the next run take from here.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / "out" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ["XDG_DATA_HOME"] = str(Path(__file__).parent.parent / "out" / "data")  # without the user's own rates

import jax
import jaxlib
import numpy as np
import pytest
from hypothesis import settings

NIGHTLY = bool(os.environ.get("NIGHTLY"))
gc.set_threshold(100_000, 50, 100)  # tracing makes many objects

# Two host devices, so that sharding is tested on any machine. A test is mostly the compilation of its programs: the
# short form takes what XLA compiles fastest, the long one what a user gets.
GIVEN = os.environ.get("XLA_FLAGS", "")
FLAGS = [] if "device_count" in GIVEN else ["--xla_force_host_platform_device_count=2"]
if not NIGHTLY:
    FLAGS += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    if jaxlib.__version__.startswith("0.10."):  # later ones have no other emitters
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([GIVEN, *FLAGS])  # read when the first device is made

settings.register_profile("short", deadline=None, max_examples=8, derandomize=True, print_blob=True)
settings.register_profile("nightly", deadline=None, max_examples=650, derandomize=True, print_blob=True)
settings.register_profile("soak", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "nightly" if NIGHTLY else "short"))


def pytest_collection_modifyitems(config, items):
    """The short form, unless a test is asked for by its id: none marked `nightly`, few of the cases of many others."""
    if NIGHTLY or any("::" in argument for argument in config.args):
        return
    functions = defaultdict(list)
    for item in items:
        if not item.get_closest_marker("nightly"):
            functions[item.nodeid.partition("[")[0]].append(item)
    kept = set()
    for cases in functions.values():
        if cases[0].get_closest_marker("covering"):
            cases = covering(cases)
        elif marker := cases[0].get_closest_marker("sampled"):
            if len([*cases[0].iter_markers("parametrize")]) > 1:
                raise pytest.UsageError(f"{cases[0].nodeid}: of a product take `covering`, or a value is never met")
            cases = cases[marker.args[0] // 2 :: marker.args[0]]
        kept |= set(cases)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def covering(cases: list) -> list:
    """A few of the cases in which each value of each argument occurs."""
    values = {case: {(name, id(value)) for name, value in case.callspec.params.items()} for case in cases}
    mixed = sorted(cases, key=lambda case: zlib.crc32(case.name.encode()))
    left, few = set().union(*values.values()), []
    while left:
        few.append(max(mixed, key=lambda case: len(values[case] & left)))
        left -= values[few[-1]]
    return few


@cache
def has_float16() -> bool:
    """XLA's compiler on CPU finds no conversion of float16 where the processor has none (F16C)."""
    try:
        return bool(jax.jit(lambda x: x.astype(np.float32))(np.ones(3, np.float16)).all())
    except jax.errors.JaxRuntimeError:
        return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    try:
        return (yield)
    except jax.errors.JaxRuntimeError as error:
        if "Failed to materialize symbols" in str(error) and not has_float16():
            pytest.skip("XLA has no float16 on this processor")
        raise


FULL = 3 << 29  # bytes of memory at which compiled programs are dropped


@pytest.fixture(autouse=True)
def forgetful():
    """Thousands of compiled programs would fill the memory; what the allocator keeps of them, too."""
    yield
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as pages:
            full = int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") > FULL
        if full:
            jax.clear_caches()
            getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


@pytest.fixture
def nan():
    """Lets a test make NaN, also where JAX is told to raise."""
    with jax.debug_nans(False):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request):
    """Runs the test under 32-bit and under 64-bit types."""
    with jax.enable_x64(request.param):
        yield request.param
