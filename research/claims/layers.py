"""A network's layers within one step of training, judged by derived bounds.

How far two trainings drift apart says how chaotic training is, and depends on the processor. What an engine or a flip
may change is told one step at a time, from the same state: each layer of that step gets the same input x, kernel w and
gradient dy of its output, and its three results (y, dL/dx, dL/dw) must be as near to the exact ones as the running
error analysis of that engine allows (`jaxconv.identities.rounding`). All else in the step, ReLU, pooling and loss, is
one program for all engines and for both kinds of layers.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.identities.rounding import bounds


class Layer(NamedTuple):
    """What a layer is given in a step: its input, its kernel, and the loss's gradient in its output."""

    x: Any
    w: Any
    dy: Any
    options: tuple[tuple[str, Any], ...]  # strides, padding and so on, as lax names them


def layers_of(step: Callable[[Callable], Callable], operation: Callable) -> Callable[..., list[Layer]]:
    """step(operation) differentiates a loss; the result has its arguments, and gives what each layer is given."""
    seen: list[Layer] = []

    def watched(x, w, window_strides, padding, **options):
        options |= {"window_strides": window_strides, "padding": padding}
        run = partial(operation, **options)
        layer = jax.custom_vjp(run)

        def back(given, dy):
            x, w = given
            seen.append(Layer(x, w, dy, tuple(options.items())))
            return jax.vjp(run, x, w)[1](dy)

        layer.defvjp(lambda x, w: (run(x, w), (x, w)), back)
        return layer(x, w)

    @jax.jit
    def arrays(*args):
        seen.clear()
        step(watched)(*args)
        return [layer[:3] for layer in seen]

    return lambda *args: [Layer(x, w, dy, a.options) for (x, w, dy), a in zip(arrays(*args), seen, strict=True)]


def turned(w):
    """A kernel, height and width first, turned by 180 degrees."""
    return jnp.flip(w, (0, 1))


@cache
def passes(operation: Callable, options: tuple, flip: bool) -> Callable:
    """(x, w, dy) -> (y, dL/dx, dL/dw) of a layer. With `flip` it starts from the turned kernel, and its gradient is
    turned back: so a convolution has the results of the correlation.
    """

    @jax.jit
    def run(x, w, dy):
        y, back = jax.vjp(partial(operation, **dict(options)), x, turned(w) if flip else w)
        dx, dw = back(dy)
        return y, dx, turned(dw) if flip else dw

    return run


def worst(layers: list[Layer], one: Callable, other: Callable, flip: bool = False) -> float:
    """Over the layers' results by two operations, and their elements: the difference as a share of its bound.

    The bound is the sum of both operations' own. Where it is 0, as it is for integers, so must the difference be.
    """
    shares = []
    for layer in layers:
        (found, errors), (others, more) = judged(layer, one, False), judged(layer, other, flip)
        for a, b, p, q in zip(found, others, errors, more, strict=True):
            shares.append((np.abs(a - b) / np.maximum(p + q, np.finfo(float).tiny)).max())
    return float(np.max(shares))  # a NaN is not passed over


def judged(layer: Layer, operation: Callable, flip: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A layer's results, and how far each element may be from the exact one."""
    *given, options = layer
    run = passes(operation, options, flip)
    found = [np.asarray(a, np.float64) for a in run(*given)]
    return found, [limit.error for limit in bounds(jax.make_jaxpr(run)(*given), given, jax.default_backend())]
