"""Algebra: convolution is a commutative product; the laws that correlation obeys instead."""

from functools import partial

import numpy as np
from jax import numpy as jnp

from jaxconv.identities import matrices, sums
from jaxconv.identities.base import INEXACT, MODES, Bounded, Case, Claim, Domain, Theme, Witness
from jaxconv.identities.rounding import TINY
from jaxconv.signal import convolution_matrix, convolve, correlate

algebra = Theme("algebra")
OPPENHEIM = "Oppenheim and Schafer, Discrete-Time Signal Processing, 2.3-2.4"
BRACEWELL = "Bracewell, The Fourier Transform and Its Applications, ch. 3"
FULL = Domain(modes=("full",), note="zeros outside")
f0, g0, h0 = np.array([1, 2, 0]), np.array([0, 1, 3]), np.array([1, -1, 2])


def turned(a):
    """ã: flipped along every axis and conjugated."""
    return np.flip(a).conj()


def twisted(a):
    """The same in JAX."""
    return jnp.flip(a).conj()


def times(T, x, shape=None):
    """The matrix product T x, in the shape of the outputs."""
    y = T @ x.ravel()
    return y if shape is None else y.reshape(shape)


@algebra(
    "commutativity", "f * g = g * f", r"f * g = g * f", OPPENHEIM, FULL,
    Witness("f ⋆ g = g ⋆ f", lambda: (correlate(f0, g0), correlate(g0, f0))),
)  # fmt: skip
def commutativity(case: Case):
    f, g = case.pair()
    y = sums.convolve(f, g)
    by = [times(matrices.convolution(g, f.shape), f, y.shape), times(matrices.convolution(f, g.shape), g, y.shape)]
    yield Claim("f * g", (f, g), [case.on(convolve), lambda f, g: case.on(convolve)(g, f)], y, by)


@algebra(
    "associativity", "(f * g) * h = f * (g * h)", r"(f * g) * h = f * (g * h)", OPPENHEIM, FULL,
    Witness(
        "(f ⋆ g) ⋆ h = f ⋆ (g ⋆ h)",
        lambda: (correlate(correlate(f0, g0), h0), correlate(f0, correlate(g0, h0))),
    ),
)  # fmt: skip
def associativity(case: Case):
    (f, g), h = case.pair(), case.draw(*case.kernel_shape)
    c = case.on(convolve)
    y = sums.convolve(sums.convolve(f, g), h)
    G, H = (
        matrices.convolution(g, f.shape),
        matrices.convolution(h, [n + m - 1 for n, m in zip(f.shape, g.shape, strict=True)]),
    )
    yield Claim(
        "f * g * h",
        (f, g, h),
        [lambda f, g, h: c(c(f, g), h), lambda f, g, h: c(f, c(g, h))],
        y,
        [times(H @ G, f, y.shape)],
    )


@algebra(
    "distributivity", "(f + g) * h = f * h + g * h", r"(f + g) * h = f * h + g * h", OPPENHEIM, Domain(modes=MODES)
)
def distributivity(case: Case):
    (f, h), g = case.pair(), case.draw(*case.shape)
    for mode in case.turn(case.domain.modes):
        c = case.on(lambda f, h, mode=mode: convolve(f, h, mode))
        y = sums.convolve(f, h, mode) + sums.convolve(g, h, mode)
        T = matrices.convolution(h, f.shape, mode)
        yield Claim(
            f"(f + g) * h, {mode}",
            (f, g, h),
            [lambda f, g, h, c=c: c(f + g, h), lambda f, g, h, c=c: c(f, h) + c(g, h)],
            y,
            [times(T, f + g, y.shape)],
        )


