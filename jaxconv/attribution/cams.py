"""Class activation maps: a layer's features, weighed with the gradient of a class's score, as a coarse picture."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxconv.attribution.chunking import Progress, summed
from jaxconv.attribution.features import LAST, features_of, with_features
from jaxconv.attribution.gradients import guided_backprop
from jaxconv.attribution.networks import Model, Network, chosen, compiled, finite, prepared, where_known

Normalise = Literal["none", "max", "minmax"]


def grad_cam(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    layer: str = LAST,
    upsample: bool = True,
    normalise: Normalise = "none",
    rectify: bool = True,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """Where a layer's features speak for the class: each channel weighed with its mean gradient.

        alpha[n,k] = mean over i of d y[n, target] / d A[n,i,k]
        map[n,i]   = max(sum over k of alpha[n,k] A[n,i,k], 0)

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = nnx.Sequential(nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu,
    ...                        lambda a: a.mean((1, 2)), nnx.Linear(4, 10, rngs=nnx.Rngs(1)))
    >>> grad_cam(model, jnp.ones((2, 8, 8, 1)), target=jnp.array([3, 5]), layer="layers.0").shape
    (2, 8, 8)

    Parameters
    ----------
    model, x, target, chunk, progress
        As in `saliency`.
    layer : str
        Whose output the features A are: a module's path, as 'blocks.1.conv', with '#2' for its second call; in a plain
        function a name that `jax.ad_checkpoint.checkpoint_name` gave; or 'last_conv', the last convolution with its
        bias, before what follows.
    upsample : bool
        Linearly to the size of x; else the map has the features' size.
    normalise : str
        Each map: 'none', 'max' divides by the largest value, 'minmax' maps the range to 0 ... 1; a map that is zero
        everywhere stays so.
    rectify : bool
        Whether negative values become zero.

    Returns
    -------
    Array
        [n, ...], as x without channels, or of the features' size.

    Raises
    ------
    ValueError
        A layer that the model does not call (the message lists those that it does), one without positions; else as
        `saliency`.
    TypeError
        As `saliency`.

    Static under `jax.jit`: model, layer, upsample, normalise, rectify, chunk, progress.

    Source: Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, 2016.
    """
    return _cam("grad_cam", _mean_gradient, model, x, target, layer, upsample, normalise, rectify, chunk, progress)


def grad_cam_plus_plus(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    layer: str = LAST,
    upsample: bool = True,
    normalise: Normalise = "none",
    rectify: bool = True,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """Grad-CAM whose mean counts a position more where the gradient would explain the score alone.

        a[n,i,k]   = g^2 / (2 g^2 + (sum over j of A[n,j,k]) g^3),  g = d y[n, target] / d A[n,i,k]
        alpha[n,k] = sum over i of a[n,i,k] max(g, 0);   map as in `grad_cam`

    The score is taken as the logarithm of the paper's, so that its higher derivatives are powers of g; a is 0 where its
    denominator is.

    >>> import jax.numpy as jnp
    >>> from jax.ad_checkpoint import checkpoint_name
    >>> model = lambda x: checkpoint_name(2 * x, "features").mean(1)
    >>> grad_cam_plus_plus(model, jnp.ones((1, 2, 1)), 0, layer="features")             # a = 1/4, alpha = 1/4
    Array([[0.5, 0.5]], dtype=float32)

    Arguments are those of `grad_cam`. Returns an Array, raises, and is static under `jax.jit` as `grad_cam`.

    Source: Chattopadhyay, Sarkar, Howlader and Balasubramanian, Grad-CAM++, 2018.
    """
    return _cam(
        "grad_cam_plus_plus", _plus_plus, model, x, target, layer, upsample, normalise, rectify, chunk, progress
    )


def layer_cam(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    layer: str = LAST,
    upsample: bool = True,
    normalise: Normalise = "none",
    rectify: bool = True,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """Each feature weighed with its own positive gradient: a map for early layers, too.

        map[n,i] = max(sum over k of max(d y[n, target] / d A[n,i,k], 0) A[n,i,k], 0)

    >>> import jax.numpy as jnp
    >>> from jax.ad_checkpoint import checkpoint_name
    >>> model = lambda x: (checkpoint_name(x, "features") * jnp.array([[[2.], [-2.]]])).sum(1)
    >>> layer_cam(model, jnp.ones((1, 2, 1)), 0, layer="features")
    Array([[2., 0.]], dtype=float32)

    Arguments are those of `grad_cam`. Returns an Array, raises, and is static under `jax.jit` as `grad_cam`.

    Source: Jiang, Zhang, Hou, Cheng and Wei, LayerCAM, 2021.
    """
    return _cam("layer_cam", _positive, model, x, target, layer, upsample, normalise, rectify, chunk, progress)


def hires_cam(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    layer: str = LAST,
    upsample: bool = True,
    normalise: Normalise = "none",
    rectify: bool = True,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """Each feature times its own gradient: faithful where the rest of the net is linear.

        map[n,i] = max(sum over k of d y[n, target] / d A[n,i,k] A[n,i,k], 0)

    >>> import jax.numpy as jnp
    >>> from jax.ad_checkpoint import checkpoint_name
    >>> model = lambda x: (checkpoint_name(x, "features") * jnp.array([[[2.], [-2.]]])).sum(1) + 1
    >>> hires_cam(model, jnp.ones((1, 2, 1)), 0, layer="features", rectify=False)      # sums to the score, less 1
    Array([[ 2., -2.]], dtype=float32)

    Arguments are those of `grad_cam`. Returns an Array, raises, and is static under `jax.jit` as `grad_cam`.

    Source: Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations, 2020.
    """
    return _cam("hires_cam", _own_gradient, model, x, target, layer, upsample, normalise, rectify, chunk, progress)


def guided_grad_cam(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    layer: str = LAST,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """Guided backpropagation where Grad-CAM says that the class is: sharp, and of one class.

        map[n,i,c] = guided_backprop[n,i,c] * grad_cam[n,i]

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> model = nnx.Sequential(nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu,
    ...                        lambda a: a.mean((1, 2)), nnx.Linear(4, 10, rngs=nnx.Rngs(1)))
    >>> guided_grad_cam(model, jnp.ones((2, 8, 8, 1)), target=3).shape
    (2, 8, 8, 1)

    Parameters
    ----------
    model, x, target, layer, chunk, progress
        As in `grad_cam`.

    Returns
    -------
    Array
        As x, with signs.

    Raises
    ------
    ValueError, TypeError
        As `grad_cam` and `guided_backprop`.

    Static under `jax.jit`: model, layer, chunk, progress.

    Source: Selvaraju et al. 2016, section 3.2.
    """
    where = _cam("guided_grad_cam", _mean_gradient, model, x, target, layer, True, "none", True, chunk, progress)
    return guided_backprop(model, x, target, chunk=chunk, progress=progress) * where[..., None]


# ---- how features and their gradients become weights, [n, ..., k] for A and g


def _mean_gradient(a: Array, g: Array) -> Array:
    return g.mean(tuple(range(1, g.ndim - 1)), keepdims=True)


def _plus_plus(a: Array, g: Array) -> Array:
    axes = tuple(range(1, g.ndim - 1))
    below = 2 * g**2 + a.sum(axes, keepdims=True) * g**3
    share = jnp.where(below == 0, 0, g**2 / jnp.where(below == 0, 1, below))
    return (share * jnp.maximum(g, 0)).sum(axes, keepdims=True)


def _positive(a: Array, g: Array) -> Array:
    return jnp.maximum(g, 0)


def _own_gradient(a: Array, g: Array) -> Array:
    return g


def _cam(call, weigh, model, x, target, layer, upsample, normalise, rectify, chunk, progress) -> Array:
    if normalise not in ("none", "max", "minmax"):
        raise ValueError(f"`{call}` got normalise={normalise!r}: it must be 'none', 'max' or 'minmax'. Pass 'max'.")
    x, net, wanted, _ = prepared(call, model, x, target, chunk)
    name = (call, layer)
    found, score = compiled(_maps, net.call, net.state, x, wanted, name, weigh, rectify, chunk, progress)
    finite(call, score, found)
    found = resized(found, x.shape[1:-1]) if upsample else found
    return normalised(found, normalise)


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7, 8))
def _maps(call, state, x, target, name, weigh: Callable, rectify, chunk, progress):
    net = Network(call, state)

    def row(image, _):
        part = x[image]
        a, g, score = attended(net, part, None if target is None else target[image], *name)
        found = (weigh(a, g) * a).sum(-1)
        return (jnp.maximum(found, 0) if rectify else found), score

    found, score = summed(row, len(x), 1, chunk, progress)
    return where_known(found, score), score


def attended(net, x: Array, target: Array | None, call: str, layer: str) -> tuple[Array, Array, Array]:
    """(features, their gradient, score) of each image's target."""
    features = features_of(call, net, x, layer)

    def score(more):
        scores, a = with_features(net, features, x, more)
        found = chosen(scores, target)
        return found.sum(), (a, found)

    gradient, (a, found) = jax.grad(score, has_aux=True)(jnp.zeros(features.shape, features.dtype))
    return a, gradient, found


def resized(maps: Array, shape: tuple[int, ...]) -> Array:
    """Maps [n, ...] at another size, linearly."""
    if len(shape) != maps.ndim - 1:
        raise ValueError(
            f"A map of shape {maps.shape} has other axes than the input's {shape}, so it cannot be brought to its "
            "size. Use upsample=False."
        )
    return jax.image.resize(maps, (len(maps), *shape), "linear")


def normalised(maps: Array, how: Normalise) -> Array:
    """Each map over its largest value, or its range; zero where that is zero."""
    axes = tuple(range(1, maps.ndim))
    low = maps.min(axes, keepdims=True) if how == "minmax" else jnp.zeros((), maps.dtype)
    span = maps.max(axes, keepdims=True) - low
    return maps if how == "none" else jnp.where(span <= 0, 0, (maps - low) / jnp.where(span <= 0, 1, span))
