"""The mean and the spread of every window of an image, without cancellation.

Windows of length a and of length b side by side, with means p and q and sums of squared differences
from them P and Q, make one of length a + b with

    mean = p + (q - p) * b / (a + b)        spread = P + Q + (q - p)^2 * a * b / (a + b)

Nothing is subtracted but means: a flat window has the spread 0, whatever its value, where the sum of
squares less the square of the sum would leave their rounding. Lengths double, so a window of length M
takes about log2(M) such steps (and as many for the ones in M's binary digits), along each axis in turn.

Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for sample variances (1979).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class Moments(NamedTuple):
    """The mean of each window, and its sum of squared differences from it."""

    mean: Array
    spread: Array


def moments(x: Array, lengths: Sequence[int]) -> Moments:
    """The moments of all windows of these lengths, one for each axis of x; windows lie inside x.

    >>> mean, spread = moments(jnp.array([1., 2., 6., 6.]), [2])
    >>> mean, spread
    (Array([1.5, 4. , 6. ], dtype=float32), Array([0.5, 8. , 0. ], dtype=float32))
    """
    found = Moments(x, jnp.zeros_like(x))
    each = 1  # numbers in each of the windows that are joined
    for d, length in enumerate(lengths):
        size = x.shape[d] - length + 1
        whole, done, step, part = None, 0, found, 1
        while True:
            if length & part:
                piece = _cut(step, d, done, size)
                whole = piece if whole is None else _joined(whole, piece, done * each, part * each)
                done += part
            if done == length:
                break
            room = step.mean.shape[d] - part
            step = _joined(_cut(step, d, 0, room), _cut(step, d, part, room), part * each, part * each)
            part *= 2
        assert whole is not None
        found, each = whole, each * length
    return found


def _cut(m: Moments, axis: int, start: int, size: int) -> Moments:
    return Moments(*(lax.slice_in_dim(a, start, start + size, axis=axis) for a in m))


def _joined(p: Moments, q: Moments, a: int, b: int) -> Moments:
    apart = q.mean - p.mean
    return Moments(p.mean + apart * (b / (a + b)), p.spread + q.spread + apart * apart * (a * b / (a + b)))


def power_of_two(largest: Array) -> Array:
    """The power of two just above a size (1 for 0): to divide by it rounds nothing, and no square overflows then."""
    dtype = jnp.promote_types(largest.dtype, jnp.float32)
    largest = lax.stop_gradient(largest).astype(dtype)
    exponent = jnp.frexp(jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 0.5))[1]
    most = jnp.finfo(dtype).maxexp - 8
    return jnp.ldexp(jnp.ones((), dtype), jnp.clip(exponent, -most, most))
