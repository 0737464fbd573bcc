"""What a user hands over, checked once: arrays, dtypes, integers.

An error names the call, what came, the rule, and the remedy.
"""

import inspect
import operator
import warnings
from collections.abc import Callable
from functools import reduce, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
PLAIN = {type(None), str, int, bool}  # types of values that are hashed as they are


class ArgumentError(ValueError, TypeError, RuntimeError):
    """A wrong argument for which SciPy's functions raise one or another of these: it may be caught as any."""


def as_array(call: str, name: str, value: Any) -> Any:
    """`value` as something `jax.jit` takes for an array of numbers; nested lists become NumPy arrays.

    >>> as_array("f", "x", np.array([1, 2], ">i2"))
    array([1, 2], dtype=int16)
    """
    if hasattr(value, "__jax_array__") and not isinstance(value, jax.Array):
        value = jnp.asarray(value)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"`{call}` got {name}, a masked array: JAX arrays have no masks. Fill it with `{name}.filled(value)`."
        )
    if isinstance(value, list | tuple):
        value = _from_lists(call, name, value)
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if isinstance(value, np.ndarray | np.generic) and value.dtype in (np.int64, np.uint64) and value.size:
        _check_fits(call, name, value)
    if not isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
        raise TypeError(
            f"`{call}` got {name} of type {type(value).__name__}: it must be an array, or nested lists of numbers. "
            f"Pass `jnp.asarray({name})`."
        )
    if isinstance(value, int):
        _check_fits(call, name, np.asarray(value, object))
    shape = getattr(value, "shape", ())
    if not all(isinstance(size, int) for size in shape):
        raise TypeError(
            f"`{call}` got {name} of the symbolic shape {shape}: a relation needs numbers. Export with the "
            "sizes that are wanted, one program for each."
        )
    dtype = getattr(value, "dtype", None)
    if dtype is not None and not (jnp.issubdtype(dtype, np.number) or dtype == np.bool_):
        raise TypeError(
            f"`{call}` got {name} of dtype {dtype}: the elements must be booleans, integers, floating or complex "
            "numbers. Convert it with `.astype(...)`."
        )
    if dtype is not None and (dtype.kind, dtype.itemsize) in (("f", 16), ("c", 32)):
        raise TypeError(f"`{call}` got {name} of dtype {dtype}: JAX has no such type. Convert it with `.astype(...)`.")
    return value


def _check_fits(call: str, name: str, value: np.ndarray | np.generic) -> None:
    """JAX would leave away the upper bits without a word."""
    held = jax.dtypes.canonicalize_dtype(np.uint64 if value.dtype == np.uint64 else np.int64)
    limits, (least, most) = np.iinfo(held), (value.min(), value.max())
    if least < limits.min or most > limits.max:
        wrong = least if least < limits.min else most
        raise ValueError(
            f"`{call}` got {name} with the integer {wrong}: an integer must fit {held}. Pass floating numbers, or set "
            "`jax_enable_x64`."
        )


def _from_lists(call: str, name: str, value) -> Any:
    try:
        traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
        return jnp.asarray(value) if traced else np.asarray(value)
    except (TypeError, ValueError) as e:
        raise type(e)(
            f"`{call}` got {name} of type {type(value).__name__}: nested lists must hold numbers and be rectangular. "
            f"Pass `jnp.asarray({name})`."
        ) from e


def as_floating(call: str, name: str, value: Any) -> jax.Array:
    """`value` as a JAX array of floating or complex numbers; integers and booleans are converted."""
    array = jnp.asarray(as_array(call, name, value))
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.result_type(float))


def as_real(call: str, name: str, value: Any) -> Any:
    """`as_array`, of real numbers."""
    array = as_array(call, name, value)
    if jnp.iscomplexobj(array):
        raise TypeError(
            f"`{call}` got {name} of {described(jnp.asarray(array))}: it must be of real numbers. Pass its absolute "
            "value, or its real part."
        )
    return array


