"""The verifier: the catalogue over engines, dtypes, shapes and seeds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from jaxconv.arguments import promoted, renamed
from jaxconv.engines import ENGINES
from jaxconv.identities.base import KINDS, SHAPES, Bounded, Case, Claim, Identity, Rounded
from jaxconv.identities.rounding import bounds
from jaxconv.jaxprs import contractions
from jaxconv.planner import PASSES, choose

WIDE = ("float64", "complex128", "int64")
DTYPES = ("int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64", "complex128")
SMALL = 4  # so many shapes are enough for a run of seconds
METHODS = ("auto", *ENGINES)


class Finding(NamedTuple):
    """One claim on one route in one case: how far off, how far off it may be, both in ulps of the largest element."""

    identity: str
    theme: str
    engine: str
    dtype: str
    size: int
    seed: int
    what: str
    route: str
    error: float
    bound: float
    holds: bool
    remark: str
    arrays: tuple[tuple[int, ...], ...]  # the shapes of the claim's arguments

    @property
    def road(self) -> str:
        """The old name of `route`."""
        renamed("Finding.road", "Finding.route")
        return self.route

    @property
    def shapes(self) -> str:
        return ", ".join("x".join(map(str, shape)) or "()" for shape in self.arrays)


@dataclass(frozen=True)
class Run:
    """What is to be verified: one identity with one engine, dtype and shape, for some seeds."""

    identity: Identity
    engine: str
    dtype: str
    size: int
    seeds: tuple[int, ...]
    passes: tuple[str, ...] = PASSES

    def case(self, seed: int) -> Case:
        platform = next(iter(jnp.zeros(()).devices())).platform  # of the default device, which may be set for a while
        return Case(self.dtype, self.size, seed, self.identity.domain, self.engine, self.passes, platform)


def kind(dtype: str) -> str:
    """'integer', 'real' or 'complex'."""
    return next(name for name, letters in KINDS.items() if jnp.dtype(dtype).kind in letters)


def runs(
    identities: Iterable[Identity],
    engines: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    seeds: int = 1,
) -> Iterator[Run]:
    """Every run of a verification.

    Where engines or dtypes are named, all pairs of them are run (all engines and float32, where the
    other alone is named). Otherwise all engines in float32 and, but for the native library, in complex64, and the
    planner's choice in int32 and float64; with a single seed they take turns, and each identity meets half of
    the engines in float32 and one in complex64, and every second identity float64. Each seed takes the next
    of the shapes; so do identity, engine and dtype.
    """
    turns = {}
    if engines or dtypes:
        pairs = [(engine, dtype) for engine in engines or METHODS for dtype in dtypes or ("float32",)]
    else:
        seen = [name for name, engine in ENGINES.items() if not engine.opaque]
        pairs = [(engine, dtype) for dtype in ("float32", "complex64") for engine in seen]
        pairs += [("auto", "int32"), ("auto", "float64"), ("native", "float32")]
        turns = {"float32": 2, "float64": 2, "complex64": len(seen)} if seeds == 1 else {}
    for identity in identities:
        place = crc32(identity.name.encode())  # its own, whatever stands beside it in the catalogue
        for number, (engine, dtype) in enumerate(pairs):
            if kind(dtype) not in identity.domain.kinds or (place + number) % turns.get(dtype, 1):
                continue
            for seed in range(min(seeds, len(SHAPES))):
                size = (place // 2 + number + seed) % (SMALL if seeds <= SMALL else len(SHAPES))
                yield Run(identity, engine, dtype, size, tuple(range(seed, seeds, len(SHAPES))))


def execute(run: Run) -> list[Finding]:
    """The findings of a run; none where the engine refuses everything that the identity asks of it."""
    # 'highest' is the precision for which the engines' bounds are derived.
    with jax.enable_x64(run.dtype in WIDE), jax.default_matmul_precision("highest"):
        found, compiled = [], None
        for seed in run.seeds:
            find = partial(Finding, run.identity.name, run.identity.theme, run.engine, run.dtype, run.size, seed)
            shapes = SHAPES[run.size % len(SHAPES)]
            try:
                case = run.case(seed)
                claims = list(run.identity.check(case))
                shapes = tuple(np.shape(_value(a)) for a in claims[0].args)
                if compiled is None:
                    compiled = _compile(claims, case)
                if not any(compiled.judged):
                    return []
                found += _judge(claims, compiled, case, find)
            except Exception as e:  # whatever a broken backend raises is a finding, too
                remark = f"raised {type(e).__name__}: {e}"[:500]
                found.append(find("the check", "autodiff", np.inf, 0.0, False, remark, shapes))
        return found if any(finding.route == "autodiff" for finding in found) else []


def refuted(identity: Identity) -> bool:
    """Whether the witness shows that the neighbouring statement is false; its sides have one shape."""
    if identity.witness is None:
        return True
    left, right = (np.asarray(side) for side in identity.witness.sides())
    return left.shape == right.shape and bool(np.any(left != right))


class Compiled(NamedTuple):
    """The claims' functions: their jaxprs, which of them the engine serves, and all compiled as one program."""

    jaxprs: list
    judged: list[bool]
    program: Callable


