"""The rows of the bench: what is computed, by jaxconv and by every peer that can.

A row is made of a function of NumPy arrays, the true answer in float64 for it to be judged
by, and the same work as a call of each library. Shapes are those of ordinary use: signals,
images, volumes, the layers of networks in all three passes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod

import cv2
import jax
import jax.numpy as jnp
import jax.scipy.signal as jsp
import numpy as np
import scipy.ndimage as ndimage
import scipy.signal as scipy_signal
import skimage.feature
import skimage.filters
import torch
import torch.nn.functional as F

import jaxconv

GPU = torch.cuda.is_available()
torch.backends.cudnn.benchmark = True
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX by default
PASSES = ("forward", "input gradient", "kernel gradient")


@dataclass(frozen=True)
class Row:
    """One measurement: the same answer from every library.

    name: unique; `--rows` selects by it.
    kind: rows of one kind are averaged together.
    arrays: () -> the inputs, NumPy float32.
    jax: library -> a function of these inputs, to be jitted ("jaxconv", "jaxconv elementwise", "jax ...").
    others: library -> a function of these inputs that returns the call to be timed, its data already in place.
    truth: the inputs in float64 -> the answer.
    products: multiplications of the plain sum.
    """

    name: str
    kind: str
    arrays: Callable[[], list[np.ndarray]] = field(repr=False)
    jax: dict[str, Callable] = field(repr=False)
    others: dict[str, Callable] = field(repr=False)
    truth: Callable = field(repr=False)
    products: float

    @cached_property
    def data(self) -> list[np.ndarray]:
        return self.arrays()


def normal(*shapes: tuple[int, ...]) -> Callable[[], list[np.ndarray]]:
    def draw():
        rng = np.random.default_rng(0)
        return [rng.standard_normal(shape, np.float32) for shape in shapes]

    return draw


def ours(f: Callable) -> dict[str, Callable]:
    """jaxconv's two columns; f takes the accuracy as a keyword."""
    return {"jaxconv": partial(f, accuracy="normwise"), "jaxconv elementwise": partial(f, accuracy="elementwise")}


def on_torch(f: Callable) -> Callable:
    """A call of PyTorch on its own copies of the inputs."""

    def ready(*arrays):
        device = "cuda" if GPU else "cpu"
        tensors = [torch.from_numpy(a).to(device) for a in arrays]

        def call():
            y = f(*tensors)
            if GPU:
                torch.cuda.synchronize()
            return y

        return call

    return ready


def plain(f: Callable) -> Callable:
    """A call of a library on NumPy arrays."""
    return lambda *arrays: partial(f, *arrays)


# ---- signals, images and volumes: one channel, 'same'


