"""Versions: what a report of a fault should say about the machine."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "flax", "optax", "orbax-checkpoint", "onednn-cpu-gomp")
VARIABLES = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "JAXCONV_WISDOM", "XLA_FLAGS")


def show_versions() -> None:
    """Print the versions of jaxconv and what it stands on, the devices, and the variables that change them.

    >>> show_versions()
    jaxconv ...
    """
    import jax  # here: jaxconv --version does without

    import jaxconv

    found = {"jaxconv": jaxconv.__version__, "python": sys.version.split()[0], "machine": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    found["devices"] = ", ".join(f"{device.platform}:{device.device_kind}" for device in jax.devices())
    found |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    for name, value in found.items():
        print(f"{name:18}{value}")
