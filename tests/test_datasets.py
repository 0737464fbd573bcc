"""The readers of research/datasets against files made by hand, and the augmentation against NumPy."""

import doctest
import gzip
import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import research.datasets
from research.datasets import DataError, augmentation, base, load
from research.datasets.augmentation import augment

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


def pixels(data, part):
    """The images as they lay in the file, by the definition of the standardisation."""
    images, _ = getattr(data, part)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    found = images.astype(np.float64) * data.deviation + data.mean
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)
    return np.rint(found).astype(int)


def refuses(name, *words):
    """The block must raise a DataError that names the file, then says these words in their order."""
    return pytest.raises(DataError, match=r"(?s)" + ".*".join(re.escape(str(word)) for word in (name, *words)))


def rows(images, labels):
    """What a split leaves: each image with its label, in any order."""
    return sorted((image.tobytes(), int(label)) for image, label in zip(images.astype(int), labels, strict=True))


# Datasets


@pytest.mark.parametrize("module", [research.datasets, base, augmentation], ids=lambda module: module.__name__)
def test_docstrings(module):
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_standardised(rng):
    x = rng.integers(0, 256, (2500, 3, 4, 2)).astype(np.uint8)
    x[..., 1] = 7  # a constant channel
    y = np.arange(2500) % 3
    data = base.standardised("name", "where", (x, y), (x[:5] + 1, y[:5]), "abc")
    images, labels = data.train
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert (data.name, data.classes) == ("name", ("a", "b", "c"))
    np.testing.assert_allclose(data.mean, [x[..., 0].mean(), 7], rtol=1e-6)
    np.testing.assert_allclose(data.deviation, [x[..., 0].astype(float).std(), 1], rtol=1e-6)
    np.testing.assert_allclose(images.astype(float).mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(images.astype(float).std((0, 1, 2)), [1, 0], atol=1e-6)
    np.testing.assert_allclose(data.pixels(images), x, atol=1e-4)
    np.testing.assert_allclose(data.pixels(data.test[0]), x[:5] + 1, atol=1e-4)  # by the training's mean
    np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize(
    ("images", "labels", "found"),
    [
        (np.zeros((4, 2)), np.arange(4) % 2, "images of shape (4, 2)"),
        (np.zeros((4, 0, 2)), np.arange(4) % 2, "images of shape (4, 0, 2)"),
        (np.zeros((4, 2, 2), complex), np.arange(4) % 2, "complex128"),
        (np.zeros((4, 2, 2)), np.arange(3) % 2, "labels of shape (3,)"),
        (np.zeros((4, 2, 2)), np.arange(4), "labels from 0 to 3"),
        (np.zeros((4, 2, 2)), np.arange(4) // 2 - 1, "labels from -1 to 0"),
        (np.full((4, 2, 2), np.nan), np.arange(4) % 2, "image 0 has a NaN"),
        (np.full((4, 2, 2), 1e300), np.arange(4) % 2, "image 0 has a NaN, or a number beyond float32"),
    ],
)
def test_arrays_that_do_not_fit(images, labels, found):
    good = np.zeros((4, 2, 2)), np.arange(4) % 2
    with refuses("here, training", found):
        base.standardised("name", "here", (images, labels), good, "ab")
    with refuses("here, test", found):
        base.standardised("name", "here", good, (images, labels), "ab")


def test_shapes_of_training_and_test_differ():
    with refuses("here", "(2, 2, 1)", "(2, 3, 1)"):
        y = np.arange(4) % 2
        base.standardised("name", "here", (np.zeros((4, 2, 2)), y), (np.zeros((4, 2, 3)), y), "ab")


@pytest.mark.parametrize("counts", [(2, 2), (2, 8), (50, 30, 20), (2, 2, 2, 3)])
def test_split(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels))[:, None, None]
    (x, y), (x_test, y_test) = base.split("here", images, labels, 3)
    both = np.concatenate([x, x_test]).ravel(), np.concatenate([y, y_test])
    order = np.argsort(both[0])
    np.testing.assert_array_equal(both[0][order], images.ravel())
    np.testing.assert_array_equal(both[1][order], labels)
    assert len(y_test) == max(-(-len(labels) // 5), len(counts))
    share = len(y_test) / len(labels)
    assert all(abs(n - share * count) < 1 for n, count in zip(np.bincount(y_test), counts, strict=False))
    again, other = base.split("here", images, labels, 3), base.split("here", images, labels, -1)
    np.testing.assert_array_equal(again[0][0], x)
    assert sum(counts) < 100 or not np.array_equal(other[0][0], x)


def test_digits():
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    data = load("digits", seed=5)
    np.testing.assert_array_equal(pixels(data, "train"), x.reshape(-1, 8, 8, 1))
    np.testing.assert_array_equal(pixels(data, "test"), x_test.reshape(-1, 8, 8, 1))
    np.testing.assert_array_equal(data.train[1], y)
    np.testing.assert_array_equal(data.test[1], y_test)
    assert data.classes == tuple("0123456789")


# What `load` knows


def test_paths_that_are_no_data(tmp_path):
    with refuses("nowhere", "no such file or folder", "'digits'", "npz", "MNIST", "CIFAR", "FOLDER/<class>/<file>"):
        load(str(tmp_path / "nowhere"))
    with refuses(tmp_path.name, "none of the known", "'digits'"):
        load(str(tmp_path))
    (tmp_path / "a.csv").write_text("1,2")
    with refuses("a.csv", "a file .csv", "'digits'"):
        load(str(tmp_path / "a.csv"))
    with refuses(tmp_path.name, "none of the known"):
        load(str(tmp_path))
    with refuses("x" * 5000, "no such file or folder"):
        load("x" * 5000)
    with refuses("~nobody-of-this-name", "no such file or folder"):
        load("~nobody-of-this-name/data")


def test_size_is_for_folders_of_images():
    with refuses("digits", "size=16", "only a folder of images is resized"):
        load("digits", size=16)
    with refuses("digits", "size=0", "are 1 or more"):
        load("digits", size=0)


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    mnist_files(tmp_path)

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", forbidden)
    with refuses("train-images-idx3-ubyte", "Permission denied"):
        load(str(tmp_path))


def test_two_data_sets_in_a_folder(tmp_path):
    for name, make in (("MNIST/raw", mnist_files), ("cifar-10-batches-bin", cifar10_binary)):
        (tmp_path / name).mkdir(parents=True)
        make(tmp_path / name)
    with refuses(tmp_path.name, "mnist in", "cifar in"):
        load(str(tmp_path))


# Archives


def archive(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 2)])
def test_archive_with_a_test_set(tmp_path, rng, dtype, shape):
    x, x_test = (rng.integers(0, 256, (n, *shape)).astype(dtype) for n in (9, 4))
    y, y_test = np.arange(9)[:, None] % 3 + 5, np.array([[7], [5], [6], [5]])  # (N, 1) as Keras has CIFAR
    data = load(archive(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test, more=y))
    full = (*shape, 1)[:3]
    np.testing.assert_array_equal(pixels(data, "train"), x.reshape(-1, *full))
    np.testing.assert_array_equal(pixels(data, "test"), x_test.reshape(-1, *full))
    assert (data.name, data.classes) == ("mine", ("5", "6", "7"))
    np.testing.assert_array_equal(data.train[1], y[:, 0] - 5)
    np.testing.assert_array_equal(data.test[1], [2, 0, 1, 0])


def test_archive_that_is_split(tmp_path, rng):
    x, y = rng.integers(0, 256, (20, 5, 5)).astype(np.uint8), np.array(["cat", "dog"])[np.arange(20) % 2]
    path = archive(tmp_path / "mine.npz", images=x, labels=y)
    data, other = load(path), load(path, seed=1)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.test[1]).tolist() == [2, 2]
    found = rows(pixels(data, "train"), data.train[1]) + rows(pixels(data, "test"), data.test[1])
    assert sorted(found) == rows(x[..., None], y == "dog")
    assert not np.array_equal(pixels(data, "test"), pixels(other, "test"))


