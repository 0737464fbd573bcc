"""From lax to jaxconv: the layers of a model that exists, in place."""

from dataclasses import dataclass, replace

from flax import nnx
from jax import lax

from jaxconv.layers.convolutional import CorrelateTranspose, Operation, operation_of
from jaxconv.layers.weights import has_convolutions
from jaxconv.planner import Accuracy, Method


@dataclass(frozen=True)
class Replacement:
    """What was done with one layer: where it is, what it is now, or why it was left as it was."""

    path: str
    layer: str
    replaced: bool
    note: str


class Replacements(tuple[Replacement, ...]):
    """The list of what was done, printed as a table."""

    def __str__(self) -> str:
        done = sum(r.replaced for r in self)
        width = max((len(r.path) for r in self), default=0)
        lines = [f"  {r.path:{width}}  {r.layer}: {r.note}" for r in self]
        return "\n".join([f"{done} of {len(self)} layers run on jaxconv", *lines])


def replace_convs(model: nnx.Module, *, method: Method = "auto", accuracy: Accuracy = "normwise") -> Replacements:
    """Let every nnx.Conv and nnx.ConvTranspose of a model run on jaxconv in place of lax, and say what was done.

        y[n,o,m] = b[m] + sum over c and k of x[n,i,c] * kernel[k,c,m]   before and after

    The model is changed in place; its parameters, their names and its results stay as they are.

    >>> from flax import nnx
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.relu, nnx.Conv(8, 8, (3, 3), rngs=rngs))
    >>> print(replace_convs(model))
    2 of 2 layers run on jaxconv
      layers.0  Conv: on jaxconv
      layers.2  Conv: on jaxconv

    Parameters
    ----------
    model : nnx.Module
    method, accuracy
        As in `jaxconv.convolve`, for all layers, those that are on jaxconv already, too.

    Returns
    -------
    Replacements
        A tuple of (path, layer, replaced, note), one for each layer of convolutions. Left as they are, with the reason
        in the note: layers that have an operation of another library, subclasses of nnx.ConvTranspose (their calls
        may be their own) and Linen modules in a bridge. Calls of jax.lax in a model's own code are not seen.

    Raises
    ------
    TypeError
        A model that is not an nnx.Module. For Linen pass `conv_general_dilated=` to linen.Conv.
    ValueError
        Names of method or accuracy that do not exist.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: flax.nnx.Conv, whose argument conv_general_dilated this sets.
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"`jaxconv.layers.replace_convs` got a model of type {type(model).__name__}: it must be an nnx.Module. For "
            "Linen pass `conv_general_dilated=jaxconv.lax.conv_general_dilated` to linen.Conv."
        )
    operation = operation_of("jaxconv.layers.replace_convs", False, method, accuracy, "SAME", ("SAME",), 1, 1, 1)
    return Replacements(
        Replacement(".".join(map(str, path)) or "(the model)", type(layer).__name__, *_replaced(layer, operation))
        for path, layer in nnx.iter_graph(model)
        if isinstance(layer, nnx.Conv | nnx.ConvTranspose)
        or (isinstance(layer, nnx.bridge.ToNNX) and has_convolutions(layer))
    )


def _replaced(layer, operation: Operation) -> tuple[bool, str]:
    if isinstance(layer, nnx.bridge.ToNNX):
        return False, "a Linen module: pass conv_general_dilated= to its linen.Conv"
    for name in ("operation", "conv_general_dilated"):  # of a transposed layer here, of another
        had = getattr(layer, name, None)
        if isinstance(had, Operation):
            now = replace(operation, flip_kernel=had.flip_kernel)
            setattr(layer, name, now)
            new = ", ".join(f"{wish}={value!r}" for wish, value in now.choice.items())
            return now != had, "on jaxconv already" + (f", now with {new}" if now != had else "")
    if isinstance(layer, nnx.Conv):
        if layer.conv_general_dilated is not lax.conv_general_dilated:
            return False, f"has an operation of its own, {layer.conv_general_dilated!r}"
        layer.conv_general_dilated = operation
        return True, "on jaxconv"
    if type(layer) is not nnx.ConvTranspose:
        return False, "a subclass of nnx.ConvTranspose: derive it from jaxconv.layers.CorrelateTranspose"
    # nnx.ConvTranspose takes no operation; with the same attributes and three more the object is one of ours.
    layer.__class__ = CorrelateTranspose
    vars(layer).update(operation=operation, feature_group_count=1, output_padding=None)
    return True, "on jaxconv, as a CorrelateTranspose"
