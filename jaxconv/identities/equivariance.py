"""Equivariance: what moves with the image, and where strides and boundaries break it."""

from functools import partial

import numpy as np
from jax import numpy as jnp

from jaxconv.identities import sums
from jaxconv.identities.base import BOUNDARIES, MODES, Case, Claim, Domain, Theme, Witness
from jaxconv.lax import conv_general_dilated
from jaxconv.signal import convolve, correlate, upfirdn

equivariance = Theme("equivariance")
COHEN = "Cohen and Welling, Group Equivariant Convolutional Networks (2016)"
OPPENHEIM = "Oppenheim and Schafer, Discrete-Time Signal Processing, 2.2"
PLANE = Domain(modes=MODES, note="two dimensions")
x0, ones, square = np.array([1, 2, 3, 4, 5, 6]), np.ones(3, int), np.array([[1, 2], [3, 4]])


def strided(x, s=2):
    return np.asarray(conv_general_dilated(x[None, None], np.ones((1, 1, 2), int), (s,), "VALID"))[0, 0]


def both(case: Case, mode: str, **more):
    """(sign, jaxconv's operation, its literal sum)."""
    return [
        (sign, case.on(lambda x, h, op=op: op(x, h, mode, **more)), literal)
        for sign, op, literal in (("*", convolve, sums.convolve), ("⋆", correlate, sums.correlate))
    ]


@equivariance(
    "shifts",
    "(S x) * h = S (x * h) where the kernel lies inside",
    r"(S x) * h = S (x * h)",
    OPPENHEIM,
    Domain(modes=("valid",)),
    Witness(
        "(S x) * h = S (x * h) in mode 'same', the border cut",
        lambda: (convolve(np.roll(x0, 1), ones, "same"), np.roll(convolve(x0, ones, "same"), 1)),
    ),
)
def shifts(case: Case):
    x, h = (
        case.draw(*[n + m for n, m in zip(case.shape, case.kernel_shape, strict=True)]),
        case.draw(*case.kernel_shape),
    )
    moved = tuple(slice(1, None) for _ in range(case.rank))
    for sign, op, literal in both(case, "valid"):
        y = literal(x, h, "valid")[moved]
        yield Claim(
            f"(S x) {sign} h",
            (x, h),
            [lambda x, h, op=op: op(x[moved], h), lambda x, h, op=op: op(x, h)[moved]],
            y,
            [literal(x[moved], h, "valid")],
        )


@equivariance(
    "circular shifts",
    "(R x) ⊛ h = R (x ⊛ h), everywhere",
    r"(R_s x) \circledast h = R_s (x \circledast h)",
    OPPENHEIM,
    Domain(modes=("same",), boundaries=("wrap",)),
    Witness(
        "(R x) * h = R (x * h) with 'reflect'",
        lambda: (
            convolve(np.roll(x0, 1), ones, "same", boundary="reflect"),
            np.roll(convolve(x0, ones, "same", boundary="reflect"), 1),
        ),
    ),
)
def circular_shifts(case: Case):
    x, h = case.draw(*[min(n, 9) for n in case.shape]), case.draw(*[min(m, 4) for m in case.kernel_shape])
    axes = tuple(range(case.rank))
    for flip, op in ((True, convolve), (False, correlate)):
        f = case.on(lambda x, h, op=op: op(x, h, "same", boundary="wrap"))
        y = np.roll(sums.bounded_by(x, h, "wrap", flip), 2, axes)
        yield Claim(
            "*" if flip else "⋆",
            (x, h),
            [lambda x, h, f=f: f(jnp.roll(x, 2, axes), h), lambda x, h, f=f: jnp.roll(f(x, h), 2, axes)],
            y,
        )


@equivariance(
    "strides",
    "a shift by S moves a layer of stride S by one",
    r"(S_S x) \star_S h = S_1 (x \star_S h)",
    "Zhang, Making Convolutional Networks Shift-Invariant Again (2019)",
    Domain(strides=(2, 3)),
    Witness(
        "a shift by 1 moves a layer of stride 2", lambda: (strided(x0)[1:], strided(x0[1:])[: len(strided(x0)) - 1])
    ),
)
def strides(case: Case):
    for s in case.turn(case.domain.strides):
        x, h = case.draw(1, 2, 14), case.draw(3, 2, 3)
        f = case.on(partial(conv_general_dilated, window_strides=(s,), padding="VALID"))
        y = sums.layer(x, h, (s,), ((0, 0),), (1,), (1,))[..., 1:]
        yield Claim(
            f"S = {s}", (x, h), [lambda x, h, f=f, s=s: f(x[..., s:], h), lambda x, h, f=f: f(x, h)[..., 1:]], y
        )


@equivariance(
    "flips",
    "flip(x) * flip(h) = flip(x * h)",
    r"(R x) * (R h) = R (x * h)",
    COHEN,
    Domain(modes=("full", "valid")),
    Witness(
        "flip(x) * h = flip(x * h)",
        lambda: (convolve(np.flip(x0), np.array([1, 2])), np.flip(convolve(x0, np.array([1, 2])))),
    ),
)
def flips(case: Case):
    x, h = case.pair()
    for mode in case.turn(case.domain.modes):
        for sign, op, literal in both(case, mode):
            for axis in range(case.rank):
                y = np.flip(literal(x, h, mode), axis)
                yield Claim(
                    f"{sign}, {mode}, axis {axis}",
                    (x, h),
                    [
                        lambda x, h, op=op, a=axis: op(jnp.flip(x, a), jnp.flip(h, a)),
                        lambda x, h, op=op, a=axis: jnp.flip(op(x, h), a),
                    ],
                    y,
                )


