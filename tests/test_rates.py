"""The rates of a machine: of which processor, whose file, and what becomes of a measurement that failed."""

import itertools
import json
import os
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxconv import calibrate, cli, costs, processor
from jaxconv import rates as module
from jaxconv.engines import ENGINES
from jaxconv.engines.base import COMPILED, RATES
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.processor import Processor
from jaxconv.rates import SHIPPED, measured, rates, shipped

LAYER = Problem((Axis(28, 3, 28, p=1),) * 2, n=4, c=32, m=32, layouts=Triple("n01gc", "01cgm", "n01gm"))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Where rates are kept; nothing is there yet."""
    rates.cache_clear()
    monkeypatch.setattr(module, "path", lambda: tmp_path / "jaxconv" / "rates.json")
    yield tmp_path / "jaxconv" / "rates.json"
    rates.cache_clear()


@pytest.fixture
def here(file, monkeypatch):
    """A file of this machine, all of whose rates are twice the shipped ones."""
    twice = {name: 2 * seconds for name, seconds in shipped(processor.processor()).seconds.items()}
    monkeypatch.setattr(module, "measured", lambda *_: twice)
    assert calibrate(progress=False).seconds == twice
    monkeypatch.undo()
    monkeypatch.setattr(module, "path", lambda: file)
    return file


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_kind_of_work_has_a_rate_and_every_class_all_rates(kind):
    assert set(SHIPPED[kind]) == set(RATES)
    for engine in ENGINES.values():
        assert set(engine.kinds.values()) <= set(RATES)
        assert {engine.kinds[name] for name in COMPILED} == {"compilation"}
    few, many = (shipped(Processor("", kind, cores, 1)).seconds for cores in (2, 16))
    assert few == SHIPPED[kind]
    assert all(many[name] <= few[name] for name in RATES)
    assert many["product"] == pytest.approx(few["product"] / 8)
    assert many["call"] == few["call"]


def test_estimates_are_units_of_work_times_what_a_unit_takes():
    unit = {name: 10.0**-i for i, name in enumerate(RATES)}
    table = {"gemm": {"products": 3.0, "call": 5.0, "times half": 2.0, "branches": 7.0}}
    found = costs.in_seconds(table, unit)["gemm"]
    assert found == {
        "products": 3 * unit["product"], "call": 5 * unit["call"],
        "times half": 2.0, "branches": 7 * unit["compilation"],
    }  # fmt: skip
    work = ENGINES["gemm"].work(LAYER, "cpu")
    seconds, once = costs.estimate(costs.in_seconds(table, unit), ENGINES["gemm"], LAYER)
    assert seconds == pytest.approx(3 * unit["product"] * work["products"] + 5 * unit["call"])
    assert once == pytest.approx(7 * unit["compilation"] * work["branches"])


@pytest.mark.parametrize(
    ("info", "caches", "expected"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: sse avx2 avx512f\n\nmodel name\t: other\n", ["32K", "1024K", "32M"],
         ("AMD EPYC", "avx512", 32 << 20)),
        ("flags : avx avx2\nmodel name : Core i5: mobile\n", ["48K", "6144K"], ("Core i5: mobile", "avx2", 6 << 20)),
        ("", [], (None, "avx2", processor.COMMON)),
        (None, ["no size"], (None, "avx2", processor.COMMON)),
    ],
)  # fmt: skip
def test_the_processor_is_what_linux_states(info, caches, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor, "CACHES", tmp_path)
    if info is not None:
        (tmp_path / "cpuinfo").write_text(info)
    for i, size in enumerate(caches):
        (tmp_path / f"index{i}").mkdir()
        (tmp_path / f"index{i}" / "size").write_text(size + "\n")
    found = processor.processor.__wrapped__()
    name, *others = expected
    assert [found.kind, found.cache] == others
    assert found.name == name or (name is None and found.name)
    assert found.cores >= 1


def test_what_was_measured_is_kept_and_read(here):
    twice = {name: 2 * seconds for name, seconds in shipped(processor.processor()).seconds.items()}
    rates.cache_clear()  # as another process
    assert rates().seconds == twice
    assert "as measured on 20" in rates().source
    assert set(json.loads(here.read_text())["key"]) == {"processor", "instructions", "jaxlib", "engines"}


def test_there_is_a_file_for_each_processor_jaxlib_and_list_of_engines(monkeypatch):
    first = module.path()
    assert first.suffix == ".json"
    assert first.name.startswith("rates-")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    second = module.path()
    monkeypatch.setattr(module, "ENGINES", {"telepathy": None})
    assert len({first, second, module.path()}) == 3


CLOCKS = {
    "stands": itertools.repeat(1.0),
    "runs backwards": itertools.count(0.0, -1e-3),
    "has no numbers": itertools.repeat(float("nan")),
    "is set forward in between": (t * (1e-9 if t < 50 else 1.0) for t in itertools.count(0)),
    "is a thousand times too fast": itertools.count(0.0, 1e3),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_lies(clock, here, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 6)
    monkeypatch.setattr(module, "CALLS", 1)
    monkeypatch.setattr(module, "measured", lambda *_: measured(partial(next, CLOCKS[clock])))
    before, old = here.read_bytes(), rates()
    with pytest.warns(UserWarning, match=r"calibrate kept nothing: .*The rates of before stay. Try again") as found:
        assert calibrate(progress=False) == old
    assert len(found) == 1
    assert here.read_bytes() == before


def test_a_full_disk(here, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "measured", lambda *_: dict(shipped(processor.processor()).seconds))
    monkeypatch.setattr(os, "fsync", full)
    before, old = here.read_bytes(), rates()
    with pytest.warns(
        UserWarning, match=r"No space left on device. The rates of before stay. Make .* writable"
    ) as found:
        assert calibrate(progress=False) == old
    assert len(found) == 1
    assert here.read_bytes() == before
    assert list(here.parent.iterdir()) == [here]


def other_machine(made):
    made["key"]["processor"] = "a quantum computer, 3 cores"


def other_engines(made):
    made["key"]["engines"] += " telepathy"


def other_format(made):
    made["format"] = 0


def a_rate_too_few(made):
    del made["seconds"]["trip"]


def a_rate_of_another_unit(made):
    made["seconds"]["product"] = 14.0


def no_number(made):
    made["seconds"]["loop"] = "fast"


def nothing_measured(made):
    del made["seconds"]


def another_key(made):
    made["key"] = ["processor"]


def a_list(made):
    made["seconds"] = list(made["seconds"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_machine, r"measured elsewhere \(processor 'a quantum computer, 3 cores', here '"),
        (other_engines, r"measured elsewhere \(engines '"),
        (other_format, "of another version of jaxconv"),
        (a_rate_too_few, "it has the rates "),
        (a_rate_of_another_unit, "14.0 s for a unit of 'product' are far from"),
        (no_number, "'fast' s for a unit of 'loop'"),
        (nothing_measured, "seconds"),
        (another_key, "has no attribute"),
        (a_list, "has no attribute"),
    ],
)
def test_a_file_that_is_not_for_here_is_ignored_with_one_warning(change, reason, here):
    made = json.loads(here.read_text())
    change(made)
    here.write_text(json.dumps(made))
    rates.cache_clear()
    with pytest.warns(UserWarning, match=rf"(?s)is ignored: .*{reason}.*measure anew") as found:
        assert rates() == shipped(processor.processor())
    assert len(found) == 1
    assert rates() == shipped(processor.processor())  # without another


def test_half_a_file_is_ignored(here):
    here.write_text(here.read_text()[:40])
    rates.cache_clear()
    with pytest.warns(UserWarning, match="is ignored"):
        assert rates() == shipped(processor.processor())


def test_measuring_finds_every_rate(monkeypatch):
    """That is, positive and finite ones, whatever this machine is; they are judged by a clock that counts its calls."""
    monkeypatch.setattr(module, "ROUNDS", 2)
    monkeypatch.setattr(module, "CALLS", 1)
    ticks = itertools.count(0.0, 1e-3)
    found = measured(lambda: next(ticks), progress=True)
    assert set(found) == set(RATES)
    assert found["call"] == pytest.approx(1e-3)
    assert found["product"] == pytest.approx(1e-3 / 512**3)


def test_the_programs_do_the_work_that_they_are_counted_for():
    for name, (f, arguments, units) in module._programs().items():
        assert np.isfinite(f(*arguments)).all(), name
        assert units >= 1, name


def test_the_command(file, monkeypatch):
    usual = shipped(processor.processor()).seconds
    monkeypatch.setattr(cli, "rates_path", module.path)
    monkeypatch.setattr(module, "measured", lambda *_: {name: 1.5 * seconds for name, seconds in usual.items()})
    result = CliRunner().invoke(cli.app, ["calibrate", "--no-progress"])
    assert result.exit_code == 0
    assert result.output.count("1.50 times the shipped") == len(RATES)
    assert f"kept in {file}" in result.output
    assert file.exists()
    monkeypatch.setattr(module, "measured", lambda *_: {})
    result = CliRunner().invoke(cli.app, ["calibrate", "--no-progress"])
    assert result.exit_code == 1
    assert "kept nothing: it has the rates" in result.output
    assert "times the shipped" not in result.output


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "jaxconv").write_text("a file in the folder's place")
    monkeypatch.setattr(module, "path", lambda: tmp_path / "jaxconv" / "rates.json")
    monkeypatch.setattr(module, "rates", lambda: shipped(processor.processor()))
    with pytest.warns(UserWarning, match="Make .* writable") as found:
        calibrate(progress=False)
    assert len(found) == 1
