"""Networks: layers as cases of one form, and the two ways to write a CNN."""

from functools import partial

import jax
import numpy as np
from jax import numpy as jnp

from jaxconv.identities import matrices, sums
from jaxconv.identities.base import Case, Claim, Domain, Theme, Witness
from jaxconv.lax import conv_general_dilated
from jaxconv.signal import correlate

network = Theme("network")
GOODFELLOW = "Goodfellow, Bengio and Courville, Deep Learning, ch. 9"
REAL = Domain(("real",))
ANY = Domain(("integer", "real"))
ZERO = ((0, 0), (0, 0))


def layer(case: Case, **how):
    how = dict(window_strides=(1, 1), padding="VALID") | how
    return case.on(partial(conv_general_dilated, **how))


def dense(x, w, strides=(1, 1), pads=ZERO, L=(1, 1), D=(1, 1), groups=1):
    return matrices.layer(x, w, strides, pads, L, D, groups)


def literal(x, w, strides=(1, 1), pads=ZERO, L=(1, 1), D=(1, 1), groups=1):
    return sums.layer(x, w, strides, pads, L, D, groups)


def turned(w):
    """A kernel turned by 180 degrees."""
    return w[:, :, ::-1, ::-1]


def two_layers(f):
    return lambda x, a, b: f(jnp.maximum(f(x, a), 0), b)


@network(
    "correlation and convolution form",
    "a CNN of correlations is a CNN of convolutions with the kernels flipped",
    r"N_\star(x; w) = N_*(x; R w)",
    GOODFELLOW,
    ANY,
    Witness(
        "without the flip",
        lambda: (
            np.asarray(conv_general_dilated(np.arange(4.0).reshape(1, 1, 4), np.array([[[1.0, 2]]]), (1,), "VALID")),
            np.asarray(
                conv_general_dilated(
                    np.arange(4.0).reshape(1, 1, 4), np.array([[[1.0, 2]]]), (1,), "VALID", flip_kernel=True
                )
            ),
        ),
    ),
)
def forms(case: Case):
    x, a, b = case.draw(2, 2, 8, 7), case.draw(3, 2, 3, 2), case.draw(2, 3, 2, 3)
    correlation, convolution = two_layers(layer(case)), two_layers(layer(case, flip_kernel=True))
    y = literal(np.maximum(literal(x, a), 0), b)
    yield Claim("two layers", (x, a, b), [correlation, lambda x, a, b: convolution(x, turned(a), turned(b))], y)


@network(
    "flipped checkpoints",
    "the gradient of the flipped network is the flipped gradient, so training commutes with the flip",
    r"\nabla_{R w} N_* = R\, \nabla_w N_\star",
    GOODFELLOW,
    REAL,
)
def checkpoints(case: Case):
    x, a, b = case.draw(1, 2, 6, 5, largest=2), case.draw(2, 2, 3, 2, largest=2), case.draw(2, 2, 2, 3, largest=1)
    y = literal(literal(x, a), b)
    r = case.draw(*y.shape, largest=1)

    def gradient(f):
        return jax.grad(lambda a, b, x, r: (r * f(f(x, a), b)).sum(), (0, 1))

    stars = gradient(layer(case)), gradient(layer(case, flip_kernel=True))
    da, db = np.zeros_like(a), np.zeros_like(b)
    for w, dw, run in (
        (a, da, lambda one: literal(literal(x, one), b)),
        (b, db, lambda one: literal(literal(x, a), one)),
    ):
        for at in np.ndindex(w.shape):
            one = np.zeros_like(w)
            one[at] = 1
            dw[at] = (run(one) * r).sum()
    for which, right in ((0, da), (1, db)):
        routes = [
            lambda a, b, x, r, w=which: stars[0](a, b, x, r)[w],
            lambda a, b, x, r, w=which: turned(stars[1](turned(a), turned(b), x, r)[w]),
        ]
        yield Claim(f"∇ layer {which + 1}", (a, b, x, r), routes, right)


