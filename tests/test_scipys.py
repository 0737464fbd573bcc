"""SciPy's own tests pass with jaxconv in SciPy's place, but for the exceptions that `tests/scipys.py` lists."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scipys import MODULES, TESTS

ROOT = Path(__file__).parent.parent

# At least so many tests, of six cases each, call jaxconv and pass, so that a selection gone wrong is seen; in the short
# form, as many as reach every function.
LEAST = {
    "test_signaltools": 250,
    "test_upfirdn": 35,
    "test_savitzky_golay": 13,
    "test_bsplines": 14,
    "test_special_matrices": 10,
    "test_filters": 350,
}


@pytest.mark.parametrize("module", MODULES)
def test_scipys_own(module, tmp_path):
    # No configuration: SciPy's tests keep their own filters of warnings.
    options = ["-ptests.scipys", "-pno:cacheprovider", "-pno:xdist", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-q", "--tb=short", "--pyargs", module],
        env=os.environ | {"PYTHONPATH": str(ROOT), "SCIPYS_REPORT": "report.json"},
        capture_output=True,
        text=True,
        cwd=tmp_path,  # for what SciPy's tests leave behind
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["missing"]
    assert set(report["calls"]) == set(MODULES[module].split())
    functions = len(MODULES[module].split())
    assert report["passed"] >= (min(TESTS, functions) if math.isfinite(TESTS) else LEAST[module.rpartition(".")[2]])