@algebra(
    "scalars", "(a f) * g = a (f * g) = f * (a g)", r"(a f) * g = a (f * g) = f * (a g)", OPPENHEIM, Domain(modes=MODES)
)
def scalars(case: Case):
    (f, g), a = case.pair(), case.draw()
    for mode in case.turn(case.domain.modes):
        c = case.on(lambda f, g, mode=mode: convolve(f, g, mode))
        routes = [lambda f, g, a, c=c: c(a * f, g), lambda f, g, a, c=c: a * c(f, g), lambda f, g, a, c=c: c(f, a * g)]
        y = sums.convolve(f, g, mode)
        T = matrices.convolution(g, f.shape, mode)
        yield Claim(f"a f * g, {mode}", (f, g, a), routes, a * y, [a * times(T, f, y.shape)])


@algebra(
    "shift", "(S f) * g = S (f * g) = f * (S g), S f[n] = f[n - s]",
    r"(S_s f) * g = S_s (f * g) = f * (S_s g)", OPPENHEIM, FULL,
)  # fmt: skip
def shift(case: Case):
    (f, g), s = case.pair(), 2
    pads = [(s, 0)] * case.rank
    c = case.on(convolve)
    y = np.pad(sums.convolve(f, g), pads)
    routes = [
        lambda f, g: c(jnp.pad(f, pads), g),
        lambda f, g: jnp.pad(c(f, g), pads),
        lambda f, g: c(f, jnp.pad(g, pads)),
    ]
    yield Claim(
        "S (f * g)",
        (f, g),
        routes,
        y,
        [times(matrices.convolution(g, [n + s for n in f.shape]), np.pad(f, pads), y.shape)],
    )


@algebra(
    "unit impulse", "f * δ = f, and the output for an impulse is the kernel", r"f * \delta = f, \quad \delta * h = h",
    OPPENHEIM, Domain(modes=("full", "same")),
    Witness("δ ⋆ h = h", lambda: (correlate(np.array([0, 1, 0]), h0, "same"), h0)),
)  # fmt: skip
def unit_impulse(case: Case):
    f, h = case.pair()
    one = np.ones((1,) * case.rank, case.exact)
    for mode in case.turn(case.domain.modes):
        c = case.on(lambda f, g, mode=mode: convolve(f, g, mode))
        yield Claim(f"f * δ, {mode}", (f, one), [c], f)
    yield Claim("δ * h", (one, h), [case.on(convolve)], h)
    # An impulse at j: the kernel, moved there.
    impulse = np.zeros(case.shape, case.exact)
    impulse[(-1,) * case.rank] = 1
    moved = np.pad(h, [(n - 1, 0) for n in case.shape])
    yield Claim("δ[n - j] * h", (impulse, h), [case.on(convolve)], moved)


@algebra(
    "flip law", "f ⋆ h = f * h̃", r"f \star h = f * \tilde h, \quad \tilde h[k] = \overline{h[-k]}", BRACEWELL,
    Domain(modes=MODES, note="every kernel, symmetric or not"),
    Witness("f ⋆ h = f * h", lambda: (correlate(f0, h0), convolve(f0, h0))),
)  # fmt: skip
def flip_law(case: Case):
    f, h = case.pair()
    for mode in case.turn(case.domain.modes):
        r = case.on(lambda f, h, mode=mode: correlate(f, h, mode))
        c = case.on(lambda f, h, mode=mode: convolve(f, h, mode))
        y = sums.correlate(f, h, mode)
        T = matrices.correlation(h, f.shape, mode)
        yield Claim(
            f"f ⋆ h, {mode}",
            (f, h),
            [r, lambda f, h, c=c: c(f, twisted(h))],
            y,
            [times(T, f, y.shape), sums.convolve(f, turned(h), mode)],
        )
    for mode in case.domain.modes:
        r = case.on(lambda f, h, mode=mode: correlate(f, h, mode))
        yield Claim(f"h ⋆ f, the kernel the longer, {mode}", (h, f), [r], sums.correlate(h, f, mode))