X, Y = np.zeros((6, 2, 2)), np.arange(6) % 2


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (dict(images=X), ["the arrays images", "x_train, y_train, x_test, y_test"]),
        (dict(x_train=X, y_train=Y, x_test=X), ["the arrays x_train, y_train, x_test"]),
        (dict(), ["the arrays (none)"]),
        (dict(images=X, labels=Y[:5]), ["labels of shape (5,)"]),
        (dict(images=X, labels=np.float64(3)), ["labels", "shape ()"]),
        (dict(images=X[:0], labels=Y[:0]), ["images", "shape (0, 2, 2)"]),
        (dict(images=X, labels=Y + 0.5), ["labels", "dtype float64"]),
        (dict(images=X, labels=Y * 0), ["the one class '0'"]),
        (dict(images=X, labels=np.arange(6) // 5), ["the class 1 has one example"]),
        (dict(images=X.astype(str), labels=Y), ["images of dtype <U"]),
        (dict(x_train=X, y_train=Y, x_test=X, y_test=Y + 1), ["the test has the labels [2]"]),
        (dict(x_train=X, y_train=Y, x_test=X, y_test=np.eye(6)[:, :2].astype(int)), ["test", "shape (6, 2)"]),
        (dict(x_train=X, y_train=Y, x_test=X[:, 1:], y_test=Y), ["(2, 2, 1)", "(1, 2, 1)"]),
    ],
)
def test_archives_that_are_refused(tmp_path, arrays, words):
    with refuses("mine.npz", *words):
        load(archive(tmp_path / "mine.npz", **arrays))


