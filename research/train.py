"""Train a network of correlations or convolutions, and go on bit for bit after whatever stopped it.

    python -m research.train --model resnet --epochs 30 --out out/resnet
    python -m research.train --model resnet --epochs 30 --out out/resnet --resume

All randomness is a function of the seed and the step: the order of the batches, the augmentation, the noise. So a run
that was killed and resumed ends with the parameters of one that was not. OUT holds config.json, metrics.csv, events
for TensorBoard, checkpoints, curves.png, kernels.png, model.safetensors and train.md.
"""

import hashlib
import inspect
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from research.datasets import Dataset, load
from research.datasets.augmentation import augment
from research.models import Layers, build
from research.records import pictures
from research.records.checkpoints import Checkpoints, not_finite
from research.records.metrics import Metrics

LOG = Console(stderr=True, highlight=False)
DIGEST = "data_sha256"  # beside the options in config.json


def option(default: Any, help: str, **limits) -> Any:
    """A field of Config, and an option of the command."""
    return field(default=default, metadata={"option": typer.Option(help=help, **limits)})


@dataclass(frozen=True)
class Config:
    """What a training is; the command's options are these fields."""

    data: str = option("digits", "'digits', a .npz, or a folder of images, of MNIST or of CIFAR")
    size: int = option(0, "height and width of images from a folder; 0 for the first image's", min=0)
    model: Literal["cnn", "resnet", "convnext", "long"] = option("cnn", "the architecture")
    width: int = option(16, "features of the first stage", min=1)
    norm: Literal["batch", "group"] = option("batch", "normalisation of resnet; the others have none, or LayerNorm")
    op: Literal["correlate", "convolve", "lax"] = option(
        "correlate", "the layers; lax for plain nnx.Conv; with both others --model long has LongConvolve"
    )
    method: Literal["auto", "direct", "shifts", "gemm", "winograd", "fft", "overlap"] = option(
        "auto", "the engine of correlate and convolve"
    )
    dtype: Literal["float32", "bfloat16"] = option("float32", "in which the layers compute")
    epochs: int = option(10, "passes over the data", min=1)
    batch: int = option(64, "examples in each step", min=1)
    optimiser: Literal["adamw", "sgd"] = option("adamw", "adamw, or sgd with Nesterov momentum 0.9")
    rate: float = option(3e-3, "the greatest learning rate", min=0.0)
    schedule: Literal["constant", "linear", "cosine", "step"] = option("cosine", "of the learning rate")
    warmup: float = option(0.05, "share of the steps in which the rate grows from 0", min=0.0, max=1.0)
    decay: float = option(1e-2, "weight decay, of kernels", min=0.0)
    smoothing: float = option(0.0, "of the labels", min=0.0, max=1.0)
    shift: int = option(1, "augmentation: shifted by up to so many pixels", min=0)
    flip: bool = option(False, "augmentation: left and right exchanged in half of the images")
    contrast: float = option(0.0, "augmentation: contrast changed by up to this share", min=0.0, max=1.0)
    cutout: int = option(0, "augmentation: side of a square that is set to 0", min=0)
    clip: float = option(0.0, "DP-SGD: greatest norm of one example's gradient; 0 for none", min=0.0)
    noise: float = option(0.0, "DP-SGD: noise in multiples of clip", min=0.0)
    seed: int = option(0, "of the parameters, batches, augmentation and noise", min=0)
    log_every: int = option(10, "steps between rows of metrics.csv", min=1)
    save_every: int = option(0, "steps between checkpoints; 0 for one each epoch", min=0)


class State(NamedTuple):
    """All that a step changes."""

    parameters: nnx.State
    statistics: nnx.State
    optimiser: optax.OptState


class Stopped(Exception):
    """The training ends early, with a message for the user."""


