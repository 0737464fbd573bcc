"""The training program: it ends the same whatever stops it, and says what goes wrong."""

import json
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import typer
from flax import nnx
from typer.testing import CliRunner

from jaxconv.layers import flip_kernels
from research.datasets import load
from research.records.checkpoints import Checkpoints
from research.records.metrics import Metrics
from research.train import Config, Stopped, Trainer, main, train

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.research
SMALL = Config(width=4, epochs=2, batch=128, method="direct", save_every=3, log_every=4)


# What a run does to its folder: the event of Python's audit hooks, and the path that it names.
POINTS = {
    "the temporary folder of a checkpoint is begun": ("os.mkdir", r"checkpoints/\d+\.orbax-checkpoint-tmp"),
    "its list of contents is written": ("open", r"checkpoints/\d+\.orbax-checkpoint-tmp/_CHECKPOINT_METADATA"),
    "its data are synced": ("open", r"checkpoints/.*/default\.orbax-checkpoint-tmp/commit_success\.txt"),
    "it is renamed": ("os.rename", r"checkpoints/\d+\.orbax-checkpoint-tmp"),
    "a row of metrics is appended": ("open", r"metrics\.csv"),
}
# A run that sends itself a signal at the second of such events: before it, or after it at the next in the folder.
SIGNALLED = """
import os, re, runpy, sys
number, event, path, when, *sys.argv[1:] = sys.argv[1:]
folder, left = sys.argv[sys.argv.index("--out") + 1] + "/", 2
def hook(name, args):
    global left
    if name == "open":
        if not isinstance(args[0], str) or not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
    elif name not in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        return
    where = os.fspath(args[0])
    if not where.startswith(folder):
        return
    met = name == event and re.fullmatch(path, where[len(folder):]) is not None
    left -= met or left == 0
    if left == (0 if when == "before" else -1):
        os.kill(os.getpid(), int(number))
        left = -2
sys.addaudithook(hook)
runpy.run_module("research.train", run_name="__main__", alter_sys=True)
"""


