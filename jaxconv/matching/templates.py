"""How similar a probe is to each place of an image: template matching in N dimensions."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from jaxconv.arguments import (
    ArgumentError,
    as_floating,
    as_real,
    axis_indices,
    common_dtype,
    described,
    frozen,
    once_per_signature,
    promoted,
)
from jaxconv.batched import convolved
from jaxconv.matching.windows import Moments, moments, power_of_two
from jaxconv.padding import Modes
from jaxconv.planner import Accuracy, Method, Options, Precision, options_of

MEASURES = ("ccoeff_normed", "ccoeff", "ccorr_normed", "ccorr", "sqdiff_normed", "sqdiff")
PADS = ("constant", "edge", "linear_ramp", "maximum", "mean", "median", "minimum", "reflect", "symmetric", "wrap")
FFT = 4  # roundoffs of the largest product, and of its terms, that an FFT's result is off by, about
TOLERATED = 1e-3  # error of a similarity
FLAT = 16  # roundoffs of a window's own size: one whose standard deviation is less is taken for flat


class _Windows(NamedTuple):
    """Of each window: its product with the template, how many numbers it has, and what these are like."""

    product: Array
    number: Array
    mean: Array
    spread: Array
    energy: Array
    size: Array  # what the measure divides by


def match_template(
    image: ArrayLike,
    template: ArrayLike,
    pad_input: bool = False,
    mode: str = "constant",
    constant_values: ArrayLike = 0,
    *,
    measure: str = "ccoeff_normed",
    mask: ArrayLike | None = None,
    image_mask: ArrayLike | None = None,
    axes: int | tuple[int, ...] | None = None,
    method: Method = "auto",
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
) -> Array:
    """The similarity of a template and of the image's window at each place.

        y[o] = sum over k of (x[o + k] - mean of the window) * (t[k] - mean of t) / sqrt(their two sums of squares)

    the zero-normalised cross-correlation, from -1 to 1: neither brightness nor contrast count. Windows that are
    flat have 0. `measure` chooses another formula.

    >>> image = jnp.array([5., 5., 1., 2., 1., 5., 10., 20., 10.])
    >>> np.round(np.asarray(match_template(image, [1., 2., 1.]), float), 2).tolist()
    [0.5, -0.69, 1.0, -0.69, -0.06, -0.19, 1.0]

    Parameters
    ----------
    image, template : arrays of real numbers
        Integers and booleans are converted to floating point.
    pad_input : bool
        False: the windows that lie inside the image; y[o] belongs to the window that begins at o. True: y has the
        image's shape, and belongs to the window with the template's centre (M//2) at o, the image being extended.
    mode, constant_values
        How `pad_input` extends, as in `jax.numpy.pad`.
    measure : 'ccoeff_normed' | 'ccoeff' | 'ccorr_normed' | 'ccorr' | 'sqdiff_normed' | 'sqdiff'
        OpenCV's formulas, and its names (with or without 'TM_', in any case). 'ccorr' is the plain correlation;
        'sqdiff' sums squared differences; '_normed' divides by the norms; 'ccoeff' subtracts the means first.
        'ccoeff_normed' is scikit-image's only one.
    mask : array of the template's shape, 0 or more
        Weighs the template's entries; 0 leaves one out.
    image_mask : array of the image's shape, 0 or 1
        0 leaves a pixel of the image out; then all sums run over what both masks leave.
    axes : None | int | ints
        The axes to match along, by default all of the template's dimensions, counted from the last. The others are a
        batch and broadcast: of images, of templates, or of both.
    method, accuracy, precision
        As in `jaxconv.convolve`, for the correlations.

    Returns
    -------
    Array
        N - M + 1 positions along each axis, or N with `pad_input`. A window that holds what is not finite has NaN,
        unless `image_mask` leaves it out.

    Raises
    ------
    ValueError
        A template that is larger than the image, an unknown measure, masks of other shapes.
    TypeError
        Complex arrays, or no arrays.

    Static under `jax.jit`: everything but the arrays and constant_values.

    Means and spreads of windows are updated, not subtracted, so a large offset cancels nothing; levels and sizes
    that a measure does not see are taken off first. A window counts as flat whose standard deviation is below 16
    roundoffs of its own root mean square, that of the sum's terms; where `mask` weighs the window (or `image_mask` the
    template), below 16 roots of the roundoff. The FFT's error is one of the whole image: where it might move the
    similarity of any window by 1e-3 (with `mask`, a sum of squares by a hundredth), 'auto' sums element by element
    instead, which takes longer. Where a `method` is forced, windows below as much of the image's largest value count as
    flat, unless it is 'direct' or 'shifts', or accuracy is 'elementwise'.

    Differs from scikit-image: sums are made in the image's floating type; masks, measures, batches. Differs from
    OpenCV: channels are an axis like the others; masks are weights, not squared; 'sqdiff_normed' is not cut at 1.

    Source: Lewis, Fast normalized cross-correlation (1995); Padfield, Masked object registration in the Fourier
    domain (2012); skimage.feature.match_template; cv2.matchTemplate.
    """
    call = "jaxconv.matching.match_template"
    name = measure.lower().removeprefix("tm_") if isinstance(measure, str) else measure
    if name not in MEASURES:
        raise ValueError(
            f"`{call}` got measure={measure!r}: they are {', '.join(map(repr, MEASURES))}. Pass one of them."
        )
    if pad_input and mode not in PADS:
        raise ValueError(f"`{call}` got mode={mode!r}: the modes are {', '.join(map(repr, PADS))}. Pass one of them.")
    x, t = _real(call, "image", image), _real(call, "template", template)
    given = axes if axes is not None else tuple(range(-t.ndim, 0))
    rank = max(x.ndim, t.ndim)
    along = axis_indices(call, "axes", frozen(call, "axes", given), rank)
    if any(d < rank - min(x.ndim, t.ndim) for d in along):
        raise ArgumentError(
            f"`{call}` got an image of {described(x)} and a template of {described(t)} to match along axes={given!r}: "
            "both must have these axes. Pass a template of no more dimensions than the image, or name `axes`."
        )
    masks = [None if m is None else _real(call, n, m) for n, m in (("mask", mask), ("image_mask", image_mask))]
    for n, m, a in (("mask", masks[0], t), ("image_mask", masks[1], x)):
        if m is not None and m.shape != a.shape:
            raise ValueError(
                f"`{call}` got {n} of shape {m.shape} for an array of shape {a.shape}: they must be equal. "
                "Broadcast it with `jnp.broadcast_to`."
            )
    dtype = common_dtype(call, x, t)
    batches = [[n for d, n in enumerate((1,) * (rank - a.ndim) + a.shape) if d not in along] for a in (x, t)]
    if any(1 != n != m != 1 for n, m in zip(*batches, strict=True)):
        raise ValueError(
            f"`{call}` got an image of {described(x)} and a template of {described(t)} to match along axes={given!r}: "
            "the other axes are a batch, and must be of one length, or of length 1. Name `axes`, or use `jax.vmap`."
        )
    x, t, w, v = (
        None if a is None else a.astype(dtype).reshape((1,) * (rank - a.ndim) + a.shape) for a in (x, t, *masks)
    )
    assert x is not None
    assert t is not None
    if pad_input:
        pads = [(t.shape[d] // 2, t.shape[d] - 1 - t.shape[d] // 2) if d in along else (0, 0) for d in range(rank)]
        more = (
            {"constant_values": jnp.asarray(as_real(call, "constant_values", constant_values), dtype)}
            if mode == "constant"
            else {}
        )
        x = jnp.pad(x, pads, mode=mode, **more)
        v = v if v is None else jnp.pad(v, pads)
    small = [d for d in along if not 1 <= t.shape[d] <= x.shape[d]]
    if small:
        raise ValueError(
            f"`{call}` got an image of shape {np.shape(image)} and a template of shape {np.shape(template)}: image "
            "must be larger than template, and neither empty. Pass `pad_input=True`, or a smaller template."
        )
    return _matched(
        x, t, w, v,
        call=call, measure=name, axes=tuple(sorted(along)), options=options_of(call, method, accuracy, precision),
    )  # fmt: skip


@once_per_signature
def _matched(
    x: Array, t: Array, w: Array | None, v: Array | None,
    *, call: str, measure: str, axes: tuple[int, ...], options: Options,
) -> Array:  # fmt: skip
    def sums(a: Array, b: Array, options=options) -> Array:
        """sum over k of a[o + k] * b[k], for the windows that lie inside."""
        return convolved(a, b, call=call, relation=Modes("valid", False), options=options, axes=axes)

    def total(a: Array) -> Array:
        return a.sum(axes, keepdims=True)

    shape = [t.shape[d] if d in axes else 1 for d in range(x.ndim)]
    centred, normed, squared = (measure.startswith("ccoeff"), measure.endswith("normed"), measure.startswith("sqdiff"))
    dtype = x.dtype
    x, t = (a.astype(promoted(dtype, jnp.float32)) for a in (x, t))
    w, v = (None if a is None else a.astype(x.dtype) for a in (w, v))
    t = t if w is None else jnp.where(w == 0, 0, t)
    seen = jnp.isfinite(x) if v is None else jnp.isfinite(x) & (v > 0)
    holes = ~jnp.isfinite(x) if v is None else ~jnp.isfinite(x) & (v > 0)  # their windows are NaN
    x = jnp.where(seen, x, 0)
    if normed:  # sizes drop out, and so no square overflows; where they are subtracted both are divided alike
        sizes = [power_of_two(jnp.abs(a).max(axes, keepdims=True, initial=0)) for a in (x, t)]
        sizes = [jnp.maximum(*sizes)] * 2 if squared else sizes
        x, t = x / sizes[0], t / sizes[1]
    weights, given = jnp.ones_like(t) if w is None else w, t
    # Squared differences do not change with a level that is subtracted from both, nor centred products with any.
    level = _level(moments(jnp.where(holes, jnp.nan, x), shape, v), axes) if centred or squared else 0.0
    original, x = x, jnp.where(seen, x - level, 0)
    if centred:
        whole = total(weights)
        for _ in range(2):  # what rounding leaves of the mean would be multiplied by a window's
            t = t - total(weights * t) / jnp.where(whole == 0, 1, whole)
    elif squared:
        t = t - level
    masked = x if v is None else x * v

    windows = moments(jnp.where(holes, jnp.nan, x), shape, v)
    broken = jnp.isnan(windows.mean)
    of_squares = original if measure == "sqdiff_normed" else x
    pairs = [(masked, weights * t)]
    if w is not None:
        pairs += [(masked, weights), (of_squares**2 * (1 if v is None else v), weights)]
        pairs += [(masked * x, weights)] * (measure == "sqdiff_normed")
        counts = total(weights) if v is None else sums(v, weights)
        counts = jnp.where(counts < 1e-4 * total(weights), 0, counts)  # of an FFT: nothing is left of these windows

    def judged(found: list[Array]) -> _Windows:
        if w is None:  # all that is known of a window without the template comes without cancellation, and stays local
            number, mean, spread = windows
            energy = spread + number * (mean + level if measure == "sqdiff_normed" else mean) ** 2
        else:
            number, energy = counts, found[2]
            mean = found[1] / jnp.where(number == 0, 1, number)
            spread = energy - number * mean**2
        return _Windows(found[0], number, mean, spread, energy, spread if centred else energy)

    # What counts as flat: the error of the sums that a spread is a difference of, or that the product has. An
    # element by element sum of x t is within some roundoffs of |x| |t|, the norms of the window and the template.
    eps = jnp.finfo(x.dtype).eps / 2
    coarse = FLAT * jnp.sqrt(eps)
    limits = (FLAT * eps if w is None else coarse), (FLAT * eps if v is None else coarse)
    largest, own, rounded = (jnp.abs(a).max(axes, keepdims=True) for a in (x, t, given))
    found = [sums(*pair) for pair in pairs]
    lost = jnp.zeros((), bool)
    if not options.is_local:
        fast = judged(found)
        if normed and not options.engines:
            errors = [_of_fft(y, a, b, axes) for y, (a, b) in zip(found, pairs, strict=True)]
            norms = jnp.sqrt(jnp.maximum(fast.size, 0)) * jnp.sqrt(total(weights * (given if squared else t) ** 2))
            hidden = (1 + squared) * errors[0] + sum(errors[3:]) > TOLERATED * norms
            if w is not None:
                hidden |= errors[2] > 10 * TOLERATED * fast.size
            plain = windows.spread + windows.weight * windows.mean**2  # of a window without the template's mask
            hidden &= windows.spread > (FLAT * eps) ** 2 * plain if centred else plain > 0
            direct = options_of(call, "direct", "elementwise", options.precision)  # compiles quickly; rarely runs
            literal = partial(sums, options=direct)
            found = lax.cond(_any(hidden), lambda: [literal(*pair) for pair in pairs], lambda: found)
        else:
            lost = fast.size <= jnp.where(fast.number == 0, 1, fast.number) * (limits[0] * largest) ** 2
    product, counts, mean, spread, energy, _ = judged(found)
    some = jnp.where(counts == 0, 1, counts)
    flat = (spread <= limits[0] ** 2 * energy) | lost
    energy = jnp.where(lost, 0, energy)
    if v is None:
        template, squares = jnp.zeros((), x.dtype) if centred else total(weights * t), total(weights * t * t)
        norm = total(weights * given**2)
    else:
        template, squares, norm = (sums(v, weights * a) for a in (t, t * t, given**2))
    if centred:
        product, squares = product - mean * template, squares - template * template / some

    def answer(y: Array) -> Array:
        return jnp.where(broken, jnp.nan, y).astype(dtype)

    if measure in ("ccorr", "ccoeff"):
        return answer(product)
    if squared:
        shifted = spread + counts * mean**2 if w is None else found[-1]
        difference = jnp.maximum(shifted - 2 * product + squares, 0)
        return answer(_ratio(difference, energy, norm, 1.0) if normed else difference)
    if not centred:
        return answer(jnp.clip(_ratio(product, energy, norm, 0.0), -1, 1))
    flat |= squares <= some * jnp.maximum(limits[1] * own, FLAT * eps * rounded) ** 2
    value = _ratio(product, jnp.where(flat, 1, spread), jnp.where(flat, 1, squares), 0.0)
    return answer(jnp.clip(jnp.where(flat, 0, value), -1, 1))


# An FFT's error is spread over all outputs, or comes back at places that have to do with the largest values'.
def _of_fft(y: Array, a: Array, b: Array, axes: tuple[int, ...]) -> Array:
    """About the largest error of y, the sums of a times b, by an FFT."""
    y, a, b = lax.stop_gradient((y, a, b))
    most, largest = (jnp.abs(array).max(axes, keepdims=True) for array in (y, a))
    return FFT * jnp.finfo(y.dtype).eps / 2 * (most + largest * jnp.sqrt((b * b).sum(axes, keepdims=True)))


# In a batch one answer for all, or `jax.vmap` would make both of a `lax.cond`'s branches.
@custom_vmap
def _any(a: Array) -> Array:
    return a.any()


@_any.def_vmap
def _any_of_batch(size: int, batched: list[bool], a: Array) -> tuple[Array, bool]:
    return _any(a), False


# A window with the mean p and the variance s loses about (p - level)^2 / s by the level that is left in it: the sum
# of these is least at the mean of all p with the weights 1/s. So a bright region does not round away a faint one.
def _level(windows: Moments, axes: tuple[int, ...]) -> Array:
    """What to subtract from an image: near the means of those of its windows that have the least contrast."""
    weight, mean, spread = lax.stop_gradient(windows)
    variance = spread / jnp.where(weight == 0, 1, weight)
    told = variance > (FLAT * jnp.finfo(mean.dtype).eps / 2 * mean) ** 2  # not of a flat window, nor of NaN
    least = variance.min(axes, keepdims=True, where=told, initial=jnp.inf)
    share = jnp.where(told, least / jnp.where(told, variance, 1), 0)
    return (share * jnp.where(told, mean, 0)).sum(axes, keepdims=True) / jnp.maximum(share.sum(axes, keepdims=True), 1)


def _ratio(a: Array, b: Array, c: Array, otherwise: float) -> Array:
    """a / sqrt(b * c), and `otherwise` where that is not positive."""
    positive = (b > 0) & (c > 0)
    return jnp.where(positive, a / jnp.sqrt(jnp.where(positive, b, 1)) / jnp.sqrt(jnp.where(positive, c, 1)), otherwise)


def _real(call: str, name: str, value) -> Array:
    array = as_floating(call, name, value)
    if jnp.iscomplexobj(array):
        raise TypeError(
            f"`{call}` got {name} of {described(array)}: similarity is defined for real numbers. Pass its absolute "
            "value, or use `jaxconv.correlate`."
        )
    return array
