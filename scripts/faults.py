"""Plant every fault of tests/faults.py, run its identity as `jaxconv verify` does, and write docs/faults.md.

.venv/bin/python scripts/faults.py
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import jax
import jaxlib
import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))
from jaxconv.identities.verifier import Finding
from tests.faults import FAULTS, failures, planted

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
HEAD = """# The verifier verified

`jaxconv verify` is worth what it would notice. Each row is a single fault, planted in the running package by
[tests/faults.py](../tests/faults.py): one piece of one function's source is another. Beside it stands the first
comparison that failed, in the default run (or where a type is named in the table of faults, with `--dtype`).
[tests/test_faults.py](../tests/test_faults.py) plants every sixth with every run of the suite, with `--nightly` all of
them, and three identities that are false, which [tests/test_verify.py](../tests/test_verify.py) sees refuted.
"""


def told(finding: Finding) -> str:
    if np.isfinite(finding.error):
        return f"off by {finding.error:.2g} ulp (bound {finding.bound:.2g})"
    return finding.remark.split(":")[0] or "no number"


def main() -> None:
    rows, caught, by = [], 0, Counter()
    for fault in track(FAULTS, "faults"):
        with planted(fault):
            finding = next(failures(fault), None)
        caught += finding is not None
        code = " -> ".join(f"`` {piece} ``" if "`" in piece else f"`{piece}`" for piece in (fault.right, fault.wrong))
        found = f"{finding.engine}, {finding.dtype}, {finding.shapes}: {told(finding)}" if finding else "NOT CAUGHT"
        rows.append(f"| {fault.what} | {fault.where} | {code} | {fault.identity} | {found} |".replace("||", "\\|\\|"))
        by[fault.identity] += 1
    lines = [
        HEAD,
        f"{caught} of {len(FAULTS)} faults caught, by {len(by)} of the identities; jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, {jax.devices()[0].device_kind}, {time.strftime('%Y-%m-%d')}, "
        "`.venv/bin/python scripts/faults.py`.",
        "",
        "| fault | where | right -> wrong | identity | engine, type, shapes: what it found |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    part = PAGE.with_suffix(".md.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(part, PAGE)
    print(f"{caught} of {len(FAULTS)} caught; {PAGE}")
    sys.exit(caught != len(FAULTS))


if __name__ == "__main__":
    main()
