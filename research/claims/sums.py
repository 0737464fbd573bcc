"""What integers settle: sums, indices, flips, laws (claims 1, 2 and 4 to 10)."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.signal import convolve, correlate
from research.claims.ledger import CONVENTION, HOLDS, WRONG, check, claim, grid, same, table

LETTERS = np.array(list("abcdefghi")).reshape(3, 3)

# Indices that count from the centre, as in the texts: x[i, j] for -3 <= i, j <= 3, h[k, l] for -1 <= k, l <= 1.
RNG = np.random.default_rng(0)
IMAGE, KERNEL = RNG.integers(1, 10, (7, 7)), np.arange(1, 10).reshape(3, 3)


def literal(relation: Callable, m: int, n: int) -> tuple[int, dict[tuple[int, int], str]]:
    """y[m, n] = the sum of x[i, j] h[relation(i, j)], and which letter of the kernel each pixel meets."""
    y, met = 0, {}
    for i, j in product(range(-3, 4), repeat=2):
        k, l = relation(m, n, i, j)
        if abs(k) <= 1 and abs(l) <= 1:
            y += int(IMAGE[i + 3, j + 3] * KERNEL[k + 1, l + 1])
            met[i, j] = LETTERS[k + 1, l + 1]
    return y, met


def convolution(m, n, i, j):
    return m - i, n - j


def reflected(m, n, i, j):
    return m + i, n + j


def usual(m, n, i, j):
    return i - m, j - n


def whole(relation) -> np.ndarray:
    return np.array([[literal(relation, m, n)[0] for n in range(-3, 4)] for m in range(-3, 4)])


def pixels(met) -> str:
    rows, columns = ({p[axis] for p in met} for axis in (0, 1))
    return f"{min(rows)}..{max(rows)} x {min(columns)}..{max(columns)}"


def lies(met) -> str:
    """The letters as they lie on the pixels, row by row."""
    return " / ".join(" ".join(met[p] for p in sorted(met) if p[0] == row) for row in sorted({p[0] for p in met}))


def turned(h):
    """A kernel turned by 180 degrees and conjugated."""
    return np.flip(h).conj()


@claim(1, HOLDS)
def claim_1(out: Path):
    """Convolution: (f*g)[n] = Σ_m f[m] g[n-m]. a = [1, 0.5, 1, 1], b = [1, 0.5, 0.25] give c = [1, 1, 1.5, 1.625,
    0.75, 0.25].
    """
    a, b = np.array([1, 0.5, 1, 1]), np.array([1, 0.5, 0.25])
    c, rows = [], []
    for n in range(6):
        terms = [(m, n - m) for m in range(4) if 0 <= n - m < 3]
        c.append(sum(a[m] * b[k] for m, k in terms))
        rows.append((n, " + ".join(f"a[{m}] b[{k}]" for m, k in terms), f"{c[-1]:g}"))
    check("the sum is the stated list", same(c, [1, 1, 1.5, 1.625, 0.75, 0.25]))
    check("jaxconv computes it", same(convolve(jnp.asarray(a), jnp.asarray(b)), np.asarray(c, np.float32)))
    return [table("n | terms | c[n]", *rows)]


@claim(2, HOLDS)
def claim_2(out: Path):
    """The customary 2-D picture (a 3x3 kernel slides over a 5x5 image, a product and a sum at each place) shows
    cross-correlation.
    """
    x = IMAGE[:5, :5]
    slid = [[int((x[i : i + 3, j : j + 3] * KERNEL).sum()) for j in range(3)] for i in range(3)]
    found = {op.__name__: op(x, KERNEL, "valid") for op in (correlate, convolve)}
    check("sliding is correlation", same(slid, found["correlate"]))
    check("sliding is not convolution", not same(slid, found["convolve"]))
    rows = [("products and sums, the kernel sliding", grid(slid))]
    rows += [(f"`jaxconv.{name}(x, h, 'valid')`", grid(y)) for name, y in found.items()]
    return ["The kernel is 1 2 3 / 4 5 6 / 7 8 9, the image drawn at random.", table("what | 3x3 output", *rows)]


@claim(4, HOLDS)
def claim_4(out: Path):
    """With the centre called [0,0], y[m,n] = Σ x[i,j] h[m-i, n-j]: output [1,1] of a 7x7 image and a 3x3 kernel meets
    pixels 0..2 x 0..2, pixel [0,0] with i, pixel [2,2] with a: the kernel lies flipped on the image.
    """
    y, met = literal(convolution, 1, 1)
    check("the pixels", sorted(met) == list(product(range(3), repeat=2)))
    check("the ends", (met[0, 0], met[2, 2]) == ("i", "a"))
    check("all 49 outputs", same(whole(convolution), convolve(IMAGE, KERNEL, "same")))
    # Autodiff says the same: the gradient of one output in the image is the kernel as it lies there.
    lain = jax.grad(lambda x: convolve(x, np.float32(KERNEL), "same")[4, 4])(jnp.asarray(IMAGE, jnp.float32))
    check("the gradient is the kernel, flipped, at these pixels", same(lain, np.pad(np.flip(KERNEL), (3, 1))))
    values = dict(zip(LETTERS.ravel(), KERNEL.ravel(), strict=True))
    rows = [(f"[{i},{j}]", f"{letter} = {values[letter]}", IMAGE[i + 3, j + 3]) for (i, j), letter in met.items()]
    return [
        table("pixel | meets | its value", *rows),
        f"The nine products add up to y[1,1] = {y}. On the pixels {pixels(met)} the kernel lies as {lies(met)}.",
        "All 49 outputs of `jaxconv.convolve(x, h, 'same')` are the formula's, and `jax.grad` of output [1,1] in "
        f"the image is the kernel as it lies there: {grid(np.asarray(lain, int)[3:6, 3:6])}.",
    ]


@claim(5, CONVENTION)
def claim_5(out: Path):
    """Correlation written y[m,n] = Σ x[i,j] h[m+i, n+j]: the same patch of the image yields output [-1,-1], and the
    kernel lies unflipped. So the two operations use different pixels for the same output index.
    """
    rows = []
    for name, relation, at in (
        ("convolution, Σ x[i,j] h[m-i, n-j]", convolution, (1, 1)),
        ("correlation as the claim writes it, Σ x[i,j] h[m+i, n+j]", reflected, (-1, -1)),
        ("the same", reflected, (1, 1)),
        ("correlation as usual, Σ x[m+i, n+j] h[i,j]", usual, (1, 1)),
    ):
        y, met = literal(relation, *at)
        rows.append((name, "[{},{}]".format(*at), pixels(met), lies(met), y))
    check("the claim's patch", rows[0][2] == rows[1][2] == "0..2 x 0..2")
    check("unflipped", rows[1][3] == rows[3][3] == "a b c / d e f / g h i")
    check("other pixels at the same index, under the claim's formula", rows[2][2] != rows[0][2])
    check("the same pixels at the same index, under the usual one", rows[3][2] == rows[0][2])
    check("the formulas are reflections", same(whole(reflected), np.flip(whole(usual))))
    check("jaxconv has the usual one", same(whole(usual), correlate(IMAGE, KERNEL, "same")))
    return [
        table("operation | output | pixels | the kernel as it lies on them | value", *rows),
        "The first sentence holds for the formula that it gives. The conclusion holds for that formula only: with "
        "the usual one (SciPy, lax, jaxconv) both operations use the same pixels for the same output index, with "
        "the kernel flipped or not. The two formulas of correlation differ by a reflection of the output, equal in "
        "all 49 values.",
    ]


@claim(6, CONVENTION)
def claim_6(out: Path):
    """Convolution visits the image bottom-up and right-left, correlation top-down and left-right."""
    walks = {}
    for name, relation in (("convolution", convolution), ("correlation", usual)):
        _, met = literal(relation, 0, 0)
        walks[name] = [next(p for p, letter in met.items() if letter == one) for one in LETTERS.ravel()]
    check("one walk is the other backwards", walks["convolution"] == walks["correlation"][::-1])
    check("correlation's is the reading order", walks["correlation"] == sorted(walks["correlation"]))
    terms = (IMAGE[2:5, 2:5] * KERNEL).ravel()
    orders = [RNG.permutation(9) for _ in range(1000)]
    check("integers: no order changes the sum", {sum(terms[order].tolist()) for order in orders} == {int(terms.sum())})
    rounded = RNG.normal(size=9).astype(np.float32)
    sums = np.array([np.cumsum(rounded[order])[-1] for order in orders])
    # Eight additions, each off by half an ulp of a partial sum, which is at most the sum of sizes.
    unit = np.finfo(np.float32).eps / 2
    check("float32: rounding alone", np.ptp(sums) <= 2 * 8 * unit * np.abs(rounded).sum())
    first = {name: ", ".join("[{},{}]".format(*p) for p in walk[:3]) + ", ..." for name, walk in walks.items()}
    return [
        table(
            "for output [0,0] the entries a, b, c, ... meet the pixels | of",
            *((walk, name) for name, walk in first.items()),
        ),
        "It holds if one walks through the kernel in reading order. Walk through the image in reading order, and "
        "it is the kernel that is read backwards. Neither says anything of a value: 1000 orders of nine integers "
        f"have one sum, and of nine float32 numbers {len(set(sums.tolist()))} sums, {np.ptp(sums):.1e} apart, by "
        "rounding.",
    ]


@claim(7, HOLDS)
def claim_7(out: Path):
    """Terms whose kernel index falls outside the kernel drop out of the infinite sum: the relation alone selects the
    pixels.
    """
    far = range(-30, 31)  # the infinite sum, as far as it matters: x and h are 0 outside
    rows = []
    for m, n in ((1, 1), (0, 0), (-3, -3), (3, 0)):
        terms = [(i, j) for i, j in product(far, repeat=2) if abs(m - i) <= 1 and abs(n - j) <= 1]
        inside = [(i, j) for i, j in terms if abs(i) <= 3 and abs(j) <= 3]
        total = sum(int(IMAGE[i + 3, j + 3] * KERNEL[m - i + 1, n - j + 1]) for i, j in inside)
        check(f"output [{m},{n}]", total == int(convolve(IMAGE, KERNEL, "same")[m + 3, n + 3]))
        rows.append((f"[{m},{n}]", len(far) ** 2, len(terms), len(inside), total))
    head = "output | terms looked at | with the kernel index inside | with a pixel too | sum, as `jaxconv.convolve`'s"
    return [table(head, *rows)]


@claim(8, HOLDS)
def claim_8(out: Path):
    """F∘I(x,y) = ΣΣ F(i,j) I(x+i, y+j) is correlation, F*I the same with I(x-i, y-j). Each output is the sum of a
    Hadamard product: a Frobenius inner product: the trace of a matrix product.
    """
    padded, rows = np.pad(IMAGE, 1), []
    for name, op, sign in (("F∘I", correlate, 1), ("F*I", convolve, -1)):
        y = np.zeros_like(IMAGE)
        for x, z in np.ndindex(y.shape):
            patch = padded[x : x + 3, z : z + 3][::sign, ::sign]
            y[x, z] = sum(
                KERNEL[i + 1, j + 1] * padded[x + 1 + sign * i, z + 1 + sign * j]
                for i, j in product((-1, 0, 1), repeat=2)
            )
            check("Hadamard and Frobenius", y[x, z] == (KERNEL * patch).sum() == np.vdot(KERNEL, patch))
            check("trace", y[x, z] == np.trace(KERNEL.T @ patch))
        check(name, same(y, op(IMAGE, KERNEL, "same")))
        rows.append((name, f"`jaxconv.{op.__name__}(I, F, 'same')`", "49 of 49 equal, on all four routes", y[3, 3]))
    return [table("formula | is | outputs | at the centre", *rows)]


@claim(9, WRONG)
def claim_9(out: Path):
    """As long as the filter is symmetric, convolution is correlation with rows and columns flipped."""
    drawn = [(RNG.integers(-9, 10, (7, 6)), RNG.integers(-9, 10, (3, 3))) for _ in range(500)]
    asymmetric = sum(not same(h, turned(h)) for _, h in drawn)
    check("the flip identity for every filter", all(same(convolve(x, h), correlate(x, turned(h))) for x, h in drawn))
    check("most of them are not symmetric", asymmetric > 490)
    even = [(x, h + turned(h)) for x, h in drawn]
    check("filters that a half turn leaves alone", all(same(convolve(x, h), correlate(x, h)) for x, h in even))
    impulse = np.ones((1, 1), int)
    filters = [h for _, h in drawn + even]
    equal = [same(convolve(impulse, h), correlate(impulse, h)) == same(h, turned(h)) for h in filters]
    check("and for an impulse no other filter", all(equal))
    x, rows = np.eye(3, dtype=int), []
    for h in ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[1, 2, 1], [0, 0, 0], [1, 2, 1]], [[1, 2], [2, 0]]):
        h = np.array(h)
        law, alike = same(convolve(x, h), correlate(x, turned(h))), same(convolve(x, h), correlate(x, h))
        answers = same(h, h.T), same(h, turned(h)), law, alike
        rows.append((grid(h), *("yes" if answer else "no" for answer in answers)))
    check("a filter may equal its transpose and yet tell the two apart", rows[-1][1:] == ("yes", "no", "yes", "no"))
    return [
        "What is true is two things. The flip identity, x * h = x ⋆ h̃ with h̃ the filter turned by 180 degrees (and "
        f"conjugated), holds for every filter: 500 of 500 drawn ones, {asymmetric} of them not symmetric, so that the "
        "condition is not needed. And a filter that the half turn leaves as it is makes both operations equal: 500 of "
        "500; for an impulse, no other filter does.",
        table("filter h | h = hᵀ | h = h̃ | x * h = x ⋆ h̃ | x * h = x ⋆ h", *rows),
        "Here x is the unit matrix of 3x3.",
    ]


@claim(10, CONVENTION)
def claim_10(out: Path):
    """Convolution is commutative and associative; correlation is neither."""

    def gaussian(*shape):
        return RNG.integers(-5, 6, shape) + 1j * RNG.integers(-5, 6, shape)

    draws = [[RNG.integers(-9, 10, n) for n in (7, 5, 3)] for _ in range(300)]
    draws += [[gaussian(*shape) for shape in ((4, 3), (2, 3), (2, 2))] for _ in range(200)]
    with jax.enable_x64(True):
        for f, g, h in draws:
            direct = {"method": "shifts"}
            c, k = partial(convolve, **direct), partial(correlate, **direct)
            check("f * g = g * f", same(c(f, g), c(g, f)))
            check("(f * g) * h = f * (g * h)", same(c(c(f, g), h), c(f, c(g, h))))
            check("f ⋆ g = (g ⋆ f)~", same(k(f, g), turned(np.asarray(k(g, f)))))
            check("(f ⋆ g) ⋆ h = f ⋆ (g * h)", same(k(k(f, g), h), k(f, c(g, h))))
            check("f ⋆ (g ⋆ h) = (f * h) ⋆ g", same(k(f, k(g, h)), k(c(f, h), g)))
    f, g, h = np.array([1, 2, 0]), np.array([0, 1, 3]), np.array([1, -1, 2])
    sides = {
        "f ⋆ g = g ⋆ f": (correlate(f, g), correlate(g, f)),
        "(f ⋆ g) ⋆ h = f ⋆ (g ⋆ h)": (correlate(correlate(f, g), h), correlate(f, correlate(g, h))),
    }
    last, first = np.array([0, 0, 1]), np.array([1, 0, 0])
    cut = partial(convolve, mode="same")
    sides["in mode 'same', (f * g) * h = f * (g * h)"] = (cut(cut(last, last), first), cut(last, cut(last, first)))
    for statement, (left, right) in sides.items():
        check(f"a witness against {statement}", not same(left, right))
    rows = [(s, f"no: {np.asarray(a).tolist()} and {np.asarray(b).tolist()}") for s, (a, b) in sides.items()]
    laws = "f * g = g * f; (f * g) * h = f * (g * h); "
    laws += "f ⋆ g = (g ⋆ f)~; (f ⋆ g) ⋆ h = f ⋆ (g * h); f ⋆ (g ⋆ h) = (f * h) ⋆ g"
    return [
        "It holds where the whole sum is kept ('full', zeros outside). Cut to the first argument's size ('same'), "
        "convolution is not associative either. Five hundred triples of integers and Gaussian integers, equal to "
        f"the last bit in each of: {laws}. (~ flips and conjugates.) The last three are what correlation obeys "
        "instead.",
        table("neighbour | true?", *rows),
        "f = [1, 2, 0], g = [0, 1, 3], h = [1, -1, 2]; in the last row [0, 0, 1], [0, 0, 1] and [1, 0, 0].",
    ]
