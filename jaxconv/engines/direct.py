"""direct: lax.conv_general_dilated, with explicit flips.

XLA's convolution is a correlation with L, S, D > 0,

    y[o] = sum over k of v[S*o + D*k] * w[k],   v = x with L-1 zeros between, p before,

so the relation is oriented first: a negative D flips the kernel, a negative S the
output. Inputs that no output asks for are left away, so that p is never negative.

On CPU every pass runs as a plain feature-grouped convolution, channels last. On accelerators
the three passes are three algorithms of a library, which XLA finds by the form that lax gives
to gradients: a kernel that is flipped last, and L for the stride, is an input gradient; a kernel
longer than the output, n and m for its features and batch groups for its groups, is a kernel
gradient, with D for the stride. What has no such form is brought to one: a kernel gradient with
L > 1 by exchanging x and w, one with S > 1 (the dilation of its layer) and dilated inputs of
grouped layers by phases.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod

import jax.numpy as jnp
from jax import Array, lax
from jax.lax import conv_general_dilated  # by name: lax's attribute may have been assigned jaxconv's function
from jaxlib.version import __version__ as jaxlib_version

from jaxconv.engines.base import (
    Engine,
    accumulator,
    all_products,
    always,
    array_bytes,
    beside,
    compiled,
    elements,
    itemsize,
    kinds_of,
    launches,
    multiplier,
    oriented,
    padded_along,
    summation_error,
    tiled,
    zeros,
)
from jaxconv.engines.blocks import padded_axis
from jaxconv.engines.polyphase import by_phases, by_units, phase_count, phases, woven
from jaxconv.problem import Problem, Triple

SMALL = 16  # features, of which XLA takes no library for images on CPU


def refusal(problem: Problem, platform: str | None) -> str | None:
    if platform in ("gpu", "tpu") and problem.is_exact:
        return f"direct: XLA has no integer convolution on {platform}; use method='shifts'."
    if platform in ("gpu", "tpu") and len(problem.axes) > 3:
        return f"direct: XLA convolves at most 3 spatial axes on {platform}, and there are {len(problem.axes)}."
    return None


def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    if platform != "cpu":  # one call of a library, and the order of its kernel
        calls = phase_count(problem) if problem.g > 1 or not problem.is_layer else 1
        gradient = not problem.is_layer
        unit = all({abs(axis.L), abs(axis.S), abs(axis.D)} == {1} for axis in problem.axes)
        if problem.g > 1 and (problem.n if gradient else problem.c) * problem.m == 1:  # depthwise: of its own kernels
            images = len(problem.axes) == 2
            kind = f"depthwise {'image' if images else 'other'}{' gradient' if gradient else ''}"
            moved = array_bytes(problem) * (1 if images and unit else 2.3)  # XLA changes the layout of the others
            return launches(2.0 * calls, moved, all_products(problem), kind)
        rows = problem.n if gradient else problem.c
        pairs = all_products(problem) / (rows * problem.m) * tiled(rows) * tiled(problem.m)
        return launches(2.0 * calls, array_bytes(problem), pairs, multiplier(problem, precision))
    if len(problem.axes) < 3 or not problem.is_layer:
        return compiled(1.0, 0.0) | {"call": 1.0, "elements": elements(problem)} | _product_work(problem)
    parts, counts = phases(problem), defaultdict[str, float](float)
    for part in parts:
        while len(part.axes) > 2:
            part = _images(part)
            counts["copied"] += prod(part.x_shape)
        for kind, count in _product_work(part).items():
            counts[kind] += count
    taps = sum(prod(axis.K for axis in part.axes[:-2]) for part in parts)
    once = compiled(float(len(parts)), float(taps))
    return once | woven(problem) | {"call": float(len(parts)), "elements": elements(problem)} | counts


def _product_work(problem: Problem) -> dict[str, float]:
    """Products, by what of XLA multiplies them: a library of its own or, of small or dilated problems, another."""
    axes, m, more = problem.axes, problem.m, _more_features(problem)
    form, c = "layer" if problem.is_layer else "kernel", problem.c + more
    if len(axes) > 2:
        form += ", volumes"
    elif problem.g > 1:
        form += " by groups"
    elif any(abs(axis.L) > 1 or (form == "kernel" and abs(axis.D) > 1) for axis in axes):
        form += ", dilated"
    elif _has_library(problem):
        form += ", library"
    if more:
        problem = replace(problem, c=c)
    products = all_products(problem) * prod(abs(axis.L) for axis in axes)  # XLA multiplies the zeros
    counts = {"products": products, form: products, f"{form}, over c": products / c, f"{form}, over m": products / m}
    counts[f"{form}, one pair"] = products / (c * m)
    counts[f"{form}, operand"] = prod(problem.w_shape) + 0.0
    if problem.layouts.y[-1] in problem.spatial:
        counts["transposed"] = elements(problem)
    return counts


# XLA transposes to channels last, and may pad x or copy y.
def memory(problem: Problem, platform="cpu") -> float:
    return itemsize(problem) * elements(problem)


def run(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
    if platform == "cpu":
        problem, w, finish = oriented(problem, w, +1)
        one = partial(_convolved, flips=(), precision=precision, platform=platform)
        if len(problem.axes) > 2 and problem.is_layer:
            y = by_phases(problem, x, w, partial(_as_images, run=one))
        else:
            y = one(problem, x, w)
        return finish(y).astype(problem.dtypes.y)
    if not problem.is_layer and any(abs(axis.L) > 1 and abs(axis.D) == 1 for axis in problem.axes):
        problem, x, w = problem.exchanged, w, x
    turned = [axis.oriented(+1) for axis in problem.axes]
    outputs = [problem.layouts.y.index(c) for c, (*_, flip) in zip(problem.spatial, turned, strict=True) if flip]
    flips = [letter for letter, (_, flip, _) in zip(problem.spatial, turned, strict=True) if flip]
    problem = replace(problem, axes=tuple(axis for axis, *_ in turned))
    y = _in_known_forms(problem, x, w, flips, precision, platform)
    return lax.rev(y, outputs).astype(problem.dtypes.y)


def _in_known_forms(problem: Problem, x: Array, w: Array, flips: Sequence[str], precision, platform) -> Array:
    axes, gradient = problem.axes, not problem.is_layer
    one = partial(_convolved, flips=(), precision=precision, platform=platform)
    dilated = any(axis.L > 1 and (gradient or problem.g > 1 or max(axis.S, axis.D) > 1) for axis in axes)
    strided = gradient and any(axis.S > 1 for axis in axes)
    if not dilated and not strided:
        return one(problem, x, w, flips=flips)
    w = lax.rev(w, [problem.layouts.w.index(letter) for letter in flips])
    return (by_units if strided else by_phases)(problem, x, w, one)


# XLA has libraries for images on CPU, and for volumes loops that are ten times slower.
def _as_images(problem: Problem, x: Array, w: Array, run: Callable) -> Array:
    """y of an oriented Problem with L = 1: the positions of its first axis are images, and its taps features."""
    (lx, lw, ly), axis = problem.layouts, problem.axes[0]
    if len(problem.axes) == 2:
        return run(problem, x, w)
    others, images = problem.spatial[1:], _images(problem)
    x, _ = _in_order(padded_axis(problem, x, 0), lx, "n0" + others + "gc")
    x, _ = beside(x, "n0" + others + "gc", {"0": [(axis.D * k, axis.O, axis.S) for k in range(axis.K)]}, "c")
    w, _ = _in_order(w, lw, others + "g0cm")
    y = _as_images(images, x.reshape(images.x_shape), w.reshape(images.w_shape), run)
    y = y.reshape(problem.n, axis.O, *y.shape[1:])
    return _in_order(y, "n0" + others + "gm", ly)[0]


def _images(problem: Problem) -> Problem:
    """The Problem that `_as_images` makes of one."""
    spatial, axis = problem.spatial[:-1], problem.axes[0]
    layouts = Triple("n" + spatial + "gc", spatial + "gcm", "n" + spatial + "gm")
    return replace(problem, axes=problem.axes[1:], n=problem.n * axis.O, c=axis.K * problem.c, layouts=layouts)


def _convolved(problem: Problem, x: Array, w: Array, flips: Sequence[str], precision, platform) -> Array:
    problem, x = _met(problem, x)
    if problem.is_empty:
        return zeros(problem.y_shape, x).astype(problem.dtypes.y)
    if platform == "cpu" and (more := _more_features(problem)):
        x, w = (
            padded_along(array, layout, "c", 0, problem.c + more)
            for array, layout in ((x, problem.layouts.x), (w, problem.layouts.w))
        )
        problem = replace(problem, c=problem.c + more)
    by_batch = platform != "cpu" and problem.g > 1 and not problem.is_layer
    x, lx = _merge(problem, x, problem.layouts.x, "g", "n" if by_batch else "c")
    w, lw = _merge(problem, w, problem.layouts.w, "g", "m")
    ly = _merged_layout(problem, problem.layouts.y, "g", "m")

    dtype = accumulator(problem)
    alike = x.dtype == w.dtype and jnp.issubdtype(x.dtype, jnp.inexact)
    factor = x.dtype if alike else dtype
    # A library sums half types in single precision, if they are the result's too; else XLA converts the operands.
    result = x.dtype if platform != "cpu" and alike and x.dtype == problem.dtypes.y else dtype
    spatial = problem.spatial
    if platform == "cpu":
        # Channels last, which is what XLA's convolution on CPU is fast in. XLA transposes by itself, but
        # not within loops, where it falls back to one that is a hundred times slower (jax-ml/jax issue 12868).
        x, lx = _in_order(x, lx, "n" + spatial + "F")
        w, lw = _in_order(w, lw, spatial + "cF")
        target, ly = ly, "n" + spatial + "F"
    else:
        target = ly
    w = lax.rev(w.astype(factor), [lw.index(letter) for letter in flips])
    batch, feature = ("F", "c") if by_batch else ("n", "F")
    y = conv_general_dilated(
        x.astype(factor),
        w,
        window_strides=[axis.S for axis in problem.axes],
        padding=[(axis.p, _high(axis)) for axis in problem.axes],
        lhs_dilation=[axis.L for axis in problem.axes],
        rhs_dilation=[axis.D for axis in problem.axes],
        dimension_numbers=lax.ConvDimensionNumbers(
            *(
                tuple(map(layout.index, letters + spatial))
                for layout, letters in ((lx, batch + feature), (lw, "Fc"), (ly, "nF"))
            )
        ),
        feature_group_count=1 if by_batch else problem.g,
        batch_group_count=problem.g if by_batch else 1,
        precision=precision,
        preferred_element_type=result,
    )
    y, _ = _in_order(y, ly, target)
    return _split(problem, y, target).astype(problem.dtypes.y)


# XLA's library in jaxlib 0.10 takes several times as long where a tile of 64 features is not full and c is odd, or of a
# tile more than half full no multiple of 4. jaxlib 0.12 does not: the time with a zero feature more tells.
def _more_features(problem: Problem) -> int:
    """How many c of zeros are worth adding."""
    c, m, tile = problem.c, problem.m, problem.m % 64
    slow = m < 128 and 0 < tile <= 48 and c > 2 and (c % 2 or (c > 6 and tile > 32))
    return -c % 4 if slow and problem.taps > 1 and _has_library(problem) and jaxlib_version.startswith("0.10.") else 0


def _has_library(problem: Problem) -> bool:
    """Whether XLA calls a library of its own on CPU."""
    within = all(axis.O <= axis.I >= axis.K and abs(axis.L) == 1 for axis in problem.axes)
    return len(problem.axes) == 2 and problem.g == 1 and max(problem.c, problem.m) > SMALL and within


def _in_order(array: Array, layout: str, target: str) -> tuple[Array, str]:
    return lax.transpose(array, [layout.index(letter) for letter in target]), target


# With a negative padding, XLA on CPU may read outside x (openxla/xla issue 48713).
def _met(problem: Problem, x: Array) -> tuple[Problem, Array]:
    """The oriented Problem for those inputs alone that the outputs ask for, and these."""
    axes = []
    for letter, uncropped in zip(problem.spatial, problem.axes, strict=True):
        axis, start, stop = uncropped.met
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


FORMS = [
    f"{form}{of}"
    for form, of in product(("layer", "kernel"), ("", ", volumes", " by groups", ", dilated", ", library"))
]
KINDS = kinds_of(
    product=FORMS,
    loop=[f"{form}, one pair" for form in FORMS],
    cached=[
        "transposed",
        "copied",
        *(f"{form}{part}" for form in FORMS for part in (", over c", ", over m", ", operand")),
    ],
)
DIRECT = Engine("direct", always, refusal, work, memory, run, error, KINDS)