def filtering(name: str, kind: str, extents: tuple[int, ...], kernel: tuple[int, ...]) -> Row:
    d = len(extents)

    def same(x, h, accuracy):
        return jaxconv.convolve(x, h, "same", accuracy=accuracy)

    pads = [(k // 2, (k - 1) // 2) for k in kernel]

    def lax_conv(x, h):
        return jax.lax.conv_general_dilated(x[None, None], jnp.flip(h)[None, None], (1,) * d, pads)[0, 0]

    todays = {"jax fftconvolve": lambda x, h: jsp.fftconvolve(x, h, "same"), "jax lax": lax_conv}
    if d == 1:
        todays["jax jnp"] = lambda x, h: jnp.convolve(x, h, "same")
    if d == 2:
        todays["jax convolve2d"] = lambda x, h: jsp.convolve2d(x, h, "same")
    if d == 3:
        todays["jax convolve"] = lambda x, h: jsp.convolve(x, h, "same")

    def conv_torch(x, h):
        convolution = (F.conv1d, F.conv2d, F.conv3d)[d - 1]
        x = F.pad(x, [n for pair in reversed(pads) for n in pair]) if any(a != b for a, b in pads) else x
        same = (
            [0 if a != b else a for a, b in pads]
            if any(a == b for a, b in pads) and all(a == b for a, b in pads)
            else 0
        )
        return convolution(x[None, None], h.flip(list(range(d)))[None, None], padding=same)[0, 0]

    products = prod(extents) * prod(kernel)
    others = {
        "scipy fftconvolve": plain(lambda x, h: scipy_signal.fftconvolve(x, h, "same")),
        "scipy oaconvolve": plain(lambda x, h: scipy_signal.oaconvolve(x, h, "same")),
        "torch": on_torch(conv_torch),
    }
    if products < 3e8:
        others["ndimage"] = plain(lambda x, h: ndimage.convolve(x, h, mode="constant"))
        if d == 1:
            others["scipy direct"] = plain(lambda x, h: scipy_signal.convolve(x, h, "same", "direct"))
    if d == 2:
        border = dict(ddepth=-1, borderType=cv2.BORDER_CONSTANT)
        others["cv2"] = plain(lambda x, h: cv2.filter2D(x, kernel=h[::-1, ::-1], **border))
    return Row(
        name,
        kind,
        normal(extents, kernel),
        ours(same) | todays,
        others,
        lambda x, h: scipy_signal.fftconvolve(x, h, "same"),
        products,
    )


SIGMA = 5.0
RADIUS = 20


def gaussian(n: int) -> Row:
    g = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    g = (g / g.sum()).astype(np.float32)
    known = np.outer(g, g)

    def smooth(x, accuracy):
        return jaxconv.convolve(x, known, "same", accuracy=accuracy)

    size = (2 * RADIUS + 1,) * 2
    constant = dict(sigma=SIGMA, mode="constant", truncate=RADIUS / SIGMA)
    return Row(
        f"gaussian sigma 5 {n}x{n}",
        "image",
        normal((n, n)),
        ours(smooth)
        | {
            "jax convolve2d": lambda x: jsp.convolve2d(x, known, "same"),
            "jax fftconvolve": lambda x: jsp.fftconvolve(x, known, "same"),
        },
        {
            "cv2": plain(lambda x: cv2.GaussianBlur(x, size, SIGMA, borderType=cv2.BORDER_CONSTANT)),
            "ndimage": plain(lambda x: ndimage.gaussian_filter(x, **constant)),
            "skimage": plain(lambda x: skimage.filters.gaussian(x, preserve_range=True, **constant)),
        },
        lambda x: scipy_signal.fftconvolve(x, np.outer(g, g).astype(float), "same"),
        n * n * prod(size),
    )


def normalised(correlate: Callable, x, t):
    """Zero-normalised cross-correlation, from sums over windows."""
    t = t - t.mean()
    ones = jnp.ones_like(t)
    sums, squares = correlate(x, ones), correlate(x * x, ones)
    deviation = squares - sums * sums / t.size
    return correlate(x, t) / jnp.sqrt(deviation * (t * t).sum())


def template(n: int, m: int) -> Row:
    def today(x, t):
        return normalised(lambda x, h: jsp.fftconvolve(x, jnp.flip(h), "valid"), x, t)

    def truth(x, t):
        t = t - t.mean()
        sums, squares = (scipy_signal.fftconvolve(a, np.ones(t.shape), "valid") for a in (x, x * x))
        deviation = squares - sums**2 / t.size
        return scipy_signal.fftconvolve(x, t[::-1, ::-1], "valid") / np.sqrt(deviation * (t * t).sum())

    return Row(
        f"template match {n}x{n} with {m}x{m}",
        "image",
        normal((n, n), (m, m)),
        ours(jaxconv.matching.match_template) | {"jax fftconvolve": today},
        {
            "cv2": plain(lambda x, t: cv2.matchTemplate(x, t, cv2.TM_CCOEFF_NORMED)),
            "skimage": plain(skimage.feature.match_template),
        },
        truth,
        (n - m + 1) ** 2 * m * m,
    )


# ---- layers of networks


@dataclass(frozen=True)
class Layer:
    """A layer in NHWC, HWIO; channels C -> O, one kernel extent, stride and dilation for all spatial axes.

    pads: zeros at both ends of an axis; by default half of the kernel's extent.
    transposed: the adjoint of the layer with these strides and pads; its kernel stands as that layer's, flipped.
    """

    name: str
    N: int
    C: int
    size: tuple[int, ...]
    O: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    pads: int | None = None
    transposed: bool = False

    @property
    def d(self) -> int:
        return len(self.size)

    @property
    def pad(self) -> int:
        return self.dilation * (self.kernel - 1) // 2 if self.pads is None else self.pads

    @property
    def out(self) -> tuple[int, ...]:
        reach = self.dilation * (self.kernel - 1) - 2 * self.pad
        if self.transposed:
            return tuple(self.stride * (n - 1) + 1 + reach for n in self.size)
        return tuple((n - reach - 1) // self.stride + 1 for n in self.size)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        w = (self.kernel,) * self.d + (self.C // self.groups, self.O)
        return (self.N, *self.size, self.C), w, (self.N, *self.out, self.O)

    @property
    def products(self) -> int:
        x, w, dy = map(prod, self.shapes())
        return w * (x // self.C if self.transposed else dy // self.O)

    def call(self, convolution: Callable, **extra) -> Callable:
        spatial = "DHW"[3 - self.d :] if self.d > 1 else "W"
        numbers = ("N" + spatial + "C", spatial + "IO", "N" + spatial + "C")
        stride, one = (self.stride,) * self.d, (1,) * self.d
        pad = self.dilation * (self.kernel - 1) - self.pad if self.transposed else self.pad
        return partial(
            convolution,
            window_strides=one if self.transposed else stride,
            padding=[(pad, pad)] * self.d,
            lhs_dilation=stride if self.transposed else one,
            rhs_dilation=(self.dilation,) * self.d,
            dimension_numbers=numbers,
            feature_group_count=self.groups,
            **extra,
        )

    def passes(self, convolution: Callable, **extra) -> list[Callable]:
        f = self.call(convolution, **extra)
        return [
            lambda x, w, dy: f(x, w),
            lambda x, w, dy: jax.vjp(lambda x: f(x, w), x)[1](dy)[0],
            lambda x, w, dy: jax.vjp(lambda w: f(x, w), w)[1](dy)[0],
        ]

    def torch_passes(self, channels_last: bool) -> list[Callable]:
        d = self.d
        layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(d) if channels_last else None
        first, last = [0, d + 1, *range(1, d + 1)], [0, *range(2, d + 2), 1]
        spatial = [*range(d)]
        of_w = [d, d + 1, *spatial] if self.transposed else [d + 1, d, *spatial]
        back = [*range(2, d + 2), *((0, 1) if self.transposed else (1, 0))]
        settings = (self.stride,) * d, (self.pad,) * d, (self.dilation,) * d, self.transposed, (0,) * d, self.groups

        def inward(a, permutation):
            a = a.permute(permutation).contiguous()
            return a.to(memory_format=layout) if layout else a

        def flipped(w):
            return w.flip(spatial) if self.transposed else w

        def ready(which: int):
            def with_data(x, w, dy):
                device = "cuda" if GPU else "cpu"
                x, w, dy = (torch.from_numpy(a).to(device) for a in (x, w, dy))
                x, dy, w = inward(x, first), inward(dy, first), inward(flipped(w), of_w)

                def call():
                    if which == 0:
                        y = torch.convolution(x, w, None, *settings)
                    else:
                        wanted = [which == 1, which == 2, False]
                        y = torch.ops.aten.convolution_backward(dy, x, w, None, *settings, wanted)[which - 1]
                    if GPU:
                        torch.cuda.synchronize()
                    return y

                call.outward = lambda y: flipped(y.permute(back)) if which == 2 else y.permute(last)
                return call

            return with_data

        return [ready(i) for i in range(3)]

    def row(self, which: int, name: str, kind: str) -> Row:
        """A pass: 0 forward, 1 input gradient, 2 kernel gradient."""
        columns = {
            "jaxconv": self.passes(jaxconv.lax.conv_general_dilated),
            "jaxconv elementwise": self.passes(jaxconv.lax.conv_general_dilated, accuracy="elementwise"),
            "jax lax": self.passes(jax.lax.conv_general_dilated),
        }
        torches = {"torch": self.torch_passes(False)}
        if self.d > 1:
            torches["torch channels last"] = self.torch_passes(True)
        return Row(
            name,
            kind,
            normal(*self.shapes()),
            {name: f[which] for name, f in columns.items()},
            {name: f[which] for name, f in torches.items()},
            partial(self.truth, which),
            self.products,
        )

    def rows(self) -> Iterator[Row]:
        for i, which in enumerate(PASSES):
            yield self.row(i, f"{self.name} {which}", f"net {which}")

    def truth(self, which: int, x, w, dy):
        """In float64, by PyTorch."""
        call = self.torch_passes(False)[which](x, w, dy)
        return call.outward(call()).cpu().numpy()


LAYERS = [
    Layer("dense3x3", 8, 64, (56, 56), 64, 3),
    Layer("stem", 8, 3, (224, 224), 32, 3, stride=2),
    Layer("pointwise", 8, 256, (28, 28), 256, 1),
    Layer("dense7x7", 4, 32, (64, 64), 32, 7),
    Layer("dilated", 4, 64, (56, 56), 64, 3, dilation=2),
    Layer("depthwise3x3", 1, 256, (124, 124), 256, 3, groups=256),
    Layer("depthwise7x7", 4, 96, (56, 56), 96, 7, groups=96),
    Layer("grouped", 8, 64, (56, 56), 64, 3, groups=8),
    Layer("1d dense", 8, 128, (1024,), 128, 5),
    Layer("1d depthwise", 8, 512, (1024,), 512, 5, groups=512),
    Layer("1d long", 4, 64, (1024,), 64, 1023, groups=64),
    Layer("3d dense", 1, 16, (32, 32, 32), 16, 3),
    Layer("digits", 128, 32, (8, 8), 32, 3),
]


def per_example(batch: int, size: int, c: int, o: int, kernel: int, kind: str = "per-example") -> Row:
    """The kernel gradient of every image by itself, by vmap of grad."""

    def gradients(convolution):
        def one(x, w, dy):
            f = partial(convolution, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            return jax.grad(lambda w: (f(x[None], w)[0] * dy).sum())(w)

        return jax.vmap(one, (0, None, 0))

    # In PyTorch (and for the truth) images are groups of one image.
    def ready(x, w, dy):
        x, dy = (torch.from_numpy(a).permute(0, 3, 1, 2).reshape(1, -1, size, size).contiguous() for a in (x, dy))
        weight = torch.zeros(batch * o, c, kernel, kernel, dtype=x.dtype)
        if GPU:
            x, dy, weight = x.cuda(), dy.cuda(), weight.cuda()
        settings = ((1, 1), (kernel // 2,) * 2, (1, 1), False, (0, 0), batch, [False, True, False])

        def call():
            y = torch.ops.aten.convolution_backward(dy, x, weight, None, *settings)[1]
            if GPU:
                torch.cuda.synchronize()
            return y

        call.outward = lambda y: y.reshape(batch, o, c, kernel, kernel).permute(0, 3, 4, 2, 1)
        return call

    def truth(*arrays):
        call = ready(*arrays)
        return call.outward(call()).cpu().numpy()

    return Row(
        f"per-example kernel gradients {batch}x{size}x{size}x{c}-{o} k{kernel}",
        kind,
        normal((batch, size, size, c), (kernel, kernel, c, o), (batch, size, size, o)),
        ours(lambda *a, accuracy: gradients(partial(jaxconv.lax.conv_general_dilated, accuracy=accuracy))(*a))
        | {"jax lax": gradients(jax.lax.conv_general_dilated)},
        {"torch": ready},
        truth,
        batch * size * size * kernel**2 * c * o,
    )


def transposed(size: int, c: int, o: int) -> Row:
    """The kernel gradient of a transposed 3-D layer of stride 2 (jax-ml/jax issue 31662)."""
    numbers = ("NDHWC", "DHWIO", "NDHWC")

    def gradient(convolution):
        def f(x, w, dy):
            layer = partial(convolution, strides=(2, 2, 2), padding="SAME", dimension_numbers=numbers)
            return jax.vjp(lambda w: layer(x, w), w)[1](dy)[0]

        return f

    def ready(x, w, dy):
        x, dy = (torch.from_numpy(a).permute(0, 4, 1, 2, 3).contiguous() for a in (x, dy))
        weight = torch.zeros(c, o, 3, 3, 3, dtype=x.dtype)
        if GPU:
            x, dy, weight = x.cuda(), dy.cuda(), weight.cuda()
        settings = ((2,) * 3, (0,) * 3, (1,) * 3, True, (0,) * 3, 1, [False, True, False])
        dy = F.pad(dy, (0, 1) * 3)  # SAME keeps 2n of the 2n + 1 outputs

        def call():
            y = torch.ops.aten.convolution_backward(dy, x, weight, None, *settings)[1]
            if GPU:
                torch.cuda.synchronize()
            return y

        call.outward = lambda y: y.permute(2, 3, 4, 0, 1).flip(0, 1, 2)
        return call

    def truth(*arrays):
        call = ready(*arrays)
        return call.outward(call()).cpu().numpy()

    return Row(
        f"transposed 3d stride 2 {size}^3 {c}-{o} kernel gradient",
        "net kernel gradient",
        normal((1, size, size, size, c), (3, 3, 3, c, o), (1, 2 * size, 2 * size, 2 * size, o)),
        {
            "jaxconv": gradient(jaxconv.lax.conv_transpose),
            "jaxconv elementwise": gradient(partial(jaxconv.lax.conv_transpose, accuracy="elementwise")),
            "jax lax": gradient(jax.lax.conv_transpose),
        },
        {"torch": ready},
        truth,
        size**3 * 27 * c * o,
    )


STEPS = 8


def looped(c: int, positions: int) -> Row:
    """A 1-wide convolution inside fori_loop (jax-ml/jax issue 12868)."""

    def loop(convolution):
        def f(x, w):
            return jax.lax.fori_loop(0, STEPS, lambda _, y: convolution(y, w, (1,), "SAME"), x)

        return f

    def loop_torch(x, w):
        for _ in range(STEPS):
            x = F.conv1d(x, w)
        return x

    def arrays():
        x, w = normal((1, c, positions), (c, c, 1))()
        return [x, w / np.float32(np.sqrt(c))]

    def truth(x, w):
        for _ in range(STEPS):
            x = np.einsum("nci,mc->nmi", x, w[..., 0])
        return x

    return Row(
        f"convolution in fori_loop, {c}-{c} over {positions}, {STEPS} times",
        "net forward",
        arrays,
        ours(lambda *a, accuracy: loop(partial(jaxconv.lax.conv_general_dilated, accuracy=accuracy))(*a))
        | {"jax lax": loop(jax.lax.conv_general_dilated)},
        {"torch": on_torch(loop_torch)},
        truth,
        STEPS * c * c * positions,
    )


def rows() -> list[Row]:
    signals = [(1000, 31), (100_000, 31), (100_000, 1001), (1_000_000, 101), (1_000_000, 10_001)]
    images = [(256, 3), (1024, 3), (1024, 7), (1024, 15), (1024, 31), (1024, 63), (2048, 7)]
    return [
        *(filtering(f"signal {n}*{m}", "signal", (n,), (m,)) for n, m in signals),
        *(filtering(f"image {n}x{n}*{m}x{m}", "image", (n, n), (m, m)) for n, m in images),
        gaussian(1024),
        filtering("volume 96^3*5^3", "image", (96,) * 3, (5,) * 3),
        template(1024, 64),
        *(row for layer in LAYERS for row in layer.rows()),
        per_example(64, 16, 16, 32, 3, "net kernel gradient"),
        transposed(16, 32, 16),
        looped(500, 512),
    ]
