"""What an identity is: data, and a check that computes the same array by independent routes.

A check draws integers (or Gaussian integers) and yields claims. A `Claim` names one
array and gives it on up to three routes, none of which calls another:

    autodiff   functions of JAX: jaxconv's own, under grad, jvp, vmap and linear_transpose
    dense      explicit matrices, made from the relation by `matrices`; where there is none, other literal sums
    sums       the literal sums of the definition, in NumPy: the truth

The verifier runs the first under `jax.jit` with the engine that it judges.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.boundary import BOUNDARIES as boundaries
from jaxconv.engines import ENGINES
from jaxconv.jaxprs import contractions, evaluate, everywhere
from jaxconv.planner import PASSES, Options, refusal
from jaxconv.primitive import contract
from jaxconv.problem import Problem

T = TypeVar("T")
KINDS = {"integer": "iu", "real": "fV", "complex": "c"}  # NumPy's letters; ml_dtypes' are V
EVERY = ("integer", "real", "complex")
INEXACT = ("real", "complex")
MODES = ("full", "same", "valid")
BOUNDARIES = tuple(boundary.name for boundary in boundaries if boundary.ndimage)

# Shapes of a signal or image and of a kernel, by size: each seed takes the next.
SHAPES = [
    ((7,), (3,)),
    ((6, 5), (3, 2)),
    ((40,), (9,)),
    ((14, 17), (4, 3)),
    ((5, 4, 3), (2, 3, 1)),
    ((150,), (33,)),
    ((30, 26), (7, 5)),
    ((400,), (64,)),
]


class Domain(NamedTuple):
    """Where an identity holds."""

    kinds: tuple[str, ...] = EVERY
    modes: tuple[str, ...] = ()
    boundaries: tuple[str, ...] = ()
    strides: tuple[int, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        parts = [", ".join(self.kinds) if self.kinds != EVERY else "every dtype"]
        parts += [f"modes {', '.join(self.modes)}"] if self.modes else []
        parts += [f"boundaries {', '.join(self.boundaries)}"] if self.boundaries else []
        parts += [f"strides {', '.join(map(str, self.strides))}"] if self.strides else []
        return "; ".join(parts + ([self.note] if self.note else []))


class Bounded(NamedTuple):
    """A value, and how far from it what was computed may be."""

    value: np.ndarray
    error: Any = 0.0


class Rounded(NamedTuple):
    """An argument in extended precision, which its dtype cannot hold: the bound starts with what rounding it costs."""

    value: np.ndarray


class Claim(NamedTuple):
    """One array on several routes: `autodiff` are functions of `args`; `dense` and `sums` are values.

    An exact value is an array; one that NumPy had to round is `Bounded`.
    """

    what: str
    args: tuple[Any, ...]
    autodiff: Sequence[Callable]
    sums: Any
    dense: Sequence[Any] = ()


class Witness(NamedTuple):
    """A neighbouring statement that is false, and two arrays that it says are equal."""

    statement: str
    sides: Callable[[], tuple[Any, Any]]


@dataclass
class Case:
    """One run of a check: dtype, shapes, random numbers, and the engine that is judged."""

    dtype: str
    size: int
    seed: int
    domain: Domain
    engine: str = "auto"
    passes: tuple[str, ...] = PASSES
    platform: str = "cpu"

    def __post_init__(self):
        self.rng = np.random.default_rng([self.seed, self.size])
        self.shape, self.kernel_shape = SHAPES[self.size % len(SHAPES)]
        self.N, self.M = self.shape[0], self.kernel_shape[0]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_complex(self) -> bool:
        return np.dtype(self.dtype).kind == "c" if self.dtype != "bfloat16" else False

    def draw(self, *shape: int, largest: int = 3) -> np.ndarray:
        """Integers up to `largest` in size (Gaussian integers, where the dtype is complex)."""
        a = self.rng.integers(-largest, largest, shape, endpoint=True)
        if self.is_complex:
            a = a + 1j * self.rng.integers(-largest, largest, shape, endpoint=True)
        return np.asarray(a, self.exact)

    def normal(self, *shape: int) -> np.ndarray:
        """Normal numbers of the dtype, which fill its mantissa, in extended precision."""
        a = self.rng.normal(size=shape)
        if self.is_complex:
            a = a + 1j * self.rng.normal(size=shape)
        return np.asarray(a, jnp.dtype(self.dtype)).astype(np.clongdouble if self.is_complex else np.longdouble)

    def positive(self, *shape: int, largest: int = 3) -> np.ndarray:
        """Integers from 1 to `largest`."""
        return np.asarray(self.rng.integers(1, largest, shape, endpoint=True), self.exact)

    @property
    def exact(self):
        """The dtype of the sums: it holds these integers exactly."""
        return np.complex128 if self.is_complex else np.int64

    # With one seed an identity meets every second engine, at sizes that go with the engine's number: so
    # half of that number is taken off again, or it would meet every second option only.
    def turn(self, options: Iterable[T]) -> list[T]:
        """One of the options: sizes and engines take them in turn, and the eight sizes meet all of up to eight."""
        options = list(options)
        engine = list(ENGINES).index(self.engine) if self.engine in ENGINES else 0
        return [options[(self.size - engine // 2) % len(options)]]

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """A signal or image and a kernel."""
        return self.draw(*self.shape), self.draw(*self.kernel_shape)

    def on(self, f: Callable) -> Callable:
        """f, with every contraction on the engine that is judged, in each pass in which it serves."""
        return lambda *args: forced(f, self.engine, self.passes, self.platform)(*args)


@dataclass(frozen=True)
class Identity:
    """A statement that holds for all arrays of its domain, and how it is checked.

    name, theme: what it is called, and where it stands in the catalogue.
    statement, latex: the formula, in Unicode and in LaTeX. * is convolution, ⋆ correlation,
        f̃ is f flipped and conjugated, ⟨,⟩ the inner product, conj(a) b summed.
    domain: the dtypes, modes, boundaries and strides for which it holds.
    check: case -> claims.
    source: where the reader finds the proof.
    witness: where a neighbouring statement is false, a counterexample.
    """

    name: str
    theme: str
    statement: str
    latex: str
    domain: Domain
    source: str
    check: Callable[[Case], Iterator[Claim]] = field(repr=False)
    witness: Witness | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.statement} ({self.domain})"


class Theme:
    """The identities of one theme; `@theme(...)` over a check adds one."""

    def __init__(self, name: str):
        self.name = name
        self.identities: list[Identity] = []

    def __call__(
        self, name: str, statement: str, latex: str, source: str,
        domain: Domain = Domain(), witness: Witness | None = None,  # noqa: B008  (frozen)
    ) -> Callable:  # fmt: skip
        def add(check: Callable[[Case], Iterator[Claim]]):
            self.identities.append(Identity(name, self.name, statement, latex, domain, source, check, witness))
            return check

        return add


def forced(f: Callable, engine: str, passes: Sequence[str] = PASSES, platform: str = "cpu") -> Callable:
    """f, with `engine` asked for in each contraction and in each of `passes` that it does not refuse.

    A transformation of f's jaxpr: f itself needs no argument for it, and grad, vmap and jit of
    the result see the engine in the passes that they run.
    """
    if engine == "auto":
        return f

    def run(*args):
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        found = dict(everywhere(closed.jaxpr, "contract"))
        if len(found) < len(list(contractions(closed.jaxpr))):
            raise NotImplementedError(
                "`forced` met a contraction within a custom derivative or a kernel, where it cannot ask for an engine. "
                "Write the claim without it."
            )
        replace = {}
        for place, equation in found.items():
            problem, options = equation.params["problem"], equation.params["options"]
            options = _options(problem, options, engine, passes, platform)
            replace[place] = lambda inputs, p=problem, o=options: [contract(p, inputs[0], inputs[1], o)]
        leaves = evaluate(closed, jax.tree.leaves(args), replace)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return run


# The engine is judged whatever accuracy the function asks for: its bound is its own.
def _options(problem: Problem, given: Options, engine: str, passes, platform: str) -> Options:
    of = {"forward": problem, "input": problem.input_pass, "kernel": problem.kernel_pass}
    able = [name for name in passes if not refusal(of[name], Options(forward=engine), platform)]
    others = {} if len(passes) == len(PASSES) else dict.fromkeys(PASSES, "shifts")  # one pass by itself: a diagnosis
    methods = dict.fromkeys(PASSES, "auto") | others | dict.fromkeys(able, engine)
    return given._replace(accuracy="normwise", **methods)
