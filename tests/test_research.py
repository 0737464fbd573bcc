"""The research scripts, as a person runs them, in small."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "research").glob("*.py"))
pytestmark = pytest.mark.research

SMALL = {
    "worked_examples": [],
    "adjoint": ["--size", "48", "--kernel", "5"],
    "photograph": ["--name", "coins", "--passes", "1", "--method", "fft"],
    "probes": ["--patch", "50", "--count", "2"],
}


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"research.{script}", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    done = run(script, "--help")
    assert done.returncode == 0
    assert "--out" in done.stdout


@pytest.mark.parametrize("script", SMALL)
def test_small(script, tmp_path):
    done = run(script, "--out", str(tmp_path), *SMALL[script])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{script}.md").read_text().startswith("# ")
    assert "FAILS" not in done.stdout
    assert not list(tmp_path.glob("*.part"))


def test_twins(tmp_path):
    """In full, as in the demo: every verdict holds."""
    done = run("twins", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("- holds: ") == 5
    assert (tmp_path / "twins.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("adjoint", "--kernel", "4"),
        ("photograph", "--name", "lena"),
        ("photograph", "--method", "nope"),
        ("twins", "--epochs", "0"),
        ("twins", "--batch", "5000"),
    ],
)
def test_bad_arguments_are_named(arguments, tmp_path):
    option = arguments[1]
    done = run(*arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert option in done.stderr
    assert not list(tmp_path.iterdir())
