"""Convolution and correlation of images, with boundaries, in SciPy's words."""

from typing import Unpack

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import as_array
from jaxconv.boundary import names
from jaxconv.ndimage.base import How
from jaxconv.ndimage.convolution import convolve1d
from jaxconv.padding import Modes
from jaxconv.planner import Accuracy, Method, Precision, options_of
from jaxconv.signal.convolution import sum_of

BOUNDARIES = names("signal")


def convolve2d(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", boundary: str = "fill", fillvalue: ArrayLike = 0,
    *, method: Method = "auto", accuracy: Accuracy = "elementwise", precision: Precision = None,
) -> Array:  # fmt: skip
    """Convolve two images with a boundary, as `scipy.signal.convolve2d`.

        y[o] = sum over k of in1[o + centre - k] * in2[k]

    along both axes, with the modes of `convolve`.

    >>> convolve2d([[1., 2., 3.]], [[1., 0., -1.]], mode="same", boundary="symm")
    Array([[1., 2., 1.]], dtype=float32)

    Parameters
    ----------
    in1, in2 : arrays of two dimensions
    mode : 'full' | 'same' | 'valid'
    boundary : 'fill' (or 'pad') | 'wrap' (or 'circular') | 'symm' (or 'symmetric')
        What lies outside in1 in modes 'full' and 'same': the fillvalue, in1 repeated, in1 mirrored.
        Both repeat for kernels of any size.
    fillvalue : a number
    method, accuracy, precision
        As in `convolve`, but as SciPy's every sum is a direct one by default; accuracy='normwise' admits the FFT.

    Returns an Array with the mode's extent along both axes.

    Raises
    ------
    ValueError
        Arrays that have not two dimensions, a fillvalue that is no number of in1's kind, unknown names.

    Static under `jax.jit`: everything but in1, in2 and fillvalue.

    Differs from SciPy: empty arrays give empty sums; a fillvalue that in1's integers do not hold is taken modulo
    2**bits, where SciPy warns.

    Source: scipy.signal.convolve2d.
    """
    return _plane("jaxconv.signal.convolve2d", True, in1, in2, mode, boundary, fillvalue, method, accuracy, precision)


def correlate2d(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", boundary: str = "fill", fillvalue: ArrayLike = 0,
    *, method: Method = "auto", accuracy: Accuracy = "elementwise", precision: Precision = None,
) -> Array:  # fmt: skip
    """Cross-correlate two images with a boundary, as `scipy.signal.correlate2d`.

        y[o] = sum over k of in1[o + k - centre] * conj(in2[k])

    along both axes: as `correlate`, but in mode 'same' the centre is (M-1)//2, one less for even M.

    >>> correlate2d([[1., 2., 3., 4.]], [[1., 10.]], mode="same")
    Array([[21., 32., 43.,  4.]], dtype=float32)

    Parameters are those of `convolve2d`. Returns an Array; raises as `convolve2d`. Static under `jax.jit`: everything
    but in1, in2 and fillvalue.

    Differs from SciPy: in mode 'valid' with in2 the larger array, SciPy leaves out the conjugation that
    its other modes and `correlate` have; here in2 is conjugated always.

    Source: scipy.signal.correlate2d.
    """
    return _plane("jaxconv.signal.correlate2d", False, in1, in2, mode, boundary, fillvalue, method, accuracy, precision)


def sepfir2d(input: ArrayLike, hrow: ArrayLike, hcol: ArrayLike, **how: Unpack[How]) -> Array:
    """Convolve an image with a kernel along its rows and another along its columns, as `scipy.signal.sepfir2d`.

        y[i, j] = sum over k, l of input[i + M//2 - k, j + N//2 - l] * hcol[k] * hrow[l]

    where the image is mirrored at its borders, the border's own entries repeated.

    >>> sepfir2d([[1., 2., 3., 3., 2., 1.]], [0.5, 1., 0.5], [1.])
    Array([[2.5, 4. , 5.5, 5.5, 4. , 2.5]], dtype=float32)

    Parameters
    ----------
    input : array of two dimensions
        Integers are converted to floating point.
    hrow, hcol : arrays of one dimension and odd length
    **how : method, accuracy, precision, as in `jaxconv.convolve`

    Raises
    ------
    ValueError
        Arrays of other dimensions, an even length.

    Returns an Array of the input's shape. Static under `jax.jit`: everything but input, hrow and hcol.

    Source: scipy.signal.sepfir2d.
    """
    call = "jaxconv.signal.sepfir2d"
    image = jnp.asarray(as_array(call, "input", input))
    if image.ndim != 2:
        found = "object too deep" if image.ndim > 2 else "object of too small depth"
        raise ValueError(f"`{call}` got input of shape {image.shape}: {found} for an image. Pass a 2-D array.")
    kernels = {"hrow": as_array(call, "hrow", hrow), "hcol": as_array(call, "hcol", hcol)}
    for name, h in kernels.items():
        if np.ndim(h) != 1:
            raise ValueError(
                f"`{call}` got {name} of shape {np.shape(h)}: object too deep, or not deep enough. Pass a 1-D array."
            )
        if np.size(h) % 2 == 0:
            raise ValueError(
                f"`{call}` got {name} of length {np.size(h)}: filters must have odd length. Add a zero at an end."
            )
    small = image.dtype.itemsize == 1  # SciPy's float32 of bytes, float64 of longer integers
    if not jnp.issubdtype(image.dtype, jnp.inexact):
        image = image.astype(jnp.float32 if small else jnp.result_type(float))
    for axis, h in enumerate((kernels["hcol"], kernels["hrow"])):
        image = convolve1d(image, h, axis, **how)
    return image


def _plane(call: str, flip: bool, in1, in2, mode, boundary, fillvalue, method, accuracy, precision) -> Array:
    in1, in2, fill = as_array(call, "in1", in1), as_array(call, "in2", in2), as_array(call, "fillvalue", fillvalue)
    if np.ndim(in1) != 2 or np.ndim(in2) != 2:
        raise ValueError(
            f"`{call}` got in1 of shape {np.shape(in1)} and in2 of shape {np.shape(in2)}: both must be 2-D arrays. "
            "For other dimensions use `jaxconv.convolve` or `jaxconv.correlate`."
        )
    if not isinstance(boundary, str) or boundary not in BOUNDARIES:
        raise ValueError(
            f"`{call}` got boundary={boundary!r}: Acceptable boundary flags are "
            f"{', '.join(map(repr, BOUNDARIES))}. `jaxconv.convolve` has more."
        )
    if np.size(fill) != 1:
        raise ValueError(
            f"`{call}` got fillvalue={fillvalue!r}: `fillvalue` must be scalar or an array with one "
            "entry. Pass a number."
        )
    if jnp.iscomplexobj(fill) and not (jnp.iscomplexobj(in1) or jnp.iscomplexobj(in2)):
        raise ValueError(
            f"`{call}` got fillvalue={fillvalue!r} for real arrays: could not cast `fillvalue` directly to the output "
            "array. Pass a real number, or convert in1 with `.astype(complex)`."
        )
    shift = (0, 0) if flip or mode != "same" else tuple(-1 if m % 2 == 0 else 0 for m in np.shape(in2))
    fill = None if isinstance(fill, int | float | complex) and fill == 0 else jnp.reshape(fill, ())
    return sum_of(
        call, in1, in2, Modes(mode, flip, shift), options_of(call, method, accuracy, precision, separable=True),
        boundary=BOUNDARIES[boundary], fill=fill,
    )  # fmt: skip
