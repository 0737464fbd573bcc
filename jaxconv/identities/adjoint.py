"""Adjoint and gradient: every pass of the trilinear form is the derivative of every other."""

from functools import partial

import jax
import numpy as np
from jax import numpy as jnp

from jaxconv.identities import matrices, sums
from jaxconv.identities.base import BOUNDARIES, INEXACT, MODES, Case, Claim, Domain, Theme, Witness
from jaxconv.lax import conv_general_dilated, conv_transpose
from jaxconv.signal import convolve, correlate

adjoint = Theme("adjoint")
THEOREM = (
    "Rumelhart, Hinton and Williams (1986); LeCun et al. (1989); Dumoulin and Visin, A guide to convolution arithmetic"
)
REAL = Domain(("real",), modes=MODES)
x0, h0, r0 = np.array([1.0, 2, 0, -1]), np.array([1.0, 3]), np.array([1.0, 0, 2])

# (strides, pads, input dilation, kernel dilation, groups) of layers, and the extents they want
LAYERS = {
    "plain": ((1, 1), ((1, 1), (0, 2)), (1, 1), (1, 1), 1),
    "strided": ((2, 3), ((1, 1), (2, 0)), (1, 1), (1, 1), 1),
    "dilated": ((1, 2), ((2, 2), (1, 2)), (1, 1), (2, 3), 1),
    "input dilated": ((1, 1), ((1, 2), (2, 1)), (2, 3), (1, 1), 1),
    "all, in groups": ((2, 1), ((2, 1), (-1, 3)), (1, 2), (2, 2), 2),
    "depthwise": ((1, 2), ((1, 1), (1, 1)), (1, 1), (1, 1), 4),
}


