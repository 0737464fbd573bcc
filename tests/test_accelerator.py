"""scripts/accelerator, as far as a processor can run it."""

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxconv.engines import ENGINES

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


def run(*arguments):
    variables = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(
        ["./scripts/accelerator", *arguments], cwd=ROOT, env=variables, capture_output=True, text=True
    )


def test_all_stages_run_small(tmp_path, script):
    """Each leaves a file, nothing is wrong, and what was timed can be fitted."""
    done = run("--tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    accelerator = script("accelerator")
    assert "smoke: nothing was wrong" in done.stdout
    assert "verify: nothing was wrong" in done.stdout
    assert (tmp_path / "summary.txt").read_text() in done.stdout
    found = {stage: [*accelerator.entries(tmp_path / f"{stage}.jsonl")] for stage in accelerator.SECONDS}
    assert all(found.values()), found
    assert len(list(tmp_path.iterdir())) <= 8
    about, rows = script("fit").read(tmp_path / "sweep.jsonl")
    assert (about.platform, about.engines) == ("cpu", list(ENGINES))
    assert all(t > 0 for row in rows for t in row.times.values())
    for entry in found["bench"]:
        assert {"jaxconv", "lax", "engine"} <= set(entry)


def test_a_killed_stage_leaves_what_it_had_measured(tmp_path, script):
    accelerator, path = script("accelerator"), tmp_path / "smoke.jsonl"
    lines = accelerator.Lines(path, 10)
    for i in range(3):
        lines.add({"smoke": i, "dtype": "float32", "error": 0.0})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        ended = max(0, whole[:length].count(b"\n") - 1)
        found = [e["smoke"] for e in accelerator.entries(path)]
        assert found == [*range(len(found))]
        assert ended <= len(found) <= ended + 1  # the last line may lack its end only
    assert accelerator.summary(tmp_path)


def test_without_an_accelerator_the_remedy_is_told(tmp_path):
    done = run("--out", str(tmp_path))
    assert done.returncode == 2
    assert "JAX sees no accelerator here" in done.stderr
    assert "--tiny" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "no measurements"), ("[1, 2]", "no measurements"), ('{"platform": "gpu"}', "no measurements"),
     ('{"platform": "gpu", "device": "a", "jaxlib": "1", "engines": ["old"]}', "Measure anew"),
     (None, "too few to fit")],
)  # fmt: skip
def test_a_file_that_cannot_be_fitted_is_refused(tmp_path, script, text, says):
    path = tmp_path / "sweep.jsonl"
    head = {"platform": "gpu", "device": "a", "jaxlib": "1", "engines": list(ENGINES)}
    path.write_text(json.dumps(head) if text is None else text)
    fit = script("fit")
    with pytest.raises(fit.typer.BadParameter, match=says):
        fit.fit(data=path, write=False, worst=0)


def test_a_run_leaves_another_runs_files_alone(tmp_path):
    (tmp_path / "sweep.jsonl").write_text("measured")
    done = run("--tiny", "--only", "sweep", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "Name another folder" in done.stderr
    assert (tmp_path / "sweep.jsonl").read_text() == "measured"


def test_what_compiles_when_the_time_is_over_spoils_no_time(tmp_path, script, monkeypatch):
    """Nothing of a batch is given out while a program of it compiles; nothing begins when the time is over."""
    accelerator, begun, over = script("accelerator"), [], threading.Event()
    monkeypatch.setattr(accelerator, "THREADS", 2)

    def make(job):
        begun.append(job)
        if job:
            over.wait(10)

    lines = accelerator.Lines(tmp_path / "smoke.jsonl", 0)
    assert [*accelerator.in_batches(lines, range(6), make, 6)] == []
    over.set()
    assert len(begun) <= 3
    assert "still compiling" in (tmp_path / "smoke.jsonl").read_text()


def test_a_fit_replaces_the_arithmetic_and_keeps_it_for_what_was_not_met(tmp_path, script, monkeypatch):
    """Times of a device twice as slow as the arithmetic says: of the kinds of work that were met, twice the cost.

    An engine that was not measured keeps what it has.
    """
    fit, planner = script("fit"), script("jaxconv.planner")
    table = tmp_path / "costs.json"
    table.write_text((ROOT / "jaxconv" / "costs.json").read_text())
    monkeypatch.setattr(fit, "TABLE", table)
    monkeypatch.setattr(fit, "FOLDER", tmp_path)
    device = "NVIDIA H100 80GB HBM3"
    before = json.loads(table.read_text())[f"gpu:{device}"]["prior"]
    head = {"platform": "gpu", "device": device, "jaxlib": "0.11.2", "engines": list(ENGINES)}
    lines = [json.dumps(head)]
    for seed in [*range(-81, 0, 3), *range(20)]:
        problem = script("problems").random_problem(seed) if seed >= 0 else script("problems").ROWS[seed]
        answers = planner.candidates(problem, planner.Options(), "gpu")
        lines.append(
            json.dumps(
                [
                    seed,
                    repr(problem),
                    {c.engine.name: 2 * c.seconds for c in answers if c.seconds and c.engine.name != "gemm"},
                    None,
                ]
            )
        )
    (tmp_path / "sweep.jsonl").write_text("\n".join(lines) + "\n")
    fit.fit(data=tmp_path / "sweep.jsonl", write=True, worst=0)
    [(version, after)] = json.loads(table.read_text())[f"gpu:{device}"].items()
    assert version == "0.11.2"
    assert after["gemm"] == before["gemm"]
    assert after["shifts"]["integer products"] == before["shifts"]["integer products"]
    assert after["direct"]["bytes"] == pytest.approx(2 * before["direct"]["bytes"], rel=0.2)
