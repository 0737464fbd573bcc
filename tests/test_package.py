"""The package as a whole: what an import costs and brings, what is public."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxconv
from jaxconv import attribution, lax, layers, matching, ndimage, signal
from scripts import matrix
from scripts.stays import calls, stays
from tests.faults import FAULTS

ROOT = Path(__file__).parent.parent
STREET = [
    "files", "processor", "problem", "arguments", "jaxprs", "boundary", "padding", "reference", "engines", "rates",
    "costs", "wisdom", "effort", "separable", "planner", "literal", "sharding", "primitive", "plan", "tune", "lax",
    "batched", "ndimage", "signal", "matching", "layers", "attribution", "identities", "versions", "cli",
]  # fmt: skip
FOLDERS = ("attribution", "engines", "identities", "layers", "lax", "matching", "ndimage", "signal")


def test_import_brings_nothing_beside_jax():
    code = (
        "import sys, jax, jax.numpy; before = set(sys.modules); import jaxconv;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before});"
        "print(*[n for n in ('flax', 'matplotlib', 'sklearn', 'skimage', 'scipy.signal', 'rich') if n in sys.modules])"
    )
    brought, unwanted = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split("\n")[:2]
    assert set(brought.split()) - {"jax"} <= {"jaxconv"} | sys.stdlib_module_names
    assert unwanted == ""


MODULES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted((ROOT / "jaxconv").rglob("*.py"))]


@pytest.mark.parametrize("path", MODULES)
def test_each_file_imports_only_from_those_above_it(path):
    part = path.relative_to(ROOT / "jaxconv").parts[0].removesuffix(".py")
    if part == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if names == ["jaxconv"]:
            names = [f"jaxconv.{alias.name}" for alias in node.names]
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert not name.startswith("jax._src")
            assert name != "jaxconv"  # it imports them all
            if name.startswith("jaxconv."):
                other = name.split(".")[1]
                assert STREET.index(other) < STREET.index(part) or other == part in FOLDERS


@pytest.mark.parametrize("path", MODULES)
def test_each_file_names_its_idea_and_is_of_readable_length(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 600


def test_the_version_stands_in_one_place():
    assert f"version: {jaxconv.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## (Unreleased|{jaxconv.__version__})", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert 'path = "jaxconv/versions.py"' in (ROOT / "pyproject.toml").read_text()


def test_the_tests_that_the_matrix_runs_exist():
    for name in (*matrix.CORE, *matrix.QUICK):
        assert (ROOT / "tests" / f"{name}.py").exists(), name


def test_the_page_of_faults_is_of_the_faults_that_are_planted():
    page = (ROOT / "docs" / "faults.md").read_text()
    assert [f.what for f in FAULTS if f"| {f.what} | {f.where} | " not in page] == []


def test_what_is_public():
    assert jaxconv.__all__ == sorted(jaxconv.__all__)
    for name in jaxconv.__all__:
        assert getattr(jaxconv, name).__doc__


SURFACES = [
    getattr(module, name) for module in (signal, ndimage, lax, matching, layers, attribution) for name in module.__all__
]


@pytest.mark.parametrize("f", SURFACES, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_docstrings_say_what_a_user_wants_to_know(f):
    """A formula, an example, what returns, what raises, what is static, where it is from."""
    assert "\n\n    " in inspect.cleandoc(f.__doc__)
    text = " ".join(f.__doc__.split())
    for word in (">>> ", "eturns", "aises", "tatic under `jax.jit`", "Source:"):
        assert word in text, word


@pytest.mark.parametrize(("call", "most"), [("convolve", 7), ("conv_general_dilated", 8)])
def test_a_call_goes_through_few_files_before_it_reaches_the_primitive(call, most):
    [found] = [f for name, f in calls().items() if f".{call}(" in name]
    files = stays(found)
    assert files[-1] == "primitive.py"
    assert len(files) <= most, files
