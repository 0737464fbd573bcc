"""Correlation and convolution of an image with weights, in N dimensions and along one axis."""

from collections.abc import Sequence
from typing import Unpack

from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxconv.ndimage.base import How, filtered, filtered1d


def correlate(
    input: ArrayLike, weights: ArrayLike, output: DTypeLike | None = None, mode: str = "reflect",
    cval: ArrayLike = 0.0, origin: int | Sequence[int] = 0,
    *, axes: int | Sequence[int] | None = None, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Correlate an image with weights: `scipy.ndimage.correlate`.

        y[o] = sum over k of input[o + k - M//2 - origin] * conj(weights[k])

    along `axes`, where the weights have M positions and the input goes on beyond its border.

    >>> correlate([1., 2., 3., 4.], [1., 10., 100.])
    Array([211., 321., 432., 443.], dtype=float32)

    Parameters
    ----------
    input : array
    weights : array with one axis for each of `axes`
        A NumPy array (or a list) is known when the program is traced, and is taken apart where it is a
        short sum of outer products and that pays. It may be larger than the image.
    output : dtype, by default the input's
        Integers are SciPy's to the last bit, whatever `jax_enable_x64` says: sums in float64 and in SciPy's order,
        cut toward zero, modulo 2**bits; exact, where all is integer. Other sums are made in the floating type.
    mode : 'reflect' | 'mirror' | 'nearest' | 'wrap' | 'constant', or 'grid-mirror' | 'grid-wrap' | 'grid-constant'
        What lies beyond the border: d c b a | a b c d | d c b a, d c b | a b c d | c b a, the nearest
        entry, the image again, or cval. The grid- names are aliases.
    cval : number, may be traced
    origin : int or one for each axis, -(M//2) <= origin <= (M-1)//2
        Moves the weights' centre; for an even M the centre is right of the middle.
    axes : None | int | ints
        The axes to filter along, all by default; the others are a batch.
    **how : method, accuracy, precision, as in `jaxconv.convolve`
        But accuracy is 'elementwise' by default: as SciPy's, sums are direct, and a NaN stays where it is. For large
        kernels accuracy='normwise', which admits the FFT, is faster.

    Returns
    -------
    Array
        Of the input's shape.

    Raises
    ------
    ValueError
        Weights of another number of axes, unknown modes, origins outside the weights, a complex cval for
        real arrays, a `method` for integers that are summed in SciPy's order. Where SciPy raises RuntimeError the
        error is one too.
    TypeError
        An argument that is not an array of numbers, an array for `output`.

    Static under `jax.jit`: everything but input, weights and cval.

    Differs from SciPy: `output` is a dtype, never an array; float32 images are summed in float32, not float64;
    float16 is allowed; integers wrap around, and sums of 64-bit integers are exact, modulo 2**64.

    Source: scipy.ndimage.correlate.
    """
    return filtered("jaxconv.ndimage.correlate", False, input, weights, axes, output, mode, cval, origin, how)


def convolve(
    input: ArrayLike, weights: ArrayLike, output: DTypeLike | None = None, mode: str = "reflect",
    cval: ArrayLike = 0.0, origin: int | Sequence[int] = 0,
    *, axes: int | Sequence[int] | None = None, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Convolve an image with weights: `scipy.ndimage.convolve`.

        y[o] = sum over k of input[o - k + M//2 + origin] * weights[k]

    along `axes`. Complex weights are not conjugated, and an origin moves opposite to `correlate`'s.

    >>> convolve([1., 2., 3., 4.], [1., 10., 100.])
    Array([112., 123., 234., 344.], dtype=float32)

    Parameters, errors, static arguments and differences from SciPy are those of `correlate`.

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input, weights
    and cval.

    Source: scipy.ndimage.convolve.
    """
    return filtered("jaxconv.ndimage.convolve", True, input, weights, axes, output, mode, cval, origin, how)


def correlate1d(
    input: ArrayLike, weights: ArrayLike, axis: int = -1, output: DTypeLike | None = None, mode: str = "reflect",
    cval: ArrayLike = 0.0, origin: int = 0, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Correlate an image with weights along one axis: `scipy.ndimage.correlate1d`.

        y[o] = sum over k of input[o + k - M//2 - origin] * conj(weights[k])

    along `axis`; all else is as in `correlate`.

    >>> correlate1d([[1., 2.], [4., 8.]], [1., 1.], axis=0, mode="constant")
    Array([[ 1.,  2.],
           [ 5., 10.]], dtype=float32)

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input, weights
    and cval.

    Source: scipy.ndimage.correlate1d.
    """
    return filtered1d("jaxconv.ndimage.correlate1d", False, input, weights, axis, output, mode, cval, origin, how)


def convolve1d(
    input: ArrayLike, weights: ArrayLike, axis: int = -1, output: DTypeLike | None = None, mode: str = "reflect",
    cval: ArrayLike = 0.0, origin: int = 0, **how: Unpack[How],
) -> Array:  # fmt: skip
    """Convolve an image with weights along one axis: `scipy.ndimage.convolve1d`.

        y[o] = sum over k of input[o - k + M//2 + origin] * weights[k]

    along `axis`; all else is as in `convolve`.

    >>> convolve1d([1., 2., 4., 8.], [1., 10., 100.], mode="constant")
    Array([ 12., 124., 248., 480.], dtype=float32)

    Returns an Array of the input's shape; raises as `correlate`. Static under `jax.jit`: everything but input, weights
    and cval.

    Source: scipy.ndimage.convolve1d.
    """
    return filtered1d("jaxconv.ndimage.convolve1d", True, input, weights, axis, output, mode, cval, origin, how)
