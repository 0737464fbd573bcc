"""The choice: which engine runs a Problem, per pass and per platform.

A choice changes speed and rounding, never meaning. The planner computes nothing; it
asks every engine whether it can and what it would cost, and takes the cheapest that
the caller's wishes admit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import jax
from jax import lax

from jaxconv.costs import seconds
from jaxconv.engines import ENGINES, Engine
from jaxconv.problem import Problem
from jaxconv.wisdom import Wisdom, current

PASSES = ("forward", "input", "kernel")
PRECISION_NAMES = ("default", "fastest", "bfloat16", "high", "bfloat16_3x", "tensorfloat32", "highest", "float32")
Method = str | Mapping[str, str]
Accuracy = Literal["normwise", "elementwise"]
Precision = str | lax.Precision | tuple[str, str] | tuple[lax.Precision, lax.Precision] | None


@dataclass(frozen=True)
class Wishes:
    """What the caller asks of the engines: a method for each pass, accuracy, precision; and what is measured.

    A transposed Problem has its passes in another order, and so have its wishes.
    """

    forward: str = "auto"
    input: str = "auto"
    kernel: str = "auto"
    accuracy: str = "normwise"
    precision: tuple[lax.Precision, lax.Precision] | None = None
    wisdom: Wisdom | None = field(default=None, repr=False)

    @property
    def input_pass(self) -> "Wishes":
        return replace(self, forward=self.input, input=self.forward)

    @property
    def kernel_pass(self) -> "Wishes":
        return replace(self, forward=self.kernel, kernel=self.forward)


class Candidate(NamedTuple):
    """An engine's answer for one Problem: a refusal, or an estimate in seconds; and what wisdom has measured."""

    engine: Engine
    refusal: str | None
    seconds: float | None
    measured: float | None = None


def candidates(problem: Problem, wishes: Wishes, platform: str) -> list[Candidate]:
    """Every engine's answer: those that were measured first, then by estimate, the refusals last."""
    known = wishes.wisdom.measured(problem, platform) if wishes.wisdom else {}
    found = []
    for engine in ENGINES.values():
        if no := _refusal(engine, problem, wishes, platform):
            found.append(Candidate(engine, no, None))
            continue
        estimate = 0.0 if problem.is_empty else seconds(engine, problem, platform, wishes.precision)
        found.append(Candidate(engine, None, estimate, known.get(engine.name)))

    def rank(c: Candidate):
        return c.refusal is not None, c.measured is None, c.measured or 0.0, c.seconds or 0.0

    return sorted(found, key=rank)


def choose(problem: Problem, wishes: Wishes, platform: str) -> Engine:
    """The engine for a Problem: the forced one, or the cheapest that does not refuse."""
    if wishes.forward != "auto":
        check(problem, wishes, platform)
        return ENGINES[wishes.forward]
    best = candidates(problem, wishes, platform)[0]
    assert best.refusal is None, "shifts serves every problem, elementwise"
    return best.engine


def check(problem: Problem, wishes: Wishes, platform: str | None = None) -> None:
    """Raise the engine's sentence if the method that is forced for this pass refuses."""
    if no := refusal(problem, wishes, platform):
        shapes = zip("xwy", problem.dtypes, (problem.x_shape, problem.w_shape, problem.y_shape), strict=True)
        arrays = ", ".join(f"{name} {dtype}{list(shape)}" for name, dtype, shape in shapes)
        raise ValueError(f"`method={wishes.forward!r}` was refused for the contraction of {arrays}. {no}")


def refusal(problem: Problem, wishes: Wishes, platform: str | None = None) -> str | None:
    """The sentence of the engine that is forced for this pass, if it refuses."""
    if wishes.forward == "auto":
        return None
    return _refusal(ENGINES[wishes.forward], problem, wishes, platform)


def _refusal(engine: Engine, problem: Problem, wishes: Wishes, platform: str | None) -> str | None:
    if wishes.accuracy == "elementwise" and not engine.elementwise(problem):
        return (
            f"{engine.name}: its error is bounded by norms only, or it spreads a NaN, and accuracy='elementwise' was "
            "asked for; use accuracy='normwise'."
        )
    return engine.refusal(problem, platform)


def parse_wishes(
    call: str,
    method: Method = "auto",
    accuracy: str = "normwise",
    precision: Precision = None,
    others: tuple[str, ...] = (),
) -> Wishes:
    """The wishes of a call, checked. `method` is one name for all passes, or a mapping from pass to name.

    `others` are names that the caller serves by itself, for all passes.
    """
    names = ", ".join(map(repr, ("auto", *ENGINES, *(others if isinstance(method, str) else ()))))
    if isinstance(method, Mapping):
        unknown = [name for name in method if name not in PASSES]
        if unknown:
            raise ValueError(
                f"`{call}` got method={dict(method)!r}: its keys must be among {PASSES!r}. Name the passes so."
            )
        methods = {name: method.get(name, "auto") for name in PASSES}
    else:
        methods = dict.fromkeys(PASSES, method)
    for name in methods.values():
        if not isinstance(name, str):
            raise TypeError(
                f"`{call}` got method={method!r}: it must be a name, or a mapping from pass "
                f"('forward', 'input', 'kernel') to name. The names are {names}."
            )
        if name != "auto" and name not in ENGINES:
            raise ValueError(f"`{call}` got method={method!r}: the methods are {names}. Pass one of them.")
    if not isinstance(accuracy, str) or accuracy not in ("normwise", "elementwise"):
        raise ValueError(
            f"`{call}` got accuracy={accuracy!r}: it must be 'normwise' (every engine) or 'elementwise' "
            "(only engines whose error is bounded element by element). Pass 'normwise'."
        )
    if accuracy == "elementwise" and precision is None:
        precision = "highest"
    return Wishes(**methods, accuracy=accuracy, precision=_precision(call, precision), wisdom=current())


def _precision(call: str, precision) -> tuple[lax.Precision, lax.Precision] | None:
    if precision is None:  # read here, in the caller's context: the engines run later, at lowering
        context = getattr(jax.config, "jax_default_matmul_precision", None)
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