def test_archives_that_are_damaged(tmp_path):
    path = tmp_path / "mine.npz"
    archive(path, images=X, labels=Y)
    whole = path.read_bytes()
    at = whole.index(X.tobytes())
    flipped = whole[:at] + b"\1" + whole[at + 1 :]  # the checksum does not fit
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w") as file:
        file.writestr("images.npy", b"not an array")
        file.writestr("labels.npy", b"nor this")
    single = io.BytesIO()
    np.save(single, X)
    for bad in (whole[:-30], whole[:40], b"", b"no archive", flipped, member.getvalue(), single.getvalue()):
        path.write_bytes(bad)
        with refuses("mine.npz", "plain arrays"):
            load(str(path))


def test_an_archive_runs_nothing(tmp_path):
    ran = tmp_path / "ran"
    path = archive(tmp_path / "mine.npz", images=X, labels=np.array([Evil(os.system, f"touch {ran}")] * 6, object))
    with refuses("mine.npz", "ValueError", "without pickled objects"):
        load(path)
    assert not ran.exists()


# MNIST


def idx(array, magic=None):
    header = struct.pack(f">{1 + array.ndim}I", magic or 2048 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_arrays():
    rng = np.random.default_rng(1)
    x, x_test = rng.integers(0, 256, (30, 28, 28)), rng.integers(0, 256, (20, 28, 28))
    return x, np.arange(30) % 10, x_test, np.arange(20)[::-1] % 10


MNIST = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def mnist_files(folder, zipped=()):
    for name, array in zip(MNIST, mnist_arrays(), strict=True):
        if name in zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


@pytest.mark.parametrize("zipped", [[], MNIST, MNIST[1:3]])
@pytest.mark.parametrize("folder", [".", "MNIST/raw"])
def test_mnist(tmp_path, zipped, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    mnist_files(tmp_path / folder, zipped)
    data = load(str(tmp_path))
    x, y, x_test, y_test = mnist_arrays()
    np.testing.assert_array_equal(pixels(data, "train"), x[..., None])
    np.testing.assert_array_equal(pixels(data, "test"), x_test[..., None])
    np.testing.assert_array_equal(data.train[1], y)
    np.testing.assert_array_equal(data.test[1], y_test)
    assert (data.name, data.classes) == ("MNIST", tuple("0123456789"))


@pytest.mark.parametrize("name", MNIST)
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], ["truncated to"]),
        (lambda data: data[:5], ["truncated to 5 bytes"]),
        (lambda data: b"", ["truncated to 0 bytes"]),
        (lambda data: data + b"\0\0", ["2 trailing bytes"]),
        (lambda data: struct.pack(">I", 2052) + data[4:], ["the magic number 2052"]),
        (lambda data: struct.pack("<I", 2051) + data[4:], ["the magic number"]),
        (lambda data: data[:4] + b"\0" * (len(data) - 4), ["the shape (0"]),
        (lambda data: data[:4] + b"\xff" * (len(data) - 4), ["truncated", "4294967295"]),
    ],
)
def test_mnist_damaged(tmp_path, name, zipped, damage, words):
    mnist_files(tmp_path, [name] if zipped else [])
    path = tmp_path / (name + ".gz" * zipped)
    data = damage(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    path.write_bytes(gzip.compress(data) if zipped else data)
    with refuses(path.name, *words):
        load(str(tmp_path))


@pytest.mark.parametrize("bad", ["truncated", "no gzip", "bits", "no deflate"])
def test_mnist_damaged_gzip(tmp_path, bad):
    mnist_files(tmp_path, MNIST)
    path = tmp_path / f"{MNIST[2]}.gz"
    data = path.read_bytes()
    turned = data[:2000] + bytes(255 - byte for byte in data[2000:2100]) + data[2100:]
    blocks = data[:10] + b"\xff" + data[11:]
    damaged = {"truncated": data[:-20], "no gzip": gzip.decompress(data), "bits": turned, "no deflate": blocks}
    path.write_bytes(damaged[bad])
    with refuses(path.name, "it must be a whole gzip file"):
        load(str(tmp_path))


def test_mnist_files_that_do_not_fit(tmp_path):
    mnist_files(tmp_path)
    (tmp_path / MNIST[1]).write_bytes(idx(np.arange(29) % 10))
    with refuses(MNIST[1], "29 labels", f"{MNIST[0]} has 30 images"):
        load(str(tmp_path))
    (tmp_path / MNIST[1]).write_bytes(idx(np.arange(30) % 11))
    with refuses(MNIST[1], "label 10 at index 10"):
        load(str(tmp_path))
    for name in MNIST:
        mnist_files(tmp_path)
        (tmp_path / name).unlink()
        with refuses(name, "no such file"):
            load(str(tmp_path))


# CIFAR


def cifar_arrays(classes, batches):
    """For each batch (images (N, 32, 32, 3), labels, coarse labels)."""
    rng = np.random.default_rng(2)
    return [
        (rng.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8), rng.permutation(classes)[:10].repeat(2)[:12], k)
        for k in range(batches)
    ]


