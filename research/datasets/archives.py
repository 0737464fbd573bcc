"""An .npz of arrays: x_train, y_train, x_test, y_test as Keras names them; or images, labels, which are split."""

from pathlib import Path

import numpy as np

from research.datasets.base import DataError, Dataset, split, standardised

WHOLE = ("x_train", "y_train", "x_test", "y_test")
UNSPLIT = ("images", "labels")


def read(path: Path, seed: int) -> Dataset:
    """The Dataset in an .npz; pickled objects in it are refused, not run.

    Images are (N, H, W) or (N, H, W, C), uint8 or float; labels are (N,) or (N, 1), integers or text. The distinct
    labels of the training, in order, are the classes.
    """
    arrays = opened(path)
    for part, a in arrays.items():
        if a.ndim == 0 or len(a) == 0:
            raise DataError(f"{path}, {part}", f"shape {a.shape}", "there must be examples", "Save some")
        if part in ("labels", "y_train", "y_test"):
            if a.dtype.kind not in "biuU":
                rule = "labels are integers or text"
                raise DataError(f"{path}, {part}", f"dtype {a.dtype}", rule, f"Save {part}.astype('int32')")
            if a.ndim == 2 and a.shape[1] == 1:
                arrays[part] = a[:, 0]
    if "images" in arrays:
        images, labels = arrays["images"], arrays["labels"]
        if labels.shape != images.shape[:1]:
            found = f"images of shape {images.shape} and labels of shape {labels.shape}"
            raise DataError(path, found, "each image has one label", "Save labels of shape (N,)")
        train, test = split(path, images, labels, seed)
    else:
        train, test = (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    classes = np.unique(train[1])
    unknown = np.setdiff1d(test[1], classes)
    if unknown.size:
        found = f"the test has the labels {unknown[:5].tolist()}, which the training lacks"
        raise DataError(path, found, "each class needs training images", "Add them, or drop these test images")
    train, test = ((x, np.searchsorted(classes, y)) for x, y in (train, test))
    return standardised(path.stem, path, train, test, [str(label) for label in classes])


def opened(path: Path) -> dict[str, np.ndarray]:
    """The arrays of WHOLE, or else of UNSPLIT."""
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            names = tuple(archive.files)
            wanted = next((form for form in (WHOLE, UNSPLIT) if set(form) <= set(names)), ())
            arrays = {name: archive[name] for name in wanted}
            for name, a in arrays.items():
                if not isinstance(a, np.ndarray):  # a member that is no .npy comes as bytes
                    raise ValueError(f"{name} is not an array")
    except OSError:
        raise
    except Exception as e:  # zipfile, zlib and NumPy raise their own
        found = f"{type(e).__name__} ({(str(e).splitlines() or [''])[0][:200]})"
        rule = "it must be an .npz of plain arrays, without pickled objects"
        raise DataError(path, found, rule, "Save it again by np.savez(path, images=x, labels=y)") from e
    if not wanted:
        rule = f"an archive has {', '.join(WHOLE)}; or {' and '.join(UNSPLIT)}"
        raise DataError(path, f"the arrays {', '.join(names) or '(none)'}", rule, "Rename them")
    return arrays
