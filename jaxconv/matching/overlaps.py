"""An image's similarity to itself at every shift, over what overlaps."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import as_floating, axis_indices, described, frozen, once_per_signature, promoted
from jaxconv.batched import convolved
from jaxconv.matching.windows import power_of_two
from jaxconv.padding import Lags
from jaxconv.planner import Accuracy, Method, Options, Precision, options_of


def autocorrelation(
    image: ArrayLike,
    lags: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    axes: int | Sequence[int] | None = None,
    method: Method = "auto",
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
) -> Array:
    """The correlation coefficient of an image and its shifted copy, over the region where both are.

        y[l] = sum over n of (x[n + l] - mean there) * (x[n] - mean there) / sqrt(their two sums of squares)

    From -1 to 1, and 1 at lag 0: a period of a texture shows as a peak that does not fade with the lag. Where the
    overlap is flat, or a single position, it is 0: its sum of squares about its mean is below 64 roundoffs of that
    about the image's mean, or, by 'auto' and the FFT, whose errors are those of the largest value, of as many of that.
    (`jaxconv.signal.autocorrelation` is the plain sum.)

    >>> y = autocorrelation(jnp.array([1., 2., 1., 2., 1., 2., 1.]), lags=(0, 3))
    >>> y.round().tolist()
    [1.0, -1.0, 1.0, -1.0]

    Parameters
    ----------
    image : array of real numbers
    lags : None | int | (first, last) | one pair per axis
        By default half of the image's size to either side.
    axes : None | int | ints
        The axes to shift along, all by default; the others are a batch.
    method, accuracy, precision
        As in `jaxconv.convolve`.

    Returns
    -------
    Array

    Raises
    ------
    ValueError, TypeError
        Lags that are not pairs, axes that do not exist, a complex image.

    Static under `jax.jit`: everything but the image.

    Source: Padfield, Masked object registration in the Fourier domain (2012).
    """
    call = "jaxconv.matching.autocorrelation"
    x = as_floating(call, "image", image)
    if x.size == 0:
        raise ValueError(f"`{call}` got an image of {described(x)}: it must not be empty. Pass one with some pixels.")
    if jnp.iscomplexobj(x):
        raise TypeError(
            f"`{call}` got an image of {described(x)}: similarity is defined for real numbers. Pass its absolute "
            "value, or use `jaxconv.signal.autocorrelation`."
        )
    along = tuple(range(x.ndim)) if axes is None else axis_indices(call, "axes", frozen(call, "axes", axes), x.ndim)
    lags = tuple((-(x.shape[d] // 2), x.shape[d] // 2) for d in along) if lags is None else frozen(call, "lags", lags)
    return _overlapped(x, call=call, axes=along, lags=lags, options=options_of(call, method, accuracy, precision))


@once_per_signature
def _overlapped(x: Array, *, call: str, axes: tuple[int, ...], lags: Any, options: Options) -> Array:
    def sums(a, b):
        return convolved(a, b, call=call, relation=Lags(lags), options=options, axes=axes)

    dtype = x.dtype
    x = x.astype(promoted(dtype, jnp.float32))
    x = x / power_of_two(jnp.abs(x).max(axes, keepdims=True))
    x = x - x.mean(axes, keepdims=True)
    x = x / power_of_two(jnp.abs(x).max(axes, keepdims=True))
    here = jnp.ones([x.shape[d] if d in axes else 1 for d in range(x.ndim)], x.dtype)
    count = jnp.maximum(jnp.round(sums(here, here)), 1)
    first, second = sums(x, here), sums(here, x)
    product = sums(x, x) - first * second / count
    energies = sums(x * x, here), sums(here, x * x)
    squares = [e - s**2 / count for e, s in zip(energies, (first, second), strict=True)]
    if not options.is_local:  # an FFT's error is one of the whole image
        energies = [count * jnp.max(x * x, axes, keepdims=True)] * 2
    flat = jnp.bool_(False)
    for energy, square in zip(energies, squares, strict=True):
        flat |= square <= energy * jnp.finfo(x.dtype).eps * 64
    root = jnp.sqrt(jnp.where(flat, 1, squares[0])) * jnp.sqrt(jnp.where(flat, 1, squares[1]))  # no product underflows
    return jnp.where(flat, 0, jnp.clip(product / root, -1, 1)).astype(dtype)
