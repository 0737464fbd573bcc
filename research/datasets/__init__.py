"""The data of research/train.py: `load` finds out the format, one a file, and reads it into a Dataset.

digits      scikit-learn's digits
archives    an .npz
mnist       MNIST's IDX files
cifar       CIFAR-10 and CIFAR-100, the binary or the Python version
folders     a folder of images for each class
"""

import os
from pathlib import Path

from research.datasets import archives, cifar, digits, folders, mnist
from research.datasets.base import DataError, Dataset

__all__ = ["DataError", "Dataset", "load"]

SUBFOLDERS = ("MNIST/raw", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")
KNOWN = (
    "data are 'digits'; an .npz of x_train, y_train, x_test, y_test or of images, labels; a folder of MNIST's IDX "
    f"files; one of CIFAR's batches; a folder that holds one of {', '.join(SUBFOLDERS)}; or a folder of images, "
    "FOLDER/<class>/<file> or FOLDER/train/<class>/<file> with FOLDER/test/<class>/<file>"
)


def load(data: str, size: int | None = None, seed: int = 0) -> Dataset:
    """The Dataset that `data` names.

    >>> digits = load("digits")
    >>> digits.train[0].shape, digits.test[0].shape, len(digits.classes)
    ((1437, 8, 8, 1), (360, 8, 8, 1), 10)

    Parameters: `data` is 'digits' or a path (./digits for a folder of that name); `size` is the height and width to
    which a folder's images are resized, by default those of the first; `seed` splits an archive or a folder of images
    that has no test set. DataError if there is no such path, its format is not known, or a file is not as it should
    be; and if `size` is given for another format, whose images are not resized.
    """
    if size is not None and size < 1:
        raise DataError(data, f"size={size}", "the height and width of images are 1 or more", "Leave it out")
    path = Path(os.path.expanduser(data))
    if data != "digits" and not os.path.exists(path):
        raise DataError(data, "no such file or folder", KNOWN, "Correct the path")
    try:
        return read(data, path, size, seed)
    except OSError as e:
        remedy = "Correct the permissions, or get it again"
        raise DataError(e.filename or data, str(e.strerror or e), "it must be readable", remedy) from e


def read(data: str, path: Path, size: int | None, seed: int) -> Dataset:
    reader, where = reader_of(data, path)
    if reader is folders:
        return folders.read(where, size, seed)
    if size is not None:
        raise DataError(data, f"size={size}", "only a folder of images is resized", "Leave size out")
    if reader is digits:
        return digits.read()
    return archives.read(where, seed) if reader is archives else reader.read(where)


def reader_of(data: str, path: Path):
    """The module that reads `data`, and the file or folder that it reads."""
    if data == "digits":
        return digits, path
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return archives, path
        raise DataError(data, f"a file {path.suffix or 'without a suffix'}", KNOWN, "Give one of these")
    folders_there = [path, *(path / name for name in SUBFOLDERS)]
    found = [(module, folder) for folder in folders_there for module in (mnist, cifar) if module.recognise(folder)]
    if len(found) > 1:
        several = " and ".join(f"{module.__name__.rpartition('.')[2]} in {folder}" for module, folder in found)
        raise DataError(data, several, "a path leads to one data set", "Give the folder of one of them")
    if found:
        return found[0]
    if folders.recognise(path):
        return folders, path
    raise DataError(data, "none of the known files or folders in it", KNOWN, "Give one of these")
