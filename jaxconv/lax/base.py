"""What lax's functions share: the layer of two lettered arrays, its dimension numbers, its Problem, shardings.

An array of lax's has letters: batch, features, spatial axes. What strides, pads, dilates and groups them comes
through this door.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import ConvDimensionNumbers

from jaxconv.arguments import described, integers, once_per_signature, output_dtype, positive
from jaxconv.padding import lax_axes
from jaxconv.planner import Options
from jaxconv.primitive import contract
from jaxconv.problem import SPATIAL, Axis, Problem, Triple
from jaxconv.sharding import sharded_as

Padding = str | Sequence[tuple[int, int]]
DimensionNumbers = ConvDimensionNumbers | Sequence[str] | None


@once_per_signature
def correlated(
    lhs: Array, rhs: Array, *, call: str, options: Options, window_strides, padding, lhs_dilation, rhs_dilation,
    dimension_numbers, feature_group_count, batch_group_count, preferred_element_type, out_sharding, flip_kernel: bool,
) -> Array:  # fmt: skip
    """`jaxconv.lax.conv_general_dilated` of arrays and options; all else is checked here."""
    dims = dimension_numbers_of(call, lhs, rhs, dimension_numbers)
    extents, kernel = spatial_of(lhs, dims.lhs_spec), spatial_of(rhs, dims.rhs_spec)
    S, L, D = steps_of(call, len(kernel), window_strides, lhs_dilation, rhs_dilation)
    features = positive(call, "feature_group_count", feature_group_count)
    batches = positive(call, "batch_group_count", batch_group_count)
    axes = lax_axes(call, extents, kernel, S, padding, L, D)
    if flip_kernel:
        axes = tuple(axis.kernel_flipped for axis in axes)
    problem, shape = problem_of(call, lhs, rhs, dims, axes, features, batches, preferred_element_type)
    return contract_layer(call, lhs, rhs, problem, shape, options, out_sharding, preferred_element_type)


def steps_of(call: str, rank: int, strides, lhs_dilation=None, rhs_dilation=None) -> list[tuple[int, ...]]:
    """The strides of the output, and the dilations of the input and of the kernel, as positive ints."""
    given = {"window_strides": strides, "lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    return [
        (1,) * rank if value is None and name != "window_strides" else integers(call, name, value, rank, least=1)
        for name, value in given.items()
    ]


def dimension_numbers_of(
    call: str, lhs: Array | jax.ShapeDtypeStruct, rhs: Array | jax.ShapeDtypeStruct, given: DimensionNumbers
) -> ConvDimensionNumbers:
    """The position of (batch or out, feature or in, spatial...) in each array's shape."""
    rank = lhs.ndim
    if rank != rhs.ndim or rank < 2:
        raise ValueError(
            f"`{call}` got lhs of {described(lhs)} and rhs of {described(rhs)}: both must have the same rank, at least "
            "2 (batch, feature, spatial axes...). For plain arrays use `jaxconv.correlate`."
        )
    if given is None:
        return ConvDimensionNumbers(*[tuple(range(rank))] * 3)
    if isinstance(given, ConvDimensionNumbers):
        if not all(sorted(spec) == list(range(rank)) for spec in given):
            raise ValueError(
                f"`{call}` got dimension_numbers={given!r}: each of its three specs must be an order of the axes "
                f"0 to {rank - 1}. Make it with `jax.lax.conv_dimension_numbers`."
            )
        return given
    remedy = "Pass three strings such as ('NHWC', 'HWIO', 'NHWC'), a ConvDimensionNumbers, or None."
    if not isinstance(given, tuple | list) or len(given) != 3 or not all(isinstance(s, str) for s in given):
        raise TypeError(f"`{call}` got dimension_numbers={given!r}: it must be three strings. {remedy}")
    spatial = [letter for letter in given[1] if letter not in "IO"]
    for spec, ends in zip(given, ("NC", "OI", "NC"), strict=True):
        if len(spec) != rank or len(set(spec)) != rank or set(spec) != {*ends, *spatial}:
            raise ValueError(
                f"`{call}` got dimension_numbers={tuple(given)!r} for arrays of rank {rank}: {spec!r} must name every "
                f"axis once, by {ends[0]!r}, {ends[1]!r} and the kernel's spatial letters. {remedy}"
            )
    return ConvDimensionNumbers(
        *(tuple(map(spec.index, [*ends, *spatial])) for spec, ends in zip(given, ("NC", "OI", "NC"), strict=True))
    )


