"""Kernels between conventions: correlation and convolution, and the layouts of PyTorch, ONNX and Keras."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import Array
from jax.typing import ArrayLike

from jaxconv.arguments import as_array, described, positive

Layout = Literal["pytorch", "onnx", "keras"]
Kind = Literal["regular", "depthwise", "transposed"]
Where = Callable[[tuple[str, ...], Array], bool]


def flip_kernels(tree: Any, where: Where | None = None) -> Any:
    """Turn every convolution kernel of a model or of a checkpoint by 180 degrees: from correlation to convolution.

        flipped[k,c,m] = kernel[K-1 - k, c, m]   in each spatial axis

    With its kernels flipped a checkpoint of `Correlate` layers is one of `Convolve` layers, and the other way round.

    >>> import jax.numpy as jnp
    >>> flip_kernels({"conv": {"kernel": jnp.arange(3.).reshape(3, 1, 1)}, "readout": {"kernel": jnp.ones((2, 2))}})
    {'conv': {'kernel': Array([[[2.]],
    <BLANKLINE>
           [[1.]],
    <BLANKLINE>
           [[0.]]], dtype=float32)}, 'readout': {'kernel': Array([[1., 1.],
           [1., 1.]], dtype=float32)}}

    Parameters
    ----------
    tree : nnx.Module | nnx.State | nested or flat dicts of arrays | a state of optax that mirrors them
        In a module the layers are found by their type, nnx.Conv and nnx.ConvTranspose, and their masks are flipped,
        too. Layers may be stacked, by nnx.vmap or nnx.scan, along leading axes, which stay as they are.
        Elsewhere a kernel is a leaf called 'kernel' (or '....kernel') of three or more axes, and a 'mask' of its
        shape beside it; but not if its bias has more than one axis, nor in an attention layer, whose kernels of three
        axes stand together as 'query', 'key' and 'value'. All axes but the last two are taken for spatial ones, those
        of a stack, too: flip stacked layers as a module. An nnx.LinearGeneral that joins two axes into one has the
        shapes of a convolution: leave it out by `where`.
    where : None | (path, array) -> bool
        Which leaves to flip in place of these rules, of a module, too; the path is a tuple of names. All axes but the
        last two are reversed; leaves of two axes or fewer stay as they are.

    Returns
    -------
    The same tree with flipped kernels; of a module a copy. Twice flipped is the first again.

    Raises
    ------
    ValueError
        No kernel was found; the factored state of an optimiser (Adafactor), which is not of the kernels' shapes; a
        module with convolutions in a Linen bridge, or with layers that are stacked along another than a leading axis.

    May be traced; static under `jax.jit`: everything but the arrays.

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 9.1.
    """
    if isinstance(tree, nnx.Module):
        if where is None and not isinstance(tree, nnx.Optimizer):
            return _flipped_layers(nnx.clone(tree))
        graph, state = nnx.split(tree)
        return nnx.merge(graph, flip_kernels(state, where))
    leaves, form = jax.tree.flatten_with_path(tree)
    named = [(names(path), leaf) for path, leaf in leaves]
    chooses = where or _kernels_among(dict(named))
    chosen = [chooses(path, leaf) for path, leaf in named]
    _found(
        any(chosen), "a leaf called 'kernel' of three or more axes" if where is None else "a leaf that `where` admits"
    )
    factored = [path for (path, _), flip in zip(named, chosen, strict=True) if flip and {"v_row", "v_col"} & {*path}]
    if factored and where is None:
        raise ValueError(
            f"`jaxconv.layers.flip_kernels` got a state with {'.'.join(factored[0])!r}: a factored state is not of its "
            "kernel's shape, and which of its axes are spatial cannot be seen. Start the optimiser's state anew, or "
            "say `where`."
        )
    return jax.tree.unflatten(
        form, [_turned(leaf) if flip else leaf for (_, leaf), flip in zip(named, chosen, strict=True)]
    )


def _flipped_layers(model: nnx.Module) -> nnx.Module:
    nodes = list(nnx.iter_graph(model))
    for path, node in nodes:
        if isinstance(node, nnx.bridge.ToNNX) and has_convolutions(node):
            raise ValueError(
                f"`jaxconv.layers.flip_kernels` got a model with convolutions of Linen at {_dotted(path)}: in a bridge "
                "layers have no types. Flip the state, `flip_kernels(nnx.state(model))`, or say `where`."
            )
    layers = [(path, node) for path, node in nodes if isinstance(node, nnx.Conv | nnx.ConvTranspose)]
    _found(layers, "an nnx.Conv or nnx.ConvTranspose")
    seen = set()  # a variable that two layers share is flipped once
    for path, layer in layers:
        rank = len(layer.kernel_size)
        if layer.kernel.shape[-2 - rank : -2] != tuple(layer.kernel_size) and layer.kernel.ndim > rank + 2:
            raise ValueError(
                f"`jaxconv.layers.flip_kernels` got a stack of layers at {_dotted(path)} with a kernel of "
                f"{described(layer.kernel)} for kernel_size={layer.kernel_size}: the axes of a stack must come first. "
                "Move them with `jnp.moveaxis`."
            )
        for name in ("kernel", "mask"):
            part = getattr(layer, name)
            if isinstance(part, nnx.Variable) and id(part) not in seen:
                part[...] = _turned(part[...], rank)
                seen.add(id(part))
            elif part is not None and not isinstance(part, nnx.Variable):
                setattr(layer, name, _turned(part, rank))
    return model


def _dotted(path) -> str:
    return repr(".".join(map(str, path))) if path else "its root"


def has_convolutions(bridge: nnx.bridge.ToNNX) -> bool:
    """Whether a Linen module has convolutions: by its type, those of its fields, or the kernels that it has."""
    named = {names(path): leaf for path, leaf in jax.tree.leaves_with_path(nnx.state(bridge))}
    is_kernel = _kernels_among(named)
    return _is_convolutional(bridge.to_nnx__module) or any(is_kernel(path, leaf) for path, leaf in named.items())


def _is_convolutional(part: Any) -> bool:
    if not isinstance(part, linen.Module):
        return False
    fields = [getattr(part, field.name, None) for field in dataclasses.fields(part) if field.name != "parent"]
    return isinstance(part, linen.Conv | linen.ConvTranspose) or any(map(_is_convolutional, jax.tree.leaves(fields)))


def _kernels_among(named: dict[tuple[str, ...], Any]) -> Where:
    def attention(parent: tuple[str, ...]) -> bool:
        return all(np.ndim(named.get((*parent, name, "kernel"), 0)) == 3 for name in ("query", "key", "value"))

    def is_kernel(path: tuple[str, ...], leaf) -> bool:
        *layer, name = path
        kernel, bias = (named.get((*layer, beside), 0) for beside in ("kernel", "bias"))
        if name not in ("kernel", "mask") or np.ndim(kernel) < 3 or np.shape(leaf) != np.shape(kernel):
            return False
        return np.ndim(bias) <= 1 and not (np.ndim(kernel) == 3 and layer and attention(tuple(layer[:-1])))

    return is_kernel


def _found(what: Any, wanted: str) -> None:
    if not what:
        raise ValueError(
            f"`jaxconv.layers.flip_kernels` got a tree without {wanted}: there is nothing to flip. Pass a model or a "
            "state with convolution layers, or say `where`."
        )


def names(path) -> tuple[str, ...]:
    """The names on the way to a leaf: keys 'a.b.kernel' of flat dicts are taken apart.

    The last step, from a variable of Flax (or a box of Linen) to its array, has no name.
    """
    if len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey):
        path = path[:-1] if path[-1].name in ("value", "raw_value") else path
    return tuple(jax.tree_util.keystr(path, simple=True, separator=".").split("."))


def _turned(kernel, spatial: int | None = None):
    """The kernel with its spatial axes reversed: so many before the last two, None for all of them."""
    spatial = max(np.ndim(kernel) - 2, 0) if spatial is None else spatial
    return kernel[(..., *(slice(None, None, -1),) * spatial, slice(None), slice(None))] if spatial else kernel


# Ours is y[o, m] = sum over c, k of x[i, c] w[k, c, m], where i = S*o + D*k - p, and PyTorch's and ONNX's layer is the
# same with other axes: w' = (out, in/g, k...), so ours[k, c, m] = theirs[m, c, k].
#
# Their transposed layer is the adjoint of the layer that has this kernel, whose outputs are its inputs: x[i, c] goes
# to every o = S*i + D*k' - P with weight theirs[c, m, k']. Ours has S*i + p = o + D*k, that is o = S*i - D*k + p: with
# k' = K-1 - k the two agree, and p = D*(K-1) - P. In g groups theirs is (in, out/g, k...) with in = (g, in/g), the
# group in front, and ours is (k..., in/g, out) with out = (g, out/g):
#     ours[k, c, (g, m)] = theirs[(g, c), m, K-1 - k].
#
# Keras keeps the axes of JAX. Its transposed kernel is (k..., out, in) and flipped likewise, with one group:
#     ours[k, c, m] = theirs[K-1 - k, m, c].
# Its depthwise kernel is (k..., in, multiplier), with outputs (in, multiplier); in our layer in g = in groups of one
# feature each these are (g, m):
#     ours[k, 0, (c, m)] = theirs[k, c, m].
class Form(NamedTuple):
    """How a layout stores a kernel: where the spatial axes stand, and the order of its feature axes."""

    first: bool  # features before the spatial axes
    features: str  # 'oi' or 'io'


FORMS: dict[tuple[str, str], Form] = {
    ("pytorch", "regular"): Form(True, "oi"),
    ("pytorch", "transposed"): Form(True, "io"),
    ("keras", "regular"): Form(False, "io"),
    ("keras", "depthwise"): Form(False, "io"),
    ("keras", "transposed"): Form(False, "oi"),
}
FORMS |= {("pytorch", "depthwise"): FORMS["pytorch", "regular"]}
FORMS |= {("onnx", kind): form for (layout, kind), form in FORMS.items() if layout == "pytorch"}


def import_kernel(kernel: ArrayLike, layout: Layout, kind: Kind = "regular", groups: int = 1) -> Array:
    """A kernel of PyTorch, ONNX or Keras as the kernel of the layer here.

        regular     ours[k, c, m] = theirs[m, c, k]           of PyTorch and ONNX; Keras' is ours
        depthwise   ours[k, 0, (c, m)] = theirs[k, c, m]      of Keras; PyTorch's and ONNX's is regular, groups = in
        transposed  ours[k, c, (g, m)] = theirs[(g, c), m, K-1 - k]   Keras': theirs[K-1 - k, m, c]

    'regular' and 'depthwise' are for `Correlate` and nnx.Conv, 'transposed' for `CorrelateTranspose`; for
    `ConvolveTranspose` flip the result along its spatial axes.

    >>> import numpy as np
    >>> import_kernel(np.zeros((8, 3, 5, 5)), "pytorch").shape
    (5, 5, 3, 8)
    >>> import_kernel(np.zeros((6, 2, 5, 5)), "pytorch", "transposed", groups=2).shape
    (5, 5, 3, 4)
    >>> import_kernel(np.zeros((5, 5, 3, 2)), "keras", "depthwise").shape
    (5, 5, 1, 6)

    Parameters
    ----------
    kernel : array of three or more axes
    layout : 'pytorch' | 'onnx' | 'keras'
    kind : 'regular' | 'depthwise' | 'transposed'
    groups : int
        Of the layer. It decides the result where the layer is 'transposed'; elsewhere it is only checked.

    Returns
    -------
    Array
        (spatial..., in/groups, out).

    Raises
    ------
    ValueError, TypeError
        Names that do not exist, fewer than three axes, groups that do not divide the features, a 'depthwise' kernel
        with more than one input feature a group, transposed layers of Keras with groups (it has none).

    Static under `jax.jit`: everything but the kernel.

    Source: the documentation of torch.nn.Conv2d and ConvTranspose2d, of ONNX's Conv and ConvTranspose, of
    keras.layers.Conv2D, DepthwiseConv2D and Conv2DTranspose.
    """
    call = "jaxconv.layers.import_kernel"
    if hasattr(kernel, "detach"):
        raise TypeError(
            f"`{call}` got a kernel of type {type(kernel).__name__}: it must be an array. Pass "
            "`kernel.detach().cpu().numpy()`, of bfloat16 `kernel.detach().cpu().float().numpy()`."
        )
    given = kernel = jnp.asarray(as_array(call, "kernel", kernel))
    form = _form(call, kernel, layout, kind, groups)
    if form.first:
        kernel = jnp.moveaxis(kernel, (0, 1), (-2, -1))
    if form.features == "oi":
        kernel = jnp.swapaxes(kernel, -1, -2)
    *spatial, c, m = kernel.shape
    if kind == "depthwise" and layout == "keras":
        if groups not in (1, c):
            raise ValueError(
                f"`{call}` got groups={groups} for a depthwise kernel of Keras with {c} input features: each is a "
                "group. Leave groups out."
            )
        return kernel.reshape(*spatial, 1, c * m)
    if kind != "transposed":
        _divides(call, given, m, groups)
        _depthwise(call, given, kind, c)
        return kernel
    _divides(call, given, c, groups)
    kernel = jnp.moveaxis(_turned(kernel).reshape(*spatial, groups, c // groups, m), -3, -2)
    return kernel.reshape(*spatial, c // groups, groups * m)


def export_kernel(kernel: ArrayLike, layout: Layout, kind: Kind = "regular", groups: int = 1) -> np.ndarray:
    """The kernel of a layer here in the layout of PyTorch, ONNX or Keras: the inverse of `import_kernel`.

        theirs[m, c, k] = ours[k, c, m]   and so on, as there

    Arguments and errors are those of `import_kernel`; the kernel is (spatial..., in/groups, out). For Keras'
    'depthwise' kernels, too, groups decides the result: it is the number of input features.

    >>> import numpy as np
    >>> export_kernel(np.zeros((5, 5, 3, 8)), "pytorch").shape
    (8, 3, 5, 5)

    Returns a NumPy array. Runs outside `jax.jit`; static under `jax.jit`: everything. Source: as `import_kernel`.

    Raises as `import_kernel`.
    """
    call = "jaxconv.layers.export_kernel"
    kernel = np.asarray(as_array(call, "kernel", kernel))
    form = _form(call, kernel, layout, kind, groups)
    *spatial, c, m = kernel.shape
    _divides(call, kernel, m, groups)
    _depthwise(call, kernel, kind, c)
    if kind == "depthwise" and layout == "keras":
        return np.ascontiguousarray(kernel.reshape(*spatial, groups, m // groups))
    if kind == "transposed":
        kernel = np.moveaxis(_turned(kernel).reshape(*spatial, c, groups, m // groups), -2, -3)
        kernel = kernel.reshape(*spatial, groups * c, m // groups)
    if form.features == "oi":
        kernel = np.swapaxes(kernel, -1, -2)
    return np.ascontiguousarray(np.moveaxis(kernel, (-2, -1), (0, 1)) if form.first else kernel)


def _form(call: str, kernel, layout: str, kind: str, groups: int) -> Form:
    layouts, kinds = (tuple(dict.fromkeys(key[i] for key in FORMS)) for i in (0, 1))
    for name, value, known in (("layout", layout, layouts), ("kind", kind, kinds)):
        if value not in known:
            raise ValueError(f"`{call}` got {name}={value!r}: it must be one of {known}. Pass one of these.")
    positive(call, "groups", groups)
    if kernel.ndim < 3:
        raise ValueError(
            f"`{call}` got kernel of {described(kernel)}: it must have two axes of features and at least one that is "
            "spatial. Kernels of linear layers need no layout: transpose them."
        )
    if layout == "keras" and kind == "transposed" and groups > 1:
        raise ValueError(f"`{call}` got groups={groups} for a transposed layer of Keras: it has none. Pass groups=1.")
    return FORMS[layout, kind]


def _divides(call: str, kernel, features: int, groups: int) -> None:
    if features % groups:
        raise ValueError(
            f"`{call}` got groups={groups} for a kernel of {described(kernel)}: it must divide the {features} "
            "features. Pass the layer's own groups."
        )


def _depthwise(call: str, kernel, kind: str, c: int) -> None:
    if kind == "depthwise" and c != 1:
        raise ValueError(
            f"`{call}` got a depthwise kernel of {described(kernel)}: each of its groups has one input feature, not "
            f"{c}. Pass kind='regular', with groups."
        )
