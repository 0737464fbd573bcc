"""Many evaluations of a network, a bounded number at a time: a row is one image in one version of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Progress = bool | Callable[[int, int], None]


def summed(
    row: Callable[[Array, Array], Any], images: int, versions: int, chunk: int | None, progress: Progress = False
) -> Any:
    """For each image the sum over its versions of row(image, version), which takes arrays of numbers.

    `chunk` rows are computed at a time, by default as many as there are images; so many are in memory.
    """
    total = images * versions
    chunk = min(chunk or images, total)
    if chunk >= total:
        r = jnp.arange(total)
        found = jax.tree.map(lambda y: _by_image(y, images).sum(1), row(r // versions, r % versions))
        report(progress, jnp.zeros((), jnp.int32), 1)
        return found
    steps = -(-total // chunk)
    like = jax.eval_shape(row, *(jax.ShapeDtypeStruct((chunk,), jnp.int32),) * 2)
    start = jax.tree.map(lambda y: jnp.zeros((images, *y.shape[1:]), y.dtype), like)

    def step(found, k):
        r = k * chunk + jnp.arange(chunk)
        image, version = jnp.minimum(r // versions, images - 1), r % versions

        def add(sums, y):
            y = jnp.where((r < total).reshape(-1, *[1] * (y.ndim - 1)), y, 0)
            return sums.at[image].add(y)

        found = jax.tree.map(add, found, row(image, version))
        report(progress, k, steps)
        return found, None

    return lax.scan(step, start, jnp.arange(steps))[0]


def stacked(
    row: Callable[[Array, Array], Array], images: int, versions: int, chunk: int | None, progress: Progress = False
):
    """row(image, version) for all, [images, versions, ...], `chunk` of them at a time."""
    total = images * versions
    chunk = min(chunk or images, total)
    steps = -(-total // chunk)

    def step(_, k):
        r = jnp.minimum(k * chunk + jnp.arange(chunk), total - 1)
        y = row(r // versions, r % versions)
        report(progress, k, steps)
        return None, y

    y = lax.scan(step, None, jnp.arange(steps))[1]
    return _by_image(y.reshape(-1, *y.shape[2:])[:total], images)


def _by_image(y: Array, images: int) -> Array:
    return y.reshape(images, -1, *y.shape[1:])


def report(progress: Progress, k: Array, steps: int) -> None:
    if progress:
        jax.debug.callback(bar if progress is True else progress, k + 1, steps, ordered=True)


_running: list[Any] = []


def bar(done: int, steps: int) -> None:
    """A progress bar on the terminal, by rich."""
    from rich.progress import Progress as Bar

    if not _running:
        shown = Bar(transient=True)
        shown.start()
        _running.extend((shown, shown.add_task("attribution", total=steps)))
    shown, task = _running
    shown.update(task, completed=int(done), total=int(steps))
    if done >= steps:
        shown.stop()
        _running.clear()
