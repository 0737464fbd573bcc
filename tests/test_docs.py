"""The reference site: every public name stands in it, and its docstrings read as they were meant."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxconv
import jaxconv.attribution
import jaxconv.layers

ROOT = Path(__file__).parent.parent
MODULES = {jaxconv, jaxconv.signal, jaxconv.layers, jaxconv.attribution} | {
    m for m in map(jaxconv.__dict__.get, jaxconv.__all__) if inspect.ismodule(m)
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = ["build", "--strict", "--config-file", "docs/site/mkdocs.yml", "--site-dir", str(folder)]
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", *command],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


def public(module):
    defined = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return getattr(module, "__all__", [n for n in defined if n[0] != "_" and inspect.isroutine(getattr(module, n))])


def test_every_public_name_is_in_the_reference(site):
    pages = "".join(page.read_text() for page in sorted(site.glob("reference/*.html")))
    headings = set(re.findall(r'<h\d id="([^"]+)" class="doc', pages))
    for module in MODULES:
        assert public(module)
        # A function that hides the module it comes from, such as jaxconv.plan, has its heading under both names.
        paths = [(f"{module.__name__}.{name}", f"{module.__name__}.{name}.{name}") for name in public(module)]
        assert [path for path, hidden in paths if not {path, hidden} & headings] == []


def test_docstrings_read_as_they_were_meant(site):
    page = (site / "reference" / "signal.html").read_text()
    assert "<code>\u2060&#39;full&#39; | &#39;same&#39; | &#39;valid&#39;</code>" in page  # a type keeps its quotes
    assert re.search(r'class="note".*?Source: ', page, re.DOTALL)  # and is no exception that is raised
    for path in site.rglob("*.html"):
        assert "<blockquote>" not in path.read_text(), path  # an example outside a block of code


def test_links_to_source_lead_to_the_reference_and_nothing_is_fetched(site):
    assert 'href="inside/problem.html#jaxconv.problem"' in (site / "guide.html").read_text()
    for path in site.rglob("*.html"):
        assert not re.search(r'(src="|<link[^>]*href=")(https?:)?//', path.read_text()), path