@algebra("reversal", "flip(f * g) = flip(f) * flip(g)", r"R(f * g) = R f * R g, \quad R f[n] = f[-n]", BRACEWELL, FULL)
def reversal(case: Case):
    f, g = case.pair()
    c = case.on(convolve)
    y = np.flip(sums.convolve(f, g))
    yield Claim(
        "R(f * g)",
        (f, g),
        [lambda f, g: jnp.flip(c(f, g)), lambda f, g: c(jnp.flip(f), jnp.flip(g))],
        y,
        [times(matrices.convolution(np.flip(g), f.shape), np.flip(f), y.shape)],
    )


@algebra(
    "exchange",
    "f ⋆ g = (g ⋆ f)~",
    r"f \star g = \widetilde{g \star f}",
    BRACEWELL,
    FULL,
    Witness("f ⋆ g = g ⋆ f", lambda: (correlate(f0, h0), correlate(h0, f0))),
)
def exchange(case: Case):
    f, g = case.pair()
    r = case.on(correlate)
    y = sums.correlate(f, g)
    yield Claim(
        "f ⋆ g",
        (f, g),
        [r, lambda f, g: twisted(r(g, f))],
        y,
        [times(matrices.correlation(g, f.shape), f, y.shape), turned(sums.correlate(g, f))],
    )


@algebra(
    "correlation is linear, and antilinear in its kernel",
    "(a f) ⋆ g = a (f ⋆ g), f ⋆ (a g) = conj(a) (f ⋆ g), and ⋆ distributes over sums",
    r"(a f) \star g = a (f \star g), \quad f \star (a g) = \bar a (f \star g)",
    BRACEWELL,
    Domain(modes=MODES),
    Witness("f ⋆ (a g) = a (f ⋆ g)", lambda: (correlate(f0 + 0j, 1j * g0), 1j * np.asarray(correlate(f0, g0)))),
)
def sesquilinear(case: Case):
    (f, g), h, a = case.pair(), case.draw(*case.kernel_shape), case.draw()
    for mode in case.turn(case.domain.modes):
        k = case.on(lambda f, g, mode=mode: correlate(f, g, mode))
        y = sums.correlate(f, g, mode)
        yield Claim(f"a f ⋆ g, {mode}", (f, g, a), [lambda f, g, a, k=k: k(a * f, g)], a * y)
        routes = [lambda f, g, h, a, k=k: k(f, a * g + h), lambda f, g, h, a, k=k: a.conj() * k(f, g) + k(f, h)]
        yield Claim(f"f ⋆ (a g + h), {mode}", (f, g, h, a), routes, np.conj(a) * y + sums.correlate(f, h, mode))


@algebra(
    "shift of a correlation",
    "(S f) ⋆ g = S (f ⋆ g), f ⋆ (S g) = S⁻¹ (f ⋆ g)",
    r"(S_s f) \star g = S_s (f \star g), \quad f \star (S_s g) = S_{-s} (f \star g)",
    BRACEWELL,
    FULL,
    Witness(
        "f ⋆ (S g) = S (f ⋆ g)",
        lambda: (correlate(f0, np.pad(g0, (1, 0))), np.pad(correlate(f0, g0), (1, 0))),
    ),
)
def shift_of_correlation(case: Case):
    (f, g), s = case.pair(), 2
    before, behind = [(s, 0)] * case.rank, [(0, s)] * case.rank
    k = case.on(correlate)
    y = sums.correlate(f, g)
    yield Claim("S f ⋆ g", (f, g), [lambda f, g: k(jnp.pad(f, before), g)], np.pad(y, before))
    # The kernel begins s later: lags from -(M + s - 1) on, of which the last s are empty.
    yield Claim("f ⋆ S g", (f, g), [lambda f, g: k(f, jnp.pad(g, before))], np.pad(y, behind))


