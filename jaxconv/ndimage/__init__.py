"""Linear filters of N-dimensional images, in the words of scipy.ndimage.

Every filter is a correlation or a convolution that keeps the image's shape, with something beyond
its border. Signatures are SciPy's, without arrays for `output`; on top come the keywords `method`,
`accuracy` and `precision` of `jaxconv.convolve`. Everything is differentiable to any order in the image,
the weights and cval (and in sigma, where a radius is given): the derivative of an extension is a
fold, by slices and sums.

Results of integer types are SciPy's, to the last bit: sums in float64, whatever `jax_enable_x64` says, and in SciPy's
order, made integers after every pass, toward zero and modulo 2**bits (booleans are bytes, true unless 0); where image,
weights and cval are integers too, the sums are exact, modulo 2**bits.
"""

from jaxconv.ndimage.convolution import convolve, convolve1d, correlate, correlate1d
from jaxconv.ndimage.derivatives import (
    gaussian_gradient_magnitude,
    gaussian_laplace,
    generic_gradient_magnitude,
    generic_laplace,
    laplace,
    prewitt,
    sobel,
)
from jaxconv.ndimage.smoothing import gaussian_filter, gaussian_filter1d, uniform_filter, uniform_filter1d

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_filter1d",
    "gaussian_gradient_magnitude",
    "gaussian_laplace",
    "generic_gradient_magnitude",
    "generic_laplace",
    "laplace",
    "prewitt",
    "sobel",
    "uniform_filter",
    "uniform_filter1d",
]
