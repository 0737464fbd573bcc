"""docs/names.md runs: every cell of its tables is what the library named in it returns."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage, signal

import jaxconv

PAGE = (Path(__file__).parent.parent / "docs" / "names.md").read_text()
HEADS = {
    "sums": "| library | call | y[o] = sum over k of |",
    "rows": "| library | call | result | the same in jaxconv |",
    "names": "| extension | jaxconv, ndimage | numpy.pad | convolve2d | upfirdn | PyTorch | Flax | MATLAB's imfilter |",
}
IGNORED = "ignore:Using padding='same' with even kernel lengths"  # PyTorch's warning


# MATLAB's functions by the definitions in its documentation, for vectors (a matrix of one row).
def conv(u, v, shape="full"):
    """w(k) = sum of u(j) v(k-j+1); 'same' is "the central part of the convolution of the same size as u"."""
    m, n = len(u), len(v)
    w = [sum(u[j] * v[k - j] for j in range(m) if 0 <= k - j < n) for k in range(m + n - 1)]
    return np.array({"full": w, "same": w[n // 2 : n // 2 + m], "valid": w[n - 1 : max(m, n - 1)]}[shape])


def conv2(a, b, shape="full"):
    return conv(a, b, shape)


def filter2(h, x, shape="same"):
    """Is equivalent to conv2(X, rot90(H, 2), shape)."""
    return conv2(x, h[::-1], shape)


def imfilter(a, h, *options):
    """Correlates by default; outside is 0, a number, or a mirrored, repeated or periodic a. For odd kernels."""
    n, side, total = len(a), len(h) // 2, 0
    full = side if "full" in options else 0
    h = h[::-1] if "conv" in options else h

    def at(i):
        if "symmetric" in options:
            return a[min(i % (2 * n), 2 * n - 1 - i % (2 * n))]
        if "replicate" in options:
            return a[min(max(i, 0), n - 1)]
        if "circular" in options:
            return a[i % n]
        return a[i] if 0 <= i < n else next((x for x in options if not isinstance(x, str)), 0)

    assert len(h) % 2
    known = {"symmetric", "replicate", "circular", "full", "same", "corr", "conv"}
    assert all(option in known for option in options if isinstance(option, str))
    for k in range(len(h)):
        total = total + np.array([at(o + k - side) * h[k] for o in range(-full, n + full)])
    return total


def xcorr(x, y):
    """r(m) = sum of x(n+m) conj(y(n)) for -N < m < N; zeros are appended to the shorter one."""
    N = max(len(x), len(y))
    x, y = (np.append(a, np.zeros(N - len(a), a.dtype)) for a in (x, y))
    return np.array([sum(x[n + m] * np.conj(y[n]) for n in range(N) if 0 <= n + m < N) for m in range(1 - N, N)])


MATLAB = dict(conv=conv, conv2=conv2, filter2=filter2, imfilter=imfilter, xcorr=xcorr)


def test_matlabs_own_examples():
    """Those of the pages of conv and imfilter, with the results that are printed there."""
    u, v = [-1, 2, 3, -2, 0, 1, 2], [2, 4, -1, 1]
    assert conv(u, v, "same").tolist() == [15, 5, -9, 7, 6, 7, -1]
    assert conv([1, 0, 1], [2, 7]).tolist() == [2, 7, 2, 7]
    magic, h = [17, 24, 1, 8, 15], np.array([-1, 0, 1])  # the first row of magic(5)
    assert imfilter(magic, h).tolist() == [24, -16, -16, 14, -8]
    assert imfilter(magic, h, "conv").tolist() == [-24, 16, 16, -14, 8]


def tables():
    """(section's code, name of the head, lines) of each table."""
    code, found = "", []
    fenced = r"```python\n(.*?)```"
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        for block, table in re.findall(rf"{fenced}|((?:^\|[^\n]*\n)+)", part, re.DOTALL | re.MULTILINE):
            code = block or code
            lines = table.splitlines()
            found += [(code, name, lines[2:]) for name, head in HEADS.items() if lines and lines[0] == head]
        code = ""
    return found


def cells(line):
    return [cell.strip().strip("`") for cell in line.strip("|").split("|")]


TABLES = tables()
IMPORTS = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
ROWS = [(code, *cells(line)) for code, name, lines in TABLES if name == "rows" for line in lines]
SUMS = [cells(line) for _, name, lines in TABLES if name == "sums" for line in lines]
NAMES = [cells(line) for _, name, lines in TABLES if name == "names" for line in lines]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def scope(code="", **more):
    """The names that a call on the page sees."""
    names = {**MATLAB, **more}
    exec(IMPORTS + code, names)
    return names


def torchs():
    torch = pytest.importorskip("torch")
    return dict(torch=torch, F=torch.nn.functional, t=torch.as_tensor)


def shown(value):
    """A result as the page shows it: flat, and a whole number without a point."""
    if isinstance(value, np.dtype) or not hasattr(value, "shape"):
        return str(value).removeprefix("torch.")  # a type
    return "[" + ", ".join(map(_number, np.asarray(value).ravel())) + "]"


def _number(v):
    if isinstance(v, np.bool_):
        return str(v)
    if v.imag:
        return f"{v.real + 0:g}{v.imag:+g}j" if v.real else f"{v.imag:g}j"
    return str(int(v.real)) if v.real == int(v.real) else str(v.real)


def outcome(call, names):
    try:
        return shown(eval(call, names))
    except Exception as e:
        return type(e).__name__


def check(code, library, call, result, same, **more):
    names = scope(code, **more)
    assert outcome(call, names) == result
    if result.endswith("Error"):
        assert same == ""  # jaxconv may refuse too, or not: another row says which
    else:
        assert same.count("jaxconv.") or library == "jaxconv" or same.startswith("jnp.")
        assert outcome(same, names) == result


def of(library, rows, place):
    return [pytest.param(*row, id=row[place + 1]) for row in rows if (row[place] == "PyTorch") == library]


@pytest.mark.parametrize(("code", "library", "call", "result", "same"), of(False, ROWS, 1))
def test_row(code, library, call, result, same):
    check(code, library, call, result, same)


@pytest.mark.filterwarnings(IGNORED)
def test_rows_of_pytorch():
    more = torchs()
    for row in ROWS:
        if row[1] == "PyTorch":
            check(*row, **more)


class Zeros:
    """An array that is 0 outside its positions."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, i):
        return self.array[i] if 0 <= i < len(self.array) else 0


def check_sum(call, sum_, **more):
    rng = np.random.default_rng(0)
    for N, M in [(6, 1), (6, 2), (7, 3), (6, 4), (5, 4), (5, 5)]:
        x, h = (rng.integers(-9, 9, n) + 1j * rng.integers(-9, 9, n) for n in (N, M))
        y = np.asarray(eval(call, scope(x=x, h=h, X=x[None, None], H=h[None, None], **more))).ravel()
        names = dict(x=Zeros(x), h=h, M=M, conj=np.conj)
        expected = [sum(eval(sum_, {**names, "o": o, "k": k}) for k in range(M)) for o in range(N)]
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("library", "call", "sum_"), of(False, SUMS, 0))
def test_rule(library, call, sum_):
    check_sum(call, sum_)


@pytest.mark.filterwarnings(IGNORED)
def test_rule_of_pytorch():
    more = torchs()
    for library, call, sum_ in SUMS:
        if library == "PyTorch":
            check_sum(call, sum_, **more)


X = np.array([1, 2, 3, 4])
SHIFT = np.array([0, 0, 1, 0, 0])


# A kernel of 5 whose first entry is 1 reads two places to the left, one whose last is 1, two to the right.
def of_ndimage(name):
    return np.concatenate([ndimage.correlate1d(X, weights, mode=name) for weights in np.eye(5)[[0, 4]]])


def of_flax(name):
    ends = []
    for h in np.eye(5)[[0, 4], :, None, None]:
        layer = nnx.Conv(1, 1, 5, padding=name, use_bias=False, kernel_init=lambda *_, h=h: h, rngs=nnx.Rngs(0))
        ends.append(layer(X[None, :, None] * 1.0))
    return np.concatenate(ends)


# What a name of each column makes of 1 2 3 4, with two more on either side.
EXTEND = {
    "numpy.pad": lambda name: np.pad(X, 2, name),
    "convolve2d": lambda name: signal.convolve2d(X[None], SHIFT[None], boundary=name),
    "upfirdn": lambda name: signal.upfirdn(SHIFT, X, mode=name),
    "Flax": of_flax,
    "MATLAB's imfilter": lambda name: imfilter(X, SHIFT, int(name) if name.isdigit() else name, "full"),
}
COLUMNS = cells(HEADS["names"])


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row[1])
def test_names_of_an_extension(row):
    extension, name = row[:2]
    assert shown(jaxconv.convolve(X, SHIFT, boundary=name)) == extension
    assert shown(of_ndimage(name)) == extension
    for column, other in zip(COLUMNS[2:], row[2:], strict=True):
        if other and column != "PyTorch":
            assert shown(EXTEND[column](other)) == extension, column
        elif column in ("numpy.pad", "upfirdn"):
            assert other


def test_names_of_an_extension_in_pytorch():
    F, t = (torchs()[name] for name in "Ft")
    for row in NAMES:
        name = row[COLUMNS.index("PyTorch")]
        if name:
            assert shown(F.pad(t(X[None, None] * 1.0), (2, 2), mode=name)) == row[0]
        else:
            assert row[1] == "reflect"
            with pytest.raises(NotImplementedError):
                F.pad(t(X[None, None] * 1.0), (2, 2), mode="symmetric")


@pytest.mark.parametrize("name", ["mirror", "wrap", "constant"])
def test_aliases(name):
    other = {"mirror": "reflect"}.get(name, name)
    for f in ndimage.correlate, jaxconv.ndimage.correlate:
        np.testing.assert_array_equal(f(X, X, mode=f"grid-{name}", cval=5), f(X, X, mode=other, cval=5))


def test_every_table_is_read():
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    heads = [line for line in lines if line in HEADS.values()]
    assert len(heads) == len(TABLES) == len([line for line in lines if line.startswith("| ---")])
    assert len(lines) == 2 * len(heads) + len(ROWS) + len(SUMS) + len(NAMES)
    assert len(ROWS) > 100
