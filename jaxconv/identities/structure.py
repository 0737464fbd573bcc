"""Structure: Toeplitz matrices, patches, separable kernels, phases, causes."""

from functools import partial

import jax
import numpy as np
from jax import numpy as jnp

from jaxconv import ndimage
from jaxconv.identities import matrices, sums
from jaxconv.identities.adjoint import LAYERS, layer_arrays
from jaxconv.identities.base import BOUNDARIES, INEXACT, MODES, Bounded, Case, Claim, Domain, Theme, Witness
from jaxconv.identities.rounding import unit
from jaxconv.identities.spectral import circular
from jaxconv.lax import conv_general_dilated, conv_general_dilated_local, conv_general_dilated_patches, fold
from jaxconv.separable import SVD
from jaxconv.signal import autocorrelation, convolution_matrix, convolve, correlate, upfirdn

structure = Theme("structure")
GRAY = "Gray, Toeplitz and Circulant Matrices: A Review"
VAIDYANATHAN = "Vaidyanathan, Multirate Systems and Filter Banks, ch. 4"
LINE = Domain(note="one dimension")


@structure(
    "Toeplitz matrix",
    "f * g = T(g) f, T[o, i] = g[o - i + first]",
    r"f * g = T_g f, \quad (T_g)_{oi} = g_{o-i}",
    GRAY,
    Domain(modes=MODES),
)
def toeplitz(case: Case):
    f, g = case.draw(min(case.N, 40)), case.draw(case.M)
    for mode in case.turn(case.domain.modes):
        c = case.on(lambda f, g, mode=mode: convolve(f, g, mode))
        yield Claim(
            f"T f, {mode}", (f, g), [c], sums.convolve(f, g, mode), [matrices.convolution(g, f.shape, mode) @ f]
        )
    T = case.on(partial(convolution_matrix, n=len(f)))
    yield Claim("T", (g,), [T], matrices.convolution(g, f.shape))


@structure(
    "circulant matrix",
    "f ⊛ h = C(h) f, and circulants commute",
    r"C_g C_h = C_{g \circledast h} = C_h C_g",
    GRAY,
    Domain(modes=("same",), boundaries=("wrap",), note="one dimension"),
    Witness(
        "f ⊛ h = f * h in mode 'same'",
        lambda: (
            convolve(np.array([1, 2, 3]), np.array([1, 1, 1]), "same", boundary="wrap"),
            convolve(np.array([1, 2, 3]), np.array([1, 1, 1]), "same"),
        ),
    ),
)
def circulant(case: Case):
    n = min(case.N, 20)
    f, g, h = case.draw(n), case.draw(3), case.draw(4)

    c = case.on(circular)
    y = matrices.circulant(h, n) @ matrices.circulant(g, n) @ f
    literal = np.zeros(n, case.exact)
    for o, j, k in np.ndindex(n, 3, 4):
        literal[o] += f[(o - j - k) % n] * g[j] * h[k]
    yield Claim("C(h) C(g) f", (f, g, h), [lambda f, g, h: c(c(f, g), h), lambda f, g, h: c(c(f, h), g)], literal, [y])


@structure(
    "Frobenius product and trace",
    "each output is ⟨h, patch⟩ = tr(hᴴ patch)",
    r"y_o = \langle h, P_o \rangle_F = \mathrm{tr}(h^H P_o)",
    "Horn and Johnson, Matrix Analysis, 5.6",
    Domain(note="two dimensions, mode valid"),
)
def frobenius(case: Case):
    x, h = case.draw(6, 5), case.draw(3, 2)
    k = case.on(lambda x, h: correlate(x, h, "valid"))

    def traces(x, h):
        rows = [[jnp.trace(h.conj().T @ x[i : i + 3, j : j + 2]) for j in range(4)] for i in range(4)]
        return jnp.stack([jnp.stack(row) for row in rows])

    def products(x, h):
        return jnp.stack([jnp.stack([(x[i : i + 3, j : j + 2] * h.conj()).sum() for j in range(4)]) for i in range(4)])

    by = np.array([[np.trace(h.conj().T @ x[i : i + 3, j : j + 2]) for j in range(4)] for i in range(4)])
    yield Claim("⟨h, patch⟩", (x, h), [k, products, traces], sums.correlate(x, h, "valid"), [by])