def _value(a):
    return a.value if isinstance(a, Rounded) else a


def _arguments(claim: Claim, dtype: str) -> list[np.ndarray]:
    def of(a):
        return promoted(dtype, np.complex64) if np.iscomplexobj(a) else jnp.dtype(dtype)

    return [np.asarray(a, of(a)) for a in map(_value, claim.args)]


def _given(claim: Claim, args: list[np.ndarray]) -> list:
    """The arguments for the analysis: what was rounded on the way in is known exactly."""
    return [
        Bounded(a.value, np.abs(given - a.value).astype(np.float64)) if isinstance(a, Rounded) else given
        for a, given in zip(claim.args, args, strict=True)
    ]


def _traced(claims: list[Claim], case: Case) -> list:
    """The jaxprs of the claims' functions, the engine asked for in as many passes as it serves."""
    # Derivatives of derivatives may turn a pass that an engine serves into one that it refuses.
    for passes in (case.passes, ("forward",)):
        case.passes = passes
        try:
            return [jax.make_jaxpr(f)(*_arguments(claim, case.dtype)) for claim in claims for f in claim.autodiff]
        except ValueError as e:
            if "was refused" not in str(e):
                raise
    return []


def _compile(claims: list[Claim], case: Case) -> Compiled:
    jaxprs = _traced(claims, case)
    used = [
        {choose(e.params["problem"], e.params["options"], case.platform).name for e in contractions(closed.jaxpr)}
        for closed in jaxprs
    ]
    judged = [case.engine == "auto" or case.engine in engines for engines in used]
    kept = [jaxpr_as_fun(closed) for closed, judge in zip(jaxprs, judged, strict=True) if judge]
    return Compiled(jaxprs, judged, jax.jit(lambda args: [f(*a)[0] for f, a in zip(kept, args, strict=True)]))


def _judge(claims: list[Claim], compiled: Compiled, case: Case, find: Callable) -> Iterator[Finding]:
    routes = [claim for claim in claims for _ in claim.autodiff]
    args = [_arguments(claim, case.dtype) for claim in routes]
    outputs = iter(compiled.program([a for a, judge in zip(args, compiled.judged, strict=True) if judge]))
    of_jax = iter(zip(compiled.jaxprs, compiled.judged, args, strict=True))
    for claim in claims:
        truth = claim.sums if isinstance(claim.sums, Bounded) else Bounded(np.asarray(claim.sums))
        shapes = tuple(np.shape(_value(a)) for a in claim.args)
        for value in claim.dense:
            yield find(claim.what, "dense", *_compared(value, truth, 0.0, case.dtype), shapes)
        for _ in claim.autodiff:
            closed, judge, given = next(of_jax)
            if judge:
                y = np.asarray(next(outputs))
                [bound] = bounds(closed, _given(claim, given), case.platform)
                found = _compared(y, truth, bound.error, case.dtype)
                if not _says_nothing(found, y, truth):
                    yield find(claim.what, "autodiff", *found, shapes)


def _says_nothing(found: tuple[float, float, bool, str], y: np.ndarray, truth: Bounded) -> bool:
    """Whether the bound is as large as the result itself, or there is none: so it may be in half types."""
    eps = float(jnp.finfo(y.dtype).eps) if jnp.issubdtype(y.dtype, jnp.inexact) else 0.0
    return found[2] and bool(np.any(truth.value)) and found[1] * eps >= 1


def _compared(value, truth: Bounded, allowed, dtype: str) -> tuple[float, float, bool, str]:
    """(error, bound, holds, remark) of the element that is worst against its bound, in ulps."""
    own = value.error if isinstance(value, Bounded) else 0.0
    value = value.value if isinstance(value, Bounded) else np.asarray(value)
    right = np.asarray(truth.value)
    if value.shape != right.shape:
        return np.inf, 0.0, False, f"the shape is {value.shape} and should be {right.shape}"
    if not right.size:
        return 0.0, 0.0, True, ""
    if kind(dtype) == "integer":  # arithmetic is modulo 2^bits
        value, right = value.astype(dtype), right.astype(dtype)
    wide = np.clongdouble if "c" in (right.dtype.kind, value.dtype.kind) else np.longdouble
    with np.errstate(invalid="ignore"):
        error = np.abs(value.astype(wide) - right.astype(wide)).astype(np.float64)
    allowed = np.broadcast_to(np.asarray(allowed + own + truth.error, np.float64), error.shape)
    good = (error <= allowed) | np.isposinf(allowed)  # false for a NaN
    ulp = float(jnp.finfo(dtype).eps) if kind(dtype) != "integer" else 1.0
    if kind(dtype) != "integer" and np.any(right):
        ulp *= float(np.abs(right).max())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(good, np.where(error > 0, error / allowed, 0.0), np.where(np.isnan(error), np.inf, 1 + error))
    worst = np.unravel_index(np.argmax(np.where(np.isnan(ratio), 0, ratio)), error.shape)
    e = float(error[worst]) / ulp
    return (np.inf if np.isnan(e) else e), float(allowed[worst]) / ulp, bool(good.all()), ""