@algebra(
    "correlation twice",
    "(f ⋆ g) ⋆ h = f ⋆ (g * h)",
    r"(f \star g) \star h = f \star (g * h)",
    BRACEWELL,
    FULL,
    Witness("(f ⋆ g) ⋆ h = f ⋆ (g ⋆ h)", lambda: (correlate(correlate(f0, h0), g0), correlate(f0, correlate(h0, g0)))),
)
def correlation_twice(case: Case):
    (f, g), h = case.pair(), case.draw(*case.kernel_shape)
    c, r = case.on(convolve), case.on(correlate)
    y = sums.correlate(sums.correlate(f, g), h)
    yield Claim(
        "(f ⋆ g) ⋆ h",
        (f, g, h),
        [lambda f, g, h: r(r(f, g), h), lambda f, g, h: r(f, c(g, h))],
        y,
        [sums.correlate(f, sums.convolve(g, h))],
    )


@algebra(
    "correlation of a correlation",
    "f ⋆ (g ⋆ h) = (f * h) ⋆ g",
    r"f \star (g \star h) = (f * h) \star g",
    BRACEWELL,
    FULL,
)
def correlation_of_correlation(case: Case):
    (f, g), h = case.pair(), case.draw(*case.kernel_shape)
    c, r = case.on(convolve), case.on(correlate)
    y = sums.correlate(f, sums.correlate(g, h))
    yield Claim(
        "f ⋆ (g ⋆ h)",
        (f, g, h),
        [lambda f, g, h: r(f, r(g, h)), lambda f, g, h: r(c(f, h), g)],
        y,
        [sums.correlate(sums.convolve(f, h), g)],
    )


@algebra(
    "convolution of correlations",
    "(f ⋆ g) * (h ⋆ k) = (f * h) ⋆ (g * k)",
    r"(f \star g) * (h \star k) = (f * h) \star (g * k)",
    BRACEWELL,
    FULL,
)
def convolution_of_correlations(case: Case):
    (f, g), h, k = case.pair(), case.draw(*case.kernel_shape), case.draw(*case.kernel_shape, largest=1)
    c, r = case.on(convolve), case.on(correlate)
    y = sums.convolve(sums.correlate(f, g), sums.correlate(h, k))
    routes = [lambda f, g, h, k: c(r(f, g), r(h, k)), lambda f, g, h, k: r(c(f, h), c(g, k))]
    yield Claim(
        "(f ⋆ g) * (h ⋆ k)", (f, g, h, k), routes, y, [sums.correlate(sums.convolve(f, h), sums.convolve(g, k))]
    )


@algebra(
    "powers",
    "f⁽⁴⁾ = (f * f) * (f * f); (1 + z)ⁿ has the binomial coefficients",
    r"f^{*4} = (f*f)*(f*f), \quad [1,1]^{*n} = \binom{n}{k}",
    OPPENHEIM,
    FULL,
)
def powers(case: Case):
    f = case.draw(*case.kernel_shape, largest=1)
    c = case.on(convolve)
    y = f
    for _ in range(3):
        y = sums.convolve(y, f)
    yield Claim("f * f * f * f", (f,), [lambda f: c(c(c(f, f), f), f), lambda f: c(c(f, f), c(f, f))], y)
    row = [1]
    for _ in range(8):
        row = [a + b for a, b in zip([0, *row], [*row, 0], strict=True)]
    two = np.ones(2, case.exact)

    def power(a):
        a = c(a, a)
        a = c(a, a)
        return c(a, a)

    yield Claim("(1 + z)⁸", (two,), [power], np.array(row, case.exact))


@algebra(
    "polynomials",
    "(f * g)(z) = f(z) g(z), coefficients in order",
    r"\sum_n (f*g)_n z^n = \Big(\sum_n f_n z^n\Big) \Big(\sum_n g_n z^n\Big)",
    "Knuth, The Art of Computer Programming 2, 4.6",
    Domain(note="one dimension"),
)
def polynomials(case: Case):
    f, g = case.draw(5), case.draw(4)
    z = np.array([-2, -1, 0, 1, 2, 3] if not case.is_complex else [1j, -1j, 1 + 1j, 2, 0, -1], case.exact)

    def at(a, points):  # Horner
        y = points * 0
        for n in range(a.shape[0] - 1, -1, -1):
            y = y * points + a[n]
        return y

    c = case.on(convolve)
    yield Claim(
        "(f * g)(z)",
        (f, g, z),
        [lambda f, g, z: at(c(f, g), z), lambda f, g, z: at(f, z) * at(g, z)],
        at(f, z) * at(g, z),
    )