@equivariance(
    "turns",
    "turning image and kernel by 90 degrees turns the output",
    r"(\rho x) * (\rho h) = \rho (x * h)",
    COHEN,
    Domain(modes=("full", "valid"), note="two dimensions"),
    Witness(
        "turning the image alone turns the output",
        lambda: (convolve(np.rot90(square), square), np.rot90(convolve(square, square))),
    ),
)
def turns(case: Case):
    x, h = case.draw(7, 6), case.draw(3, 2)
    for mode in case.turn(case.domain.modes):
        for sign, op, literal in both(case, mode):
            for turn in case.turn((1, 2, 3)):
                y = np.rot90(literal(x, h, mode), turn)
                yield Claim(
                    f"{sign}, {mode}, {90 * turn}°",
                    (x, h),
                    [
                        lambda x, h, op=op, t=turn: op(jnp.rot90(x, t), jnp.rot90(h, t)),
                        lambda x, h, op=op, t=turn: jnp.rot90(op(x, h), t),
                    ],
                    y,
                )


@equivariance("transposition", "(xᵀ) * (hᵀ) = (x * h)ᵀ", r"x^T * h^T = (x * h)^T", COHEN, PLANE)
def transposition(case: Case):
    x, h = case.draw(7, 6), case.draw(3, 2)
    for mode in case.turn(case.domain.modes):
        for sign, op, literal in both(case, mode):
            yield Claim(
                f"{sign}, {mode}",
                (x, h),
                [lambda x, h, op=op: op(x.T, h.T), lambda x, h, op=op: op(x, h).T],
                literal(x, h, mode).T,
            )


@equivariance(
    "scaling by dilation",
    "(↑s f) * (↑s g) = ↑s (f * g)",
    r"(\uparrow_s f) * (\uparrow_s g) = \uparrow_s (f * g)",
    "Worrall and Welling, Deep Scale-Spaces (2019)",
    Domain(strides=(2, 3), note="one dimension"),
)
def scaling(case: Case):
    one = np.ones(1, case.exact)
    f, g = case.draw(min(case.N, 12)), case.draw(min(case.M, 5))
    c = case.on(convolve)
    for s in case.turn(case.domain.strides):
        up = case.on(partial(upfirdn, up=s))
        y = np.zeros(s * (len(f) + len(g) - 2) + 1, case.exact)
        y[::s] = sums.convolve(f, g)
        yield Claim(
            f"s = {s}",
            (f, g, one),
            [lambda f, g, e, up=up: c(up(e, f), up(e, g)), lambda f, g, e, up=up: up(e, c(f, g))],
            y,
        )


@equivariance(
    "flips and boundaries",
    "every boundary is its own mirror image",
    r"A_b(R x, R h) = R\, A_b(x, h)",
    "scipy.ndimage",
    Domain(modes=("same",), boundaries=BOUNDARIES, note="odd kernels"),
    Witness(
        "the same for even kernels",
        lambda: (correlate(np.flip(x0), np.array([1, 2]), "same"), np.flip(correlate(x0, np.array([2, 1]), "same"))),
    ),
)
def flipped_boundaries(case: Case):
    x, h = (
        case.draw(*[min(n, 6) for n in case.shape]),
        case.draw(*[2 * (min(m, 7) // 2) + 1 for m in case.kernel_shape]),
    )
    for boundary in case.turn(case.domain.boundaries):
        for flip, op in ((True, convolve), (False, correlate)):
            f = case.on(lambda x, h, op=op, b=boundary: op(x, h, "same", boundary=b))
            y = np.flip(sums.bounded_by(x, h, boundary, flip))
            yield Claim(
                f"{'*' if flip else '⋆'}, {boundary}",
                (x, h),
                [lambda x, h, f=f: f(jnp.flip(x), jnp.flip(h)), lambda x, h, f=f: jnp.flip(f(x, h))],
                y,
            )


@equivariance(
    "origins",
    "an origin moves the output",
    r"y^{(s)}_o = y_{o - s} \text{ (correlation)}, \; y_{o+s} \text{ (convolution)}",
    "scipy.ndimage: origin",
    Domain(modes=("same",), boundaries=("wrap",)),
)
def origins(case: Case):
    x, h = case.draw(9), case.draw(5)
    for s in (-1, 1, 2):
        for flip, op in ((True, convolve), (False, correlate)):
            f = case.on(lambda x, h, op=op, s=s: op(x, h, "same", boundary="wrap", origin=s))
            y = sums.bounded_by(x, h, "wrap", flip)
            yield Claim(f"{'*' if flip else '⋆'}, origin {s}", (x, h), [f], np.roll(y, -s if flip else s))


@equivariance(
    "lags",
    "a shift of one signal shifts the lag",
    r"((S_s x) \star y)[l] = (x \star y)[l - s]",
    "Oppenheim and Schafer, 2.9",
    Domain(note="one dimension"),
)
def lags(case: Case):
    x, y = case.draw(8), case.draw(6)
    r = sums.correlate(x, y)  # lags -5 to 7
    near, far = case.on(partial(correlate, lags=(-2, 3))), case.on(partial(correlate, lags=(0, 5)))
    yield Claim("(S₂ x) ⋆ y", (x, y), [near, lambda x, y: far(jnp.pad(x, (2, 0)), y)], r[3:9])
