"""Convolution and correlation of two arrays in N dimensions, in SciPy's words."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxconv import separable
from jaxconv.arguments import as_array, common_dtype, described, frozen, output_dtype
from jaxconv.padding import extend, mode_axes
from jaxconv.planner import Accuracy, Method, Precision, Wishes, parse_wishes
from jaxconv.primitive import contract
from jaxconv.problem import Problem, Triple

TRIED = 1 << 12  # entries of a known kernel


def convolve(
    x: ArrayLike,
    h: ArrayLike,
    mode: str = "full",
    method: Method = "auto",
    *,
    boundary: str = "constant",
    origin: int | Sequence[int] = 0,
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """Convolve two N-dimensional arrays, as `scipy.signal.convolve` does.

        y[o] = sum over k of x[o + centre - k] * h[k]

    along every axis, where x is 0 outside its N positions and h has M.

    >>> convolve(jnp.array([1., 0.5, 1., 1.]), jnp.array([1., 0.5, 0.25]))
    Array([1.   , 1.   , 1.5  , 1.625, 0.75 , 0.25 ], dtype=float32)

    Parameters
    ----------
    x, h : arrays of the same number of dimensions, 0 included
        Mixed dtypes are promoted as `jnp.result_type` says. Integers stay integers and wrap
        around; booleans give the logical "or" of "and"s, or counts of a `preferred_element_type`.
    mode : 'full' | 'same' | 'valid'
        The extent of the output and its alignment, per axis: 'full' has N + M - 1 positions
        (centre 0), 'same' N (centre (M-1)//2), 'valid' |N - M| + 1, those where the shorter
        array lies inside the longer.
    method : 'auto', the name of an engine, or a mapping from pass to one of these; or 'separable'
        How to compute it, and its derivatives: the passes are 'forward', 'input' and 'kernel'; the
        engines are 'direct', 'shifts', 'gemm', 'winograd', 'fft' and 'overlap'. A forced method is
        honoured, or refused with a reason. 'separable' runs along one axis after the other, for a
        kernel that is a sum of few outer products and a NumPy array, whose values are known when the
        function is traced; 'auto' does so where it pays. 'auto' takes the cheapest that
        `accuracy` admits: often the FFT for long kernels, whose error is relative to the largest
        values of x, and which spreads a NaN of x everywhere.
    boundary : 'constant' | 'reflect' | 'mirror' | 'nearest' | 'wrap'
        What lies outside x in modes 'full' and 'same', by `scipy.ndimage`'s names; the default
        is zeros. The extension repeats, so h may be longer than x.
    origin : int or one int per axis
        In mode 'same', moves the centre inside the kernel.
    accuracy : 'normwise' | 'elementwise'
        'elementwise' admits only engines whose error is bounded element by element and that keep
        a NaN of x local: no FFT.
    precision, preferred_element_type
        As in `jax.lax.conv_general_dilated`.

    Returns
    -------
    Array
        Where an axis of x or h is empty, so is it in modes 'full' and 'valid'.

    Raises
    ------
    ValueError
        Different numbers of dimensions, unknown names, shapes that 'valid' does not admit, a
        method that refuses.
    TypeError
        An argument that is not an array of numbers.

    Differs from SciPy: `fft` refuses integers (it rounds) instead of rounding its result;
    empty inputs give empty outputs where SciPy raises.

    Source: scipy.signal.convolve; Oppenheim and Schafer, Discrete-Time Signal Processing, 2.3.
    """
    return _apply(
        "jaxconv.convolve", True, x, h, mode, method, boundary, origin, accuracy, precision, preferred_element_type
    )


def correlate(
    x: ArrayLike,
    h: ArrayLike,
    mode: str = "full",
    method: Method = "auto",
    *,
    boundary: str = "constant",
    origin: int | Sequence[int] = 0,
    accuracy: Accuracy = "normwise",
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """Cross-correlate two N-dimensional arrays, as `scipy.signal.correlate` does.

        y[o] = sum over k of x[o + k - centre] * conj(h[k])

    along every axis, where x is 0 outside its N positions and h has M.

    >>> correlate(jnp.array([1., 2., 3.]), jnp.array([0., 1., 0.5]))
    Array([0.5, 2. , 3.5, 3. , 0. ], dtype=float32)

    The gradient in x is the convolution with the same kernel, that in h the correlation
    of x with the gradient of y:

    >>> x, h, dy = jnp.arange(5.), jnp.array([1., 2., 4.]), jnp.array([1., -1., 2.])
    >>> dx, dh = jax.vjp(lambda x, h: correlate(x, h, "valid"), x, h)[1](dy)
    >>> bool((dx == convolve(dy, h)).all()), bool((dh == correlate(x, dy, "valid")).all())
    (True, True)

    Parameters and errors are those of `convolve`, but for the alignment: 'full' has
    N + M - 1 positions (centre M-1: the lags from -(M-1) to N-1), 'same' N (centre M//2),
    'valid' |N - M| + 1. h is conjugated where it is complex. Returns an Array; raises ValueError
    and TypeError as `convolve` does.

    Source: scipy.signal.correlate.
    """
    return _apply(
        "jaxconv.correlate", False, x, h, mode, method, boundary, origin, accuracy, precision, preferred_element_type
    )


def _apply(call, flip: bool, x, h, mode, method, boundary, origin, accuracy, precision, preferred) -> Array:
    forced = isinstance(method, str) and method == "separable"
    wishes = parse_wishes(call, "auto" if forced else method, accuracy, precision, others=("separable",))
    x, h = as_array(call, "x", x), as_array(call, "h", h)
    mode, boundary, origin = (
        frozen(call, "mode", mode),
        frozen(call, "boundary", boundary),
        frozen(call, "origin", origin),
    )
    static = call, flip, mode, boundary, origin, frozen(call, "preferred_element_type", preferred), wishes
    # Only small kernels are tried unasked: singular values of a large one would take longer than they save.
    tried = wishes.forward == "auto" and isinstance(h, np.ndarray) and h.ndim > 1 and h.size <= TRIED
    if forced and not isinstance(h, np.ndarray):
        raise ValueError(
            f"`{call}` got method='separable' and h of type {type(h).__name__}: the kernel must be known when the "
            "function is traced. Pass a NumPy array, and under `jax.jit` not as an argument."
        )
    return _of_known(x, h, *static, forced) if forced or tried else _sum(x, h, *static)


# A NumPy array's values are known when the program is traced, so it may be a short sum of outer products.
def _of_known(
    x, h: np.ndarray, call, flip: bool, mode, boundary, origin, preferred, wishes: Wishes, forced: bool
) -> Array:
    floating = jnp.issubdtype(h.dtype, jnp.inexact) and jnp.issubdtype(common_dtype(call, x, h), jnp.inexact)
    found = separable.terms(h if flip else h.conj(), wishes.accuracy) if floating and h.size and h.ndim else None
    if found is None and forced:
        raise ValueError(
            f"`{call}` got method='separable' and h of {described(h)}: it must be a sum of outer products, of floating "
            "or complex numbers, within the bound of `accuracy`. Pass method='auto'."
        )
    known = (h, found) if found else h
    return _sum(x, known, call, flip, mode, boundary, origin, preferred, wishes, forced)


@partial(jax.jit, static_argnums=range(2, 10), inline=True)
def _sum(
    x: Array, h, call, flip: bool, mode, boundary, origin, preferred, wishes: Wishes, forced: bool = False
) -> Array:
    h, terms = h if isinstance(h, tuple) else (h, None)
    if x.ndim != h.ndim:
        raise ValueError(
            f"`{call}(x, h)` got x of {described(x)} and h of {described(h)}: both must have the same number of "
            "dimensions. Add axes of length 1 with `jnp.expand_dims`, or map over a batch with `jax.vmap`."
        )
    axes = mode_axes(call, x.shape, h.shape, mode, flip, origin)
    dtype = common_dtype(call, x, h)
    logical = dtype == jnp.bool_ and preferred is None
    dtype = jnp.dtype(jnp.int32) if dtype == jnp.bool_ else dtype
    out = output_dtype(call, dtype, preferred)

    x = x.astype(dtype)
    x, axes = extend(call, x, axes, boundary, outside=mode != "valid")
    problem = Problem(axes, dtypes=Triple(dtype.name, dtype.name, out.name))
    x = x.reshape(problem.x_shape)
    if terms and (forced or separable.pays(problem, terms, wishes, jax.default_backend())):
        y = separable.contract_terms(problem, x, terms, wishes)
    else:
        w = h.astype(dtype)
        y = contract(problem, x, (w if flip else jnp.conj(w)).reshape(problem.w_shape), wishes)
    y = y.reshape([axis.O for axis in axes])
    return y != 0 if logical else y
