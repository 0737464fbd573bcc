"""Settings of all tests."""

import os

import pytest

# Two host devices, so that sharding is tested on any machine.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from hypothesis import settings

settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True, print_blob=True)
settings.register_profile("soak", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture(autouse=True, scope="module")
def forgetful():
    """A module's compiled programs are dropped with it: thousands of them would fill the memory."""
    yield
    jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request):
    """Runs the test under 32-bit and under 64-bit types."""
    with jax.enable_x64(request.param):
        yield request.param