def layer_arrays(case: Case, groups: int, I=(7, 8), K=(3, 2)):
    """x[n,c,i] and w[m,c/groups,k] of a small layer; 4 channels in and 4 out."""
    return case.draw(2, 4, *I), case.draw(4, 4 // groups, *K)


def layer(case: Case, name: str, **more):
    """The layer of that name, as jaxconv's function and as literal sums."""
    strides, pads, L, D, groups = LAYERS[name]
    f = partial(
        conv_general_dilated,
        window_strides=strides,
        padding=pads,
        lhs_dilation=L,
        rhs_dilation=D,
        feature_group_count=groups,
        **more,
    )
    return case.on(f), partial(sums.layer, strides=strides, pads=pads, L=L, D=D, groups=groups), groups


def inner(a, b):
    """⟨a, b⟩, the sum of conj(a) b."""
    return (a.conj() * b).sum()


def both(case: Case, mode: str):
    """(sign, operator of JAX, its matrix, its literal sum) of convolution and of correlation."""
    return [
        ("*", case.on(lambda x, h: convolve(x, h, mode)), matrices.convolution, sums.convolve),
        ("⋆", case.on(lambda x, h: correlate(x, h, mode)), matrices.correlation, sums.correlate),
    ]


def adjoint_of(A, like):
    """A' of a linear A: conj . transpose . conj."""
    transpose = jax.linear_transpose(A, jax.ShapeDtypeStruct(like.shape, like.dtype))
    return lambda y: transpose(y.conj())[0].conj()


@adjoint(
    "dot test",
    "⟨A x, y⟩ = ⟨x, Aᴴ y⟩, and Aᴴ is the conjugate transpose of the matrix",
    r"\langle A x, y \rangle = \langle x, A^H y \rangle",
    "Claerbout, Earth Soundings Analysis, ch. 5",
    Domain(INEXACT, modes=MODES),
    Witness(
        "⟨x * h, y⟩ = ⟨x, y * h⟩",
        lambda: (
            np.vdot(convolve(x0, h0), [1, 0, 0, 2, 1]),
            np.vdot(x0, convolve(np.array([1.0, 0, 0, 2, 1]), h0)[:4]),
        ),
    ),
)
def dot_test(case: Case):
    x, h = case.pair()
    for mode in case.turn(case.domain.modes):
        for name, A, M, literal in both(case, mode):
            right = literal(x, h, mode)
            y = case.draw(*right.shape)
            T = M(h, x.shape, mode)
            routes = [
                lambda x, h, y, A=A: inner(A(x, h), y),
                lambda x, h, y, A=A: inner(x, adjoint_of(lambda x: A(x, h), x)(y)),
            ]
            yield Claim(
                f"⟨x {name} h, y⟩, {mode}", (x, h, y), routes, inner(right, y), [inner(T @ x.ravel(), y.ravel())]
            )
            # In the kernel: linear in h, of which ⋆ takes the conjugate.
            columns = np.stack([literal(x, e.reshape(h.shape), mode).ravel() for e in np.eye(h.size, dtype=x.dtype)], 1)

            def in_kernel(x, h, y, A=A, name=name):
                return adjoint_of(lambda h: A(x, h if name == "*" else h.conj()), h)(y)

            right_h = (columns.conj().T @ y.ravel()).reshape(h.shape)
            yield Claim(f"Aᴴ y in the kernel, {name} {mode}", (x, h, y), [in_kernel], right_h)
            back = (T.conj().T @ y.ravel()).reshape(x.shape)
            yield Claim(
                f"Aᴴ y, {name} {mode}", (x, h, y), [lambda x, h, y, A=A: adjoint_of(lambda x: A(x, h), x)(y)], back
            )


def gradients(case: Case, correlation: bool, in_kernel: bool):
    x, h = case.pair()
    for mode in case.turn(case.domain.modes):
        name, A, M, literal = both(case, mode)[correlation]
        r = case.draw(*literal(x, h, mode).shape)
        found = jax.grad(lambda x, h, r, A=A: (r * A(x, h)).sum(), 1 if in_kernel else 0)
        yield name, mode, x, h, r, found, M


def by_units(M, x, h, r, mode: str) -> np.ndarray:
    """∂⟨r, A x⟩/∂h, which is linear in h: its values for unit kernels, by matrices."""
    units = np.eye(h.size, dtype=h.dtype).reshape(h.size, *h.shape)
    return np.reshape([M(one, x.shape, mode) @ x.ravel() @ r.ravel() for one in units], h.shape)


@adjoint(
    "gradient of correlation in its input",
    "∂⟨r, x ⋆ h⟩/∂x = r * h",
    r"\partial \langle r, x \star h \rangle / \partial x = r * h",
    THEOREM,
    REAL,
    Witness(
        "∂⟨r, x ⋆ h⟩/∂x = r ⋆ h",
        lambda: (jax.grad(lambda x: (r0 * correlate(x, h0, "valid")).sum())(x0), correlate(r0, h0)),
    ),
)
def correlation_in_input(case: Case):
    c = case.on(convolve)
    for _, mode, x, h, r, found, M in gradients(case, True, False):
        full = sums.convolve(r, h)  # r stands at the outputs' places: cut it as x lies among them
        first = [{"full": m - 1, "same": m // 2, "valid": 0}[mode] for m in h.shape]
        kept = tuple(slice(i, i + n) for i, n in zip(first, x.shape, strict=True))
        T = M(h, x.shape, mode)
        yield Claim(
            f"∂/∂x, {mode}",
            (x, h, r),
            [found, lambda x, h, r, kept=kept: c(r, h)[kept]],
            full[kept],
            [(T.T @ r.ravel()).reshape(x.shape)],
        )


@adjoint(
    "gradient of correlation in its kernel",
    "∂⟨r, x ⋆ h⟩/∂h = x ⋆ r",
    r"\partial \langle r, x \star h \rangle / \partial h = x \star r",
    THEOREM,
    REAL,
)
def correlation_in_kernel(case: Case):
    k = case.on(correlate)
    for _, mode, x, h, r, found, M in gradients(case, True, True):
        lags = sums.correlate(x, r)  # lag k of x against r, the outputs' first position taken into account
        first = [{"full": m - 1, "same": m // 2, "valid": 0}[mode] for m in h.shape]
        kept = tuple(slice(o - 1 - p, o - 1 - p + m) for o, p, m in zip(r.shape, first, h.shape, strict=True))
        pads = [(max(0, -s.start), max(0, s.stop - n)) for s, n in zip(kept, lags.shape, strict=True)]
        kept = tuple(slice(s.start + low, s.stop + low) for s, (low, _) in zip(kept, pads, strict=True))
        routes = [found, lambda x, h, r, kept=kept, pads=pads: jnp.pad(k(x, r), pads)[kept]]
        yield Claim(f"∂/∂h, {mode}", (x, h, r), routes, np.pad(lags, pads)[kept], [by_units(M, x, h, r, mode)])


@adjoint(
    "gradient of convolution in its input",
    "∂⟨r, x * h⟩/∂x = r ⋆ h",
    r"\partial \langle r, x * h \rangle / \partial x = r \star h",
    THEOREM,
    REAL,
)
def convolution_in_input(case: Case):
    k = case.on(correlate)
    for _, mode, x, h, r, found, M in gradients(case, False, False):
        full = sums.correlate(r, h)
        first = [{"full": m - 1, "same": m - 1 - (m - 1) // 2, "valid": 0}[mode] for m in h.shape]
        kept = tuple(slice(i, i + n) for i, n in zip(first, x.shape, strict=True))
        T = M(h, x.shape, mode)
        yield Claim(
            f"∂/∂x, {mode}",
            (x, h, r),
            [found, lambda x, h, r, kept=kept: k(r, h)[kept]],
            full[kept],
            [(T.T @ r.ravel()).reshape(x.shape)],
        )


@adjoint(
    "gradient of convolution in its kernel",
    "∂⟨r, x * h⟩/∂h = r ⋆ x",
    r"\partial \langle r, x * h \rangle / \partial h = r \star x",
    THEOREM,
    REAL,
)
def convolution_in_kernel(case: Case):
    k = case.on(correlate)
    for _, mode, x, h, r, found, M in gradients(case, False, True):
        lags = sums.correlate(r, x)
        first = [{"full": 0, "same": (m - 1) // 2, "valid": m - 1}[mode] for m in h.shape]
        # Entry k is the lag k - first: r[o] meets x[o + first - k].
        kept = tuple(slice(n - 1 - p, n - 1 - p + m) for n, p, m in zip(x.shape, first, h.shape, strict=True))
        routes = [found, lambda x, h, r, kept=kept: k(r, x)[kept]]
        yield Claim(f"∂/∂h, {mode}", (x, h, r), routes, lags[kept], [by_units(M, x, h, r, mode)])


@adjoint(
    "each pass against the others",
    "⟨y, y(x, w)⟩ = ⟨x, x(y, w)⟩ = ⟨w, w(x, y)⟩ = T(x, w, y)",
    r"T(x, w, y) = \langle y, \partial_y T \rangle = \langle x, \partial_x T \rangle = \langle w, \partial_w T \rangle",
    THEOREM,
    Domain(("real",), strides=(1, 2, 3), note="layers with strides, dilations, groups"),
)
def every_pass(case: Case):
    for name in dict.fromkeys(["dilated", *case.turn(LAYERS)]):
        f, literal, groups = layer(case, name)
        x, w = layer_arrays(case, groups)
        right = literal(x, w)
        y = case.draw(*right.shape)

        def T(x, w, y, f=f):
            return (f(x, w) * y).sum()

        routes = [
            T,
            lambda x, w, y, T=T: (jax.grad(T, 0)(x, w, y) * x).sum(),
            lambda x, w, y, T=T: (jax.grad(T, 1)(x, w, y) * w).sum(),
            lambda x, w, y, T=T: (jax.grad(T, 2)(x, w, y) * y).sum(),
        ]
        yield Claim(f"T, {name}", (x, w, y), routes, (right * y).sum())


@adjoint(
    "layers and their gradients",
    "y[n,m,o] = Σ x[n,c,i] w[m,c,k]; ∂T/∂x and ∂T/∂w are the same sum with another array left out",
    r"\partial T/\partial x_i = \sum_{(i,k,o)} w_k y_o, \quad \partial T/\partial w_k = \sum_{(i,k,o)} x_i y_o",
    THEOREM,
    Domain(strides=(1, 2, 3), note="gradients: real"),
)
def layers(case: Case):
    differentiated = ["all, in groups", *case.turn(LAYERS)]
    for name in LAYERS:
        f, literal, groups = layer(case, name)
        x, w = layer_arrays(case, groups)
        right = literal(x, w)
        strides, pads, L, D, _ = LAYERS[name]
        yield Claim(f"y, {name}", (x, w), [f], right, [matrices.layer(x, w, strides, pads, L, D, groups)])
        if name not in differentiated or not jnp.issubdtype(case.dtype, jnp.floating):
            continue
        y = case.draw(*right.shape)
        # The sums again, listed by what is left out: a unit array in its place selects one entry.
        dx, dw = (np.zeros_like(a) for a in (x, w))
        for n, m, *o in np.ndindex(y.shape):
            g = m // (4 // groups)
            for c, *k in np.ndindex(w.shape[1:]):
                found = [
                    divmod(s * a + d * b - lo, l)
                    for s, a, d, b, (lo, _), l in zip(strides, o, D, k, pads, L, strict=True)
                ]
                if all(rest == 0 and 0 <= i < size for (i, rest), size in zip(found, x.shape[2:], strict=True)):
                    i = tuple(i for i, _ in found)
                    channel = g * (4 // groups) + c
                    dx[(n, channel, *i)] += w[(m, c, *k)] * y[(n, m, *o)]
                    dw[(m, c, *k)] += x[(n, channel, *i)] * y[(n, m, *o)]
        T = jax.grad(lambda x, w, y, f=f: (f(x, w) * y).sum(), (0, 1))
        yield Claim(f"∂T/∂x, {name}", (x, w, y), [lambda x, w, y, T=T: T(x, w, y)[0]], dx)
        yield Claim(f"∂T/∂w, {name}", (x, w, y), [lambda x, w, y, T=T: T(x, w, y)[1]], dw)


@adjoint(
    "transposed convolution",
    "the transposed convolution is the gradient of the strided layer in its input",
    r"\mathrm{conv\_transpose}(y, w) = \partial \langle y, x \star_S w \rangle / \partial x",
    "Zeiler et al., Deconvolutional Networks (2010); Dumoulin and Visin",
    Domain(("real",), strides=(1, 2, 3)),
)
def transposed(case: Case):
    for s in case.turn(case.domain.strides):
        x, w = case.draw(1, 3, s * 5, s * 4), case.draw(2, 3, 3, 3)
        # lax's 'SAME': pads that the transposed layer takes back
        f = case.on(partial(conv_general_dilated, window_strides=(s, s), padding="SAME"))
        t = case.on(
            lambda y, w, s=s: conv_transpose(
                y, w, (s, s), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"), transpose_kernel=True
            )
        )
        y = case.draw(1, 2, 5, 4)
        total = [max((n - 1) * s + 3 - n * s, 0) for n in (5, 4)]
        pads = [(a // 2, a - a // 2) for a in total]
        back = np.zeros_like(x)
        for o0, o1, k0, k1 in np.ndindex(5, 4, 3, 3):
            i0, i1 = s * o0 + k0 - pads[0][0], s * o1 + k1 - pads[1][0]
            if 0 <= i0 < x.shape[2] and 0 <= i1 < x.shape[3]:
                back[0, :, i0, i1] += y[0, :, o0, o1] @ w[:, :, k0, k1]
        routes = [lambda x, w, y, t=t: t(y, w), lambda x, w, y, f=f: jax.grad(lambda x: (f(x, w) * y).sum())(x)]
        yield Claim(f"stride {s}", (x, w, y), routes, back)


@adjoint(
    "stride against input dilation",
    "the gradient of a layer of stride S is a layer of input dilation S with the kernel flipped",
    r"S \leftrightarrow L, \quad D \to -D, \quad p \to -p",
    "Dumoulin and Visin, ch. 4",
    Domain(("real",), strides=(1, 2, 3)),
)
def stride_dilation(case: Case):
    for s in case.turn(case.domain.strides):
        n, m, p = 11, 3, 1
        x, h = case.draw(1, 1, n), case.draw(1, 1, m)
        f = case.on(partial(conv_general_dilated, window_strides=(s,), padding=[(p, p)]))
        o = (n + 2 * p - m) // s + 1
        y = case.draw(1, 1, o)
        long = s * (o - 1) + 1
        pads = (m - 1 - p, n + p - long)
        g = case.on(
            partial(conv_general_dilated, window_strides=(1,), padding=[pads], lhs_dilation=(s,), flip_kernel=True)
        )
        T = matrices.matrix(h[0, 0], [matrices.relation(n, m, o, p, S=s)])
        routes = [lambda x, h, y, g=g: g(y, h), lambda x, h, y, f=f: jax.grad(lambda x: (f(x, h) * y).sum())(x)]
        yield Claim(f"stride {s}", (x, h, y), routes, (T.T @ y[0, 0])[None, None])


@adjoint(
    "Hessian of a quadratic form",
    "∇² ½‖x * h‖² is the Toeplitz matrix of h ⋆ h",
    r"\nabla^2 \tfrac12 \|x * h\|^2 = T_h^T T_h, \quad (T_h^T T_h)_{ij} = (h \star h)[j - i]",
    "Hansen, Nagy and O'Leary, Deblurring Images, ch. 4",
    Domain(("real",), modes=("full",)),
)
def quadratic(case: Case):
    x, h = case.draw(8), case.draw(3)
    c, k = case.on(convolve), case.on(correlate)
    T = matrices.convolution(h, x.shape)
    lags = np.subtract.outer(np.arange(8), np.arange(8)) + 2

    def toeplitz(x, h):
        a = k(h, h)
        return jnp.stack([jnp.flip(jnp.pad(a, (7, 7)))[7 - i + 2 : 15 - i + 2] for i in range(8)])

    routes = [jax.hessian(lambda x, h: 0.5 * (c(x, h) ** 2).sum()), toeplitz]
    by_lag = np.where((lags >= 0) & (lags < 5), sums.correlate(h, h)[np.clip(lags, 0, 4)], 0)
    yield Claim("∇² ½‖x * h‖²", (x, h), routes, by_lag, [T.T @ T])


@adjoint(
    "no curvature in one argument",
    "∂²⟨r, x ⋆ h⟩/∂x² = 0 = ∂²⟨r, x ⋆ h⟩/∂h²",
    r"\partial_x^2 \langle r, x \star h \rangle = 0 = \partial_h^2 \langle r, x \star h \rangle",
    THEOREM,
    REAL,
    Witness(
        "∂²⟨r, x ⋆ x⟩/∂x² = 0",
        lambda: (jax.hessian(lambda x: (np.ones(3) * correlate(x, x)).sum())(np.ones(2)), np.zeros((2, 2))),
    ),
)
def no_curvature(case: Case):
    x, h = case.draw(*[min(n, 9) for n in case.shape]), case.draw(*[min(m, 4) for m in case.kernel_shape])
    for mode in case.turn(case.domain.modes):
        _, A, _, literal = both(case, mode)[1]
        r = case.draw(*literal(x, h, mode).shape)
        dx, dh = case.draw(*x.shape), case.draw(*h.shape)

        def along(x, h, r, d, which, A=A):
            grad = jax.grad(lambda x, h: (r * A(x, h)).sum(), which)
            return jax.jvp(lambda v: grad(v, h) if which == 0 else grad(x, v), ((x, h)[which],), (d,))[1]

        yield Claim(f"∂²/∂x², {mode}", (x, h, r, dx), [partial(along, which=0)], np.zeros_like(x))
        yield Claim(f"∂²/∂h², {mode}", (x, h, r, dh), [partial(along, which=1)], np.zeros_like(h))


@adjoint(
    "mixed second derivative",
    "∂²⟨r, x ⋆ h⟩/∂x∂h along u is r * u; of ⟨r, x * h⟩ it is r ⋆ u",
    r"\partial_x \partial_h \langle r, x \star h \rangle\,[u] = r * u",
    THEOREM,
    Domain(("real",), modes=("valid", "full")),
)
def mixed(case: Case):
    x, h = case.pair()
    for mode in case.turn(case.domain.modes):
        for (name, A, M, literal), back in zip(both(case, mode), (sums.correlate, sums.convolve), strict=True):
            r, u = case.draw(*literal(x, h, mode).shape), case.draw(*h.shape)

            def found(x, h, r, u, A=A):
                return jax.jvp(lambda h: jax.grad(lambda x: (r * A(x, h)).sum())(x), (h,), (u,))[1]

            def reverse(x, h, r, u, A=A):
                return jax.grad(lambda x: (jax.grad(lambda h: (r * A(x, h)).sum())(h) * u).sum())(x)

            T = M(u, x.shape, mode)
            y = back(r, u)
            if mode == "full":
                y = y[tuple(slice(m - 1, m - 1 + n) for n, m in zip(x.shape, h.shape, strict=True))]
            routes = [found, reverse]
            yield Claim(f"∂²/∂x∂h, {name} {mode}", (x, h, r, u), routes, y, [(T.T @ r.ravel()).reshape(x.shape)])


@adjoint(
    "per-example gradients",
    "the gradients of a batch's examples add up to the batch's gradient",
    r"\sum_n \partial_w \langle r_n, x_n \star w \rangle = \partial_w \sum_n \langle r_n, x_n \star w \rangle",
    "Goodfellow, Efficient Per-Example Gradient Computations (2015)",
    Domain(("real",), strides=(1, 2, 3)),
)
def per_example(case: Case):
    for name in case.turn(LAYERS):
        f, literal, groups = layer(case, name)
        x, w = layer_arrays(case, groups)
        r = case.draw(*literal(x, w).shape)
        each = jax.vmap(jax.grad(lambda w, x, r, f=f: (r * f(x[None], w)[0]).sum()), (None, 0, 0))
        whole = jax.grad(lambda w, x, r, f=f: (r * f(x, w)).sum())
        # The literal gradient of each example: T is linear in w, so its values at unit kernels are it.
        single = np.zeros((len(x), *w.shape), w.dtype)
        for at in np.ndindex(w.shape):
            one = np.zeros_like(w)
            one[at] = 1
            single[(slice(None), *at)] = (literal(x, one) * r).sum((1, 2, 3))
        yield Claim(f"each, {name}", (w, x, r), [each], single)
        yield Claim(f"sum, {name}", (w, x, r), [whole, lambda w, x, r, each=each: each(w, x, r).sum(0)], single.sum(0))


@adjoint(
    "gradients through boundaries",
    "the gradient in a bounded input gathers what its border lent out",
    r"\partial \langle r, A_b x \rangle / \partial x = A_b^T r",
    "Hansen, Nagy and O'Leary, Deblurring Images, ch. 3-4",
    Domain(("real",), boundaries=BOUNDARIES),
    Witness(
        "∂⟨r, x ⋆ h⟩/∂x = r * h in mode 'same' with 'reflect'",
        lambda: (
            jax.grad(lambda x: (x0 * correlate(x, np.ones(3), "same", boundary="reflect")).sum())(x0),
            convolve(x0, np.ones(3), "same"),
        ),
    ),
)
def through_boundaries(case: Case):
    x, h = case.draw(*[min(n, 7) for n in case.shape]), case.draw(*[min(m, 9) for m in case.kernel_shape])
    for place, boundary in enumerate(case.domain.boundaries):
        flip = bool((place + case.size) % 2)
        op, sign = (convolve, "*") if flip else (correlate, "⋆")
        A = case.on(lambda x, h, op=op, b=boundary: op(x, h, "same", boundary=b))
        r = case.draw(*x.shape)
        T = matrices.bounded(h, x.shape, boundary, flip)
        columns = [sums.bounded_by(x, e.reshape(h.shape), boundary, flip) for e in np.eye(h.size, dtype=h.dtype)]
        right = sums.bounded_by(x, h, boundary, flip)
        yield Claim(f"x {sign} h, {boundary}", (x, h), [A], right, [(T @ x.ravel()).reshape(x.shape)])
        found = jax.grad(lambda x, h, r, A=A: (r * A(x, h)).sum(), (0, 1))
        back = (T.T @ r.ravel()).reshape(x.shape)
        yield Claim(f"∂/∂x {sign}, {boundary}", (x, h, r), [lambda x, h, r, g=found: g(x, h, r)[0]], back)
        in_kernel = np.reshape([(r * column).sum() for column in columns], h.shape)
        yield Claim(f"∂/∂h {sign}, {boundary}", (x, h, r), [lambda x, h, r, g=found: g(x, h, r)[1]], in_kernel)


@adjoint(
    "the matrix and its transpose",
    "the Jacobian is the Toeplitz matrix, and reverse mode its transpose",
    r"J = T, \quad \mathrm{vjp}(r) = T^T r",
    "Gray, Toeplitz and Circulant Matrices",
    REAL,
)
def transpose(case: Case):
    x, h = case.draw(*[min(n, 12) for n in case.shape]), case.draw(*[min(m, 5) for m in case.kernel_shape])
    for mode in case.turn(case.domain.modes):
        for name, A, M, _ in both(case, mode):
            T = M(h, x.shape, mode)

            def rows(x, h, A=A):
                return jax.jacrev(lambda x: A(x, h).ravel())(x).reshape(-1, x.size)

            def columns(x, h, A=A):
                return jax.jacfwd(lambda x: A(x, h).ravel())(x).reshape(-1, x.size)

            yield Claim(f"J, {name} {mode}", (x, h), [rows, columns], T)


@adjoint(
    "Leibniz's rule",
    "d(f * g) = df * g + f * dg",
    r"d(f * g) = df * g + f * dg",
    "Spivak, Calculus on Manifolds, 2-12",
    Domain(INEXACT, modes=MODES),
)
def leibniz(case: Case):
    f, g = case.pair()
    df, dg = case.draw(*f.shape), case.draw(*g.shape)
    for mode in case.turn(case.domain.modes):
        _, A, _, literal = both(case, mode)[0]
        routes = [
            lambda f, g, df, dg, A=A: jax.jvp(A, (f, g), (df, dg))[1],
            lambda f, g, df, dg, A=A: A(df, g) + A(f, dg),
        ]
        yield Claim(f"d(f * g), {mode}", (f, g, df, dg), routes, literal(df, g, mode) + literal(f, dg, mode))


@adjoint(
    "vmap is a map",
    "vmap(A)(x₁, x₂, ...) = (A x₁, A x₂, ...)",
    r"\mathrm{vmap}(A)(x)_n = A(x_n)",
    "JAX: jax.vmap",
    Domain(modes=("full", "valid"), note="over the input, the kernel, both"),
)
def mapped(case: Case):
    x, h = (
        np.stack([case.draw(*case.shape) for _ in range(3)]),
        np.stack([case.draw(*case.kernel_shape) for _ in range(3)]),
    )
    for mode in case.turn(case.domain.modes):
        for name, A, _, literal in both(case, mode):
            inputs = np.stack([literal(a, h[0], mode) for a in x])
            kernels = np.stack([literal(x[0], b, mode) for b in h])
            pairs = np.stack([literal(a, b, mode) for a, b in zip(x, h, strict=True)])
            yield Claim(f"inputs, {name} {mode}", (x, h), [lambda x, h, A=A: jax.vmap(A, (0, None))(x, h[0])], inputs)
            yield Claim(f"kernels, {name} {mode}", (x, h), [lambda x, h, A=A: jax.vmap(A, (None, 0))(x[0], h)], kernels)
            yield Claim(f"pairs, {name} {mode}", (x, h), [lambda x, h, A=A: jax.vmap(A)(x, h)], pairs)


@adjoint(
    "adjoint of a product",
    "(A B)ᴴ = Bᴴ Aᴴ",
    r"(A B)^H = B^H A^H",
    "Horn and Johnson, Matrix Analysis, 0.2",
    Domain(INEXACT, modes=("valid",)),
)
def adjoint_of_product(case: Case):
    x, a, b = case.draw(14), case.draw(3), case.draw(4)
    k = case.on(lambda x, h: correlate(x, h, "valid"))
    A, B = matrices.correlation(a, [11], "valid"), matrices.correlation(b, [14], "valid")
    y = case.draw(9)
    routes = [
        lambda x, a, b, y: adjoint_of(lambda x: k(k(x, b), a), x)(y),
        lambda x, a, b, y: adjoint_of(lambda x: k(x, b), x)(adjoint_of(lambda x: k(x, a), x[:11])(y)),
    ]
    yield Claim("(A B)ᴴ y", (x, a, b, y), routes, B.conj().T @ (A.conj().T @ y), [(A @ B).conj().T @ y])
