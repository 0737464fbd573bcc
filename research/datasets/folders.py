"""Any images, in a folder for each class: FOLDER/<class>/<file>, or FOLDER/train/<class>/<file> and FOLDER/test/...

Pillow reads them. Classes and files come in the order of their names; names that begin with a dot are passed over,
and so are files beside the classes' folders.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from research.datasets.base import DataError, Dataset, Pair, split, standardised

GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
REMEDY = "Lay them as FOLDER/<class>/<file>, or as FOLDER/train/<class>/<file> and FOLDER/test/<class>/<file>"


def recognise(folder: Path) -> bool:
    return any(path.is_dir() for path in visible(folder))


def read(folder: Path, size: int | None, seed: int) -> Dataset:
    """The Dataset of a folder, in grey if every image is, otherwise in RGB without transparency.

    Each image is resized to (size, size), or to the shape of the first; its proportions may change. Of 16 bits the
    upper 8 are used. Without FOLDER/train and FOLDER/test, the images are split by the seed.
    """
    if not (folder / "train").is_dir() or not (folder / "test").is_dir():
        classes = listed(folder)
        shape = common_shape(list(classes.values()), size)
        train, test = split(folder, *decoded(classes, list(classes), shape), seed, list(classes))
        return standardised(folder.name, folder, train, test, list(classes))
    parts = [listed(folder / "train"), listed(folder / "test", least=1)]
    names = list(parts[0])
    for name in parts[1]:
        if name not in names:
            rule = f"the classes are those of {folder / 'train'}"
            raise DataError(folder / "test" / name, f"the new class {name!r}", rule, "Move it, or add training images")
    shape = common_shape([paths for part in parts for paths in part.values()], size)
    train, test = (decoded(part, names, shape) for part in parts)
    return standardised(folder.name, folder, train, test, names)


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def listed(folder: Path, least: int = 2) -> dict[str, list[Path]]:
    """The files of each class; DataError if a class has none, or there are fewer than `least` classes."""
    classes = {path.name: visible(path) for path in visible(folder) if path.is_dir()}
    if len(classes) < least:
        found = f"{len(classes)} folders of classes ({', '.join(classes) or 'none'})"
        raise DataError(folder, found, f"{least} or more are needed", REMEDY)
    for name, paths in classes.items():
        if not paths:
            raise DataError(folder / name, "no files", "each class needs images", "Add some, or remove the folder")
        for path in paths:
            if path.is_dir():
                raise DataError(path, "a folder", "the folder of a class holds only images", REMEDY)
    return classes


def opened(path: Path, work):
    """What `work` makes of the image, whose pixels are read only if it needs them."""
    try:
        with Image.open(path) as image:
            return work(image)
    except Exception as e:  # each of Pillow's formats raises its own
        remedy = "Remove it from the folder, or get it again"
        raise DataError(path, f"{type(e).__name__} ({e})", "it must be an image that Pillow reads", remedy) from e


def common_shape(classes: list[list[Path]], size: int | None) -> tuple[int, int, int]:
    """(height, width, channels) of the images."""
    paths = [path for files in classes for path in files]
    grey = all(opened(path, lambda image: image.mode) in GREY for path in paths)
    height, width = (size, size) if size else opened(paths[0], lambda image: ImageOps.exif_transpose(image).size[::-1])
    return height, width, 1 if grey else 3


def decoded(classes: dict[str, list[Path]], names: list[str], shape: tuple[int, int, int]) -> Pair:
    """The images in uint8 and their labels."""
    height, width, channels = shape

    def pixels(image: Image.Image) -> np.ndarray:
        image = eight_bits(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(shape)

    x = np.empty((sum(map(len, classes.values())), *shape), np.uint8)
    labelled = [(path, names.index(name)) for name, paths in classes.items() for path in paths]
    for row, (path, _) in enumerate(labelled):
        x[row] = opened(path, pixels)
    return x, np.array([label for _, label in labelled])


def eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode that Pillow converts to grey and to RGB without clipping."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}: 32-bit pixels, whose range is not known; save it in 8 or 16 bits")
    return image.convert("RGBA") if "transparency" in image.info else image  # a palette's cannot go straight to RGB
