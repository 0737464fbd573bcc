"""Guided attention inference: training on where a network looks.

Grad-CAM is computed within the loss. What it covers is hidden from the image, I* = I - T(A) I, and the loss asks that
the class cannot be recognised any more: so the attention must cover all of it. Where masks are known the attention is
drawn to them.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxconv.arguments import as_floating, as_real, is_integer
from jaxconv.attribution.cams import resized
from jaxconv.attribution.features import LAST, Features, features_of, with_features
from jaxconv.attribution.networks import (
    Model,
    Network,
    chosen,
    class_count,
    finite,
    images,
    in_training,
    network,
    prepared,
    several,
    targets,
    where_known,
)


class Gain(NamedTuple):
    """The loss of guided attention and its parts, all scalars but the attention, [n, labels, ...]."""

    loss: Array
    classification: Array
    mining: Array
    external: Array
    attention: Array


def attention(model: Model, x: ArrayLike, target: Any, *, layer: str = LAST, second_order: bool = False) -> Array:
    """Grad-CAM as part of a loss: over its largest value, of the size of x, differentiable in the model's parameters.

        A = max(sum over k of w[k] f[k], 0) / max A,   w[n,k] = mean over i of d s[n, target] / d f[n,i,k]

    >>> import jax.numpy as jnp
    >>> from jax.ad_checkpoint import checkpoint_name
    >>> model = lambda x: checkpoint_name(x, "features").mean(1)
    >>> attention(model, jnp.array([[[1.], [2.]]]), 0, layer="features")
    Array([[0.5, 1. ]], dtype=float32)

    Parameters
    ----------
    model, x, target, layer
        As in `grad_cam`. Inside a loss: a function of x that closes over the parameters, or a merged NNX model.
    second_order : bool
        Whether derivatives go through w, too; by default w is a constant, as is the largest value always.

    Returns
    -------
    Array
        [n, ...], between 0 and 1.

    Raises
    ------
    ValueError, TypeError
        As `grad_cam`.

    Static under `jax.jit`: model, layer, second_order.

    Source: Li, Wu, Peng, Ernst and Fu, Tell me where to look: guided attention inference network, 2018, equations 1, 2.
    """
    x, net, wanted, _ = prepared("attention", model, x, target)
    features = features_of("attention", net, x, layer)
    scores, found = _attention(net, features, x, wanted, second_order)
    finite("attention", scores)
    return found


def _attention(net: Network, features: Features, x: Array, target: Array | None, second_order: bool):
    """(scores, the attention of each image's target)."""

    def score(more):
        scores, a = with_features(net, features, x, more)
        return chosen(scores, target).sum(), (a, scores)

    weights, (a, scores) = jax.grad(score, has_aux=True)(jnp.zeros(features.shape, features.dtype))
    weights = weights.mean(tuple(range(1, weights.ndim - 1)), keepdims=True)
    weights = weights if second_order else jax.lax.stop_gradient(weights)
    found = jnp.maximum((weights * a).sum(-1), 0)
    most = jax.lax.stop_gradient(found.max(tuple(range(1, found.ndim)), keepdims=True))
    found = jnp.where(most > 0, found / jnp.where(most > 0, most, 1), 0)
    return scores, where_known(resized(found, x.shape[1:-1]), chosen(scores, target))


def masked(x: Array, attention: Array, *, sigma: float = 0.5, omega: float = 10.0) -> Array:
    """The image without what is attended to.

        I* = I - T(A) I,   T(A) = 1 / (1 + exp(-omega (A - sigma)))

    >>> import jax.numpy as jnp
    >>> masked(jnp.array([[[2.], [4.]]]), jnp.array([[0.5, 0.5]])).ravel()
    Array([1., 2.], dtype=float32)

    Parameters
    ----------
    x : [n, ..., channels]
    attention : [n, ...]
        Of the size of x, between 0 and 1.
    sigma, omega : float
        The threshold and its steepness; with omega 0 half of the image is left everywhere.

    Returns
    -------
    Array
        As x.

    Raises
    ------
    ValueError
        An attention of another size than x.

    Static under `jax.jit`: nothing.

    Source: Li et al. 2018, equations 3 and 4; they give no sigma and no omega.
    """
    x, attention = as_floating("masked", "x", x), as_floating("masked", "attention", attention)
    if attention.shape != x.shape[:-1]:
        raise ValueError(
            f"`masked` got attention of shape {attention.shape} for x of shape {x.shape}: it must be {x.shape[:-1]}, "
            "one value a position. Bring it to the size of x."
        )
    return x - jax.nn.sigmoid(omega * (attention - sigma))[..., None] * x


def gain_loss(
    model: Model,
    x: ArrayLike,
    labels: ArrayLike,
    *,
    layer: str = LAST,
    alpha: float = 1.0,
    sigma: float = 0.5,
    omega: float = 10.0,
    most_labels: int | None = None,
    masks: ArrayLike | None = None,
    has_mask: ArrayLike | None = None,
    external: float = 10.0,
    second_order: bool = False,
    frozen: Callable[[Array], Array] | None = None,
) -> Gain:
    """The loss of a guided attention inference network: classification, attention mining, and known masks.

        L = L_cl + alpha * L_am + external * L_e
        L_am = mean over images and true classes c of p[c](I - T(A_c) I)
        L_e  = mean over images with a mask, and over pixels, of (A_c - H_c)^2

    with A_c the attention of class c (`attention`), T the soft threshold of `masked`, and p the probability, whose
    gradient is bounded where the score's would not be.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> model = nnx.Sequential(nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu,
    ...                        lambda a: a.mean((1, 2)), nnx.Linear(4, 3, rngs=nnx.Rngs(1)))
    >>> x, labels = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0, 2])
    >>> loss, gradient = nnx.value_and_grad(lambda model: gain_loss(model, x, labels).loss)(model)

    Parameters
    ----------
    model : nnx.Module, bound linen.Module, or function
        As in `saliency`. An NNX model may be in train mode: then it is called once more, for the classification, which
        trains its batch norms and drops features; attention and masked image are seen by its eval mode.
    x : [n, ..., channels]
    labels : [n] integers, or [n, classes] of 0 and 1
        One class an image (softmax and cross-entropy), or any number of them (a sigmoid for each).
    layer : str
        As in `grad_cam`.
    alpha, external : float
        The weights of mining and of masks. With alpha 0, and without masks, it is plain training; a warm-up is a
        schedule of alpha.
    sigma, omega : float
        As in `masked`.
    most_labels : int, optional
        How many true classes an image has at most; the number of classes by default. Each has a mask and a pass of its
        own.
    masks : [n, ...] or [n, classes, ...], optional
        H, of the size of x without channels, between 0 and 1: where the class is.
    has_mask : [n] of 0 and 1, optional
        Which images' masks count; all by default.
    second_order : bool
        Whether derivatives go through the weights of the attention.
    frozen : function, optional
        What sees the attention and the masked image in place of model: for functions that train batch norms.

    Returns
    -------
    Gain
        (loss, classification, mining, external, attention).

    Raises
    ------
    ValueError, TypeError
        As `grad_cam`; labels or masks of other shapes. Within `jax.grad` or `jax.jit` values are not known: NaN stays.

    Static under `jax.jit`: model, layer, most_labels, second_order, frozen.

    Source: Li et al. 2018, equations 5 to 8. The paper gives neither sigma nor omega nor A's scale; those are ours.
    """
    x, labels = images("gain_loss", x), jnp.asarray(as_real("gain_loss", "labels", labels))
    net, training = _frozen(model, frozen)
    classes = class_count("gain_loss", net, x)
    many, each, weight = _labels(labels, len(x), classes, most_labels)
    features = features_of("gain_loss", net, x, layer)

    scores, maps = zip(*(_attention(net, features, x, target, second_order) for target in each.T), strict=True)
    classification = _cross_entropy(scores[0] if training is None else training(x), labels, many)
    finite("gain_loss", scores[0])
    maps = jnp.stack(maps, 1)

    hidden = [
        _probability(net.call(net.state, masked(x, maps[:, j], sigma=sigma, omega=omega)), each[:, j], many)
        for j in range(each.shape[1])
    ]
    mining = _mean(jnp.stack(hidden, 1), weight)
    loss = classification + alpha * mining
    outside = jnp.zeros((), loss.dtype)
    if masks is not None:
        outside = _apart(maps, masks, each, weight, has_mask, classes)
        loss = loss + external * outside
    return Gain(loss, classification, mining, outside, maps)


def _frozen(model: Model, frozen: Callable[[Array], Array] | None) -> tuple[Network, Callable | None]:
    """(the network without training, what is called to train it, if that is another)."""
    if frozen is not None:
        return network("gain_loss", frozen), model
    if "flax" in sys.modules:
        from flax import nnx

        if isinstance(model, nnx.Module) and in_training(model):
            fixed = nnx.merge(*nnx.split(model), copy=True)
            fixed.eval()
            return network("gain_loss", fixed), model
    return network("gain_loss", model), None


def _mean(values: Array, weight: Array) -> Array:
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1)


