"""A Dataset: labelled images for training and for the test, standardised by the training images.

Every reader ends in `standardised`, and every bad file or folder in a DataError.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NoReturn

import numpy as np
from sklearn.model_selection import train_test_split

SHARE = 0.2  # of the examples, for the test, where the data have no test set
CHUNK = 1000  # images at a time, in float64

Pair = tuple[np.ndarray, np.ndarray]


class DataError(ValueError):
    """A file or folder that is not what it should be: which, what was found, the rule and the remedy.

    >>> print(DataError("a.npz", "no labels", "each image has a label", "Add them"))
    `a.npz`: no labels, but each image has a label. Add them.
    """

    def __init__(self, where: str | Path, found: str, rule: str, remedy: str):
        super().__init__(f"`{where}`: {found}, but {rule}. {remedy}.")


@dataclass(frozen=True)
class Dataset:
    """Images (N, H, W, C) in float32, and labels (N,) in int32 that count in `classes`.

    Per channel the training images have mean 0 and deviation 1; `mean` and `deviation` (C,) are those of the pixels
    as they were read, in float32.
    """

    name: str
    train: Pair
    test: Pair
    classes: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Images as they were before the standardisation, to float32's precision: images * deviation + mean."""
        return np.asarray(images) * self.deviation + self.mean


def standardised(name: str, where: str | Path, train: Pair, test: Pair, classes: Sequence[str]) -> Dataset:
    """The Dataset of images (N, H, W) or (N, H, W, C) of any real type, and integer labels, read from `where`.

    With the mean m and the deviation s of a channel over all pixels of all training images, x becomes (x - m) / s.
    A channel that is constant to float32's precision has s = 1. DataError if the arrays do not fit together.
    """
    (x, y), (x_test, y_test) = (
        checked(f"{where}, {part}", *pair, len(classes)) for part, pair in (("training", train), ("test", test))
    )
    if x.shape[1:] != x_test.shape[1:]:
        fail = f"training images of {x.shape[1:]} and test images of {x_test.shape[1:]}"
        raise DataError(where, fail, "all have one height, width and channels", "Resize one of the two")
    if len(classes) < 2:
        rule = "a classification needs two or more"
        raise DataError(where, f"the one class {classes[0]!r}" if classes else "no class", rule, "Add another class")
    mean = x.mean((0, 1, 2), dtype=np.float64)
    chunks = (x[start : start + CHUNK] for start in range(0, len(x), CHUNK))
    squares = sum(np.square(chunk - mean).sum((0, 1, 2)) for chunk in chunks)
    deviation = np.sqrt(squares / (x.size // x.shape[-1])).astype(np.float32)
    mean = mean.astype(np.float32)
    deviation[deviation <= np.finfo(np.float32).eps * np.abs(mean)] = 1
    for images in (x, x_test):
        images -= mean
        images /= deviation
    return Dataset(name, (x, y), (x_test, y_test), tuple(classes), mean, deviation)


def checked(where: str, images: np.ndarray, labels: np.ndarray, classes: int) -> Pair:
    """Copies of images as (N, H, W, C) in float32 and of labels as (N,) in int32, that fit together."""

    def fail(found: str, rule: str, remedy: str) -> NoReturn:
        raise DataError(where, found, rule, remedy)

    if images.ndim not in (3, 4) or 0 in images.shape:
        fail(f"images of shape {images.shape}", "images are (N, H, W) or (N, H, W, C), none of them 0", "Reshape them")
    if images.dtype.kind not in "biuf":
        fail(f"images of dtype {images.dtype}", "pixels are real numbers", "Convert them to uint8 or float32")
    if labels.shape != images.shape[:1]:
        rule = f"{len(images)} images need labels of shape ({len(images)},)"
        fail(f"labels of shape {labels.shape}", rule, "Give each image one label")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"labels from {labels.min()} to {labels.max()}"
        fail(found, f"{classes} classes have the labels 0 to {classes - 1}", "Get the file again, or correct it")
    with np.errstate(over="ignore"):  # it is told below
        x = np.array(images if images.ndim == 4 else images[..., None], np.float32, order="C")
    if not np.isfinite(x).all():
        bad = int(np.argmin(np.isfinite(x).all((1, 2, 3))))
        fail(f"image {bad} has a NaN, or a number beyond float32", "pixels are finite", "Correct or drop that image")
    return x, np.array(labels, np.int32)


def split(
    where: str | Path, images: np.ndarray, labels: np.ndarray, seed: int, names: Sequence[str] = ()
) -> tuple[Pair, Pair]:
    """Training and test, a fifth (rounded up) of the examples, with each class in proportion; a function of the seed.

    scikit-learn's train_test_split; but the test has no fewer examples than there are classes. DataError if a class
    has one example; it tells the class by `names`, or else by its label.

    >>> train, test = split("here", np.zeros((10, 1, 1)), np.repeat([0, 1], 5), seed=0)
    >>> np.bincount(train[1]), np.bincount(test[1])
    (array([4, 4]), array([1, 1]))
    """
    values, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        label = values[counts.argmin()]
        found = f"the class {names[label] if names else label} has one example"
        raise DataError(where, found, "a split needs two or more of each class", "Add another, or a test set")
    size = max(ceil(SHARE * len(labels)), len(values))
    rows = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed % 2**32)
    train, test = (np.asarray(part) for part in rows)
    return (images[train], labels[train]), (images[test], labels[test])
