"""native: a library of compiled loops, oneDNN, called through XLA's foreign function interface.

A layer with L = 1 is oneDNN's forward; one with S = 1 its backward_data, of the layer whose gradient that is; a sum
with more taps than outputs its backward_weights. The relation is oriented first, and a flip of the kernel in memory is
none for backward_data, which has D < 0. Activations are given with channels last; weights lie as they are, and the
library brings them to a format of its own. One axis is given as the second of an image, since one alone has slow loops.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from itertools import compress
from math import prod
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxconv.engines.base import (
    Engine,
    all_products,
    always,
    compiled,
    elements,
    kinds_of,
    oriented,
    padded_along,
    summation_error,
    varying,
    varying_over,
)
from jaxconv.engines.calls import DATA, FORWARD, WEIGHTS, Call, Operand, channels_last
from jaxconv.engines.handler import TARGET, key_of
from jaxconv.engines.onednn import Failed, Missing, Primitive, handler, library, parted, threads
from jaxconv.problem import Axis, Problem, Triple


class Plan(NamedTuple):
    """How a Problem is asked of the library.

    exchanged: whether x and w change places. start, stop: the part of the layer's input (the result, for DATA) that
    meets anything, along each axis. call: the question.
    """

    exchanged: bool
    start: tuple[int, ...]
    stop: tuple[int, ...]
    call: Call


def _plans(problem: Problem) -> Iterator[Plan]:
    """The ways to ask for it, the best first."""
    if not problem.is_layer:
        for exchanged, one in ((False, problem), (True, problem.exchanged)):
            if all(abs(axis.L) == 1 for axis in one.axes):
                yield _plan(WEIGHTS, exchanged, one)
    flips = any(axis.oriented(+1)[1] for axis in problem.axes)
    for kind in (DATA, FORWARD) if flips else (FORWARD, DATA):
        if all(abs(axis.L if kind == FORWARD else axis.S) == 1 for axis in problem.axes):
            yield _plan(kind, False, problem)


def _plan(kind: int, exchanged: bool, problem: Problem) -> Plan:
    problem = replace(problem, axes=tuple(axis.oriented(-1 if kind == DATA else +1)[0] for axis in problem.axes))
    layer = (problem, problem.input_pass, problem.kernel_pass)[kind]
    met = [_cut(axis) for axis in layer.axes]
    axes = [*[Axis(1, 1, 1)] * (2 - len(met)), *(axis for axis, _, _ in met)]
    low, high = zip(*(axis.reach for axis in axes), strict=True)
    *_, last = axes
    # With AVX2 its loops along a signal are up to twice as fast in its own format.
    free = kind == WEIGHTS and len(met) == 1 and last.S == 1 < last.K and layer.g == 1 and not library().is_wide
    src = _activations(layer.n, layer.g * layer.c, [axis.I for axis in axes], free)
    dst = _activations(layer.n, layer.g * layer.m, [axis.O for axis in axes], free)
    x, w, y = ((src, _weights(layer), dst), (dst, _weights(layer), src), (src, dst, _weights(layer)))[kind]
    window = tuple(axis.S for axis in axes), tuple(axis.D for axis in axes), low, high
    return Plan(
        exchanged, tuple(start for _, start, _ in met), tuple(stop for *_, stop in met), Call(kind, x, w, y, *window)
    )


def _cut(axis: Axis) -> tuple[Axis, int, int]:
    """(axis, start, stop): for the part of the input that meets anything; all of it, where a stride leaves the rest."""
    part, start, stop = axis.met
    return (part, start, stop) if start or axis.I - stop >= axis.S else (axis, 0, axis.I)


def _activations(batch: int, features: int, extents: list[int], free: bool) -> Operand:
    """An array with features last."""
    sizes = batch, features, *extents
    return Operand(sizes, channels_last(sizes), free)


def _weights(layer: Problem) -> Operand:
    """A layer's weights as they lie."""
    sizes = dict(zip(layer.layouts.w, layer.w_shape, strict=True))
    steps = {letter: prod(layer.w_shape[place + 1 :]) for place, letter in enumerate(layer.layouts.w)}
    order, added = "g" * (layer.g > 1) + "mc", [1] * (2 - len(layer.axes))
    return Operand(
        (*(sizes[letter] for letter in order), *added, *(sizes[letter] for letter in layer.spatial)),
        (*(steps[letter] for letter in order), *added, *(steps[letter] for letter in layer.spatial)),
        free=True,
    )


