"""Savitzky-Golay filters: a polynomial is fitted to every window, and its value or derivative taken."""

from functools import lru_cache
from math import factorial
from typing import Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import as_floating, axis_indices, positive
from jaxconv.boundary import names
from jaxconv.ndimage.base import How
from jaxconv.ndimage.convolution import convolve1d

MODES = (*names("savgol"), "interp")


def savgol_coeffs(
    window_length: int, polyorder: int, deriv: int = 0, delta: float = 1.0, pos: float | None = None, use: str = "conv"
) -> np.ndarray:
    """The weights of a Savitzky-Golay filter, as `scipy.signal.savgol_coeffs`.

        h @ x = the deriv-th derivative at `pos` of the polynomial that is fitted to x by least squares

    >>> savgol_coeffs(5, 2).round(4)
    array([-0.0857,  0.3429,  0.4857,  0.3429, -0.0857])

    Parameters
    ----------
    window_length : int, 1 or more
    polyorder : int, less than window_length
    deriv : int, 0 or more
    delta : float
        The spacing of the samples.
    pos : None | float
        Where in the window, 0 <= pos < window_length; the middle by default.
    use : 'conv' | 'dot'
        The order of the weights: for a convolution, or for a dot product.

    Returns
    -------
    numpy.ndarray
        float64, as it depends on nothing that is traced.

    Raises
    ------
    ValueError, TypeError
        A polyorder or pos that does not fit the window, an unknown use, sizes that are no integers.

    Static under `jax.jit`: everything.

    Source: scipy.signal.savgol_coeffs; Savitzky and Golay, Smoothing and differentiation of data (1964).
    """
    call = "jaxconv.signal.savgol_coeffs"
    _check(call, window_length, polyorder, deriv)
    pos = (window_length - 1) / 2 if pos is None else pos
    if not isinstance(pos, int | float | np.number) or not 0 <= pos < window_length:
        raise ValueError(
            f"`{call}` got pos={pos!r}: pos must be nonnegative and less than window_length. Leave it out for the "
            "middle of the window."
        )
    if use not in ("conv", "dot"):
        raise ValueError(f"`{call}` got use={use!r}: `use` must be 'conv' or 'dot'. Pass one of them.")
    (h,) = _fits(window_length, polyorder, deriv, float(delta), (float(pos),))
    return h[::-1].copy() if use == "conv" else h.copy()


def savgol_filter(
    x: ArrayLike, window_length: int, polyorder: int, deriv: int = 0, delta: float = 1.0, axis: int = -1,
    mode: str = "interp", cval: ArrayLike = 0.0, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Smooth or differentiate by polynomials fitted to every window, as `scipy.signal.savgol_filter`.

        y[o] = the deriv-th derivative at o of the polynomial fitted to the window_length values around o

    >>> x = jnp.arange(6.) ** 2
    >>> np.round(np.asarray(savgol_filter(x, 5, 2, deriv=1), float), 3)
    array([ 0.,  2.,  4.,  6.,  8., 10.])

    Parameters
    ----------
    x : array
        Integers are converted to floating point.
    window_length, polyorder, deriv, delta
        As in `savgol_coeffs`.
    axis : int
    mode : 'interp' | 'mirror' | 'constant' | 'nearest' | 'wrap'
        'interp' takes the values near the ends from the polynomials of the first and the last window; the
        others extend x as `jaxconv.ndimage.correlate` does.
    cval : number
    **how : method, accuracy, precision, as in `jaxconv.convolve`

    Returns an Array of x's shape.

    Raises
    ------
    ValueError, TypeError
        A window longer than x with mode 'interp', an unknown mode, and what `savgol_coeffs` refuses.

    Static under `jax.jit`: everything but x and cval.

    Differs from SciPy: float16, bfloat16 and complex arrays keep their types (SciPy drops the imaginary part).

    Source: scipy.signal.savgol_filter.
    """
    call = "jaxconv.signal.savgol_filter"
    x = as_floating(call, "x", x)
    if mode not in MODES:
        raise ValueError(
            f"`{call}` got mode={mode!r}: mode must be one of {', '.join(map(repr, MODES))}. Pass 'interp'."
        )
    h = savgol_coeffs(window_length, polyorder, deriv, delta)
    if mode != "interp":
        return convolve1d(x, h, axis, mode=mode, cval=cval, **how)
    (d,) = axis_indices(call, "axis", axis, x.ndim)
    size, half = x.shape[d], window_length // 2
    if window_length > size:
        raise ValueError(
            f"`{call}` got window_length={window_length} for {size} values: If mode is 'interp', window_length must be "
            "less than or equal to the size of x. Pass a shorter one, or another mode."
        )
    x = jnp.moveaxis(x, d, -1)
    ends = [tuple(map(float, p)) for p in (range(half), range(window_length - half, window_length))]
    low, high = (_fits(window_length, polyorder, deriv, float(delta), p).astype(x.dtype) for p in ends)
    first, last = x[..., :window_length], x[..., size - window_length :]
    inner = convolve1d(x, h, -1, mode="constant", **how)[..., half : size - half]
    y = jnp.concatenate(
        [jnp.matmul(first, low.T, precision="highest"), inner, jnp.matmul(last, high.T, precision="highest")], -1
    )
    return jnp.moveaxis(y, -1, d)


def _check(call: str, window_length, polyorder, deriv) -> None:
    for name, value, least in (("window_length", window_length, 1), ("polyorder", polyorder, 0), ("deriv", deriv, 0)):
        positive(call, name, value, least)
    if polyorder >= window_length:
        raise ValueError(
            f"`{call}` got polyorder={polyorder} and window_length={window_length}: polyorder must be less than "
            "window_length. Pass a longer window."
        )


# The window's positions go to -1 .. 1, where the Vandermonde matrix V is well conditioned; the fit's
# coefficients are pinv(V) @ x, and the derivative at p is a row of powers times them.
@lru_cache(maxsize=64)
def _fits(length: int, order: int, deriv: int, delta: float, positions: tuple[float, ...]) -> np.ndarray:
    """One row of weights for each position in the window."""
    if deriv > order:
        return np.zeros((len(positions), length))
    middle = (length - 1) / 2
    scale = max(middle, 1.0)
    powers = np.arange(order + 1)
    V = ((np.arange(length) - middle) / scale)[:, None] ** powers
    z = (np.asarray(positions, float) - middle) / scale
    slopes = [
        factorial(p) // factorial(p - deriv) * z ** max(p - deriv, 0) if p >= deriv else 0 * z for p in range(order + 1)
    ]
    return np.stack(slopes, -1) @ np.linalg.pinv(V) / (scale * delta) ** deriv
