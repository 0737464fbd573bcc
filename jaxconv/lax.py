"""jax.lax's convolutions, with their signatures, meaning and errors of jaxconv's own.

`conv_general_dilated` may stand wherever `jax.lax.conv_general_dilated` stands, in a
model (`nnx.Conv(..., conv_general_dilated=jaxconv.lax.conv_general_dilated)`) or in a
program. Three arguments come on top: `flip_kernel`, `method` and `accuracy`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import ConvDimensionNumbers
from jax.sharding import NamedSharding, PartitionSpec, auto_axes, get_abstract_mesh
from jax.typing import ArrayLike, DTypeLike

from jaxconv.arguments import as_array, described, frozen, integers, output_dtype, positive
from jaxconv.padding import lax_axes, pairs
from jaxconv.planner import Accuracy, Method, Precision, Wishes, parse_wishes
from jaxconv.primitive import contract, explicit_axes
from jaxconv.problem import SPATIAL, Axis, Problem, Triple

Padding = str | Sequence[tuple[int, int]]
DimensionNumbers = ConvDimensionNumbers | Sequence[str] | None


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
    accuracy : 'normwise' | 'elementwise'
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

    Source: jax.lax.conv_general_dilated; XLA operation semantics, Conv.
    """
    call = "jaxconv.lax.conv_general_dilated"
    return _layer(
        call, _correlate, lhs, rhs, parse_wishes(call, method, accuracy, precision),
        window_strides=window_strides, padding=padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers, feature_group_count=feature_group_count,
        batch_group_count=batch_group_count, preferred_element_type=preferred_element_type, out_sharding=out_sharding,
        flip_kernel=bool(flip_kernel),
    )  # fmt: skip


def conv(
    lhs: ArrayLike, rhs: ArrayLike, window_strides: Sequence[int], padding: str,
    precision: Precision = None, preferred_element_type: DTypeLike | None = None,
    *, method: Method = "auto", accuracy: Accuracy = "normwise",
) -> Array:  # fmt: skip
    """Correlate with strides and a padding, as `jax.lax.conv`.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where i + p = S*o + k

    lhs is (batch, feature, spatial...), rhs (out feature, in feature, spatial...). Arguments, errors
    and source are those of `conv_general_dilated`.

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

    lhs is (batch, feature, spatial...), rhs (out feature, in feature, spatial...). Arguments, errors
    and source are those of `conv_general_dilated`.

    >>> conv_with_general_padding(jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2)), (1,), [(1, 1)], (2,), None)
    Array([[[1., 1., 1., 1.]]], dtype=float32)
    """
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation,
        precision=precision, preferred_element_type=preferred_element_type, method=method, accuracy=accuracy,
    )  # fmt: skip


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
    method: Method = "auto",
    accuracy: Accuracy = "normwise",
) -> Array:
    """The fractionally strided layer, as `jax.lax.conv_transpose`.

        y[n,m,o] = sum over c and k of x[n,c,i] * w[m,c,k]   where S*i + p = o + D*k

    Is it the adjoint of the strided layer? Only with `transpose_kernel=True`, which flips the
    kernel and exchanges its feature axes; by default it is not.

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
    dimension_numbers, precision, preferred_element_type, method, accuracy
        As in `conv_general_dilated`.

    Raises
    ------
    ValueError, TypeError
        As `conv_general_dilated`; and ValueError for more than 3 spatial axes without
        dimension_numbers.

    Source: jax.lax.conv_transpose; Dumoulin and Visin, A guide to convolution arithmetic, 2016.
    """
    call = "jaxconv.lax.conv_transpose"
    return _layer(
        call, _correlate_transpose, lhs, rhs, parse_wishes(call, method, accuracy, precision),
        strides=strides, padding=padding, rhs_dilation=rhs_dilation, dimension_numbers=dimension_numbers,
        transpose_kernel=bool(transpose_kernel), preferred_element_type=preferred_element_type,
        use_consistent_padding=bool(use_consistent_padding),
    )  # fmt: skip


def _layer(call: str, layer, lhs, rhs, wishes: Wishes, **arguments) -> Array:
    """The layer with its arguments made hashable: all else happens once per signature, in the trace."""
    lhs, rhs = as_array(call, "lhs", lhs), as_array(call, "rhs", rhs)
    return layer(lhs, rhs, call, wishes, *(frozen(call, name, value) for name, value in arguments.items()))


@partial(jax.jit, static_argnums=range(2, 14), inline=True)
def _correlate(
    lhs: Array, rhs: Array, call: str, wishes: Wishes,
    window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
    feature_group_count, batch_group_count, preferred, out_sharding, flip_kernel: bool,
) -> Array:  # fmt: skip
    dims = _dimension_numbers(call, lhs, rhs, dimension_numbers)
    axes = lax_axes(
        call, _spatial(lhs, dims.lhs_spec), _spatial(rhs, dims.rhs_spec),
        window_strides, padding, lhs_dilation, rhs_dilation,
    )  # fmt: skip
    if flip_kernel:
        axes = tuple(axis.kernel_flipped for axis in axes)
    problem, shape = _problem(call, lhs, rhs, dims, axes, feature_group_count, batch_group_count, preferred)
    _check_sharding(call, out_sharding, lhs.ndim)
    return _contract(lhs, rhs, problem, shape, wishes, out_sharding, preferred)


