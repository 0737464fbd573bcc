"""Models as pure functions of their state and of x, and the values inside: a layer's features by the layer's path."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.extend.core import Var

from jaxconv.arguments import as_array, as_real
from jaxconv.jaxprs import CALLS, REMATS, Equation, Place, Program, equations, evaluate, inner

Model = Any
CONVOLUTIONS = ("conv_general_dilated", "contract")
LAST = "last_conv"


class Network(NamedTuple):
    """A model as scores = call(state, x). `call` is hashable, static under `jax.jit`; the state is a pytree."""

    call: Callable[[Any, Array], Array]
    state: Any


@dataclass(frozen=True)
class _Function:
    """A plain function; names are those of `jax.ad_checkpoint.checkpoint_name` in it."""

    f: Callable[[Array], Any]

    def __call__(self, state: Any, x: Array) -> Array:
        return _calling(self.f, x)


@dataclass(frozen=True)
class _NNX:
    """A Flax NNX model, merged from its state: a copy, each of whose modules names its output by the module's path."""

    graph: Any

    def __call__(self, state: Any, x: Array) -> Array:
        from flax import nnx

        model = nnx.merge(self.graph, state, copy=True)
        for path, module in list(nnx.iter_graph(model)):
            if isinstance(module, nnx.Module) and path:
                name = ".".join(map(str, path))
                object.__setattr__(module, "_path_of_layer", name)
                object.__setattr__(module, "__class__", _naming(type(module)))
        return model(x)


@cache
def _naming(kind: type) -> type:
    """The class whose calls name what they return."""

    def __call__(self, *args, **kwargs):
        return _named(kind.__call__(self, *args, **kwargs), self._path_of_layer)

    return type(kind.__name__, (kind,), {"__call__": __call__, "__module__": kind.__module__})


@dataclass(frozen=True)
class _Linen:
    """A Flax Linen module and its variables."""

    module: Any

    def __call__(self, variables: Any, x: Array) -> Array:
        return _calling(partial(self.module.apply, variables), x)


def _calling(f: Callable, x: Array) -> Any:
    """f(x), where each Linen module that is called names its output."""
    if "flax.linen" not in sys.modules:
        return f(x)
    from flax import linen

    def name(call, args, kwargs, context):
        y = call(*args, **kwargs)
        path = ".".join(context.module.path)
        return _named(y, path) if path and context.method_name == "__call__" else y

    with linen.intercept_methods(name):
        return f(x)


def _named(output: Any, name: str) -> Any:
    return jax.tree.map(lambda y: checkpoint_name(y, name) if isinstance(y, jax.Array) else y, output)


def network(call: str, model: Model) -> Network:
    """The network of an NNX module, of a bound Linen module, or of a function x -> scores."""
    if "flax" in sys.modules:
        from flax import linen, nnx

        if isinstance(model, nnx.Module):
            _check_mode(call, model)
            graph, state = nnx.split(model)
            try:
                hash(graph)
            except TypeError:  # an attribute that has no hash, as a list of numbers: the model is run as a function is
                return Network(_Function(partial(_NNX(graph), state)), ())
            return Network(_NNX(graph), state)
        if isinstance(model, linen.Module):
            if model.scope is None:
                raise ValueError(
                    f"`{call}` got a Linen module without variables. Pass `module.bind(variables)`, with "
                    "deterministic and use_running_average as for inference."
                )
            module, variables = model.unbind()
            return Network(_Linen(module), variables)
    if not callable(model):
        raise TypeError(
            f"`{call}` got a model of type {type(model).__name__}: it must be a Flax NNX module, a bound Linen module, "
            "or a function of x that returns the scores [n, classes]. Pass one of these."
        )
    return Network(_Function(model), ())


def in_training(model: Any) -> list[str]:
    """The paths of an NNX model's modules that are in train mode."""
    from flax import nnx

    return [
        ".".join(map(str, path)) or type(module).__name__
        for path, module in nnx.iter_graph(model)
        if getattr(module, "use_running_average", None) is False
        or (getattr(module, "deterministic", None) is False and getattr(module, "rate", 1) != 0)
    ]


def _check_mode(call: str, model: Any) -> None:
    if training := in_training(model):
        raise ValueError(
            f"`{call}` got a model in train mode ({', '.join(training)}): a map would depend on the other images of "
            "the batch, or on chance. Call `model.eval()` first."
        )


# ---- scores


def images(call: str, x: Any) -> Array:
    x = jnp.asarray(as_array(call, "x", x))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"`{call}` got x of dtype {x.dtype}: derivatives need floating numbers. Convert it, `x.astype(float)`."
        )
    if x.ndim < 2 or not x.size:
        raise ValueError(
            f"`{call}` got x of shape {x.shape}: it must be a batch, [n, ..., channels], and not empty. For a single "
            "image use x[None]."
        )
    return x


def background(call: str, baseline: Any, x: Array) -> Array:
    """The baseline as x."""
    b = jnp.asarray(as_real(call, "baseline", baseline)).astype(x.dtype)
    if b.ndim > x.ndim or any(n not in (1, m) for n, m in zip(b.shape[::-1], x.shape[::-1], strict=False)):
        raise ValueError(
            f"`{call}` got a baseline of shape {b.shape} for x of shape {x.shape}: it is broadcast to x. Pass a "
            "number, or an array whose last axes are those of x, or 1."
        )
    return jnp.broadcast_to(b, x.shape)