@dataclass(frozen=True)
class Trainer:
    """A Config and its data, as functions of the state."""

    config: Config
    data: Dataset

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.train[0]) // self.config.batch

    @property
    def steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def model(self) -> nnx.Module:
        c = self.config
        dtype = None if c.dtype == "float32" else jnp.dtype(c.dtype)
        layers = Layers(nnx.Rngs(c.seed), c.op, c.method, dtype, c.norm)
        return build(c.model, self.data.train[0].shape[1:], len(self.data.classes), c.width, layers)

    def rate(self) -> optax.Schedule:
        c = self.config
        warm = round(c.warmup * self.steps)
        rest = max(1, self.steps - warm)
        after = {
            "constant": optax.constant_schedule(c.rate),
            "linear": optax.linear_schedule(c.rate, 0.0, rest),
            "cosine": optax.cosine_decay_schedule(c.rate, rest),
            "step": optax.piecewise_constant_schedule(c.rate, {rest // 2: 0.1, 3 * rest // 4: 0.1}),
        }[c.schedule]
        return optax.join_schedules([optax.linear_schedule(0.0, c.rate, warm), after], [warm]) if warm else after

    def optimiser(self) -> optax.GradientTransformation:
        def kernels(parameters):
            return jax.tree.map(lambda a: a.ndim > 1, parameters)

        decay = optax.add_decayed_weights(self.config.decay, kernels)
        if self.config.optimiser == "sgd":
            return optax.chain(decay, optax.sgd(self.rate(), momentum=0.9, nesterov=True))
        return optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(self.rate()))

    def start(self) -> tuple[State, Callable, Callable]:
        """(state, step, evaluate): the start, and the two functions, compiled at their first call.

        step(state, number, images, labels) is the next state and (loss, accuracy, norm of the gradient);
        evaluate(state, images, labels, weights) is the sums of the losses and of the hits.
        """
        c, model, optimiser, rate = self.config, self.model(), self.optimiser(), self.rate()
        model.train()
        training, parameters, statistics = nnx.split(model, nnx.Param, ...)
        model.eval()
        evaluation = nnx.graphdef(model)

        def losses(logits, labels, smoothing):
            wanted = optax.smooth_labels(jax.nn.one_hot(labels, len(self.data.classes)), smoothing)
            return optax.softmax_cross_entropy(logits.astype(jnp.float32), wanted), logits.argmax(-1) == labels

        def loss(parameters, statistics, images, labels):
            model = nnx.merge(training, parameters, statistics, copy=True)
            each, hits = losses(model(images), labels, c.smoothing)
            return each.mean(), (hits.mean(), nnx.state(model, nnx.Not(nnx.Param)))

        def private(state, key, images, labels):
            """Each example's gradient, clipped to a norm; their mean, with noise."""
            one = jax.value_and_grad(loss, has_aux=True)
            (values, (hits, _)), gradients = jax.vmap(lambda x, y: one(state.parameters, state.statistics, x, y))(
                images[:, None], labels[:, None]
            )
            leaves, form = jax.tree.flatten(gradients)
            clipped: Any = optax.per_example_global_norm_clip(leaves, c.clip)[0]
            noisy = [
                (a + c.noise * c.clip * jax.random.normal(k, a.shape, a.dtype)) / len(images)
                for a, k in zip(clipped, jax.random.split(key, len(clipped)), strict=True)
            ]
            return values.mean(), hits.mean(), state.statistics, jax.tree.unflatten(form, noisy)

        @jax.jit
        def step(state, number, images, labels):
            key = jax.random.fold_in(jax.random.key(c.seed), number)
            moving, noising = jax.random.split(key)
            images = augment(images, moving, shift=c.shift, flip=c.flip, contrast=c.contrast, cutout=c.cutout)
            if c.clip:
                value, hits, statistics, gradient = private(state, noising, images, labels)
            else:
                (value, (hits, statistics)), gradient = jax.value_and_grad(loss, has_aux=True)(
                    state.parameters, state.statistics, images, labels
                )
            with jax.numpy_dtype_promotion("standard"):  # on which optax relies
                updates, memory = optimiser.update(gradient, state.optimiser, state.parameters)
            parameters: Any = optax.apply_updates(state.parameters, updates)
            return State(parameters, statistics, memory), (value, hits, optax.tree.norm(gradient), rate(number))

        @jax.jit
        def evaluate(state, images, labels, weights):
            logits = nnx.merge(evaluation, state.parameters, state.statistics, copy=True)(images)
            each, hits = losses(logits, labels, 0.0)
            return (each * weights).sum(), (hits * weights).sum()

        return State(parameters, statistics, optimiser.init(parameters)), step, evaluate

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of a step, counted from 0; each epoch has an order of its own."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.data.train[0]))
        rows = order[place * self.config.batch : (place + 1) * self.config.batch]
        return self.data.train[0][rows], self.data.train[1][rows]

    def test(self, evaluate: Callable, state: State) -> tuple[float, float]:
        """(loss, accuracy) on the test set."""
        images, labels = self.data.test
        size, sums = self.config.batch, np.zeros(2)
        for first in range(0, len(images), size):
            rows = np.arange(first, first + size)
            inside = rows < len(images)  # the last batch is filled up with what does not count
            rows = np.where(inside, rows, 0)
            sums += [float(v) for v in evaluate(state, images[rows], labels[rows], inside.astype(np.float32))]
        loss, hits = sums / len(images)
        return float(loss), float(hits)


def train(config: Config, out: Path, resume: bool, progress: bool = True) -> State:
    """Train, or go on; returns the last state. Raises Stopped for what a user should know."""
    data = load(config.data, config.size or None, config.seed)
    trainer = Trainer(config, data)
    if not trainer.steps_per_epoch:
        raise typer.BadParameter(
            f"--batch {config.batch} is more than the {len(data.train[0])} training images. Make it smaller."
        )
    told = {**asdict(config), DIGEST: digest(data)}
    check(told, out, resume)
    state, step, evaluate = trainer.start()
    jax.eval_shape(step, state, 0, *trainer.batch(0))  # an option that is refused in the step is so before OUT is made
    out.mkdir(parents=True, exist_ok=True)
    write(out / "config.json", json.dumps(told, indent=1) + "\n")
    checkpoints = Checkpoints(out / "checkpoints")
    first = 0
    if resume and (found := checkpoints.restore(state)) is not None:
        first, state, passed = found
        state = jax.tree.map(jnp.asarray, state)
        for what in passed:
            LOG.print(f"{what}: the one before is taken")
        LOG.print(f"resumed after step {first} of {trainer.steps}")
    metrics = Metrics(out, first)
    every = config.save_every or trainer.steps_per_epoch
    since: list[tuple[int, Any]] = []  # what was measured since the last look; it stays on the device
    asked: list[int] = []  # signals that came: the step is finished and saved first
    usual = {s: signal.signal(s, lambda number, _: asked.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=LOG, transient=True, disable=not progress) as bar:
            task = bar.add_task("training", total=trainer.steps, completed=first)
            for done in range(first + 1, trainer.steps + 1):
                state, measured = step(state, done - 1, *trainer.batch(done - 1))
                since.append((done, measured))
                end = done % trainer.steps_per_epoch == 0
                stop = bool(asked)  # one that comes later is answered by the next step
                save = done % every == 0 or done == trainer.steps or stop
                if done % config.log_every == 0 or end or save:
                    loss, accuracy, norm, rate = (float(v) for v in measured)
                    row = dict(
                        step=done, epoch=done / trainer.steps_per_epoch, rate=rate, loss=loss, accuracy=accuracy,
                        gradient_norm=norm,
                    )  # fmt: skip
                    if end:
                        row["test_loss"], row["test_accuracy"] = trainer.test(evaluate, state)
                    bad = not_finite(state) if save else []
                    if bad or not all(map(math.isfinite, row.values())):
                        metrics.add(row)
                        raise Stopped(no_number(out, row, since, metrics, checkpoints, state))
                    since.clear()
                    if end:
                        bar.update(task, description=f"loss {loss:.3g}, test accuracy {row['test_accuracy']:.2%}")
                    if done % config.log_every == 0 or end:
                        metrics.add(row)
                if save:
                    checkpoints.save(done, state)
                bar.update(task, completed=done)
                if stop:
                    raise Stopped(f"stopped by a signal after step {done}, which is saved. Go on with --resume.")
    finally:
        metrics.close()
        for number, handler in usual.items():
            signal.signal(number, handler)
    report(trainer, out, state, metrics, evaluate)
    return state


def digest(data: Dataset) -> str:
    """SHA-256 of the arrays."""
    found = hashlib.sha256()
    for a in (*data.train, *data.test):
        found.update(f"{a.dtype} {a.shape}".encode())
        found.update(np.ascontiguousarray(a).data)
    return found.hexdigest()


def check(told: dict[str, Any], out: Path, resume: bool) -> None:
    """Refuse to begin where there is a run, and to go on where there is none or one of other options or data."""
    path = out / "config.json"
    if not resume:
        if path.exists() or any((out / "checkpoints").glob("*")):
            raise typer.BadParameter(f"--out {out} holds a run already. Go on with --resume, or name another folder.")
        return
    if not path.exists():
        raise typer.BadParameter(
            f"--resume: there is no {path}, so no run to go on with. Correct --out, or begin a run without --resume."
        )
    try:
        before = json.loads(path.read_text())
        if not isinstance(before, dict):
            raise ValueError(f"it holds {before!r}")
    except ValueError as e:
        raise typer.BadParameter(
            f"--resume: {path} is damaged ({e}); it must be a JSON object of the run's options. Put it back as it "
            "was, or begin in another folder."
        ) from e
    other = [f"{k} was {before.get(k)!r}, is {v!r}" for k, v in told.items() if k != DIGEST and before.get(k) != v]
    if other:
        raise typer.BadParameter(
            f"--resume: {out} was begun with other options ({'; '.join(other)}). Give the same ones, or begin in "
            "another folder."
        )
    was = before.get(DIGEST, told[DIGEST])  # a run begun before there was one goes on
    if was != told[DIGEST]:
        raise typer.BadParameter(
            f"--resume: the arrays of --data {told['data']} are not those that {out} was begun with (their SHA-256 was "
            f"{was:.12}..., is {told[DIGEST]:.12}...). Put the data back as they were, or begin in another folder."
        )


def no_number(
    out: Path, row: dict[str, float], since: list, metrics: Metrics, checkpoints: Checkpoints, state: State
) -> str:
    """The report of a loss, gradient or state that is not finite, also written to failure.md."""
    measured = [(step, float(loss), float(norm)) for step, (loss, _, norm, _) in since]
    began = [step for step, *both in measured if not all(map(math.isfinite, both))] + [row["step"]]
    losses = dict(zip(*metrics.column("loss"), strict=True)) | {step: loss for step, loss, _ in measured}
    last = [f"{loss:.4g} (step {step:.0f})" for step, loss in sorted(losses.items()) if math.isfinite(loss)][-6:]
    values = f"loss {row['loss']}, gradient's norm {row['gradient_norm']}"
    values += f", test loss {row['test_loss']}" if "test_loss" in row else ""
    where = not_finite(state)
    where = [name for name in where if name.startswith("parameters")] or where  # the optimiser's follow from these
    lines = [
        f"# The training stopped at step {row['step']}: {values}",
        "",
        f"- not finite since step {began[0]}",
        f"- learning rate: {row['rate']:.3g}",
        f"- the last finite losses: {', '.join(last) or 'none'}",
        f"- not finite in the state: {', '.join(where) or 'none'}",
        f"- the last checkpoint: {checkpoints.steps[-1] if checkpoints.steps else 'none'}",
        "",
        "Try a smaller --rate, more --warmup, --clip, or --dtype float32; look for NaN in the data.",
    ]
    write(out / "failure.md", "\n".join(lines) + "\n")
    return "\n".join(lines)


def report(trainer: Trainer, out: Path, state: State, metrics: Metrics, evaluate: Callable) -> None:
    """model.safetensors, curves.png, kernels.png, train.md."""
    from jaxconv.layers import save_safetensors

    c = trainer.config
    loss, accuracy = trainer.test(evaluate, state)
    model = trainer.model()
    nnx.update(model, state.parameters, state.statistics)
    save_safetensors(out / "model.safetensors", model, {"config": json.dumps(asdict(c))})
    pictures.curves(metrics, out / "curves.png")
    layers = {
        ".".join(map(str, path)): np.asarray(module.kernel[...])
        for path, module in nnx.iter_graph(model)
        if isinstance(module, nnx.Conv) or type(module).__name__ == "LongConvolve"
    }
    pictures.kernels(dict(list(layers.items())[:6]), out / "kernels.png")
    count = sum(a.size for a in jax.tree.leaves(state.parameters))
    engine = "lax" if c.op == "lax" else c.method
    text = [
        f"# {c.model} on {trainer.data.name}, {c.op}",
        "",
        f"{count} parameters, {trainer.steps} steps of {c.batch} images, {c.dtype}, engine {engine}, seed {c.seed}; "
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}.",
        "",
        f"Test loss {loss:.4f}, test accuracy {accuracy:.2%} of {len(trainer.data.test[0])} images.",
        "",
        "![curves](curves.png)",
        "",
        "![kernels](kernels.png)",
        "",
    ]
    write(out / "train.md", "\n".join(text))
    Console(highlight=False, soft_wrap=True).print("\n".join(text[:5]), markup=False)


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def main(out: Path, resume: bool, progress: bool, **options) -> None:
    """Train a network of correlations or convolutions on images; what it leaves is in OUT."""
    config = Config(**options)
    if config.clip and config.model == "resnet" and config.norm == "batch":
        raise typer.BadParameter("--clip needs each example's own gradient, which BatchNorm mixes. Pass --norm group.")
    if config.noise and not config.clip:
        raise typer.BadParameter("--noise is in multiples of --clip, which is 0. Pass --clip, too.")
    if config.op == "lax" and config.method != "auto" and not resume:
        raise typer.BadParameter(f"--method {config.method} is an engine, and --op lax has none. Leave one out.")
    if config.norm == "group" and config.model != "resnet" and not resume:
        raise typer.BadParameter(f"--norm group changes resnet alone, and --model is {config.model}. Leave it out.")
    if not config.rate > 0:
        raise typer.BadParameter(f"--rate is {config.rate}: it must be positive.")
    try:
        train(config, out, resume, progress)
    except (ValueError, Stopped, OSError) as e:  # DataError is a ValueError
        LOG.print(str(e), markup=False, style="red")
        raise typer.Exit(1) from e


def options() -> list[inspect.Parameter]:
    """The fields of Config as typer reads them from a signature."""
    more = [
        ("out", Path, Path("out/train"), typer.Option(help="the folder of the run")),
        ("resume", bool, False, typer.Option(help="go on with the run in OUT, from its last checkpoint")),
        ("progress", bool, True, typer.Option(help="show a progress bar")),
    ]
    found = [(f.name, f.type, f.default, f.metadata["option"]) for f in fields(Config)] + more
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, given])
        for name, kind, default, given in found
    ]


main.__signature__ = inspect.Signature(options())  # type: ignore[attr-defined]
main.__annotations__ = {p.name: p.annotation for p in options()}

if __name__ == "__main__":
    typer.run(main)
