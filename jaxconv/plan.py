"""plan: for a call, what each pass would run, and why the others would not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from jaxconv.arguments import as_array, renamed
from jaxconv.costs import is_prior
from jaxconv.jaxprs import contractions
from jaxconv.planner import Candidate, Options, candidates, planned_for
from jaxconv.problem import Problem

DERIVATIVES = {"forward": "", "input": ", if differentiated in x", "kernel": ", if differentiated in w"}


@dataclass(frozen=True)
class Plan:
    """One Problem's three passes on a platform. Printed, it is a table; "->" marks the choice.

    candidates: for each pass ('forward', 'input', 'kernel') every engine's answer, the cheapest
        that may run first.
    engines: for each pass, the name of the engine that would run, or None if the forced one refuses.
    """

    problem: Problem
    options: Options
    platform: str

    @cached_property
    def _passes(self) -> dict[str, tuple[Problem, Options]]:
        problem, options = self.problem, self.options
        return {
            "forward": (problem, options),
            "input": (problem.input_pass, options.input_pass),
            "kernel": (problem.kernel_pass, options.kernel_pass),
        }

    @cached_property
    def candidates(self) -> dict[str, tuple[Candidate, ...]]:
        return {name: candidates(p, w, self.platform) for name, (p, w) in self._passes.items()}

    @cached_property
    def engines(self) -> dict[str, str | None]:
        """For each pass the engine that would run; None where the forced one refuses."""
        chosen = {}
        for name, (_, options) in self._passes.items():
            admitted = [c.engine.name for c in self.candidates[name] if c.refusal is None]
            chosen[name] = next((engine for engine in options.engines or admitted if engine in admitted), None)
        return chosen

    @property
    def wishes(self) -> Options:
        """The old name of `options`."""
        renamed("Plan.wishes", "Plan.options")
        return self.options

    def __str__(self) -> str:
        problem = self.problem
        sizes = " ".join(f"{letter}={getattr(problem, letter)}" for letter in "ngcm")
        signs = {"correlation" if axis.D > 0 else "convolution" for axis in problem.axes}
        name = " and ".join(sorted(signs)) or "product"
        lines = [f"{name}, {sizes}, {problem.dtypes.y}, on {self.platform}; L*i + p = S*o + D*k with"]
        for axis in problem.axes:
            sum_x = f"{axis.L}*i + {axis.p}".replace("+ -", "- ")
            sum_y = f"{axis.S}*o + {axis.D}*k".replace("+ -", "- ")
            lines.append(f"  {sum_x} = {sum_y},  I={axis.I} K={axis.K} O={axis.O}")
        for name, answers in self.candidates.items():
            forced = self._passes[name][1].forward
            remark = f" (method={forced!r} forced)" if forced != "auto" else ""
            lines.append(f"{name} pass{DERIVATIVES[name]}{remark}")
            for c in answers:
                mark = "->" if c.engine.name == self.engines[name] else "  "
                answer = c.refusal or _answer(c, self._passes[name][0], self.platform)
                lines.append(f"  {mark} {c.engine.name:10}{answer}")
        if is_prior(self.platform):
            lines.append(f"estimates for {self.platform} are mostly arithmetic: no measurements were fitted")
        return "\n".join(lines)


def _answer(c: Candidate, problem: Problem, platform: str) -> str:
    if problem.is_empty:
        return "nothing to do"
    measured = f", measured {1e3 * c.measured:.3g} ms" if c.measured is not None else ""
    once = f", {c.compilation:.2g} s to compile" if c.compilation else ""
    between = c.engine.memory(problem, platform) / 1e6
    return f"about {1e3 * (c.seconds or 0):.3g} ms{measured}{once}, {between:.3g} MB between"


class Plans(tuple[Plan, ...]):
    """The plans of a call. Printed, one table below the other."""

    def __repr__(self) -> str:
        return "\n\n".join(map(str, self)) or "no contraction"


def plan(f: Callable | Problem, *args, platform: str | None = None, **kwargs) -> Plans:
    """The plans of every contraction in the call `f(*args, **kwargs)`, in the order of execution.

    `f` may be one of jaxconv's functions or any function that calls them: it is traced, not
    run, and arrays may be `jax.ShapeDtypeStruct`s, in keywords too. NumPy arrays beside others stay constants,
    as known kernels are. A gradient is a call like any other. Where `f`
    is a Problem, the plan is its own. `platform` is "cpu", "gpu" or "tpu", by default JAX's own.

    Parameters
    ----------
    f : a function, or a Problem
    *args, **kwargs : its arguments; leaves with a shape and a dtype are traced, others kept
    platform : "cpu" | "gpu" | "tpu"

    Returns
    -------
    Plans
        A tuple of `Plan`, empty where f contracts nothing. Estimates are in seconds.

    Raises
    ------
    ValueError
        An unknown platform; and whatever the call itself would raise.
    TypeError
        f is neither a function nor a Problem.

    >>> import jaxconv, numpy as np
    >>> [found] = plan(jaxconv.correlate, np.zeros(1000), np.zeros(9), "same", platform="cpu")
    >>> found.engines["forward"]
    'shifts'

    Source: the separation of problem and plan is FFTW's (Frigo and Johnson, 2005).
    """
    platform = platform or jax.default_backend()
    if platform not in ("cpu", "gpu", "tpu"):
        raise ValueError(
            f"`jaxconv.plan` got platform={platform!r}: the platforms are 'cpu', 'gpu' and 'tpu'. Pass one of them."
        )
    if isinstance(f, Problem):
        return Plans([Plan(f, Options(), platform)])
    if not callable(f):
        raise TypeError(
            f"`jaxconv.plan(f, *args)` got f of type {type(f).__name__}: it must be a function or a Problem. "
            "Pass the function and its arguments: `jaxconv.plan(jaxconv.correlate, x, h, 'same')`."
        )
    leaves, tree = jax.tree.flatten((args, kwargs))
    leaves = [as_array("jaxconv.plan", "an array", leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
    known = [isinstance(leaf, np.ndarray) for leaf in leaves]
    if any(array and not np_array for array, np_array in zip(is_array, known, strict=True)):
        is_array = [array and not np_array for array, np_array in zip(is_array, known, strict=True)]

    def call(*arrays):
        given = iter(arrays)
        args, kwargs = tree.unflatten(
            [next(given) if traced else leaf for leaf, traced in zip(leaves, is_array, strict=True)]
        )
        return f(*args, **kwargs)

    arrays = [leaf for leaf, traced in zip(leaves, is_array, strict=True) if traced]
    with planned_for(platform):
        jaxpr = jax.make_jaxpr(call)(*arrays).jaxpr
    return Plans(Plan(e.params["problem"], e.params["options"], platform) for e in contractions(jaxpr))
