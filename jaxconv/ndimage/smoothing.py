"""Smoothing filters: Gaussians with their derivatives, and means."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import ArgumentError, as_floating, is_integer, per_axis
from jaxconv.ndimage.base import How, Mode, axes_of, filtered1d, image_of
from jaxconv.ndimage.integers import cast, stored

NEGLIGIBLE = 1e-15  # a sigma that SciPy takes for none


def gaussian_filter1d(
    input: ArrayLike, sigma: ArrayLike, axis: int = -1, order: int = 0, output: DTypeLike | None = None,
    mode: str = "reflect", cval: ArrayLike = 0.0, truncate: float = 4.0,
    *, radius: int | None = None, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Smooth along one axis with a Gaussian, or with its derivative: `scipy.ndimage.gaussian_filter1d`.

        weights[k] = d^order/dk^order of exp(-k^2 / (2 sigma^2)) / sum,   -radius <= k <= radius

    with radius = int(truncate * sigma + 0.5) positions on either side, unless it is given.

    >>> np.round(np.asarray(gaussian_filter1d([0., 0., 1., 0., 0.], 1.0), float), 3)
    array([0.058, 0.242, 0.399, 0.242, 0.058])
    >>> import jax
    >>> round(float(jax.grad(lambda s: gaussian_filter1d([0., 0., 1., 0., 0.], s, radius=4)[2])(1.0)), 2)
    -0.4

    Parameters
    ----------
    input : array
    sigma : number, in positions
        May be traced, and differentiated, where `radius` is given.
    axis : int
    order : int, 0 or more
        The order of the derivative.
    truncate : number of sigmas
    radius : None | int
    output, mode, cval, **how
        As in `correlate`.

    Returns an Array of the input's shape.

    Raises
    ------
    ValueError
        A negative order or radius; a sigma that is not known, without a radius; and as `correlate`.

    Static under `jax.jit`: everything but input, cval and, with a radius, sigma.

    Differs from SciPy: as `correlate`.

    Source: scipy.ndimage.gaussian_filter1d; Lindeberg, Scale-Space Theory in Computer Vision (1994).
    """
    call = "jaxconv.ndimage.gaussian_filter1d"
    weights = _gaussian(call, sigma, order, truncate, radius)
    return filtered1d(call, False, input, weights[::-1], axis, output, mode, cval, 0, how)