def _apart(maps: Array, masks: Any, each: Array, weight: Array, has_mask: Any, classes: int) -> Array:
    masks = jnp.asarray(as_real("gain_loss", "masks", masks)).astype(maps.dtype)
    if masks.shape == (len(maps), *maps.shape[2:]):
        masks = jnp.broadcast_to(masks[:, None], maps.shape)
    elif masks.shape == (len(maps), classes, *maps.shape[2:]):
        masks = jnp.take_along_axis(masks, each.reshape(*each.shape, *[1] * (maps.ndim - 2)), 1)
    else:
        raise ValueError(
            f"`gain_loss` got masks of shape {masks.shape}: for attention of shape {maps.shape} they must be "
            f"[n, ...] or [n, classes, ...], {(len(maps), *maps.shape[2:])} or {(len(maps), classes, *maps.shape[2:])}"
            ". Bring them to the size of x."
        )
    if has_mask is not None:
        has_mask = jnp.asarray(as_real("gain_loss", "has_mask", has_mask)).astype(weight.dtype)
        if has_mask.shape != (len(maps),):
            raise ValueError(
                f"`gain_loss` got has_mask of shape {has_mask.shape}: it must be {(len(maps),)}. Pass one an image."
            )
        weight = weight * has_mask[:, None]
    return _mean(((maps - masks) ** 2).mean(tuple(range(2, maps.ndim))), weight)


