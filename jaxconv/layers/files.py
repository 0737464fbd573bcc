"""Weights in safetensors files, written whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from jaxconv.arguments import as_array, described
from jaxconv.files import write
from jaxconv.layers.weights import names

# safetensors.numpy writes bfloat16 and cannot read it, so that the names of the format's dtypes stand here.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8), "U16": np.dtype(np.uint16), "U32": np.dtype(np.uint32), "U64": np.dtype(np.uint64),
    "I8": np.dtype(np.int8), "I16": np.dtype(np.int16), "I32": np.dtype(np.int32), "I64": np.dtype(np.int64),
    "F8_E4M3": jnp.dtype(jnp.float8_e4m3fn), "F8_E5M2": jnp.dtype(jnp.float8_e5m2),
    "F16": np.dtype(np.float16), "BF16": jnp.dtype(jnp.bfloat16),
    "F32": np.dtype(np.float32), "F64": np.dtype(np.float64), "C64": np.dtype(np.complex64),
}  # fmt: skip


def save_safetensors(path: str | os.PathLike, tree: Any, metadata: Mapping[str, str] | None = None) -> None:
    """Write the arrays of a model or of a state to a safetensors file, by dotted names.

        {"stem.kernel": ..., "stem.bias": ..., ...}

    The file appears when all of it is on the disk: a kill or a full disk leaves the one that was there.

    >>> import tempfile, jax.numpy as jnp
    >>> path = tempfile.mkdtemp() + "/weights.safetensors"
    >>> save_safetensors(path, {"conv": {"kernel": jnp.ones((3, 3, 1, 8))}}, {"op": "correlate"})
    >>> load_safetensors(path)["conv"]["kernel"].shape
    (3, 3, 1, 8)

    Parameters
    ----------
    path : the file
    tree : nnx.Module | nnx.State | nested dicts of arrays
        Of a module and of a state everything but the random streams: parameters, statistics, masks.
    metadata : None | dict of strings
        `safetensors.safe_open(path, "np").metadata()` reads them.

    Returns nothing.

    Raises
    ------
    OSError
        The file cannot be written; the old one is as it was.
    ValueError, TypeError
        Two arrays of one name, or the name '__metadata__'; leaves that are no arrays, or of a dtype that the format
        lacks; metadata that are not strings.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: the safetensors format, huggingface.co/docs/safetensors.
    """
    call = "jaxconv.layers.save_safetensors"
    if not all(isinstance(text, str) for pair in dict(metadata or {}).items() for text in pair):
        raise TypeError(f"`{call}` got metadata={metadata!r}: names and values must be strings. Pass `str(value)`.")
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _named(call, _saved(tree)).items()}
    if "__metadata__" in arrays:
        raise ValueError(
            f"`{call}` got an array of the name '__metadata__': the format keeps that name for `metadata`. Rename it."
        )
    for name, array in arrays.items():
        if array.dtype not in DTYPES.values():
            raise TypeError(
                f"`{call}` got {name!r} of {described(array)}: the format has {', '.join(map(str, DTYPES.values()))}. "
                "Convert it with `.astype(...)`."
            )
    data = save(arrays, dict(metadata) if metadata else None)
    write(path, data)


def load_safetensors(path: str | os.PathLike, into: Any = None) -> Any:
    """Read a safetensors file: as nested dicts, or into a model or a state that has all of its arrays.

        {"stem.kernel": ...} -> {"stem": {"kernel": ...}}

    >>> import tempfile
    >>> from flax import nnx
    >>> path = tempfile.mkdtemp() + "/weights.safetensors"
    >>> save_safetensors(path, nnx.Conv(1, 8, (3, 3), rngs=nnx.Rngs(0)))
    >>> model = load_safetensors(path, into=nnx.Conv(1, 8, (3, 3), rngs=nnx.Rngs(1)))

    Parameters
    ----------
    path : the file
    into : None | nnx.Module | nnx.State | nested dicts of arrays
        A module is changed in place, after everything was checked; of the others the result is a new one. Random
        streams stay as they are. Leaves may be jax.ShapeDtypeStruct, as of nnx.eval_shape.

    Returns
    -------
    Nested dicts of arrays, the module, or a tree as `into`. Where JAX has no 64 bits, such arrays have 32.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no whole safetensors file, or has integers that need 64 bits where JAX has none; names that `into` lacks
        or the file lacks, other shapes, other dtypes: all of them are listed, and the module is as it was.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: the safetensors format, huggingface.co/docs/safetensors.
    """
    call = "jaxconv.layers.load_safetensors"
    arrays = _read(call, path)
    if into is None:
        return _nested(call, path, arrays)
    saved = _saved(into)
    wanted = _named(call, saved, jax.ShapeDtypeStruct)
    wrong = [f"{name!r} is missing in the file" for name in wanted if name not in arrays]
    wrong += [f"{name!r} has no place here" for name in arrays if name not in wanted]
    wrong += [
        f"{name!r} is {described(arrays[name])}, and {described(leaf)} here"
        for name, leaf in wanted.items()
        if name in arrays and (arrays[name].shape, arrays[name].dtype) != (leaf.shape, leaf.dtype)
    ]
    if wrong:
        raise ValueError(
            f"`{call}` got {os.fspath(path)!r}, which does not fit: {'; '.join(wrong)}. Make the model as it was when "
            "it was saved, or load without `into` and rename."
        )
    found = {name: _on_device(call, path, name, array) for name, array in arrays.items()}
    leaves, form = jax.tree.flatten_with_path(saved if isinstance(into, nnx.Module) else into)
    result = jax.tree.unflatten(form, [found.get(".".join(names(key)), leaf) for key, leaf in leaves])
    if not isinstance(into, nnx.Module):
        return result
    nnx.update(into, result)
    return into


def _saved(tree: Any) -> Any:
    wanted = nnx.Not(nnx.RngState)
    if isinstance(tree, nnx.Module):
        return nnx.state(tree, wanted)
    return nnx.filter_state(tree, wanted) if isinstance(tree, nnx.State) else tree


def _named(call: str, tree: Any, also: Any = ()) -> dict[str, Any]:
    leaves = [(".".join(names(key)), leaf) for key, leaf in jax.tree.flatten_with_path(tree)[0]]
    with jax.enable_x64(True):  # NumPy's integers are written as they are
        arrays = {name: leaf if isinstance(leaf, also) else as_array(call, repr(name), leaf) for name, leaf in leaves}
    if len(arrays) < len(leaves):
        twice = sorted({name for name in arrays if [n for n, _ in leaves].count(name) > 1})
        raise ValueError(
            f"`{call}` got a tree with more than one array of the name {twice[0]!r}: dotted names must differ. "
            "Rename one of them."
        )
    return {name: a if hasattr(a, "shape") else np.asarray(a) for name, a in arrays.items()}


def _read(call: str, path: str | os.PathLike) -> dict[str, np.ndarray]:
    try:
        tensors = deserialize(Path(path).read_bytes())
    except SafetensorError as e:
        raise ValueError(
            f"`{call}` got {os.fspath(path)!r}: it is no whole safetensors file ({e}). Fetch or write it again."
        ) from e
    unknown = {tensor["dtype"] for _, tensor in tensors} - DTYPES.keys()
    if unknown:
        raise ValueError(
            f"`{call}` got {os.fspath(path)!r} with arrays of {', '.join(sorted(unknown))}: the dtypes must be among "
            f"{', '.join(DTYPES)}. Write the file again with one of these."
        )
    return {name: np.frombuffer(t["data"], DTYPES[t["dtype"]]).reshape(t["shape"]) for name, t in tensors}


def _on_device(call: str, path: str | os.PathLike, name: str, array: np.ndarray) -> Array:
    result = jnp.asarray(array)
    if array.dtype.kind in "iu" and result.dtype != array.dtype and (np.asarray(result) != array).any():
        raise ValueError(
            f"`{call}` got {os.fspath(path)!r} with {name!r} of {described(array)}: its values do not fit "
            f"{result.dtype}. Load it under `jax.enable_x64(True)`."
        )
    return result


def _nested(call: str, path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in sorted(arrays.items()):
        *parents, last = name.split(".")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(
                    f"`{call}` got {os.fspath(path)!r} with {name!r} beneath an array: nested dicts cannot hold both. "
                    "Read it with safetensors.numpy.load_file."
                )
        at[last] = _on_device(call, path, name, array)
    return tree
