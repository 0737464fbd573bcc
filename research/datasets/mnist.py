"""MNIST's own IDX files in a folder, each as it is or as .gz; Fashion-MNIST and KMNIST have the same.

An IDX file is a magic number, 2048 + the number of dimensions for bytes; the length of each dimension; the bytes.
All numbers are big-endian in four bytes.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from research.datasets.base import DataError, Dataset, Pair, standardised

PARTS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
AGAIN = "Get the file again"


def recognise(folder: Path) -> bool:
    return any((folder / (name + end)).is_file() for pair in PARTS.values() for name in pair for end in ("", ".gz"))


def read(folder: Path) -> Dataset:
    """The Dataset of the four files; where there is a file and its .gz, the file."""
    train, test = (read_pair(folder, *names) for names in PARTS.values())
    return standardised("MNIST", folder, train, test, [str(digit) for digit in range(10)])


def read_pair(folder: Path, images: str, labels: str) -> Pair:
    x_path, y_path = existing(folder, images), existing(folder, labels)
    x, y = read_idx(x_path, 3), read_idx(y_path, 1)
    if len(x) != len(y):
        raise DataError(y_path, f"{len(y)} labels", f"{x_path.name} has {len(x)} images", "Get both files again")
    if y.size and y.max() > 9:
        found = f"label {y.max()} at index {y.argmax()}"
        raise DataError(y_path, found, "labels are 0 to 9", AGAIN)
    return x, y


def existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / (name + ".gz")):
        if path.is_file():
            return path
    rule = "MNIST is " + ", ".join(name for pair in PARTS.values() for name in pair) + ", each with or without .gz"
    raise DataError(folder / name, "no such file", rule, "Put it there")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file, with its shape."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as e:
            raise DataError(path, f"{type(e).__name__} ({e})", "it must be a whole gzip file", AGAIN) from e
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DataError(path, f"truncated to {len(data)} bytes", f"its header has {start}", AGAIN)
    magic, *shape = struct.unpack(f">{1 + dimensions}I", data[:start])
    if magic != 2048 + dimensions:
        rule = f"IDX of bytes in {dimensions} dimensions has {2048 + dimensions}"
        raise DataError(path, f"the magic number {magic}", rule, "Check that it is this file, uncompressed or .gz")
    if 0 in shape:
        raise DataError(path, f"the shape {tuple(shape)}", "it must have elements", AGAIN)
    size, length = len(data) - start, math.prod(shape)
    if size != length:
        found = f"truncated to {size} bytes" if size < length else f"{size - length} trailing bytes"
        raise DataError(path, f"{found} after the header", f"its shape {tuple(shape)} needs {length}", AGAIN)
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