def _labels(labels: Array, n: int, classes: int, most: int | None) -> tuple[bool, Array, Array]:
    """(many, classes of each image, which of them count), [n, labels]."""
    if labels.shape == (n,) and jnp.issubdtype(labels.dtype, jnp.integer):
        several("gain_loss", classes)
        wanted = targets("gain_loss", labels, n, classes)
        assert wanted is not None
        return False, wanted[:, None], jnp.ones((n, 1))
    if labels.shape != (n, classes):
        raise ValueError(
            f"`gain_loss` got labels of dtype {labels.dtype} and shape {labels.shape}: they must be integers [n] or "
            f"zeros and ones [n, classes], {(n,)} or {(n, classes)}. Pass one of these."
        )
    if most is not None and not (is_integer(most) and not isinstance(most, bool) and 1 <= most <= classes):
        raise ValueError(
            f"`gain_loss` got most_labels={most!r}: it must be an integer from 1 to {classes}, the classes. "
            f"Pass {classes}."
        )
    if most is not None and not isinstance(labels, Tracer) and int(jnp.max((labels > 0).sum(1))) > most:
        raise ValueError(
            f"`gain_loss` got most_labels={most} and an image with {int(jnp.max((labels > 0).sum(1)))} true classes: "
            "it must be as many as any image has. Pass more."
        )
    weight, each = jax.lax.top_k(jnp.asarray(labels, jnp.float32), most or classes)
    return True, each, weight


def _cross_entropy(scores: Array, labels: Array, many: bool) -> Array:
    if many:
        return -(labels * jax.nn.log_sigmoid(scores) + (1 - labels) * jax.nn.log_sigmoid(-scores)).mean()
    return -chosen(jax.nn.log_softmax(scores), labels).mean()


def _probability(scores: Array, target: Array, many: bool) -> Array:
    return chosen(jax.nn.sigmoid(scores) if many else jax.nn.softmax(scores), target)
