"""Maps from derivatives of a class's score: the gradient, its averages, and the two backward rules of ReLU."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.polynomial.legendre import leggauss

from jaxconv.arguments import as_real, positive, promoted
from jaxconv.attribution.chunking import Progress, stacked, summed
from jaxconv.attribution.networks import (
    Model,
    background,
    chosen,
    compiled,
    finite,
    images,
    prepared,
    where_known,
)
from jaxconv.attribution.rules import Rule, rule_of, ruled_by


def saliency(
    model: Model, x: ArrayLike, target: Any = None, *, chunk: int | None = None, progress: Progress = False
) -> Array:
    """How much each pixel moves the score: the largest modulus, over the channels, of its derivative.

        map[n,i] = max over c of |d y[n, target] / d x[n,i,c]|

    with y the scores before softmax.

    >>> import jax.numpy as jnp
    >>> model = lambda x: jnp.stack([x.sum((1, 2, 3)), (x ** 2).sum((1, 2, 3))], 1)      # two classes
    >>> x = jnp.arange(8.).reshape(1, 2, 2, 2)
    >>> saliency(model, x, target=1)
    Array([[[ 2.,  6.],
            [10., 14.]]], dtype=float32)

    Parameters
    ----------
    model : nnx.Module, bound linen.Module, or function
        A Flax NNX model in eval mode, `module.bind(variables)` of Flax Linen, or a function of x; it returns the scores
        before softmax, [n, classes]. It is not changed.
    x : [n, ..., channels]
        Images, signals or volumes.
    target : int or [n], optional
        The class, or one for each image; by default the one with the highest score.
    chunk : int, optional
        How many images pass the network at a time. All, by default.
    progress : bool or (done, steps) -> None
        A progress bar on the terminal, or a function that is told after each chunk.

    Returns
    -------
    Array
        [n, ...], as x without channels; not negative.

    Raises
    ------
    ValueError
        A model in train mode, a target out of range, scores of a wrong shape, a score that is not finite. Under
        `jax.jit` values are not known: there NaN, and a target out of range, give NaN.
    TypeError
        Images that are not floating numbers, a model that cannot be called.

    Static under `jax.jit`: model (its parameters are constants there, unless it is merged inside), chunk, progress.

    Source: Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, 2013.
    """
    return jnp.abs(_gradient("saliency", model, x, target, "plain", chunk, progress)).max(-1)


def input_x_gradient(
    model: Model, x: ArrayLike, target: Any = None, *, chunk: int | None = None, progress: Progress = False
) -> Array:
    """The gradient times the input: each element's share of the score of a net that is linear there.

        map[n,i,c] = x[n,i,c] * d y[n, target] / d x[n,i,c]

    >>> import jax.numpy as jnp
    >>> input_x_gradient(lambda x: x.sum((1, 2))[:, None], jnp.array([[[1., 2.], [3., 4.]]]), 0)
    Array([[[1., 2.],
            [3., 4.]]], dtype=float32)

    Parameters
    ----------
    model, x, target, chunk, progress
        As in `saliency`.

    Returns
    -------
    Array
        As x, with signs; it sums to the score where the net is linear and without bias.

    Raises
    ------
    ValueError, TypeError
        As `saliency`.

    Static under `jax.jit`: model, chunk, progress.

    Source: Shrikumar, Greenside and Kundaje, Learning important features through propagating activation differences,
    2017.
    """
    x = images("input_x_gradient", x)
    return x * _gradient("input_x_gradient", model, x, target, "plain", chunk, progress)


def guided_backprop(
    model: Model, x: ArrayLike, target: Any = None, *, chunk: int | None = None, progress: Progress = False
) -> Array:
    """The backward pass with ReLUs that let through only what is positive, on the way up and on the way down.

        R -> 1[z > 0] max(R, 0)   at each ReLU; everything else is the gradient

    The map is sharp and shows edges: it changes less than the gradient when the last layers are randomised (see
    `cascade`), so it says little about the class.

    >>> import jax, jax.numpy as jnp
    >>> model = lambda x: jax.nn.relu(x).sum((1,)) @ jnp.array([[1., -1.], [-1., 1.]])
    >>> guided_backprop(model, jnp.array([[[1., 2.]]]), target=0)
    Array([[[1., 0.]]], dtype=float32)

    Parameters
    ----------
    model, x, target, chunk, progress
        As in `saliency`. Max pooling passes back along its switches, as JAX's own gradient does.

    Returns
    -------
    Array
        As x, with signs.

    Raises
    ------
    ValueError
        A net without ReLU, or with one that cannot be reached: see `with_relu_rule`. Else as `saliency`.
    TypeError
        As `saliency`.

    Static under `jax.jit`: model, chunk, progress.

    Source: Springenberg, Dosovitskiy, Brox and Riedmiller, Striving for simplicity, 2014.
    """
    return _gradient("guided_backprop", model, x, target, "guided", chunk, progress)


def deconvnet(
    model: Model, x: ArrayLike, target: Any = None, *, chunk: int | None = None, progress: Progress = False
) -> Array:
    """The backward pass with ReLUs that rectify what comes from above: the deconvolutional network.

        R -> max(R, 0)   at each ReLU; unpooling by switches and transposed filters are the gradient's own

    >>> import jax, jax.numpy as jnp
    >>> model = lambda x: jax.nn.relu(x).sum((1,)) @ jnp.array([[1., -1.], [-1., 1.]])
    >>> deconvnet(model, jnp.array([[[-1., 2.]]]), target=0)
    Array([[[1., 0.]]], dtype=float32)

    Parameters
    ----------
    model, x, target, chunk, progress
        As in `saliency`.

    Returns
    -------
    Array
        As x, with signs. Without max pooling it does not depend on x. `deconvnet_layers` builds the same network
        layer by layer.

    Raises
    ------
    ValueError, TypeError
        As `guided_backprop`.

    Static under `jax.jit`: model, chunk, progress.

    Source: Zeiler and Fergus, Visualizing and understanding convolutional networks, 2013.
    """
    return _gradient("deconvnet", model, x, target, "deconvnet", chunk, progress)


def smoothgrad(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    key: Array,
    samples: int = 50,
    sigma: float = 0.15,
    rule: Rule | None = None,
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """The mean of the gradients at noisy copies of the image.

        map = 1/samples * sum over s of d y[target] / d x   at x + sigma * (max x - min x) * noise_s

    >>> import jax, jax.numpy as jnp
    >>> model = lambda x: (x ** 2).sum((1, 2))[:, None]
    >>> smoothgrad(model, jnp.array([[[1., 3.]]]), 0, key=jax.random.key(0), sigma=0.)
    Array([[[2., 6.]]], dtype=float32)

    Parameters
    ----------
    model, x, target, chunk, progress
        As in `saliency`; chunk counts noisy images. Where no target is given it is that of the image without noise.
    key : jax.random.key
        Of the noise, which does not depend on chunk.
    samples : int
    sigma : float
        The noise's standard deviation, as a share of each image's range.
    rule : optional
        A backward rule of the ReLUs, as in `with_relu_rule`: the mean of guided maps, for instance.

    Returns
    -------
    Array
        As x, with signs.

    Raises
    ------
    ValueError, TypeError
        As `saliency`; samples that are no positive integer.

    Static under `jax.jit`: model, samples, rule, chunk, progress.

    Source: Smilkov, Thorat, Kim, Viegas and Wattenberg, SmoothGrad: removing noise by adding noise, 2017.
    """
    positive("smoothgrad", "samples", samples)
    kind = "plain" if rule is None else rule
    return _gradient("smoothgrad", model, x, target, kind, chunk, progress, samples, _Noise(), (key, sigma))


def integrated_gradients(
    model: Model,
    x: ArrayLike,
    target: Any = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    nodes: str = "gauss-legendre",
    chunk: int | None = None,
    progress: Progress = False,
) -> Array:
    """The gradient's mean along the way from a baseline, times the way: it sums to the difference of the scores.

        map = (x - b) * integral over t from 0 to 1 of d y[target](b + t (x - b)) / d x

    >>> import jax.numpy as jnp
    >>> model = lambda x: (x ** 3).sum((1, 2))[:, None]
    >>> integrated_gradients(model, jnp.array([[[1., 2.]]]), 0, steps=2)                # x^3
    Array([[[1., 8.]]], dtype=float32)

    Parameters
    ----------
    model, x, target, chunk, progress
        As in `saliency`; chunk counts images on the way.
    baseline : float or array
        b, broadcast to x: what counts as nothing.
    steps : int
        How many points of the way.
    nodes : str
        'gauss-legendre', exact for scores that are polynomials of degree 2 steps along the way, or 'midpoint'.

    Returns
    -------
    Array
        As x, with signs. `completeness` says how far its sum is from the difference of the scores.

    Raises
    ------
    ValueError, TypeError
        As `saliency`; steps that are no positive integer, names of nodes that do not exist.

    Static under `jax.jit`: model, steps, nodes, chunk, progress.

    Source: Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, 2017.
    """
    positive("integrated_gradients", "steps", steps)
    if nodes not in ("gauss-legendre", "midpoint"):
        raise ValueError(
            f"`integrated_gradients` got nodes={nodes!r}: it must be 'gauss-legendre' or 'midpoint'. Pass 'midpoint'."
        )
    x = images("integrated_gradients", x)
    way = x - background("integrated_gradients", baseline, x)
    path = _Way(nodes)
    mean = _gradient(
        "integrated_gradients", model, x, target, "plain", chunk, progress, steps, path, (way, path.points(steps))
    )
    return way * mean


def completeness(
    model: Model, x: ArrayLike, attribution: ArrayLike, target: Any = None, *, baseline: Any = 0.0
) -> Array:
    """What an attribution lacks of the difference of the scores: zero for exact integrated gradients.

        sum over i and c of attribution[n,i,c] - (y[target](x) - y[target](baseline))

    >>> import jax.numpy as jnp
    >>> model, x = lambda x: (x ** 3).sum((1, 2))[:, None], jnp.array([[[1., 2.]]])
    >>> completeness(model, x, integrated_gradients(model, x, 0, steps=2), 0)
    Array([0.], dtype=float32)

    Parameters
    ----------
    model, x, target, baseline
        As in `integrated_gradients`.
    attribution : as x

    Returns
    -------
    Array
        [n], in units of the score.

    Raises
    ------
    ValueError, TypeError
        As `saliency`.

    Static under `jax.jit`: model.

    Source: Sundararajan et al. 2017, Proposition 1.
    """
    x, attribution = images("completeness", x), jnp.asarray(as_real("completeness", "attribution", attribution))
    if attribution.shape != x.shape:
        raise ValueError(
            f"`completeness` got an attribution of shape {attribution.shape} for x of shape {x.shape}: it must be as "
            "x, each channel with its sign. Pass what `integrated_gradients` gives."
        )
    x, net, wanted, _ = prepared("completeness", model, x, target)
    scores = net.call(net.state, x)
    wanted = scores.argmax(1) if wanted is None else wanted
    without = net.call(net.state, background("completeness", baseline, x))
    difference = chosen(scores, wanted) - chosen(without, wanted)
    finite("completeness", difference)
    return attribution.reshape(len(x), -1).sum(1) - difference


# ---- the versions of an image at which the gradient is taken, and what they count, with mean 1; static under jit


@dataclass(frozen=True)
class _Itself:
    def at(self, x, image, version):
        return x[image]

    def weights(self, count: int) -> np.ndarray:
        return np.ones(count)


@dataclass(frozen=True)
class _Noise:
    def at(self, x, image, version, key, sigma):
        spread = _range(x)[image]
        keys = jax.vmap(lambda i, s: jax.random.fold_in(jax.random.fold_in(key, i), s))(image, version)
        noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(keys)
        return x[image] + jnp.asarray(sigma, x.dtype) * spread * noise

    def weights(self, count: int) -> np.ndarray:
        return np.ones(count)


@dataclass(frozen=True)
class _Way:
    nodes: str

    def at(self, x, image, version, way, points):
        t = jnp.asarray(points, x.dtype)[version].reshape(-1, *[1] * (x.ndim - 1))
        return x[image] - (1 - t) * way[image]

    def points(self, count: int) -> np.ndarray:
        return (np.arange(count) + 0.5) / count if self.nodes == "midpoint" else (leggauss(count)[0] + 1) / 2

    def weights(self, count: int) -> np.ndarray:
        return np.ones(count) if self.nodes == "midpoint" else leggauss(count)[1] / 2 * count


def _range(x: Array) -> Array:
    axes = tuple(range(1, x.ndim))
    return x.max(axes, keepdims=True) - x.min(axes, keepdims=True)


def _gradient(call, model, x, target, rule, chunk, progress, count=1, version=_Itself(), more=()) -> Array:
    """The weighted mean, over the versions of each image, of d y[target] / d x with a rule for the ReLUs."""
    x, net, wanted, _ = prepared(call, model, x, target, chunk)
    if rule != "plain":
        rule_of(call, rule)
    arguments = net.state, x, wanted, (call, rule), chunk, progress, count, version, more
    gradient, score = compiled(_of_versions, net.call, *arguments)
    finite(call, score, gradient)
    return gradient


@partial(jax.jit, static_argnums=(0, 4, 5, 6, 7, 8))
def _of_versions(call, state, x, target, rule, chunk, progress, count, version, more):
    f = partial(call, state)
    ruled = f if rule[1] == "plain" else ruled_by(rule[0], f, rule[1])
    if target is None:
        target = stacked(lambda image, _: f(x[image]).argmax(1), len(x), 1, chunk)[:, 0]
    weights = jnp.asarray(version.weights(count), promoted(x.dtype, jnp.float32))  # half types sum badly

    def row(image, which):
        def score(version_of_x):
            found = chosen(ruled(version_of_x), target[image])
            return found.sum(), found

        gradient, found = jax.grad(score, has_aux=True)(version.at(x, image, which, *more))
        weight = weights[which]
        weighed = gradient.astype(weight.dtype) * weight.reshape(-1, *[1] * (x.ndim - 1))
        return weighed, found.astype(weight.dtype) * weight

    gradient, found = summed(row, len(x), count, chunk, progress)
    return where_known(gradient / count, found).astype(x.dtype), found / count
