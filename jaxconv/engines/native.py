"""native: a library of compiled loops, oneDNN, called through XLA's foreign function interface.

Its row in the table of engines, so that a plan names it: it does not run yet, and says so. The library comes with the
extra `jaxconv[native]`, where there is one for the machine.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from jax import Array

from jaxconv.engines.base import Engine, always
from jaxconv.problem import Problem

LIBRARY = "onednn-cpu-gomp"


@cache
def reason() -> str:
    """Why it does not run."""
    try:
        return f"this version of jaxconv does not call {LIBRARY} {version(LIBRARY)} yet; use method='auto'."
    except PackageNotFoundError:
        return f"{LIBRARY} is not installed; install jaxconv[native], or use method='auto'."


def refusal(problem: Problem, platform: str | None) -> str | None:
    return f"native: {reason()}"


def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    return {}


def memory(problem: Problem, platform="cpu") -> float:
    return 0.0


def run(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
    raise NotImplementedError(refusal(problem, platform))


def error(problem: Problem) -> tuple[float, float]:
    return 0.0, 0.0


NATIVE = Engine("native", always, refusal, work, memory, run, error, kinds={}, installed=False)
