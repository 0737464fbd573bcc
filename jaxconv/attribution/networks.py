"""Models as pure functions of their state and of x, and the scores that they give."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer

from jaxconv.arguments import as_array, as_real, positive

Model = Any


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


def prepared(
    call: str, model: Model, x: Any, target: Any, chunk: int | None = None
) -> tuple[Array, Network, Array | None, int]:
    """(x, network, one target an image, number of classes), all checked."""
    if chunk is not None:
        positive(call, "chunk", chunk, rule=", or None for all at once")
    x, net = images(call, x), network(call, model)
    classes = class_count(call, net, x)
    return x, net, targets(call, target, len(x), classes), classes


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
