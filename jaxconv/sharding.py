"""Sharding: how what is contracted, and its result, lie over a mesh of devices."""

from collections.abc import Callable

import jax
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes, get_abstract_mesh, reshard

from jaxconv.engines.base import varying, varying_over
from jaxconv.problem import Problem


def explicit_axes() -> tuple[str, ...]:
    """The axes of the current mesh that are in explicit sharding mode."""
    mesh = get_abstract_mesh()
    return tuple(n for n, t in zip(mesh.axis_names, mesh.axis_types, strict=True) if t == AxisType.Explicit)


def is_seen(context) -> bool:
    """Whether XLA must see into a program, from JAX's context of lowering: it is exported, or partitioned by XLA.

    Within `jax.shard_map` over all axes it is not: each device has a program of its own.
    """
    axes = context.axis_context
    mesh, devices = getattr(axes, "mesh", None), getattr(axes, "num_devices", 1) or 1
    partitioned = devices > 1 if mesh is None else mesh.size > 1 and set(mesh.axis_names) > set(axes.manual_axes)
    return partitioned or context.lowering_parameters.for_export


# In explicit sharding mode a sharding is part of a type. The contraction runs under automatic
# axes, and its result is sharded along n as x is, along m as w is, and along g as either.
def under_automatic_axes(problem: Problem, run: Callable[..., Array], x: Array, w: Array) -> Array:
    """run(x, w), y of the Problem, whatever the mode of the mesh's axes."""
    x, w = _varying_alike(x, w)
    explicit = explicit_axes()
    if not explicit:
        return run(x, w)
    if AxisType.Manual in get_abstract_mesh().axis_types:
        raise NotImplementedError(
            f"`contract` runs inside a `jax.shard_map` that leaves the explicit mesh axes {explicit} alone, which "
            "JAX cannot do with automatic axes inside. Map over all axes of the mesh, or make these AxisType.Auto."
        )
    x, w = (reshard(array, jax.typeof(array).sharding.spec) for array in (x, w))  # on the mesh, if on none yet
    return auto_axes(axes=explicit, out_sharding=_output_sharding(problem, x, w))(run)(x, w)


def _output_sharding(problem: Problem, x: Array, w: Array) -> PartitionSpec:
    specs = dict(zip(problem.layouts.x, jax.typeof(x).sharding.spec, strict=True))
    for letter, names in zip(problem.layouts.w, jax.typeof(w).sharding.spec, strict=True):
        specs[letter] = specs.get(letter) or names
    taken, spec = set(), []
    for letter in problem.layouts.y:
        names = specs[letter] if letter in "ngm" else None
        each = {names} if isinstance(names, str) else set(names or ())
        spec.append(None if each & taken else names)  # a mesh axis shards one axis only
        taken |= each
    return PartitionSpec(*spec)


def _varying_alike(x: Array, w: Array) -> tuple[Array, Array]:
    """Both arrays varying over the mesh axes of either, as inside `jax.shard_map` they must."""
    return varying_over(x, varying(w)), varying_over(w, varying(x))


def sharded_as(call: str, out_sharding, run: Callable[..., Array], x: Array, w: Array) -> Array:
    """run(x, w), of x's rank, sharded so."""
    if not isinstance(out_sharding, NamedSharding | PartitionSpec):
        raise TypeError(
            f"`{call}` got out_sharding={out_sharding!r}: it must be a NamedSharding or a PartitionSpec. "
            "Make one with `jax.NamedSharding(mesh, spec)`."
        )
    named = isinstance(out_sharding, NamedSharding)
    spec, mesh = (out_sharding.spec, out_sharding.mesh) if named else (out_sharding, get_abstract_mesh())
    names = {n for entry in spec if entry for n in ([entry] if isinstance(entry, str) else entry)}
    if len(spec) > x.ndim or not names <= set(mesh.axis_names):
        raise ValueError(
            f"`{call}` got out_sharding={spec} on a mesh with the axes {tuple(mesh.axis_names)}: it may name "
            f"these only, in at most {x.ndim} entries. Set a mesh with `jax.set_mesh`, or pass a NamedSharding."
        )
    if explicit := explicit_axes():
        return auto_axes(axes=explicit, out_sharding=out_sharding)(run)(x, w)
    return jax.lax.with_sharding_constraint(run(x, w), out_sharding)
