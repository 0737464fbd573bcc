"""Convolution and correlation as differentiable linear operators in JAX."""

from jaxconv import lax
from jaxconv.plan import plan
from jaxconv.signal import convolve, correlate

__all__ = ["convolve", "correlate", "lax", "plan"]
__version__ = "0.1.0"