def command(out: Path, *python: str, resume: bool = False) -> subprocess.CompletedProcess:
    """SMALL, as a person runs it."""
    options = {name: getattr(SMALL, name) for name in ("width", "epochs", "batch", "method", "save_every", "log_every")}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.run(
        [sys.executable, *python, "--out", str(out), "--no-progress", *options, *["--resume"] * resume],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("point", "when"),
    [
        pytest.param(*one, marks=[pytest.mark.nightly] if one != ("it is renamed", "before") else [])
        for one in product(POINTS, ("before", "after"))
    ],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(point, when, run, tmp_path):
    whole, broken = run[0], tmp_path / "broken"
    done = command(broken, "-c", SIGNALLED, str(int(signal.SIGKILL)), *POINTS[point], when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = any(path.name.isdigit() for path in (broken / "checkpoints").iterdir())
    done = command(broken, "-m", "research.train", resume=True)
    assert done.returncode == 0, done.stderr
    assert ("resumed after step" in done.stderr) == finished
    for name in ("model.safetensors", "metrics.csv", "config.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(broken.rglob("*.part"))


def parameters(state) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train(SMALL, out, resume=False, progress=False)


def test_what_a_run_leaves(run):
    out, _ = run
    assert json.loads((out / "config.json").read_text())["width"] == 4
    header, *rows = (out / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,epoch,rate,loss")
    assert [row.split(",")[0] for row in rows] == ["4", "8", "11", "12", "16", "20", "22"]
    assert Checkpoints(out / "checkpoints").steps == [18, 21, 22]
    for name in ("curves.png", "kernels.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert "test accuracy" in (out / "train.md").read_text()


def test_events_are_those_that_tensorboard_reads(run):
    """Each record: its length, a masked CRC of that, the event, a masked CRC; the scalars are those of the CSV."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    (path,) = (run[0] / "events").glob("events.out.tfevents.*")
    text, found = path.read_bytes(), {}
    while text:
        (length,) = struct.unpack("<Q", text[:8])
        assert struct.unpack("<I", text[8:12])[0] == masked(text[:8])
        event = Event.FromString(text[12 : 12 + length])
        assert struct.unpack("<I", text[12 + length : 16 + length])[0] == masked(text[12 : 12 + length])
        text = text[16 + length :]
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
    rows = [line.split(",") for line in (run[0] / "metrics.csv").read_text().splitlines()]
    loss = rows[0].index("loss")
    expected = {int(row[0]): float(row[loss]) for row in rows[1:]}
    assert {step: v for (tag, step), v in found.items() if tag == "loss"} == pytest.approx(expected, rel=1e-6)
    assert ("test/accuracy", 22) in found


def test_a_run_is_not_overwritten_and_not_mixed(run):
    out, _ = run
    with pytest.raises(typer.BadParameter, match="holds a run already"):
        train(SMALL, out, resume=False, progress=False)
    with pytest.raises(typer.BadParameter, match="seed was 0, is 1"):
        train(replace(SMALL, seed=1), out, resume=True, progress=False)


def test_changed_data_are_refused(run, digits, monkeypatch):
    out, _ = run
    images = digits.train[0].copy()
    images[7, 3, 3, 0] += 1
    monkeypatch.setattr("research.train.load", lambda *_: replace(digits, train=(images, digits.train[1])))
    with pytest.raises(typer.BadParameter, match="the arrays of --data digits are not those that"):
        train(SMALL, out, resume=True, progress=False)


def test_a_resume_without_a_run_is_refused(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(typer.BadParameter, match=r"there is no .*config\.json, so no run to go on with"):
        train(SMALL, out, resume=True, progress=False)
    assert not out.exists()


@pytest.mark.parametrize("text", ["", '{"width": ', "[]"])
def test_a_damaged_configuration_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(typer.BadParameter, match=r"config\.json is damaged .* Put it back"):
        train(SMALL, tmp_path, resume=True, progress=False)
    assert (tmp_path / "config.json").read_text() == text


def test_checkpoints_without_a_configuration_are_not_overwritten(tmp_path):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(typer.BadParameter, match="holds a run already"):
        train(SMALL, tmp_path, resume=False, progress=False)


def test_a_finished_run_resumed_is_the_same(run, tmp_path):
    before, state = run
    out = tmp_path / "run"
    shutil.copytree(before, out)
    again = train(SMALL, out, resume=True, progress=False)
    for a, b in zip(parameters(state), parameters(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    state = {"a": np.arange(5.0), "b": [np.ones((2, 3), np.float32), np.int32(7)]}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state)
    checkpoints.save(2, jax.tree.map(lambda a: a + 1, state))
    for path in (tmp_path / "2").rglob("*"):
        if path.is_file() and "d" in path.parent.name:
            path.write_bytes(path.read_bytes()[:3])
    step, found, passed = Checkpoints(tmp_path).restore(state)
    assert step == 1
    assert "step 2 could not be read" in passed[0]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def damage(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"x")


def test_after_a_damaged_checkpoint_an_earlier_step_is_saved(tmp_path):
    state = {"a": np.arange(5.0)}
    for step in (10, 20):
        Checkpoints(tmp_path).save(step, state)
    damage(tmp_path / "20")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state)[0] == 10
    assert checkpoints.steps == [10, 20]  # what cannot be read stays until there is something in its place
    checkpoints.save(15, {"a": np.ones(5)})
    assert checkpoints.steps == [10, 15]
    step, found, passed = Checkpoints(tmp_path).restore(state)
    assert (step, passed) == (15, [])
    np.testing.assert_array_equal(found["a"], np.ones(5))


def test_an_emptied_checkpoint_is_passed_over(tmp_path):
    """As a kill leaves it while it is removed."""
    state = {"a": np.arange(5.0)}
    Checkpoints(tmp_path).save(10, state)
    (tmp_path / "20").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state)[0] == 10
    checkpoints.save(20, state)
    assert Checkpoints(tmp_path).restore(state)[0] == 20


def test_a_damaged_last_checkpoint_is_written_anew(run, tmp_path):
    before, state = run
    out = tmp_path / "run"
    shutil.copytree(before, out)
    damage(out / "checkpoints" / "22")
    train(SMALL, out, resume=True, progress=False)
    step, found, passed = Checkpoints(out / "checkpoints").restore(state)
    assert (step, passed) == (22, [])
    for a, b in zip(parameters(state), parameters(found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_that_is_not_finite_is_passed_over(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": np.ones(2)})
    checkpoints.save(2, {"a": np.array([1, np.nan])})
    step, _, passed = checkpoints.restore({"a": np.ones(2)})
    assert step == 1
    assert "not finite: a" in passed[0]


FULL = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from research.records.checkpoints import Checkpoints
folder = Path(sys.argv[1])
checkpoints = Checkpoints(folder)
checkpoints.save(1, {"a": np.random.default_rng(0).random(1000)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as a full disk: a file may grow no further
try:
    checkpoints.save(2, {"a": np.random.default_rng(1).random(100_000)})
except OSError as e:
    print("told:", e)
"""


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "c")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "told: the checkpoint of step 2 could not be written" in done.stdout, done.stderr
    assert "step 1 is whole" in done.stdout
    step, state, _ = Checkpoints(tmp_path / "c").restore({"a": np.zeros(1000)})
    assert step == 1
    np.testing.assert_array_equal(state["a"], np.random.default_rng(0).random(1000))


def test_a_row_that_a_kill_has_cut_off_is_left_out(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        metrics.add({"step": step, "loss": step / 7})
    metrics.close()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "4,0.1")
    assert [row["step"] for row in Metrics(tmp_path, 2).rows] == ["1", "2"]
    assert path.read_text().count("\n") == 3


def test_loss_that_is_no_number_stops_with_a_report(tmp_path):
    with pytest.raises(Stopped, match="stopped at step"):
        train(
            replace(SMALL, rate=1e30, warmup=0.0, optimiser="sgd", schedule="constant"),
            tmp_path,
            resume=False,
            progress=False,
        )
    text = (tmp_path / "failure.md").read_text()
    assert "not finite in the state: parameters/" in text
    assert "learning rate: 1e+30" in text
    assert not (tmp_path / "model.safetensors").exists()


def test_the_failure_tells_where_it_began_and_the_losses_before(tmp_path):
    """Between two looks at the losses."""
    config = replace(SMALL, epochs=1, rate=1e30, warmup=0.0, optimiser="sgd", save_every=0, log_every=10)
    with pytest.raises(Stopped, match="stopped at step 10"):
        train(config, tmp_path, resume=False, progress=False)
    text = (tmp_path / "failure.md").read_text()
    assert "not finite since step 2\n" in text
    assert "the last finite losses: 2." in text
    assert "(step 1)" in text
    assert "nan (step" not in text


@pytest.mark.parametrize(
    ("decay", "words"), [(0.0, "not finite in the state: none"), (100.0, "not finite in the state: parameters/")]
)
def test_a_last_step_that_ruins_the_parameters_is_a_failure(decay, words, tmp_path):
    """Its own loss is finite, being that of the parameters before."""
    config = replace(SMALL, epochs=1, batch=1024, decay=decay, rate=3e38, warmup=0.0, optimiser="sgd")
    with pytest.raises(Stopped, match="stopped at step 1: loss 2"):
        train(config, tmp_path, resume=False, progress=False)
    text = (tmp_path / "failure.md").read_text()
    assert words in text
    assert "the last checkpoint: none" in text
    assert Checkpoints(tmp_path / "checkpoints").steps == []
    assert not (tmp_path / "train.md").exists()


def test_the_report_of_plain_layers_names_no_engine(tmp_path):
    train(replace(SMALL, op="lax", method="auto", epochs=1, batch=1024), tmp_path, resume=False, progress=False)
    assert ", engine lax," in (tmp_path / "train.md").read_text()


@pytest.mark.nightly
def test_a_signal_is_answered_with_a_checkpoint(tmp_path):
    done = command(tmp_path, "-c", SIGNALLED, str(int(signal.SIGTERM)), *POINTS["it is renamed"], "after")
    assert done.returncode == 1
    assert "which is saved. Go on with --resume" in " ".join(done.stderr.split())
    last = int(done.stderr.split("after step")[1].split()[0].rstrip(","))
    assert last in Checkpoints(tmp_path / "checkpoints").steps


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def after(config: Config, digits, steps: int, start=lambda state: state):
    trainer = Trainer(config, digits)
    state, step, _ = trainer.start()
    state, losses = start(state), []
    for number in range(steps):
        state, measured = step(state, number, *trainer.batch(number))
        losses.append(float(measured[0]))
    return state, losses


def test_the_convolution_network_is_the_twin_of_the_correlation_network(digits):
    """From flipped kernels, with flips of every state: to the last bit, on one engine."""
    a, losses = after(SMALL, digits, 3)
    b, twins = after(
        replace(SMALL, op="convolve"), digits, 3, lambda s: s._replace(parameters=flip_kernels(s.parameters))
    )
    assert losses == twins
    for u, v in zip(parameters(flip_kernels(a.parameters)), parameters(b.parameters), strict=True):
        np.testing.assert_array_equal(u, v)


def test_clipped_gradients_are_those_of_each_example(digits):
    """One step of SGD without momentum's memory, against a loop over the examples in NumPy."""
    config = replace(
        SMALL, batch=8, clip=0.5, optimiser="sgd", decay=0.0, warmup=0.0, schedule="constant", rate=1.0, shift=0
    )
    trainer = Trainer(config, digits)
    state, step, _ = trainer.start()
    images, labels = trainer.batch(0)
    graph = nnx.graphdef(trainer.model())

    def loss(parameters, x, label):
        logits = nnx.merge(graph, parameters, state.statistics)(x[None])[0]
        return jax.nn.logsumexp(logits) - logits[label]

    of_one = jax.jit(jax.grad(loss))
    sums = [np.zeros(a.shape) for a in parameters(state.parameters)]
    clipped = 0
    for x, label in zip(images, labels, strict=True):
        gradient = parameters(of_one(state.parameters, x, label))
        norm = np.sqrt(sum((g.astype(float) ** 2).sum() for g in gradient))
        clipped += norm > 0.5
        sums = [s + g * min(1.0, 0.5 / norm) for s, g in zip(sums, gradient, strict=True)]
    assert clipped
    moved, _ = step(state, 0, images, labels)
    for before, now, total in zip(parameters(state.parameters), parameters(moved.parameters), sums, strict=True):
        # Nesterov's first step is (1 + 0.9) times the gradient.
        np.testing.assert_allclose(now - before, -1.9 * total / 8, rtol=0, atol=2e-6)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "config",
    [
        Config(model="resnet", norm="group", width=2, batch=16, clip=1.0, noise=0.5, method="direct"),
        Config(
            model="convnext", width=4, batch=16, dtype="bfloat16", method="direct", flip=True, contrast=0.2, cutout=2
        ),
        Config(model="long", width=4, batch=16, op="convolve", schedule="step", smoothing=0.1),
        Config(model="resnet", width=2, batch=16, op="lax", schedule="linear"),
    ],
    ids=lambda c: c.model + c.norm,
)
def test_every_model_takes_steps(config, digits):
    state, losses = after(config, digits, 2)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(a).all() for a in parameters(state))
    assert all(a.dtype != jnp.bfloat16 for a in parameters(state.parameters))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "5000"], "--batch 5000 is more than the"),
        (["--model", "resnet", "--clip", "1"], "Pass --norm group"),
        (["--noise", "1"], "Pass --clip, too"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--seed", "-1"], "'--seed'"),
        (["--op", "lax", "--method", "fft"], "--method fft is an engine, and --op lax has none"),
        (["--norm", "group"], "--norm group changes resnet alone"),
        (["--shift", "8"], "shift must be 0 to 7"),
        (["--model", "convnext", "--width", "4", "--method", "winograd"], "`method='winograd'` was refused"),
    ],
)
def test_bad_options_are_told(arguments, words, tmp_path):
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "run"), *arguments], env={"COLUMNS": "200"})
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "run").exists()
