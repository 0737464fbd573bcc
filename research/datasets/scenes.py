"""Real digits at known places on real textures, and faces: data with which it can be said where a map should look.

A scene is 32x32: a piece of scikit-image's photograph of brick, grass or gravel, at 0.3 of its contrast, and on it one
of scikit-learn's digits at twice its size, at a random place. The mask is the digit's box of 16x16.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import skimage.data
from skimage.transform import resize
from sklearn.datasets import load_digits

SIZE, BOX, CONTRAST = 32, 16, 0.3
TEXTURES = ("brick", "grass", "gravel")


class Scenes(NamedTuple):
    """images [n, 32, 32, 1], about standardised; labels [n]; masks [n, 32, 32], 1 in the digit's box; textures [n]."""

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    textures: np.ndarray


@cache
def textures() -> dict[str, np.ndarray]:
    """Each photograph at half its size, 256x256, with mean 0 and deviation 1; its upper half is for training."""
    found = {}
    for name in TEXTURES:
        image = np.asarray(resize(getattr(skimage.data, name)().astype(np.float64), (256, 256), anti_aliasing=True))
        found[name] = (image - image.mean()) / image.std()
    return found


@cache
def digits(classes: tuple[int, ...], test: bool) -> tuple[np.ndarray, np.ndarray]:
    """The digits of these classes, between 0 and 1, at twice their size: the first 1400 for training, or the others."""
    images, labels = load_digits(return_X_y=True)
    part = slice(1400, None) if test else slice(1400)
    images, labels = np.reshape(images, (-1, 8, 8))[part] / 16, np.asarray(labels)[part]
    wanted = np.isin(labels, classes)
    large = np.stack([np.asarray(resize(image, (BOX, BOX), order=1)) for image in images[wanted]])
    return large, np.searchsorted(classes, labels[wanted])


def draw(
    rng: np.random.Generator, n: int, classes: tuple[int, ...], *, test: bool, bias: float = 0.0, clear: bool = False
) -> Scenes:
    """n scenes of a digit among `classes`, in increasing order; the label is the place in that order.

    With the probability `bias` the texture is the one that belongs to the class, (label modulo 3); else any. In a
    clear box there is the digit alone.
    """
    shapes, names = digits(classes, test)
    which = rng.integers(len(shapes), size=n)
    labels = names[which]
    texture = np.where(rng.random(n) < bias, labels % len(TEXTURES), rng.integers(len(TEXTURES), size=n))
    images, masks = np.zeros((n, SIZE, SIZE, 1), np.float32), np.zeros((n, SIZE, SIZE), np.float32)
    pieces = list(textures().values())
    for k in range(n):
        i, j = rng.integers(128 - SIZE + 1) + 128 * test, rng.integers(256 - SIZE + 1)
        scene = CONTRAST * pieces[texture[k]][i : i + SIZE, j : j + SIZE]
        a, b = rng.integers(SIZE - BOX + 1, size=2)
        shape = shapes[which[k]]
        inside = scene[a : a + BOX, b : b + BOX]
        scene = scene.copy()
        scene[a : a + BOX, b : b + BOX] = inside * (1 - shape) * (not clear) + 2 * shape
        images[k, ..., 0] = scene
        masks[k, a : a + BOX, b : b + BOX] = 1
    return Scenes(images, labels.astype(np.int32), masks, texture)


def faces(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-image's lfw_subset, 25x25: images and labels for training (150) and for the test (50); 1 is a face."""
    images = skimage.data.lfw_subset().astype(np.float32)[..., None]
    labels = np.repeat([1, 0], 100).astype(np.int32)
    order = np.random.default_rng(seed).permutation(200)
    images = (images - images.mean()) / images.std()
    return images[order[:150]], labels[order[:150]], images[order[150:]], labels[order[150:]]
