"""How good a map is: what the score does as pixels go, where its weight lies, whether it depends on the net."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxconv.arguments import as_array, as_real, positive, promoted
from jaxconv.attribution.chunking import Progress, stacked
from jaxconv.attribution.networks import (
    Model,
    background,
    chosen,
    compiled,
    finite,
    images,
    network,
    prepared,
    several,
)


class Curve(NamedTuple):
    """The probability of the target while pixels are changed: `share` [steps + 1] of them, `values` [n, steps + 1].

    `area` [n] is the mean height of the curve, by the trapezoidal rule.
    """

    share: Array
    values: Array
    area: Array


def deletion(
    model: Model, x: ArrayLike, maps: ArrayLike, target: Any = None, *, steps: int = 20, baseline: Any = 0.0,
    chunk: int | None = None, progress: Progress = False,
) -> Curve:  # fmt: skip
    """How fast the class disappears when pixels are deleted, those first of which the map says most.

        values[n,s] = softmax(y(x with b at the round(s/steps * pixels) largest of maps[n]))[target]

    A good map has a small area. Deleted pixels are no image that the net was trained on: compare maps, not nets.

    >>> import jax.numpy as jnp
    >>> model = lambda x: jnp.stack([x.sum((1, 2)), jnp.zeros(len(x))], 1)
    >>> x = jnp.array([[[4.], [0.], [0.], [0.]]])
    >>> deletion(model, x, x[..., 0], 0, steps=4).values[0, :2]
    Array([0.98201376, 0.5       ], dtype=float32)

    Parameters
    ----------
    model, x, target, progress
        As in `saliency`.
    maps : [n, ...] or as x
        Of the size of x; channels are summed as moduli.
    steps : int
    baseline : float or array
        b, broadcast to x.
    chunk : int, optional
        How many changed images pass the network at a time; by default as many as there are images.

    Returns
    -------
    Curve
        (share, values, area).

    Raises
    ------
    ValueError, TypeError
        As `saliency`; maps of another size or with NaN, steps that are no positive integer.

    Static under `jax.jit`: model, steps, chunk, progress.

    Source: Petsiuk, Das and Saenko, RISE: randomized input sampling for explanation of black-box models, 2018.
    """
    return _curve("deletion", False, model, x, maps, target, steps, baseline, chunk, progress)


def insertion(
    model: Model, x: ArrayLike, maps: ArrayLike, target: Any = None, *, steps: int = 20, baseline: Any = 0.0,
    chunk: int | None = None, progress: Progress = False,
) -> Curve:  # fmt: skip
    """How fast the class appears when pixels are put into an empty image, those first of which the map says most.

        values[n,s] = softmax(y(b with x at the round(s/steps * pixels) largest of maps[n]))[target]

    A good map has a large area.

    >>> import jax.numpy as jnp
    >>> model = lambda x: jnp.stack([x.sum((1, 2)), jnp.zeros(len(x))], 1)
    >>> x = jnp.array([[[4.], [0.], [0.], [0.]]])
    >>> insertion(model, x, x[..., 0], 0, steps=4).values[0, :2]
    Array([0.5       , 0.98201376], dtype=float32)

    Parameters
    ----------
    model, x, maps, target, steps, baseline, chunk, progress
        As in `deletion`.

    Returns
    -------
    Curve
        (share, values, area).

    Raises
    ------
    ValueError, TypeError
        As `deletion`.

    Static under `jax.jit`: model, steps, chunk, progress.

    Source: Petsiuk et al. 2018.
    """
    return _curve("insertion", True, model, x, maps, target, steps, baseline, chunk, progress)


def _curve(call, insert, model, x, maps, target, steps, baseline, chunk, progress) -> Curve:
    positive(call, "steps", steps)
    x, net, wanted, classes = prepared(call, model, x, target, chunk)
    maps = _flat(call, x, maps)
    several(call, classes)
    empty = background(call, baseline, x)
    first, last = (empty, x) if insert else (x, empty)
    share, values = compiled(_changed, net.call, net.state, x, first, last, maps, wanted, steps, chunk, progress)
    finite(call, values)
    area = ((values[:, 1:] + values[:, :-1]) / 2 * jnp.diff(share)[None]).sum(1)
    return Curve(share, values, area)


def _flat(call: str, x: Array, maps: Any) -> Array:
    maps = jnp.asarray(as_array(call, "maps", maps))
    if maps.shape == x.shape and x.ndim > 2:
        maps = jnp.abs(maps).sum(-1)
    if maps.shape != x.shape[:-1]:
        raise ValueError(
            f"`{call}` got maps of shape {maps.shape} for x of shape {x.shape}: they must be {x.shape[:-1]}, or as x. "
            "Bring them to the size of x."
        )
    return _known(call, jnp.asarray(as_real(call, "maps", maps)))


def _known(call: str, maps: Array) -> Array:
    """Maps that are numbers, where values are known."""
    if not isinstance(maps, Tracer) and (wrong := np.flatnonzero(~np.isfinite(np.asarray(maps)).reshape(-1))).size:
        image = wrong[0] // maps[0].size
        raise ValueError(
            f"`{call}` got a map with NaN or infinity, that of image {image}: such have no order. Look at how it was "
            "made."
        )
    return maps


@partial(jax.jit, static_argnums=(0, 7, 8, 9))
def _changed(call, state, x, first, last, maps, target, steps, chunk, progress):
    """The curve of the probability from the images `first` to `last`."""
    if target is None:
        target = stacked(lambda image, _: call(state, x[image]).argmax(1), len(x), 1, chunk)[:, 0]
    pixels = maps[0].size
    order = jnp.argsort(maps.reshape(len(x), -1), axis=1, descending=True, stable=True)
    rank = jnp.argsort(order, axis=1).reshape(maps.shape)
    counts = np.round(np.arange(steps + 1) / steps * pixels).astype(np.int32)

    def row(image, which):
        count = jnp.asarray(counts)[which].reshape(-1, *[1] * (x.ndim - 1))
        changed = jnp.where(rank[image][..., None] < count, last[image], first[image])
        return chosen(jax.nn.softmax(call(state, changed)), target[image])

    values = stacked(row, len(x), steps + 1, chunk, progress)
    return jnp.asarray(counts / pixels, values.dtype), values


def pointing_game(maps: ArrayLike, masks: ArrayLike, *, tolerance: int = 0) -> Array:
    """Whether the map's largest value lies on the object.

        hit[n] = masks[n, argmax over i of maps[n,i]], the mask widened by `tolerance` pixels to all sides

    >>> import jax.numpy as jnp
    >>> pointing_game(jnp.array([[0., 2., 1.]]), jnp.array([[False, False, True]]))[0].item()
    False
    >>> pointing_game(jnp.array([[0., 2., 1.]]), jnp.array([[False, False, True]]), tolerance=1)[0].item()
    True

    Parameters
    ----------
    maps : [n, ...]
        Without channels; of equal largest values the first counts, and a map that is the same everywhere misses.
    masks : [n, ...]
        Where the object is, booleans or zeros and ones.
    tolerance : int
        In pixels; the paper has 15 for photographs.

    Returns
    -------
    Array
        [n] of booleans; their mean is the accuracy.

    Raises
    ------
    ValueError
        Masks of another shape than the maps; a map with NaN.

    Static under `jax.jit`: tolerance.

    Source: Zhang, Lin, Brandt, Shen and Sclaroff, Top-down neural attention by excitation backprop, 2016.
    """
    maps, masks = _pair("pointing_game", maps, masks)
    positive("pointing_game", "tolerance", tolerance, least=0, rule=", in pixels")
    wide = masks > jnp.zeros_like(masks)
    if tolerance:
        size = (1, *[2 * tolerance + 1] * (masks.ndim - 1))
        wide = jax.lax.reduce_window(wide, False, jax.lax.bitwise_or, size, (1,) * masks.ndim, "SAME")
    flat = maps.reshape(len(maps), -1)
    hit = jnp.take_along_axis(wide.reshape(len(maps), -1), flat.argmax(1)[:, None], 1)[:, 0]
    return hit & (flat.max(1) > flat.min(1))


def energy_in_mask(maps: ArrayLike, masks: ArrayLike) -> Array:
    """Which share of the map's weight lies on the object.

        share[n] = sum over i in the mask of max(maps[n,i], 0) / sum over i of max(maps[n,i], 0)

    >>> import jax.numpy as jnp
    >>> energy_in_mask(jnp.array([[1., 3., 0.]]), jnp.array([[0, 1, 1]]))
    Array([0.75], dtype=float32)

    Parameters
    ----------
    maps, masks
        As in `pointing_game`; a box is a mask, too.

    Returns
    -------
    Array
        [n], between 0 and 1; 0 for a map that is zero.

    Raises
    ------
    ValueError
        Masks of another shape than the maps; a map with NaN.

    Static under `jax.jit`: nothing.

    Source: Wang et al., Score-CAM: score-weighted visual explanations, 2019, the energy-based pointing game.
    """
    maps, masks = _pair("energy_in_mask", maps, masks)
    axes = tuple(range(1, maps.ndim))
    maps = maps.astype(promoted(maps.dtype, jnp.float32))
    weight = jnp.maximum(maps, 0)
    total = weight.sum(axes)
    inside = jnp.where(masks > jnp.zeros_like(masks), weight, 0).sum(axes)
    return jnp.where(total == 0, 0, inside / jnp.where(total == 0, 1, total))


def _pair(call: str, maps: Any, masks: Any) -> tuple[Array, Array]:
    maps, masks = (jnp.asarray(as_real(call, name, a)) for name, a in (("maps", maps), ("masks", masks)))
    if maps.shape != masks.shape or maps.ndim < 2:
        raise ValueError(
            f"`{call}` got maps of shape {maps.shape} and masks of shape {masks.shape}: both must be [n, ...], of one "
            "size. Sum a map with channels over them first."
        )
    return _known(call, maps), masks


def sensitivity(
    explain: Callable[[Any], Array], x: ArrayLike, *, key: Array, radius: float = 0.02, samples: int = 10
) -> Array:
    """How far a map moves, at most, when the image moves a little: by random tries.

        s[n] = max over tries of |explain(x + radius * u) - explain(x)| / |explain(x)|,   u uniform in -1 ... 1

    >>> import jax, jax.numpy as jnp
    >>> model = lambda x: x.sum((1, 2))[:, None]
    >>> from jaxconv.attribution import saliency
    >>> sensitivity(lambda x: saliency(model, x, 0), jnp.ones((1, 4, 1)), key=jax.random.key(0))
    Array([0.], dtype=float32)

    Parameters
    ----------
    explain : function
        Images to maps: `lambda x: grad_cam(model, x, target)`, with fixed targets.
    x : [n, ..., channels]
    key : jax.random.key
    radius : float
        In the units of x.
    samples : int

    Returns
    -------
    Array
        [n], relative; 0 for a map that stays as it is, infinity where a map that is zero moves.

    Raises
    ------
    ValueError
        samples that are no positive integer.

    Static under `jax.jit`: explain, samples.

    Source: Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (in)fidelity and sensitivity of explanations, 2019.
    """
    positive("sensitivity", "samples", samples)
    x = images("sensitivity", x)
    usual = explain(x)
    if not usual.ndim or len(usual) != len(x):
        raise ValueError(
            f"`sensitivity` got an `explain` that makes {usual.shape} of x of shape {x.shape}: it must return a map "
            "for each image, [n, ...]. Wrap it in a function that does."
        )
    axes = tuple(range(1, usual.ndim))
    size = jnp.sqrt((usual**2).sum(axes))
    worst = jnp.zeros(len(x), usual.dtype)
    for one in jax.random.split(key, samples):
        moved = explain(x + radius * jax.random.uniform(one, x.shape, x.dtype, -1, 1))
        worst = jnp.maximum(worst, jnp.sqrt(((moved - usual) ** 2).sum(axes)))
    return jnp.where(worst == 0, 0, worst / size)


class Cascade(NamedTuple):
    """What randomising did: the layers from the top down, and each map's rank correlation with the trained net's."""

    layers: tuple[str, ...]
    similarity: Array  # [layers, n]
    maps: Array  # [layers, n, ...]


def cascade(
    explain: Callable[[Any, Array], Array], model: Any, x: ArrayLike, *, key: Array, layers: Sequence[str] | None = None
) -> Cascade:
    """Whether a map depends on what the net has learned: its layers are randomised one after the other, from the top.

        similarity[l, n] = Spearman's rank correlation of |explain(net with l + 1 layers random)| and |explain(net)|

    A map that stays alike does not explain the net. Guided backpropagation changes less than the gradient.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> from jaxconv.attribution import saliency
    >>> model = nnx.Sequential(nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu,
    ...                        lambda a: a.mean((1, 2)), nnx.Linear(4, 10, rngs=nnx.Rngs(1)))
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    >>> cascade(lambda net, x: saliency(net, x, 0), model, x, key=jax.random.key(1)).layers
    ('layers.3', 'layers.0')

    Parameters
    ----------
    explain : function (model, x) -> maps
    model : nnx.Module
        In eval mode; it is not changed.
    x : [n, ..., channels]
    key : jax.random.key
    layers : sequence of str, optional
        Paths from the top down; by default the modules that have parameters of their own, last called first. Each
        parameter is drawn from a normal distribution with its own mean and standard deviation; a constant one, as a
        bias of zeros, stays.

    Returns
    -------
    Cascade
        (layers, similarity, maps).

    Raises
    ------
    TypeError
        A model that is not an nnx.Module.
    ValueError
        Layers that do not exist, or have no parameters.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: Adebayo et al., Sanity checks for saliency maps, 2018.
    """
    from flax import nnx

    from jaxconv.attribution.features import named
    from jaxconv.jaxprs import equations

    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"`cascade` got a model of type {type(model).__name__}: it must be a Flax NNX module. Pass the one that is "
            "explained."
        )
    x, net = images("cascade", x), network("cascade", model)
    order = list(named(list(equations(jax.make_jaxpr(net.call)(net.state, x).jaxpr))))
    net = nnx.merge(*nnx.split(model), copy=True)
    own = {
        ".".join(map(str, path)) or "(the model)": [
            v for v in vars(module).values() if isinstance(v, nnx.Param) and v[...].size
        ]
        for path, module in nnx.iter_graph(net)
        if isinstance(module, nnx.Module)
    }
    order = [name for name in own if name not in order] + order  # used, though not called: below all others
    able = [name for name in reversed(order) if own.get(name)]
    unknown = [name for name in layers or () if name not in able]
    if unknown:
        raise ValueError(f"`cascade` got layers {unknown}: those with parameters are {able}. Pass some of these.")
    names = tuple(layers or able)
    usual = explain(model, x)
    drawn = _randomised(key, {name: [parameter[...] for parameter in own[name]] for name in names})
    similarities, maps = [], []
    for name in names:
        for parameter, value in zip(own[name], drawn[name], strict=True):
            parameter[...] = value
        maps.append(explain(net, x))
        similarities.append(rank_correlation(jnp.abs(maps[-1]), jnp.abs(usual)))
    return Cascade(names, jnp.stack(similarities), jnp.stack(maps))


@jax.jit
def _randomised(key: Array, values: Any) -> Any:
    """Each array drawn anew, from a normal distribution with its mean and deviation."""
    leaves, structure = jax.tree.flatten(values)
    drawn = [
        a.mean() + a.std() * jax.random.normal(one, a.shape, a.dtype)
        for a, one in zip(leaves, jax.random.split(key, len(leaves)), strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


@jax.jit
def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's rank correlation of each image's maps, [n]; equal values share their mean rank; 0 for constants."""

    def ranks(values):
        flat = values.reshape(len(values), -1)
        ordered = jnp.sort(flat, 1)
        low = jax.vmap(partial(jnp.searchsorted, side="left"))(ordered, flat)
        high = jax.vmap(partial(jnp.searchsorted, side="right"))(ordered, flat)
        rank = (low + high) / 2
        return rank - rank.mean(1, keepdims=True)

    a, b = ranks(a), ranks(b)
    size = jnp.sqrt((a**2).sum(1) * (b**2).sum(1))
    return jnp.where(size > 0, (a * b).sum(1) / jnp.where(size > 0, size, 1), 0)
