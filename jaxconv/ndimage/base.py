"""What the filters share: checked arguments, the sum itself, and the types that SciPy's results have."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxconv.arguments import (
    ArgumentError,
    as_array,
    axis_indices,
    described,
    frozen,
    is_integer,
    once_per_signature,
    per_axis,
    promoted,
)
from jaxconv.batched import convolved, outer_products
from jaxconv.boundary import NDIMAGE
from jaxconv.ndimage import integers
from jaxconv.ndimage.integers import cast, divided, stored
from jaxconv.padding import Centred
from jaxconv.planner import Accuracy, Method, Options, Precision, options_of

Mode = str | Sequence[str]


class How(TypedDict, total=False):
    """How to compute, as in `jaxconv.convolve`: which engine, how exactly, at which precision."""

    method: Method
    accuracy: Accuracy
    precision: Precision


def filtered1d(
    call: str, flip: bool, input, weights, axis, output, mode, cval, origin, how: How, size: int | None = None
) -> Array:
    """The sums along one axis; divided by `size`, if there is one: then the weights are ones."""
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
    return filtered(call, flip, input, weights, axis, output, mode, cval, origin, how, True, size)


def filtered(
    call: str, flip: bool, input, weights, axes, output, mode, cval, origin, how: How, line=False, size=None
) -> Array:
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
    if not isinstance(mode, str) or mode not in NDIMAGE:
        sequence = "" if isinstance(mode, str) else " A sequence of modes is not supported here."
        raise ArgumentError(
            f"`{call}` got mode={mode!r}: boundary mode not supported.{sequence} The modes are "
            f"{', '.join(map(repr, NDIMAGE))}: pass one of them."
        )
    # As SciPy: the weights' axes are the filtered ones in ascending order.
    along = tuple(sorted(given))
    origins = dict(by_axis(given, image.ndim, per_axis(call, "origin", origin, len(given))))
    centres = []
    for d, m in zip(along, np.shape(weights), strict=True):
        centre = m // 2 + operator.index(origins[d]) if is_integer(origins[d]) else -1
        if not 0 <= centre < m:
            raise ValueError(
                f"`{call}` got origin={origin!r} for weights of length {m}: Invalid origin; it must be an integer, "
                f"{-(m // 2)} <= origin <= {(m - 1) // 2}. Pass one inside the weights."
            )
        centres.append(centre)
    summed, dtype = _types(call, image, weights, cval, dtype, output is not None, size is not None)
    options = _options(call, how)
    cval = None if _is_zero(cval) or NDIMAGE[mode].name != "constant" else cval
    if summed is None:
        if options.separable == "always" or options.engines:
            raise ValueError(
                f"`{call}` got method={how.get('method')!r} for a result of {dtype}: integers are summed in SciPy's "
                "order, which is a method of its own. Leave it out, or pass a floating `output`."
            )
        y = integers.summed(call, flip, image, weights, cval, along, centres, mode, line, size, stored(dtype))
        return cast(y, dtype)
    weights = (weights if isinstance(weights, np.ndarray) else jnp.asarray(weights)).astype(summed)
    known = isinstance(weights, np.ndarray) or options.separable == "always"
    terms = outer_products(call, weights, options) if known else None
    return _filtered(
        image, weights, terms, cval,
        call=call, relation=Centred(tuple(centres), flip), options=options, axes=along, mode=mode, dtype=dtype.name,
        size=size,
    )  # fmt: skip


@once_per_signature
def _filtered(
    image: Array, weights: Array, terms, cval: Array | None,
    *, call: str, relation: Centred, options: Options, axes: tuple[int, ...], mode: str, dtype: str, size: int | None,
) -> Array:  # fmt: skip
    fill = None if cval is None else cast(jnp.asarray(cval), weights.dtype)
    w = jnp.expand_dims(weights, [d for d in range(image.ndim) if d not in axes])
    y = convolved(
        image.astype(w.dtype), w, terms, fill, call=call, relation=relation, options=options, axes=axes, boundary=mode
    )
    return cast(y if size is None else divided(y, size), jnp.dtype(dtype))


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


# Where all that takes part in a sum is integer it is made in the result's type: modulo 2**bits that is what SciPy's
# conversion leaves.
def _types(
    call: str, image: Array, weights, cval, dtype: np.dtype, given: bool, mean: bool
) -> tuple[np.dtype | None, np.dtype]:
    """The dtype of the sums, None if they are SciPy's (`integers.summed`), and the dtype of the result."""
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
    if not jnp.issubdtype(dtype, jnp.inexact):
        fractional = any(jnp.issubdtype(jnp.result_type(a), jnp.inexact) for a in (image, weights))
        return (None if mean or fractional or not _is_whole(cval) else stored(dtype)), dtype
    # Integers are summed in the widest floating type, floating images in their own; no narrower than the result.
    own = image.dtype if jnp.issubdtype(image.dtype, jnp.inexact) else jnp.result_type(float)
    least = jnp.complex64 if is_complex else jnp.float32 if mean else dtype
    return promoted(own, dtype, least), dtype


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


def _is_whole(cval) -> bool:
    if isinstance(cval, jax.Array):
        return not jnp.issubdtype(cval.dtype, jnp.inexact)
    return bool(np.all(np.isfinite(cval) & (np.asarray(cval) == np.floor(np.real(cval)))))


def _options(call: str, how: How) -> Options:
    if unknown := set(how) - set(How.__annotations__):
        raise TypeError(
            f"`{call}` got the keywords {sorted(unknown)}: besides SciPy's there are {sorted(How.__annotations__)}. "
            "Correct the name."
        )
    # As SciPy's, every sum is a direct one by default: exact where it can be, and a NaN stays where it is.
    return options_of(call, how.get("method", "auto"), how.get("accuracy", "elementwise"), how.get("precision"), True)


def axes_of(call: str, axes, rank: int) -> tuple[int, ...]:
    return tuple(range(rank)) if axes is None else axis_indices(call, "axes", frozen(call, "axes", axes), rank)


def by_axis(given: tuple[int, ...], rank: int, values: Sequence) -> list[tuple[int, Any]]:
    """(axis, value) by axis. As SciPy, the values belong to the axes as given; but to all axes in their order."""
    return sorted(zip(sorted(given) if len(given) == rank else given, values, strict=True), key=lambda pair: pair[0])
