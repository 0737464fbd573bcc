"""What the filters share: arguments made ready, the one sum, the types that SciPy's results have."""

import operator
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxconv.along import contract_along, known_terms
from jaxconv.arguments import ArgumentError, as_array, axis_indices, described, frozen, is_integer, promoted
from jaxconv.padding import BOUNDARIES, extend
from jaxconv.planner import Accuracy, Method, Precision, Wishes, parse_wishes
from jaxconv.problem import Axis, Triple

Mode = str | Sequence[str]


class How(TypedDict, total=False):
    """How to compute, as in `jaxconv.convolve`: which engine, how exactly, at which precision."""

    method: Method
    accuracy: Accuracy
    precision: Precision


class _Filter(NamedTuple):
    """What a call asks for besides its arrays; hashable, so that it is static under `jax.jit`."""

    call: str
    flip: bool
    axes: tuple[int, ...]
    mode: str
    centres: tuple[int, ...]
    dtype: str
    wishes: Wishes
    forced: bool = False  # method='separable'


def filtered1d(call: str, flip: bool, input, weights, axis, output, mode, cval, origin, how: How) -> Array:
    if not is_integer(axis) or not is_integer(origin):
        raise TypeError(
            f"`{call}` got axis={axis!r} and origin={origin!r}: both must be integers. Pass the axis' position and, to "
            "move the weights, a whole number."
        )
    weights = as_array(call, "weights", weights)
    if np.ndim(weights) != 1 or not np.size(weights):
        raise ArgumentError(
            f"`{call}` got weights of shape {np.shape(weights)}: no filter weights given along one axis. "
            "Pass a one-dimensional array with at least one entry."
        )
    return filtered(call, flip, input, weights, axis, output, mode, cval, origin, how)


def filtered(call: str, flip: bool, input, weights, axes, output, mode, cval, origin, how: How) -> Array:
    image, dtype = image_of(call, input, output)
    weights, cval = as_array(call, "weights", weights), as_array(call, "cval", cval)
    given = axes_of(call, axes, image.ndim)
    if np.ndim(weights) != len(given) or 0 in np.shape(weights):
        raise ArgumentError(
            f"`{call}` got weights of shape {np.shape(weights)} for an input of {described(image)}: "
            f"weights.ndim ({np.ndim(weights)}) must match len(axes) ({len(given)}), and no axis may be empty. Change "
            "`weights` or `axes`."
        )
    mode = frozen(call, "mode", mode)
    if not isinstance(mode, str) or mode not in BOUNDARIES:
        sequence = "" if isinstance(mode, str) else " A sequence of modes is not supported here."
        raise ArgumentError(
            f"`{call}` got mode={mode!r}: boundary mode not supported.{sequence} The modes are "
            f"{', '.join(map(repr, BOUNDARIES))}: pass one of them."
        )
    # As SciPy: the weights' axes are the filtered ones in ascending order.
    along = tuple(sorted(given))
    origins = dict(by_axis(given, image.ndim, each(call, "origin", origin, len(given))))
    centres = []
    for d, m in zip(along, np.shape(weights), strict=True):
        centre = m // 2 + operator.index(origins[d]) if is_integer(origins[d]) else -1
        if not 0 <= centre < m:
            raise ValueError(
                f"`{call}` got origin={origin!r} for weights of length {m}: Invalid origin; it must be an integer, "
                f"{-(m // 2)} <= origin <= {(m - 1) // 2}. Pass one inside the weights."
            )
        centres.append(centre)
    weights, dtype = _typed(call, image, weights, cval, dtype, output is not None)
    weights = weights if flip else weights.conj()
    forced = how.get("method") == "separable"
    wishes = _wishes(call, how | {"method": "auto"} if forced else how)
    terms = known_terms(call, weights, wishes, forced)
    static = _Filter(call, flip, along, mode, tuple(centres), dtype.name, wishes, forced)
    return _apply(image, weights, terms, None if _is_zero(cval) else cval, static)


# In correlation i = o + k - centre, in convolution i = o - k + centre.
@partial(jax.jit, static_argnums=4, inline=True)
def _apply(image: Array, weights: Array, terms, cval: Array | None, static: _Filter) -> Array:
    relations: list[Axis | None] = [None] * image.ndim
    for d, m, centre in zip(static.axes, weights.shape, static.centres, strict=True):
        size = image.shape[d]
        relations[d] = Axis(size, m, size, D=-1 if static.flip else 1, p=-centre if static.flip else centre)
    summed = weights.dtype
    fill = None if cval is None else cast(jnp.asarray(cval), summed)
    x, axes = extend(static.call, image.astype(summed), relations, static.mode, value=fill)
    others = [d for d in range(image.ndim) if d not in static.axes]
    w = jnp.expand_dims(weights, others)
    types = Triple(summed.name, summed.name, summed.name)
    y = contract_along(static.call, x, w, axes, types, static.wishes, terms, static.forced)
    return cast(y, jnp.dtype(static.dtype))


