"""One training step of each network of research/models: jaxconv beside plain nnx.Conv (lax) and PyTorch, in one run.

    .venv/bin/python scripts/steps.py                  # all, about five minutes on two cores
    .venv/bin/python scripts/steps.py --models convnext

A step is forward, backward and the update (SGD with momentum), in float32, on random images. PyTorch's nets have the
same architecture and the same weights, moved; before anything is timed the three losses must agree to 1e-4. PyTorch
runs in eager mode, as usual, once contiguous and once channels last. Steps of each take turns over several rounds; a
figure is the 20 % quantile. Nothing else should run meanwhile. Writes steps.md and steps.json to OUT.
"""

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
import typer
from bench import timed
from flax import nnx
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from research.models import Layers, build


class Setting(NamedTuple):
    """What is trained: a net, a batch of images (height, width, channels), the net's width."""

    model: str
    batch: int
    shape: tuple[int, int, int]
    width: int


# Each on digits, with the training program's defaults, and on colour images; `long` on 1024 pixels in a row.
SETTINGS = (
    *(Setting(model, 64, (8, 8, 1), 16) for model in ("cnn", "resnet", "convnext", "long")),
    Setting("cnn", 64, (32, 32, 3), 32),
    Setting("resnet", 16, (32, 32, 3), 32),
    Setting("convnext", 16, (64, 64, 3), 64),
    Setting("long", 8, (32, 32, 1), 64),
)
CLASSES = 10
RATE, MOMENTUM = 1e-2, 0.9


# ---- the same architectures in PyTorch, channels first; modules stand in the order of ours