def spatial_of(array: Array, spec: Sequence[int]) -> list[int]:
    return [array.shape[d] for d in spec[2:]]


def problem_of(
    call: str, lhs: Array, rhs: Array, dims: ConvDimensionNumbers, axes: tuple[Axis, ...],
    feature_groups: int, batch_groups: int, preferred, transposed: bool = False,
) -> tuple[Problem, tuple[int, ...]]:  # fmt: skip
    """The Problem, and the shape of the result, in which the group is no axis of its own."""
    if lhs.dtype != rhs.dtype:
        raise TypeError(
            f"`{call}` got lhs of {described(lhs)} and rhs of {described(rhs)}: both must have the same dtype. "
            "Cast one with `.astype(...)`, or use `preferred_element_type` for a wider result."
        )
    if feature_groups > 1 and batch_groups > 1:
        raise ValueError(
            f"`{call}` got feature_group_count={feature_groups} and batch_group_count={batch_groups}: at most one of "
            "the two may be above 1. Map over the other groups with `jax.vmap`."
        )
    groups = max(feature_groups, batch_groups)
    name = "feature_group_count" if feature_groups > 1 else "batch_group_count"
    n, c = (lhs.shape[d] for d in dims.lhs_spec[:2])
    m, cw = (rhs.shape[d] for d in dims.rhs_spec[:2])
    if transposed and cw % feature_groups == 0:  # the kernel's groups are on its other feature axis
        m, cw = m * feature_groups, cw // feature_groups
    rule, remedy = "", f"Change {name} or the shapes."
    if c % feature_groups:
        rule = f"the {c} input features must be a multiple of {name}={groups}"
    elif c // feature_groups != cw:
        rule = f"the input has {c // feature_groups} features in each group, and the kernel {cw}: they must be as many"
        remedy = f"Pass a kernel of {c // feature_groups} input features, or check dimension_numbers."
    elif m % groups:
        rule = f"the kernel's {m} output features must be a multiple of {name}={groups}"
    elif n % batch_groups:
        rule = f"the batch of {n} must be a multiple of {name}={groups}"
    if rule:
        raise ValueError(f"`{call}` got lhs of {described(lhs)} and rhs of {described(rhs)}: {rule}. {remedy}")

    # The group is a letter of its own, in front of the letter that it splits: of the batch
    # (batch groups) or of the input's features (feature groups), and of the output's features.
    batch, feature = ("gn", "c") if batch_groups > 1 else ("n", "gc")
    dtype = jnp.dtype(jnp.int32) if lhs.dtype == jnp.bool_ else lhs.dtype  # booleans are counted
    out = dtype if preferred is None else output_dtype(call, dtype, preferred)
    problem = Problem(
        axes, n=n // batch_groups, g=groups, c=cw, m=m // groups,
        layouts=Triple(
            _layout(dims.lhs_spec, batch, feature),
            _layout(dims.rhs_spec, *(("m", "gc") if transposed else ("gm", "c"))),
            _layout(dims.out_spec, "n", "gm"),
        ),
        dtypes=Triple(dtype.name, dtype.name, out.name),
    )  # fmt: skip
    sizes = dict(zip(dims.out_spec, (problem.n, m, *(axis.O for axis in axes)), strict=True))
    return problem, tuple(sizes[d] for d in range(lhs.ndim))


def _layout(spec: Sequence[int], *ends: str) -> str:
    letters = dict(zip(spec, (*ends, *SPATIAL[: len(spec) - 2]), strict=True))
    return "".join(letters[d] for d in range(len(spec)))


def contract_layer(
    call: str, lhs: Array, rhs: Array, problem: Problem, shape: tuple[int, ...], options: Options, out_sharding,
    preferred,
) -> Array:  # fmt: skip
    logical = lhs.dtype == jnp.bool_ and preferred is None

    def run(lhs, rhs):
        x, w = lhs.astype(problem.dtypes.x), rhs.astype(problem.dtypes.w)
        y = contract(problem, x.reshape(problem.x_shape), w.reshape(problem.w_shape), options).reshape(shape)
        return y != 0 if logical else y

    return run(lhs, rhs) if out_sharding is None else sharded_as(call, out_sharding, run, lhs, rhs)
