"""Wisdom and tune: what is kept, what is refused, and that a kill leaves the old file."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxconv
from jaxconv.engines import ENGINES
from jaxconv.planner import Options, candidates, choose, options_of
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem
from jaxconv.tune import measure, stopwatch
from jaxconv.wisdom import NONE, VARIABLE, read, signature, write

LAYER = Problem((Axis(12, 3, 10), Axis(12, 3, 10)), n=2, c=3, m=4)
OTHER = Problem((Axis(64, 5, 60),))


@pytest.fixture
def path(tmp_path) -> Path:
    """A file in which the engine that the planner would not take is measured as the fastest."""
    times = {engine.name: 1.0 for engine in ENGINES.values()}
    best = choose(LAYER, Options(), "cpu").name
    other = "gemm" if best != "gemm" else "direct"
    file = tmp_path / "wisdom.json"
    write(file, NONE.joined("cpu", LAYER, times | {other: 1e-6}))
    return file


def test_what_is_written_is_read_back(path):
    wisdom = read(path)
    [(platform, problem)] = wisdom.problems
    assert (platform, problem) == ("cpu", LAYER)
    assert len(wisdom.measured(LAYER, "cpu")) == len(ENGINES)
    assert wisdom.measured(LAYER, "gpu") == {} == wisdom.measured(OTHER, "cpu")
    more = wisdom.joined("cpu", OTHER, {"fft": 0.5})
    write(path, more)
    assert read(path) == more
    assert hash(read(path)) == hash(more)


def test_measured_times_choose_the_engine(path):
    wisdom = read(path)
    times = wisdom.measured(LAYER, "cpu")
    fastest = min(times, key=times.__getitem__)
    assert choose(LAYER, Options(wisdom=wisdom), "cpu").name == fastest != choose(LAYER, Options(), "cpu").name
    assert choose(OTHER, Options(wisdom=wisdom), "cpu") is choose(OTHER, Options(), "cpu")
    assert choose(LAYER, Options(forward="shifts", wisdom=wisdom), "cpu").name == "shifts"
    exact = candidates(LAYER, Options(accuracy="elementwise", wisdom=wisdom), "cpu")[0]
    assert exact.engine.elementwise(LAYER)


def test_the_scope_reaches_a_call_and_its_gradient(path):
    x, w = jnp.ones((2, 3, 12, 12)), jnp.ones((4, 3, 3, 3))
    layer = jaxconv.plan(jaxconv.lax.conv_general_dilated, x, w, (1, 1), "VALID")[0]
    times = dict.fromkeys(ENGINES, 1.0) | {"gemm": 1e-9}
    wisdom = NONE
    for problem in (layer.problem, layer.problem.input_pass, layer.problem.kernel_pass):
        wisdom = wisdom.joined("cpu", problem, times)
    write(path, wisdom)
    with jaxconv.wisdom(path) as found:
        assert found == wisdom
        inside = jaxconv.plan(jaxconv.lax.conv_general_dilated, x, w, (1, 1), "VALID")[0]
        text = str(inside)
    assert set(inside.engines.values()) == {"gemm"}
    assert "measured 1e-06 ms" in text
    assert options_of("test").wisdom is None
    assert "measured" not in str(jaxconv.plan(jaxconv.lax.conv_general_dilated, x, w, (1, 1), "VALID")[0])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda d: d["signature"].update(jaxlib="0.0.1"), "measured elsewhere .jaxlib '0.0.1', here"),
        (lambda d: d["signature"].update(device="abacus"), "measured elsewhere .device 'abacus'"),
        (lambda d: d["signature"].update(engines="direct"), "measured elsewhere .engines"),
        (lambda d: d["signature"].clear(), "measured elsewhere"),
        (lambda d: d.update(format=99), "another version of jaxconv"),
        (lambda d: d.pop("entries"), "the file holds none"),
        (lambda d: d["entries"].update(nonsense={}), "the file holds none"),
        (lambda d: next(iter(d["entries"].values())).update(fft=-1.0), "no positive number"),
        (lambda d: next(iter(d["entries"].values())).update(abacus=1.0), "belongs to no engine"),
    ],
)
def test_what_is_refused(path, spoil, reason):
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason) as e, jaxconv.wisdom(path):
        pass
    assert "jaxconv.tune" in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\x01", '{"format": 1, "signature": 3, "entries": {}}'])
def test_files_that_are_no_wisdom(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="the file holds none"):
        read(file)
    with pytest.raises(ValueError, match="the file holds none"):
        jaxconv.tune(LAYER, path=file, progress=False)
    assert file.read_text() == text  # nothing that was there is lost


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"), jaxconv.wisdom(tmp_path / "none.json"):
        pass


def test_the_environment_variable(path, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(path))
    assert options_of("test").wisdom == read(path)
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    monkeypatch.setenv(VARIABLE, str(bad))
    with pytest.warns(UserWarning, match=f"{VARIABLE} is ignored"):
        assert options_of("test").wisdom is None
    assert options_of("test").wisdom is None  # warned of once


def test_tune_finds_the_contractions_of_a_function(tmp_path):
    def loss(w, x):
        return (jaxconv.lax.conv_general_dilated(x, w, (1, 1), "VALID") ** 2).sum()

    x, w = jax.ShapeDtypeStruct((2, 3, 12, 12), jnp.float32), jax.ShapeDtypeStruct((4, 3, 3, 3), jnp.float32)
    file = tmp_path / "folder" / "wisdom.json"
    wisdom = jaxconv.tune(jax.grad(loss), w, x, path=file, progress=False)
    assert len(wisdom.problems) == 2  # the layer, and its gradient in w
    assert read(file) == wisdom
    more = jaxconv.tune(jaxconv.convolve, jnp.ones(99), jnp.ones(5), path=file, progress=False)
    assert len(more.problems) == 3
    for platform, problem in more.problems:
        times = more.measured(problem, platform)
        assert set(times) <= set(ENGINES)
        assert all(0 < seconds < 5 for seconds in times.values())
        assert choose(problem, Options(wisdom=more), platform).name == min(times, key=times.__getitem__)


def test_tune_measures_every_engine_of_a_call_that_admits_few():
    call = partial(jaxconv.convolve, accuracy="elementwise")
    found = jaxconv.tune(call, jnp.ones(3000), jnp.ones(200), progress=False)
    [(platform, problem)] = found.problems
    assert "overlap" in found.measured(problem, platform)


def test_tune_keeps_what_another_run_adds_meanwhile(path, monkeypatch):
    """The file is read again before it is written."""

    def measured(*_, **__):
        write(path, read(path).joined("cpu", Problem((Axis(5, 2, 4),)), {"direct": 1.0}))
        return {"direct": 1.0}

    monkeypatch.setitem(jaxconv.tune.__globals__, "measure", measured)
    found = jaxconv.tune(OTHER, path=path, progress=False)
    assert len(found.problems) == 3
    assert read(path) == found


def test_a_file_keeps_its_mode_and_a_link_its_target(path, tmp_path):
    path.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    write(link, NONE)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    write(tmp_path / "new.json", NONE)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_tune_of_a_call_without_contractions_says_so(tmp_path):
    with pytest.raises(ValueError, match="found no contraction"):
        jaxconv.tune(jnp.sin, jnp.ones(3), path=tmp_path / "w.json", progress=False)


def test_tune_shows_a_progress_bar(capfd):
    jaxconv.tune(OTHER)
    assert "measuring engines" in capfd.readouterr().out


def test_measure_runs_the_engine_that_is_named():
    with pytest.raises(ValueError, match="was refused"):
        measure(Problem((Axis(9, 2, 4, S=2),)), ["winograd"])
    found = measure(OTHER, ["fft", "direct"], seconds=0.001)
    assert list(found) == ["fft", "direct"]
    assert all(0 < t < 5 for t in found.values())


def test_a_loop_in_one_program_is_timed_less_an_empty_one(monkeypatch):
    """The contraction is in the loop, and not left away."""
    made = []

    def seconds(call, *arrays, calls=1):
        made.append(call)
        return 0.5 if "convolution(" in call.as_text() else 0.1

    monkeypatch.setitem(measure.__globals__, "_seconds", seconds)
    x, w = jnp.ones(OTHER.x_shape), jnp.ones(OTHER.w_shape)
    once = stopwatch(partial(contract, OTHER, options=Options("direct")), x, w, repeated=4)
    assert once() == pytest.approx((0.5 - 0.1) / 4)
    y = jnp.zeros(OTHER.y_shape)
    whole, empty = made[-2:]
    for program, result in ((whole, contract(OTHER, x, w)), (empty, y)):
        assert program.as_text().count("while(") == 1  # also the empty one's: XLA leaves away a loop that makes nothing
        np.testing.assert_array_equal(program(x, w, y)[0], result)


def test_engines_take_turns_and_one_far_behind_is_called_no_more(monkeypatch):
    """Each call of an engine takes a time of its own; what is a first call is not counted."""
    takes, calls = {"direct": 1e-3, "shifts": 0.3, "gemm": 2e-3}, []

    def seconds(call, *_):
        known.setdefault(call, len(known))
        name = list(takes)[known[call]]
        calls.append(name)
        return takes[name] * (1 if name in calls[:-1] else 50)

    known: dict = {}  # the engines' programs, in the order in which they are made
    monkeypatch.setitem(measure.__globals__, "_seconds", seconds)
    monkeypatch.setitem(measure.__globals__, "MOST", 5)
    found = measure(OTHER, takes, seconds=0.03)
    assert found == pytest.approx({"direct": 1e-3, "shifts": 0.3 * 50, "gemm": 2e-3})
    assert calls.count("shifts") == 1
    turns = [name for name, before in zip(calls, ["", *calls], strict=False) if name != before]
    assert turns == ["direct", "shifts", "gemm", *["direct", "gemm"] * 3]


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, NONE)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("event", ["tempfile.mkstemp", "os.chmod", "os.rename", "none: it is written"])
def test_a_kill_while_writing_leaves_a_whole_file(event, path):
    """Before its temporary file is begun, when that is on the disk, before it is renamed, and after."""
    code = textwrap.dedent("""
        import os, signal, sys
        from jaxconv.wisdom import NONE, write

        def kill(event="", _=()):
            if event in (sys.argv[2], ""):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        write(sys.argv[1], NONE)
        kill()
    """)
    before = json.loads(path.read_text())
    process = subprocess.run([sys.executable, "-c", code, str(path), event], check=False)
    assert process.returncode == -signal.SIGKILL
    after = json.loads(path.read_text())
    assert after == (before | {"entries": {}} if event.startswith("none") else before)


def test_the_signature_names_engines_version_and_device():
    found = signature()
    assert all(name in found["engines"] for name in ENGINES)
    assert found["jaxlib"][0] == "0"
    assert found["device"]
