"""Arrays from a pickle that nobody vouches for: nothing that it names is run.

A pickle names functions, and unpickling calls them, whatever they do. Here the names by which NumPy pickles an array
lead to stand-ins that only build arrays of integers from bytes; every other name is refused.
"""

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from research.datasets.base import DataError


class Refused(pickle.UnpicklingError):
    """The pickle names something other than an array."""


class Type:
    """Stands in for numpy.dtype: dtype('u1', False, True), then its state (version, byte order, ...)."""

    def __init__(self, code: Any, *_):
        self.code, self.order = text(code), "|"

    def __setstate__(self, state: tuple):
        self.order = text(state[1])

    @property
    def value(self) -> np.dtype:
        if not re.fullmatch(r"[iu][1248]", self.code) or self.order not in tuple("<>|="):
            raise Refused(f"an array of {self.order}{self.code}, not of integers")
        return np.dtype(self.order + self.code)


class Array:
    """Stands in for what numpy's _reconstruct returns; its state is (version, shape, dtype, Fortran order, bytes)."""

    def __init__(self, *_):
        self.value = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple):
        _, shape, dtype, fortran, data = state
        self.value = from_bytes(data, dtype, shape, "F" if fortran else "C").value


def from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Stands in for numpy's _frombuffer, of pickle's protocol 5."""
    if not isinstance(dtype, Type) or not isinstance(data, bytes | bytearray):
        raise Refused("an array of objects")
    if math.prod(shape) * dtype.value.itemsize != len(data) or any(n < 0 for n in shape):
        raise Refused(f"an array of shape {shape} in {len(data)} bytes")
    made = Array()
    made.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)
    return made


def encode(string: str, encoding: str) -> bytes:
    """Stands in for _codecs.encode, by which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise Refused(f"bytes by way of {encoding!r}")
    return string.encode("latin1")


STAND_INS = {
    ("_codecs", "encode"): encode,
    ("numpy", "dtype"): Type,
    ("numpy", "ndarray"): Array,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): from_bytes,
    ("numpy._core.numeric", "_frombuffer"): from_bytes,
}


class ArraysOnly(pickle.Unpickler):
    """Resolves every name that a pickle may hold: through STAND_INS, or not at all."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return STAND_INS[module_name, global_name]
        except KeyError:
            raise Refused(f"the pickle names {module_name}.{global_name}") from None


def text(value: Any) -> Any:
    """Text, which a pickle of Python 2 has as bytes; anything else as it is."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def read(path: Path) -> dict[Any, Any]:
    """The pickled dictionary: keys as text, values arrays, lists, numbers, text or bytes."""
    data = path.read_bytes()
    try:
        found = ArraysOnly(io.BytesIO(data), encoding="bytes").load()
        if isinstance(found, dict):
            return {text(key): value.value if isinstance(value, Array) else value for key, value in found.items()}
    except Refused as e:
        rule = "only arrays of integers, lists and text are read"
        raise DataError(path, str(e), rule, "Do not trust the file; get it again from its source") from e
    except Exception as e:  # whatever truncated or damaged opcodes lead to
        raise DataError(path, f"{type(e).__name__} ({e})", "it must be a whole pickle", "Get the file again") from e
    rule = "a file of CIFAR is a dictionary"
    raise DataError(path, f"a pickled {type(found).__name__}", rule, "Check that it is this file")
