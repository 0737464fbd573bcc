"""Occlusion: what the score loses when a part of the image is covered."""

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import per_axis, positive
from jaxconv.attribution.chunking import Progress, stacked
from jaxconv.attribution.networks import Model, background, chosen, compiled, finite, prepared


def occlusion(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    window: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    baseline: Any = 0.0,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """What each window of the image is worth to the score: how much it falls when the window is covered.

        map[n,o] = y[n, target](x) - y[n, target](x with b in place of x[n, S*o + k], k < window)

    >>> import jax.numpy as jnp
    >>> model = lambda x: x.sum((1, 2))[:, None]
    >>> occlusion(model, jnp.array([[[1.], [2.], [3.], [4.]]]), 0, window=2)
    Array([[3., 5., 7.]], dtype=float32)

    Parameters
    ----------
    model, x, target, progress
        As in `saliency`.
    window, stride : int or one for each spatial axis
        In samples. Windows lie within the image, and need not reach its end.
    baseline : float or array
        b, broadcast to x: what covers.
    chunk : int, optional
        How many covered images pass the network at a time; by default as many as there are images.

    Returns
    -------
    Array
        [n, *windows], one value a window, (size - window) // stride + 1 of them along each axis. For a linear model it
        is the correlation of w (x - b) with a box.

    Raises
    ------
    ValueError, TypeError
        As `saliency`; windows that are no positive integers, or longer than the image.

    Static under `jax.jit`: model, window, stride, chunk, progress.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, 2013, section 4.2.
    """
    x, net, wanted, _ = prepared("occlusion", model, x, target, chunk)
    sizes, rule = x.shape[1:-1], f", or one for each of {x.ndim - 2} axes"
    window, stride = (
        tuple(positive("occlusion", name, v, rule=rule) for v in per_axis("occlusion", name, value, len(sizes)))
        for name, value in (("window", window), ("stride", stride))
    )
    if any(w > size for w, size in zip(window, sizes, strict=True)):
        raise ValueError(f"`occlusion` got window={window}: it must not exceed the image's size, {sizes}. Pass less.")
    cover = background("occlusion", baseline, x)
    found, score = compiled(_fallen, net.call, net.state, x, wanted, cover, window, stride, chunk, progress)
    finite("occlusion", score)
    return found


@partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))
def _fallen(call, state, x, target, cover, window, stride, chunk, progress):
    scores = stacked(lambda image, _: call(state, x[image]), len(x), 1, chunk)[:, 0]
    target = scores.argmax(1) if target is None else target
    whole = chosen(scores, target)
    counts = [(size - w) // s + 1 for size, w, s in zip(x.shape[1:-1], window, stride, strict=True)]
    starts = np.stack(np.unravel_index(np.arange(prod(counts)), counts), 1) * np.array(stride)
    positions = [np.arange(size) for size in x.shape[1:-1]]

    def row(image, which):
        start = jnp.asarray(starts)[which]
        inside = jnp.ones([len(start), *[1] * (x.ndim - 1)], bool)
        for axis, (p, w) in enumerate(zip(positions, window, strict=True)):
            along = (p[None] >= start[:, axis, None]) & (p[None] < start[:, axis, None] + w)
            shape = [1] * (x.ndim - 1)
            shape[axis] = len(p)
            inside &= along.reshape(len(start), *shape)
        return chosen(call(state, jnp.where(inside, cover[image], x[image])), target[image])

    covered = stacked(row, len(x), prod(counts), chunk, progress)
    found = whole[:, None] - covered
    return found.reshape(len(x), *counts), whole
