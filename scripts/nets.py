"""Whole networks: jaxconv beside lax and PyTorch, a training step and a forward pass of each, in one run.

    ./scripts/nets --draw 7                # every network, about 15 minutes on two cores
    ./scripts/nets --draw 7 --nets resnet  # some

Each network is written once, over the operations of a `Jax` or a `Torch`, so that both have the same weights. The seed
draws batches, sizes and widths. Before anything is timed, outputs and gradients of all must agree. A step is forward,
backward and the update (SGD), in float32, with the statistics of the batch; the forward pass has fixed statistics.
PyTorch runs in eager mode, as usual, once contiguous and once channels last. Calls take turns over several rounds; a
figure is the 20 % quantile. First calls are from the function to its first result, with compilation; memory is what
XLA plans in all. With --alone the convolutions of each call are timed one by one, too. Nothing else should run
meanwhile. Writes nets.md and nets.json to OUT.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from math import nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
import typer
from bench import SMALLEST, WITHOUT, geometric_mean, machine, timed, without_native, write

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.jaxprs import contractions
from jaxconv.primitive import contract

Rng = np.random.Generator
Weights = dict[str, np.ndarray]
RATE = 1e-3
BLOCK = 0.2  # seconds of each turn
TOLERANCE = 2e-3  # between the libraries, of the norm: ReLUs may flip


class Ops:
    """What the networks call. Features are last in `Jax`, second in `Torch`; kernels are (spatial..., in, out).

    With an `rng` the weights are drawn, and else taken.
    """

    feature = -1

    def __init__(self, weights: dict[str, Any], rng: Rng | None = None, training: bool = True) -> None:
        self.weights, self.rng, self.training, self.scope = weights, rng, training, []

    def weight(self, name: str, shape: tuple[int, ...], scale: float | None = None) -> Any:
        key = f"{name} {len(self.scope)}"
        self.scope.append(key)
        if self.rng is not None:
            values = np.ones(shape, np.float32) if scale is None else scale * self.rng.standard_normal(shape)
            self.weights[key] = values.astype(np.float32)
        return self.weights[key]

    def channels(self, x) -> int:
        return x.shape[self.feature]

    def conv(self, x, out: int, k: int, stride: int = 1, dilation: int = 1, groups: int = 1, causal: bool = False):
        """SAME where stride and extent are odd or 1; ((K-1)//2) at both ends otherwise; all pads before if causal."""
        d, c = x.ndim - 2, self.channels(x)
        w = self.weight("conv", (k,) * d + (c // groups, out), (2.0 / (k**d * c / groups)) ** 0.5)
        reach = dilation * (k - 1)
        pads = (reach, 0) if causal else (reach // 2, reach // 2)
        return self.contract(x, w, (stride,) * d, pads, (dilation,) * d, groups)

    def depthwise(self, x, k: int, stride: int = 1, causal: bool = False):
        return self.conv(x, self.channels(x), k, stride, groups=self.channels(x), causal=causal)

    def up(self, x, out: int, k: int = 2, pad: int = 0):
        """Transposed, stride 2."""
        d, c = x.ndim - 2, self.channels(x)
        w = self.weight("up", (k,) * d + (c, out), (2.0 / (k**d * c / 2**d)) ** 0.5)
        return self.transposed(x, w, 2, pad)

    def linear(self, x, out: int):
        c = self.channels(x)
        return self.product(x, self.weight("linear", (c, out), (1.0 / c) ** 0.5))

    def norm(self, x):
        """Batch normalisation."""
        scale = self.weight("norm", (self.channels(x),))
        return self.batch_norm(x, scale)


class Jax(Ops):
    """Features last. `convolution` is lax's or jaxconv's."""

    def __init__(self, convolution: Callable, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.convolution = convolution

    relu, silu, gelu = staticmethod(jax.nn.relu), staticmethod(jax.nn.silu), staticmethod(jax.nn.gelu)
    sigmoid, tanh = staticmethod(jax.nn.sigmoid), staticmethod(jnp.tanh)

    def _numbers(self, d: int):
        spatial = "DHW"[3 - d :]
        return "N" + spatial + "C", spatial + "IO", "N" + spatial + "C"

    def contract(self, x, w, stride, pads, dilation, groups):
        d = x.ndim - 2
        return self.convolution(x, w, stride, [pads] * d, (1,) * d, dilation, self._numbers(d), groups)

    def transposed(self, x, w, stride, pad):
        d, pads = x.ndim - 2, (w.shape[0] - 1 - pad,) * 2
        return self.convolution(x, w, (1,) * d, [pads] * d, (stride,) * d, (1,) * d, self._numbers(d))

    def product(self, x, w):
        return x @ w

    def batch_norm(self, x, scale):
        if not self.training:
            return x * scale
        axes = tuple(range(x.ndim - 1))
        mean, square = x.mean(axes), (x * x).mean(axes)
        return (x - mean) * (scale * jax.lax.rsqrt(square - mean * mean + 1e-5))

    def layer_norm(self, x):
        mean = x.mean(-1, keepdims=True)
        centred = x - mean
        y = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-6)
        return y * self.weight("norm", (self.channels(x),))

    def max_pool(self, x, k: int, stride: int):
        window, strides = (1, *(k,) * (x.ndim - 2), 1), (1, *(stride,) * (x.ndim - 2), 1)
        pads = [(0, 0), *[((k - 1) // 2,) * 2] * (x.ndim - 2), (0, 0)]
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, pads)

    def mean(self, x):
        return x.mean(tuple(range(1, x.ndim - 1)))

    def concat(self, *xs):
        return jnp.concatenate(xs, -1)

    def shuffle(self, x, groups: int):
        c = x.shape[-1]
        return x.reshape(*x.shape[:-1], groups, c // groups).swapaxes(-1, -2).reshape(x.shape)

    def pixel_shuffle(self, x, r: int):
        n, h, w, c = x.shape
        x = x.reshape(n, h, w, c // r**2, r, r).transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(n, h * r, w * r, c // r**2)

    def scaled(self, x, s):
        """x times s of shape (n, features)."""
        return x * s.reshape(s.shape[0], *[1] * (x.ndim - 2), s.shape[1])

    def split(self, x):
        return jnp.split(x, 2, -1)


class Torch(Ops):
    """Features second; weights as tensors in PyTorch's order."""

    feature = 1
    relu, silu, sigmoid, tanh = staticmethod(F.relu), staticmethod(F.silu), staticmethod(torch.sigmoid), torch.tanh

    def gelu(self, x):
        return F.gelu(x, approximate="tanh")

    def contract(self, x, w, stride, pads, dilation, groups):
        if pads[0] != pads[1]:
            x, pads = F.pad(x, pads), (0, 0)
        d = x.ndim - 2
        return torch.convolution(x, w, None, stride, (pads[0],) * d, dilation, False, (0,) * d, groups)

    def transposed(self, x, w, stride, pad):
        d = x.ndim - 2
        return torch.convolution(x, w, None, (stride,) * d, (pad,) * d, (1,) * d, True, (0,) * d, 1)

    def product(self, x, w):
        return F.linear(x.movedim(1, -1), w).movedim(-1, 1)

    def batch_norm(self, x, scale):
        if not self.training:
            return x * scale.reshape(-1, *[1] * (x.ndim - 2))
        return F.batch_norm(x, None, None, scale, training=True)

    def layer_norm(self, x):
        c = self.channels(x)
        return F.layer_norm(x.movedim(1, -1), (c,), self.weight("norm", (c,)), eps=1e-6).movedim(-1, 1)

    def max_pool(self, x, k: int, stride: int):
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.ndim - 3](x, k, stride, (k - 1) // 2)

    def mean(self, x):
        return x.mean(tuple(range(2, x.ndim)))

    def concat(self, *xs):
        return torch.cat(xs, 1)

    def shuffle(self, x, groups: int):
        n, c, *spatial = x.shape
        return x.reshape(n, groups, c // groups, *spatial).transpose(1, 2).reshape(x.shape)

    def pixel_shuffle(self, x, r: int):
        return F.pixel_shuffle(x, r)

    def scaled(self, x, s):
        return x * s.reshape(*s.shape, *[1] * (x.ndim - 2))

    def split(self, x):
        return torch.chunk(x, 2, 1)


# ---- the networks


def resnet18(o: Any, x, width: int):
    x = o.max_pool(o.relu(o.norm(o.conv(x, width, 7, 2))), 3, 2)
    for stage in range(4):
        for block in range(2):
            out, stride = width * 2**stage, 2 if stage and not block else 1
            y = o.norm(o.conv(o.relu(o.norm(o.conv(x, out, 3, stride))), out, 3))
            x = o.relu(y + (o.norm(o.conv(x, out, 1, stride)) if stride > 1 else x))
    return o.linear(o.mean(x), 100)


def resnet50(o: Any, x, width: int):
    x = o.max_pool(o.relu(o.norm(o.conv(x, width, 7, 2))), 3, 2)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            inner, stride = width * 2**stage, 2 if stage and not block else 1
            y = o.relu(o.norm(o.conv(x, inner, 1)))
            y = o.norm(o.conv(o.relu(o.norm(o.conv(y, inner, 3, stride))), 4 * inner, 1))
            x = o.relu(y + (x if block else o.norm(o.conv(x, 4 * inner, 1, stride))))
    return o.linear(o.mean(x), 100)


def vgg11(o: Any, x, width: int):
    for out in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8):
        x = o.max_pool(x, 2, 2) if out == "M" else o.relu(o.norm(o.conv(x, width * int(out), 3)))
    return o.linear(o.mean(x), 100)


def mobilenet_v2(o: Any, x, width: int):
    x = o.relu(o.norm(o.conv(x, width, 3, 2)))
    for out, stride in ((1, 1), (2, 2), (2, 1), (3, 2), (3, 1), (4, 2), (4, 1)):
        y = o.relu(o.norm(o.conv(x, 6 * o.channels(x), 1)))
        y = o.norm(o.conv(o.relu(o.norm(o.depthwise(y, 3, stride))), out * width, 1))
        x = x + y if stride == 1 and o.channels(x) == out * width else y
    return o.linear(o.mean(o.relu(o.norm(o.conv(x, 16 * width, 1)))), 100)


def efficientnet(o: Any, x, width: int):
    """Inverted bottlenecks with squeeze and excitation."""
    x = o.silu(o.norm(o.conv(x, width, 3, 2)))
    for out, k, stride in ((1, 3, 1), (2, 3, 2), (2, 3, 1), (3, 5, 2), (3, 5, 1), (4, 3, 2), (4, 5, 1)):
        y = o.silu(o.norm(o.conv(x, 4 * o.channels(x), 1)))
        y = o.silu(o.norm(o.depthwise(y, k, stride)))
        gate = o.sigmoid(o.linear(o.silu(o.linear(o.mean(y), width)), o.channels(y)))
        y = o.norm(o.conv(o.scaled(y, gate), out * width, 1))
        x = x + y if stride == 1 and o.channels(x) == out * width else y
    return o.linear(o.mean(o.silu(o.conv(x, 16 * width, 1))), 100)


def convnext(o: Any, x, width: int):
    for stage in range(3):
        x = o.layer_norm(o.conv(x, width * 2**stage, 4 if stage == 0 else 2, 4 if stage == 0 else 2))
        for _ in range(2):
            c = o.channels(x)
            x = x + o.linear(o.gelu(o.linear(o.layer_norm(o.depthwise(x, 7)), 4 * c)), c)
    return o.linear(o.mean(x), 100)


def shufflenet(o: Any, x, width: int):
    """Grouped pointwise layers and shuffles."""
    x, groups = o.max_pool(o.relu(o.norm(o.conv(x, width, 3, 2))), 3, 2), 4
    for stage in range(3):
        for block in range(3):
            c, out = o.channels(x), width * 2**stage
            y = o.shuffle(o.relu(o.norm(o.conv(x, out, 1, groups=groups))), groups)
            y = o.norm(o.conv(o.norm(o.depthwise(y, 3)), out, 1, groups=groups))
            x = o.relu(x + y) if block and c == out else o.relu(y)
        x = o.max_pool(x, 3, 2)
    return o.linear(o.mean(x), 100)


def densenet(o: Any, x, width: int):
    x = o.conv(x, 2 * width, 3, 1)
    for block in range(3):
        for _ in range(4):
            y = o.conv(o.relu(o.norm(x)), 4 * width, 1)
            x = o.concat(x, o.conv(o.relu(o.norm(y)), width, 3))
        if block < 2:
            x = o.max_pool(o.conv(o.relu(o.norm(x)), o.channels(x) // 2, 1), 2, 2)
    return o.linear(o.mean(o.relu(o.norm(x))), 100)


def unet(o: Any, x, width: int):
    """Down three times and up again, for images as for volumes."""

    def twice(x, out):
        for _ in range(2):
            x = o.relu(o.norm(o.conv(x, out, 3)))
        return x

    skips = []
    for stage in range(3):
        x = twice(x, width * 2**stage)
        skips.append(x)
        x = o.max_pool(x, 2, 2)
    x = twice(x, width * 8)
    for stage in reversed(range(3)):
        x = twice(o.concat(skips[stage], o.up(x, width * 2**stage)), width * 2**stage)
    return o.conv(x, 4, 1)


def dcgan(o: Any, x, width: int):
    """The generator: from 4x4 up, four times."""
    for stage in reversed(range(3)):
        x = o.relu(o.norm(o.up(x, width * 2**stage, 4, 1)))
    return o.tanh(o.up(x, 3, 4, 1))


def wavenet(o: Any, x, width: int):
    """Gated, dilated, causal."""
    x, skip = o.conv(x, width, 2, causal=True), 0.0
    for layer in range(8):
        a, b = o.split(o.conv(x, 2 * width, 2, dilation=2 ** (layer % 8), causal=True))
        y = o.conv(o.tanh(a) * o.sigmoid(b), width, 1)
        x, skip = x + y, skip + y
    return o.conv(o.relu(skip), 64, 1)


def mamba(o: Any, x, width: int):
    """The blocks around the scan: a short causal depthwise convolution between gated products."""
    x = o.linear(x, width)
    for _ in range(4):
        a, gate = o.split(o.linear(o.layer_norm(x), 4 * width))
        x = x + o.linear(o.silu(o.depthwise(a, 4, causal=True)) * o.silu(gate), width)
    return o.linear(o.layer_norm(x), 64)


def espcn(o: Any, x, width: int):
    """Super-resolution by sub-pixels."""
    x = o.tanh(o.conv(x, 2 * width, 5))
    return o.pixel_shuffle(o.conv(o.tanh(o.conv(x, width, 3)), 27, 3), 3)


def inception(o: Any, x, width: int):
    x = o.max_pool(o.relu(o.norm(o.conv(x, 2 * width, 3, 2))), 3, 2)
    for block in range(4):
        one = o.conv(x, width, 1)
        three = o.conv(o.relu(o.conv(x, width, 1)), 2 * width, 3)
        five = o.conv(o.relu(o.conv(x, width // 2, 1)), width, 5)
        pooled = o.conv(o.max_pool(x, 3, 1), width, 1)
        x = o.relu(o.norm(o.concat(one, three, five, pooled)))
        x = o.max_pool(x, 3, 2) if block == 1 else x
    return o.linear(o.mean(x), 100)


class Net(NamedTuple):
    """A network, the features of its input, and what is drawn: extents (a multiple of the last), batches and widths."""

    build: Callable
    features: int
    dimensions: int
    extents: tuple[int, int, int]
    batches: tuple[int, int]
    widths: tuple[int, ...]


NETS = {
    "ResNet-18": Net(resnet18, 3, 2, (64, 160, 32), (1, 8), (32, 64)),
    "ResNet-50": Net(resnet50, 3, 2, (64, 128, 32), (1, 4), (32, 64)),
    "VGG-11": Net(vgg11, 3, 2, (32, 96, 16), (1, 8), (16, 32, 64)),
    "MobileNet-v2": Net(mobilenet_v2, 3, 2, (64, 192, 16), (1, 8), (16, 24, 32)),
    "EfficientNet-like": Net(efficientnet, 3, 2, (64, 192, 16), (1, 8), (16, 24, 32)),
    "ConvNeXt": Net(convnext, 3, 2, (64, 160, 16), (1, 8), (32, 64, 96)),
    "ShuffleNet": Net(shufflenet, 3, 2, (64, 192, 32), (1, 8), (48, 96)),
    "DenseNet": Net(densenet, 3, 2, (32, 64, 8), (1, 8), (12, 16, 24)),
    "U-Net": Net(unet, 1, 2, (64, 160, 16), (1, 4), (16, 24, 32)),
    "3-D U-Net": Net(unet, 1, 3, (16, 40, 8), (1, 2), (8, 12, 16)),
    "DCGAN": Net(dcgan, 128, 2, (4, 4, 4), (4, 32), (32, 48, 64)),
    "WaveNet": Net(wavenet, 1, 1, (1024, 8192, 256), (1, 8), (32, 48, 64)),
    "Mamba-like": Net(mamba, 64, 1, (256, 2048, 64), (1, 8), (128, 192, 256)),
    "ESPCN": Net(espcn, 1, 2, (32, 192, 8), (1, 8), (16, 32)),
    "Inception-like": Net(inception, 3, 2, (64, 160, 16), (1, 8), (32, 48, 64)),
}


class Drawn(NamedTuple):
    """A network with its input (features last), the sizes that were drawn, and its weights."""

    name: str
    net: Net
    input: np.ndarray
    width: int
    weights: Weights


def draw(name: str, seed: int) -> Drawn:
    net = NETS[name]
    rng = np.random.default_rng([seed, crc32(name.encode())])
    low, high, step = net.extents
    extents = [int(rng.integers(low // step, high // step + 1)) * step for _ in range(net.dimensions)]
    batch, width = round(np.exp(rng.uniform(*np.log(net.batches)))), int(rng.choice(net.widths))
    x = rng.standard_normal((batch, *extents, net.features), np.float32)
    weights: Weights = {}
    jax.eval_shape(lambda x: net.build(Jax(jax.lax.conv_general_dilated, weights, rng), x, width), x)
    return Drawn(name, net, x, width, weights)


# ---- the calls


def jax_calls(drawn: Drawn, convolution: Callable) -> dict[str, tuple[Callable, tuple]]:
    """The jitted functions, and their arguments: step(weights, x) -> (loss, weights), forward(weights, x) -> y."""

    def forward(weights, x, training=False):
        return drawn.net.build(Jax(convolution, weights, training=training), x, drawn.width)

    def step(weights, x):
        loss, gradient = jax.value_and_grad(lambda w: (forward(w, x, True) ** 2).mean())(weights)
        return loss, jax.tree.map(lambda w, g: w - RATE * g, weights, gradient)

    arguments = jax.tree.map(jnp.asarray, drawn.weights), jnp.asarray(drawn.input)
    return {"step": (jax.jit(step), arguments), "forward": (jax.jit(forward), arguments)}


def torch_calls(drawn: Drawn, last: bool) -> dict[str, Callable]:
    d = drawn.net.dimensions
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[d] if last else torch.contiguous_format
    weights = {}
    for key, w in drawn.weights.items():
        t = torch.from_numpy(w.copy())
        if key.startswith("up"):  # (in, out, spatial...), not flipped: jaxconv's and lax's is a correlation
            t = t.flip(list(range(d))).permute(d, d + 1, *range(d))
        elif key.startswith("conv"):
            t = t.permute(d + 1, d, *range(d))
        elif key.startswith("linear"):
            t = t.T
        t = t.contiguous(memory_format=layout) if last and t.ndim == d + 2 else t.contiguous()
        weights[key] = t.requires_grad_()
    x = torch.from_numpy(drawn.input).movedim(-1, 1).contiguous(memory_format=layout)

    def forward():
        with torch.inference_mode():
            return drawn.net.build(Torch(weights, training=False), x, drawn.width)

    def step():
        loss = (drawn.net.build(Torch(weights), x, drawn.width) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for w in weights.values():
                w -= RATE * w.grad
                w.grad = None
        return loss.item()

    return {"step": step, "forward": forward}


class Result(NamedTuple):
    """Of one network and call: seconds by library, first calls and planned bytes of jaxconv and lax.

    alone: the seconds of jaxconv's convolutions, each by itself, summed.
    """

    net: str
    sizes: str
    call: str
    seconds: dict[str, float]
    first: dict[str, float]
    memory: dict[str, int]
    alone: float = nan

    def ratio(self, other: str, mine: str = "jaxconv") -> float:
        return min(t for name, t in self.seconds.items() if name.startswith(other)) / self.seconds.get(mine, nan)


def planned(compiled) -> int:
    """Bytes that XLA plans in all."""
    m = compiled.memory_analysis()
    return m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes


def convolutions(f: Callable, arguments: tuple) -> float:
    """The seconds of a program's convolutions, each by itself."""
    rng, seconds = np.random.default_rng(0), 0.0
    equations = contractions(jax.make_jaxpr(f)(*arguments).jaxpr)
    counts = Counter((equation.params["problem"], equation.params["options"]) for equation in equations)
    for (problem, options), count in counts.items():
        x, w = (jnp.asarray(rng.standard_normal(s, np.float32)) for s in (problem.x_shape, problem.w_shape))
        compiled = jax.jit(partial(contract, problem, options=options)).lower(x, w).compile()
        call = partial(lambda *arrays, compiled: jax.block_until_ready(compiled(*arrays)), x, w, compiled=compiled)
        seconds += count * timed({"": call}, 2, BLOCK / 10)[""]
    return seconds


def measure(drawn: Drawn, rounds: int, alone: bool) -> list[Result]:
    sizes = f"n {drawn.input.shape[0]}, {'x'.join(map(str, drawn.input.shape[1:-1]))}, width {drawn.width}"
    jaxs = {name: jax_calls(drawn, f) for name, f in (("jaxconv", jaxconv.lax.conv_general_dilated),
                                                      ("lax", jax.lax.conv_general_dilated))}  # fmt: skip
    if not ENGINES["native"].refusal(SMALLEST, "cpu"):
        jaxs[WITHOUT] = jax_calls(drawn, jaxconv.lax.conv_general_dilated)
    torches = {"torch": torch_calls(drawn, False)}
    if drawn.net.dimensions > 1:
        torches["torch channels last"] = torch_calls(drawn, True)
    results = []
    for which in ("forward", "step"):
        calls, first, memory, answers = {}, {}, {}, {}
        for name, functions in jaxs.items():
            f, arguments = functions[which]
            start = time.perf_counter()
            with without_native() if name == WITHOUT else nullcontext():
                compiled = f.lower(*arguments).compile()
            answers[name] = jax.block_until_ready(compiled(*arguments))
            first[name], memory[name] = time.perf_counter() - start, planned(compiled)
            calls[name] = lambda compiled=compiled, a=arguments: jax.block_until_ready(compiled(*a))
        for name, functions in torches.items():
            calls[name] = functions[which]
            answers[name] = functions[which]()
        compare(drawn, which, answers)
        seconds = timed(calls, rounds, BLOCK)
        by_themselves = convolutions(*jaxs["jaxconv"][which]) if alone else nan
        results.append(Result(drawn.name, sizes, which, seconds, first, memory, by_themselves))
    return results


def compare(drawn: Drawn, which: str, answers: dict[str, Any]) -> None:
    """All as lax: outputs, or losses and what the update made of the weights."""

    def flat(name: str) -> np.ndarray:
        answer = answers[name]
        if which == "forward":
            answer = answer.movedim(1, -1).numpy() if isinstance(answer, torch.Tensor) else np.asarray(answer)
            return answer.ravel()
        return np.array([answer if isinstance(answer, float) else float(answer[0])])

    truth = flat("lax")
    for name in answers:
        error = np.linalg.norm(flat(name) - truth) / np.linalg.norm(truth)
        if not error < TOLERANCE:
            raise SystemExit(f"{drawn.name}, {which}: {name} is off by {error:.2g} of the norm from lax")
    if which == "step":
        for key, w in answers["lax"][1].items():
            change = np.asarray(w) - drawn.weights[key]
            off = np.linalg.norm(np.asarray(answers["jaxconv"][1][key]) - np.asarray(w))
            floor = 1e-6 * np.linalg.norm(drawn.weights[key])
            if not off <= 0.05 * np.linalg.norm(change) + floor:
                raise SystemExit(f"{drawn.name}: the update of {key!r} is off by {off:.2g}")


# ---- reports


def report(results: list[Result], about: dict[str, str]) -> str:
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += ["| call | to PyTorch, mean | least | without: mean | least | to lax, mean | least | without: mean "
              "| least | first call, times lax's, mean | most "
              "| memory, times lax's, mean | most |", "| --- |" + " --- |" * 12]  # fmt: skip
    for which in ("forward", "step"):
        some = [r for r in results if r.call == which]
        figures = []
        for other in ("torch", "lax"):
            for mine in ("jaxconv", WITHOUT):
                ratios = [r.ratio(other, mine) for r in some]
                figures += [geometric_mean(ratios), min(ratios)]
        for of in ("first", "memory"):
            ratios = [getattr(r, of)["jaxconv"] / getattr(r, of)["lax"] for r in some]
            figures += [geometric_mean(ratios), max(ratios)]
        lines.append(f"| {which} | {' | '.join(f'{f:.2f}' for f in figures)} |")
    heads = [
        *("network", "sizes", "call", "jaxconv ms", "convolutions alone", "without ms", "lax ms", "times lax"),
        *("PyTorch ms", "times PyTorch", "first call s (lax)", "MB (lax)"),
    ]
    lines += ["", f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for r in results:
        best = min((name for name in r.seconds if name.startswith("torch")), key=r.seconds.__getitem__)
        lines.append(
            f"| {r.net} | {r.sizes} | {r.call} | {1e3 * r.seconds['jaxconv']:.1f} "
            f"| {1e3 * r.alone:.1f} | {1e3 * r.seconds.get(WITHOUT, nan):.1f} | {1e3 * r.seconds['lax']:.1f} "
            f"| {r.ratio('lax'):.2f} | {1e3 * r.seconds[best]:.1f} ({best}) | {r.ratio('torch'):.2f} "
            f"| {r.first['jaxconv']:.1f} ({r.first['lax']:.1f}) "
            f"| {r.memory['jaxconv'] / 1e6:.0f} ({r.memory['lax'] / 1e6:.0f}) |"
        )
    return "\n".join(lines) + "\n"


def main(
    seed: Annotated[int, typer.Option("--draw", help="draw the sizes with this seed")] = 0,
    pattern: Annotated[str, typer.Option("--nets", help="regular expression over the networks' names")] = "",
    rounds: Annotated[int, typer.Option(help="how often the libraries take turns", min=1)] = 5,
    alone: Annotated[bool, typer.Option(help="time the convolutions by themselves, too")] = False,
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("out/nets"),
) -> None:
    """Measure, print, and write nets.md and nets.json."""
    chosen = [name for name in NETS if re.search(pattern, name, re.IGNORECASE)]
    if not chosen:
        raise typer.BadParameter(f"--nets {pattern!r} names none; the names: {', '.join(NETS)}.")
    results = []
    for name in chosen:
        for r in measure(draw(name, seed), rounds, alone):
            results.append(r)
            print(
                f"{r.net:18} {r.sizes:28} {r.call:8} {1e3 * r.seconds['jaxconv']:8.1f} ms {r.ratio('torch'):6.2f} x "
                f"torch {r.ratio('lax'):6.2f} x lax {r.ratio(WITHOUT):5.2f} x without; first call "
                f"{r.first['jaxconv']:5.1f} s, lax {r.first['lax']:5.1f}; "
                f"memory x {r.memory['jaxconv'] / r.memory['lax']:.2f}",
                flush=True,
            )
        jax.clear_caches()
    text = report(results, machine() | {"seed": str(seed)})
    write(out, "nets.md", lambda path: path.write_text(text))
    write(out, "nets.json", lambda path: path.write_text(json.dumps([r._asdict() for r in results], indent=1)))
    print(text)


if __name__ == "__main__":
    typer.run(main)
