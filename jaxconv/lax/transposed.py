"""The fractionally strided layer of jax.lax, with groups and output padding."""

from collections.abc import Sequence
from dataclasses import replace

from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import as_array, described, integers, once_per_signature, positive
from jaxconv.lax.base import (
    DimensionNumbers,
    Padding,
    contract_layer,
    dimension_numbers_of,
    problem_of,
    spatial_of,
)
from jaxconv.padding import lax_axes, pairs
from jaxconv.planner import Accuracy, Method, Options, Precision, options_of


def conv_transpose(
    lhs: ArrayLike,
    rhs: ArrayLike,
    strides: Sequence[int],
    padding: Padding,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    transpose_kernel: bool = False,
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
    *,
    feature_group_count: int = 1,
    output_padding: Sequence[int] | None = None,
    flip_kernel: bool = False,
    method: Method = "auto",
    accuracy: Accuracy = "normwise",
) -> Array:
    """The fractionally strided layer, as `jax.lax.conv_transpose`.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where S*i + p = o + D*k

    Is it the adjoint of the strided layer? Only with `transpose_kernel=True`, which flips the
    kernel and exchanges its feature axes (so the kernel is given as that layer has it); by default it is not.
    The adjoint of `conv_general_dilated` with these strides, names of padding or pairs with
    `use_consistent_padding`, and groups returns that layer's input, up to the last positions that
    the stride leaves over: `output_padding` adds them.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([1., 2.]).reshape(1, 2, 1)
    >>> conv_transpose(x, jnp.array([1., 10., 100.]).reshape(3, 1, 1), (2,), "VALID").ravel()
    Array([100.,  10., 201.,  20.,   2.], dtype=float32)
    >>> conv_transpose(x, jnp.array([1., 10., 100.]).reshape(3, 1, 1), (2,), "VALID",
    ...                transpose_kernel=True).ravel()
    Array([  1.,  10., 102.,  20., 200.], dtype=float32)

    Parameters
    ----------
    lhs, rhs : arrays of one rank, d + 2, and one dtype
        By default channels last: (batch, spatial..., feature) and (spatial..., in, out).
    strides, rhs_dilation : d positive ints
    padding : 'SAME' | 'VALID' | d pairs (low, high)
        Names pad the layer that this one transposes. Pairs pad the dilated input, unless
        `use_consistent_padding`, when they too pad the layer that this one transposes.
    transpose_kernel : bool
    feature_group_count : positive int
        Groups of features. The kernel has in/groups and out features, or, with `transpose_kernel`, what the
        layer has whose adjoint this is: out/groups and in.
    output_padding : None | d ints, 0 <= output_padding < max(stride, dilation)
        As many positions more at the end of each output axis.
    flip_kernel : bool
        Turns the kernel round (once more, with `transpose_kernel`), and leaves its feature axes where they are.
    dimension_numbers, precision, preferred_element_type, method, accuracy
        As in `conv_general_dilated`.

    Returns an Array of `dimension_numbers`' axes, as many positions as the formula's o.

    Raises
    ------
    ValueError, TypeError
        As `conv_general_dilated`; and ValueError for more than 3 spatial axes without
        dimension_numbers.

    Static under `jax.jit`: everything but lhs and rhs.

    Source: jax.lax.conv_transpose; Dumoulin and Visin, A guide to convolution arithmetic, 2016.
    """
    call = "jaxconv.lax.conv_transpose"
    options = options_of(call, method, accuracy, precision)
    return _correlate_transpose(
        as_array(call, "lhs", lhs), as_array(call, "rhs", rhs), call=call, options=options,
        strides=strides, padding=padding,
        rhs_dilation=rhs_dilation, dimension_numbers=dimension_numbers, transpose_kernel=bool(transpose_kernel),
        preferred_element_type=preferred_element_type, use_consistent_padding=bool(use_consistent_padding),
        feature_group_count=feature_group_count, output_padding=output_padding, flip_kernel=bool(flip_kernel),
    )  # fmt: skip


@once_per_signature
def _correlate_transpose(
    lhs: Array, rhs: Array, *, call: str, options: Options, strides, padding, rhs_dilation, dimension_numbers,
    transpose_kernel: bool, preferred_element_type, use_consistent_padding: bool, feature_group_count,
    output_padding, flip_kernel: bool,
) -> Array:  # fmt: skip
    if dimension_numbers is None:
        spatial = {2: "", 3: "H", 4: "HW", 5: "HWD"}.get(lhs.ndim)
        if spatial is None:
            raise ValueError(
                f"`{call}` got lhs of {described(lhs)} without dimension_numbers: there is a default for at most 3 "
                "spatial axes. Pass three strings such as ('NHWC', 'HWIO', 'NHWC')."
            )
        dimension_numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    dims = dimension_numbers_of(call, lhs, rhs, dimension_numbers)
    kernel = spatial_of(rhs, dims.rhs_spec)
    ones = (1,) * len(kernel)
    S = integers(call, "strides", strides, len(kernel), least=1)
    D = integers(call, "rhs_dilation", ones if rhs_dilation is None else rhs_dilation, len(kernel), least=1)
    groups = positive(call, "feature_group_count", feature_group_count)
    if (
        isinstance(padding, str)
        and padding not in ("SAME", "VALID")
        and (use_consistent_padding or max(S, default=1) > 1)
    ):
        raise ValueError(
            f"`{call}` got padding={padding!r} with strides={S}: the names are 'SAME' and 'VALID'. "
            "Pass one of them, or a (low, high) pair for each spatial axis."
        )
    if padding in ("SAME", "VALID") or use_consistent_padding:
        forms = [padding] * len(kernel) if isinstance(padding, str) else pairs(call, padding, len(kernel))
        padding = [_transposed_pads(d * (k - 1) + 1, s, f) for k, s, d, f in zip(kernel, S, D, forms, strict=True)]
    extras = integers(call, "output_padding", output_padding or (0,) * len(kernel), len(kernel))
    if any(not 0 <= extra < max(s, d) for extra, s, d in zip(extras, S, D, strict=True)):
        raise ValueError(
            f"`{call}` got output_padding={output_padding!r} with strides={S} and rhs_dilation={D}: each entry must be "
            "at least 0 and less than the stride or the dilation. Pass how many positions the layer's stride left over."
        )
    axes = tuple(
        replace(axis, O=axis.O + extra)
        for axis, extra in zip(
            lax_axes(call, spatial_of(lhs, dims.lhs_spec), kernel, ones, padding, S, D), extras, strict=True
        )
    )
    if transpose_kernel != flip_kernel:
        axes = tuple(axis.kernel_flipped for axis in axes)
    if transpose_kernel:
        out, feature, *spatial = dims.rhs_spec
        dims = dims._replace(rhs_spec=(feature, out, *spatial))
    problem, shape = problem_of(
        call, lhs, rhs, dims, axes, groups, 1, preferred_element_type, transposed=transpose_kernel
    )
    return contract_layer(call, lhs, rhs, problem, shape, options, None, preferred_element_type)


# The pads of the dilated input that undo those of a layer with kernel extent k (dilated)
# and stride s. 'SAME' gives an output of s times the input.
def _transposed_pads(k: int, s: int, form: str | tuple[int, int]) -> tuple[int, int]:
    match form:
        case "SAME":
            total = k + s - 2
            low = k - 1 if s > k - 1 else -(-total // 2)
            return low, total - low
        case "VALID":
            return k - 1, max(k, s) - 1
        case (int(low), int(high)):
            return k - 1 - low, k - 1 - high
    raise AssertionError(form)
