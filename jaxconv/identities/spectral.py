"""Spectral: what convolution becomes under the discrete Fourier transform F.

F is applied as a matrix, so that no transform of jaxconv or JAX judges itself. Its
entries, which no dtype holds, count as rounded arguments.
"""

from functools import partial

import jax
import numpy as np
from jax import numpy as jnp

from jaxconv.identities import matrices, sums
from jaxconv.identities.base import INEXACT, Bounded, Case, Claim, Domain, Rounded, Theme, Witness
from jaxconv.identities.rounding import TINY
from jaxconv.signal import autocorrelation, convolve, correlate, upfirdn

spectral = Theme("spectral")
OPPENHEIM = "Oppenheim and Schafer, Discrete-Time Signal Processing, ch. 4 and 8"
BRACEWELL = "Bracewell, The Fourier Transform and Its Applications, ch. 6"
LINEAR = Domain(INEXACT, note="one dimension, transforms of length N + M - 1")
CIRCULAR = Domain(INEXACT, modes=("same",), boundaries=("wrap",), note="one dimension")


def circular(f, h):
    """f ⊛ h: the period is f's length, and the kernel's centre its first entry."""
    return convolve(f, h, "same", boundary="wrap", origin=-((h.shape[0] - 1) // 2))


def circular_correlation(f, h):
    """f ⊛ h̃, the sum of f[(o + k) mod N] conj(h[k])."""
    return correlate(f, h, "same", boundary="wrap", origin=-(h.shape[0] // 2))


def wrapped(f, h, sign: int = 1) -> np.ndarray:
    """The literal circular sums: of f[(o - k) mod N] h[k], or for sign -1 of f[(o + k) mod N] conj(h[k])."""
    y = np.zeros(len(f), np.result_type(f, h))
    for o in range(len(f)):
        for k in range(len(h)):
            y[o] += f[(o - sign * k) % len(f)] * (h[k] if sign > 0 else h[k].conj())
    return y


def signals(case: Case, largest: int = 40) -> tuple[np.ndarray, np.ndarray]:
    return case.draw(min(case.N, largest)), case.draw(min(case.M, 9))


def padded(a, n: int) -> np.ndarray:
    return np.pad(a, (0, n - len(a)))


def near(value, *sizes: float) -> Bounded:
    """A value that NumPy rounded: a few units of extended precision, of the sum of its terms' sizes."""
    return Bounded(value, 64 * TINY * float(np.max(np.abs(value), initial=0) + sum(sizes)))


def dot(F, x):
    return jnp.dot(F, x.astype(F.dtype), precision="highest")


def transform(n: int) -> Rounded:
    return Rounded(sums.fourier(n))


@spectral(
    "convolution theorem",
    "F(f * g) = F f · F g, padded to N + M - 1",
    r"F(f * g) = F f \cdot F g",
    OPPENHEIM,
    LINEAR,
    Witness(
        "F(f * g) = F f · F g of length N",
        lambda: (
            np.fft.fft(np.convolve([1, 2, 3], [1, 1, 0])[:3]).round(6),
            (np.fft.fft([1, 2, 3]) * np.fft.fft([1, 1, 0])).round(6),
        ),
    ),
)
def convolution_theorem(case: Case):
    f, g = signals(case)
    n = len(f) + len(g) - 1
    c = case.on(convolve)
    y = sums.dft(sums.convolve(f, g))
    size = float(np.abs(f).sum() * np.abs(g).sum())
    F = sums.fourier(n)
    routes = [lambda f, g, F: dot(F, c(f, g)), lambda f, g, F: dot(F[:, : f.shape[0]], f) * dot(F[:, : g.shape[0]], g)]
    yield Claim(
        "F(f * g)", (f, g, transform(n)), routes, near(y, size), [near((F @ padded(f, n)) * (F @ padded(g, n)), size)]
    )


@spectral(
    "circular convolution theorem",
    "F(f ⊛ h) = F f · F h",
    r"F(f \circledast h) = F f \cdot F h",
    OPPENHEIM,
    CIRCULAR,
    Witness(
        "F(f * h) = F f · F h with zeros outside",
        lambda: (
            np.fft.fft(np.asarray(convolve(np.array([1.0, 2, 3]), np.array([0.0, 1, 1]), "same"))).round(3),
            (np.fft.fft([1, 2, 3]) * np.fft.fft([1, 1, 0])).round(3),
        ),
    ),
)
def circular_theorem(case: Case):
    f, h = signals(case)
    n = len(f)
    c = case.on(circular)
    y = wrapped(f, h)
    size = float(np.abs(f).sum() * np.abs(h).sum())
    F = sums.fourier(n)
    yield Claim("f ⊛ h", (f, h), [c], y, [matrices.circulant(h, n) @ f])
    routes = [lambda f, h, F: dot(F, c(f, h)), lambda f, h, F: dot(F, f) * dot(F[:, : h.shape[0]], h)]
    yield Claim("F(f ⊛ h)", (f, h, transform(n)), routes, near(F @ y, size), [near((F @ f) * (F @ padded(h, n)), size)])


@spectral(
    "correlation theorem",
    "F(f ⊛ h̃) = F f · conj(F h)",
    r"F(f \circledast \tilde h) = F f \cdot \overline{F h}",
    BRACEWELL,
    CIRCULAR,
    Witness(
        "F(f ⊛ h̃) = F f · F h",
        lambda: (
            np.fft.fft(wrapped(np.array([1, 2, 3]), np.array([1, 1]), -1)).round(6),
            (np.fft.fft([1, 2, 3]) * np.fft.fft([1, 1, 0])).round(6),
        ),
    ),
)
def correlation_theorem(case: Case):
    f, h = signals(case)
    n = len(f)
    k = case.on(circular_correlation)
    y = wrapped(f, h, -1)
    size = float(np.abs(f).sum() * np.abs(h).sum())
    F = sums.fourier(n)
    yield Claim("f ⊛ h̃", (f, h), [k], y, [matrices.circulant(h, n).conj().T @ f])
    routes = [lambda f, h, F: dot(F, k(f, h)), lambda f, h, F: dot(F, f) * dot(F[:, : h.shape[0]], h).conj()]
    yield Claim(
        "F(f ⊛ h̃)", (f, h, transform(n)), routes, near(F @ y, size), [near((F @ f) * (F @ padded(h, n)).conj(), size)]
    )


@spectral(
    "linear correlation theorem",
    "F(f ⋆ h) = F f · conj(F h), padded to N + M - 1, lag 0 first; F(f ⋆ f) = |F f|² likewise",
    r"F(f \star h) = F f \cdot \overline{F h}, \quad F(f \star f) = |F f|^2",
    BRACEWELL,
    LINEAR,
    Witness(
        "F(f ⋆ h) = F f · conj(F h) of length N",
        lambda: (
            np.fft.fft(np.asarray(correlate(np.array([1.0, 2, 3]), np.array([0.0, 1, 1])))[2:]).round(3),
            (np.fft.fft([1, 2, 3]) * np.fft.fft([0, 1, 1]).conj()).round(3),
        ),
    ),
)
def linear_correlation_theorem(case: Case):
    f, h = signals(case)
    for what, g, k in (("f ⋆ h", h, case.on(correlate)), ("f ⋆ f", f, case.on(lambda f, _: autocorrelation(f)))):
        n, first = len(f) + len(g) - 1, len(g) - 1  # lag 0 stands at M - 1, and is brought to the front
        F, size = sums.fourier(n), float(np.abs(f).sum() * np.abs(g).sum())
        routes = [
            lambda f, g, F, k=k, first=first: dot(F, jnp.roll(k(f, g), -first)),
            lambda f, g, F: dot(F[:, : f.shape[0]], f) * dot(F[:, : g.shape[0]], g).conj(),
        ]
        y = near(F @ np.roll(sums.correlate(f, g), -first), size)
        yield Claim(
            f"F({what})", (f, g, transform(n)), routes, y, [near((F @ padded(f, n)) * (F @ padded(g, n)).conj(), size)]
        )


@spectral(
    "Wiener-Khinchin",
    "F(f ⊛ f̃) = |F f|²",
    r"F(f \circledast \tilde f) = |F f|^2",
    "Wiener (1930), Khinchin (1934); Bracewell, ch. 6",
    CIRCULAR,
)
def wiener_khinchin(case: Case):
    f = case.draw(min(case.N, 24))
    n = len(f)
    k, a = case.on(circular_correlation), case.on(autocorrelation)
    F = sums.fourier(n)
    size = float(np.abs(f).sum() ** 2)

    def square(z):
        return z * z.conj()

    routes = [lambda f, F: dot(F, k(f, f)), lambda f, F: square(dot(F, f))]
    yield Claim("F(f ⊛ f̃)", (f, transform(n)), routes, near(F @ wrapped(f, f, -1), size), [near(square(F @ f), size)])
    yield Claim("f ⋆ f, every lag", (f,), [a], sums.correlate(f, f))


@spectral(
    "Parseval",
    "⟨f, g⟩ = ⟨F f, F g⟩ / N, and it is the correlation at lag 0",
    r"\langle f, g \rangle = \tfrac1N \langle F f, F g \rangle = (g \star f)[0]",
    BRACEWELL,
    Domain(INEXACT, note="one dimension"),
)
def parseval(case: Case):
    f, g = case.draw(min(case.N, 40)), case.draw(min(case.N, 40))
    n = len(f)
    k = case.on(partial(correlate, lags=(0, 0)))
    size = float(np.abs(f).sum() * np.abs(g).sum() * n)
    routes = [
        lambda f, g, F: (n * k(g, f)[0]).astype(F.dtype) + 0 * F[0, 0],
        lambda f, g, F: (dot(F, f).conj() * dot(F, g)).sum(),
    ]
    yield Claim("N ⟨f, g⟩", (f, g, transform(n)), routes, near(n * np.vdot(f, g) + 0j, size))


@spectral(
    "shift theorem",
    "F(f ⊛ δ[n - s]) = e^{-2πiks/N} F f",
    r"F(S_s f)[k] = e^{-2\pi i k s/N} F f[k]",
    BRACEWELL,
    CIRCULAR,
)
def shift_theorem(case: Case):
    f = case.draw(min(case.N, 40))
    n, s = len(f), 2
    impulse = np.zeros(3, case.exact)
    impulse[s] = 1
    c = case.on(circular)
    F = sums.fourier(n)
    size = float(np.abs(f).sum())
    yield Claim("f ⊛ δ[n - s]", (f, impulse), [c], np.roll(f, s))
    routes = [lambda f, d, F: dot(F, c(f, d)), lambda f, d, F: F[:, s] * dot(F, f)]
    yield Claim("F(S f)", (f, impulse, transform(n)), routes, near(F @ np.roll(f, s), size))


@spectral(
    "modulation",
    "(e f) * (e g) = e (f * g), e[n] = iⁿ",
    r"(e f) * (e g) = e (f * g), \quad e_n = z^n",
    BRACEWELL,
    Domain(("complex",), modes=("full",)),
)
def modulation(case: Case):
    f, g = signals(case)
    c = case.on(convolve)

    def e(n):
        return np.array([1, 1j, -1, -1j])[np.arange(n) % 4]

    n = len(f) + len(g) - 1
    y = e(n) * sums.convolve(f, g)
    routes = [lambda f, g, ef, eg, ey: c(ef * f, eg * g), lambda f, g, ef, eg, ey: ey * c(f, g)]
    yield Claim("e (f * g)", (f, g, e(len(f)), e(len(g)), e(n)), routes, y)


@spectral(
    "derivative theorem",
    "F(f[n+1] - f[n-1]) = 2i sin(2πk/N) F f",
    r"F(f_{n+1} - f_{n-1})[k] = 2 i \sin(2\pi k/N)\, F f[k]",
    BRACEWELL,
    CIRCULAR,
)
def derivative(case: Case):
    f = case.draw(min(case.N, 40))
    n, central = len(f), np.array([-1, 0, 1], case.exact)
    k = case.on(lambda f, h: correlate(f, h, "same", boundary="wrap"))
    F = sums.fourier(n)
    symbol = F[:, n - 1] - F[:, 1]
    y = np.roll(f, -1) - np.roll(f, 1)
    yield Claim("f[n+1] - f[n-1]", (f, central), [k], y)
    routes = [lambda f, h, F, s: dot(F, k(f, h)), lambda f, h, F, s: s * dot(F, f)]
    yield Claim("F f'", (f, central, transform(n), Rounded(symbol)), routes, near(F @ y, 2 * float(np.abs(f).sum())))


@spectral(
    "circulant diagonalisation",
    "e_k ⊛ h = (F h)[k] e_k: the Fourier vectors are every circulant's eigenvectors",
    r"C_h e_k = \hat h_k e_k, \quad F C_h F^{-1} = \mathrm{diag}(\hat h)",
    "Davis, Circulant Matrices; Gray, ch. 3",
    Domain(("complex",), modes=("same",), boundaries=("wrap",), note="one dimension"),
)
def diagonalisation(case: Case):
    h = case.draw(min(case.M, 5))
    n = min(case.N, 12)
    c = case.on(circular)
    E = sums.fourier(n).conj()
    eigenvalues = sums.fourier(n) @ padded(h, n)
    size = float(np.abs(h).sum())
    yield Claim(
        "C e_k",
        (Rounded(E), h),
        [lambda E, h: jax.vmap(lambda e: c(e, h))(E)],
        near(eigenvalues[:, None] * E, size),
        [near(E @ matrices.circulant(h, n).T, size)],
    )


@spectral(
    "product and circular convolution",
    "N F(f g) = F f ⊛ F g",
    r"N\, F(f g) = F f \circledast F g",
    BRACEWELL,
    Domain(("complex",), modes=("same",), boundaries=("wrap",), note="one dimension"),
)
def dual(case: Case):
    n = min(case.N, 12)
    f, g = case.draw(n), case.draw(n)
    c = case.on(circular)
    F = sums.fourier(n)
    size = float(n * n * np.abs(f).sum() * np.abs(g).sum())
    yield Claim(
        "N F(f g)",
        (f, g, transform(n)),
        [lambda f, g, F: c(dot(F, f), dot(F, g)), lambda f, g, F: n * dot(F, f * g)],
        near(n * (F @ (f * g)), size),
    )


@spectral(
    "sampling",
    "F(f[S n])[k] is the sum of S aliases of F f, over S",
    r"F(\downarrow_S f)[k] = \tfrac1S \sum_j F f[k + j N/S]",
    OPPENHEIM,
    Domain(INEXACT, strides=(2, 3), note="one dimension; a stride samples"),
    Witness("F(f[2n])[k] = F f[k]", lambda: (np.fft.fft([1, 2])[:2], np.fft.fft([1, 5, 2, 0])[:2])),
)
def sampling(case: Case):
    one = np.ones(1, case.exact)
    for s in case.turn(case.domain.strides):
        f = case.draw(s * min(case.N, 8))
        n, m = len(f), len(f) // s
        d = case.on(partial(upfirdn, down=s))
        G = sums.fourier(m)
        yield Claim(f"f[{s}n]", (one, f), [d], f[::s])
        routes = [
            lambda h, f, F, G, d=d, s=s: s * dot(G, d(h, f)),
            lambda h, f, F, G, s=s, m=m: dot(F, f).reshape(s, m).sum(0),
        ]
        yield Claim(f"S F(f[{s}n])", (one, f, transform(n), transform(m)), routes, near(s * (G @ f[::s]), n * 3.0))


@spectral(
    "zero stuffing",
    "zeros between samples repeat the spectrum",
    r"F(\uparrow_L f)[k] = F f[k \bmod N]",
    OPPENHEIM,
    Domain(INEXACT, strides=(2, 3), note="one dimension; the input dilated"),
)
def stuffing(case: Case):
    one = np.ones(1, case.exact)
    for up in case.turn(case.domain.strides):
        f = case.draw(min(case.N, 8))
        n = len(f)
        u = case.on(lambda h, f, up=up: jnp.pad(upfirdn(h, f, up=up), (0, up - 1)))
        y = np.zeros(up * n, case.exact)
        y[::up] = f
        F = sums.fourier(up * n)
        yield Claim(f"zeros, L = {up}", (one, f), [u], y)
        routes = [lambda h, f, F, G, u=u: dot(F, u(h, f)), lambda h, f, F, G, up=up: jnp.tile(dot(G, f), up)]
        yield Claim(
            f"F, L = {up}", (one, f, transform(up * n), transform(n)), routes, near(F @ y, float(np.abs(f).sum()))
        )


# With s^2 = a^2 b^2 / c^2 the sum over m of G_a(m) G_b(n-m) is G_c(n) times the sum over m of a normal
# density of variance s^2, which Poisson's formula bounds: 1 + 2 sum_k exp(-2 pi^2 k^2 s^2). Beyond ten
# standard deviations a Gaussian has less than 1e-22 left.
@spectral(
    "Gaussian times Gaussian",
    "G_a * G_b = G_c, a² + b² = c², to 2 exp(-2π²a²b²/c²)",
    r"G_a * G_b = G_{\sqrt{a^2+b^2}}",
    "Lindeberg, Scale-Space for Discrete Signals (1990); Poisson's summation formula",
    Domain(("real",), note="sampled Gaussians; the error of sampling is part of the bound"),
)
def gaussians(case: Case):
    a, b = 1.5 + case.size / 8, 2.0
    spread = np.sqrt(np.longdouble(a * a + b * b))

    def gaussian(sigma, radius):
        n = np.arange(-radius, radius + 1, dtype=np.longdouble)
        return np.exp(-n * n / (2 * np.longdouble(sigma) ** 2)) / (np.longdouble(sigma) * np.sqrt(2 * sums.PI))

    ra, rb = int(10 * a) + 1, int(10 * b) + 1
    f, g = gaussian(a, ra), gaussian(b, rb)
    aliases = 2.1 * np.exp(-2 * np.pi**2 * (a * b / spread) ** 2)
    y = gaussian(spread, ra + rb)
    error = y.astype(float) * aliases + 10 * TINY
    yield Claim(
        "G_a * G_b",
        (Rounded(f), Rounded(g)),
        [case.on(convolve)],
        Bounded(y, error),
        [near(sums.convolve(f, g), 1.0)],
    )


# The kernel 2/N cot(pi n/N) at odd n has the spectrum -i sign(k) for even N.
@spectral(
    "Hilbert pairs",
    "cosines become sines under the Hilbert kernel, and sines minus cosines",
    r"H \cos_k = \sin_k, \quad H \sin_k = -\cos_k",
    "Oppenheim and Schafer, ch. 12",
    Domain(("real",), modes=("same",), boundaries=("wrap",), note="one dimension, even N"),
)
def hilbert(case: Case):
    n = 2 * min(case.N // 2, 10)
    odd = np.arange(n, dtype=np.longdouble)
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = sums.PI * odd / n
        h = np.where(np.arange(n) % 2 == 1, 2 / np.longdouble(n) * np.cos(angle) / np.sin(angle), 0)
    c = case.on(circular)
    E = sums.fourier(n)[1 : n // 2]
    cosines, sines = np.real(E), -np.imag(E)
    both = [(cosines, sines), (sines, -cosines)]
    for name, (given, right) in zip(("cos", "sin"), both, strict=True):
        yield Claim(
            f"H {name}",
            (Rounded(given), Rounded(h)),
            [lambda E, h: jax.vmap(lambda e: c(e, h))(E)],
            near(right, float(np.abs(h).sum()) * n),
        )


@spectral(
    "number theoretic transform",
    "W(f ⊛ g) = W f · W g modulo 17, W[k, n] = 2^{kn}: the theorem without rounding",
    r"W(f \circledast g) \equiv W f \cdot W g \pmod p",
    "Pollard, The Fast Fourier Transform in a Finite Field (1971)",
    Domain(
        ("integer",),
        modes=("same",),
        boundaries=("wrap",),
        note="eight positions: 2 is an eighth root of 1 modulo 17",
    ),
)
def number_theoretic(case: Case):
    f, g = case.draw(8, largest=1), case.draw(8, largest=1)  # all products fit 16 bits
    W = np.array([[pow(2, j * k, 17) for j in range(8)] for k in range(8)])
    c = case.on(circular)
    zero = np.zeros(8, case.exact)
    rest = [lambda f, g, W: jax.lax.rem(W @ c(f, g) - (W @ f) * (W @ g), jnp.asarray(17, f.dtype))]
    yield Claim("f ⊛ g", (f, g), [c], wrapped(f, g))
    yield Claim(
        "W(f ⊛ g) - W f · W g, modulo 17", (f, g, W), rest, zero, [np.fmod(W @ wrapped(f, g) - (W @ f) * (W @ g), 17)]
    )