@structure(
    "im2col",
    "a layer is a matrix product with its patches",
    r"Y = W \cdot \mathrm{im2col}(X)",
    "Chellapilla, Puri and Simard (2006)",
    Domain(strides=(1, 2, 3), note="one group"),
)
def im2col(case: Case):
    for name in case.turn(LAYERS):
        strides, pads, L, D, _ = LAYERS[name]
        x, w = layer_arrays(case, 1)
        f = case.on(partial(conv_general_dilated, window_strides=strides, padding=pads, lhs_dilation=L, rhs_dilation=D))
        p = case.on(
            partial(
                conv_general_dilated_patches,
                filter_shape=w.shape[2:],
                window_strides=strides,
                padding=pads,
                lhs_dilation=L,
                rhs_dilation=D,
            )
        )

        def product(x, w, p=p):
            patches = p(x)
            n, rows, *o = patches.shape
            return jnp.stack([(w.reshape(w.shape[0], -1) @ a).reshape(-1, *o) for a in patches.reshape(n, rows, -1)])

        by = matrices.layer(x, w, strides, pads, L, D)
        yield Claim(name, (x, w), [f, product], sums.layer(x, w, strides, pads, L, D), [by])


@structure(
    "fold is im2col's transpose",
    "⟨im2col(x), p⟩ = ⟨x, fold(p)⟩",
    r"\langle \mathrm{im2col}\, x, p \rangle = \langle x, \mathrm{fold}\, p \rangle",
    "PyTorch: torch.nn.Fold",
    Domain(("integer", "real"), strides=(1, 2, 3)),
)
def folded(case: Case):
    for name in LAYERS:
        strides, pads, L, D, _ = LAYERS[name]
        x, K = case.draw(2, 2, 7, 8), (3, 2)
        how = dict(filter_shape=K, window_strides=strides, padding=pads, lhs_dilation=L, rhs_dilation=D)
        patches = case.on(partial(conv_general_dilated_patches, **how))
        back = case.on(lambda p, how=how, shape=x.shape: fold(p, shape, **how))
        # The literal patches: a layer whose kernels each read one entry.
        w = np.zeros((2 * 6, 2, *K), x.dtype)
        for row, at in enumerate(np.ndindex(2, *K)):
            w[(row, *at)] = 1
        right = sums.layer(x, w, strides, pads, L, D)
        p = case.draw(*right.shape)
        yield Claim(f"im2col, {name}", (x,), [patches], right)
        routes = [lambda x, p, f=patches: (f(x) * p).sum(), lambda x, p, g=back: (x * g(p)).sum()]
        yield Claim(f"⟨im2col x, p⟩, {name}", (x, p), routes, (right * p).sum())


@structure(
    "separable kernels",
    "x * (u ⊗ v) = (x * u) * v, along one axis each",
    r"x * (u \otimes v) = (x *_0 u) *_1 v",
    "Gonzalez and Woods, Digital Image Processing, 3.4",
    Domain(note="two dimensions"),
)
def separable(case: Case):
    x, u, v = case.draw(9, 8), case.draw(3), case.draw(4)
    for mode in case.turn(MODES):
        c = case.on(lambda x, h, mode=mode: convolve(x, h, mode))
        rows = case.on(lambda x, u, mode=mode: convolve(x, u[:, None], mode))
        columns = case.on(lambda x, v, mode=mode: convolve(x, v[None], mode))
        routes = [
            lambda x, u, v, c=c: c(x, u[:, None] * v),
            lambda x, u, v, a=rows, b=columns: b(a(x, u), v),
            lambda x, u, v, a=rows, b=columns: a(b(x, v), u),
        ]
        T = np.kron(matrices.convolution(u, [9], mode), matrices.convolution(v, [8], mode))
        y = sums.convolve(x, np.outer(u, v), mode)
        yield Claim(f"x * (u ⊗ v), {mode}", (x, u, v), routes, y, [(T @ x.ravel()).reshape(y.shape)])


