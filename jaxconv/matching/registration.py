"""Registration: the shift between two images, to a fraction of a pixel."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxconv.arguments import as_floating, common_dtype, described, promoted
from jaxconv.matching.windows import power_of_two

COARSE = 16  # positions per pixel from which Newton's steps to the peak begin
STEPS = 4


class Registration(NamedTuple):
    """The shift, and how well the images agree after it."""

    shift: Array
    error: Array
    phasediff: Array


def phase_cross_correlation(
    reference_image: ArrayLike,
    moving_image: ArrayLike,
    *,
    upsample_factor: float = 1,
    space: str = "real",
    normalization: str | None = "phase",
) -> Registration:
    """The shift that registers one image with another, by the peak of their correlation.

        shift = argmax over s of |sum over f of R(f) conj(M(f)) / |R(f) conj(M(f))| exp(2 pi i f s)|

    R and M being the images' discrete Fourier transforms. The peak is sought among all whole shifts, then among
    those of `upsample_factor` steps per pixel around it, by small matrix products instead of a long transform.

    >>> x = jnp.zeros((8, 8)).at[2:5, 3:5].set(1.0)
    >>> found = phase_cross_correlation(jnp.roll(x, (1, -2), (0, 1)), x)
    >>> found.shift.tolist()
    [1.0, -2.0]

    Parameters
    ----------
    reference_image, moving_image : arrays of one shape
        Images, or with space='fourier' their transforms.
    upsample_factor : int, 1 or more, or inf
        Steps per pixel. inf gives the peak of the trigonometric interpolation itself, by Newton's method.
    space : 'real' | 'fourier'
    normalization : 'phase' | None
        None leaves the division out: less exact, and less sensitive to noise.

    Returns
    -------
    shift : Array of shape (dimensions,)
        In pixels, modulo the image's size. Its derivative is that of the interpolation's peak, by the
        implicit function theorem, whatever the upsample_factor.
    error : Array
        The normalised root-mean-square difference of the images after the shift.
    phasediff : Array
        The phase of the correlation's peak.

    Raises
    ------
    ValueError
        Images of different shapes, unknown names, a factor below 1.

    Static under `jax.jit`: everything but the images.

    Differs from scikit-image: no masks (`match_template` has them) and no `disambiguate`; images that hold a NaN
    give NaN where it raises.

    Source: Guizar-Sicairos, Thurman and Fienup, Efficient subpixel image registration algorithms (2008);
    Kuglin and Hines, The phase correlation image alignment method (1975).
    """
    call = "jaxconv.matching.phase_cross_correlation"
    images = as_floating(call, "reference_image", reference_image), as_floating(call, "moving_image", moving_image)
    if images[0].shape != images[1].shape or not images[0].size or not images[0].ndim:
        raise ValueError(
            f"`{call}` got images of {described(images[0])} and {described(images[1])}: images must be same shape, and "
            "neither empty nor scalars. Crop or pad one of them."
        )
    space = space.lower() if isinstance(space, str) else space
    if space not in ("real", "fourier"):
        raise ValueError(f"`{call}` got space={space!r}: it must be 'real' or 'fourier'. Pass one of them.")
    if normalization not in ("phase", None):
        raise ValueError(f"`{call}` got normalization={normalization!r}: it must be 'phase' or None. Pass one of them.")
    whole = isinstance(upsample_factor, int | float | np.number) and (
        math.isinf(upsample_factor) or upsample_factor % 1 == 0
    )
    if not whole or upsample_factor < 1:
        raise ValueError(
            f"`{call}` got upsample_factor={upsample_factor!r}: it must be a whole number, 1 or more, or inf. "
            "Pass the steps per pixel."
        )
    dtype = promoted(common_dtype(call, *images), jnp.float32)
    return _registered(
        *(a.astype(dtype) for a in images), float(upsample_factor), space == "real", normalization == "phase"
    )


@partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _registered(a: Array, b: Array, factor: float, real: bool, phase: bool) -> Registration:
    scales = [power_of_two(jnp.abs(c).max()) for c in (a, b)]  # so that no square overflows
    a, b = (c * (1 / scale).astype(c.dtype) for c, scale in zip((a, b), scales, strict=True))
    R, M = (jnp.fft.fftn(a), jnp.fft.fftn(b)) if real else (c.astype(promoted(c.dtype, jnp.complex64)) for c in (a, b))
    product = R * jnp.conj(M)
    if phase:
        eps = jnp.finfo(product.dtype).eps
        power = product.real**2 + product.imag**2
        product = product * lax.rsqrt(jnp.maximum(power, (100 * eps) ** 2)).astype(product.dtype)
    fixed = lax.stop_gradient(product)

    correlation = jnp.fft.ifftn(fixed)
    best = jnp.unravel_index(jnp.argmax(jnp.abs(correlation)), correlation.shape)
    sizes = jnp.asarray(product.shape)
    start = jnp.stack(best)
    start = jnp.where(start > sizes // 2, start - sizes, start).astype(product.real.dtype)

    peak = _finest(product, _searched(fixed, start, COARSE)[0])
    if factor == 1:
        shift, height = start, _at(product, start) / product.size
    elif math.isinf(factor):
        shift, height = peak, _at(product, peak)
    else:
        shift, _ = _searched(fixed, start, int(factor))
        height = _at(product, shift)
    # The grid's value, with the derivative of the peak between its points.
    peak = jnp.where(jnp.isfinite(peak), peak, shift)
    shift = shift + (peak - lax.stop_gradient(peak)) if not math.isinf(factor) else peak
    shift = jnp.where(sizes == 1, 0, shift)
    amplitudes = jnp.sum(jnp.abs(R) ** 2) * jnp.sum(jnp.abs(M) ** 2) / (product.size**2 if factor == 1 else 1)
    amplitudes = jnp.where(amplitudes == 0, 1, amplitudes)
    rest = jnp.abs(1 - jnp.abs(height) ** 2 / amplitudes / ((scales[0] * scales[1]) ** 2 if phase else 1))
    error = jnp.where(rest == 0, 0, jnp.sqrt(jnp.where(rest == 0, 1, rest)))
    shift = jnp.where(jnp.isnan(height), jnp.nan, shift)
    return Registration(shift, error, jnp.arctan2(height.imag, height.real))


def _waves(size: int, shifts: Array) -> Array:
    """exp(2 pi i f s) for each shift s and each frequency f of a transform of that size."""
    angles = 2 * jnp.pi * jnp.multiply.outer(shifts, jnp.asarray(np.fft.fftfreq(size), shifts.dtype))
    return lax.complex(jnp.cos(angles), jnp.sin(angles))


def _at(product: Array, shift: Array) -> Array:
    """sum over f of product(f) exp(2 pi i f s)"""
    for d, size in enumerate(product.shape):
        product = jnp.tensordot(_waves(size, shift[d]), product, axes=(0, 0), precision="highest")
    return product


def _searched(product: Array, start: Array, factor: int) -> tuple[Array, Array]:
    """The best of the shifts of 1/factor pixel around one, and the correlation there."""
    start = jnp.round(start * factor) / factor
    reach = math.ceil(1.5 * factor)
    steps = (jnp.arange(reach) - reach // 2) / factor
    around = product
    for d, size in enumerate(product.shape):
        waves = _waves(size, (start[d] + steps).astype(start.dtype))
        around = jnp.moveaxis(jnp.tensordot(waves, around, axes=(1, d), precision="highest"), 0, d)
    # Of equal ones the nearest: an image that does not change along an axis has no shift there.
    height = jnp.abs(around)
    away = sum(np.ix_(*[np.abs(np.arange(reach) - reach // 2)] * product.ndim), np.zeros(()))
    equal = height >= height.max() * (1 - 8 * jnp.finfo(height.dtype).eps)
    best = jnp.unravel_index(jnp.argmin(jnp.where(equal, away, np.inf)), around.shape)
    return start + jnp.stack([steps[i] for i in best]).astype(start.dtype), around[best]


# At a peak s of p(s) = |sum ...|^2 the slope p' is 0, so ds = -(p'')^-1 dp': that is the derivative of a
# last step of Newton's, s - (p'')^-1 p', from a point that is held fixed.
def _finest(product: Array, start: Array) -> Array:
    scale = lax.stop_gradient(jnp.maximum(jnp.abs(_at(product, start)) ** 2, jnp.finfo(start.dtype).tiny))
    moving = np.asarray(product.shape) > 1  # an axis of one position has no frequency but 0
    eye = jnp.eye(len(moving), dtype=start.dtype)

    def newton(product: Array, s: Array) -> Array:
        def height(s):
            value = _at(product, s)
            return (value.real**2 + value.imag**2) / scale

        slope, curvature = jax.grad(height)(s), jax.hessian(height)(s)
        curvature = jnp.where(np.outer(moving, moving), curvature, -eye)
        # Stripes do not say how far they are shifted along themselves: there the curvature is 0, and so is the step.
        eps = jnp.finfo(s.dtype)
        curvature = curvature - (8 * eps.eps * jnp.abs(curvature).max() + eps.tiny) * eye
        return s - jnp.clip(jnp.linalg.solve(curvature, slope), -1 / COARSE, 1 / COARSE)

    fixed = lax.stop_gradient(product)
    s = lax.fori_loop(0, STEPS, lambda _, s: newton(fixed, s), lax.stop_gradient(start))
    return newton(product, lax.stop_gradient(s))
