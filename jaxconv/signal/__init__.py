"""SciPy's signal functions that are convolutions, with SciPy's signatures."""

from jaxconv.signal.choice import choose_conv_method
from jaxconv.signal.convolution import convolve, correlate, fftconvolve, oaconvolve
from jaxconv.signal.images import convolve2d, correlate2d, sepfir2d
from jaxconv.signal.lags import autocorrelation, correlation_lags
from jaxconv.signal.multirate import resample_poly, upfirdn
from jaxconv.signal.polynomials import convolution_matrix, deconvolve
from jaxconv.signal.savitzky_golay import savgol_coeffs, savgol_filter

__all__ = [
    "autocorrelation",
    "choose_conv_method",
    "convolution_matrix",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "correlation_lags",
    "deconvolve",
    "fftconvolve",
    "oaconvolve",
    "resample_poly",
    "savgol_coeffs",
    "savgol_filter",
    "sepfir2d",
    "upfirdn",
]
