"""verify: the catalogue run on a device, and the report of it."""

import os
import platform as machine
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import jax
import jaxlib.version
import numpy as np

from jaxconv.identities.base import Identity
from jaxconv.identities.catalogue import CATALOGUE, THEMES
from jaxconv.identities.diagnosis import diagnose
from jaxconv.identities.verifier import DTYPES, METHODS, Finding, Run, execute, refuted, runs

KEPT = 10  # failures that are diagnosed


@dataclass
class Verdict:
    """What was found of one identity."""

    identity: Identity
    cases: int = 0
    worst: Finding | None = None
    failures: int = 0
    witness_refuted: bool = True
    cells: dict[tuple[str, str, int], Finding] = field(default_factory=dict)  # the worst by engine, dtype, size

    @property
    def holds(self) -> bool:
        return self.failures == 0 and self.witness_refuted and self.cases > 0

    @property
    def verdict(self) -> str:
        if not self.cases:
            return "not served"
        return "holds" if self.holds else "FAILS"

    def add(self, finding: Finding) -> None:
        self.cases += 1
        self.failures += not finding.holds
        key = finding.engine, finding.dtype, finding.size
        self.cells[key] = max(self.cells.get(key, finding), finding, key=_badness)
        self.worst = max(self.worst or finding, finding, key=_badness)


def _badness(finding: Finding) -> tuple[bool, float]:
    return not finding.holds, finding.error / finding.bound if finding.bound else np.inf if finding.error else 0.0


@dataclass(frozen=True)
class Report:
    """The verdicts, the diagnoses of what failed, and where and when it was."""

    verdicts: list[Verdict]
    diagnoses: list[str]
    environment: dict[str, str]
    seconds: float
    interrupted: bool = False

    @property
    def holds(self) -> bool:
        """Whether nothing failed, and something was verified."""
        tried = [v for v in self.verdicts if v.cases]
        return bool(tried) and all(v.holds for v in tried) and not self.interrupted

    @property
    def cases(self) -> int:
        return sum(v.cases for v in self.verdicts)

    def print(self, console: Any) -> None:
        """The table, on a `rich.console.Console`."""
        from rich.table import Table

        table = Table("identity", "domain", "cases", "worst error / ulp", "bound / ulp", "verdict")
        for v, after in zip(self.verdicts, [*self.verdicts[1:], None], strict=True):
            worst = (number(v.worst.error), bound_of(v.worst)) if v.worst else ("", "")
            ends = after is None or after.identity.theme != v.identity.theme
            table.add_row(v.identity.name, str(v.identity.domain), str(v.cases), *worst, v.verdict, end_section=ends)
        console.print(table)
        for line in self.diagnoses:
            console.print(f"FAILS: {line}", markup=False, soft_wrap=True)
        console.print(self.summary, markup=False, soft_wrap=True)

    @property
    def summary(self) -> str:
        failed = [v.identity.name for v in self.verdicts if v.cases and not v.holds]
        told = f"{len(failed)} FAIL ({', '.join(failed[:KEPT])})" if failed else "all hold"
        where = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        stopped = ", interrupted" if self.interrupted else ""
        served = sum(v.cases > 0 for v in self.verdicts)
        return f"{served} identities, {self.cases} comparisons in {self.seconds:.0f} s{stopped}: {told}. {where}"

    def as_json(self) -> dict[str, Any]:
        """All of it, in lists and dictionaries."""
        return {
            "environment": self.environment,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "holds": self.holds,
            "diagnoses": self.diagnoses,
            "identities": [
                {
                    "name": v.identity.name,
                    "theme": v.identity.theme,
                    "statement": v.identity.statement,
                    "latex": v.identity.latex,
                    "domain": str(v.identity.domain),
                    "source": v.identity.source,
                    "cases": v.cases,
                    "failures": v.failures,
                    "verdict": v.verdict,
                    "refuted_neighbour": v.identity.witness.statement if v.identity.witness else None,
                    "witness_refuted": v.witness_refuted,
                    "worst": [_cell(f) for f in v.cells.values()],
                }
                for v in self.verdicts
            ],
        }


def _cell(finding: Finding) -> dict[str, Any]:
    return finding._asdict() | {
        "shapes": finding.shapes,
        "error": finding.error if np.isfinite(finding.error) else str(finding.error),  # JSON has no infinity
        "bound": finding.bound if np.isfinite(finding.bound) else str(finding.bound),
        "holds": bool(finding.holds),
    }


def number(value: float) -> str:
    """An error in ulps."""
    return "0" if value == 0 else f"{value:.3g}"