def image_of(call: str, input, output) -> tuple[Array, np.dtype]:
    """The image, and the dtype of what is made of it."""
    image = jnp.asarray(as_array(call, "input", input))
    if output is None:
        return image, image.dtype
    if isinstance(output, np.ndarray | jax.Array):
        raise TypeError(
            f"`{call}` got an array for output: JAX arrays cannot be written to. Pass a dtype, and take the result."
        )
    try:
        dtype = jnp.empty((), output).dtype
        if not jnp.issubdtype(dtype, np.number) and dtype != np.bool_:
            raise TypeError
    except TypeError as e:
        raise ArgumentError(
            f"`{call}` got output={output!r}: output must have numeric dtype. Pass one, or leave it out."
        ) from e
    return image, complex_of(call, dtype, True) if jnp.iscomplexobj(image) else dtype


# Sums of integers are made in the output's type, where all takes part in them is integer: modulo
# 2**bits that is what SciPy's conversion leaves. All else is summed in a floating type.
def _typed(call: str, image: Array, weights, cval, dtype: np.dtype, given: bool) -> tuple[Any, np.dtype]:
    """The weights in the type of the sums, and the dtype of the result."""
    is_complex = jnp.iscomplexobj(image) or jnp.iscomplexobj(weights)
    if jnp.iscomplexobj(cval) and not jnp.iscomplexobj(image):
        raise ValueError(
            f"`{call}` got cval={cval!r} and an input of {described(image)}: a complex cval needs a complex input. "
            "Convert the input with `.astype(complex)`, or pass a real cval."
        )
    if np.size(cval) != 1:
        raise ValueError(f"`{call}` got cval of shape {np.shape(cval)}: it must be one number. Pass a scalar.")
    if is_complex:
        dtype = complex_of(call, dtype, given)
    whole = [jnp.result_type(a) for a in (image, weights)] + [dtype]
    if not any(jnp.issubdtype(t, jnp.inexact) for t in whole) and is_whole(cval):
        summed = jnp.dtype(jnp.int32) if dtype == np.bool_ else dtype
    else:
        # Integers are summed in the widest floating type, floating images in their own; no narrower than the result.
        summed = image.dtype if jnp.issubdtype(image.dtype, jnp.inexact) else jnp.result_type(float)
        if jnp.issubdtype(dtype, jnp.inexact):
            summed = promoted(summed, dtype)
        if is_complex:
            summed = promoted(summed, jnp.complex64)
    if isinstance(weights, np.ndarray) and not jnp.issubdtype(summed, jnp.complexfloating):
        return weights.real.astype(summed), dtype
    return (weights if isinstance(weights, np.ndarray) else jnp.asarray(weights)).astype(summed), dtype


def complex_of(call: str, dtype: np.dtype, given: bool) -> np.dtype:
    """The complex dtype for a real one, with a warning if that was asked for."""
    if jnp.issubdtype(dtype, np.complexfloating):
        return dtype
    if given:
        warnings.warn(f"`{call}`: promoting specified output dtype to complex", stacklevel=5)
    if jnp.issubdtype(dtype, np.integer):  # as NumPy: the wider integers to complex128, where there is one
        return jax.dtypes.canonicalize_dtype(np.promote_types(dtype, np.complex64))
    return promoted(dtype, jnp.complex64)


def _is_zero(cval) -> bool:
    return not isinstance(cval, jax.Array) and bool(np.all(np.asarray(cval) == 0))


def is_whole(cval) -> bool:
    if isinstance(cval, jax.Array):
        return not jnp.issubdtype(cval.dtype, jnp.inexact)
    return bool(np.all(np.asarray(cval) == np.floor(np.real(cval))))


def cast(y: Array, dtype: np.dtype) -> Array:
    """y in a dtype, by NumPy's rules: toward zero and modulo 2**bits (XLA would saturate)."""
    whole = jnp.issubdtype(dtype, np.integer) or dtype == np.bool_
    if whole and jnp.issubdtype(y.dtype, jnp.inexact):
        signed = y.astype(jnp.result_type(int))
        y = jnp.where(y > 0, y.astype(dtype), signed.astype(dtype)) if dtype == np.uint32 else signed
    return y != 0 if dtype == np.bool_ else y.astype(dtype)


def _wishes(call: str, how: How) -> Wishes:
    if unknown := set(how) - set(How.__annotations__):
        raise TypeError(
            f"`{call}` got the keywords {sorted(unknown)}: besides SciPy's there are {sorted(How.__annotations__)}. "
            "Correct the name."
        )
    # As SciPy's, every sum is a direct one by default: exact where it can be, and a NaN stays where it is.
    accuracy = how.get("accuracy", "elementwise")
    return parse_wishes(call, how.get("method", "auto"), accuracy, how.get("precision"), ("separable",))


def axes_of(call: str, axes, rank: int) -> tuple[int, ...]:
    return tuple(range(rank)) if axes is None else axis_indices(call, "axes", frozen(call, "axes", axes), rank)


def by_axis(given: tuple[int, ...], rank: int, values: list) -> list[tuple[int, Any]]:
    """(axis, value) by axis. As SciPy, the values belong to the axes as given; but to all axes in their order."""
    return sorted(zip(sorted(given) if len(given) == rank else given, values, strict=True), key=lambda pair: pair[0])


def each(call: str, name: str, value, count: int) -> list:
    """One entry for each of `count` axes, of one value or of a sequence."""
    if isinstance(value, str) or (not isinstance(value, list | tuple) and np.ndim(value) == 0):
        return [value] * count
    if len(value) != count:
        raise ArgumentError(
            f"`{call}` got {name}={value!r}: sequence argument must have length equal to input rank, or to the "
            f"number of axes, {count}. Pass one value, or {count}."
        )
    return list(value)