@algebra(
    "integers",
    "the digits of a product are the convolved digits, before carries",
    r"a b = \sum_n (d_a * d_b)_n 10^n",
    "Knuth, The Art of Computer Programming 2, 4.3.3",
    Domain(("integer",), note="digits, least first; Python's integers judge"),
)
def integers(case: Case):
    a, b = (case.rng.integers(0, 10, n) for n in (min(case.N, 40), min(case.M + 2, 20)))
    c = case.on(convolve)

    # Evaluated at 10 modulo 2^bits, which is where integers live: carrying changes no value.
    def modular(n: int) -> int:
        half = 2 ** (np.iinfo(case.dtype).bits - 1)
        return (n + half) % (2 * half) - half

    def number(digits) -> int:
        return sum(int(d) * 10**n for n, d in enumerate(digits))

    powers = np.array([modular(10**n) for n in range(len(a) + len(b) - 1)])
    yield Claim(
        "a b",
        (a, b, powers),
        [lambda a, b, z: (c(a, b) * z).sum(dtype=z.dtype)],
        np.array(modular(number(a) * number(b))),
    )
    yield Claim("digits", (a, b), [c], sums.convolve(a, b))


@algebra(
    "sums multiply",
    "Σ(f * g) = Σf Σg",
    r"\sum (f * g) = \sum f \sum g",
    BRACEWELL,
    FULL,
    Witness("Σ(f * g) = Σf Σg in mode 'valid'", lambda: (convolve(f0, np.array([1, 1]), "valid").sum(), f0.sum() * 2)),
)
def sums_multiply(case: Case):
    f, g = case.pair()
    c = case.on(convolve)
    yield Claim(
        "Σ(f * g)",
        (f, g),
        [lambda f, g: c(f, g).sum(), lambda f, g: f.sum() * g.sum()],
        sums.convolve(f, g).sum(),
        [f.sum() * g.sum()],
    )


@algebra(
    "moments",
    "M₁(f * g) = M₁f Σg + Σf M₁g; M₂(f * g) = M₂f Σg + 2 M₁f M₁g + Σf M₂g",
    r"M_r(f*g) = \sum_j \binom{r}{j} M_j f\, M_{r-j} g, \quad M_r f = \sum_n n^r f_n",
    BRACEWELL,
    Domain(note="one dimension, mode full"),
)
def moments(case: Case):
    f, g = case.draw(6), case.draw(5)
    c = case.on(convolve)

    def moment(a, r):
        return (np.arange(a.shape[0], dtype=a.dtype) ** r * a).sum()

    for r, row in enumerate(([1], [1, 1], [1, 2, 1], [1, 3, 3, 1])):

        def right(f, g, row=row, r=r):
            return sum(b * moment(f, j) * moment(g, r - j) for j, b in enumerate(row))

        yield Claim(
            f"M_{r}(f * g)",
            (f, g),
            [lambda f, g, r=r: moment(c(f, g), r), right],
            moment(sums.convolve(f, g), r),
            [right(f, g)],
        )