# method='separable' splits the kernel by singular values: in norm (2u + SVD) of it may be left out, and
# as much again is rounded where the vectors are cast to the dtype; each output reads at most x.
@structure(
    "kernels of rank r",
    "x * Σ u_r ⊗ v_r = Σ (x * u_r) * v_r",
    r"x * \sum_r u_r \otimes v_r = \sum_r (x *_0 u_r) *_1 v_r",
    "Treitel and Shanks, The Design of Multistage Separable Planar Filters (1971)",
    Domain(INEXACT, modes=MODES, note="two dimensions"),
)
def rank_r(case: Case):
    # The known kernel is part of the program, which all seeds of a size share: so it depends on the size alone.
    fixed = Case(case.dtype, case.size, 0, case.domain)
    x, u, v = case.draw(9, 8), fixed.draw(2, 3), fixed.draw(2, 4)
    h = np.einsum("ri,rj->ij", u, v)
    known = np.asarray(h, case.dtype) if case.dtype != "bfloat16" else None
    slack = (6 * unit(case.dtype) + 2 * SVD) * 2**0.5 * float(np.linalg.norm(h) * np.linalg.norm(x))
    for mode in case.turn(case.domain.modes):
        c = case.on(lambda x, h, mode=mode: convolve(x, h, mode))
        y = sums.convolve(x, h, mode)

        def each(x, u, v, mode=mode, c=c):
            return sum(c(c(x, u[r][:, None]), v[r][None]) for r in range(2))

        yield Claim(f"x * h, {mode}", (x, u, v), [lambda x, u, v, c=c: c(x, u.T @ v), each], y)
        if known is not None:
            for sign, op, right in (("*", convolve, y), ("⋆", correlate, sums.correlate(x, h, mode))):
                s = case.on(lambda x, op=op, mode=mode: op(x, known, mode, method="separable"))
                yield Claim(f"x {sign} h, method='separable', {mode}", (x,), [s], Bounded(right, slack))


