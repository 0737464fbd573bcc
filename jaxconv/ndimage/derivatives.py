"""Derivatives of images: Sobel, Prewitt, Laplace, and the length of the gradient."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import per_axis
from jaxconv.ndimage.base import How, Mode, axes_of, by_axis, filtered1d, image_of
from jaxconv.ndimage.integers import cast, stored
from jaxconv.ndimage.smoothing import gaussian_filter


def sobel(
    input: ArrayLike, axis: int = -1, output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Sobel's derivative along an axis: `scipy.ndimage.sobel`.

        y = correlation with (-1, 0, 1) along `axis`, then with (1, 2, 1) along each other one

    >>> sobel(jnp.arange(9.).reshape(3, 3), axis=0, mode="nearest")
    Array([[12., 12., 12.],
           [24., 24., 24.],
           [12., 12., 12.]], dtype=float32)

    `mode` is one for all axes or one for each; the rest is as in `correlate1d`.

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input and
    cval.

    Source: scipy.ndimage.sobel; Sobel and Feldman, A 3x3 isotropic gradient operator (1968).
    """
    return _derivative("jaxconv.ndimage.sobel", [1, 2, 1], input, axis, output, mode, cval, how)


def prewitt(
    input: ArrayLike, axis: int = -1, output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Prewitt's derivative along an axis: `scipy.ndimage.prewitt`.

        y = correlation with (-1, 0, 1) along `axis`, then with (1, 1, 1) along each other one

    >>> prewitt(jnp.arange(9.).reshape(3, 3), axis=1, mode="wrap")
    Array([[-3.,  6., -3.],
           [-3.,  6., -3.],
           [-3.,  6., -3.]], dtype=float32)

    `mode` is one for all axes or one for each; the rest is as in `correlate1d`.

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input and
    cval.

    Source: scipy.ndimage.prewitt; Prewitt, Object enhancement and extraction (1970).
    """
    return _derivative("jaxconv.ndimage.prewitt", [1, 1, 1], input, axis, output, mode, cval, how)


def generic_laplace(
    input: ArrayLike, derivative2: Callable[..., ArrayLike], output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, extra_arguments: Sequence[Any] = (), extra_keywords: dict[str, Any] | None = None,
    *, axes: int | Sequence[int] | None = None,
) -> Array:  # fmt: skip
    """The sum of second derivatives along the axes: `scipy.ndimage.generic_laplace`.

        y = sum over axes of derivative2(input, axis, output, mode, cval, *extra_arguments, **extra_keywords)

    >>> from jaxconv.ndimage import correlate1d
    >>> def second(input, axis, output, mode, cval):
    ...     return correlate1d(input, [1, -2, 1], axis, output, mode, cval)
    >>> generic_laplace(jnp.array([0., 0., 1., 0.]), second)
    Array([ 0.,  1., -2.,  1.], dtype=float32)

    Parameters
    ----------
    input : array
    derivative2 : callable
        It is called with the output's dtype for `output`, and returns an array.
    mode : one name, or one for each of `axes`
    extra_arguments, extra_keywords : what derivative2 gets besides
    output, cval, axes
        As in `correlate`; with no axes, the result is the input.

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input and
    cval.

    Differs from SciPy: derivative2 returns its result; it is never handed an array to write to.

    Source: scipy.ndimage.generic_laplace.
    """
    call = "jaxconv.ndimage.generic_laplace"
    return _over_axes(call, derivative2, input, output, mode, cval, extra_arguments, extra_keywords, axes)


def laplace(
    input: ArrayLike, output: DTypeLike | None = None, mode: Mode = "reflect", cval: ArrayLike = 0.0,
    *, axes: int | Sequence[int] | None = None, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Laplace's operator by second differences: `scipy.ndimage.laplace`.

        y = sum over axes of the correlation with (1, -2, 1)

    >>> laplace(jnp.zeros((3, 3)).at[1, 1].set(1))
    Array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]], dtype=float32)

    The arguments are those of `correlate`; `mode` may be one for each of `axes`.

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input and
    cval.

    Source: scipy.ndimage.laplace.
    """

    def second(input, axis, output, mode, cval):
        return filtered1d(call, False, input, np.array([1, -2, 1]), axis, output, mode, cval, 0, how)

    call = "jaxconv.ndimage.laplace"
    return _over_axes(call, second, input, output, mode, cval, (), None, axes)


def gaussian_laplace(
    input: ArrayLike, sigma: ArrayLike | Sequence[ArrayLike], output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, *, axes: int | Sequence[int] | None = None, **kwargs: Any,
) -> Array:  # fmt: skip
    """Laplace's operator by a Gaussian's second derivatives: `scipy.ndimage.gaussian_laplace`.

        y = sum over axes of `gaussian_filter` of order 2 along that axis and 0 along the others

    >>> np.round(np.asarray(gaussian_laplace([0., 0., 1., 0., 0.], 1.0, mode="constant"), float), 3)
    array([ 0.162,  0.   , -0.399,  0.   ,  0.162])

    sigma and mode are one for all or one for each of `axes` (an axis' mode holds for all of its derivative's passes);
    further keywords go to `gaussian_filter`.

    Returns an Array of the input's shape; raises as `gaussian_filter`. Static under `jax.jit`: everything but input,
    cval and, with radii, sigma.

    Differs from SciPy: as `correlate`.

    Source: scipy.ndimage.gaussian_laplace; Marr and Hildreth, Theory of edge detection (1980).
    """
    call = "jaxconv.ndimage.gaussian_laplace"
    return _gaussian_over_axes(call, 2, input, sigma, axes, output, mode, cval, axes, kwargs)


def generic_gradient_magnitude(
    input: ArrayLike, derivative: Callable[..., ArrayLike], output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, extra_arguments: Sequence[Any] = (), extra_keywords: dict[str, Any] | None = None,
    *, axes: int | Sequence[int] | None = None,
) -> Array:  # fmt: skip
    """The length of the gradient: `scipy.ndimage.generic_gradient_magnitude`.

        y = sqrt(sum over axes of derivative(input, axis, output, mode, cval, ...)^2)

    >>> generic_gradient_magnitude(jnp.array([0., 3., 3.]), sobel)
    Array([3., 3., 0.], dtype=float32)

    The arguments are those of `generic_laplace`. Where the gradient is 0 the length has no derivative; 0 is taken.

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input and
    cval.

    Differs from SciPy: as `generic_laplace`.

    Source: scipy.ndimage.generic_gradient_magnitude.
    """
    call = "jaxconv.ndimage.generic_gradient_magnitude"
    return _over_axes(call, derivative, input, output, mode, cval, extra_arguments, extra_keywords, axes, length=True)


def gaussian_gradient_magnitude(
    input: ArrayLike, sigma: ArrayLike | Sequence[ArrayLike], output: DTypeLike | None = None, mode: Mode = "reflect",
    cval: ArrayLike = 0.0, *, axes: int | Sequence[int] | None = None, **kwargs: Any,
) -> Array:  # fmt: skip
    """The length of the gradient by a Gaussian's derivatives: `scipy.ndimage.gaussian_gradient_magnitude`.

        y = sqrt(sum over axes of (`gaussian_filter` of order 1 along that axis and 0 along the others)^2)

    >>> np.round(np.asarray(gaussian_gradient_magnitude([0., 0., 1., 1.], 0.5), float), 2)
    array([0.  , 0.43, 0.43, 0.  ])

    The gradient is that along `axes`, while the Gaussian smooths along every axis of the image, as SciPy's. sigma is
    one for all or one for each axis of the image, mode one for all or for each of `axes`; further keywords go to
    `gaussian_filter`.

    Returns an Array of the input's shape; raises as `gaussian_filter`. Static under `jax.jit`: everything but input,
    cval and, with radii, sigma.

    Source: scipy.ndimage.gaussian_gradient_magnitude.
    """
    call = "jaxconv.ndimage.gaussian_gradient_magnitude"
    return _gaussian_over_axes(call, 1, input, sigma, None, output, mode, cval, axes, kwargs, length=True)


def _derivative(call: str, across: Sequence[int], input, axis, output, mode, cval, how: How) -> Array:
    image, dtype = image_of(call, input, output)
    modes = per_axis(call, "mode", mode, image.ndim)
    (along,) = axes_of(call, (axis,), image.ndim)
    for d in (along, *(d for d in range(image.ndim) if d != along)):
        weights = np.array([-1, 0, 1] if d == along else across)
        image = filtered1d(call, False, image, weights, d, stored(dtype), modes[d], cval, 0, how)
    return cast(image, dtype)


def _over_axes(
    call: str, f, input, output, mode, cval, arguments=(), keywords=None, axes=None, length: bool = False
) -> Array:
    """The sum over the axes of what f makes of the image, or the root of the sum of its squares: a `length`."""
    image, dtype = image_of(call, input, output)
    along = axes_of(call, axes, image.ndim)
    if not along:
        return cast(image, dtype)
    total = None
    for d, m in zip(along, per_axis(call, "mode", mode, len(along)), strict=True):
        part = jnp.asarray(f(image, d, dtype, m, cval, *arguments, **(keywords or {})))
        part = part * part if length else part
        total = part if total is None else total + part
    assert total is not None
    return _root(total, dtype) if length else total


def _gaussian_over_axes(call: str, order: int, input, sigma, smoothed, output, mode, cval, axes, kwargs, length=False):
    """`_over_axes` of the Gaussian derivatives of an order; `sigma` belongs to the axes `smoothed`."""
    rank = np.ndim(input)
    given = axes_of(call, smoothed, rank)
    pairs = by_axis(given, rank, per_axis(call, "sigma", sigma, len(given)))
    along, sigmas = [d for d, _ in pairs], [s for _, s in pairs]

    def derivative(image, axis, output, mode, cval):
        orders = [order if d == axis else 0 for d in along]
        return gaussian_filter(image, sigmas, orders, output, mode, cval, axes=along, **kwargs)

    return _over_axes(call, derivative, input, output, mode, cval, axes=axes, length=length)


# The root's slope is infinite at 0, where the length has no derivative: 0 is one of its subgradients.
def _root(squares: Array, dtype: np.dtype) -> Array:
    if not jnp.issubdtype(dtype, np.inexact):
        with jax.enable_x64(True):
            return cast(jnp.sqrt(jnp.maximum(squares.astype(float), 0)), dtype)
    zero = squares == 0
    safe = jnp.where(zero, 1, squares)
    return cast(jnp.where(zero, 0, jnp.sqrt(safe)), dtype)
