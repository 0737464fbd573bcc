"""Two plain arrays, convolved along some of their axes; the others are a batch and broadcast.

An array of SciPy's has no letters: every axis is convolved, or it is one of a batch. Here each
axis becomes an axis of the relation or a letter of the form:

    convolved                           its own relation
    of a batch, in both arrays          a group, g
    of a batch, in x alone, in front    n
    elsewhere in one array alone        the relation o = i (with K = 1) or o = k (with I = 1)

All that convolves plain arrays comes through this door, `convolved`.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxconv import separable
from jaxconv.arguments import axis_indices, common_dtype, described, once_per_signature, output_dtype
from jaxconv.engines.base import accumulator, pairwise
from jaxconv.padding import Relation, extend
from jaxconv.planner import Options, chain_pays
from jaxconv.primitive import contract
from jaxconv.problem import SPATIAL, Axis, Problem, Triple

TRIED = 1 << 12  # entries of a known kernel: singular values of a large one would take longer than they save


@once_per_signature
def convolved(
    x: Array, w: Array, terms: separable.Terms | None = None, fill: Array | None = None, *,
    call: str, relation: Relation, options: Options, axes: Any = None, boundary: Any = "constant",
    preferred_element_type: Any = None,
) -> Array:  # fmt: skip
    """x and w, convolved or correlated along `axes` (all, if None) as the relation says.

    Beyond its border x goes on as `boundary` says, with `fill` if that is 'constant' (None is 0). The kernel of a
    correlation is conjugated. `terms` are the `outer_products` that sum to w, where they are known: they are taken
    where that pays, or where they must be.

    >>> from jaxconv.padding import Modes
    >>> x, w = jnp.array([[1., 2., 3.], [4., 5., 6.]]), jnp.array([[1., 10.]])
    >>> convolved(x, w, call="f", relation=Modes("full", True), options=Options(), axes=(1,))
    Array([[ 1., 12., 23., 30.],
           [ 4., 45., 56., 60.]], dtype=float32)
    """
    x, w, along = _aligned(call, x, w, axes)
    relations = relation.axes(call, [x.shape[d] for d in along], [w.shape[d] for d in along])
    relation_of = dict(zip(along, relations, strict=True))
    if isinstance(boundary, tuple) and len(boundary) == len(along):
        boundary_of = dict(zip(along, boundary, strict=True))
        boundary = tuple(boundary_of.get(d, "constant") for d in range(x.ndim))

    dtype = x.dtype if x.dtype == w.dtype else common_dtype(call, x, w)
    logical = dtype == jnp.bool_ and preferred_element_type is None
    dtype = jnp.dtype(jnp.int32) if dtype == jnp.bool_ else dtype
    out = dtype if preferred_element_type is None else output_dtype(call, dtype, preferred_element_type)
    fill = None if fill is None else jnp.asarray(fill, dtype)
    x, relations = extend(
        call, x.astype(dtype), [relation_of.get(d) for d in range(x.ndim)], boundary, relation.outside, fill
    )
    w, terms = (w.astype(dtype), terms) if relation.flip else jax.tree.map(jnp.conj, (w.astype(dtype), terms))

    groups, batch, spatial = [], [], []  # positions of the axes, and the relations of all others
    for d, (axis, i, k) in enumerate(zip(relations, x.shape, w.shape, strict=True)):
        if axis is None and i != k and 1 not in (i, k):
            raise ValueError(
                f"`{call}` got incompatible shapes for in1 and in2: {x.shape} and {w.shape}; axis {d} is not "
                "convolved, so both must be as long there, or one 1. Name it in `axes`, or change the shapes."
            )
        if axis is not None:
            spatial.append(axis)
        elif i == k > 1:
            groups.append(d)
        elif k == 1 and not spatial:
            batch.append(d)
        else:
            spatial.append(Axis(I=i, K=1, O=i) if k == 1 else Axis(I=1, K=k, O=k, D=-1))
    if options.separable == "always" and groups:
        raise ValueError(
            f"`{call}` got method='separable' and a batch of kernels, {described(w)}: it serves one kernel. Pass "
            "method='auto', or call it for each."
        )
    order = [*groups, *batch, *(d for d in range(x.ndim) if d not in groups and d not in batch)]
    letters = SPATIAL[: len(spatial)]
    problem = Problem(
        tuple(spatial),
        g=prod(x.shape[d] for d in groups),
        n=prod(x.shape[d] for d in batch),
        layouts=Triple("gnc" + letters, "gmc" + letters, "gnm" + letters),
        dtypes=Triple(dtype.name, dtype.name, out.name),
    )
    sizes = [x.shape[d] for d in groups + batch] + [axis.O for axis in spatial]
    x, w = x.transpose(order).reshape(problem.x_shape), w.transpose(order).reshape(problem.w_shape)
    links = separable.chain(problem) if terms and not groups else []
    if terms and links and (options.separable == "always" or chain_pays(problem, links * len(terms), options)):
        y = _chained(problem, links, x, terms, options)
    else:
        y = contract(problem, x, w, options)
    y = y.reshape(sizes).transpose(np.argsort(order))
    return y != 0 if logical else y


def outer_products(call: str, w: Any, options: Options) -> separable.Terms | None:
    """The outer products that sum to a kernel whose values are known; None where there are none, or none are wanted."""
    always = options.separable == "always"
    if not isinstance(w, np.ndarray):
        raise ValueError(
            f"`{call}` got method='separable' and a kernel of type {type(w).__name__}: it must be known when the "
            "function is traced. Pass a NumPy array, and under `jax.jit` not as an argument."
        )
    long = [size for size in w.shape if size > 1] or [1]
    able = jnp.issubdtype(w.dtype, jnp.inexact) and w.ndim and w.size  # floating, and so is the sum, whatever x is
    tried = always or (not options.engines and w.size <= TRIED and len(long) > 1)
    products = separable.terms(w.reshape(long), options.accuracy) if able and tried else None
    if always and products is None:
        raise ValueError(
            f"`{call}` got method='separable' and a kernel of {described(w)}: it must be a sum of outer products, of "
            "floating or complex numbers, within the bound of `accuracy`. Pass method='auto'."
        )
    return products


def _chained(problem: Problem, links: list[Problem], x: Array, terms: separable.Terms, options: Options) -> Array:
    """contract(problem, x, w) for w = the sum of the outer products."""
    parts = []
    for vectors in terms:
        part = x.astype(accumulator(problem))
        for link, vector in zip(links, vectors, strict=True):
            part = contract(link, part, jnp.asarray(vector, link.dtypes.w).reshape(link.w_shape), options)
        parts.append(part)
    return pairwise(parts).astype(problem.dtypes.y)


def _aligned(call: str, x: Array, w: Array, axes: Any) -> tuple[Array, Array, tuple[int, ...]]:
    """x and w with as many dimensions each, and the axes to convolve along."""
    if axes is None:
        if x.ndim != w.ndim:
            raise ValueError(
                f"`{call}(in1, in2)` got in1 of {described(x)} and in2 of {described(w)}: in1 and in2 should "
                "have the same dimensionality. Add axes with `jnp.expand_dims`, or name the `axes` to convolve."
            )
        return x, w, tuple(range(x.ndim))
    rank = max(x.ndim, w.ndim)
    along = axis_indices(call, "axes", axes, rank)
    # Leading axes of the batch may be missing, as in NumPy's broadcasting; the convolved ones may not.
    if any(d < rank - min(x.ndim, w.ndim) for d in along):
        raise ValueError(
            f"`{call}` got axes={axes!r} for in1 of {described(x)} and in2 of {described(w)}: both must have the axes "
            "that are convolved. Count them from the end, or add axes with `jnp.expand_dims`."
        )
    return x.reshape((1,) * (rank - x.ndim) + x.shape), w.reshape((1,) * (rank - w.ndim) + w.shape), along
