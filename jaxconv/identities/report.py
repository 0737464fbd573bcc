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
    comparisons: int = 0
    worst: Finding | None = None
    failures: int = 0
    witness: str = ""  # what is wrong with its witness
    cells: dict[tuple[str, str, int], Finding] = field(default_factory=dict)  # the worst by engine, dtype, size

    @property
    def fails(self) -> bool:
        return bool(self.failures or self.witness)

    @property
    def verdict(self) -> str:
        return "FAILS" if self.fails else "holds" if self.comparisons else "not served"

    def add(self, finding: Finding) -> None:
        self.comparisons += 1
        self.failures += not finding.holds
        key = finding.engine, finding.dtype, finding.size
        self.cells[key] = max(self.cells.get(key, finding), finding, key=_badness)
        self.worst = max(self.worst or finding, finding, key=_badness)


def _badness(finding: Finding) -> tuple[bool, bool, float]:
    """Failures first; then what JAX computed, before NumPy's own routes; then by the share of the bound."""
    share = finding.error / finding.bound if finding.bound else np.inf if finding.error else 0.0
    return not finding.holds, finding.route == "autodiff", share


@dataclass(frozen=True)
class Report:
    """The verdicts, the diagnoses of what failed, and where and when it was."""

    verdicts: list[Verdict]
    diagnoses: list[str]
    environment: dict[str, str]
    seconds: float
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """'all hold', or how many FAIL, or why nothing can be said."""
        failed = [v.identity.name for v in self.verdicts if v.fails]
        if failed:
            return f"{len(failed)} FAIL ({', '.join(failed[:KEPT])}{', ...' * (len(failed) > KEPT)})"
        if self.interrupted:
            return "interrupted"
        return "all hold" if self.comparisons else "nothing was served"

    @property
    def holds(self) -> bool:
        """Whether nothing failed, something was verified, and all of it was."""
        return self.verdict == "all hold"

    @property
    def comparisons(self) -> int:
        return sum(v.comparisons for v in self.verdicts)

    def print(self, console: Any) -> None:
        """The table, on a `rich.console.Console`."""
        from rich.table import Table

        table = Table("identity", "domain", "comparisons", "worst error / ulp", "bound / ulp", "verdict")
        for v, after in zip(self.verdicts, [*self.verdicts[1:], None], strict=True):
            worst = (number(v.worst.error), bound_of(v.worst)) if v.worst else ("", "")
            ends = after is None or after.identity.theme != v.identity.theme
            table.add_row(
                v.identity.name, str(v.identity.domain), str(v.comparisons), *worst, v.verdict, end_section=ends
            )
        console.print(table)
        for line in self.diagnoses:
            console.print(f"FAILS: {line}", markup=False, soft_wrap=True)
        console.print(self.summary, markup=False, soft_wrap=True)

    @property
    def summary(self) -> str:
        where = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        served = sum(v.comparisons > 0 for v in self.verdicts)
        return f"{served} identities, {self.comparisons} comparisons in {self.seconds:.0f} s: {self.verdict}. {where}"

    def as_json(self) -> dict[str, Any]:
        """All of it, in lists and dictionaries."""
        return {
            "environment": self.environment,
            "seconds": round(self.seconds, 1),
            "verdict": self.verdict,
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
                    "comparisons": v.comparisons,
                    "failures": v.failures,
                    "verdict": v.verdict,
                    "refuted_neighbour": v.identity.witness.statement if v.identity.witness else None,
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
    """Run the catalogue of identities on a device, and report what holds.

        |found - true| <= bound,   for every element of every claim on every route

    Each identity is computed by jaxconv under `jax.jit` with the engine that is judged, on integers and Gaussian
    integers, and compared with literal sums and dense matrices in NumPy. The bound follows from the jaxpr by running
    error analysis; it is 0 where arithmetic is exact. Errors are in units in the last place of the largest element.

    >>> report = verify(themes=["algebra"], engines=["direct"], dtypes=["int32"])
    >>> report.holds
    True

    Parameters
    ----------
    themes : names of `THEMES`, all by default
    engines, dtypes : what to judge, all pairs of them; 'auto' is the planner's choice
        By default all engines in float32 and complex64, and the planner's choice in int32 and float64; with one
        seed they take turns: each identity meets half of the engines in float32 and one in complex64, and every
        second identity float64.
    device : a platform such as 'cpu' or 'gpu', or one with a number, 'gpu:1'; JAX's default by default
    seeds : how many random cases for each identity, engine and dtype; each takes the next of the shapes
    progress : whether to show a progress bar on the error stream
    identities : other identities than the catalogue's

    Returns
    -------
    Report
        Its `holds` is True where all that was served holds, and something was. Comparisons whose bound is as large
        as the result, as it may be in half types, say nothing and are left out.

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
    failing: dict[str, tuple[Run, int]] = {}  # the first failing run of each identity, and its seed
    interrupted = False
    started = time.perf_counter()

    def on_device():
        return jax.default_device(place) if place else nullcontext()  # contexts are a thread's own

    def one(run: Run) -> tuple[Run, list[Finding]]:
        with on_device():
            return run, execute(run)

    with on_device():
        verdicts = {i.name: Verdict(i, witness=_witness(i)) for i in chosen}
    with _bar(len(todo), progress) as advance, ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        try:
            for run, findings in pool.map(one, todo):
                for finding in findings:
                    verdicts[finding.identity].add(finding)
                    if not finding.holds:
                        failing.setdefault(finding.identity, (run, finding.seed))
                advance()
        except KeyboardInterrupt:
            interrupted = True
            pool.shutdown(wait=True, cancel_futures=True)
    diagnoses = [f"{v.identity.name}: {v.witness}" for v in verdicts.values() if v.witness]
    if not interrupted:
        with on_device():
            diagnoses += [diagnose(*found) for found in list(failing.values())[:KEPT]]
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


def _witness(identity: Identity) -> str:
    """What is wrong with the identity's witness; nothing, if it refutes its neighbour."""
    try:
        told = "" if refuted(identity) else "it is true"
    except Exception as e:  # as in `execute`
        told = f"it raised {type(e).__name__}: {e}"[:300]
    statement = identity.witness.statement if identity.witness else ""
    return told and f"the witness against '{statement}' does not refute it: {told}."


def _device(name: str | None) -> Any:
    if name is None:
        return None
    kind, _, number = name.partition(":")
    try:
        return {str(d.id): d for d in jax.devices(kind or "none")}[number or str(jax.devices(kind)[0].id)]
    except (RuntimeError, KeyError) as e:
        every = {d for platform in ("cpu", jax.default_backend()) for d in jax.devices(platform)}
        have = ", ".join(sorted(f"{d.platform}:{d.id}" for d in every))
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