@algebra(
    "variances add",
    "means and variances of independent variables add",
    r"\mu_{f*g} = \mu_f + \mu_g, \quad \sigma^2_{f*g} = \sigma^2_f + \sigma^2_g",
    "Feller, An Introduction to Probability Theory 1, XI",
    Domain(("integer", "real"), note="weights f, g > 0 that need not sum to 1: all is multiplied by (Σf Σg)²"),
)
def variances_add(case: Case):
    f, g = case.positive(5), case.positive(4)
    c = case.on(convolve)

    def spread(a):  # (sum)^2 times the variance, an integer
        n = np.arange(a.shape[0], dtype=a.dtype)
        return (n * n * a).sum() * a.sum() - (n * a).sum() ** 2

    def mean(a):  # sum times the mean
        return (np.arange(a.shape[0], dtype=a.dtype) * a).sum()

    y = sums.convolve(f, g)
    total = f.sum(), g.sum()
    yield Claim(
        "mean, times Σf Σg", (f, g), [lambda f, g: mean(c(f, g))], mean(f) * total[1] + mean(g) * total[0], [mean(y)]
    )
    yield Claim(
        "variance, times (Σf Σg)²",
        (f, g),
        [lambda f, g: spread(c(f, g))],
        spread(f) * total[1] ** 2 + spread(g) * total[0] ** 2,
        [spread(y)],
    )


@algebra(
    "Young's inequality",
    "‖f * g‖₁ ≤ ‖f‖₁ ‖g‖₁, ‖f * g‖₂ ≤ ‖f‖₂ ‖g‖₁, ‖f * g‖_∞ ≤ ‖f‖₂ ‖g‖₂",
    r"\|f*g\|_r \le \|f\|_p \|g\|_q, \quad \tfrac1p + \tfrac1q = 1 + \tfrac1r",
    "Young (1912); Hardy, Littlewood and Pólya, Inequalities, 4.6",
    Domain(("integer", "real"), note="the excess of the left side over the right is 0; of |f|, |g| the first is equal"),
    Witness("‖f * g‖₁ = ‖f‖₁ ‖g‖₁", lambda: (np.abs(convolve(np.array([1, 1]), np.array([1, -1]))).sum(), 4)),
)
def young(case: Case):
    f, g = case.draw(6), case.draw(5)
    c = case.on(convolve)

    def one(a):
        return abs(a).sum()

    def two(a):
        return (a * a).sum()

    sides = {
        "‖f * g‖₁ - ‖f‖₁‖g‖₁": lambda y, f, g: one(y) - one(f) * one(g),
        "‖f * g‖₂² - ‖f‖₂²‖g‖₁²": lambda y, f, g: two(y) - two(f) * one(g) * one(g),
        "‖f * g‖_∞² - ‖f‖₂²‖g‖₂²": lambda y, f, g: (y * y).max() - two(f) * two(g),
    }
    zero = np.zeros((), case.exact)
    for what, excess in sides.items():
        routes = [lambda f, g, excess=excess: jnp.maximum(excess(c(f, g), f, g), 0)]
        yield Claim(f"{what}, where > 0", (f, g), routes, zero, [np.maximum(excess(sums.convolve(f, g), f, g), 0)])
    f, g = np.abs(f), np.abs(g)
    yield Claim("‖|f| * |g|‖₁", (f, g), [lambda f, g: one(c(f, g))], one(f) * one(g))


@algebra(
    "differences and running sums",
    "Δ(f * g) = Δf * g, and running sums too",
    r"\Delta (f*g) = (\Delta f)*g, \quad \Sigma (f*g) = (\Sigma f)*g",
    BRACEWELL,
    FULL,
)
def differences(case: Case):
    f, g = case.draw(case.N), case.draw(case.M)
    c = case.on(convolve)
    y = np.diff(sums.convolve(f, g), prepend=0, append=0)
    routes = [
        lambda f, g: jnp.pad(c(f, g), (0, 1)) - jnp.pad(c(f, g), (1, 0)),
        lambda f, g: c(jnp.pad(f, (0, 1)) - jnp.pad(f, (1, 0)), g),
    ]
    yield Claim("Δ(f * g)", (f, g), routes, y)
    long = np.pad(f, (0, case.M - 1))  # a running sum goes on
    yield Claim(
        "Σ(f * g)",
        (long, g),
        [lambda f, g: jnp.cumsum(c(f, g)[: f.shape[0]]), lambda f, g: c(jnp.cumsum(f), g)[: f.shape[0]]],
        np.cumsum(sums.convolve(f, g)),
    )


