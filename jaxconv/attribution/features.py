"""The values inside a network: a layer's features by the layer's path, and the scores as they go on from them."""

from math import prod
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.extend.core import Var

from jaxconv.attribution.networks import Network
from jaxconv.jaxprs import CALLS, REMATS, Equation, Place, Program, equations, evaluate, inner

CONVOLUTIONS = ("conv_general_dilated", "contract")
LAST = "last_conv"


class Features(NamedTuple):
    """A layer's output, and how the scores go on from it."""

    program: Any
    place: Place
    shape: tuple[int, ...]
    dtype: Any


def features_of(call: str, net: Network, x: Array, path: str) -> Features:
    """The features that a path names: of a module, of a `checkpoint_name`, or 'last_conv'.

    'last_conv' is what the program's last convolution gives, with the bias: what is added to it and does not depend
    on x.
    """
    program = jax.make_jaxpr(net.call)(net.state, x)
    found = list(equations(program.jaxpr))
    places = named(found)
    if path == LAST:
        convolutions = _convolutions(program.jaxpr, found)
        closed = [p for p, e in found if e.primitive.name not in (*CALLS, *REMATS) and _holds_convolution(e)]
        if closed and (not convolutions or closed[-1] > convolutions[-1][0]):
            raise ValueError(
                f"`{call}` got layer 'last_conv': the model's last convolutions lie within scan, cond or a derivative "
                "of their own, where a value is not one array. Name a layer outside of it."
            )
        if convolutions:
            _check_channels_last(call, convolutions[-1][1])
            place, eqn = _with_bias(program.jaxpr, *convolutions[-1], len(jax.tree.leaves(net.state)))
            places = {LAST: (place, eqn.outvars[0].aval)}
    if path not in places:
        known = ", ".join(map(repr, places)) or "none with a name"
        raise ValueError(
            f"`{call}` got layer {path!r}, which the model does not call. Its layers: {known}"
            + (". It has no convolution." if path == LAST else ", and 'last_conv'.")
        )
    place, aval = places[path]
    if len(aval.shape) < 3 or aval.shape[0] != len(x):
        raise ValueError(
            f"`{call}` got layer {path!r}, whose output has the shape {aval.shape}: a map needs features at positions, "
            f"[n, ..., channels] with n={len(x)}. Name a layer before the positions are summed."
        )
    return Features(program, place, aval.shape, aval.dtype)


def _convolutions(program: Program, found: list) -> list[tuple[Place, Equation]]:
    """Those with more than one position on which the output depends."""
    needed: set = {v for v in program.outvars if isinstance(v, Var)}
    used = set()
    for position in range(len(program.eqns) - 1, -1, -1):
        eqn = program.eqns[position]
        if needed & set(eqn.outvars):
            needed |= {v for v in eqn.invars if isinstance(v, Var)}
            used.add(position)
    return [
        (place, eqn)
        for place, eqn in found
        if eqn.primitive.name in CONVOLUTIONS and place[0] in used and _positions(eqn) > 1
    ]


def _positions(eqn: Equation) -> int:
    """How many positions a convolution's output has."""
    if eqn.primitive.name == "contract":
        return eqn.params["problem"].outputs
    shape, spec = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"].out_spec
    return prod(shape[d] for d in spec[2:])


def _holds_convolution(eqn: Equation) -> bool:
    return any(e.primitive.name in CONVOLUTIONS or _holds_convolution(e) for p in inner(eqn) for e in p.eqns)


def _check_channels_last(call: str, eqn: Equation) -> None:
    if eqn.primitive.name == "contract":
        last = eqn.params["problem"].layouts.y[-1] == "m"
    else:
        spec = eqn.params["dimension_numbers"].out_spec
        last = spec[0] == 0 and spec[1] == len(spec) - 1
    if not last:
        raise ValueError(
            f"`{call}` got layer 'last_conv', a convolution whose channels do not stand last: maps are of [n, ..., "
            "channels]. Name a value in that layout with `jax.ad_checkpoint.checkpoint_name`."
        )


def named(found: list[tuple[Place, Equation]]) -> dict[str, tuple[Place, Any]]:
    """Names of values, and where they are; the second call of a module is called path#2."""
    places: dict[str, tuple[Place, Any]] = {}
    for place, eqn in found:
        if eqn.primitive.name == "name":
            name = path = eqn.params["name"]
            count = 1
            while path in places:
                count += 1
                path = f"{name}#{count}"
            places[path] = place, eqn.outvars[0].aval
    return places


def _with_bias(program: Program, place: Place, eqn: Equation, constants: int) -> tuple[Place, Equation]:
    """The value after a convolution and the additions, directly behind it, of what does not depend on x."""
    inputs, value = set(program.invars[constants:]), eqn.outvars[0]
    grouped = eqn.primitive.name == "contract"  # its groups have an axis of their own, until they are merged
    for depth in range(len(place) - 1, -1, -2):  # from the call in which the convolution lies outwards
        around, at = place[:depth], place[depth]
        here = inside(program, around)
        dependent = _dependent(program, inputs, place[: depth + 1])
        for position, after in enumerate(here.eqns[at + 1 :], at + 1):
            if not any(v is value for v in after.invars):
                continue
            others = {v for v in after.invars if isinstance(v, Var) and v is not value}
            name, (found,) = after.primitive.name, after.outvars[:1]
            merges = grouped and name == "reshape" and found.aval.ndim == value.aval.ndim - 1
            if not (merges or name in ("add", "name", "convert_element_type")) or dependent & others:
                return place, eqn
            grouped = grouped and not merges
            place, eqn, value = (*around, position), after, found
        if depth and value in here.outvars:
            value = inside(program, around[:-2]).eqns[around[-2]].outvars[here.outvars.index(value)]
        else:
            break
    return place, eqn


def inside(program: Program, around: Place) -> Program:
    """The program in which the equations of the places (*around, position) stand."""
    for position in around[::2]:
        program = inner(program.eqns[position])[0]
    return program


def _dependent(jaxpr: Program, dependent: set[Var], place: Place) -> set[Var]:
    """The values, in the program in which a place lies, that depend on x."""
    for position, eqn in enumerate(jaxpr.eqns):
        flags = [isinstance(v, Var) and v in dependent for v in eqn.invars]
        if len(place) > 1 and position == place[0]:
            program = inner(eqn)[0]
            entered = {v for v, flag in zip(program.invars, flags, strict=True) if flag}
            return _dependent(program, entered, place[2:])
        if any(flags):
            dependent |= set(eqn.outvars)
    return dependent


def with_features(net: Network, features: Features, x: Array, more: Array | None = None) -> tuple[Array, Array]:
    """(scores, features), where `more` is added to the features before the program goes on."""
    seen = []
    eqn = inside(features.program.jaxpr, features.place[:-1]).eqns[features.place[-1]]

    def stands(inputs):
        parameters = eqn.primitive.get_bind_params(eqn.params)
        value = eqn.primitive.bind(*inputs, **parameters)
        value = value[0] if eqn.primitive.multiple_results else value
        seen.append(value)
        return [value if more is None else value + more]

    arguments = jax.tree.leaves((net.state, x))
    scores = evaluate(features.program, arguments, {features.place: stands}, remat=False)[0]
    return scores, seen[0]
