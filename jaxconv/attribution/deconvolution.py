"""The deconvolutional network built layer by layer: switches, rectified signals, transposed filters.

Zeiler and Fergus invert a convolutional network from the top down. Each of its layers has a counterpart:

    max pooling    unpooling: each value goes back to where the maximum was, the switch
    max(z, 0)      max(r, 0)
    convolution    its adjoint, with the filters transposed (flipped), and no bias

It is what `deconvnet` computes by a backward rule: two routes to one map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from jaxconv.arguments import as_array, as_real, integers, is_integer, per_axis
from jaxconv.attribution.networks import chosen, images, targets
from jaxconv.lax import conv_general_dilated


def max_pool(x: Array, window: int | Sequence[int], strides: int | Sequence[int] | None = None) -> tuple[Array, Array]:
    """The largest value of each window, and where it was.

        y[n,o,c] = max over k < window of x[n, S*o + k, c];   switch[n,o,c] the position that has it

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.array([1., 4., 2., 2.]).reshape(1, 4, 1), 2)[1].ravel()            # of equals the first
    Array([1, 2], dtype=int32)

    Parameters
    ----------
    x : [n, ..., channels]
    window, strides : int or one for each spatial axis
        In samples; strides are the window by default. Windows lie within x, as flax's max_pool with padding 'VALID'.

    Returns
    -------
    values, switches : Array
        [n, ..., channels]; the switches are positions in the image, counted row by row.

    Raises
    ------
    ValueError
        Windows or strides that are no positive integers, or longer than x.

    Static under `jax.jit`: window, strides.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, 2013, section 2.1.
    """
    x = jnp.asarray(as_real("max_pool", "x", x))
    window, strides = _windows("max_pool", x, window, strides)
    sizes = x.shape[1:-1]
    counts = [(size - w) // s + 1 for size, w, s in zip(sizes, window, strides, strict=True)]
    values, places = [], []
    for offset in np.ndindex(*window):
        limits = [o + (count - 1) * s + 1 for o, count, s in zip(offset, counts, strides, strict=True)]
        values.append(lax.slice(x, (0, *offset, 0), (len(x), *limits, x.shape[-1]), (1, *strides, 1)))
        index = np.zeros(counts, np.int32)
        for axis, (o, count, s) in enumerate(zip(offset, counts, strides, strict=True)):
            along = (o + s * np.arange(count)) * int(np.prod(sizes[axis + 1 :]))
            index = index + along.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
        places.append(index.astype(np.int32))
    stacked, places = jnp.stack(values), jnp.asarray(np.stack(places))[:, None, ..., None]
    first = stacked.argmax(0)
    value = jnp.take_along_axis(stacked, first[None], 0)[0]
    switch = jnp.take_along_axis(jnp.broadcast_to(places, stacked.shape), first[None], 0)[0]
    return value, switch


def unpool(y: Array, switches: Array, shape: Sequence[int]) -> Array:
    """Values back to where their maxima were; zero elsewhere. The adjoint of max pooling at these switches.

        x[n,i,c] = sum over the o whose switch is i of y[n,o,c]

    >>> import jax.numpy as jnp
    >>> x = jnp.array([1., 4., 2., 2.]).reshape(1, 4, 1)
    >>> y, switches = max_pool(x, 2)
    >>> unpool(y, switches, x.shape).ravel()
    Array([0., 4., 2., 0.], dtype=float32)

    Parameters
    ----------
    y : [n, ..., channels]
    switches : as y
        As `max_pool` returns them.
    shape : tuple of int
        Of the result, [n, ..., channels].

    Returns
    -------
    Array

    Raises
    ------
    ValueError
        Switches of another shape than y, a shape of other images or channels.

    Static under `jax.jit`: shape.

    Source: Zeiler and Fergus 2013, section 2.1.
    """
    y, switches = (jnp.asarray(as_array("unpool", name, a)) for name, a in (("y", y), ("switches", switches)))
    shape = integers("unpool", "shape", shape, y.ndim, least=0)
    if not jnp.issubdtype(switches.dtype, jnp.integer):
        raise TypeError(
            f"`unpool` got switches of dtype {switches.dtype}: they are positions. Pass those that `max_pool` returned."
        )
    if y.ndim < 2 or y.shape != switches.shape or (y.shape[0], y.shape[-1]) != (shape[0], shape[-1]):
        raise ValueError(
            f"`unpool` got y of shape {y.shape}, switches of shape {switches.shape} and shape={shape}: y and switches "
            "must have one shape, and the result the same images and channels. Pass what `max_pool` was given and gave."
        )
    n, c = shape[0], shape[-1]
    y = y.astype(jnp.int32) if y.dtype == jnp.bool_ else y  # booleans are counted
    flat = jnp.zeros((n, int(np.prod(shape[1:-1])), c), y.dtype)
    image, channel = jnp.arange(n)[:, None, None], jnp.arange(c)
    return flat.at[image, switches.reshape(n, -1, c), channel].add(y.reshape(n, -1, c)).reshape(shape)


@dataclass(frozen=True)
class MaxPool:
    """Max pooling as a layer of `deconvnet_layers`.

        y[n,o,c] = max over k < window of x[n, S*o + k, c]

    >>> import jax.numpy as jnp
    >>> MaxPool(2)(jnp.array([1., 4., 2., 3.]).reshape(1, 4, 1)).ravel()
    Array([4., 3.], dtype=float32)

    Parameters
    ----------
    window, strides
        As in `max_pool`. Its call returns the values [n, ..., channels], and raises as `max_pool`.

    Static under `jax.jit`: window, strides. Source: Zeiler and Fergus 2013.
    """

    window: int | tuple[int, ...] = 2
    strides: int | tuple[int, ...] | None = None

    def __call__(self, x: Array) -> Array:
        return max_pool(x, self.window, self.strides)[0]


def deconvnet_layers(layers: Sequence[Callable], x: Array, target: Any) -> Array:
    """The map of a chain of layers, inverted one by one from a class's score down to the pixels.

        r <- transposed filters (max(unpool(r), 0) ...)   from r = 1 at the target, 0 at the other classes

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layers = [nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, MaxPool(2), lambda a: a.mean((1, 2)),
    ...           nnx.Linear(4, 3, rngs=nnx.Rngs(1))]
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    >>> from jaxconv.attribution import deconvnet
    >>> bool(jnp.allclose(deconvnet_layers(layers, x, 2), deconvnet(nnx.Sequential(*layers), x, 2), atol=1e-6))
    True

    Parameters
    ----------
    layers : sequence
        nnx.Conv, `jaxconv.layers.Correlate` and `Convolve` (zeros beyond the border), nnx.relu, `MaxPool`, nnx.Linear,
        and any linear function, as a mean or a reshape.
    x : [n, ..., channels]
    target : int or [n]

    Returns
    -------
    Array
        As x, with signs.

    Raises
    ------
    ValueError
        A target out of range; a layer that is neither of these kinds nor a linear function.

    Static under `jax.jit`: layers.

    Source: Zeiler and Fergus 2013.
    """
    x = images("deconvnet_layers", x)
    backward, value = [], x
    for layer in layers:
        value, back = _step(layer, value)
        backward.append(back)
    wanted = targets("deconvnet_layers", target, len(x), value.shape[-1])
    r = jax.grad(lambda scores: chosen(scores, wanted).sum())(value)
    for back in reversed(backward):
        r = back(r)
    return r


def _step(layer: Any, x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """(what a layer gives, what its counterpart does)."""
    if layer is jax.nn.relu:
        return layer(x), lambda r: jnp.maximum(r, 0)
    if isinstance(layer, MaxPool):
        y, switches = max_pool(x, layer.window, layer.strides)
        return y, lambda r: unpool(r, switches, x.shape)
    y = layer(x)
    if hasattr(layer, "conv_general_dilated") or type(layer).__name__ == "Linear":
        kernel = layer.kernel[...]
        return y, (lambda r: r @ kernel.T) if kernel.ndim == 2 else partial(_transposed, layer, kernel, x.shape)
    nothing = layer(jnp.zeros_like(x))
    transposed = jax.linear_transpose(layer, x)
    try:
        jax.eval_shape(transposed, y)
        linear = isinstance(y, Tracer) or (np.allclose(nothing, 0) and np.allclose(layer(-2 * x), -2 * y, 1e-4, 1e-5))
    except (AssertionError, NotImplementedError, TypeError):  # what JAX raises of a nonlinear operation
        linear = False
    if not linear:
        raise ValueError(
            f"`deconvnet_layers` got the layer {layer!r}, which is neither a convolution, nnx.relu, MaxPool, "
            "nnx.Linear nor a linear function: it has no counterpart. Use `deconvnet`, which goes through any network."
        )
    return y, lambda r: transposed(r)[0]


def _transposed(layer: Any, kernel: Array, shape: tuple[int, ...], r: Array) -> Array:
    """The filters transposed: turned by 180 degrees, their channels exchanged, strides become zeros between."""
    d = len(shape) - 2
    names = ("strides", "kernel_dilation", "input_dilation")
    strides, dilation, spread = (per_axis("deconvnet_layers", n, getattr(layer, n) or 1, d) for n in names)
    K = [step * (size - 1) + 1 for size, step in zip(kernel.shape, dilation, strict=False)]
    pads = _pads(layer.padding, shape[1:-1], K, strides)
    if any(step != 1 for step in spread) or layer.mask is not None or pads is None:
        raise ValueError(
            f"`deconvnet_layers` got a convolution with padding={layer.padding!r}, input_dilation={spread} and mask="
            f"{'set' if layer.mask is not None else None}: it inverts layers with zeros beyond the border, and neither "
            "input dilation nor mask. Use `deconvnet`."
        )
    if not getattr(layer, "flip_kernel", False):
        kernel = jnp.flip(kernel, range(d))
    groups = layer.feature_group_count
    *window, c, m = kernel.shape
    kernel = jnp.moveaxis(kernel.reshape(*window, c, groups, m // groups), (-1, -3), (d, -1))
    kernel = kernel.reshape(*window, m // groups, groups * c)
    ends = [
        (k - 1 - low, size + k - 1 - (r_size - 1) * s - 1 - (k - 1 - low))
        for k, (low, _), size, r_size, s in zip(K, pads, shape[1:-1], r.shape[1:-1], strides, strict=True)
    ]
    letters = "WXYZ"[:d]
    return conv_general_dilated(
        r, kernel, (1,) * d, ends, strides, dilation, (f"N{letters}C", f"{letters}IO", f"N{letters}C"), groups
    )


def _pads(padding: Any, sizes, K, strides) -> list[tuple[int, int]] | None:
    """(low, high) of each axis; None where it is not zeros that lie beyond the border."""
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID", "SAME_LOWER"):
            return None
        return list(lax.padtype_to_pads(sizes, K, strides, padding))
    pairs = [padding] * len(sizes) if isinstance(padding, int) else padding
    return [(p, p) if isinstance(p, int) else tuple(p) for p in pairs]


def _windows(call: str, x: Array, window: Any, strides: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if x.ndim < 2:
        raise ValueError(f"`{call}` got x of shape {x.shape}: it must be a batch, [n, ..., channels]. Add the axes.")
    sizes = x.shape[1:-1]
    given = window, window if strides is None else strides
    window, strides = ((values,) * len(sizes) if is_integer(values) else values for values in given)
    for name, values in (("window", window), ("strides", strides)):
        sequence = isinstance(values, list | tuple) and len(values) == len(sizes)
        if not sequence or not all(is_integer(v) and v >= 1 for v in values):
            raise ValueError(
                f"`{call}` got {name}={values!r}: it must be a positive integer, or one for each of {len(sizes)} axes. "
                f"Pass {name}=2."
            )
    window, strides = (tuple(map(int, values)) for values in (window, strides))
    if any(w > size for w, size in zip(window, sizes, strict=True)):
        raise ValueError(
            f"`{call}` got window={window} for x of shape {x.shape}: a window must lie within x. Pass a smaller one."
        )
    return window, strides
