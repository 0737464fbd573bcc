"""Layers for Flax NNX: correlations, convolutions, their transposes, and convolutions as long as the sequence.

Linen's layers take the operation itself: `linen.Conv(..., conv_general_dilated=jaxconv.lax.conv_general_dilated)`.
"""

from jaxconv.layers.convolutional import Convolve, ConvolveTranspose, Correlate, CorrelateTranspose, Operation
from jaxconv.layers.long import ImplicitKernel, LongConvolve
from jaxconv.layers.norms import SpectralNorm, operator_norm
from jaxconv.layers.replacing import replace_convs

__all__ = [
    "Convolve",
    "ConvolveTranspose",
    "Correlate",
    "CorrelateTranspose",
    "ImplicitKernel",
    "LongConvolve",
    "Operation",
    "SpectralNorm",
    "operator_norm",
    "replace_convs",
]
