"""The twins: a network of correlation layers and one of convolution layers are the same network.

A layer that is called convolutional computes a correlation. Here two CNNs are trained on
scikit-learn's handwritten digits with the same batches: one with correlation layers, its
twin with true convolution layers that start from the flipped kernels. Flipping commutes
with every step of training, up to rounding: that is judged one step at a time, from the same
state, by derived bounds. How far whole trainings drift apart is shown beside a control, the same
network started one rounding away, and judged by nothing: it depends on the processor. The
network is smooth (GELU, mean pooling), so that they drift little; rounding would choose
between the two slopes of a ReLU at 0 or the two sides of a maximum.
Then networks of both kinds start from kernels of their own, with batches of their own, and
their accuracies are compared as samples of two populations.
"""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import typer
from flax import nnx
from rich.console import Console
from rich.progress import Progress
from scipy import optimize, special, stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jaxconv
from research.claims.layers import layers_of, worst
from research.claims.ledger import device, save, table

Method = Literal["auto", "direct", "shifts", "fft"]
DTYPES = ("float32", "float64")
SAME, CONTROL = "convolution, same engine", "control: correlation, start nudged"
MARGIN = 1.0  # percentage points of accuracy, within which two means are called equivalent
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"  # Okabe and Ito's


@cache
def correlation(method: str):
    """A layer's operation: lax's signature, on one of jaxconv's engines."""

    def operation(lhs, rhs, *args, **kwargs):
        return jaxconv.lax.conv_general_dilated(lhs, rhs, *args, method=method, **kwargs)

    return operation


@cache
def convolution(method: str):
    """The same with a negative D in its relation: true convolution."""

    def operation(lhs, rhs, *args, **kwargs):
        return jaxconv.lax.conv_general_dilated(lhs, rhs, *args, flip_kernel=True, method=method, **kwargs)

    return operation


class Network(nnx.Module):
    """Two layers of 3x3 kernels, each followed by GELU and 2x2 mean pooling, and a linear read-out."""

    def __init__(self, operation, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs, conv_general_dilated=operation)
        self.second = nnx.Conv(16, 32, (3, 3), rngs=rngs, conv_general_dilated=operation)
        self.readout = nnx.Linear(2 * 2 * 32, 10, rngs=rngs)

    def __call__(self, x):
        for layer in (self.first, self.second):
            x = nnx.gelu(layer(x))
            with jax.numpy_dtype_promotion("standard"):  # on which Flax relies
                x = nnx.avg_pool(x, (2, 2), (2, 2))
        return self.readout(x.reshape(x.shape[0], -1))


@nnx.jit
def fresh(rngs: nnx.Rngs) -> Network:
    return Network(correlation("auto"), rngs)


@cache
def start(seed: int) -> nnx.State:
    return nnx.state(fresh(nnx.Rngs(seed)))


@cache
def graph_of(operation) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Network(operation, nnx.Rngs(0))))


def flipped(state):
    """The state, or a stack of states, with every convolution kernel turned by 180 degrees."""
    return jax.tree.map(lambda a: np.flip(a, (-4, -3)) if a.ndim >= 4 else a, state)


def nudged(state):
    """The state with every weight moved to the next number of its dtype, up or down at random."""
    rng = np.random.default_rng(0)

    def nudge(a):
        return np.nextafter(a, rng.choice([-np.inf, np.inf], a.shape).astype(a.dtype)) if a.ndim > 1 else a

    return jax.tree.map(nudge, state)


def first_kernels(state) -> np.ndarray:
    """[16, 3, 3]: the kernels of the first layer."""
    return np.moveaxis(np.asarray(state["first"]["kernel"][...], np.float64)[:, :, 0], -1, 0)


def digits(test_share: float = 0.2):
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32)
    images = (images - images.mean()) / images.std()
    return train_test_split(images, labels, test_size=test_share, random_state=0, stratify=labels)


