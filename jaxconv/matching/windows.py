"""The mean and the spread of every window of an image, without cancellation.

Windows with a and b numbers side by side, with means p and q and sums of squared differences
from them P and Q, make one of a + b with

    mean = p + (q - p) * b / (a + b)        spread = P + Q + (q - p)^2 * a * b / (a + b)

Nothing is subtracted but means: a flat window has the spread 0, whatever its value, where the sum of
squares less the square of the sum would leave their rounding. The same holds where a and b are sums of
weights, so a mask leaves pixels out. Lengths double, so a window of length M
takes about log2(M) such steps (and as many for the ones in M's binary digits), along each axis in turn.

Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for sample variances (1979).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxconv.arguments import promoted


class Moments(NamedTuple):
    """Of each window the weight (how many numbers it has), their mean, and the squared differences from it."""

    weight: Array
    mean: Array
    spread: Array


def moments(x: Array, lengths: Sequence[int], weights: Array | None = None) -> Moments:
    """The moments of all windows of these lengths, one for each axis of x; windows lie inside x.

    >>> weight, mean, spread = moments(jnp.array([1., 2., 6., 6.]), [2])
    >>> weight, mean, spread
    (Array(2., dtype=float32), Array([1.5, 4. , 6. ], dtype=float32), Array([0.5, 8. , 0. ], dtype=float32))
    """
    found = Moments(jnp.ones((), x.dtype) if weights is None else weights, x, jnp.zeros_like(x))
    for d, length in enumerate(lengths):
        size = x.shape[d] - length + 1
        whole, done, step, part = None, 0, found, 1
        while True:
            if length & part:
                piece = _cut(step, d, done, size)
                whole = piece if whole is None else _joined(whole, piece)
                done += part
            if done == length:
                break
            room = step.mean.shape[d] - part
            step = _joined(_cut(step, d, 0, room), _cut(step, d, part, room))
            part *= 2
        assert whole is not None
        found = whole
    return found


def _cut(m: Moments, axis: int, start: int, size: int) -> Moments:
    return Moments(*(lax.slice_in_dim(a, start, start + size, axis=axis) if a.ndim else a for a in m))


def _joined(p: Moments, q: Moments) -> Moments:
    apart, weight = q.mean - p.mean, p.weight + q.weight
    share = q.weight / jnp.where(weight == 0, 1, weight)
    return Moments(weight, p.mean + apart * share, p.spread + q.spread + apart * apart * (p.weight * share))


def power_of_two(largest: Array) -> Array:
    """The power of two just above a size (1 for 0): to divide by it rounds nothing, and no square overflows then."""
    dtype = promoted(largest.dtype, jnp.float32)
    largest = lax.stop_gradient(largest).astype(dtype)
    exponent = jnp.frexp(jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 0.5))[1]
    most = jnp.finfo(dtype).maxexp - 8
    return jnp.ldexp(jnp.ones((), dtype), jnp.clip(exponent, -most, most))