def record(image, *labels):
    return bytes(labels) + b"".join(image[..., channel].tobytes() for channel in range(3))


def planes(images):
    return np.array([[*image[..., 0].flat, *image[..., 1].flat, *image[..., 2].flat] for image in images], np.uint8)


def cifar10_binary(folder):
    for name, (x, y, _) in zip([*BATCHES, "test_batch"], cifar_arrays(10, 6), strict=True):
        (folder / f"{name}.bin").write_bytes(b"".join(record(*pair) for pair in zip(x, y, strict=True)))
    (folder / "batches.meta.txt").write_text("".join(f"{name}\n" for name in "abcdefghij") + "\n")


def cifar100_binary(folder):
    for name, (x, y, _) in zip(["train", "test"], cifar_arrays(100, 2), strict=True):
        data = b"".join(record(image, fine // 5, fine) for image, fine in zip(x, y, strict=True))
        (folder / f"{name}.bin").write_bytes(data)
    (folder / "fine_label_names.txt").write_text("".join(f"fine{n}\n" for n in range(100)))


def cifar10_python(folder, protocol=2, text=str):
    for name, (x, y, _) in zip([*BATCHES, "test_batch"], cifar_arrays(10, 6), strict=True):
        content = {text("batch_label"): text(name), text("labels"): y.tolist(), text("data"): planes(x)}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({text("label_names"): [text(n) for n in "abcdefghij"]}, protocol)
    )


def cifar100_python(folder, protocol=2, text=str):
    for name, (x, y, _) in zip(["train", "test"], cifar_arrays(100, 2), strict=True):
        content = {text("fine_labels"): y, text("coarse_labels"): y // 5, text("data"): np.asfortranarray(planes(x))}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    names = [text(f"fine{n}") for n in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({text("fine_label_names"): names}, protocol))


def is_cifar(data, classes):
    *train, test = cifar_arrays(classes, 6 if classes == 10 else 2)
    np.testing.assert_array_equal(pixels(data, "train"), np.concatenate([x for x, _, _ in train]))
    np.testing.assert_array_equal(data.train[1], np.concatenate([y for _, y, _ in train]))
    np.testing.assert_array_equal(pixels(data, "test"), test[0])
    np.testing.assert_array_equal(data.test[1], test[1])
    assert data.name == f"CIFAR-{classes}"
    assert data.classes == (tuple("abcdefghij") if classes == 10 else tuple(f"fine{n}" for n in range(100)))
    return True


CIFAR = [
    (10, cifar10_binary, "cifar-10-batches-bin"),
    (100, cifar100_binary, "cifar-100-binary"),
    (10, cifar10_python, "cifar-10-batches-py"),
    (100, cifar100_python, "cifar-100-python"),
]


@pytest.mark.parametrize(("classes", "make", "folder"), CIFAR)
def test_cifar(tmp_path, classes, make, folder):
    (tmp_path / folder).mkdir()
    make(tmp_path / folder)
    assert is_cifar(load(str(tmp_path)), classes)
    assert is_cifar(load(str(tmp_path / folder)), classes)


@pytest.mark.parametrize(("classes", "make"), [(10, cifar10_python), (100, cifar100_python)])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("text", [str, str.encode])
def test_cifar_pickled_by_each_protocol(tmp_path, classes, make, protocol, text):
    make(tmp_path, protocol, text)
    assert is_cifar(load(str(tmp_path)), classes)


def test_cifar_pickled_by_python_2(tmp_path):
    """Byte for byte what cPickle of Python 2 writes, protocol 2: str is SHORT_BINSTRING, and so are the pixels."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def batch(x, y):
        raw = planes(x).tobytes()
        array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R(K\x01"
        array += b"K" + bytes([len(x)]) + b"M" + struct.pack("<H", 3072) + b"\x86"
        array += b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R(K\x03" + short(b"|")
        array += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        array += b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
        labels = b"](" + b"".join(b"K" + bytes([label]) for label in y) + b"e"
        return b"\x80\x02}(" + short(b"data") + array + short(b"labels") + labels + b"u."

    cifar10_python(tmp_path)
    for name, (x, y, _) in zip([*BATCHES, "test_batch"], cifar_arrays(10, 6), strict=True):
        (tmp_path / name).write_bytes(batch(x, y))
    assert is_cifar(load(str(tmp_path)), 10)


def test_cifar_in_part(tmp_path):
    """As many batches as there are, classes numbered where there are no names."""
    cifar10_binary(tmp_path)
    for name in ("data_batch_1.bin", "data_batch_3.bin", "data_batch_5.bin", "batches.meta.txt"):
        (tmp_path / name).unlink()
    data = load(str(tmp_path))
    arrays = cifar_arrays(10, 6)
    np.testing.assert_array_equal(pixels(data, "train"), np.concatenate([arrays[1][0], arrays[3][0]]))
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize(("classes", "make", "folder"), CIFAR)
def test_cifar_damaged(tmp_path, classes, make, folder):
    make(tmp_path)
    names = [path for path in sorted(tmp_path.iterdir()) if "label_names" not in path.name and "meta" not in path.name]
    for path in names:
        whole = path.read_bytes()
        for length in (0, 10, len(whole) // 2 + 1, len(whole) - 1):
            path.write_bytes(whole[:length])
            with refuses(path.name, "Get the file again"):
                load(str(tmp_path))
        path.write_bytes(whole)
    assert is_cifar(load(str(tmp_path)), classes)


@pytest.mark.parametrize(("classes", "make", "folder"), CIFAR)
def test_cifar_lacks_a_file(tmp_path, classes, make, folder):
    make(tmp_path)
    test = next(path for path in tmp_path.iterdir() if path.name.startswith("test"))
    data = test.read_bytes()
    test.unlink()
    with refuses(test.name, "no such file"):
        load(str(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    test.write_bytes(data)
    with refuses("data_batch_1" if classes == 10 else "train", "no such file"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("make", "name", "content", "words"),
    [
        (cifar10_binary, "data_batch_2.bin", record(np.zeros((32, 32, 3), np.uint8), 10), ["label 10 at index 0"]),
        (cifar100_binary, "test.bin", record(np.zeros((32, 32, 3), np.uint8), 0, 100), ["label 100 at index 0"]),
        (cifar10_binary, "batches.meta.txt", b"a\nb\n", ["2 names"]),
        (cifar10_python, "batches.meta", pickle.dumps({"label_names": ["a"]}), ["1 names"]),
        (cifar10_python, "batches.meta", pickle.dumps({"names": ["a"]}), ["'names'", "'label_names'"]),
    ],
)
def test_cifar_content(tmp_path, make, name, content, words):
    make(tmp_path)
    (tmp_path / name).write_bytes(content)
    with refuses(name, *words):
        load(str(tmp_path))


D = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], ["a pickled list"]),
        ({"data": D}, ["the keys ['data']", "'labels'"]),
        ({"labels": [1, 2]}, ["the keys ['labels']", "'data'"]),
        ({"data": D, "labels": 3}, ["'labels' is a int"]),
        ({"data": [1], "labels": [1]}, ["'data' is a list"]),
        ({"data": D[:, :-1], "labels": [1, 2]}, ["shape (2, 3071)"]),
        ({"data": D.astype(np.int16), "labels": [1, 2]}, ["dtype int16"]),
        ({"data": D.astype(float), "labels": [1, 2]}, ["an array of <f8"]),
        ({"data": D[:0], "labels": []}, []),
        ({"data": D, "labels": [1]}, ["labels of shape (1,)"]),
        ({"data": D, "labels": ["cat", "dog"]}, ["labels that are not integers"]),
        ({"data": D, "labels": [1, -1]}, ["label -1 at index 1"]),
        ({"data": np.array([[None]]), "labels": [1]}, ["an array"]),
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar_pickled_content(tmp_path, content, words, protocol):
    cifar10_python(tmp_path)
    (tmp_path / "data_batch_4").write_bytes(pickle.dumps(content, protocol))
    with refuses("data_batch_4", *words):
        load(str(tmp_path))


class Evil:
    """Its pickle calls a function with these arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_runs_nothing(tmp_path, name, protocol):
    cifar10_python(tmp_path)
    ran = tmp_path / "ran"
    evils = {
        f"{os.system.__module__}.system": Evil(os.system, f"touch {ran}"),
        ".eval": Evil(eval, f"open({str(ran)!r}, 'w').close()"),
        ".getattr": Evil(getattr, "", "join"),
        ".OrderedDict": OrderedDict(a=1),
        ".scalar": np.float32(1),
    }
    for told, evil in evils.items():
        (tmp_path / name).write_bytes(pickle.dumps({"data": D, "labels": evil}, protocol))
        with refuses(name, "the pickle names", told, "Do not trust"):
            load(str(tmp_path))
        assert not ran.exists()
    pickle.loads(pickle.dumps(Evil(os.system, f"touch {ran}"), protocol))  # it does run where it may
    assert ran.exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"cnumpy.core.multiarray\n_reconstruct\n(tR.", ["a pickled Array"]),
        (b"}S'data'\ncnumpy\nndarray\n)\x81s.", ["AttributeError"]),  # an instance without __init__
        (b"c_codecs\nencode\n(Vx\nVzlib\ntR.", ["bytes by way of 'zlib'"]),
        (b"c_codecs\nencode\n(Vx\nVlatin1\ntR.", ["a pickled bytes"]),
        (b"cnumpy.core.numeric\n_frombuffer\n(S'ab'\ncnumpy\ndtype\n(S'O8'\ntR(I2\ntS'C'\ntR.", ["an array of |O8"]),
        (
            b"cnumpy.core.numeric\n_frombuffer\n(S'ab'\ncnumpy\ndtype\n(S'u1'\ntR(I3\ntS'C'\ntR.",
            ["shape (3,) in 2 bytes"],
        ),
        (b"cnumpy.core.numeric\n_frombuffer\n(S'ab'\ncnumpy\ndtype\n(S'u1'\ntR(I-1\nI-2\ntS'C'\ntR.", ["(-1, -2)"]),
        (b"Pname\n.", ["whole pickle"]),
        (b"0.", ["whole pickle"]),
        (b"h\x05.", ["whole pickle"]),
        (b"\x82\x01.", ["whole pickle"]),
    ],
)
def test_a_pickle_of_other_opcodes(tmp_path, code, words):
    cifar10_python(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(code)
    with refuses("data_batch_1", *words):
        load(str(tmp_path))


# Folders of images


def pictures(folder, images, end="png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.{end}", **options)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("end", ["png", "bmp", "tiff"])
def test_folder_that_is_split(tmp_path, rng, shape, end):
    x = rng.integers(0, 256, (12, *shape)).astype(np.uint8)
    pictures(tmp_path / "dog", x[:6], end)
    pictures(tmp_path / "cat", x[6:], end)
    (tmp_path / "README.txt").write_text("beside the classes")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_text("")
    data, again, other = (load(str(tmp_path), seed=seed) for seed in (0, 0, 1))
    assert (data.name, data.classes) == (tmp_path.name, ("cat", "dog"))
    found = rows(pixels(data, "train"), data.train[1]) + rows(pixels(data, "test"), data.test[1])
    assert sorted(found) == rows(x.reshape(12, 5, 7, -1), np.arange(12) < 6)
    np.testing.assert_array_equal(data.train[0], again.train[0])
    assert not np.array_equal(data.train[0], other.train[0])


def train_and_test(folder, x):
    """Two classes of three training images, two test images of class a."""
    pictures(folder / "train" / "b", x[:3])
    pictures(folder / "train" / "a", x[3:6])
    pictures(folder / "test" / "a", x[6:8])
    return str(folder)


def test_folder_with_a_test_set(tmp_path, rng):
    x = rng.integers(0, 256, (8, 4, 5)).astype(np.uint8)
    data = load(train_and_test(tmp_path, x))
    np.testing.assert_array_equal(pixels(data, "train")[..., 0], [*x[3:6], *x[:3]])  # sorted by class, then file
    np.testing.assert_array_equal(pixels(data, "test")[..., 0], x[6:8])
    assert data.train[1].tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test[1].tolist() == [0, 0]
    assert data.classes == ("a", "b")


def test_files_in_the_order_of_their_names(tmp_path, monkeypatch, rng):
    """Whatever order the system lists them in."""
    x = rng.integers(0, 256, (8, 4, 5)).astype(np.uint8)
    path = train_and_test(tmp_path, x)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listing(folder), reverse=True)))
    np.testing.assert_array_equal(pixels(load(path), "train")[..., 0], [*x[3:6], *x[:3]])


