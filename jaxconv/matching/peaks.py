"""The best places of a similarity map: greedy non-maximum suppression."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxconv.arguments import as_array, as_real, described, integers, is_integer, promoted


class Matches(NamedTuple):
    """Where the best places are, and their values."""

    positions: Array
    scores: Array


def find_matches(
    response: ArrayLike, count: int = 1, min_distance: int | Sequence[int] = 1, threshold: ArrayLike = -np.inf
) -> Matches:
    """The greatest values of a map, each more than `min_distance` from those before it.

        position = argmax of the response, then all within `min_distance` of it along every axis is left out; again

    >>> response = jnp.array([0., 3., 2., 0., 0., 1., 0.])
    >>> positions, scores = find_matches(response, count=3, min_distance=1, threshold=0.5)
    >>> positions[:, 0].tolist(), scores.tolist()
    ([1, 5, -1], [3.0, 1.0, -inf])

    Parameters
    ----------
    response : array of real numbers, such as `match_template` returns
    count : int, 1 or more
        How many to find.
    min_distance : int, or one for each axis
        Half a template's size keeps matches from overlapping by more than half.
    threshold : number
        Values below are no matches.

    Returns
    -------
    positions : Array of shape (count, dimensions)
        Best first; -1 where there are no more.
    scores : Array of shape (count,)
        The response there, and -inf where there are no more; differentiable in the response.

    Raises
    ------
    ValueError
        A count below 1, a negative distance, an empty response.

    Static under `jax.jit`: count and min_distance.

    Source: Neubeck and Van Gool, Efficient non-maximum suppression (2006).
    """
    call = "jaxconv.matching.find_matches"
    response = jnp.asarray(as_array(call, "response", response))
    if response.size == 0 or response.ndim == 0 or jnp.iscomplexobj(response):
        raise ValueError(
            f"`{call}` got a response of {described(response)}: it must be an array of real numbers, and not empty. "
            "Pass a map, such as `match_template` returns."
        )
    if not is_integer(count) or count < 1:
        raise ValueError(f"`{call}` got count={count!r}: it must be an integer, 1 or more. Pass how many to find.")
    each = (min_distance,) * response.ndim if is_integer(min_distance) else min_distance
    distances = integers(call, "min_distance", each, response.ndim, least=0)
    threshold = jnp.asarray(as_real(call, "threshold", threshold))
    if threshold.ndim:
        raise ValueError(f"`{call}` got a threshold of {described(threshold)}: it is one number. Pass a scalar.")
    return _found(response, threshold, int(count), distances)


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _found(response: Array, threshold: Array, count: int, distances: tuple[int, ...]) -> Matches:
    places = [lax.broadcasted_iota(jnp.int32, response.shape, d) for d in range(response.ndim)]
    fixed = lax.stop_gradient(response if response.dtype != jnp.bool_ else response.astype(jnp.int32))
    both = promoted(fixed.dtype, threshold.dtype)
    lowest = -jnp.inf if jnp.issubdtype(fixed.dtype, jnp.inexact) else jnp.iinfo(fixed.dtype).min

    def step(left, _):
        best = jnp.argmax(jnp.where(left, fixed, lowest))
        position = jnp.stack(jnp.unravel_index(best, fixed.shape)).astype(jnp.int32)
        near = jnp.ones(fixed.shape, bool)
        for d, place in enumerate(places):
            near &= jnp.abs(place - position[d]) <= distances[d]
        return left & ~near, (position, left.any())

    matches = ~jnp.isnan(fixed) & (fixed.astype(both) >= threshold.astype(both))
    _, (positions, some) = lax.scan(step, matches, None, length=count)
    scores = response[tuple(jnp.where(some[:, None], positions, 0).T)]
    scores = scores if jnp.issubdtype(scores.dtype, jnp.floating) else scores.astype(jnp.result_type(float))
    return Matches(jnp.where(some[:, None], positions, -1), jnp.where(some, scores, -jnp.inf))