@lru_cache(maxsize=4096)
def _asked(problem: Problem) -> Any:
    """The first plan that the library has loops for; or the reason why there is none."""
    reason = "a stride and a dilated input together have no primitive in oneDNN; use method='auto'."
    try:
        for plan in _plans(problem):
            if any(start >= stop for start, stop in zip(plan.start, plan.stop, strict=True)):
                return "its outputs meet no input; use method='auto'."
            if plan.call.layer[0].sizes[1] == plan.call.layer[2].sizes[1] == 1:
                return "its loops are over features, of which there is one; use method='shifts', 'fft' or 'overlap'."
            if plan.call.kind == WEIGHTS and plan.call.strides[-1] > 1 and plan.call.low[-1] > LOW:
                reason = (
                    f"oneDNN's sums are wrong for strided rows with over {LOW} zeros before them; use method='auto'."
                )
                continue
            try:
                found = parted(plan.call)
            except Failed as e:
                reason = f"{e}; use method='auto'."
                continue
            if not found.implementation.startswith("ref"):
                return plan, found
            reason = "oneDNN has its reference loops for it only, which are slow; use method='auto'."
    except Missing as e:
        reason = str(e)
    return reason


def refusal(problem: Problem, platform: str | None) -> str | None:
    if platform in ("gpu", "tpu"):
        return f"native: it calls a library for CPUs, and this is for {platform}; use method='auto'."
    if {*problem.dtypes} != {"float32"}:
        return f"native: it has float32 only, and not {', '.join(dict.fromkeys(problem.dtypes))}; use method='auto'."
    if len(problem.axes) > 3:
        return f"native: oneDNN convolves at most 3 axes, and there are {len(problem.axes)}; use method='auto'."
    if problem.is_empty:
        return None
    found = _asked(problem)
    return f"native: {found}" if isinstance(found, str) else None