def compiled(core: Callable, call: Callable, *arguments: Any) -> Any:
    """core(call, *arguments), compiled once for a model. A function may close over what changes: it is called anew."""
    return (core.__wrapped__ if isinstance(call, _Function) else core)(call, *arguments)  # pyright: ignore


@partial(jax.jit, static_argnums=0)
def _scores(call: Callable, state: Any, x: Array) -> Any:  # traced once for each model and shape
    return call(state, x)


def class_count(call: str, net: Network, x: Array) -> int:
    """Of the network's scores, whose shape is checked; nothing is computed."""
    shape_of = jax.eval_shape if isinstance(net.call, _Function) else _scores.eval_shape
    try:
        y = shape_of(net.call, net.state, x)
    except Exception as e:
        if type(e).__name__ in ("ModifyScopeVariableError", "InvalidRngError"):  # of Flax Linen
            raise ValueError(
                f"`{call}` got a Linen model in train mode: {str(e).splitlines()[0]} Pass deterministic=True and "
                "use_running_average=True, to the module or in a function: lambda x: module.apply(variables, x, "
                "train=False)."
            ) from e
        if type(e).__name__ == "TraceContextError":  # of Flax NNX
            raise ValueError(
                f"`{call}` got a function with an NNX model that changes as it is called: in train mode, or with "
                "nnx.jit on it. Pass the model itself, after `model.eval()`."
            ) from e
        raise
    if not (hasattr(y, "shape") and len(y.shape) == 2 and y.shape[0] == len(x) and y.shape[1] > 0):
        got = getattr(y, "shape", type(y).__name__)
        raise ValueError(
            f"`{call}` got a model whose output for x of shape {x.shape} is {got}: it must be the scores before "
            "softmax, [n, classes]. Wrap it in a function that returns them."
        )
    return y.shape[1]


def targets(call: str, target: Any, n: int, classes: int) -> Array | None:
    """One class an image; None, for the class with the highest score, is left to the program."""
    if target is None:
        return None
    target = jnp.asarray(as_array(call, "target", target))
    if not jnp.issubdtype(target.dtype, jnp.integer) or target.shape not in ((), (n,)):
        raise ValueError(
            f"`{call}` got target of dtype {target.dtype} and shape {target.shape}: it must be one class number, or "
            f"one for each of the {n} images. Pass integers."
        )
    if not isinstance(target, Tracer):
        values = np.asarray(target)
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"`{call}` got target {values.tolist()}: the model has {classes} classes, 0 to {classes - 1}. Pass one "
                "of these."
            )
    return jnp.broadcast_to(target, (n,))


def chosen(scores: Array, target: Array | None) -> Array:
    """Each image's score of its target, NaN where there is no such class."""
    target = jax.lax.stop_gradient(scores).argmax(1) if target is None else target
    known = (target >= 0) & (target < scores.shape[1])
    score = jnp.take_along_axis(scores, jnp.where(known, target, 0)[:, None], 1)[:, 0]
    return score * jnp.where(known, 1, jnp.nan).astype(score.dtype)  # so that the derivative is NaN, too


def several(call: str, classes: int) -> None:
    """An error for a model with one score, whose softmax is 1 whatever it sees."""
    if classes == 1:
        raise ValueError(
            f"`{call}` got a model with one score an image, whose softmax is always 1. For a model of two classes with "
            "one logit y pass a function that returns both: lambda x: jnp.concatenate([0 * model(x), model(x)], 1)."
        )


def where_known(maps: Array, score: Array) -> Array:
    """The maps, and NaN for an image whose score is not a number: a rule may have hidden it."""
    return jnp.where(jnp.isfinite(score).reshape(-1, *[1] * (maps.ndim - 1)), maps, jnp.nan)


def finite(call: str, score: Array, maps: Array | None = None) -> None:
    """An error for a score, or a map, that is not a number, where values are known."""
    if isinstance(score, Tracer) or isinstance(maps, Tracer):
        return
    wrong = np.flatnonzero(~np.isfinite(np.asarray(score)).all(tuple(range(1, score.ndim))))
    if wrong.size:
        raise ValueError(
            f"`{call}` got NaN or infinity as the score of image {wrong[0]} ({wrong.size} of {len(score)}): no map "
            "means anything there. Look at the input and the weights."
        )
    if maps is not None and not np.isfinite(np.asarray(maps)).all():
        raise ValueError(
            f"`{call}` got finite scores and a derivative that is NaN or infinite: somewhere the model has none, as "
            "the square root at 0. Look for it with jax.debug_nans."
        )


# ---- layers


class Features(NamedTuple):
    """What a layer puts out, and how the scores go on from it."""

    program: Any
    place: Place
    shape: tuple[int, ...]
    dtype: Any


def layer(call: str, net: Network, x: Array, path: str) -> Features:
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
    """How many positions a convolution puts out."""
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
