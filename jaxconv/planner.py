"""The choice: which engine runs a Problem, per pass and per platform.

A choice changes speed and rounding, never meaning. The planner computes nothing; it
asks every engine whether it can and what it would cost, and takes the cheapest that
the caller's options admit.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import jax
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxconv.arguments import renamed
from jaxconv.costs import Estimate, estimated
from jaxconv.effort import CALLS
from jaxconv.effort import SCOPE as EFFORT
from jaxconv.effort import VARIABLE as EFFORT_VARIABLE
from jaxconv.effort import of_environment as effort_of_environment
from jaxconv.engines import ENGINES, Engine, engines_of
from jaxconv.problem import Problem
from jaxconv.wisdom import SCOPE, VARIABLE, Wisdom, of_environment

PASSES = ("forward", "input", "kernel")
SEPARABLE = "separable"  # the method of a known kernel that is split into one-dimensional ones
PRECISION_NAMES = ("default", "fastest", "bfloat16", "high", "bfloat16_3x", "tensorfloat32", "highest", "float32")
Method = str | Mapping[str, str]
Accuracy = Literal["normwise", "close", "elementwise"]
Precision = str | lax.Precision | tuple[str, str] | tuple[lax.Precision, lax.Precision] | None


class Options(NamedTuple):
    """How a call wants to be computed: parsed once, where the user hands it over, and passed on.

    forward, input, kernel: for each pass "auto", the name of an engine, or several names: the first that does not
        refuse.
    separable: "auto", or "always" for a known kernel that must be split into one-dimensional ones.
    accuracy, precision: as `jaxconv.convolve` has them.
    effort: how much compilation a faster call is worth.
    wisdom: what was measured.
    platform: what a plan is made for; None is what JAX runs on.

    A transposed Problem has its passes in another order, and so have its options.
    """

    forward: str | tuple[str, ...] = "auto"
    input: str | tuple[str, ...] = "auto"
    kernel: str | tuple[str, ...] = "auto"
    separable: Literal["auto", "always"] = "auto"
    accuracy: str = "normwise"
    precision: tuple[lax.Precision, lax.Precision] | None = None
    effort: str = "balanced"
    wisdom: Wisdom | None = None
    platform: str | None = None

    @property
    def input_pass(self) -> "Options":
        return self._replace(forward=self.input, input=self.forward)

    @property
    def kernel_pass(self) -> "Options":
        return self._replace(forward=self.kernel, kernel=self.forward)

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of the engines that are asked for in this pass; none for "auto"."""
        names = (self.forward,) if isinstance(self.forward, str) else self.forward
        return () if names == ("auto",) else names

    @property
    def is_local(self) -> bool:
        """Whether an output of this pass has the error of its own terms, and not one of the largest values."""
        return self.accuracy == "elementwise" or self.forward in ("direct", "shifts")


class Candidate(NamedTuple):
    """An engine's answer for one Problem: a refusal, or an estimate in seconds; and what wisdom has measured."""

    engine: Engine
    refusal: str | None
    seconds: float | None
    measured: float | None = None
    compilation: float = 0.0  # seconds, once

    def cost(self, calls: float) -> float:
        """Seconds of a call: as measured, for which it was compiled already, or estimated, with its share of that."""
        return self.measured or (self.seconds or 0.0) + self.compilation / calls


def candidates(problem: Problem, options: Options, platform: str, seen: bool = False) -> tuple[Candidate, ...]:
    """Every engine's answer: those that were measured first, then by cost, the refusals last.

    `seen` says that XLA must see into the engine, to export the program or to partition it over devices.
    """
    calls = CALLS[options.effort]
    return _candidates(problem, options.accuracy, options.precision, options.wisdom, calls, platform, seen)


@lru_cache(maxsize=4096)
def _candidates(problem: Problem, accuracy: str, precision, wisdom: Wisdom | None, calls: float, platform: str, seen):
    known = wisdom.measured(problem, platform) if wisdom else {}
    answers = []
    for engine in engines_of(accuracy).values():
        if no := _refusal(engine, problem, accuracy, platform, seen):
            answers.append(Candidate(engine, no, None))
            continue
        estimate = Estimate(0.0) if problem.is_empty else estimated(engine, problem, platform, precision)
        measured = known.get(engine.name) if engine in ENGINES.values() else None
        answers.append(Candidate(engine, None, estimate.seconds, measured, estimate.compilation))

    def rank(c: Candidate):
        return c.refusal is not None, c.measured is None, 0.0 if c.refusal else c.cost(calls)

    return tuple(sorted(answers, key=rank))


def choose(problem: Problem, options: Options, platform: str, seen: bool = False) -> Engine:
    """The engine for a Problem: the one that is asked for, or the cheapest that does not refuse."""
    if options.engines:
        check(problem, options, platform, seen)
        asked = (engines_of(options.accuracy)[name] for name in options.engines)
        return next(engine for engine in asked if not _refusal(engine, problem, options.accuracy, platform, seen))
    best = candidates(problem, options, platform, seen)[0]
    assert best.refusal is None, "shifts serves every problem, elementwise"
    return best.engine


def chain_pays(problem: Problem, links: Sequence[Problem], options: Options) -> bool:
    """Whether the links, one-dimensional contractions, are expected to take less time than the Problem that they make.

    That is decided when the call is traced, so for the platform that a plan is made for, or JAX's own.
    """
    platform = options.platform or jax.default_backend()

    def cost(problem: Problem) -> float:
        return candidates(problem, options, platform)[0].cost(CALLS[options.effort])

    return sum(map(cost, links)) < cost(problem)


