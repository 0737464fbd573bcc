"""jax.lax's convolutions, with their signatures, meaning and errors of jaxconv's own.

`conv_general_dilated` may stand wherever `jax.lax.conv_general_dilated` stands, in a
model (`nnx.Conv(..., conv_general_dilated=jaxconv.lax.conv_general_dilated)`) or in a
program, and may be assigned over it. Three arguments come on top: `flip_kernel`, `method` and `accuracy`.
"""

from jaxconv.lax.convolution import conv, conv_general_dilated, conv_with_general_padding
from jaxconv.lax.patches import conv_general_dilated_local, conv_general_dilated_patches, fold
from jaxconv.lax.transposed import conv_transpose

__all__ = [
    "conv",
    "conv_general_dilated",
    "conv_general_dilated_local",
    "conv_general_dilated_patches",
    "conv_transpose",
    "conv_with_general_padding",
    "fold",
]
