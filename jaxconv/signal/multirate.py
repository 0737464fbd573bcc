"""Multirate filters: upsample, filter, downsample as one relation, up*i + p = down*o - k."""

from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import ArgumentError, as_array, axis_indices, is_integer, once_per_signature, promoted
from jaxconv.batched import convolved
from jaxconv.boundary import names
from jaxconv.padding import Resampled
from jaxconv.planner import Accuracy, Method, Options, Precision, options_of

EXTENSIONS = names("upfirdn")
BACKGROUNDS = {"mean": jnp.mean, "median": jnp.median, "minimum": jnp.min, "maximum": jnp.max}


def upfirdn(
    h: ArrayLike, x: ArrayLike, up: int = 1, down: int = 1, axis: int = -1, mode: str = "constant",
    cval: ArrayLike = 0, *, method: Method = "auto", accuracy: Accuracy = "elementwise", precision: Precision = None,
) -> Array:  # fmt: skip
    """Upsample, filter and downsample, as `scipy.signal.upfirdn`.

        y[o] = sum over i of x[i] * h[down*o - up*i]

    No zero of the upsampled signal is multiplied, and no output that would be dropped is computed.

    >>> upfirdn([1., 1., 1.], [1., 2., 3.], up=3)
    Array([1., 1., 1., 2., 2., 2., 3., 3., 3.], dtype=float32)
    >>> upfirdn([1.], jnp.arange(10.), down=3)
    Array([0., 3., 6., 9.], dtype=float32)

    Parameters
    ----------
    h : array of one dimension, not empty
    x : array
        Integers are converted to floating point.
    up, down : ints, 1 or more
    axis : int
        The axis to filter along; the others are a batch.
    mode : 'constant' | 'wrap' | 'edge' | 'symmetric' | 'reflect' | 'smooth' | 'antisymmetric' | 'antireflect' | 'line'
        What lies outside x: cval; x repeated; the nearest value; x mirrored with and without its end repeated; the
        line through the last two values; x mirrored and negated, x turned about its end; the line through the ends.
    cval : number
    method, accuracy, precision
        As in `jaxconv.convolve`, but accuracy='normwise' must be asked for.

    Returns
    -------
    Array
        ceil(((N - 1) * up + M) / down) positions along the axis.

    Raises
    ------
    ValueError
        An h that is empty or has not one dimension, rates below 1, an unknown mode.

    Static under `jax.jit`: everything but h, x and cval.

    Differs from SciPy: a single value is continued by itself, where SciPy's 'reflect', 'antireflect', 'smooth' and
    'line' crash or read beyond it.

    Source: scipy.signal.upfirdn; Vaidyanathan, Multirate Systems and Filter Banks (1993).
    """
    call = "jaxconv.signal.upfirdn"
    h, x = as_array(call, "h", h), as_array(call, "x", x)
    if np.ndim(h) != 1 or np.size(h) == 0:
        raise ValueError(f"`{call}` got h of shape {np.shape(h)}: h must be 1-D with non-zero length. Pass its taps.")
    up, down = _rate(call, "up", up), _rate(call, "down", down)
    (d,) = axis_indices(call, "axis", axis, np.ndim(x))
    n = np.shape(x)[d]
    outputs = -(-((n - 1) * up + np.size(h)) // down) if n else 0
    options = options_of(call, method, accuracy, precision)
    return _resampled(call, x, h, up, down, 0, outputs, d, mode, cval, options)


def resample_poly(
    x: ArrayLike, up: int, down: int, axis: int = 0, window: str | tuple | ArrayLike = ("kaiser", 5.0),
    padtype: str = "constant", cval: ArrayLike | None = None,
    *, method: Method = "auto", accuracy: Accuracy = "elementwise", precision: Precision = None,
) -> Array:  # fmt: skip
    """Change the sampling rate by up/down with a zero-phase low-pass filter, as `scipy.signal.resample_poly`.

        y[o] = up * sum over i of x[i] * h[down*o - up*i + centre]

    >>> resample_poly(jnp.array([1., 1., 1., 1.]), 1, 2, window=np.array([0.25, 0.5, 0.25]))
    Array([0.75, 1.  ], dtype=float32)

    Parameters
    ----------
    x : array
    up, down : ints, 1 or more
    axis : int
    window : name or tuple for `scipy.signal.firwin`, or an array
        The window with which to design the filter of 20 * max(up, down) + 1 taps, or the filter itself.
    padtype : 'constant' | 'mean' | 'median' | 'minimum' | 'maximum', or a mode of `upfirdn`
        What lies outside x. The four are the value of that name of x along the axis.
    cval : number
        With 'constant' only.
    method, accuracy, precision
        As in `jaxconv.convolve`, but accuracy='normwise' must be asked for.

    Returns
    -------
    Array
        ceil(N * up / down) positions along the axis.

    Raises
    ------
    ValueError
        Rates that are no positive integers, a window of more than one dimension, an unknown padtype, a cval
        with another padtype than 'constant'.

    Static under `jax.jit`: everything but x, cval and a window that is an array.

    Source: scipy.signal.resample_poly.
    """
    call = "jaxconv.signal.resample_poly"
    x = jnp.asarray(as_array(call, "x", x))
    up, down = _rate(call, "up", up), _rate(call, "down", down)
    if padtype not in BACKGROUNDS and padtype not in EXTENSIONS:
        raise ValueError(
            f"`{call}` got padtype={padtype!r}: it must be one of {', '.join([*BACKGROUNDS, *EXTENSIONS])}. "
            "Pass 'constant'."
        )
    if cval is not None and padtype != "constant":
        raise ValueError(
            f"`{call}` got cval={cval!r} with padtype={padtype!r}: cval has no effect there. Pass padtype='constant'."
        )
    (d,) = axis_indices(call, "axis", axis, x.ndim)
    up, down = up // gcd(up, down), down // gcd(up, down)
    if up == down == 1:
        return x
    if isinstance(window, list | np.ndarray | jax.Array):
        h = as_array(call, "window", window)
        if np.ndim(h) > 1:
            raise ValueError(
                f"`{call}` got a window of shape {np.shape(h)}: window must be 1-D. Pass the filter's taps."
            )
        h = h * up
    else:
        from scipy.signal import firwin  # here, as importing scipy.signal takes longer than importing jaxconv

        half = 10 * max(up, down)
        h = np.asarray(firwin(2 * half + 1, 1 / max(up, down), window=window)) * up  # pyright: ignore[reportArgumentType]
        h = h.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.result_type(float))
    options = options_of(call, method, accuracy, precision)
    outputs, centre = -(-x.shape[d] * up // down), (np.size(h) - 1) // 2
    if padtype not in BACKGROUNDS:
        return _resampled(call, x, h, up, down, centre, outputs, d, padtype, 0 if cval is None else cval, options)
    background = BACKGROUNDS[padtype](x, axis=d, keepdims=True)
    y = _resampled(call, x - background, h, up, down, centre, outputs, d, "constant", 0, options)
    return y + background


def _rate(call: str, name: str, value) -> int:
    if not is_integer(value) and not (isinstance(value, float) and value % 1 == 0):
        raise ArgumentError(f"`{call}` got {name}={value!r}: {name} must be an integer. Pass 1 or more.")
    if value < 1:
        raise ValueError(f"`{call}` got {name}={value!r}: both up and down must be >= 1. Pass 1 or more.")
    return int(value)


def _resampled(call: str, x, h, up: int, down: int, centre: int, outputs: int, axis: int, mode, cval, options: Options):
    mode = mode.lower() if isinstance(mode, str) else mode
    if mode not in EXTENSIONS:
        raise ValueError(
            f"`{call}` got mode={mode!r}: the modes are {', '.join(map(repr, EXTENSIONS))}. Pass 'constant'."
        )
    cval = as_array(call, "cval", cval)
    none = mode != "constant" or (not isinstance(cval, jax.Array) and np.all(cval == 0))
    kinds = [jnp.result_type(a) for a in (h, x)]
    dtype = promoted(*(t if jnp.issubdtype(t, jnp.inexact) else jnp.result_type(float) for t in kinds))
    return _apply(
        x, h, None if none else cval,
        call=call, relation=Resampled(up, down, centre, outputs), options=options, axis=axis, mode=mode,
        dtype=dtype.name,
    )  # fmt: skip


# The upsampled x has x[i] at up*i. Output o reads it at down*o - k + centre.
@once_per_signature
def _apply(
    x: Array, h: Array, cval: Array | None,
    *, call: str, relation: Resampled, options: Options, axis: int, mode: str, dtype: str,
) -> Array:  # fmt: skip
    w = jnp.expand_dims(h, [d for d in range(x.ndim) if d != axis])
    fill = None if cval is None else jnp.asarray(cval).astype(dtype)
    return convolved(
        x.astype(dtype), w.astype(dtype), None, fill,
        call=call, relation=relation, options=options, axes=axis, boundary=EXTENSIONS[mode],
    )  # fmt: skip