def test_folder_resized(tmp_path, rng):
    x = np.full((8, 4, 6), 50, np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None]  # constant, whatever the size
    path = train_and_test(tmp_path, x)
    pictures(tmp_path / "test" / "b", [np.full((9, 9), 200, np.uint8)])
    data = load(path, size=3)
    assert data.train[0].shape == (6, 3, 3, 1)
    assert [image.max() for image in pixels(data, "test")] == [56, 57, 200]
    first = load(path)  # of the first image
    assert first.test[0].shape == (3, 4, 6, 1)
    pictures(tmp_path / "test" / "b", [np.arange(64, dtype=np.uint8).repeat(64).reshape(64, 64).T * 4])
    ramp = pixels(load(path, size=8), "test")[2, ..., 0]  # a linear ramp stays one, but at its ends
    np.testing.assert_allclose(ramp[:, 1:-1], np.tile(np.arange(1, 7) * 32 + 14, (8, 1)), atol=1)


def test_folder_modes(tmp_path):
    """Grey only if all are; palettes, transparency, 16 bits and orientations are as they look."""
    a = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    rgb = np.stack([a, 255 - a, a // 2], -1)
    folder = tmp_path / "train" / "a"
    pictures(folder, [a, a], "png")
    pictures(tmp_path / "train" / "b", [(a.astype(np.uint16) << 8) + 99], "png")
    Image.fromarray(a > 100).save(tmp_path / "train" / "b" / "1.png")
    pictures(tmp_path / "test" / "a", [np.stack([a, a // 3], -1)])
    found = load(str(tmp_path))
    assert found.train[0].shape == (4, 2, 3, 1)
    np.testing.assert_array_equal(pixels(found, "train")[..., 0], [a, a, a, (a > 100) * 255])
    np.testing.assert_array_equal(pixels(found, "test")[0, ..., 0], a)

    Image.fromarray(np.dstack([rgb, a])).save(folder / "2.png")
    palette = Image.fromarray(rgb).quantize(6)
    palette.save(folder / "3.png", transparency=bytes([0, 128, 255]))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(np.ascontiguousarray(rgb[::-1, ::-1])).save(folder / "4.png", exif=exif)
    found = pixels(load(str(tmp_path)), "train")
    np.testing.assert_array_equal(found[:2], np.stack([a, a, a], -1)[None].repeat(2, 0))
    np.testing.assert_array_equal(found[2], rgb)
    np.testing.assert_array_equal(found[3], np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(found[4], rgb)


@pytest.mark.parametrize("where", ["train/a/1.png", "test/a/1.png"])
@pytest.mark.parametrize("bad", ["truncated", "empty", "text", "float"])
def test_a_file_that_is_no_image(tmp_path, rng, where, bad):
    path = train_and_test(tmp_path, rng.integers(0, 256, (8, 40, 50)).astype(np.uint8))
    name = tmp_path / where
    data = name.read_bytes()
    name.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello"}.get(bad, data))
    if bad == "float":
        Image.fromarray(np.ones((4, 4), np.float32)).save(name, "tiff")
    with refuses(name, "it must be an image that Pillow reads"):
        load(path)


def test_folders_that_are_refused(tmp_path, rng):
    x = rng.integers(0, 256, (8, 4, 5)).astype(np.uint8)
    pictures(tmp_path / "one" / "a", x)
    with refuses("one", "1 folders of classes (a)", "FOLDER/<class>/<file>"):
        load(str(tmp_path / "one"))
    (tmp_path / "one" / "b").mkdir()
    with refuses("one/b", "no files"):
        load(str(tmp_path / "one"))
    pictures(tmp_path / "one" / "b", x[:1])
    with refuses("one", "the class b has one example"):
        load(str(tmp_path / "one"))
    (tmp_path / "one" / "b" / "deeper").mkdir()
    with refuses("one/b/deeper", "a folder"):
        load(str(tmp_path / "one"))
    path = train_and_test(tmp_path / "two", x)
    pictures(tmp_path / "two" / "test" / "c", x)
    with refuses("two/test/c", "the new class 'c'"):
        load(path)
    pictures(tmp_path / "flat" / "train", x)
    pictures(tmp_path / "flat" / "test", x)
    with refuses("flat/train", "0 folders of classes"):
        load(str(tmp_path / "flat"))
    pictures(tmp_path / "bare", x)
    with refuses("bare", "none of the known"):
        load(str(tmp_path / "bare"))


# Augmentation

KEY = jax.random.key(7)


@pytest.fixture
def images(rng):
    return rng.normal(size=(200, 6, 5, 2)).astype(np.float32)


def moved(image, dy, dx):
    """By np.roll, then zeros where it came round."""
    out = np.roll(image, (dy, dx), (0, 1))
    out[: max(dy, 0)] = 0
    out[len(out) + min(dy, 0) :] = 0
    out[:, : max(dx, 0)] = 0
    out[:, out.shape[1] + min(dx, 0) :] = 0
    return out


def test_shift(images):
    offsets = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    seen = [
        [offset for offset in offsets if np.array_equal(moved(image, *offset), found)]
        for image, found in zip(images, np.asarray(augment(images, KEY, shift=2)), strict=True)
    ]
    assert all(len(fits) == 1 for fits in seen)
    assert {fits[0] for fits in seen} == set(offsets)


def test_flip(images):
    found = np.asarray(augment(images, KEY, flip=True))
    same = [np.array_equal(image, out) for image, out in zip(images, found, strict=True)]
    turned = [np.array_equal(image[:, ::-1], out) for image, out in zip(images, found, strict=True)]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert 70 < sum(turned) < 130  # 200 fair draws: 4 deviations


def test_contrast(images):
    factors = np.asarray(augment(images, KEY, contrast=0.25)) / images
    each = factors[:, :1, :1, :1]
    np.testing.assert_allclose(factors, np.broadcast_to(each, factors.shape), rtol=1e-6)
    assert each.min() >= 0.75
    assert each.max() <= 1.25
    assert each.min() < 0.77
    assert each.max() > 1.23


@pytest.mark.parametrize("cutout", [1, 3, 5])
def test_cutout(images, cutout):
    corners = set()
    for image, found in zip(images, np.asarray(augment(images, KEY, cutout=cutout)), strict=True):
        zero = (found == 0).all(-1)
        assert zero.sum() == cutout**2
        top, left = np.argwhere(zero)[0]
        assert zero[top : top + cutout, left : left + cutout].all()
        np.testing.assert_array_equal(found[~zero], image[~zero])
        corners.add((int(top), int(left)))
    assert corners == {(top, left) for top in range(7 - cutout) for left in range(6 - cutout)}


OPTIONS = [dict(shift=2), dict(flip=True), dict(contrast=0.5), dict(cutout=3)]
ALL = dict(shift=1, flip=True, contrast=0.5, cutout=2)


@pytest.mark.parametrize("options", [*OPTIONS, ALL])
def test_a_function_of_the_key(images, options):
    work = partial(augment, **options)
    found = np.asarray(work(images, KEY))
    np.testing.assert_array_equal(work(images, jax.random.wrap_key_data(jax.random.key_data(KEY))), found)
    np.testing.assert_allclose(jax.jit(work)(images, KEY), found, rtol=1e-6)
    assert not np.array_equal(work(images, jax.random.key(8)), found)
    same = np.broadcast_to(images[:1], images.shape)
    each = np.asarray(work(same, KEY))
    assert not all(np.array_equal(each[0], other) for other in each)  # each image has a key of its own
    assert work(jnp.asarray(images, jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_one_kind_does_not_alter_another(images):
    flipped = np.asarray(augment(images, KEY, flip=True))
    both = np.asarray(augment(images, KEY, flip=True, cutout=2))
    assert ((both == flipped) | (both == 0)).all()


def test_no_augmentation(images, x64):
    np.testing.assert_array_equal(augment(images, KEY), images)


@pytest.mark.parametrize("options", OPTIONS)
def test_64_bit_types_change_nothing(images, options):
    with jax.enable_x64(True):
        found = augment(images, KEY, **options)
    np.testing.assert_array_equal(found, augment(images, KEY, **options))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(shift=5), ["shift=5", "0 to 4"]),
        (dict(shift=-1), ["shift=-1"]),
        (dict(cutout=6), ["cutout=6", "0 to 5"]),
        (dict(contrast=1.5), ["contrast=1.5"]),
        (dict(contrast=float("nan")), ["contrast=nan"]),
    ],
)
def test_options_out_of_range(images, options, words):
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        augment(images, KEY, **options)


def test_images_that_cannot_be_augmented(images):
    for bad in (images[0], images.astype(np.int32)):
        with pytest.raises(ValueError, match=re.escape(f"{bad.dtype} images of shape {bad.shape}")):
            augment(bad, KEY)
