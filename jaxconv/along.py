"""Two plain arrays, contracted along some of their axes; the others are a batch and broadcast.

An array of SciPy's has no letters: every axis is convolved, or it is one of a batch. Here each
axis becomes an axis of the relation or a letter of the form:

    convolved                           its own relation
    of a batch, in both arrays          a group, g
    of a batch, in x alone, in front    n
    elsewhere in one array alone        the relation o = i (with K = 1) or o = k (with I = 1)
"""

from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxconv import separable
from jaxconv.arguments import described
from jaxconv.planner import Wishes, refusal
from jaxconv.primitive import contract
from jaxconv.problem import SPATIAL, Axis, Problem, Triple

Relations = Sequence[Axis | None]
TRIED = 1 << 12  # entries of a known kernel: singular values of a large one would take longer than they save


def known_terms(call: str, w, wishes: Wishes, forced: bool) -> separable.Terms | None:
    """The outer products that sum to w, if its values are known, and are tried or `forced`; None where there are none.

    A NumPy array's values are known when the program is traced.
    """
    if forced and not isinstance(w, np.ndarray):
        raise ValueError(
            f"`{call}` got method='separable' and a kernel of type {type(w).__name__}: it must be known when the "
            "function is traced. Pass a NumPy array, and under `jax.jit` not as an argument."
        )
    tried = wishes.forward == "auto" and isinstance(w, np.ndarray) and w.size <= TRIED
    if not (forced or (tried and w.size)):
        return None
    floating = jnp.issubdtype(w.dtype, jnp.inexact)  # and so is the sum, whatever x is
    long = [size for size in w.shape if size > 1] or [1]
    split = floating and w.size and w.ndim and (forced or len(long) > 1)
    found = separable.terms(w.reshape(long), wishes.accuracy) if split else None
    if found is None and forced:
        raise ValueError(
            f"`{call}` got method='separable' and a kernel of {described(w)}: it must be a sum of outer products, of "
            "floating or complex numbers, within the bound of `accuracy`. Pass method='auto'."
        )
    return found


def contract_along(
    call: str, x: Array, w: Array, relations: Relations, dtypes: Triple, wishes: Wishes,
    terms: separable.Terms | None = None, forced: bool = False, otherwise: Wishes | None = None,
) -> Array:  # fmt: skip
    """y, with O positions along each axis that has a relation; the others (None) are the batch and broadcast.

    x and w have one axis for each relation. `terms` are w's outer products, where they are known
    (`known_terms`): they are taken where they are expected to pay, or where they are `forced`.
    Where the engine that `wishes` force refuses, those of `otherwise` hold, if there are any.

    >>> from jaxconv.planner import Wishes
    >>> rows = Axis(I=3, K=2, O=4, D=-1)
    >>> x, w = jnp.array([[1., 2., 3.], [4., 5., 6.]]), jnp.array([[1., 10.]])
    >>> contract_along("f", x, w, (None, rows), Triple(*["float32"] * 3), Wishes())
    Array([[ 1., 12., 23., 30.],
           [ 4., 45., 56., 60.]], dtype=float32)
    """
    groups, batch, axes = [], [], []  # positions of the axes, and the relations of all others
    for d, (axis, i, k) in enumerate(zip(relations, x.shape, w.shape, strict=True)):
        if axis is None and i != k and 1 not in (i, k):
            raise ValueError(
                f"`{call}` got incompatible shapes for in1 and in2: {x.shape} and {w.shape}; axis {d} is not "
                "convolved, so both must be as long there, or one 1. Name it in `axes`, or change the shapes."
            )
        if axis is not None:
            axes.append(axis)
        elif i == k > 1:
            groups.append(d)
        elif k == 1 and not axes:
            batch.append(d)
        else:
            axes.append(Axis(I=i, K=1, O=i) if k == 1 else Axis(I=1, K=k, O=k, D=-1))
    if forced and groups:
        raise ValueError(
            f"`{call}` got method='separable' and a batch of kernels, {described(w)}: it serves one kernel. Pass "
            "method='auto', or call it for each."
        )
    rest = [d for d in range(x.ndim) if d not in groups and d not in batch]
    order = [*groups, *batch, *rest]
    spatial = SPATIAL[: len(axes)]
    problem = Problem(
        tuple(axes),
        g=prod(x.shape[d] for d in groups),
        n=prod(x.shape[d] for d in batch),
        layouts=Triple("gnc" + spatial, "gmc" + spatial, "gnm" + spatial),
        dtypes=dtypes,
    )
    if otherwise and refusal(problem, wishes):
        wishes = otherwise
    sizes = [x.shape[d] for d in groups + batch] + [axis.O for axis in axes]
    x = x.transpose(order).astype(dtypes.x).reshape(problem.x_shape)
    if terms and not groups and (forced or separable.pays(problem, terms, wishes, jax.default_backend())):
        y = separable.contract_terms(problem, x, terms, wishes)
    else:
        y = contract(problem, x, w.transpose(order).astype(dtypes.w).reshape(problem.w_shape), wishes)
    return y.reshape(sizes).transpose(np.argsort(order))
