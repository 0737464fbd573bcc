"""CIFAR-10 and CIFAR-100 in a folder, in their binary or their Python version.

An image is 3072 bytes: 1024 of red, then of green, then of blue, each 32 rows of 32. In the binary version its labels
stand before it, for CIFAR-100 the coarse and then the fine one, which is used here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.datasets import pickles
from research.datasets.base import DataError, Dataset, Pair, standardised

PIXELS = 3 * 32 * 32
AGAIN = "Get the file again"
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


@dataclass(frozen=True)
class Layout:
    """How one version lies in a folder."""

    name: str
    train: tuple[str, ...]  # as many of these as there are
    test: str
    meta: str  # the names of the classes
    classes: int
    pickled: bool
    label: str  # the key, in a pickled file
    names: str  # likewise, in meta


LAYOUTS = (
    Layout("CIFAR-10", tuple(b + ".bin" for b in BATCHES), "test_batch.bin", "batches.meta.txt", 10, False, "", ""),
    Layout("CIFAR-10", BATCHES, "test_batch", "batches.meta", 10, True, "labels", "label_names"),
    Layout("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", 100, False, "", ""),
    Layout("CIFAR-100", ("train",), "test", "meta", 100, True, "fine_labels", "fine_label_names"),
)


def recognise(folder: Path) -> bool:
    return any((folder / name).is_file() for layout in LAYOUTS for name in (*layout.train, layout.test))


def read(folder: Path) -> Dataset:
    """The Dataset of the first of LAYOUTS that has a file there; the classes are numbers where `meta` is missing."""

    def there(layout: Layout) -> list[str]:
        return [name for name in (*layout.train, layout.test) if (folder / name).is_file()]

    layout = next(layout for layout in LAYOUTS if there(layout))
    batches = [name for name in there(layout) if name != layout.test]
    for name, missing in ((layout.train[0], not batches), (layout.test, layout.test not in there(layout))):
        if missing:
            rule = f"{layout.name} here is {' or '.join(layout.train)} for training and {layout.test}"
            raise DataError(folder / name, "no such file", rule, "Put it there")
    reader = read_pickled if layout.pickled else read_binary
    pairs = [reader(folder / name, layout) for name in batches]
    train = np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])
    return standardised(layout.name, folder, train, reader(folder / layout.test, layout), names(folder, layout))


def read_binary(path: Path, layout: Layout) -> Pair:
    leading = 1 if layout.classes == 10 else 2
    data = np.frombuffer(path.read_bytes(), np.uint8)
    record = leading + PIXELS
    if data.size == 0 or data.size % record:
        rule = f"a file of {layout.name} is a multiple of {record} bytes, not 0"
        raise DataError(path, f"{data.size} bytes (truncated?)", rule, AGAIN)
    rows = data.reshape(-1, record)
    return pair(path, rows[:, leading:], rows[:, leading - 1], layout)


def read_pickled(path: Path, layout: Layout) -> Pair:
    content = pickles.read(path)
    x = expected(path, content, "data", np.ndarray)
    if x.ndim != 2 or x.shape[1] != PIXELS or x.dtype != np.uint8 or len(x) == 0:
        found = f"data of shape {x.shape} and dtype {x.dtype}"
        raise DataError(path, found, f"data are uint8 of shape (N, {PIXELS}), N not 0", AGAIN)
    y = expected(path, content, layout.label, list | np.ndarray)
    if isinstance(y, list) and not all(type(label) is int for label in y):
        raise DataError(path, f"{layout.label} that are not integers", "labels are integers", AGAIN)
    if np.shape(y) != (len(x),):
        raise DataError(path, f"{layout.label} of shape {np.shape(y)}", f"data has {len(x)} images", AGAIN)
    return pair(path, x, np.asarray(y), layout)


def expected(path: Path, content: dict[Any, Any], key: str, kind: Any) -> Any:
    if not isinstance(content.get(key), kind):
        found = f"{key!r} is a {type(content[key]).__name__}" if key in content else f"the keys {list(content)}"
        rule = f"there must be {key!r}, an array" + (" or a list" if kind is not np.ndarray else "")
        raise DataError(path, found, rule, "Check that it is this file")
    return content[key]


def pair(path: Path, x: np.ndarray, y: np.ndarray, layout: Layout) -> Pair:
    wrong = (y < 0) | (y >= layout.classes)
    if wrong.any():
        found = f"label {y[wrong.argmax()]} at index {wrong.argmax()}"
        raise DataError(path, found, f"labels are 0 to {layout.classes - 1}", AGAIN)
    return x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), y


def names(folder: Path, layout: Layout) -> list[str]:
    path = folder / layout.meta
    if not path.exists():
        return [str(label) for label in range(layout.classes)]
    if layout.pickled:
        found = [str(pickles.text(name)) for name in expected(path, pickles.read(path), layout.names, list)]
    else:
        found = path.read_bytes().decode("utf-8", "replace").split()
    if len(found) != layout.classes:
        remedy = "Get the file again, or remove it: the classes are then numbered"
        raise DataError(path, f"{len(found)} names", f"{layout.name} has {layout.classes} classes", remedy)
    return found
