"""Convolution and correlation of two arrays in N dimensions, in SciPy's words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import as_array, as_floating, axis_indices, frozen
from jaxconv.batched import convolved, outer_products
from jaxconv.padding import Lags, Modes, Relation
from jaxconv.planner import Accuracy, Method, Options, Precision, options_of


def convolve(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    method: Method = "auto",
    *,
    axes: int | Sequence[int] | None = None,
    boundary: str | Sequence[str] = "constant",
    origin: int | Sequence[int] = 0,
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """Convolve two N-dimensional arrays, as `scipy.signal.convolve` does.

        y[o] = sum over k of in1[o + centre - k] * in2[k]

    along every axis (or `axes`), where in1 is 0 outside its N positions and in2 has M.

    >>> import jax.numpy as jnp
    >>> convolve(jnp.array([1., 0.5, 1., 1.]), jnp.array([1., 0.5, 0.25]))
    Array([1.   , 1.   , 1.5  , 1.625, 0.75 , 0.25 ], dtype=float32)

    Parameters
    ----------
    in1, in2 : arrays of the same number of dimensions, 0 included
        Mixed dtypes are promoted as `jnp.result_type` says. Integers stay integers and wrap
        around; booleans give the logical "or" of "and"s, or counts of a `preferred_element_type`.
        Nested lists of numbers are taken for NumPy arrays.
    mode : 'full' | 'same' | 'valid'
        The extent of the output and its alignment, per axis: 'full' has N + M - 1 positions
        (centre 0), 'same' N (centre (M-1)//2), 'valid' |N - M| + 1, those where the shorter
        array lies inside the longer.
    method : 'auto', the name of an engine, or a mapping from pass to one of these; or 'separable'
        How to compute it, and its derivatives: the passes are 'forward', 'input' and 'kernel'; the
        engines are 'direct', 'shifts', 'gemm', 'winograd', 'fft' and 'overlap'. A forced method is
        honoured, or refused with a reason. 'separable' runs along one axis after the other, for a
        kernel in2 that is a sum of few outer products and a NumPy array, whose values are known when the
        function is traced; 'auto' does so where it pays. 'auto' takes the cheapest that
        `accuracy` admits: often the FFT for long kernels, whose error is relative to the largest
        values of in1, and which spreads a NaN of in1 everywhere.
    axes : None | int | ints
        The axes to convolve along, all by default. The others are a batch and broadcast as NumPy's do;
        an array may lack leading ones.
    boundary : 'constant' | 'reflect' | 'mirror' | 'nearest' | 'wrap', or one of these per axis
        What lies outside in1 in modes 'full' and 'same', by `scipy.ndimage`'s names; the default
        is zeros. The extension repeats, so in2 may be longer than in1.
    origin : int or one int per axis
        In mode 'same', moves the centre inside the kernel.
    accuracy : 'normwise' | 'close' | 'elementwise'
        By 'normwise' the norm of the error is, of ordinary data, within about 3 times that of the plain sum. By
        'close' it is within about 1.6 times that where winograd computes, and gradients through many layers are
        within 3 times those of lax. 'elementwise' admits only engines whose error is bounded element by element: no
        FFT, no winograd. A NaN or an infinity of in1 or in2 is then in those sums alone that it is a term of, as it
        is in NumPy.
    precision, preferred_element_type
        As in `jax.lax.conv_general_dilated`.

    Returns
    -------
    Array
        Where an axis of in1 or in2 is empty, so is it in modes 'full' and 'valid'; 'same' has in1's shape, and zeros
        where in2 is empty.

    Raises
    ------
    ValueError
        Different numbers of dimensions, unknown names, shapes that 'valid' does not admit, a
        method that refuses.
    TypeError
        An argument that is not an array of numbers.

    Static under `jax.jit`: everything but in1 and in2.

    Differs from SciPy: `fft` refuses integers (it rounds) instead of rounding its result;
    empty arrays give empty sums where SciPy raises; arrays of dtype object are refused.

    Source: scipy.signal.convolve; Oppenheim and Schafer, Discrete-Time Signal Processing, 2.3.
    """
    call = "jaxconv.convolve"
    return sum_of(
        call, in1, in2, Modes(mode, True, origin), options_of(call, method, accuracy, precision, separable=True),
        axes=axes, boundary=boundary, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def correlate(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    method: Method = "auto",
    *,
    axes: int | Sequence[int] | None = None,
    lags: int | Sequence[int] | Sequence[Sequence[int]] | None = None,
    boundary: str | Sequence[str] = "constant",
    origin: int | Sequence[int] = 0,
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """Cross-correlate two N-dimensional arrays, as `scipy.signal.correlate` does.

        y[o] = sum over k of in1[o + k - centre] * conj(in2[k])

    along every axis (or `axes`), where in1 is 0 outside its N positions and in2 has M.

    >>> import jax, jax.numpy as jnp
    >>> correlate(jnp.array([1., 2., 3.]), jnp.array([0., 1., 0.5]))
    Array([0.5, 2. , 3.5, 3. , 0. ], dtype=float32)
    >>> correlate(jnp.array([1., 2., 3.]), jnp.array([0., 1., 0.5]), lags=(0, 1))
    Array([3.5, 3. ], dtype=float32)

    The gradient in in1 is the convolution with the same kernel, that in in2 the correlation
    of in1 with the gradient of y:

    >>> x, h, dy = jnp.arange(5.), jnp.array([1., 2., 4.]), jnp.array([1., -1., 2.])
    >>> dx, dh = jax.vjp(lambda x, h: correlate(x, h, "valid"), x, h)[1](dy)
    >>> bool((dx == convolve(dy, h)).all()), bool((dh == correlate(x, dy, "valid")).all())
    (True, True)

    Parameters and errors are those of `convolve`, but for the alignment: 'full' has
    N + M - 1 positions (centre M-1: the lags from -(M-1) to N-1), 'same' N (centre M//2),
    'valid' |N - M| + 1. in2 is conjugated where it is complex. Instead of a mode, `lags` asks
    for some lags l only, y[l] = sum of in1[k + l] * conj(in2[k]): an int L for -L to L, a pair
    (first, last), or one pair per axis. Returns an Array; raises ValueError
    and TypeError as `convolve` does. Static under `jax.jit`: everything but in1 and in2.

    Differs from SciPy: as `convolve`.

    Source: scipy.signal.correlate.
    """
    call = "jaxconv.correlate"
    if lags is not None and (frozen(call, "mode", mode) != "full" or frozen(call, "origin", origin) != 0):
        raise ValueError(
            f"`{call}` got lags={lags!r} with mode={mode!r} and origin={origin!r}: lags say where the output lies. "
            "Leave out mode and origin."
        )
    return sum_of(
        call, in1, in2, Modes(mode, False, origin) if lags is None else Lags(lags),
        options_of(call, method, accuracy, precision, separable=True),
        axes=axes, boundary=boundary, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def fftconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None,
    *, precision: Precision = None,
) -> Array:  # fmt: skip
    """Convolve by the convolution theorem, as `scipy.signal.fftconvolve`.

        y = ifft(fft(in1) * fft(in2)),   cut to the mode's extent

    along `axes`; the other axes broadcast, and so do axes of length 1.

    >>> import jax.numpy as jnp
    >>> fftconvolve(jnp.array([1., 2., 3.]), jnp.array([0., 1., 0.5])).round(5)
    Array([0. , 1. , 2.5, 4. , 1.5], dtype=float32)

    Parameters
    ----------
    in1, in2 : arrays
        Integers and booleans are converted to floating point first, as SciPy does.
    mode : 'full' | 'same' | 'valid'
    axes : None | int | ints
        The axes to convolve along, all by default.

    Raises
    ------
    ValueError
        Shapes that do not broadcast, unknown names, axes that do not exist or are named twice.

    Returns an Array: the sum of `convolve`, by the engine 'fft' in all three passes. Static under
    `jax.jit`: mode and axes.

    Differs from SciPy: axes that are not convolved broadcast in mode 'same' too, where SciPy crops them to in1's; an
    empty array leaves the others' axes as they are, where SciPy returns shape (0,).

    Source: scipy.signal.fftconvolve.
    """
    return _by_fft("jaxconv.signal.fftconvolve", in1, in2, mode, axes, "fft", precision)


def oaconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None,
    *, precision: Precision = None,
) -> Array:  # fmt: skip
    """Convolve block by block with the FFT, as `scipy.signal.oaconvolve`.

        y = the sum of `fftconvolve`, in blocks that overlap by the shorter array's length

    Faster than one FFT where one array is much longer than the other.

    >>> import jax.numpy as jnp
    >>> oaconvolve(jnp.ones(100), jnp.ones(3), mode="valid")[:4].round().tolist()
    [3.0, 3.0, 3.0, 3.0]

    Parameters are those of `fftconvolve`. Returns an Array; raises as `fftconvolve`. Static under `jax.jit`: mode and
    axes. The engine is 'overlap' (overlap-save, which reads overlapping blocks instead of adding overlapping
    results), or 'fft' where that refuses;
    derivatives are computed by what is expected to be fastest.

    Differs from SciPy: as `fftconvolve`.

    Source: scipy.signal.oaconvolve; Stockham, High-speed convolution and correlation (1966).
    """
    return _by_fft("jaxconv.signal.oaconvolve", in1, in2, mode, axes, "overlap", precision)


def _by_fft(call: str, in1, in2, mode, axes, engine: str, precision) -> Array:
    in1, in2 = as_array(call, "in1", in1), as_array(call, "in2", in2)
    axes = frozen(call, "axes", axes)
    if axes == ():
        raise ValueError(f"`{call}` got axes=(): when provided, axes cannot be empty. Pass None for all axes.")
    rank = max(np.ndim(in1), np.ndim(in2))
    shapes = [(1,) * (rank - np.ndim(a)) + np.shape(a) for a in (in1, in2)]
    along = tuple(range(rank)) if axes is None else axis_indices(call, "axes", axes, rank)
    convolved = tuple(d for d in along if 1 not in (shapes[0][d], shapes[1][d]))
    if mode == "valid" and (axes is not None or np.ndim(in1) == np.ndim(in2)):
        axes = convolved  # axes of length 1 broadcast: they do not forbid 'valid'
    # As SciPy: where there is nothing to transform the arrays are multiplied, whatever their dtype.
    if not convolved:
        return sum_of(call, in1, in2, Modes(mode, True), options_of(call, precision=precision), axes=axes)
    in1, in2 = as_floating(call, "in1", in1), as_floating(call, "in2", in2)
    options = options_of(call, "fft", precision=precision)
    if engine == "overlap":
        options = options._replace(forward=(engine, "fft"), input="auto", kernel="auto")
    return sum_of(call, in1, in2, Modes(mode, True), options, axes=axes)


def sum_of(
    call: str, in1: Any, in2: Any, relation: Relation, options: Options,
    *, axes: Any = None, boundary: Any = "constant", fill: Any = None, preferred_element_type: Any = None,
) -> Array:  # fmt: skip
    """`convolved` of what a user hands over."""
    in1, in2 = as_array(call, "in1", in1), as_array(call, "in2", in2)
    terms = outer_products(call, in2, options) if isinstance(in2, np.ndarray) or options.separable == "always" else None
    return convolved(
        in1, in2, terms, fill,
        call=call, relation=relation, options=options, axes=axes, boundary=boundary,
        preferred_element_type=preferred_element_type,
    )  # fmt: skip