def same(x, size: int, strides: int):
    """lax's SAME: the odd one of the pads at the end."""
    total = max((-(-x.shape[-1] // strides) - 1) * strides + size - x.shape[-1], 0)
    return F.pad(x, (total // 2, total - total // 2) * 2)


class Conv(nn.Module):
    def __init__(self, features, out, size, strides=1, groups=1, bias=True):
        super().__init__()
        even = strides == 1 and size % 2
        self.conv = nn.Conv2d(features, out, size, strides, size // 2 if even else 0, groups=groups, bias=bias)
        self.pads = None if even else (size, strides)

    def forward(self, x):
        return self.conv(same(x, *self.pads) if self.pads else x)


class Norm(nn.LayerNorm):
    """Over the features, which stand second."""

    def __init__(self, features):
        super().__init__(features, eps=1e-6)

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class CNN(nn.Module):
    def __init__(self, shape, classes, width):
        super().__init__()
        features = (shape[2], width, 2 * width, 4 * width)
        self.convs = nn.ModuleList([Conv(a, b, 3) for a, b in pairwise(features)])
        self.readout = nn.Linear(features[-1], classes)

    def forward(self, x):
        for conv in self.convs:
            x = F.relu(conv(x))
            x = F.avg_pool2d(x, 2) if min(x.shape[2:]) >= 2 else x
        return self.readout(x.mean((2, 3)))


class ResBlock(nn.Module):
    def __init__(self, features, out, strides):
        super().__init__()
        self.first, self.first_norm = Conv(features, out, 3, strides, bias=False), nn.BatchNorm2d(out)
        self.second, self.second_norm = Conv(out, out, 3, bias=False), nn.BatchNorm2d(out)
        self.shortcut = None if features == out and strides == 1 else Conv(features, out, 1, strides, bias=False)

    def forward(self, x):
        y = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    def __init__(self, shape, classes, width):
        super().__init__()
        self.stem, self.norm = Conv(shape[2], width, 3, bias=False), nn.BatchNorm2d(width)
        blocks, features = [], width
        for stage in range(4):
            out = width * 2**stage
            blocks += [ResBlock(features, out, 2 if stage else 1), ResBlock(out, out, 1)]
            features = out
        self.blocks = nn.Sequential(*blocks)
        self.readout = nn.Linear(features, classes)

    def forward(self, x):
        return self.readout(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


class NeXtBlock(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.depthwise = Conv(features, features, 7, groups=features)
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.expand, self.project = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)
        self.scale = nn.Parameter(torch.full((features,), 0.1))

    def forward(self, x):
        y = self.norm(self.depthwise(x).movedim(1, -1))
        return x + (self.scale * self.project(F.gelu(self.expand(y), approximate="tanh"))).movedim(-1, 1)


class ConvNeXt(nn.Module):
    def __init__(self, shape, classes, width):
        super().__init__()
        modules, features = [], shape[2]
        for out in (width, 2 * width):
            modules += [Conv(features, out, 2, 2), Norm(out), NeXtBlock(out), NeXtBlock(out)]
            features = out
        self.modules_ = nn.Sequential(*modules)
        self.norm, self.readout = nn.LayerNorm(features, eps=1e-6), nn.Linear(features, classes)

    def forward(self, x):
        return self.readout(self.norm(self.modules_(x).mean((2, 3))))


class LongConv(nn.Module):
    """Depthwise and causal, by PyTorch's FFT as one writes it, or directly."""

    def __init__(self, features, length, fft):
        super().__init__()
        self.conv = nn.Conv1d(features, features, length, groups=features)
        self.fft = fft

    def forward(self, x):  # features first
        length = x.shape[-1]
        if not self.fft:
            return self.conv(F.pad(x, (length - 1, 0)))
        taps = self.conv.weight[:, 0].flip(-1)
        spectrum = torch.fft.rfft(x, 2 * length) * torch.fft.rfft(taps, 2 * length)
        return torch.fft.irfft(spectrum, 2 * length)[..., :length] + self.conv.bias[:, None]


class LongBlock(nn.Module):
    def __init__(self, features, length, fft):
        super().__init__()
        self.norm, self.gate = nn.LayerNorm(features, eps=1e-6), nn.Linear(features, features)
        self.long, self.mix = LongConv(features, length, fft), nn.Linear(features, features)
        self.second_norm = nn.LayerNorm(features, eps=1e-6)
        self.expand, self.project = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.mix(F.silu(self.gate(y)) * self.long(y.mT).mT)
        return x + self.project(F.gelu(self.expand(self.second_norm(x)), approximate="tanh"))


class LongClassifier(nn.Module):
    def __init__(self, shape, classes, width, fft=True):
        super().__init__()
        self.embed = nn.Linear(shape[2], width)
        self.blocks = nn.Sequential(*[LongBlock(width, shape[0] * shape[1], fft) for _ in range(2)])
        self.norm, self.readout = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x):
        x = self.embed(x.flatten(2).mT)
        return self.readout(self.norm(self.blocks(x).mean(1)))


TORCH = {"cnn": CNN, "resnet": ResNet, "convnext": ConvNeXt, "long": LongClassifier}


def move(ours: nnx.Module, theirs: nn.Module) -> None:
    """Our weights into PyTorch's net: both list their layers in one order."""
    wanted = (nnx.Conv, nnx.Linear, nnx.BatchNorm, nnx.LayerNorm)
    layers = [(path, m) for path, m in nnx.iter_graph(ours) if isinstance(m, wanted)]
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
    names = {"modules_": "modules", "conv": None}
    theirs_by_path = {}
    for name, module in theirs.named_modules():
        if isinstance(module, kinds):
            path = tuple(int(p) if p.isdigit() else names.get(p, p) for p in name.split("."))
            theirs_by_path[tuple(p for p in path if p is not None)] = module
    assert {path for path, _ in layers} == set(theirs_by_path)
    with torch.no_grad():
        for path, layer in layers:
            module = theirs_by_path[path]
            if isinstance(layer, nnx.Conv | nnx.Linear):
                kernel = np.asarray(layer.kernel[...])
                module.weight.copy_(torch.from_numpy(np.moveaxis(kernel, (-1, -2), (0, 1)).copy()))
                if layer.bias is not None:
                    module.bias.copy_(torch.from_numpy(np.array(layer.bias[...])))


# ---- steps


def net(setting: Setting, op: str) -> nnx.Module:
    """The net, with the weights that it has with plain nnx.Conv."""
    model = build(setting.model, setting.shape, CLASSES, setting.width, Layers(nnx.Rngs(0), op))
    if op != "lax" and setting.model == "long":
        for mine, plain in zip(model.blocks, net(setting, "lax").blocks, strict=True):
            mine.long.kernel[...] = jnp.flip(plain.long.kernel[...][:, 0], 0)  # a convolution
    return model


def ours(setting: Setting, op: str, images, labels) -> Callable[[], float]:
    """A jitted step, its state kept between calls; returns the loss."""
    model = net(setting, op)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)
    optimiser = optax.sgd(RATE, momentum=MOMENTUM)

    def loss(parameters, rest, images, labels):
        model = nnx.merge(graph, parameters, rest, copy=True)
        value = optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()
        return value, nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def step(state, images, labels):
        parameters, rest, memory = state
        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(parameters, rest, images, labels)
        updates, memory = optimiser.update(gradient, memory)
        return (optax.apply_updates(parameters, updates), rest, memory), value

    state = [(parameters, rest, optimiser.init(parameters))]
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    def call() -> float:
        state[0], value = step(state[0], images, labels)
        jax.block_until_ready(state[0])
        return float(value)

    return call


def torchs(setting: Setting, images, labels, *, last: bool = False, **more) -> Callable[[], float]:
    model = TORCH[setting.model](setting.shape, CLASSES, setting.width, **more)
    source = net(setting, "lax")
    move(source, model)
    ours_count = sum(a.size for a in jax.tree.leaves(nnx.state(source, nnx.Param)))
    assert sum(p.numel() for p in model.parameters()) == ours_count
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = model.to(device)
    x, y = (torch.from_numpy(a).to(device) for a in (np.moveaxis(images, -1, 1).copy(), labels.astype(np.int64)))
    if last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM)

    def call() -> float:
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        return loss.item()

    return call


def measure(setting: Setting, rounds: int) -> dict[str, float]:
    """library -> seconds of a step."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((setting.batch, *setting.shape), np.float32)
    labels = rng.integers(0, CLASSES, setting.batch).astype(np.int32)
    calls = {
        "jaxconv": ours(setting, "correlate", images, labels),
        "lax": ours(setting, "lax", images, labels),
        "torch": torchs(setting, images, labels),
    }
    if setting.model == "long":
        calls["torch, direct"] = torchs(setting, images, labels, fft=False)
    else:
        calls["torch, channels last"] = torchs(setting, images, labels, last=True)
    losses = {library: call() for library, call in calls.items()}
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise SystemExit(f"{setting}: the losses of the first step differ: {losses}")
    return timed(calls, rounds, 0.5)


def main(
    models: Annotated[str, typer.Option(help="regular expression over the models' names")] = "",
    rounds: Annotated[int, typer.Option(help="how often the libraries take turns", min=1)] = 5,
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("out/steps"),
) -> None:
    """Measure, print, and write steps.md and steps.json."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    about = (
        f"{jax.devices()[0].device_kind}, {cpu[1] if cpu else platform.processor()}, {len(os.sched_getaffinity(0))} "
        f"cores, {time.strftime('%Y-%m-%d')}, python {platform.python_version()}, jax {jax.__version__}, torch "
        f"{torch.__version__}; `.venv/bin/python scripts/steps.py --rounds {rounds}`"
    )
    lines = [
        about,
        "",
        "| net | batch, image, width | jaxconv ms | lax ms | times lax | PyTorch ms (the fastest) | times PyTorch |",
        "| --- |" + " --- |" * 6,
    ]
    results = []
    for setting in SETTINGS:
        if not re.search(models, setting.model):
            continue
        found = measure(setting, rounds)
        results.append({**setting._asdict(), "seconds": found})
        peers = {library: seconds for library, seconds in found.items() if library.startswith("torch")}
        best = min(peers, key=peers.__getitem__)
        mine, lax = found["jaxconv"], found["lax"]
        images = f"{setting.batch}, {'x'.join(map(str, setting.shape))}, {setting.width}"
        lines.append(
            f"| {setting.model} | {images} | {1e3 * mine:.1f} | "
            f"{1e3 * lax:.1f} | {lax / mine:.2f} | {1e3 * peers[best]:.1f} ({best}) | {peers[best] / mine:.2f} |"
        )
        print(lines[-1], flush=True)
        jax.clear_caches()
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("steps.md", "\n".join(lines) + "\n"), ("steps.json", json.dumps(results, indent=1))):
        part = out / f"{name}.part"
        part.write_text(text)
        part.replace(out / name)


if __name__ == "__main__":
    typer.run(main)
