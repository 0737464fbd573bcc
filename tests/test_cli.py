"""The command line: plan and tune for a user's file, and what it says to mistakes."""

import sys

import pytest
from typer.testing import CliRunner

from jaxconv.cli import app
from jaxconv.wisdom import read

PROGRAM = """
import jax.numpy as jnp
import jaxconv
from jaxconv.problem import Axis, Problem

def smooth():
    return jaxconv.convolve(jnp.ones(200), jnp.ones(5), "same")

problem = Problem((Axis(20, 3, 18),))
calls = [problem, (jaxconv.correlate, jnp.ones(30), jnp.ones(3))]
number = 3

def needs(x):
    return x
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize(("name", "count"), [("smooth", 1), ("problem", 1), ("calls", 2)])
def test_plan(program, name, count):
    result = run("plan", f"{program}:{name}")
    assert result.exit_code == 0, result.output
    assert result.output.count("forward pass") == count


def test_tune_writes_and_adds(program, tmp_path):
    out = tmp_path / "wisdom.json"
    assert run("tune", f"{program}:smooth", "--out", out, "--no-progress").exit_code == 0
    result = run("tune", f"{program}:calls", "--out", out, "--no-progress")
    assert result.exit_code == 0, result.output
    assert len(read(out).problems) == 3
    assert result.output.count("Problem(") == 2  # those of this call
    out.write_text("{}")
    result = run("tune", f"{program}:smooth", "--out", out)
    assert result.exit_code == 2
    assert "holds none" in result.output.replace("\n", " ")


def test_a_module_is_found_by_name(program, monkeypatch):
    monkeypatch.syspath_prepend(program.parent)
    assert run("plan", "program:problem").exit_code == 0
    sys.modules.pop("program")


@pytest.mark.parametrize(
    "target", ["nonsense", "no_such_module:f", "{file}:missing", "{file}:number", "missing.py:f", "{file}:needs"]
)
def test_mistakes_are_named(program, target):
    result = run("plan", target.format(file=program))
    assert result.exit_code == 2
    assert "Traceback" not in result.output