def run(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
    plan, found = _asked(problem)
    kind = plan.call.kind
    if plan.exchanged:
        problem, x, w = problem.exchanged, w, x
    problem, w, finish = oriented(problem, w, -1 if kind == DATA else +1)
    lx, lw, ly = _layouts(kind, problem)
    x = _in_order(x, problem.layouts.x, lx)
    w = _in_order(w, problem.layouts.w, lw)
    for place, start, stop in zip(range(1, 4), plan.start, plan.stop, strict=False):
        x = x if kind == DATA else lax.slice_in_dim(x, start, stop, axis=place)
    sizes = dict(zip(problem.layouts.y, problem.y_shape, strict=True))
    if kind == DATA:
        parts = zip(problem.spatial, plan.start, plan.stop, strict=True)
        sizes |= {letter: stop - start for letter, start, stop in parts}
    shape = [sizes[letter] for letter in ly]
    y = _called(found, x, w, shape)
    if kind == DATA:
        for letter, start, axis in zip(problem.spatial, plan.start, problem.axes, strict=True):
            y = padded_along(y, ly, letter, start, axis.O)
    return finish(_in_order(y, ly, problem.layouts.y))


def _layouts(kind: int, problem: Problem) -> Triple:
    """The order of the arrays' axes as the library takes them: activations with features last, weights as they are."""
    batch, features = ("c", "n") if kind == WEIGHTS else ("n", "c")
    x = batch + problem.spatial + "g" + features
    if kind == WEIGHTS:
        return Triple(x, batch + problem.spatial + "gm", problem.layouts.y)
    return Triple(x, problem.layouts.w, batch + problem.spatial + "gm")


def _in_order(array: Array, layout: str, target: str) -> Array:
    return lax.transpose(array, [layout.index(letter) for letter in target])


def _called(found: Primitive, x: Array, w: Array, shape: Sequence[int]) -> Array:
    """The call in a program."""
    stack = [found.results] * (found.results > 1)
    results = [jax.ShapeDtypeStruct([*stack, *shape], x.dtype), jax.ShapeDtypeStruct([found.bytes], jnp.uint8)]
    y, _ = _in_program([0, *found.numbers], results, x, ready(found, x, w))
    return reduce(add, y) if stack else y  # XLA fuses these sums, not those along an axis


def ready(found: Primitive, x: Array, w: Array) -> Array:
    """The weights in the library's format, brought there by a call of its own.

    That has x for an operand, which it does not read: else XLA brings the weights of all layers at once, to new pages.
    """
    if not found.ready:
        return w
    [w] = _in_program([1, *found.numbers], [jax.ShapeDtypeStruct([found.ready], jnp.uint8)], x, w)
    return w


def _in_program(numbers: Sequence[int], results: Sequence[jax.ShapeDtypeStruct], *operands: Array) -> list[Array]:
    key = key_of(numbers)
    handler().ready(key)
    axes = varying(operands[0])
    return [varying_over(y, axes) for y in jax.ffi.ffi_call(TARGET, results)(*operands, key=key)]


# Its loops run over rows of outputs, kernel positions and blocks of features. A gradient in the kernel reads its input
# once for each kernel position. Where there are fewer parts than threads, it takes as much longer.
def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    plan, found = _asked(problem)
    call, kind = plan.call, f"{PASSES[plan.call.kind]}, {_loops(found.implementation)}"
    src, weights, dst = call.layer
    inputs, outputs = src.sizes[1] // problem.g, dst.sizes[1] // problem.g
    kernel = weights.sizes[-len(call.strides) :]
    idle = max(1.0, threads() / len(found.parts))
    pairs = idle * all_products(problem) / (inputs * outputs)
    rows = dst.sizes[0] * prod(dst.sizes[2:-1]) * prod(kernel[:-1])
    one = problem.exchanged if plan.exchanged else problem
    turned = [
        count
        for count, layout, target in zip(call.elements, one.layouts, _layouts(call.kind, one), strict=True)
        if _slim(one, layout) != _slim(one, target)
    ]
    counts = {
        "call": 1.0,
        "reorders": float(sum(found.moved)),
        "elements": elements(problem),
        "reordered": float(sum(compress(call.elements, found.moved))),
        "transposed": float(sum(turned)),
        "added": float(found.results * (found.results > 1) * call.elements[2]),
        kind: pairs * inputs * outputs,
        f"{kind}, rows": idle * rows * problem.g * -(-inputs // INPUTS) * -(-outputs // OUTPUTS),
    }
    if inputs * outputs > 1:
        counts |= {f"{kind}, over inputs": pairs * outputs, f"{kind}, over outputs": pairs * inputs}
        counts[f"{kind}, one pair"] = pairs
    if call.kind == WEIGHTS:
        counts["read again"] = float(prod(kernel) * prod(src.sizes))
    return compiled(1.0, float(len(turned))) | counts


def _slim(problem: Problem, layout: str) -> str:
    """The letters whose length is not 1."""
    return "".join(c for c in layout if c in problem.spatial or getattr(problem, c) != 1)


def _loops(implementation: str) -> str:
    """The kind of the library's loops, whatever their instruction set."""
    return next((kind for part, kind in LOOPS.items() if part in implementation), "loops")


# The scratch memory, and copies of what is not in the library's order.
def memory(problem: Problem, platform="cpu") -> float:
    plan, found = _asked(problem)
    results = found.results * (found.results > 1) * plan.call.elements[2]
    return float(found.bytes + found.ready + 4 * (results + work(problem)["transposed"]))


# The library sums in an order of its own choice.
def error(problem: Problem) -> tuple[float, float]:
    return summation_error(problem, problem.terms), 0.0


PASSES = ("forward", "input", "kernel")
LOW = 14  # zeros before a strided row, beyond which backward_weights is wrong (3.2, AVX-512: rows of 29 to 56 outputs)
INPUTS, OUTPUTS = 16, 64  # features of a block
LOOPS = {"gemm": "columns", "dw": "depthwise", "1x1": "product", "brg": "blocks"}
DENSE = [f"{of}, {loops}" for of in PASSES for loops in ("columns", "product", "blocks", "loops")]
DEPTHWISE = [f"{of}, depthwise" for of in PASSES]
KINDS = kinds_of(
    product=DENSE,
    loop=[*DEPTHWISE, *(f"{kind}, one pair" for kind in DENSE + DEPTHWISE)],
    cached=[
        *("reordered", "transposed", "added", "read again", *(f"{kind}, rows" for kind in DENSE + DEPTHWISE)),
        *(f"{kind}, over {ends}" for kind in DENSE + DEPTHWISE for ends in ("inputs", "outputs")),
    ],
    trip=[f"{of}, columns, rows" for of in PASSES],
    call=["reorders"],
)
NATIVE = Engine("native", always, refusal, work, memory, run, error, KINDS, opaque=True)
