"""Patches: what the kernel sees at each output position, and their sum back into an image.

Along one axis, `patches` holds x at the i that meets each pair of o and k; `fold` adds each pair's entry
to that i. Each is the other's transpose, and neither multiplies: no zero meets a NaN.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.lax import ConvDimensionNumbers
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import as_array, described, integers, once_per_signature, output_dtype, promoted
from jaxconv.engines.base import pairwise
from jaxconv.lax.base import DimensionNumbers, Padding, dimension_numbers_of, steps_of
from jaxconv.padding import lax_axes
from jaxconv.planner import Precision, options_of
from jaxconv.problem import Axis


def conv_general_dilated_patches(
    lhs: ArrayLike,
    filter_shape: Sequence[int],
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """The patches of an image that a kernel sees (unfold, im2col), as `jax.lax.conv_general_dilated_patches`.

        y[n, (c, k), o] = x[n, c, i]   where L*i + p = S*o + D*k, and 0 where no i does

    >>> conv_general_dilated_patches(jnp.arange(1., 5.).reshape(1, 1, 4), (2,), (1,), "VALID")
    Array([[[1., 2., 3.],
            [2., 3., 4.]]], dtype=float32)

    Parameters
    ----------
    lhs : array of rank d + 2
    filter_shape : d ints, 0 or more
        The kernel's extent.
    window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
        As in `conv_general_dilated`.
    precision
        Accepted, and not needed: nothing is multiplied.
    preferred_element_type : dtype of the result

    Returns
    -------
    Array
        With C * prod(filter_shape) features, the input's feature outermost.

    Raises
    ------
    ValueError, TypeError
        As `conv_general_dilated`.

    Static under `jax.jit`: everything but lhs.

    Differs from lax: an entry that is not finite stays in its own place (lax multiplies it with zeros).

    Source: jax.lax.conv_general_dilated_patches.
    """
    call = "jaxconv.lax.conv_general_dilated_patches"
    lhs = as_array(call, "lhs", lhs)
    options_of(call, precision=precision)
    layer = _Layer(filter_shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers)
    return _patches(lhs, call=call, layer=layer, preferred=preferred_element_type)


def fold(
    patches: ArrayLike,
    shape: Sequence[int],
    filter_shape: Sequence[int],
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
) -> Array:
    """Sum patches back to where they came from (col2im): the transpose of `conv_general_dilated_patches`.

        x[n, c, i] = sum over o and k with L*i + p = S*o + D*k of y[n, (c, k), o]

    >>> y = conv_general_dilated_patches(jnp.ones((1, 1, 4)), (2,), (1,), "VALID")
    >>> fold(y, (1, 1, 4), (2,), (1,), "VALID")
    Array([[[1., 2., 2., 1.]]], dtype=float32)

    Parameters
    ----------
    patches : array as `conv_general_dilated_patches` returns
    shape : d + 2 ints
        The image's shape, its axes in the order that `dimension_numbers` gives the input.
    filter_shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
        As they were for the patches.

    Returns
    -------
    Array
        Of that shape; integers are summed exactly, modulo 2**bits.

    Raises
    ------
    ValueError
        Patches of another shape than an image of that shape has, and what `conv_general_dilated` refuses.

    Static under `jax.jit`: everything but patches.

    Source: ONNX's Col2Im; torch.nn.functional.fold.
    """
    call = "jaxconv.lax.fold"
    patches = as_array(call, "patches", patches)
    layer = _Layer(filter_shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers)
    return _fold(patches, call=call, shape=shape, layer=layer)


def conv_general_dilated_local(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Padding,
    filter_shape: Sequence[int],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    precision: Precision = None,
) -> Array:
    """A layer with a kernel of its own at every output position, as `jax.lax.conv_general_dilated_local`.

        y[n, m, o] = sum over c and k of x[n, c, i] * w[m, (c, k), o]   where L*i + p = S*o + D*k

    >>> x, w = jnp.arange(1., 5.).reshape(1, 1, 4), jnp.array([[[1., 0., 0.], [0., 1., 1.]]])
    >>> conv_general_dilated_local(x, w, (1,), "VALID", (2,))
    Array([[[1., 3., 4.]]], dtype=float32)

    Parameters
    ----------
    lhs : array of rank d + 2
    rhs : array of rank d + 2
        (out features, C * prod(filter_shape), output positions...), in the order that `dimension_numbers`
        gives the kernel.
    window_strides, padding, filter_shape, lhs_dilation, rhs_dilation, dimension_numbers
        As in `conv_general_dilated_patches`.
    precision
        As in `conv_general_dilated`.

    Returns
    -------
    Array

    Raises
    ------
    ValueError, TypeError
        A rhs of another shape, different dtypes, and what `conv_general_dilated` refuses.

    Static under `jax.jit`: everything but lhs and rhs.

    Source: jax.lax.conv_general_dilated_local.
    """
    call = "jaxconv.lax.conv_general_dilated_local"
    lhs, rhs = as_array(call, "lhs", lhs), as_array(call, "rhs", rhs)
    wanted = options_of(call, precision=precision).precision
    layer = _Layer(filter_shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers)
    return _local(lhs, rhs, call=call, precision=wanted, layer=layer)


class _Layer(NamedTuple):
    """How a kernel of that extent stands over an image."""

    filter_shape: Any
    window_strides: Any
    padding: Any
    lhs_dilation: Any
    rhs_dilation: Any
    dimension_numbers: Any

    def arranged(self, call: str, shape: Sequence[int], dtype) -> tuple[ConvDimensionNumbers, tuple[Axis, ...]]:
        """Its dimension numbers and its axes."""
        rank = len(shape)
        kernel = integers(call, "filter_shape", self.filter_shape, rank - 2, least=0)
        image, like = (jax.ShapeDtypeStruct(s, dtype) for s in (shape, (0,) * rank))
        dims = dimension_numbers_of(call, image, like, self.dimension_numbers)
        spatial = [shape[d] for d in dims.lhs_spec[2:]]
        S, L, D = steps_of(call, rank - 2, self.window_strides, self.lhs_dilation, self.rhs_dilation)
        return dims, lax_axes(call, spatial, kernel, S, self.padding, L, D)


@once_per_signature
def _patches(x: Array, *, call: str, layer: _Layer, preferred) -> Array:
    dims, axes = layer.arranged(call, x.shape, x.dtype)
    y = _features_of(x.astype(output_dtype(call, x.dtype, preferred)).transpose(dims.lhs_spec), axes)
    return y.transpose(np.argsort(dims.out_spec))


@once_per_signature
def _fold(y: Array, *, call: str, shape, layer: _Layer) -> Array:
    shape = integers(call, "shape", shape, y.ndim, least=0)
    dims, axes = layer.arranged(call, shape, y.dtype)
    n, c = (shape[d] for d in dims.lhs_spec[:2])
    y_shape = y.shape
    y = y.transpose(dims.out_spec)
    if y.shape != (n, c * prod(axis.K for axis in axes), *(axis.O for axis in axes)):
        wanted = dict(zip(dims.out_spec, (n, c * prod(a.K for a in axes), *(a.O for a in axes)), strict=True))
        raise ValueError(
            f"`{call}` got patches of shape {y_shape}: an image of shape {shape} has patches of shape "
            f"{tuple(wanted[d] for d in range(y.ndim))}. Pass the arguments that the patches were made with."
        )
    return _image_of(y, n, c, axes).transpose(np.argsort(dims.lhs_spec))


@once_per_signature
def _local(x: Array, w: Array, *, call: str, precision, layer: _Layer) -> Array:
    dims, axes = layer.arranged(call, x.shape, x.dtype)
    if x.dtype != w.dtype:
        raise TypeError(
            f"`{call}` got lhs of {described(x)} and rhs of {described(w)}: both must have the same dtype. "
            "Cast one with `.astype(...)`."
        )
    x, given = x.transpose(dims.lhs_spec), w
    w = w.transpose(dims.rhs_spec) if w.ndim == x.ndim else w
    outputs = tuple(axis.O for axis in axes)
    features = x.shape[1] * prod(axis.K for axis in axes)
    if w.ndim != x.ndim or w.shape[1:] != (features, *outputs):
        raise ValueError(
            f"`{call}` got lhs of {described(x)} and rhs of {described(given)}: the kernel must have {features} input "
            f"features (the input's times the filter's entries) and the output's positions {outputs}. Change its shape."
        )
    spatial = tuple(range(2, x.ndim))
    numbers = ((1,), (1,)), (spatial, spatial)
    y = lax.dot_general(_features_of(x, axes), w, numbers, precision=precision)  # positions, n, m
    d = len(spatial)
    return y.transpose(d, d + 1, *range(d)).transpose(np.argsort(dims.out_spec))


# n c i... -> n c k... o...: the taps of the d-th axis are stacked behind those of the axes before it.
def _features_of(x: Array, axes: Sequence[Axis]) -> Array:
    """n, (c, k...), o... of x with the axes n, c, i..."""
    n, c = x.shape[:2]
    shape = n, c * prod(axis.K for axis in axes), *(axis.O for axis in axes)
    if 0 in shape:
        return jnp.zeros(shape, x.dtype)
    for d, axis in enumerate(axes):
        low, high, _ = _pads(axis)
        v = lax.pad(x, jnp.zeros((), x.dtype), _along(x.ndim, 2 + 2 * d, (low, high, axis.L - 1)))
        span = axis.S * (axis.O - 1) + 1
        taps = [lax.slice_in_dim(v, axis.D * k, axis.D * k + span, axis.S, 2 + 2 * d) for k in range(axis.K)]
        x = jnp.stack(taps, 2 + d)
    return x.reshape(shape)


def _image_of(y: Array, n: int, c: int, axes: Sequence[Axis]) -> Array:
    """n, c, i... of y with the axes n, (c, k...), o..."""
    if 0 in y.shape or 0 in (axis.I for axis in axes):
        return jnp.zeros((n, c, *(axis.I for axis in axes)), y.dtype)
    dtype = y.dtype
    summed = promoted(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
    y = y.astype(summed).reshape(n, c, *(axis.K for axis in axes), *(axis.O for axis in axes))
    for d, axis in reversed(list(enumerate(axes))):
        low, high, length = _pads(axis)
        rest, position = length - axis.S * (axis.O - 1) - 1, 2 + 2 * d
        zero = jnp.zeros((), summed)
        taps = [
            lax.pad(tap, zero, _along(tap.ndim, position, (axis.D * k, rest - axis.D * k, axis.S - 1)))
            for k, tap in enumerate(jnp.unstack(y, axis=2 + d))
        ]
        v = lax.pad(pairwise(taps), zero, _along(y.ndim - 1, position, (-low, -high, 0)))
        y = lax.slice_in_dim(v, 0, axis.L * (axis.I - 1) + 1, axis.L, position)
    return y.astype(dtype)


def _pads(axis: Axis) -> tuple[int, int, int]:
    """(low, high, length): the pads of the dilated input, and its length then, that all taps just reach."""
    length = axis.S * (axis.O - 1) + axis.D * (axis.K - 1) + 1
    return axis.p, length - axis.p - (axis.L * (axis.I - 1) + 1 if axis.I else 0), length


def _along(rank: int, axis: int, pads: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return [pads if d == axis else (0, 0, 0) for d in range(rank)]
