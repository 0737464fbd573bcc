"""Versions: jaxconv's own, and what a report of a fault should say about the machine."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import jax

from jaxconv.rates import rates

__version__ = "0.1.0"
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "flax", "optax", "orbax-checkpoint", "onednn-cpu-gomp", "llvmlite")
VARIABLES = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "JAXCONV_ONEDNN", "JAXCONV_WISDOM", "OMP_NUM_THREADS", "XLA_FLAGS")


def show_versions() -> None:
    """Print the versions of jaxconv and what it stands on, the devices, and the variables that change them.

    >>> show_versions()
    jaxconv ...
    """
    lines = {"jaxconv": __version__, "python": sys.version.split()[0], "machine": platform.platform()}
    for package in PACKAGES:
        try:
            lines[package] = version(package)
        except PackageNotFoundError:
            lines[package] = "-"
    lines["rates"] = rates().source
    lines["devices"] = ", ".join(f"{device.platform}:{device.device_kind}" for device in jax.devices())
    lines |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    for name, value in lines.items():
        print(f"{name:18}{value}")
