"""Lags: which shift each entry of a correlation belongs to, and an array's correlation with itself."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import ArgumentError, as_array, as_floating, axis_indices, frozen, is_integer
from jaxconv.padding import MODES, Lags, lag_axes, mode_axes
from jaxconv.planner import Accuracy, Method, Precision, options_of
from jaxconv.signal.convolution import sum_of

SCALES = ("none", "biased", "unbiased", "normalized")


def correlation_lags(in1_len: int, in2_len: int, mode: str = "full") -> np.ndarray:
    """The lag of each entry of `correlate(in1, in2, mode)` in one dimension.

        lags[o] = o - centre,   so that correlate(in1, in2, mode)[o] = sum of in1[k + lags[o]] * conj(in2[k])

    >>> correlation_lags(5, 3)
    array([-2, -1,  0,  1,  2,  3,  4])

    Parameters
    ----------
    in1_len, in2_len : ints, 0 or more
    mode : 'full' | 'same' | 'valid'

    Returns
    -------
    numpy.ndarray
        Of integers, as they depend on nothing but the lengths.

    Raises
    ------
    ValueError
        An unknown mode, a negative length.
    TypeError
        A length that is not an integer.

    Static under `jax.jit`: everything.

    Differs from SciPy: for mode 'same', odd in1_len and even in2_len, SciPy's lags are one more than those of
    its own `correlate`; these are the true ones. Lengths must be
    integers; an empty array has no lags in modes 'full' and 'valid'.

    Source: scipy.signal.correlation_lags.
    """
    call = "jaxconv.signal.correlation_lags"
    if mode not in MODES:
        raise ValueError(f"`{call}` got mode={mode!r}: Mode {mode} is invalid. Pass 'full', 'same' or 'valid'.")
    for name, value in (("in1_len", in1_len), ("in2_len", in2_len)):
        if not is_integer(value) or value < 0:
            raise ArgumentError(f"`{call}` got {name}={value!r}: a length is an integer, 0 or more. Pass `len(x)`.")
    (axis,) = mode_axes(call, [in1_len], [in2_len], mode, flip=False)
    return np.arange(axis.O) - axis.p


def autocorrelation(
    x: ArrayLike,
    lags: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    axes: int | Sequence[int] | None = -1,
    scale: str = "none",
    method: Method = "auto",
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
) -> Array:
    """The correlation of an array with itself, at the lags that are asked for.

        y[l] = sum over n of x[n + l] * conj(x[n])        times a scale

    >>> autocorrelation(jnp.array([1., 2., 3.]))
    Array([ 3.,  8., 14.,  8.,  3.], dtype=float32)
    >>> autocorrelation(jnp.array([1., 2., 3.]), (0, 1), scale="unbiased")
    Array([4.6666665, 4.       ], dtype=float32)

    Parameters
    ----------
    x : array
        Subtract its mean first for an autocovariance.
    lags : None | int | (first, last) | one pair per axis
        None for all lags, an int L for -L to L. Only these are computed.
    axes : int | ints | None
        The axes to correlate along, the last by default, None for all; the others are a batch.
    scale : 'none' | 'biased' | 'unbiased' | 'normalized'
        Divides by 1, by the number N of positions, by the number of terms N - |l| (0 where there is none),
        or by y[0], as MATLAB's xcorr does.
    method, accuracy, precision
        As in `jaxconv.convolve`.

    Returns
    -------
    Array

    Raises
    ------
    ValueError
        An unknown scale, axes that do not exist, lags that are not pairs.

    Static under `jax.jit`: everything but x.

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, 10.6; MATLAB's xcorr.
    """
    call = "jaxconv.signal.autocorrelation"
    x = jnp.asarray(as_array(call, "x", x)) if scale == "none" else as_floating(call, "x", x)  # no integer if scaled
    if scale not in SCALES:
        raise ValueError(
            f"`{call}` got scale={scale!r}: the scales are {', '.join(map(repr, SCALES))}. Pass one of them."
        )
    along = tuple(range(x.ndim)) if axes is None else axis_indices(call, "axes", frozen(call, "axes", axes), x.ndim)
    sizes = [x.shape[d] for d in along]
    lags = frozen(call, "lags", lags)
    if lags is None:
        lags = tuple((1 - n, n - 1) if n else (0, 0) for n in sizes)
    y = sum_of(call, x, x, Lags(lags), options_of(call, method, accuracy, precision), axes=along)
    if scale == "none":
        return y
    if scale == "normalized":
        power = jnp.sum(jnp.abs(x) ** 2, along, keepdims=True)
        return y / jnp.where(power == 0, 1, power)
    terms = np.ones(())
    for axis in lag_axes(call, sizes, sizes, lags):
        lag = np.arange(axis.O) - axis.p
        counts = np.maximum(axis.I - np.abs(lag), 0) if scale == "unbiased" else np.full(axis.O, axis.I)
        terms = np.multiply.outer(terms, counts)
    terms = np.expand_dims(terms.transpose(np.argsort(along)), [d for d in range(x.ndim) if d not in along])
    return y / jnp.asarray(np.maximum(terms, 1), y.real.dtype)