def bound_of(finding: Finding) -> str:
    """A bound in ulps; "exact" for none."""
    return "exact" if finding.bound == 0 else number(finding.bound)


def verify(
    themes: Sequence[str] | None = None,
    engines: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    device: str | None = None,
    seeds: int = 1,
    progress: bool = False,
    identities: Sequence[Identity] | None = None,
) -> Report:
    """Run the catalogue of identities, and report what holds.

        |found - true| <= bound,   for every element of every claim on every road

    Each identity is computed by jaxconv under `jax.jit` with the engine that is judged, on integers and Gaussian
    integers, and compared with literal sums and dense matrices in NumPy. The bound follows from the jaxpr by running
    error analysis; it is 0 where arithmetic is exact. Errors are in units in the last place of the largest element.

    >>> report = verify(themes=["algebra"], engines=["direct"], dtypes=["int32"])
    >>> report.holds
    True

    Parameters
    ----------
    themes : names of `THEMES`, all by default
    engines, dtypes : what to judge; by default every engine in float32, and the planner's choice in int32,
        complex64 and float64. 'auto' is the planner's choice.
    device : a platform such as 'cpu' or 'gpu', or one with a number, 'gpu:1'; JAX's default by default
    seeds : how many random cases for each identity, engine and dtype; each takes the next of the shapes
    progress : whether to show a progress bar on the error stream
    identities : other identities than the catalogue's

    Returns
    -------
    Report
        Its `holds` is True where all that was served holds.

    Raises
    ------
    ValueError
        An unknown name, a device that JAX does not have, seeds < 1.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 3.3 (running error analysis).
    """
    for name, given, known in (
        ("theme", themes, tuple(THEMES)),
        ("engine", engines, METHODS),
        ("dtype", dtypes, DTYPES),
    ):
        if unknown := [one for one in given or () if one not in known]:
            raise ValueError(
                f"`verify` got {name}={unknown[0]!r}: it must be one of {', '.join(known)}. Pass one of them."
            )
    if seeds < 1:
        raise ValueError(f"`verify` got seeds={seeds}: it must be at least 1. Pass how many cases to draw.")
    place = _device(device)
    chosen = [i for i in (CATALOGUE if identities is None else identities) if not themes or i.theme in themes]
    todo = list(runs(chosen, engines, dtypes, seeds))
    verdicts = {i.name: Verdict(i, witness_refuted=refuted(i)) for i in chosen}
    failing: list[Run] = []
    interrupted = False
    started = time.perf_counter()

    def one(run: Run) -> tuple[Run, list[Finding]]:
        with jax.default_device(place) if place else nullcontext():  # contexts are a thread's own
            return run, execute(run)

    with _bar(len(todo), progress) as advance, ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        try:
            for run, findings in pool.map(one, todo):
                for finding in findings:
                    verdicts[finding.identity].add(finding)
                if any(not finding.holds for finding in findings):
                    failing.append(run)
                advance()
        except KeyboardInterrupt:
            interrupted = True
            pool.shutdown(wait=True, cancel_futures=True)
    with jax.default_device(place) if place else nullcontext():
        first = {run.identity.name: run for run in reversed(failing)}  # the first failing run of each identity
        diagnoses = [diagnose(run) for run in list(reversed(first.values()))[:KEPT]]
    diagnoses += [
        f"{v.identity.name}: its witness does not refute '{v.identity.witness.statement}'."
        for v in verdicts.values()
        if v.identity.witness and not v.witness_refuted
    ]
    used = place or jax.devices()[0]
    environment = {
        "device": f"{used.platform} ({used.device_kind})",
        "processor": machine.machine(),
        "python": machine.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "date": date.today().isoformat(),
    }
    return Report(list(verdicts.values()), diagnoses, environment, time.perf_counter() - started, interrupted)


def _device(name: str | None) -> Any:
    if name is None:
        return None
    kind, _, number = name.partition(":")
    try:
        return jax.devices(kind)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError) as e:
        have = ", ".join(sorted({f"{d.platform}:{d.id}" for d in jax.devices()}))
        raise ValueError(f"`verify` got device={name!r}: JAX has {have} here. Pass one of these.") from e


class _bar:
    """A progress bar of rich's; or nothing."""

    def __init__(self, total: int, shown: bool):
        self.total, self.shown = total, shown

    def __enter__(self):
        if not self.shown:
            return lambda: None
        from rich.console import Console
        from rich.progress import Progress

        self.progress = Progress(console=Console(stderr=True), transient=True)
        self.progress.start()
        task = self.progress.add_task("verifying", total=self.total)
        return lambda: self.progress.advance(task)

    def __exit__(self, *_):
        if self.shown:
            self.progress.stop()
