"""Layers for Flax NNX: correlations, convolutions, their transposes, and convolutions as long as the sequence.

Linen's layers take the operation itself: `linen.Conv(..., conv_general_dilated=jaxconv.lax.conv_general_dilated)`.
"""

from jaxconv.layers.convolutional import Convolve, ConvolveTranspose, Correlate, CorrelateTranspose, Operation
from jaxconv.layers.files import load_safetensors, save_safetensors
from jaxconv.layers.long import ImplicitKernel, LongConvolve
from jaxconv.layers.norms import SpectralNorm, operator_norm
from jaxconv.layers.replacing import replace_convs
from jaxconv.layers.weights import export_kernel, flip_kernels, import_kernel

__all__ = [
    "Convolve",
    "ConvolveTranspose",
    "Correlate",
    "CorrelateTranspose",
    "ImplicitKernel",
    "LongConvolve",
    "Operation",
    "SpectralNorm",
    "export_kernel",
    "flip_kernels",
    "import_kernel",
    "load_safetensors",
    "operator_norm",
    "replace_convs",
    "save_safetensors",
]