@structure(
    "up, filter, down",
    "y[o] = Σ x[i] h[down o - up i]",
    r"y_o = \sum_i x_i\, h_{M o - L i}",
    VAIDYANATHAN,
    Domain(strides=(1, 2, 3), note="one dimension"),
)
def multirate(case: Case):
    x, h = case.draw(min(case.N, 20)), case.draw(min(case.M, 7))
    for up, down in ((1, 2), (2, 1), (3, 2), (2, 3)):
        n = -(-((len(x) - 1) * up + len(h)) // down)
        y = np.zeros(n, case.exact)
        for o, i in np.ndindex(n, len(x)):
            if 0 <= down * o - up * i < len(h):
                y[o] += x[i] * h[down * o - up * i]
        T = matrices.matrix(h, [matrices.relation(len(x), len(h), n, L=up, S=down, D=-1)])
        yield Claim(f"up {up}, down {down}", (h, x), [case.on(partial(upfirdn, up=up, down=down))], y, [T @ x])


@structure(
    "a stride samples",
    "a layer of stride S is every S-th output of the layer of stride 1",
    r"x \star_S h = \downarrow_S (x \star h)",
    "Dumoulin and Visin, A guide to convolution arithmetic",
    Domain(strides=(2, 3)),
)
def stride_samples(case: Case):
    for s in case.turn(case.domain.strides):
        x, w = case.draw(2, 2, 9, 8), case.draw(3, 2, 3, 2)
        f, g = (case.on(partial(conv_general_dilated, window_strides=(t, t), padding="VALID")) for t in (s, 1))
        zeros = ((0, 0), (0, 0))
        y = sums.layer(x, w, (s, s), zeros, (1, 1), (1, 1))
        routes = [f, lambda x, w, g=g, s=s: g(x, w)[:, :, ::s, ::s]]
        yield Claim(f"S = {s}", (x, w), routes, y, [sums.layer(x, w, (1, 1), zeros, (1, 1), (1, 1))[:, :, ::s, ::s]])


@structure(
    "polyphase",
    "every S-th sample of f * h is the sum of its phases' convolutions",
    r"\downarrow_S (f * h) = \sum_j (\downarrow_S S_j f) * (\downarrow_S h_{+j})",
    VAIDYANATHAN,
    Domain(strides=(2, 3), note="one dimension"),
)
def polyphase(case: Case):
    for s in case.turn(case.domain.strides):
        n = s * min(case.N // s, 8)
        f, h = case.draw(n), case.draw(s * 2)
        c, u = case.on(convolve), case.on(partial(upfirdn, down=s))
        y = sums.convolve(f, h)[::s]

        def phases(f, h, c=c, s=s, y=y):
            total = 0
            for j in range(s):  # h's phase j meets f delayed by j
                part = jnp.pad(f, (j, s - 1))[: f.shape[0] + s - 1][::s]
                total = total + jnp.pad(c(part, h[j::s]), (0, 2 * s))[: y.shape[0]]
            return total

        yield Claim(
            f"S = {s}",
            (f, h),
            [lambda f, h, c=c, s=s: c(f, h)[::s], lambda f, h, u=u, y=y: u(h, f)[: y.shape[0]], phases],
            y,
        )


@structure(
    "noble identities",
    "↓S after h(z^S) is h after ↓S; ↑L before h(z^L) is h before ↑L",
    r"\downarrow_S ((\uparrow_S h) * f) = h * \downarrow_S f, \quad (\uparrow_L h) * \uparrow_L f = \uparrow_L (h * f)",
    VAIDYANATHAN,
    Domain(strides=(2, 3), note="one dimension"),
)
def noble(case: Case):
    one = np.ones(1, case.exact)
    for s in case.turn(case.domain.strides):
        f, h = case.draw(s * min(case.N // s, 8)), case.draw(3)
        c, down, up = case.on(convolve), case.on(partial(upfirdn, down=s)), case.on(partial(upfirdn, up=s))
        y = sums.convolve(f[::s], h)

        def first(f, h, e, c=c, up=up, down=down):
            return down(e, c(f, up(e, h)))

        yield Claim(f"↓{s}", (f, h, one), [first, lambda f, h, e, c=c, down=down: c(down(e, f), h)], y)
        z = np.zeros(s * (len(y) - 1) + 1, case.exact)
        z[::s] = sums.convolve(f[::s], h)
        g = f[::s]
        yield Claim(
            f"↑{s}",
            (g, h, one),
            [lambda g, h, e, c=c, up=up: c(up(e, g), up(e, h)), lambda g, h, e, c=c, up=up: up(e, c(g, h))],
            z,
        )


@structure(
    "cascade of dilated kernels",
    "layers of dilation 1, 2, 4 are one kernel of length 1 + 2(1 + 2 + 4)",
    r"x \star h_1 \star_2 h_2 \star_4 h_3 = x \star (h_1 * \uparrow_2 h_2 * \uparrow_4 h_3)",
    "van den Oord et al., WaveNet (2016)",
    Domain(("real",), note="one dimension, valid"),
)
def cascade(case: Case):
    x, hs = case.draw(1, 1, 24), [case.draw(1, 1, 3) for _ in range(3)]
    f = [
        case.on(partial(conv_general_dilated, window_strides=(1,), padding="VALID", rhs_dilation=(d,)))
        for d in (1, 2, 4)
    ]
    c, up = case.on(convolve), [case.on(partial(upfirdn, up=d)) for d in (1, 2, 4)]
    one = np.ones(1, case.exact)

    def layered(x, a, b, h, e):
        return f[2](f[1](f[0](x, a), b), h)

    def whole(x, a, b, h, e):
        kernel = c(c(a[0, 0], up[1](e, b[0, 0])), up[2](e, h[0, 0]))
        return f[0](x, kernel[None, None])

    y = x
    for h, d in zip(hs, (1, 2, 4), strict=True):
        y = sums.layer(y, h, (1,), ((0, 0),), (1,), (d,))
    yield Claim("three layers", (x, *hs, one), [layered, whole], y)


@structure(
    "causes",
    "a causal convolution's Jacobian is lower triangular, an anti-causal one's upper",
    r"\partial y_o / \partial x_i = 0 \text{ for } i > o",
    "Oppenheim and Schafer, 2.2",
    Domain(("real",), note="one dimension"),
)
def causes(case: Case):
    n = min(case.N, 12)
    x, h = case.draw(n), case.draw(4)
    causal = case.on(lambda x, h: convolve(x, h)[: x.shape[0]])
    anti = case.on(lambda x, h: correlate(x, h)[h.shape[0] - 1 :])
    T = matrices.matrix(h, [matrices.relation(n, 4, n, D=-1)])
    columns = [sums.convolve(e, h)[:n] for e in np.eye(n, dtype=h.dtype)]
    yield Claim("causal", (x, h), [jax.jacrev(causal), jax.jacfwd(causal)], np.tril(np.stack(columns, 1)), [T])
    columns = [sums.correlate(e, h)[3:] for e in np.eye(n, dtype=h.dtype)]
    yield Claim("anti-causal", (x, h), [jax.jacrev(anti)], np.triu(np.stack(columns, 1)), [T.T])


@structure(
    "symmetric kernels",
    "h̃ = h ⇒ x * h = x ⋆ h",
    r"\tilde h = h \Rightarrow x * h = x \star h",
    "the flip law",
    Domain(modes=MODES),
    Witness(
        "h = hᵀ ⇒ x * h = x ⋆ h",
        lambda: (
            convolve(np.eye(3, dtype=int), np.array([[1, 2], [2, 0]])),
            correlate(np.eye(3, dtype=int), np.array([[1, 2], [2, 0]])),
        ),
    ),
)
def symmetric(case: Case):
    x, h = case.pair()
    h = h + np.flip(h).conj()
    for mode in case.turn(case.domain.modes):
        c, k = (case.on(lambda x, h, mode=mode, op=op: op(x, h, mode)) for op in (convolve, correlate))
        yield Claim(mode, (x, h), [c, k], sums.convolve(x, h, mode), [sums.correlate(x, h, mode)])


@structure(
    "boxes and running sums",
    "x * 1 is the difference of two running sums",
    r"(x * 1_M)_o = \Sigma_o - \Sigma_{o-M}",
    "Crow, Summed-Area Tables (1984)",
    LINE,
)
def boxes(case: Case):
    x, h = case.draw(min(case.N, 60)), np.ones(min(case.M, 9), case.exact)
    c = case.on(convolve)
    m = len(h)

    def running(x, h):
        total = jnp.cumsum(jnp.pad(x, (0, m - 1)))
        return total - jnp.pad(total, (m, 0))[: total.shape[0]]

    yield Claim("x * 1", (x, h), [c, running], sums.convolve(x, h))


@structure(
    "autocorrelation",
    "(x ⋆ x)[l] = Σ x[k + l] conj x[k], Hermitian, largest at lag 0",
    r"a_l = \sum_k x_{k+l} \bar x_k, \quad a_{-l} = \bar a_l, \quad |a_l| \le a_0",
    "Oppenheim and Schafer, 2.9",
    LINE,
)
def autocorrelated(case: Case):
    x = case.draw(min(case.N, 30))
    a, k = case.on(autocorrelation), case.on(partial(correlate, lags=3))
    y = sums.correlate(x, x)
    yield Claim("x ⋆ x", (x,), [a, lambda x: jnp.flip(a(x)).conj()], y, [np.flip(y).conj()])
    n = len(x)
    if not case.is_complex:
        zero = np.zeros(len(y), case.exact)
        routes = [lambda x: jnp.maximum(jnp.abs(a(x)) - a(x)[n - 1], 0)]
        yield Claim("|a_l| - a_0, where > 0", (x,), routes, zero, [np.maximum(np.abs(y) - y[n - 1], 0)])
    yield Claim("lags -3 to 3", (x,), [lambda x: k(x, x)], y[n - 4 : n + 3])


@structure(
    "a kernel for each place",
    "with one kernel at all places, a local layer is a layer",
    r"w_{m,(c,k),o} = w_{m,c,k} \Rightarrow y^{local} = x \star w",
    "LeCun (1989); jax.lax.conv_general_dilated_local",
    Domain(("integer", "real"), strides=(1, 2)),
)
def local(case: Case):
    for s in case.turn(case.domain.strides):
        x, w = case.draw(1, 2, 6, 7), case.draw(2, 2, 2, 3)
        y = sums.layer(x, w, (s, s), ((0, 0), (0, 0)), (1, 1), (1, 1))
        f = case.on(partial(conv_general_dilated_local, window_strides=(s, s), padding="VALID", filter_shape=(2, 3)))
        wide = np.broadcast_to(w.reshape(2, 12, 1, 1), (2, 12, *y.shape[2:]))
        yield Claim(f"S = {s}", (x, np.array(wide)), [f], y)


@structure(
    "filters and their boundaries",
    "Sobel is a smoothing times a difference; the Laplacian a sum of second differences",
    r"\mathrm{sobel}_0 = [-1, 0, 1] \otimes [1, 2, 1]",
    "Gonzalez and Woods, 3.6; scipy.ndimage",
    Domain(("integer", "real"), boundaries=BOUNDARIES),
)
def filters(case: Case):
    x = case.draw(5, 6)
    difference, smooth, second = np.array([-1, 0, 1]), np.array([1, 2, 1]), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    kernels = {
        "sobel": (partial(ndimage.sobel, axis=0), np.outer(difference, smooth)),
        "prewitt": (partial(ndimage.prewitt, axis=0), np.outer(difference, smooth // smooth)),
        "laplace": (ndimage.laplace, second),
    }
    for mode in case.domain.boundaries:
        for name in case.turn(kernels):
            op, kernel = kernels[name]
            yield Claim(
                f"{name}, {mode}", (x,), [case.on(partial(op, mode=mode))], sums.bounded_by(x, kernel, mode, False)
            )
