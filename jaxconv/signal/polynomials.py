"""Convolution as the product of polynomials: its matrix, and the division that undoes it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxconv.arguments import as_array, common_dtype, is_integer
from jaxconv.padding import MODES
from jaxconv.signal.convolution import convolve


# Rows that are a sequence, each shifted by one against the last: N zeros behind a, all repeated n times
# and read in lines that are shorter by one. So there is no index array, and the gradient is a sum.
def convolution_matrix(a: ArrayLike, n: int, mode: str = "full") -> Array:
    """The matrix A of a convolution: A @ v = numpy.convolve(a, v, mode) for every v of length n.

        A[o, k] = a[o + centre - k]

    >>> convolution_matrix(jnp.array([1., 2., 3.]), 2)
    Array([[1., 0.],
           [2., 1.],
           [3., 2.],
           [0., 3.]], dtype=float32)

    Parameters
    ----------
    a : array of length N >= 1 along its last axis
        Leading axes are a batch.
    n : int, 1 or more
        Columns.
    mode : 'full' | 'same' | 'valid'
        The rows: N + n - 1, max(N, n), or max(N, n) - min(N, n) + 1 of them, as in `numpy.convolve`.

    Returns
    -------
    Array

    Raises
    ------
    ValueError
        An n below 1, an empty a, an unknown mode.

    Static under `jax.jit`: n and mode.

    Source: scipy.linalg.convolution_matrix.
    """
    call = "jaxconv.signal.convolution_matrix"
    a = jnp.asarray(as_array(call, "a", a))
    if not is_integer(n) or n < 1:
        raise ValueError(f"`{call}` got n={n!r}: n must be a positive integer, the number of columns. Pass 1 or more.")
    if a.ndim == 0 or a.size == 0:
        raise ValueError(f"`{call}` got a of shape {a.shape}: len(a) must be at least 1. Pass the sequence's values.")
    if mode not in MODES:
        raise ValueError(f"`{call}` got mode={mode!r}: mode must be one of 'full', 'valid', 'same'. Pass one of them.")
    N = a.shape[-1]
    line = jnp.concatenate([a, jnp.zeros((*a.shape[:-1], n), a.dtype)], -1)
    every = jnp.broadcast_to(line[..., None, :], (*a.shape[:-1], n, N + n)).reshape(*a.shape[:-1], -1)
    full = every[..., : n * (N + n - 1)].reshape(*a.shape[:-1], n, N + n - 1).swapaxes(-1, -2)
    shorter, longer = min(N, n), max(N, n)
    first, rows = {
        "full": (0, N + n - 1),
        "same": ((shorter - 1) // 2, longer),
        "valid": (shorter - 1, longer - shorter + 1),
    }[mode]
    return full[..., first : first + rows, :]


def deconvolve(signal: ArrayLike, divisor: ArrayLike) -> tuple[Array, Array]:
    """Divide polynomials: quotient and remainder with signal = convolve(divisor, quotient) + remainder.

        quotient[o] = (signal[o] - sum over k >= 1 of divisor[k] * quotient[o - k]) / divisor[0]

    >>> deconvolve(jnp.array([0., 2., 1., 0., 2.]), jnp.array([2., 1.]))
    (Array([0., 1., 0., 0.], dtype=float32), Array([0., 0., 0., 0., 2.], dtype=float32))

    Parameters
    ----------
    signal, divisor : arrays of one dimension, not empty
        Integers are converted to floating point. divisor[0] must not be 0.

    Returns
    -------
    quotient, remainder : Arrays
        Of lengths max(N - M + 1, 0) and N. Where the divisor is the longer one, the remainder is the signal.

    Raises
    ------
    ValueError
        An array that is empty or has not one dimension; a divisor that is known to begin with 0.

    Static under `jax.jit`: nothing. A divisor that begins with 0 cannot be seen then, and gives infinities and NaN.

    Differs from SciPy: float32 and complex64 are divided as such; see the line above.

    Source: scipy.signal.deconvolve.
    """
    call = "jaxconv.signal.deconvolve"
    arrays = {"signal": as_array(call, "signal", signal), "divisor": as_array(call, "divisor", divisor)}
    for name, array in arrays.items():
        if np.ndim(array) > 1 or np.size(array) == 0:
            raise ValueError(
                f"Parameter {name} must be non-empty 1d array, but `{call}` got one of shape {np.shape(array)}. "
                "Pass the coefficients."
            )
    a, d = (jnp.atleast_1d(jnp.asarray(array)) for array in arrays.values())
    dtype = common_dtype(call, a, d)
    dtype = dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)
    if len(d) > len(a):
        return jnp.zeros(0, dtype), a
    if not isinstance(d, Tracer) and not d[0]:
        raise ValueError(f"`{call}` got a divisor that begins with 0: it divides by it. Leave out its leading zeros.")
    return _divided(a.astype(dtype), d.astype(dtype))


# Long division, one coefficient of the quotient a step: q = r[0] / divisor[0], r = r - q * divisor, shifted.
@jax.jit
def _divided(a: Array, d: Array) -> tuple[Array, Array]:
    def step(rest, coming):
        q = rest[0] / d[0]
        rest = jnp.concatenate([(rest - q * d)[1:], coming[None]])
        return rest, q

    coming = jnp.concatenate([a[len(d) :], jnp.zeros(1, a.dtype)])
    _, quotient = lax.scan(step, a[: len(d)], coming)
    return quotient, a - convolve(d, quotient, accuracy="elementwise")