@algebra(
    "pieces",
    "valid and same are parts of full, and full is the sum of convolved pieces",
    r"f = \sum_j f_j \Rightarrow f * g = \sum_j f_j * g",
    "Stockham (1966): overlap and add",
    Domain(modes=MODES),
)
def pieces(case: Case):
    f, g = case.draw(case.N), case.draw(case.M)
    c = case.on(convolve)
    first = (case.M - 1) // 2
    parts = {"full": slice(None), "same": slice(first, first + case.N), "valid": slice(case.M - 1, case.N)}
    for mode in case.turn(case.domain.modes):
        m = case.on(lambda f, g, mode=mode: convolve(f, g, mode))
        routes = [m, lambda f, g, mode=mode: c(f, g)[parts[mode]]]
        yield Claim(
            f"f * g, {mode}",
            (f, g),
            routes,
            sums.convolve(f, g, mode),
            [times(matrices.convolution(g, f.shape, mode), f)],
        )
    half, end = case.N // 2, case.N + case.M - 1

    def added(f, g):
        first, second = c(f[:half], g), c(f[half:], g)
        return jnp.pad(first, (0, end - first.shape[0])) + jnp.pad(second, (end - second.shape[0], 0))

    yield Claim("overlap and add", (f, g), [added], sums.convolve(f, g))


@algebra(
    "the matrix of a product",
    "T(f * g) = T(f) T(g)",
    r"T_{f*g} = T_f T_g",
    "Gray, Toeplitz and Circulant Matrices: A Review, ch. 5",
    Domain(note="one dimension, mode full"),
)
def matrix_of_product(case: Case):
    f, g, h = case.draw(4), case.draw(3), case.draw(5)
    c, T5, T7 = case.on(convolve), *(case.on(partial(convolution_matrix, n=n)) for n in (5, 7))
    y = sums.convolve(sums.convolve(f, g), h)
    routes = [lambda f, g, h: T5(c(f, g)) @ h, lambda f, g, h: T7(f) @ (T5(g) @ h)]
    yield Claim("T(f) T(g) h", (f, g, h), routes, y, [matrices.convolution(f, [7]) @ matrices.convolution(g, [5]) @ h])


@algebra(
    "rounding",
    "the computed f * g is off by at most u (a Σ|f||g| + b ‖f‖‖g‖), to first order in u",
    r"|\mathrm{fl}(f * g) - f * g| \le u \Big(a \sum |f||g| + b \|f\| \|g\|\Big)",
    "Higham, Accuracy and Stability of Numerical Algorithms, ch. 3",
    Domain(INEXACT, modes=MODES, note="numbers that fill the mantissa; a, b: the engine's"),
)
def rounding(case: Case):
    f, g = case.normal(*case.shape), case.normal(*case.kernel_shape)
    for mode in case.turn(case.domain.modes):
        c = case.on(lambda f, g, mode=mode: convolve(f, g, mode))
        y = summed(sums.convolve, f, g, mode)
        T = matrices.convolution(g, f.shape, mode)
        yield Claim(f"f * g, {mode}", (f, g), [c], y, [Bounded(times(T, f, y.value.shape), y.error)])
        k = case.on(lambda f, g, mode=mode: correlate(f, g, mode))
        yield Claim(f"f ⋆ g, {mode}", (f, g), [k], summed(sums.correlate, f, g, mode))


def summed(operation, f, g, mode: str) -> Bounded:
    """A sum in extended precision, and how far off that may be."""
    return Bounded(operation(f, g, mode), 2 * (g.size + 3) * TINY * operation(abs(f), abs(g), mode).astype(float))
