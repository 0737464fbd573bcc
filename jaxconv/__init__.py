"""Convolution and correlation as differentiable linear operators in JAX."""

from jaxconv import lax, matching, ndimage, signal
from jaxconv.effort import effort
from jaxconv.plan import plan
from jaxconv.rates import calibrate
from jaxconv.signal import convolve, correlate
from jaxconv.tune import tune
from jaxconv.versions import __version__ as __version__
from jaxconv.versions import show_versions
from jaxconv.wisdom import wisdom

__all__ = [
    "calibrate",
    "convolve",
    "correlate",
    "effort",
    "lax",
    "matching",
    "ndimage",
    "plan",
    "show_versions",
    "signal",
    "tune",
    "wisdom",
]
