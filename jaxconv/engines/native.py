"""native: a library of compiled loops, oneDNN, called through XLA's foreign function interface.

Its row in the table of engines, so that a plan names it: it does not run yet, and says so. The library comes with the
extra `jaxconv[native]`, where there is one for the machine.
"""

from importlib.metadata import PackageNotFoundError, version

from jax import Array

from jaxconv.engines.base import Engine, always
from jaxconv.problem import Problem

LIBRARY = "onednn-cpu-gomp"


def refusal(problem: Problem, platform: str | None) -> str | None:
    try:
        found = f"{LIBRARY} {version(LIBRARY)}"
    except PackageNotFoundError:
        return f"native: {LIBRARY} is not installed; install jaxconv[native], or use method='auto'."
    return f"native: this version of jaxconv does not call {found} yet; use method='auto'."


def work(problem: Problem, platform="cpu", precision=None) -> dict[str, float]:
    return {}


def memory(problem: Problem, platform="cpu") -> float:
    return 0.0


def run(problem: Problem, x: Array, w: Array, precision=None, platform="cpu") -> Array:
    raise NotImplementedError(refusal(problem, platform))


def error(problem: Problem) -> tuple[float, float]:
    return 0.0, 0.0


NATIVE = Engine("native", always, refusal, work, memory, run, error, kinds=frozenset(), installed=False)