def check(problem: Problem, options: Options, platform: str | None = None, seen: bool = False) -> None:
    """Raise the engine's sentence if the method that is asked for in this pass refuses."""
    if no := refusal(problem, options, platform, seen):
        shapes = zip("xwy", problem.dtypes, (problem.x_shape, problem.w_shape, problem.y_shape), strict=True)
        arrays = ", ".join(f"{name} {dtype}{list(shape)}" for name, dtype, shape in shapes)
        raise ValueError(f"`method={options.forward!r}` was refused for the contraction of {arrays}. {no}")


def refusal(problem: Problem, options: Options, platform: str | None = None, seen: bool = False) -> str | None:
    """The sentences of the engines that are asked for in this pass, if all refuse."""
    known = engines_of(options.accuracy)
    answers = [_refusal(known[name], problem, options.accuracy, platform, seen) for name in options.engines]
    return None if None in answers else " ".join(filter(None, answers)) or None


def _refusal(engine: Engine, problem: Problem, accuracy: str, platform: str | None, seen: bool) -> str | None:
    if seen and engine.opaque:
        return (
            f"{engine.name}: XLA cannot see into it, to export the program or to partition it over devices; use "
            "method='auto', or map over the devices with `jax.shard_map`."
        )
    if accuracy == "elementwise" and not engine.elementwise(problem):
        return (
            f"{engine.name}: its error is bounded by norms only, or it spreads a NaN, and accuracy='elementwise' was "
            "asked for; use accuracy='normwise'."
        )
    return engine.refusal(problem, platform)


_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def planned_for(platform: str) -> Iterator[None]:
    """Calls that are traced within have the options of this platform, whatever JAX runs on."""
    token = _PLATFORM.set(platform)
    try:
        with set_xla_metadata(planned_for=platform):  # part of the key by which JAX keeps what it has traced
            yield
    finally:
        _PLATFORM.reset(token)


def options_of(
    call: str,
    method: Method = "auto",
    accuracy: str = "normwise",
    precision: Precision = None,
    separable: bool = False,
) -> Options:
    """The options of a call, checked. `method` is one name for all passes, or a mapping from pass to name.

    `separable` says that the call can split a known kernel.
    """
    by_pass = isinstance(method, Mapping)
    context = getattr(jax.config, "jax_default_matmul_precision", None)  # read now: the engines run later, at lowering
    given = (tuple(method.items()) if by_pass else method), by_pass, accuracy, precision, context, separable
    try:
        hash(given)
        parse = _parsed
    except TypeError:
        parse = _parsed.__wrapped__
    options, wisdom = parse(call, *given), SCOPE.get()
    if wisdom is None and (path := os.environ.get(VARIABLE)):
        wisdom = of_environment(path)
    effort = EFFORT.get()
    if effort is None:
        effort = effort_of_environment(level) if (level := os.environ.get(EFFORT_VARIABLE)) else "balanced"
    return options._replace(effort=effort, wisdom=wisdom, platform=_PLATFORM.get())


@lru_cache(maxsize=1024)
def _parsed(call: str, method: Any, by_pass: bool, accuracy, precision, context, separable: bool) -> Options:
    names = ", ".join(map(repr, ("auto", *ENGINES, *((SEPARABLE,) if separable and not by_pass else ()))))
    split: Literal["auto", "always"] = (
        "always" if separable and isinstance(method, str) and method == SEPARABLE else "auto"
    )
    if by_pass:
        method = {str(name): engine for name, engine in method}
        unknown = [name for name in method if name not in PASSES]
        if unknown:
            raise ValueError(f"`{call}` got method={method!r}: its keys must be among {PASSES!r}. Name the passes so.")
        methods = {name: method.get(name, "auto") for name in PASSES}
    else:
        methods = dict.fromkeys(PASSES, "auto" if split == "always" else method)
    for name in methods.values():
        if not isinstance(name, str):
            raise TypeError(
                f"`{call}` got method={method!r}: it must be a name, or a mapping from pass "
                f"('forward', 'input', 'kernel') to name. The names are {names}."
            )
        if name != "auto" and name not in ENGINES:
            raise ValueError(f"`{call}` got method={method!r}: the methods are {names}. Pass one of them.")
    if not isinstance(accuracy, str) or accuracy not in get_args(Accuracy):
        raise ValueError(
            f"`{call}` got accuracy={accuracy!r}: it must be 'normwise' (every engine), 'close' (with errors close to "
            "the plain sum's) or 'elementwise' (only engines whose error is bounded element by element). Pass "
            "'normwise'."
        )
    if accuracy == "elementwise" and precision is None:
        precision = "highest"
    return Options(
        methods["forward"], methods["input"], methods["kernel"], split, accuracy,
        _precision(call, precision, context),
    )  # fmt: skip


def _precision(call: str, precision, context) -> tuple[lax.Precision, lax.Precision] | None:
    if precision is None:
        return (lax.Precision(context), lax.Precision(context)) if context in PRECISION_NAMES else None
    both = tuple(precision) if isinstance(precision, tuple | list) else (precision,)
    try:
        if len(both) not in (1, 2):
            raise ValueError
        parsed = tuple(p if isinstance(p, lax.Precision) else lax.Precision(p) for p in both)
    except (TypeError, ValueError) as e:
        raise ValueError(
            f"`{call}` got precision={precision!r}: it must be None, a `jax.lax.Precision`, one of its names "
            "('default', 'high', 'highest'), or a pair of these for input and kernel. Pass one of these."
        ) from e
    return parsed[0], parsed[-1]


def __getattr__(name: str) -> Any:
    if new := {"Wishes": Options, "parse_wishes": options_of}.get(name):
        renamed(f"jaxconv.planner.{name}", new.__name__)
        return new
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
