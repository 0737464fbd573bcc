"""Diagnosis: which engine, pass and smallest shape a failing run is to be blamed on."""

from dataclasses import replace
from math import prod

from jaxconv.engines import ENGINES
from jaxconv.identities.base import SHAPES
from jaxconv.identities.verifier import Finding, Run, execute
from jaxconv.planner import PASSES


def diagnose(run: Run, seed: int) -> str:
    """One sentence: the identity, the engine, the pass, the smallest failing shape, and how far off it is.

    `seed` is one with which the run failed.
    """
    run = replace(run, seeds=(seed,))
    failures = [(failure, r) for size in range(len(SHAPES)) if (failure := _failure(r := replace(run, size=size)))]
    if not failures:
        return f"{run.identity.name}: it failed with seed {seed}, and not again; the device is not to be trusted."
    failure, smallest = min(failures, key=lambda pair: sum(map(prod, pair[0].arrays)))
    engines = list(ENGINES) if run.engine == "auto" else [run.engine]
    to_blame = {e: passes for e in engines if (passes := _passes(replace(smallest, engine=e)))}
    others = [execute(replace(smallest, engine=e)) for e in ENGINES if e not in to_blame]
    blamed = "whatever the engine: not an engine's fault, but the relation's or its arguments'"
    if to_blame and any(found and all(finding.holds for finding in found) for found in others):  # some engine is right
        blamed = "; ".join(f"engine {e}, {' and '.join(passes)} pass" for e, passes in to_blame.items())
    off = failure.remark or f"off by {failure.error:.3g} ulp, the bound is {failure.bound:.3g}"
    return (
        f"{run.identity.name}: {blamed}; smallest failing shapes {failure.shapes} ({run.dtype}), "
        f"'{failure.what}' on the route {failure.route}: {off}."
    )


def _failure(run: Run) -> Finding | None:
    return next((finding for finding in execute(run) if not finding.holds), None)


def _passes(run: Run) -> list[str]:
    """The passes in which the engine fails by itself, the others left to `shifts`."""
    return [name for name in PASSES if _failure(replace(run, passes=(name,)))]
