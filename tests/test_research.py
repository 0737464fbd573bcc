"""The research scripts, as a person runs them, in small."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
SCRIPTS = [*sorted(path.stem for path in (ROOT / "research").glob("*.py")), "claims"]
pytestmark = pytest.mark.research

SMALL = {
    "worked_examples": [],
    "adjoint": ["--size", "48", "--kernel", "5", "--quick"],
    "photograph": ["--name", "coins", "--passes", "1", "--method", "fft"],
    "probes": ["--patch", "50", "--count", "2"],
    "heatmaps": ["--quick", "--steps", "8", "--count", "8"],
    "gain": ["--quick", "--steps", "4"],
}
CLAIMS = [*range(1, 18)]
SUMS = [1, 2, *range(4, 11)]  # photographs and trained networks stand behind the others


def asked(script: str, *arguments: str):
    """What a script answers without running: in this process."""
    module = importlib.import_module(f"research.{script}" + ".__main__" * (script == "claims"))
    app = typer.Typer()
    app.command()(module.main)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"research.{script}", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    done = asked(script, "--help")
    assert done.exit_code == 0
    assert "--out" in done.output


@pytest.mark.parametrize(
    "script", [pytest.param(s, marks=pytest.mark.nightly) if s in ("heatmaps", "gain") else s for s in SMALL]
)
def test_small(script, tmp_path):
    done = run(script, "--out", str(tmp_path), *SMALL[script])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{script}.md").read_text().startswith("# ")
    assert "FAILS" not in done.stdout
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("numbers", [SUMS, pytest.param(CLAIMS, marks=pytest.mark.nightly)], ids=["some", "all"])
def test_claims(numbers, tmp_path):
    """Every ruling stands, and is the one that docs/claims.md shows."""
    done = run("claims", "--out", str(tmp_path), *(f"--only={number}" for number in numbers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(numbers)} of {len(numbers)} rulings stand" in done.stdout
    documented = (ROOT / "docs" / "claims.md").read_text()
    found = (tmp_path / "claims.md").read_text()
    rows = [re.findall(r"^\| \[\d+\]\(#.*", text, re.MULTILINE) for text in (documented, found)]
    assert rows[1] == [row for row in rows[0] if int(re.findall(r"\d+", row)[0]) in numbers]
    assert len(rows[1]) == len(numbers)
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert all(f"]({name})" in documented for name in figures)
    if numbers == CLAIMS:
        assert figures == {path.name for path in (ROOT / "docs").glob("claims-*.png")}


def test_a_ruling_that_does_not_stand_is_told(tmp_path, monkeypatch):
    from research.claims import ledger

    def planted(out):
        """1 + 1 = 3."""
        ledger.check("the sum", 1 + 1 == 3)
        return ["evidence"]

    monkeypatch.setitem(ledger.CLAIMS, 99, (ledger.HOLDS, planted))
    [(number, stands, verdict, statement, evidence)] = ledger.rulings([99], tmp_path)
    assert (number, stands, statement) == (99, False, "1 + 1 = 3.")
    assert verdict == "DOES NOT STAND: holds"
    assert "the sum" in evidence[0]


@pytest.mark.nightly
def test_twins(tmp_path):
    """What must hold does."""
    done = run("twins", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "twins.md").read_text() == done.stdout.rstrip("\n") + "\n"
    assert (tmp_path / "twins.png").stat().st_size > 10_000
    assert not list(tmp_path.glob("*.part"))
    # Beyond these, what is said of trainings and of strangers is a finding of that run.
    assert done.stdout.count("\n- holds: in float") == 2
    assert "\n- holds: every network of the first experiment has learned" in done.stdout
    documented = (ROOT / "docs" / "twins.md").read_text()
    titles, findings = (
        [re.findall(pattern, text, re.MULTILINE) for text in (documented, done.stdout)]
        for pattern in (r"^#.*", r"^- (?:holds|not seen in this run): (.*?)(?: \(.*)?$")
    )
    assert titles[0] == titles[1]
    assert findings[0] == findings[1]
    assert len(findings[0]) == 10


@pytest.mark.nightly
def test_a_twin_that_does_not_turn_its_kernels_is_told(tmp_path):
    planted = "from research import twins; twins.convolution = twins.correlation; twins.typer.run(twins.main)"
    done = subprocess.run(
        [sys.executable, "-c", planted, "--epochs", "1", "--batch", "1437", "--seeds", "2", "--out", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("\n- FAILS: in float") == 2
    assert "Traceback" not in done.stderr


def demo(tree: Path, *names: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "scripts/demo.py", *names], capture_output=True, text=True, cwd=tree, check=False
    )


def test_an_experiment_that_fails_takes_no_other_along(tmp_path):
    shutil.copytree(ROOT / "research", tmp_path / "research", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "demo.py", tmp_path / "scripts")
    (tmp_path / "research" / "photograph.py").write_text("raise SystemExit('the lens is broken')")
    done = demo(tmp_path, "photograph", "worked_examples")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("FAILED: photograph")
    assert re.search(r"worked_examples done, [12] of 2", done.stdout)
    shown = (tmp_path / "out" / "demo.md").read_text()
    assert re.findall(r"^# .*", shown, re.MULTILINE) == ["# Worked examples", "# photograph FAILED with exit status 1"]
    assert "the lens is broken" in shown
    assert not list((tmp_path / "out").glob("*.part"))

    assert demo(tmp_path, "worked_examples").returncode == 0
    assert "FAILED" not in (tmp_path / "out" / "demo.md").read_text()
    assert demo(tmp_path, "holograph").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("adjoint", "--kernel", "4"),
        ("photograph", "--name", "lena"),
        ("photograph", "--method", "nope"),
        ("twins", "--epochs", "0"),
        ("twins", "--batch", "5000"),
        ("claims", "--only", "18"),
    ],
)
def test_bad_arguments_are_named(arguments, tmp_path):
    option = arguments[1]
    done = asked(*arguments, "--out", str(tmp_path))
    assert done.exit_code == 2
    assert option in done.output
    assert not list(tmp_path.iterdir())