@partial(jax.jit, static_argnums=range(2, 11), inline=True)
def _correlate_transpose(
    lhs: Array, rhs: Array, call: str, wishes: Wishes,
    strides, padding, rhs_dilation, dimension_numbers, transpose_kernel, preferred, use_consistent_padding,
) -> Array:  # fmt: skip
    if dimension_numbers is None:
        spatial = {2: "", 3: "H", 4: "HW", 5: "HWD"}.get(lhs.ndim)
        if spatial is None:
            raise ValueError(
                f"`{call}` got lhs of {described(lhs)} without dimension_numbers: there is a default for at most 3 "
                "spatial axes. Pass three strings such as ('NHWC', 'HWIO', 'NHWC')."
            )
        dimension_numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    dims = _dimension_numbers(call, lhs, rhs, dimension_numbers)
    kernel = _spatial(rhs, dims.rhs_spec)
    ones = (1,) * len(kernel)
    S = integers(call, "strides", strides, len(kernel), least=1)
    D = integers(call, "rhs_dilation", ones if rhs_dilation is None else rhs_dilation, len(kernel), least=1)
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
    axes = lax_axes(call, _spatial(lhs, dims.lhs_spec), kernel, ones, padding, S, D)
    if transpose_kernel:
        axes = tuple(axis.kernel_flipped for axis in axes)
        out, feature, *spatial = dims.rhs_spec
        dims = dims._replace(rhs_spec=(feature, out, *spatial))
    problem, shape = _problem(call, lhs, rhs, dims, axes, 1, 1, preferred)
    return _contract(lhs, rhs, problem, shape, wishes, None, preferred)


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


def _dimension_numbers(call: str, lhs: Array, rhs: Array, given: DimensionNumbers) -> ConvDimensionNumbers:
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


def _spatial(array: Array, spec: Sequence[int]) -> list[int]:
    return [array.shape[d] for d in spec[2:]]


def _problem(
    call: str, lhs: Array, rhs: Array, dims: ConvDimensionNumbers, axes: tuple[Axis, ...],
    feature_groups: int, batch_groups: int, preferred,
) -> tuple[Problem, tuple[int, ...]]:  # fmt: skip
    """The Problem, and the shape of the result, in which the group is no axis of its own."""
    if lhs.dtype != rhs.dtype:
        raise TypeError(
            f"`{call}` got lhs of {described(lhs)} and rhs of {described(rhs)}: both must have the same dtype. "
            "Cast one with `.astype(...)`, or use `preferred_element_type` for a wider result."
        )
    feature_groups = positive(call, "feature_group_count", feature_groups)
    batch_groups = positive(call, "batch_group_count", batch_groups)
    if feature_groups > 1 and batch_groups > 1:
        raise ValueError(
            f"`{call}` got feature_group_count={feature_groups} and batch_group_count={batch_groups}: at most one of "
            "the two may be above 1. Map over the other groups with `jax.vmap`."
        )
    groups = max(feature_groups, batch_groups)
    name = "feature_group_count" if feature_groups > 1 else "batch_group_count"
    n, c = (lhs.shape[d] for d in dims.lhs_spec[:2])
    m, cw = (rhs.shape[d] for d in dims.rhs_spec[:2])
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
    out = output_dtype(call, dtype, preferred)
    problem = Problem(
        axes, n=n // batch_groups, g=groups, c=cw, m=m // groups,
        layouts=Triple(
            _layout(dims.lhs_spec, batch, feature),
            _layout(dims.rhs_spec, "gm", "c"),
            _layout(dims.out_spec, "n", "gm"),
        ),
        dtypes=Triple(dtype.name, dtype.name, out.name),
    )  # fmt: skip
    sizes = dict(zip(dims.out_spec, (problem.n, m, *(axis.O for axis in axes)), strict=True))
    return problem, tuple(sizes[d] for d in range(lhs.ndim))


def _layout(spec: Sequence[int], *ends: str) -> str:
    letters = dict(zip(spec, (*ends, *SPATIAL[: len(spec) - 2]), strict=True))
    return "".join(letters[d] for d in range(len(spec)))


def _check_sharding(call: str, out_sharding, rank: int) -> None:
    """Raise unless `out_sharding` is a sharding of `rank` axes over a mesh that there is."""
    if out_sharding is None:
        return
    if not isinstance(out_sharding, NamedSharding | PartitionSpec):
        raise TypeError(
            f"`{call}` got out_sharding={out_sharding!r}: it must be a NamedSharding or a PartitionSpec. "
            "Make one with `jax.NamedSharding(mesh, spec)`."
        )
    named = isinstance(out_sharding, NamedSharding)
    spec, mesh = (out_sharding.spec, out_sharding.mesh) if named else (out_sharding, get_abstract_mesh())
    names = {n for entry in spec if entry for n in ([entry] if isinstance(entry, str) else entry)}
    if len(spec) > rank or not names <= set(mesh.axis_names):
        raise ValueError(
            f"`{call}` got out_sharding={spec} on a mesh with the axes {tuple(mesh.axis_names)}: it may name "
            f"these only, in at most {rank} entries. Set a mesh with `jax.set_mesh`, or pass a NamedSharding."
        )


def _contract(
    lhs: Array, rhs: Array, problem: Problem, shape: tuple[int, ...], wishes: Wishes, out_sharding, preferred
) -> Array:
    logical = lhs.dtype == jnp.bool_ and preferred is None

    def run(lhs, rhs):
        x, w = lhs.astype(problem.dtypes.x), rhs.astype(problem.dtypes.w)
        y = contract(problem, x.reshape(problem.x_shape), w.reshape(problem.w_shape), wishes).reshape(shape)
        return y != 0 if logical else y

    if out_sharding is None:
        return run(lhs, rhs)
    if explicit := explicit_axes():
        return auto_axes(axes=explicit, out_sharding=out_sharding)(run)(lhs, rhs)
    return jax.lax.with_sharding_constraint(run(lhs, rhs), out_sharding)