@dataclass
class Plan:
    """The training that all networks share."""

    data: list[Any]  # x, x_test, y, y_test
    epochs: int
    batch: int

    @property
    def steps(self) -> int:
        return self.epochs * (len(self.data[0]) // self.batch)

    def batches(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each epoch: the rows of every batch, and which of three views of the digits it shows."""
        rng = np.random.default_rng(seed)
        number = len(self.data[0])
        for _ in range(self.epochs):
            rows = rng.permutation(number)[: number // self.batch * self.batch].reshape(-1, self.batch)
            yield rows.astype(np.int32), rng.integers(0, 3, len(rows), dtype=np.int32)


def gradient(operation) -> Callable:
    """(state, images, labels) -> the mean loss and its gradient in the state."""

    def loss(state, x, y):
        logits = nnx.merge(graph_of(operation), state)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return jax.value_and_grad(loss)


class Trainer:
    """Training with one operation in one dtype: an epoch is one compiled scan over its batches."""

    def __init__(self, operation, plan: Plan, dtype: str):
        x, x_test, y, y_test = plan.data
        views = jnp.stack([jnp.roll(x, s, axis=2) for s in (-1, 0, 1)]).astype(dtype)  # up to a pixel sideways
        labels, x_test, self.y_test = jnp.asarray(y), jnp.asarray(x_test, dtype), y_test
        # Momentum and no division by the gradient's size, which would magnify rounding where it is 0.
        rate = optax.cosine_decay_schedule(0.1, plan.steps)
        optimiser = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(rate, momentum=0.9, nesterov=True))

        slope = gradient(operation)

        def step(carry, batch):
            state, memory = carry
            rows, view = batch
            value, found = slope(state, views[view, rows], labels[rows])
            with jax.numpy_dtype_promotion("standard"):  # on which optax relies
                updates, memory = optimiser.update(found, memory, state)
            state = optax.apply_updates(state, updates)
            return (state, memory), (value, state)

        self.batch = lambda rows, view: (views[view, rows], labels[rows])
        self.init = lambda state: (state, optimiser.init(state))
        self.epoch: Callable = jax.jit(lambda carry, rows, views: jax.lax.scan(step, carry, (rows, views)))
        self.predict = jax.jit(lambda state: nnx.merge(graph_of(operation), state)(x_test).argmax(-1))

    def correct(self, state) -> int:
        """How many test digits are recognised."""
        return int((np.asarray(self.predict(state)) == self.y_test).sum())


@dataclass
class Run:
    """What a training left behind; of a twin also its distance from its partner, step by step."""

    losses: np.ndarray
    state: Any
    correct: int
    loss_gap: np.ndarray  # of the losses
    kernel_gap: np.ndarray  # the largest of any weight, kernels flipped where the partner's are
    share: float  # of its bound: the largest difference of a layer from the partner's, in one step from the same state


@dataclass
class Twin:
    """A network of the first experiment, what is done to the common start, and its partner."""

    kind: Callable
    method: str
    change: Callable
    partner: str = ""

    @property
    def operation(self) -> Callable:
        return self.kind(self.method)


def unchanged(state):
    return state


def twins_of(method: str, other: str) -> dict[str, Twin]:
    return {
        "correlation": Twin(correlation, method, unchanged),
        SAME: Twin(convolution, method, flipped, "correlation"),
        f"convolution, {other}": Twin(convolution, other, flipped, "correlation"),
        "convolution, fft": Twin(convolution, "fft", flipped, "correlation"),
        "correlation, fft": Twin(correlation, "fft", unchanged, "correlation"),
        "both through fft": Twin(convolution, "fft", flipped, "correlation, fft"),
        CONTROL: Twin(correlation, method, nudged, "correlation"),
    }


def train_twins(twins: dict[str, Twin], trainers, plan: Plan, dtype: str, pool: ThreadPoolExecutor, progress):
    """All networks side by side, an epoch at a time, and compared in every step; name -> Run."""
    origin = jax.tree.map(lambda a: np.asarray(a, dtype), start(0))
    carries = {name: trainers[t.kind, t.method].init(t.change(origin)) for name, t in twins.items()}
    records: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in twins}

    def advance(name: str, rows, views):
        with jax.enable_x64(dtype == "float64"):  # a thread's own
            twin = twins[name]
            carries[name], seen = trainers[twin.kind, twin.method].epoch(carries[name], rows, views)
            progress()
            return jax.tree.map(np.asarray, seen)

    def gap(name: str, states, partner):
        mine = flipped(states) if twins[name].change is flipped else states
        each = jax.tree.map(lambda a, b: np.abs(a - b).reshape(len(a), -1).max(1), mine, partner)
        return np.max(jax.tree.leaves(each), axis=0)

    first = twins["correlation"]
    layers_at, layers = layers_of(gradient, first.operation), []
    for epoch, (rows, views) in enumerate(plan.batches(0)):
        if epoch in (0, plan.epochs // 2, plan.epochs - 1):
            batch = trainers[first.kind, first.method].batch(rows[0][:8], views[0])  # the error analysis is slow
            layers += layers_at(carries["correlation"][0], *batch)
        seen = dict(zip(twins, pool.map(lambda name: advance(name, rows, views), twins), strict=True))  # noqa: B023
        for name, twin in twins.items():
            losses, states = seen[name]
            records[name].append((losses, gap(name, states, seen[twin.partner or name][1])))
    runs = {}
    for name, twin in twins.items():
        state = carries[name][0]
        losses, kernel_gap = (np.concatenate(parts) for parts in zip(*records[name], strict=True))
        partner = runs[twin.partner].losses if twin.partner else losses
        correct = trainers[twin.kind, twin.method].correct(state)
        share = 0.0
        if twin.partner:
            share = worst(layers, twins[twin.partner].operation, twin.operation, twin.change is flipped)
        runs[name] = Run(losses, state, correct, np.abs(losses - partner), kernel_gap, share)
    return runs


def train_alone(trainer: Trainer, seed: int, plan: Plan, progress) -> tuple[Any, int]:
    """The state and the correct answers of a network with a start and batches of its own."""
    carry = trainer.init(start(seed))
    for rows, views in plan.batches(seed):
        carry, _ = trainer.epoch(carry, rows, views)
        progress()
    return carry[0], trainer.correct(carry[0])


@dataclass
class Comparison:
    """Two samples of accuracies, in percent: tests of equal means, and what difference is left possible."""

    samples: dict[str, np.ndarray]
    difference: float
    interval: tuple[float, float]  # 95 %, Welch
    permutation: float
    exact: bool
    rank: float
    effect: float  # Hedges' g
    effect_interval: tuple[float, float]  # 95 %, percentile bootstrap
    equivalence: float

    @classmethod
    def of(cls, samples: dict[str, np.ndarray]) -> "Comparison":
        a, b = samples.values()
        rng, n = np.random.default_rng(0), len(a)

        def effect(a, b):
            """Cohen's d with Hedges' factor, for which a sample of nu degrees of freedom overstates it."""
            deviation = np.sqrt((a.var(-1, ddof=1) + b.var(-1, ddof=1)) / 2)
            with np.errstate(divide="ignore", invalid="ignore"):
                return (b.mean(-1) - a.mean(-1)) / deviation * (1 - 3 / (4 * (2 * n - 2) - 1))

        most = 200_000
        exact = special.comb(2 * n, n) <= most
        permuted = stats.permutation_test(
            (b, a), lambda u, v, axis: u.mean(axis) - v.mean(axis), vectorized=True, n_resamples=most, rng=rng
        )
        drawn = effect(*(s[rng.integers(0, n, (20_000, n))] for s in (a, b)))
        low, high = np.nanquantile(drawn, [0.025, 0.975], method="nearest")  # a few seeds may not differ
        welch = stats.ttest_ind(b, a, equal_var=False)
        interval = welch.confidence_interval(0.95)
        # Two one-sided tests: the mean is not lower by the margin or more, and not higher by it or more.
        lower: Any = stats.ttest_ind(b + MARGIN, a, equal_var=False, alternative="greater")
        upper: Any = stats.ttest_ind(b - MARGIN, a, equal_var=False, alternative="less")
        return cls(
            samples,
            float(b.mean() - a.mean()),
            (float(interval.low), float(interval.high)),
            float(permuted.pvalue),
            bool(exact),
            float(stats.mannwhitneyu(b, a).pvalue),
            float(effect(a, b)),
            (float(low), float(high)),
            float(max(lower.pvalue, upper.pvalue)),
        )


def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[i, j]: the cosine between kernel i of a and kernel j of b."""
    u, v = (k.reshape(len(k), -1) / np.linalg.norm(k.reshape(len(k), -1), axis=1, keepdims=True) for k in (a, b))
    return u @ v.T


@dataclass
class Match:
    """The kernels of two networks in the best one-to-one assignment, not flipped and flipped."""

    matrices: tuple[np.ndarray, np.ndarray]
    columns: tuple[np.ndarray, np.ndarray]
    means: tuple[float, float]

    @classmethod
    def of(cls, a, b) -> "Match":
        matrices = tuple(similarities(first_kernels(a), first_kernels(state)) for state in (b, flipped(b)))
        found = [optimize.linear_sum_assignment(m, maximize=True) for m in matrices]
        means = [float(m[rows, columns].mean()) for m, (rows, columns) in zip(matrices, found, strict=True)]
        return cls((matrices[0], matrices[1]), (found[0][1], found[1][1]), (means[0], means[1]))


GAPS = ("loss_gap", "kernel_gap")


def walk(steps, dtype: str):
    """How far weights below 2 come apart if every step rounds them anew, at random, and training magnifies nothing: a
    curve to compare with. Training may magnify, and then no such curve is a bound.
    """
    return float(np.finfo(dtype).eps) * np.sqrt(steps)


def draw_divergence(curves, gaps, twins: dict[str, dict[str, Run]]) -> None:
    """The losses, and the distances of twins on different engines in both dtypes."""
    runs = twins["float32"]
    steps = np.arange(1, len(runs["correlation"].losses) + 1)
    curves.semilogy(steps, runs["correlation"].losses, color=GREY, lw=0.6, alpha=0.6, label="correlation, every step")
    shown = [name for name in runs if name.startswith("co") and name != "correlation, fft"][:4]
    for name, mark, size, colour in zip(shown, "os+x", (11, 7, 9, 5), ("k", BLUE, GREEN, ORANGE), strict=False):
        parts = np.array_split(runs[name].losses, 20)
        at = [chunk.mean() for chunk in np.array_split(steps, 20) if len(chunk)]
        means = [chunk.mean() for chunk in parts if len(chunk)]
        curves.semilogy(at, means, mark, ms=size, mfc="none", color=colour, label=f"{name}, means")
    curves.set(xlabel="step", ylabel="training loss", title="one start, the same batches (float32)")
    curves.legend(fontsize=8)
    apart = [name for name in runs if runs[name].kernel_gap.any() and name != "correlation, fft"]
    equal = [name for name in runs if name != "correlation" and not runs[name].kernel_gap.any()]
    for frame, what in zip(gaps, GAPS, strict=True):
        for dtype in DTYPES:
            first = dtype == "float32"
            for name, colour in zip(apart, (ORANGE, GREEN, PINK, GREY), strict=False):
                gap = getattr(twins[dtype][name], what)
                most = np.maximum.accumulate(gap)
                frame.loglog(steps, np.where(gap > 0, gap, np.nan), ".", ms=2, alpha=0.25, color=colour)
                frame.loglog(
                    steps, np.where(most > 0, most, np.nan), color=colour, lw=1.6, label=name if first else None
                )
            frame.loglog(steps, walk(steps, dtype), "k--", lw=0.9, label="sqrt(t) eps" if first else None)
            unit = float(np.finfo(dtype).eps) / 2
            frame.axhline(unit, color="k", lw=0.9, ls=":")
            at, side = (steps[0], "left") if what == "loss_gap" else (steps[-1], "right")  # where no curve is
            frame.text(at, unit / 2, f"unit roundoff of {dtype}", ha=side, va="top", fontsize=8)
        frame.set(xlabel="step", ylim=(1e-18, 1e-4))
        title = "\n".join(f"{name}: 0 in every step" for name in equal)
        frame.legend(fontsize=8, loc="center right", title=title, title_fontsize=8)
    gaps[0].set(ylabel="|difference|", title="divergence of the losses (lines: the largest so far)")
    gaps[1].set(ylabel="largest |difference|", title="divergence of the weights, kernels flipped")


def draw_accuracies(strip, effect, found: Comparison, trained: int) -> None:
    rng = np.random.default_rng(0)
    for at, (name, colour) in enumerate(zip(found.samples, (BLUE, ORANGE), strict=True)):
        sample = found.samples[name]
        strip.boxplot(sample, positions=[at], widths=0.5, showfliers=False, medianprops={"color": "k"})
        strip.plot(at + rng.uniform(-0.15, 0.15, len(sample)), sample, "os"[at], color=colour, alpha=0.75)
        strip.plot(at + 0.34, sample.mean(), "D", color="k", ms=5)
    strip.set_xticks([0, 1], list(found.samples))
    strip.set(ylabel=f"test accuracy / % ({trained} digits)", title="independent seeds (diamond: mean)")
    effect.axvspan(-MARGIN, MARGIN, color=BLUE, alpha=0.12, label=f"margin of equivalence, {MARGIN:g} point")
    effect.axvline(0, color=GREY, lw=1)
    low, high = found.interval
    effect.plot([low, high], [1, 1], color="k", lw=2)
    effect.plot(found.difference, 1, "D", color="k", label="difference of means, 95 % interval")
    edge = 1.2 * max(MARGIN, abs(low), abs(high))
    effect.set(yticks=[], ylim=(0, 2), xlim=(-edge, edge), xlabel="convolution - correlation / points")
    effect.set_title(
        f"permutation p = {found.permutation:.2f}, g = {found.effect:.2f} "
        f"[{found.effect_interval[0]:.2f}, {found.effect_interval[1]:.2f}]\n"
        f"equivalence within {MARGIN:g} point: p = {found.equivalence:.1e}"
    )
    effect.legend(fontsize=8, loc="lower center")


def draw_matches(frames, figure, matches: dict[str, Match]) -> None:
    image = None
    cells = [(name, way) for name in matches for way in (1, 0)]
    for frame, (name, way) in zip(frames, cells, strict=True):
        match = matches[name]
        image = frame.imshow(match.matrices[way][:, match.columns[way]], cmap="PuOr", vmin=-1, vmax=1)
        frame.set(
            xticks=range(16),
            yticks=range(0, 16, 5),
        )
        frame.set_xticklabels(match.columns[way], fontsize=6)
        frame.set(xlabel="convolution's kernel, as assigned")
        flip = "flipped" if way else "not flipped"
        frame.set_title(f"{name}, {flip}:\nmean of the diagonal {match.means[way]:.3f}", fontsize=10)
    frames[0].set_ylabel("correlation's kernel")
    figure.colorbar(image, ax=list(frames), shrink=0.8, label="cosine similarity")


def draw(twins, found: Comparison, matches: dict[str, Match], tested: int, path: Path) -> None:
    figure = plt.figure(figsize=(16, 16.5), layout="constrained")
    parts: Any = figure.subfigures(4, 1, height_ratios=[1, 1, 0.95, 0.55])
    above = parts[0].subplots(1, 3, width_ratios=[1.2, 0.8, 1])
    draw_divergence(above[0], parts[1].subplots(1, 2), twins)
    draw_accuracies(above[1], above[2], found, tested)
    draw_matches(parts[2].subplots(1, 4), parts[2], matches)
    runs = twins["float32"]
    kernels = [first_kernels(runs[name].state) for name in ("correlation", SAME)]
    span = max(np.abs(k).max() for k in kernels)
    frames = parts[3].subplots(2, 16)
    for row, (name, colour) in enumerate((("correlation", BLUE), ("convolution", ORANGE))):
        for at, frame in enumerate(frames[row]):
            frame.imshow(kernels[row][at], cmap="PuOr", vmin=-span, vmax=span)
            frame.set(xticks=[], yticks=[])
            if row == 0:
                frame.set_title(at, fontsize=9)
        frames[row, 0].set_ylabel(name, color=colour)
    parts[3].suptitle("the twins' first kernels: each column is a kernel and its turn by 180 degrees")
    save(figure, path)


@dataclass
class Results:
    """What the three experiments found."""

    plan: Plan
    method: str
    members: dict[str, Twin]
    twins: dict[str, dict[str, Run]]  # by dtype and name
    found: Comparison
    matches: dict[str, list[Match]]
    worth: float  # what the flip adds to the match of strangers
    worth_interval: tuple[float, float]

    @property
    def across(self) -> list[str]:
        """The networks that rounding sets apart from their partners."""
        return [name for name, t in self.members.items() if t.partner and name not in (SAME, CONTROL)]

    def identities(self) -> dict[str, bool]:
        shares = {dtype: np.max([run.share for run in self.twins[dtype].values()]) for dtype in DTYPES}
        return {
            f"in {dtype}, in one step from the same state, at the start, half way and at the end, each layer's output "
            "and gradients are those of its partner, kernels flipped, within what their engines' error analyses allow "
            f"(at most {share:.1%} of it)": share <= 1
            for dtype, share in shares.items()
        }

    def observations(self) -> dict[str, bool]:
        found = self.found
        least = min(run.correct for runs in self.twins.values() for run in runs.values()) / len(self.plan.data[1])
        [match] = self.matches["the twins"]
        aligned = np.diagonal(match.matrices[1]).min()
        strangers = max(max(m.means) for m in self.matches["strangers of both kinds"])

        def agree(what: str) -> bool:
            return not any(getattr(self.twins[dtype][SAME], what).any() for dtype in DTYPES)

        return {
            # By chance 10 % are; of 360 images 97 % are so give or take 0.9: no rounding makes that 90 %.
            f"every network of the first experiment has learned: at least 90 % of the test digits are recognised "
            f"({least:.2%})": least >= 0.9,
            "on one engine the losses of the twins agree in every step, in both dtypes, to the last bit": agree(
                "loss_gap"
            ),
            "on one engine their kernels are flips of each other in every step, in both dtypes, to the last bit": agree(
                "kernel_gap"
            ),
            "of all one-to-one assignments of the twins' first kernels that of each to its own flip is the best "
            f"(least similarity {aligned:.12f})": bool((match.columns[1] == range(16)).all()),
            f"a permutation test of the independent networks finds no difference at the level of 5 % "
            f"(p = {found.permutation:.2f})": found.permutation >= 0.05,
            f"a difference of {MARGIN:g} percentage point or more is rejected at that level "
            f"(p = {found.equivalence:.1e})": found.equivalence < 0.05,
            "not flipped, the twins' first kernels do not match: their mean similarity in the best assignment is below "
            f"0.9 ({match.means[0]:.3f})": match.means[0] < 0.9,
            f"nor do any two strangers', flipped or not (at most {strangers:.3f})": strangers < 0.9,
        }


def interval(pair: tuple[float, float], digits: int = 2) -> str:
    return f"95 % [{pair[0]:+.{digits}f}, {pair[1]:+.{digits}f}]"


def divergence_tables(results: Results) -> tuple[str, str]:
    """Of every pair the largest differences in each dtype, and their ratios."""
    rows, ratios = [], []
    for name, twin in results.members.items():
        if not twin.partner:
            continue
        largest = {d: [getattr(results.twins[d][name], what).max() for what in GAPS] for d in DTYPES}
        for dtype in DTYPES:
            eps = float(np.finfo(dtype).eps)
            cells = [f"{gap:.1e} ({gap / eps:.1f} eps)" if gap else "0" for gap in largest[dtype]]
            accuracy = results.twins[dtype][name].correct / len(results.plan.data[1])
            share = "" if name == CONTROL else f"{results.twins[dtype][name].share:.1%}"
            rows.append((name, twin.partner, dtype, share, *cells, f"{accuracy:.2%}"))
        pairs = list(zip(*largest.values(), strict=True))
        if all(all(pair) for pair in pairs):
            ratios.append((name, *(f"2^{np.log2(double / single):.1f}" for single, double in pairs)))
    return (
        table("network | against | dtype | one step, of its bound | losses | weights, flipped | test accuracy", *rows),
        table("network | losses | weights", *ratios),
    )


def accuracy_tables(found: Comparison) -> tuple[str, str]:
    rows = []
    for name, s in found.samples.items():
        each = " ".join(f"{a:.2f}" for a in s)
        rows.append((name, each, f"{s.mean():.2f}", f"{s.std(ddof=1):.2f}", f"{s.min():.2f}", f"{s.max():.2f}"))
    return (
        table("network | each seed | mean | sd | least | greatest", *rows),
        table(
            "convolution against correlation | value",
            ("difference of means, points", f"{found.difference:+.2f}, {interval(found.interval)} (Welch)"),
            (f"permutation test of means, {'exact' if found.exact else 'sampled'}", f"p = {found.permutation:.3f}"),
            ("Mann-Whitney U, normal approximation with ties", f"p = {found.rank:.3f}"),
            (
                "Cohen's d with Hedges' correction",
                f"{found.effect:+.2f}, {interval(found.effect_interval)} (bootstrap)",
            ),
            (f"two one-sided tests, margin {MARGIN:g} point", f"p = {found.equivalence:.1e}"),
        ),
    )


def report(results: Results) -> str:
    """OUT/twins.md."""
    plan, found = results.plan, results.found
    identities, observations = results.identities(), results.observations()
    farthest = [max(results.twins[d][n].kernel_gap.max() for n in results.across) for d in DTYPES]
    gap = max(results.twins[d][SAME].kernel_gap.max() for d in DTYPES)
    seeds = len(found.samples["correlation"])
    plain, turned = results.matches["the twins"][0].means
    matched = []
    for name, matches in results.matches.items():
        means = np.array([m.means for m in matches])
        cells = zip(means.mean(0), means.std(0), strict=True)
        shown = (f"{m:.3f} ± {d:.3f}" if len(matches) > 1 else f"{m:.3f}" for m, d in cells)
        matched.append((name, len(matches), *shown))
    paragraphs = [
        "# Twins: correlation and convolution networks",
        f"{device()}: `{' '.join(['python -m research.twins', *sys.argv[1:]])}`. Figures of trainings vary with "
        "processor and versions.",
        f"scikit-learn's digits, {len(plan.data[0])} to train on, {len(plan.data[1])} to test on; {plan.steps} steps "
        f"of {plan.batch}, SGD with momentum 0.9; method {results.method!r}. The network has two layers of 3x3 kernels "
        "with GELU and mean pooling, and a linear read-out.",
        "A correlation network and a convolution network that starts from the flipped kernels "
        f"{'are flips of each other to the last bit' if gap == 0 else f'remain flips within {gap:.0e}'} in each of "
        f"{plan.steps} steps on one engine. On different engines the weights come {farthest[0]:.0e} apart in float32 "
        f"and {farthest[1]:.0e} in float64, as far as rounding takes them. {seeds} independent networks of each kind "
        f"have mean accuracies {abs(found.difference):.2f} points apart. This does not show that the means are equal; "
        f"the 95 % interval excludes that they differ by more than {max(map(abs, found.interval)):.2f} points.",
        "## One start, the same batches",
        "The largest difference over all steps; eps is twice the unit roundoff. The control is the correlation network "
        "with every weight of its start moved to a neighbouring number: how far one rounding sets a network apart from "
        "itself. The drift depends on the processor, and nothing is judged by it: what is judged is one step at a "
        "time, from the same state, the difference of each layer's output and gradients as a share of what both "
        "engines' error analyses allow. In the picture the dashed line is where weights would be that every step "
        "rounds anew, at random, and that training does not magnify.",
        divergence_tables(results)[0],
        "The difference in float64 divided by that in float32; the ratio of the roundoffs is 2^-29.",
        divergence_tables(results)[1],
        "## Independent seeds",
        "Every network has its own start and its own order of batches; float32, test accuracy in percent.",
        *accuracy_tables(found),
        f"A p-value above 0.05 is no proof of equality: {seeds} seeds leave the effect size open within its interval, "
        "in units of the seeds' own small spread. How large a difference in accuracy could be is what the interval in "
        "points and the two one-sided tests say. All seeds share one division of the digits: the intervals are over "
        "starts and batches, not over data.",
        "## Kernels matched by flips",
        "The mean cosine similarity between the first layers' 16 kernels in the best one-to-one assignment, with the "
        "second network's kernels as they are and flipped; ± is the deviation over pairs. Some of the 16 kernels "
        "always find a good partner among 16 others.",
        table("pair | number | not flipped | flipped", *matched),
        f"For strangers of both kinds the flip changes the match by {results.worth:+.3f}, "
        f"{interval(results.worth_interval, 3)} (bootstrap over networks); for the twins by "
        f"{turned - plain:+.3f}. Strangers are no flips of each other. What the flip adds to their match, if "
        "anything, says that digits give kernels of either kind a preferred direction, and not that two networks are "
        "related.",
        "## What was checked",
        "\n".join(
            [f"- {'holds' if holds else 'FAILS'}: {statement}" for statement, holds in identities.items()]
            + [f"- {'holds' if h else 'not seen in this run'}: {s}" for s, h in observations.items()]
        ),
        "![twins](twins.png)",
    ]
    return "\n\n".join(paragraphs) + "\n"


def main(
    epochs: Annotated[int, typer.Option(help="Passes over the digits.", min=1)] = 20,
    batch: Annotated[int, typer.Option(help="Digits in each step.", min=1, max=1437)] = 32,
    seeds: Annotated[int, typer.Option(help="Independent networks of either kind.", min=2)] = 10,
    method: Annotated[Method, typer.Option(help="The engine of the networks.")] = "auto",
    other: Annotated[Method, typer.Option(help="The engine of the second twin.")] = "shifts",
    quick: Annotated[
        bool,
        typer.Option(
            help="8 epochs, 5 independent networks of either kind; engines that are soon compiled: direct, fft."
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("out"),
) -> None:
    """Train the twins and the independent networks; write OUT/twins.md and OUT/twins.png."""
    if quick:
        epochs, seeds = min(epochs, 8), min(seeds, 5)
        method, other = "direct" if method == "auto" else method, "fft" if other == "shifts" else other
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(digits(), epochs, batch)
    members = twins_of(method, other)
    programs = {(t.kind, t.method) for t in members.values()}
    twins: dict[str, dict[str, Run]] = {}
    own = {"correlation": range(1, 2 * seeds, 2), "convolution": range(2, 2 * seeds + 1, 2)}
    # One by one, two at a time: `vmap` over the seeds is no faster. On two cores a step of ten
    # networks in grouped layers takes 11 ms, and a step of one network 1.1 ms.
    with Progress(console=Console(stderr=True), transient=True) as bar, ThreadPoolExecutor(2) as pool:
        task = bar.add_task("training", total=epochs * (2 * len(members) + 2 * seeds))
        trainers = {}
        for dtype in reversed(DTYPES):
            with jax.enable_x64(dtype == "float64"):
                trainers = {program: Trainer(program[0](program[1]), plan, dtype) for program in programs}
                twins[dtype] = train_twins(members, trainers, plan, dtype, pool, lambda: bar.advance(task))

        def alone(kind: Callable, seed: int):
            return train_alone(trainers[kind, method], seed, plan, lambda: bar.advance(task))

        a = list(pool.map(lambda seed: alone(correlation, seed), own["correlation"]))
        b = list(pool.map(lambda seed: alone(convolution, seed), own["convolution"]))

    samples = {name: np.array([correct for _, correct in runs]) for name, runs in zip(own, (a, b), strict=True)}
    strangers = [Match.of(u, v) for (u, _), (v, _) in product(a, b)]
    matches = {
        "the twins": [Match.of(twins["float32"]["correlation"].state, twins["float32"][SAME].state)],
        "strangers of both kinds": strangers,
        "strangers of one kind": [Match.of(u, v) for runs in (a, b) for (u, _), (v, _) in combinations(runs, 2)],
        "strangers at their starts": [Match.of(start(i), start(j)) for i, j in product(*own.values())],
    }
    worth = np.array([m.means[1] - m.means[0] for m in strangers]).reshape(seeds, seeds)
    # Pairs that share a network are not independent: the bootstrap draws networks.
    rows, columns = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), (2, 20_000))
    low, high = np.quantile(np.einsum("bi,ij,bj->b", rows, worth, columns) / seeds**2, [0.025, 0.975])
    tested = len(plan.data[1])
    found = Comparison.of({name: 100 / tested * sample for name, sample in samples.items()})
    results = Results(plan, method, members, twins, found, matches, float(worth.mean()), (float(low), float(high)))

    text = report(results)
    typer.echo(text)
    draw(twins, found, {"twins": matches["the twins"][0], "strangers": strangers[0]}, tested, out / "twins.png")
    (out / "twins.md.part").write_text(text)
    os.replace(out / "twins.md.part", out / "twins.md")
    if not all(results.identities().values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
