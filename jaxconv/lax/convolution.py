"""Layers with jax.lax's signatures and meaning: strides, pads, dilations, groups."""

from collections.abc import Sequence

from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import as_array
from jaxconv.lax.base import DimensionNumbers, Padding, correlated
from jaxconv.planner import Accuracy, Method, Precision, options_of


def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: NamedSharding | PartitionSpec | None = None,
    *,
    flip_kernel: bool = False,
    method: Method = "auto",
    accuracy: Accuracy = "normwise",
) -> Array:
    """Correlate a batch of inputs with kernels: `jax.lax.conv_general_dilated`.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where L*i + p = S*o + D*k

    with L the lhs_dilation, S the window_strides, D the rhs_dilation, p the low padding. With
    `flip_kernel` the kernel stands turned round: D is negative, and the layer is a convolution.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(5.).reshape(1, 1, 5)
    >>> conv_general_dilated(x, jnp.array([[[1., 0., -1.]]]), (1,), "SAME")
    Array([[[-1., -2., -2., -2.,  3.]]], dtype=float32)
    >>> conv_general_dilated(x, jnp.array([[[1., 0., -1.]]]), (1,), "SAME", flip_kernel=True)
    Array([[[ 1.,  2.,  2.,  2., -3.]]], dtype=float32)

    Parameters
    ----------
    lhs, rhs : arrays of one rank, d + 2, and one dtype
        Input and kernel; their axes are as `dimension_numbers` says, by default
        (batch, feature, spatial...) and (out feature, in feature, spatial...).
    window_strides, lhs_dilation, rhs_dilation : d positive ints
    padding : 'SAME' | 'SAME_LOWER' | 'VALID' | d pairs (low, high)
        Negative pads crop.
    dimension_numbers : None | three strings such as ('NHWC', 'HWIO', 'NHWC') | ConvDimensionNumbers
    feature_group_count, batch_group_count : positive ints, at most one above 1
        Groups of features, or of the batch, that meet groups of output features.
    precision : None | jax.lax.Precision or its name | a pair of them
    preferred_element_type : the dtype in which to sum and to return
    out_sharding : the output's sharding
        In explicit sharding mode it is by default the input's along the batch and the kernel's along
        the output features; elsewhere it is a constraint.
    flip_kernel : bool
    method : 'auto' | 'direct' | 'shifts' | 'gemm' | 'winograd' | 'fft' | 'overlap', or a mapping from pass to one
    accuracy : 'normwise' | 'close' | 'elementwise'
        As in `jaxconv.convolve`.

    Returns
    -------
    Array
        Of the output's axes as `dimension_numbers` says, O = (L*(I-1)+1 + low + high - D*(K-1)-1) // S + 1
        positions along each spatial one; float32 sums of the half types are rounded to their own.

    Raises
    ------
    ValueError, TypeError
        As in lax, for ranks, groups, features, strides, pads and dtypes that do not fit; also for
        names that do not exist and a method that refuses.

    Static under `jax.jit`: everything but lhs and rhs.

    Source: jax.lax.conv_general_dilated; XLA operation semantics, Conv.
    """
    call = "jaxconv.lax.conv_general_dilated"
    options = options_of(call, method, accuracy, precision)
    return correlated(
        as_array(call, "lhs", lhs), as_array(call, "rhs", rhs), call=call, options=options,
        window_strides=window_strides,
        padding=padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation, dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count, batch_group_count=batch_group_count,
        preferred_element_type=preferred_element_type, out_sharding=out_sharding, flip_kernel=bool(flip_kernel),
    )  # fmt: skip


def conv(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: str,
    precision: Precision = None, preferred_element_type: DTypeLike | None = None,
    *, method: Method = "auto", accuracy: Accuracy = "normwise",
) -> Array:  # fmt: skip
    """Correlate with strides and a padding, as `jax.lax.conv`.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where i + p = S*o + k

    lhs is (batch, feature, spatial...), rhs (out feature, in feature, spatial...). Arguments are those of
    `conv_general_dilated`. Returns an Array; raises as `conv_general_dilated`. Static under `jax.jit`: everything but
    lhs and rhs. Source: jax.lax.

    >>> import jax.numpy as jnp
    >>> conv(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 3)), (1,), "VALID")
    Array([[[3., 3.]]], dtype=float32)
    """
    return conv_general_dilated(
        lhs, rhs, window_strides, padding,
        precision=precision, preferred_element_type=preferred_element_type, method=method, accuracy=accuracy,
    )  # fmt: skip


def conv_with_general_padding(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: Padding,
    lhs_dilation: Sequence[int] | None, rhs_dilation: Sequence[int] | None,
    precision: Precision = None, preferred_element_type: DTypeLike | None = None,
    *, method: Method = "auto", accuracy: Accuracy = "normwise",
) -> Array:  # fmt: skip
    """Correlate with strides, pads and dilations, as `jax.lax.conv_with_general_padding`.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where L*i + p = S*o + D*k

    lhs is (batch, feature, spatial...), rhs (out feature, in feature, spatial...). Arguments are those of
    `conv_general_dilated`. Returns an Array; raises as `conv_general_dilated`. Static under `jax.jit`: everything but
    lhs and rhs. Source: jax.lax.

    >>> import jax.numpy as jnp
    >>> conv_with_general_padding(jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2)), (1,), [(1, 1)], (2,), None)
    Array([[[1., 1., 1., 1.]]], dtype=float32)
    """
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation,
        precision=precision, preferred_element_type=preferred_element_type, method=method, accuracy=accuracy,
    )  # fmt: skip