def gaussian_filter(
    input: ArrayLike, sigma: ArrayLike | Sequence[ArrayLike], order: int | Sequence[int] = 0,
    output: DTypeLike | None = None, mode: Mode = "reflect", cval: ArrayLike = 0.0, truncate: float = 4.0,
    *, radius: int | Sequence[int] | None = None, axes: int | Sequence[int] | None = None, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Smooth with a Gaussian along every axis: `scipy.ndimage.gaussian_filter`.

        y = `gaussian_filter1d` along one axis after the other

    The results between the axes have the output's dtype, as SciPy's.

    >>> gaussian_filter(jnp.array([[0., 0., 0.], [0., 1., 0.], [0., 0., 0.]]), 0.5).round(2)
    Array([[0.01, 0.08, 0.01],
           [0.08, 0.62, 0.08],
           [0.01, 0.08, 0.01]], dtype=float32)

    Parameters
    ----------
    input : array
    sigma, order, radius, mode : one value, or one for each of `axes`
        A sigma of 0 leaves its axis alone.
    axes : None | int | ints
        The axes to filter along, all by default.
    output, cval, truncate, **how
        As in `gaussian_filter1d`, and so are the errors, the static arguments and the differences from SciPy.

    Returns an Array of the input's shape; raises as `gaussian_filter1d`. Static under `jax.jit`: everything but input,
    cval and, with radii, sigma.

    Source: scipy.ndimage.gaussian_filter.
    """
    call = "jaxconv.ndimage.gaussian_filter"
    image, dtype = image_of(call, input, output)
    along = axes_of(call, axes, image.ndim)
    values = (
        per_axis(call, name, v, len(along))
        for name, v in {"sigma": sigma, "order": order, "mode": mode, "radius": radius}.items()
    )
    for axis, s, o, m, r in zip(along, *values, strict=True):
        if isinstance(s, int | float | np.number) and 0 <= s <= NEGLIGIBLE:
            continue
        weights = _gaussian(call, s, o, truncate, r)
        image = filtered1d(call, False, image, weights[::-1], axis, stored(dtype), m, cval, 0, how)
    return cast(image, dtype)


def uniform_filter1d(
    input: ArrayLike, size: int, axis: int = -1, output: DTypeLike | None = None, mode: str = "reflect",
    cval: ArrayLike = 0.0, origin: int = 0, **how: Unpack[How],
) -> Array:  # fmt: skip
    """The mean of `size` neighbours along one axis: `scipy.ndimage.uniform_filter1d`.

        y[o] = sum over k < size of input[o + k - size//2 - origin] / size

    Integers are summed exactly and divided toward zero. Floating sums are divided with one rounding, and so a constant
    stays what it is; under `jax.vmap` XLA multiplies by 1 / size: an output may be a unit in the last place off, where
    `axes` or `jax.lax.map` rounds once.

    >>> uniform_filter1d([2, 8, 0, 4, 1, 9, 9, 0], size=3)
    Array([4, 3, 4, 1, 4, 6, 6, 3], dtype=int32)

    Parameters
    ----------
    input : array
    size : int, 1 or more
    axis : int
    output, mode, cval, origin, **how
        As in `correlate`, and so are the errors, the static arguments and the differences from SciPy.

    Returns an Array of the input's shape; raises ValueError for a size below 1, and as `correlate`. Static under
    `jax.jit`: everything but input and cval.

    Differs from SciPy: as `correlate`; floating images are summed anew for every window, where SciPy carries a running
    sum, and its rounding, along.

    Source: scipy.ndimage.uniform_filter1d.
    """
    return _mean("jaxconv.ndimage.uniform_filter1d", input, size, axis, output, mode, cval, origin, how)


def uniform_filter(
    input: ArrayLike, size: int | Sequence[int] = 3, output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, origin: int | Sequence[int] = 0,
    *, axes: int | Sequence[int] | None = None, **how: Unpack[How],
) -> Array:  # fmt: skip
    """The mean over a box: `scipy.ndimage.uniform_filter`.

        y = `uniform_filter1d` along one axis after the other

    >>> uniform_filter(8 * jnp.eye(4), 2, mode="constant")
    Array([[2., 2., 0., 0.],
           [2., 4., 2., 0.],
           [0., 2., 4., 2.],
           [0., 0., 2., 4.]], dtype=float32)

    Parameters
    ----------
    input : array
    size, mode, origin : one value, or one for each of `axes`
    axes : None | int | ints
    output, cval, **how
        As in `uniform_filter1d`, and so are the errors, the static arguments and the differences from SciPy.

    Returns an Array of the input's shape; raises ValueError for a size below 1, and as `correlate`. Static under
    `jax.jit`: everything but input and cval.

    Source: scipy.ndimage.uniform_filter.
    """
    call = "jaxconv.ndimage.uniform_filter"
    image, dtype = image_of(call, input, output)
    along = axes_of(call, axes, image.ndim)
    values = (
        per_axis(call, name, value, len(along))
        for name, value in {"size": size, "mode": mode, "origin": origin}.items()
    )
    for axis, s, m, o in zip(along, *values, strict=True):
        if is_integer(s) and s <= 1:
            continue
        image = _mean(call, image, s, axis, stored(dtype), m, cval, o, how)
    return cast(image, dtype)


def _gaussian(call: str, sigma, order, truncate, radius):
    """The Gaussian's weights (or those of its derivative), in NumPy where sigma is known."""
    for name, value in (("order", order), ("radius", 0 if radius is None else radius)):
        if not is_integer(value) or value < 0:
            raise ValueError(
                f"`{call}` got {name}={value!r}: it must be a nonnegative integer (non-negative). Pass 0 or more."
            )
    if not isinstance(sigma, Tracer):
        try:
            sigma, truncate = float(sigma), float(truncate)
            valid = 0 <= sigma < np.inf and 0 <= truncate < np.inf
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(
                f"`{call}` got sigma={sigma!r} and truncate={truncate!r}: both must be finite numbers, 0 or more. "
                "Pass the Gaussian's width in positions, and how many of it to keep."
            )
        radius = int(truncate * sigma + 0.5) if radius is None else radius
        return _weights(np, sigma or 1.0, order, radius) if sigma > NEGLIGIBLE else _impulse(radius)
    if radius is None:
        raise ValueError(
            f"`{call}` got a traced sigma without a radius: the number of weights must be known when the function "
            "is traced. Pass `radius=`, such as int(4 * sigma + 0.5) of the largest sigma, or a static sigma."
        )
    sigma = as_floating(call, "sigma", sigma)
    none = sigma <= NEGLIGIBLE
    impulse = jnp.asarray(_impulse(radius), sigma.dtype)
    return jnp.where(none, impulse, _weights(jnp, jnp.where(none, 1, sigma), order, radius))


def _impulse(radius: int) -> np.ndarray:
    return np.eye(2 * radius + 1)[radius]


# f = q(k) exp(-k^2 / 2 sigma^2): f' = (q' - q k / sigma^2) exp(...), so the polynomial q of the next order
# is q' - k q / sigma^2. (In SciPy's words: the last bit of a weight tells in an integer.)
def _weights(xp: Any, sigma, order: int, radius: int):
    dtype = getattr(sigma, "dtype", float)
    k, powers = xp.arange(-radius, radius + 1, dtype=dtype), np.arange(order + 1)
    phi = xp.exp(-0.5 / (sigma * sigma) * k**2)
    phi = phi / phi.sum()
    dot = np.dot if xp is np else partial(jnp.dot, precision="highest")
    step = xp.asarray(np.diag(powers[1:], 1), dtype) + xp.diag(xp.ones(order, dtype) / -(sigma * sigma), -1)
    q = xp.asarray(np.eye(order + 1)[0], dtype)
    for _ in range(order):
        q = dot(step, q)
    return dot(xp.stack([k**n for n in powers.tolist()], 1), q) * phi


def _mean(call: str, input, size, axis, output, mode, cval, origin, how: How) -> Array:
    if not is_integer(size) or size < 1:
        raise ArgumentError(
            f"`{call}` got size={size!r}: incorrect filter size; it must be an integer, 1 or more. Pass the number of "
            "neighbours to average."
        )
    # As SciPy: a sum, divided once, so that a constant stays what it is.
    return filtered1d(call, False, input, np.ones(size, int), axis, output, mode, cval, origin, how, size)