def promoted(*dtypes: Any) -> np.dtype:
    """The dtype that holds them all, where a conversion is meant: by JAX's standard rules, whatever is configured.

    >>> with jax.numpy_dtype_promotion("strict"):
    ...     promoted(jnp.float16, jnp.float32)
    dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return reduce(jnp.promote_types, map(jnp.dtype, dtypes))


def common_dtype(call: str, x: Any, h: Any) -> np.dtype:
    """The dtype of x and h together, as `jnp.result_type` says."""
    try:
        return jnp.result_type(x, h)
    except (TypeError, ValueError) as e:  # small floating types, or strict promotion
        raise TypeError(
            f"`{call}` got arrays of dtype {x.dtype} and {h.dtype}, which have no common type. "
            "Cast one with `.astype(...)`."
        ) from e


class _Inexact(tuple):
    """A tuple with a float in it: (1.0, 1) equals (1, 1), but must not have its program."""

    def __eq__(self, other):
        return isinstance(other, _Inexact) and super().__eq__(other)

    def __hash__(self):
        return ~super().__hash__()


def frozen(call: str, name: str, value: Any) -> Any:
    """`value` with its lists and arrays turned into tuples, so that it can be hashed."""
    try:
        hash(value)
    except TypeError as e:
        if isinstance(value, np.ndarray):
            return frozen(call, name, value.tolist())
        if fields := getattr(value, "_fields", None):
            return type(value)(*(frozen(call, *field) for field in zip(fields, value, strict=True)))
        if isinstance(value, list | tuple):
            return frozen(call, name, tuple(frozen(call, name, v) for v in value))
        raise TypeError(
            f"`{call}` got {name} of type {type(value).__name__}: it must be known when the call is traced. "
            "Pass Python integers, strings or tuples of them, under `jax.jit` as static arguments."
        ) from e
    if type(value) is tuple:
        kinds = set(map(type, value))
        value = tuple(frozen(call, name, v) for v in value) if tuple in kinds else value
        return _Inexact(value) if kinds & {float, _Inexact} else value
    return value


def once_per_signature(f: Callable[..., T]) -> Callable[..., T]:
    """f under `jax.jit`: what it checks and decides is done once for each signature, when it is traced.

    Its keyword-only arguments are static, and `frozen`; one of them is `call`, of which errors speak.
    """
    kinds = inspect.signature(f).parameters.items()
    names = [name for name, parameter in kinds if parameter.kind is parameter.KEYWORD_ONLY]
    jitted = jax.jit(f, static_argnames=names, inline=True)

    @wraps(f)
    def run(*arrays, call: str, **static) -> T:
        for name, value in static.items():
            if type(value) not in PLAIN:
                static[name] = frozen(call, name, value)
        return jitted(*arrays, call=call, **static)

    return run


def renamed(old: str, new: str) -> None:
    """Warn of a name that goes with the next release."""
    warnings.warn(
        f"`{old}` is named `{new}`; the old name goes with the next release.", DeprecationWarning, stacklevel=3
    )


def described(array) -> str:
    """Dtype and shape, as error messages show them: float32[2, 3]."""
    return f"{array.dtype}{list(array.shape)}"


# The rule is lax's: integers may widen (and stay signed) or become floating, floating and
# complex numbers may widen.
def output_dtype(call: str, dtype, preferred) -> np.dtype:
    """The dtype of the result for operands of `dtype` under `preferred_element_type`."""
    if preferred is None:
        return jnp.dtype(dtype)
    try:
        if isinstance(preferred, np.generic):  # NumPy would take its own dtype
            raise TypeError
        wanted = jnp.empty((), preferred).dtype
    except TypeError as e:
        raise TypeError(
            f"`{call}` got preferred_element_type={preferred!r}: it must be a dtype. Pass 'float32'."
        ) from e
    kinds = [np.signedinteger, np.unsignedinteger, np.floating, np.complexfloating]
    kind = next((k for k in kinds if jnp.issubdtype(dtype, k)), None)
    allowed = {
        np.signedinteger: (np.signedinteger, np.floating),
        np.unsignedinteger: (np.integer, np.floating),
        np.floating: (np.floating,),
        np.complexfloating: (np.complexfloating,),
    }.get(kind, ())
    if not any(jnp.issubdtype(wanted, k) for k in allowed) or wanted.itemsize < jnp.dtype(dtype).itemsize:
        raise TypeError(
            f"`{call}` got preferred_element_type={preferred!r} for operands of dtype {dtype}: the result's type must "
            "be of the same kind (integers may also become floating) and no narrower. "
            "Cast the operands or the result with `.astype(...)` instead."
        )
    return wanted


def integers(call: str, name: str, value, count: int, least: int | None = None) -> tuple[int, ...]:
    """`value` as a tuple of `count` Python ints, each at least `least`; otherwise an error."""
    try:
        result = tuple(operator.index(v) for v in value)
    except TypeError as e:
        raise TypeError(
            f"`{call}` got {name}={value!r}: it must be a sequence of {count} integers, one for each axis. "
            "Pass a tuple of integers."
        ) from e
    if len(result) != count:
        raise ValueError(
            f"`{call}` got {name}={value!r} of length {len(result)}: it must have one entry for each axis, {count}. "
            f"Pass {count} integers."
        )
    if least is not None and any(v < least for v in result):
        raise ValueError(
            f"`{call}` got {name}={value!r}: every entry must be at least {least}. "
            + ("To turn a kernel or an array round, flip it with `jnp.flip`." if least else "Pass 0 or more.")
        )
    return result


def axis_indices(call: str, name: str, value, rank: int) -> tuple[int, ...]:
    """`value`, an int or a sequence of ints, as distinct axes of an array of that rank, counted from 0."""
    given = (value,) if is_integer(value) else value
    try:
        axes = tuple(operator.index(v) for v in given)
    except TypeError as e:
        raise ArgumentError(
            f"`{call}` got {name}={value!r}: {name} must be a scalar or iterable of integers; another entry cannot be "
            "interpreted as an integer. Pass the axes' positions."
        ) from e
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(
            f"`{call}` got {name}={value!r} for {rank} dimensions: it is out of range ({name} exceeds "
            f"dimensionality of input); axes go from {-rank} to {rank - 1}. Pass positions inside."
        )
    found = tuple(axis % rank for axis in axes)
    if len(set(found)) != len(found):
        raise ValueError(f"`{call}` got {name}={value!r}: all {name} must be unique. Leave out the repeats.")
    return found


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer (and not a sequence of them)."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def positive(call: str, name: str, value: Any, least: int = 1, rule: str = "") -> int:
    """`value` as a Python int of at least `least`; otherwise an error. `rule` is what else may be."""
    whole = is_integer(value) and not isinstance(value, bool)
    if not whole or value < least:
        kind = ValueError if whole else TypeError
        raise kind(
            f"`{call}` got {name}={value!r}: it must be an integer, at least {least}{rule}. Pass {name}={least}."
        )
    return operator.index(value)


def per_axis(call: str, name: str, value: Any, count: int) -> tuple[Any, ...]:
    """One entry for each of `count` axes, of one value or of a sequence."""
    if isinstance(value, str) or (not isinstance(value, list | tuple) and np.ndim(value) == 0):
        return (value,) * count
    if len(value) != count:
        raise ArgumentError(
            f"`{call}` got {name}={value!r}: sequence argument must have length equal to input rank, or to the "
            f"number of axes, {count}. Pass one value, or one for each of {count} axes."
        )
    return tuple(value)
