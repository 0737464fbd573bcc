"""direct: lax.conv_general_dilated, with explicit flips.

XLA's convolution is a correlation with L, S, D > 0,

    y[o] = sum over k of v[S*o + D*k] * w[k],   v = x with L-1 zeros between, p before,

so the relation is oriented first: a negative D flips the kernel, a negative S the
output. Inputs that no output asks for are left away, so that p is never negative. Since
every pass is a layer of its own, each runs as a plain feature-grouped convolution, and no
pass needs batch groups.
"""

from dataclasses import replace
from math import prod

import jax.numpy as jnp
from jax import Array, lax
from jax.lax import conv_general_dilated  # by name: lax's attribute may have been assigned jaxconv's function

from jaxconv.engines.base import (
    Engine,
    accumulator,
    all_products,
    always,
    elements,
    itemsize,
    oriented,
    summation_error,
    zeros,
)
from jaxconv.problem import Problem


def refusal(problem: Problem, platform: str | None) -> str | None:
    if platform in ("gpu", "tpu") and problem.is_exact:
        return f"direct: XLA has no integer convolution on {platform}; use method='shifts'."
    if platform in ("gpu", "tpu") and len(problem.axes) > 3:
        return f"direct: XLA convolves at most 3 spatial axes on {platform}, and there are {len(problem.axes)}."
    return None


def work(problem: Problem) -> dict[str, float]:
    axes = problem.axes
    taps, outputs = problem.taps, problem.outputs
    form = "layer" if taps <= outputs else "kernel"
    if len(axes) > 2:
        form += ", volumes"
    elif problem.g > 1:
        form += " by groups"
    elif any(abs(axis.L) > 1 or (form == "kernel" and abs(axis.D) > 1) for axis in axes):
        form += ", dilated"
    dilated = all_products(problem) * prod(abs(axis.L) for axis in axes)  # XLA multiplies the zeros
    found = {"call": 1.0, "products": dilated, form: dilated, f"{form}, over c": dilated / problem.c}
    found[f"{form}, over m"] = dilated / problem.m
    found[f"{form}, one pair"] = dilated / (problem.c * problem.m)
    found["elements"] = elements(problem)
    if problem.layouts.y[-1] in problem.spatial:
        found["transposed"] = elements(problem)
    return found


# XLA transposes to channels last, and may pad x or copy y.
def memory(problem: Problem) -> float:
    return itemsize(problem) * elements(problem)


def run(problem: Problem, x: Array, w: Array, precision=None) -> Array:
    problem, w, finish = oriented(problem, w, +1)
    problem, x = _met(problem, x)
    if problem.is_empty:
        return zeros(problem.y_shape, x).astype(problem.dtypes.y)
    x, lx = _merge(problem, x, problem.layouts.x, "g", "c")
    w, lw = _merge(problem, w, problem.layouts.w, "g", "m")
    ly = _merged_layout(problem, problem.layouts.y, "g", "m")

    dtype = accumulator(problem)
    operand = x.dtype if x.dtype == w.dtype and jnp.issubdtype(x.dtype, jnp.inexact) else dtype
    spatial = problem.spatial
    # Channels last, which is what XLA's convolution on CPU is fast in. XLA transposes by itself, but
    # not within loops, where it falls back to one that is a hundred times slower (jax-ml/jax issue 12868).
    x = lax.transpose(x, [lx.index(letter) for letter in "n" + spatial + "F"])
    w = lax.transpose(w, [lw.index(letter) for letter in spatial + "cF"])
    last = "n" + spatial + "F"
    order = tuple(range(len(last)))
    y = conv_general_dilated(
        x.astype(operand),
        w.astype(operand),
        window_strides=[axis.S for axis in problem.axes],
        padding=[(axis.p, _high(axis)) for axis in problem.axes],
        lhs_dilation=[axis.L for axis in problem.axes],
        rhs_dilation=[axis.D for axis in problem.axes],
        dimension_numbers=lax.ConvDimensionNumbers(
            (order[0], order[-1], *order[1:-1]),
            (order[-1], order[-2], *order[:-2]),
            (order[0], order[-1], *order[1:-1]),
        ),
        feature_group_count=problem.g,
        precision=precision,
        preferred_element_type=dtype,
    )
    y = lax.transpose(y, [last.index(letter) for letter in ly])
    return finish(_split(problem, y, ly)).astype(problem.dtypes.y)


# With a negative padding, XLA on CPU may read outside x (openxla/xla issue 48713).
def _met(problem: Problem, x: Array) -> tuple[Problem, Array]:
    """The oriented Problem for those inputs alone that the outputs ask for, and these."""
    axes = []
    for letter, whole in zip(problem.spatial, problem.axes, strict=True):
        axis, start, stop = whole.met
        axes.append(axis)
        x = lax.slice_in_dim(x, start, stop, axis=problem.layouts.x.index(letter))
    return replace(problem, axes=tuple(axes)), x


def _high(axis) -> int:
    """The high padding that makes the output exactly O long."""
    return axis.S * (axis.O - 1) + axis.D * (axis.K - 1) - axis.p - axis.L * (axis.I - 1)


# lax knows one feature axis, here called F, that runs over (g, feature). Where g and the
# feature are neighbours, or one of them has length 1, that is a reshape.
def _merged_layout(problem: Problem, layout: str, group: str, feature: str) -> str:
    if problem.g == 1:
        return layout.replace(group, "").replace(feature, "F")
    if getattr(problem, feature) == 1:
        return layout.replace(feature, "").replace(group, "F")
    return layout.replace(group, "").replace(feature, "F")


def _merge(problem: Problem, array: Array, layout: str, group: str, feature: str) -> tuple[Array, str]:
    merged = _merged_layout(problem, layout, group, feature)
    sizes = dict(zip(layout, array.shape, strict=True)) | {"F": problem.g * getattr(problem, feature)}
    if problem.g != 1 and getattr(problem, feature) != 1:
        array = jnp.moveaxis(array, layout.index(group), merged.index("F"))
    return array.reshape([sizes[letter] for letter in merged]), merged


def _split(problem: Problem, y: Array, merged: str) -> Array:
    layout = problem.layouts.y
    sizes = dict(zip(layout, problem.y_shape, strict=True))
    if problem.g == 1 or problem.m == 1:
        return y.reshape(problem.y_shape)
    split = merged.replace("F", "gm")
    y = y.reshape([sizes[letter] for letter in split])
    return lax.transpose(y, [split.index(letter) for letter in layout])


# XLA sums in an order of its own choice, in the accumulation type.
def error(problem: Problem) -> tuple[float, float]:
    return summation_error(problem, problem.terms), 0.0


DIRECT = Engine("direct", elementwise=always, refusal=refusal, work=work, memory=memory, run=run, error=error)