@network("batch", "a batch is each example by itself", r"y_n = x_n \star w", GOODFELLOW, Domain())
def batch(case: Case):
    x, w = case.draw(3, 2, 6, 5), case.draw(2, 2, 3, 2)
    f = layer(case)
    routes = [
        f,
        lambda x, w: jnp.concatenate([f(a[None], w) for a in x]),
        lambda x, w: jax.vmap(lambda a: f(a[None], w)[0])(x),
    ]
    yield Claim("y", (x, w), routes, literal(x, w), [dense(x, w)])
    ws = np.stack([w, case.draw(*w.shape)])
    ensemble = np.stack([literal(x, one) for one in ws])
    yield Claim("an ensemble of kernels", (x, ws), [jax.vmap(f, (None, 0))], ensemble)


@network(
    "many channels",
    "layers of many features, and their gradients in the kernel",
    r"\partial_{w_{mc}} \langle r, y \rangle = \sum_n x_{nc} \star r_{nm}",
    GOODFELLOW,
    Domain(("real",), strides=(1, 2), note="channels last; dense and depthwise"),
)
def wide(case: Case):
    for c, m, groups, s in ((20, 24, 1, 2), (40, 40, 40, 1)):
        x, w = case.draw(2, 7, 6, c), case.draw(3, 2, c // groups, m)
        f = layer(case, window_strides=(s, s), feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y = literal(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), (s, s), groups=groups).transpose(0, 2, 3, 1)
        r = case.draw(*y.shape, largest=1)
        dw = np.zeros_like(w)
        for i, j in np.ndindex(3, 2):  # the windows that meet kernel position (i, j)
            v = x[:, i : i + s * (y.shape[1] - 1) + 1 : s, j : j + s * (y.shape[2] - 1) + 1 : s]
            dw[i, j] = np.einsum("nhwc,nhwc->c", v, r) if groups > 1 else np.einsum("nhwc,nhwm->cm", v, r)
        what = "depthwise" if groups > 1 else "dense"
        yield Claim(f"{what}, S = {s}", (x, w), [f], y)
        found = jax.grad(lambda w, x, r, f=f: (r * f(x, w)).sum())
        yield Claim(f"∂/∂w, {what}, S = {s}", (w, x, r), [found], dw)


@network(
    "zeros in the kernel",
    "a dilated layer is a layer with zeros in its kernel",
    r"x \star_D w = x \star (\uparrow_D w)",
    "Holschneider et al. (1989): à trous; Yu and Koltun (2016)",
    Domain(note="dilations 2 and 3, 24 channels"),
)
def dilated(case: Case):
    x, w = case.draw(1, 24, 9, 8), case.draw(3, 24, 3, 2)
    f, g = layer(case, rhs_dilation=(2, 3)), layer(case)
    long = np.zeros((3, 24, 5, 4), w.dtype)
    long[:, :, ::2, ::3] = w
    zeros = ((0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 2))
    routes = [f, lambda x, w: g(x, jax.lax.pad(w, jnp.zeros((), w.dtype), zeros))]
    yield Claim("y", (x, w), routes, literal(x, w, D=(2, 3)), [literal(x, long)])


@network(
    "channels", "a layer sums the correlations of its channels", r"y_m = \sum_c x_c \star w_{mc}", GOODFELLOW, Domain()
)
def channels(case: Case):
    x, w = case.draw(1, 3, 6, 5), case.draw(2, 3, 3, 2)
    f = layer(case)
    y = sum(literal(x[:, c : c + 1], w[:, c : c + 1]) for c in range(3))
    yield Claim("y", (x, w), [f, lambda x, w: sum(f(x[:, c : c + 1], w[:, c : c + 1]) for c in range(3))], y)


@network(
    "groups",
    "a grouped layer is a layer with a block-diagonal kernel",
    r"W = \mathrm{diag}(W_1, \dots, W_g)",
    "Krizhevsky, Sutskever and Hinton (2012)",
    Domain(),
)
def groups(case: Case):
    x, w = case.draw(2, 4, 6, 5), case.draw(6, 2, 3, 2)
    f, g = layer(case), layer(case, feature_group_count=2)

    def blocks(w, xp):
        zero = xp.zeros_like(w[:3])
        return xp.concatenate([xp.concatenate([w[:3], zero], 1), xp.concatenate([zero, w[3:]], 1)])

    y = np.concatenate([literal(x[:, :2], w[:3]), literal(x[:, 2:], w[3:])], 1)
    yield Claim("y", (x, w), [g, lambda x, w: f(x, blocks(w, jnp))], y, [literal(x, blocks(w, np))])


@network(
    "depthwise",
    "a depthwise layer correlates each channel by itself",
    r"y_c = x_c \star w_c",
    "Sifre (2014); Chollet, Xception (2017)",
    Domain(strides=(1, 2)),
)
def depthwise(case: Case):
    x, w = case.draw(2, 3, 7, 6), case.draw(6, 1, 3, 2)
    for s in case.turn(case.domain.strides):
        f, g = (layer(case, window_strides=(s, s), feature_group_count=n) for n in (3, 1))
        y = np.concatenate([literal(x[:, c : c + 1], w[2 * c : 2 * c + 2], (s, s)) for c in range(3)], 1)
        yield Claim(
            f"y, S = {s}",
            (x, w),
            [f, lambda x, w, g=g: jnp.concatenate([g(x[:, c : c + 1], w[2 * c : 2 * c + 2]) for c in range(3)], 1)],
            y,
        )


@network(
    "batch groups",
    "batch groups are layers side by side; and the gradient in the kernel is a layer of exchanged batch and channels",
    r"\partial_w \langle r, x \star w \rangle = x^{c \leftrightarrow n} \star r^{m \leftrightarrow n}",
    "jax.lax.conv_general_dilated: batch_group_count",
    Domain(note="gradient: real"),
)
def batch_groups(case: Case):
    x, w = case.draw(4, 2, 6, 5), case.draw(6, 2, 3, 2)
    f = layer(case, batch_group_count=2)
    y = np.concatenate([literal(x[:2], w[:3]), literal(x[2:], w[3:])], 1)
    yield Claim("batch_group_count = 2", (x, w), [f], y)
    if not jnp.issubdtype(case.dtype, jnp.floating):
        return
    g, exchanged = layer(case), (1, 0, 2, 3)
    r = case.draw(*literal(x, w).shape, largest=1)
    routes = [
        lambda w, x, r: jax.grad(lambda w: (r * g(x, w)).sum())(w),
        lambda w, x, r: g(x.transpose(exchanged), r.transpose(exchanged)).transpose(exchanged),
    ]
    dw = np.zeros_like(w)
    for i, j in np.ndindex(3, 2):
        dw[:, :, i, j] = np.einsum("ncij,nmij->mc", x[:, :, i : i + r.shape[2], j : j + r.shape[3]], r)
    yield Claim("∂/∂w", (w, x, r), routes, dw)


@network(
    "pointwise",
    "a 1x1 layer is a matrix product",
    r"y_{mo} = \sum_c w_{mc} x_{co}",
    "Lin, Chen and Yan, Network in Network (2014)",
    Domain(),
)
def pointwise(case: Case):
    x, w = case.draw(2, 3, 4, 5), case.draw(4, 3, 1, 1)
    y = np.einsum("mc,ncij->nmij", w[:, :, 0, 0], x)
    yield Claim(
        "y", (x, w), [layer(case), lambda x, w: jnp.einsum("mc,ncij->nmij", w[:, :, 0, 0], x)], y, [literal(x, w)]
    )


@network(
    "layouts",
    "the order of the axes changes no value",
    r"y^{NHWC}_{nom} = y^{NCHW}_{nmo}",
    "jax.lax: dimension_numbers",
    Domain(),
)
def layouts(case: Case):
    x, w = case.draw(2, 4, 6, 5), case.draw(4, 2, 3, 2)
    y = literal(x, w, groups=2)
    for names, (a, b, c) in {
        ("NCHW", "OIHW", "NCHW"): ((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3)),
        ("NHWC", "HWIO", "NHWC"): ((0, 2, 3, 1), (2, 3, 1, 0), (0, 2, 3, 1)),
        ("HWNC", "IOHW", "CNHW"): ((2, 3, 0, 1), (1, 0, 2, 3), (1, 0, 2, 3)),
    }.items():
        f = layer(case, feature_group_count=2, dimension_numbers=names)
        yield Claim(" ".join(names), (x.transpose(a), w.transpose(b)), [f], y.transpose(c))


@network(
    "stacked linear layers",
    "two linear layers are one, with the convolved kernels",
    r"(x \star a) \star b = x \star (a * b)",
    GOODFELLOW,
    Domain(("integer", "real"), note="valid"),
    Witness(
        "with a ReLU between",
        lambda: (
            correlate(np.maximum(correlate(np.array([1, 2]), np.array([-1]), "valid"), 0), np.array([1, 1]), "valid"),
            correlate(np.array([1, 2]), np.array([-1, -1]), "valid"),
        ),
    ),
)
def stacked(case: Case):
    x, a, b = case.draw(1, 2, 8, 7), case.draw(3, 2, 3, 2), case.draw(2, 3, 2, 3)
    f, full = layer(case), layer(case, padding=((1, 1), (2, 2)), flip_kernel=True)

    def merged(x, a, b):  # sum over the middle channel of a * b, each a full convolution
        kernel = full(a.transpose(1, 0, 2, 3), b).transpose(1, 0, 2, 3)
        return f(x, kernel)

    yield Claim("y", (x, a, b), [lambda x, a, b: f(f(x, a), b), merged], literal(literal(x, a), b))


@network(
    "average pooling",
    "a mean of windows is a depthwise layer with a box",
    r"M^2 \cdot \mathrm{pool}(x) = x \star_M 1",
    GOODFELLOW,
    ANY,
)
def pooling(case: Case):
    x, w = case.draw(2, 3, 6, 8), np.ones((3, 1, 2, 2), case.exact)
    f = layer(case, window_strides=(2, 2), feature_group_count=3)
    y = x.reshape(2, 3, 3, 2, 4, 2).sum((3, 5))
    yield Claim("4 pool(x)", (x, w), [f, lambda x, w: x.reshape(2, 3, 3, 2, 4, 2).sum((3, 5))], y)


@network(
    "residual layers",
    "x + x ⋆ h = x ⋆ (δ + h)",
    r"x + x \star h = x \star (\delta + h)",
    "He et al., Deep Residual Learning (2016)",
    Domain(note="padding SAME, odd kernels"),
)
def residual(case: Case):
    x, w = case.draw(2, 3, 6, 5), case.draw(3, 3, 3, 3)
    delta = np.zeros_like(w)
    delta[np.arange(3), np.arange(3), 1, 1] = 1
    f = layer(case, padding="SAME")
    y = x + literal(x, w, pads=((1, 1), (1, 1)))
    yield Claim("y", (x, w, delta), [lambda x, w, d: x + f(x, w), lambda x, w, d: f(x, d + w)], y)


@network(
    "padding by name",
    "'SAME' halves the pads, the odd zero at the end; 'SAME_LOWER' at the start",
    r"p = \lfloor P/2 \rfloor \text{ or } \lceil P/2 \rceil, \quad P = \max((\lceil I/S \rceil - 1) S + K - I, 0)",
    "jax.lax.padtype_to_pads",
    Domain(strides=(1, 2, 3)),
)
def padding_names(case: Case):
    x, w = case.draw(1, 2, 7, 8), case.draw(2, 2, 4, 3)
    for s in case.turn(case.domain.strides):
        total = [max((-(-i // s) - 1) * s + k - i, 0) for i, k in zip((7, 8), (4, 3), strict=True)]
        for name in ("SAME", "SAME_LOWER"):
            low = [t // 2 if name == "SAME" else t - t // 2 for t in total]
            pads = [(a, t - a) for a, t in zip(low, total, strict=True)]
            f, g = (layer(case, window_strides=(s, s), padding=p) for p in (name, pads))
            yield Claim(f"{name}, S = {s}", (x, w), [f, g], literal(x, w, (s, s), pads), [dense(x, w, (s, s), pads)])
