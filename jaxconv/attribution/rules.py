"""ReLU with another backward rule, in a function that is not touched: a transformation of its program.

With z what a ReLU is given and R the cotangent that arrives from above, what goes on below is

    gradient    1[z > 0] R
    deconvnet   max(R, 0)
    guided      1[z > 0] max(R, 0)

The last two are not linear in R: they have a reverse mode, and no forward mode.

Sources: Zeiler and Fergus, Visualizing and understanding convolutional networks, 2013; Springenberg, Dosovitskiy, Brox
and Riedmiller, Striving for simplicity, 2014.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.extend.core import Literal as Constant

from jaxconv.jaxprs import (
    CALLS,
    ENTERED,
    REMATS,
    Equation,
    Place,
    Program,
    constants,
    evaluate,
    inner,
    opened,
    scanned,
)

Rule = Literal["gradient", "deconvnet", "guided"] | Callable[[Array, Array], Array]
RULES: dict[str, Callable[[Array, Array], Array]] = {
    "gradient": lambda z, r: jnp.where(z > 0, r, 0),
    "deconvnet": lambda z, r: jnp.maximum(r, 0),
    "guided": lambda z, r: jnp.where(z > 0, jnp.maximum(r, 0), 0),
}


@dataclass(frozen=True)
class Rectifier:
    """A ReLU in a program.

    index: its number in the order of the program. shape, dtype: of what it is given. calls: the calls in which it
    lies, from outside, for instance ('jit(block)', 'scan'). ceiling: of min(max(z, 0), ceiling), infinite for a ReLU.
    """

    index: int
    shape: tuple[int, ...]
    dtype: str
    calls: tuple[str, ...]
    ceiling: float = math.inf
    place: Place = field(default=(), repr=False)
    argument: int = field(default=0, repr=False)
    hidden: str = field(default="", repr=False)

    def __str__(self) -> str:
        name = "ReLU" if self.ceiling == math.inf else f"ReLU up to {self.ceiling:g}"
        where = f" in {' / '.join(self.calls)}" if self.calls and not self.hidden else ""
        return f"{name} {self.index}: {self.dtype}{list(self.shape)}{where}"


@dataclass(frozen=True)
class Report:
    """What a rule was put on, and what else bends in the program.

    overridden: the ReLUs with the rule. left: those that `where` left alone. untouched: (what, how often) of other
    nonlinearities, and of max(mean(x^2) - mean(x)^2, 0), which guards a variance and is no ReLU.
    """

    overridden: tuple[Rectifier, ...]
    left: tuple[Rectifier, ...]
    untouched: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        lines = [f"ReLUs with the rule: {len(self.overridden)}, left as they are: {len(self.left)}"]
        lines += [f"  {site}" for site in self.overridden]
        lines += [f"  left: {site}" for site in self.left]
        if self.untouched:
            lines.append("untouched: " + ", ".join(f"{what} ({count})" for what, count in self.untouched))
        return "\n".join(lines)


# ---- what is known of a value without computing it


@dataclass(frozen=True, eq=False)
class Fact:
    """A value of the program: its identity, and how it came about.

    depends: whether it depends on the arguments. number: if it is one number everywhere. above, below: the value of
    which it says that it is positive, negative. square: whether it is a square, or a sum or mean of squares, averaged
    in that case; guarded: whether it is such a mean less a square, as a variance is. rectified, ceiling: the value
    whose rectification it is. absolute: the value whose modulus it is.
    """

    depends: bool = True
    number: float | None = None
    above: "Fact | None" = None
    below: "Fact | None" = None
    square: bool = False
    averaged: bool = False
    guarded: bool = False
    rectified: "Fact | None" = None
    ceiling: float = math.inf
    absolute: "Fact | None" = None


MOVES = (
    "broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "copy", "copy_p", "expand_dims", "name", "pvary",
    "pcast", "reshard", "sharding_constraint", "stop_gradient",
)  # fmt: skip
PRODUCTS = ("mul", "div", "dot_general", "conv_general_dilated", "contract")  # bent, where both factors depend on x
NO_RELUS = ("celu", "hard_sigmoid", "hard_silu", "hard_swish")  # of jax.nn, which write them with one
BENT = (
    "tanh", "logistic", "erf", "erfc", "erf_inv", "exp", "exp2", "expm1", "log", "log1p", "sin", "cos", "tan", "asin",
    "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "abs", "max", "min", "clamp", "sort", "reduce_max",
    "reduce_min", "reduce_window_max", "reduce_window_min", "cummax", "cummin", "top_k", "argmax", "argmin", "sqrt",
    "rsqrt", "cbrt", "pow", "integer_pow", "square", "atan2", "sign", "floor", "ceil", "round", "rem", "select_n",
)  # fmt: skip


class _Analysis:
    """One reading of a program: its rectifiers, and its other nonlinearities."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.sites: list[Rectifier] = []
        self.untouched: Counter[str] = Counter()
        self.moved: dict[tuple[Fact, str, str], Fact] = {}

    def read(self, program: Program, facts: Sequence[Fact], calls=(), place: Place = (), hidden="") -> list[Fact]:
        jaxpr = opened(program)
        known = dict(zip(jaxpr.invars, facts, strict=True))
        known |= {v: Fact(False, _number(c)) for v, c in zip(jaxpr.constvars, constants(program), strict=False)}
        known |= {v: Fact(False) for v in jaxpr.constvars if v not in known}

        def of(v) -> Fact:
            return Fact(False, _number(v.val)) if isinstance(v, Constant) else known[v]

        for position, eqn in enumerate(jaxpr.eqns):
            here, inputs = (*place, position), [of(v) for v in eqn.invars]
            if eqn.primitive.name in ENTERED or inner(eqn):
                outputs = self._call(eqn, inputs, calls, here, hidden)
            else:
                outputs = [self._equation(eqn, inputs, calls, here, hidden)] * len(eqn.outvars)
            known |= dict(zip(eqn.outvars, outputs, strict=True))
        return [of(v) for v in jaxpr.outvars]

    def _call(self, eqn: Equation, inputs: list[Fact], calls, here: Place, hidden: str) -> list[Fact]:
        name, programs = eqn.primitive.name, inner(eqn)
        label = f"{name}({eqn.params['name']})" if isinstance(eqn.params.get("name"), str) else name
        within = (*calls, label)
        if eqn.params.get("name") in NO_RELUS:
            depends = any(fact.depends for fact in inputs)
            self.untouched[eqn.params["name"]] += depends
            return [Fact(depends) for _ in eqn.outvars]
        if name in CALLS or name in REMATS:
            program = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            return self.read(program, inputs, within, (*here, 0), hidden)
        if name == "custom_jvp_call" and len(eqn.outvars) == 1:
            given = [Fact(fact.depends, fact.number) for fact in inputs]  # of a variance, too: it is called a ReLU
            (output,) = _Analysis(self.call).read(eqn.params["call_jaxpr"], given, within)
            if output.rectified in given and not hidden:
                source = inputs[given.index(output.rectified)]
                self._found(eqn, inputs, source, output.ceiling, calls, here)
                return [Fact(rectified=source, ceiling=output.ceiling)]
        depends = any(fact.depends for fact in inputs)
        hidden = hidden or ("" if name in ENTERED else label)
        for which, program in enumerate(programs):
            facts = [Fact(depends) for _ in program.invars]
            if name == "scan":
                count = scanned(eqn)[0]
                facts[:count] = inputs[:count]
            elif name == "cond":
                facts = inputs[1:]
            self.read(program, facts, within, (*here, which), hidden)
        if not programs:
            self.untouched[label] += 1
        return [Fact(depends) for _ in eqn.outvars]

    def _found(self, eqn, inputs, source: Fact, ceiling: float, calls, here: Place, hidden: str = "") -> None:
        argument = inputs.index(source)
        aval = eqn.invars[argument].aval
        self.sites.append(
            Rectifier(len(self.sites), aval.shape, str(aval.dtype), calls, ceiling, here, argument, hidden)
        )

    def _equation(self, eqn: Equation, inputs: list[Fact], calls, here: Place, hidden: str) -> Fact:
        name = eqn.primitive.name
        depends = any(fact.depends for fact in inputs)
        if not eqn.outvars:
            return Fact(depends)
        aval = eqn.outvars[0].aval
        if name in MOVES:
            return self._moved(eqn, inputs[0])
        if name in ("gt", "ge", "lt", "le"):
            return _comparison(name, *inputs)
        if name == "not" or (name == "sub" and inputs[0].number == 1 and (inputs[1].above or inputs[1].below)):
            return Fact(depends, above=inputs[-1].below, below=inputs[-1].above)
        if not jnp.issubdtype(getattr(aval, "dtype", bool), jnp.floating):
            return Fact(depends)
        if name in ("pure_callback", "io_callback", "ffi_call"):
            raise ValueError(
                f"`{self.call}` cannot look into {name}: a ReLU may hide there. Write that part in JAX, or leave "
                "it out of the function."
            )
        if known := _composed(eqn, inputs):
            self.untouched["square"] += known.depends and known.square and not inputs[0].square
            return known
        source, ceiling = _rectified(name, inputs)
        if source is not None and source.guarded:
            self.untouched["max(mean of squares - square of mean, 0), which guards a variance"] += 1
            return Fact(depends)
        if source is not None and source.depends:
            self._found(eqn, inputs, source, ceiling, calls, here, hidden)
            return Fact(rectified=source, ceiling=ceiling)
        if name == "min":
            for a, b in (inputs, inputs[::-1]):
                if a.rectified is not None and b.number is not None:
                    return Fact(rectified=a.rectified, ceiling=min(a.ceiling, b.number))
        for a, b in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
            if (name == "min" and b.number == 0 and a.depends) or (name == "add" and b.absolute is a):
                form = "min(x, 0)" if name == "min" else "x + |x|"
                self._found(eqn, inputs, a, math.inf, calls, here, hidden or f"the form {form}")
                return Fact()
        if depends and (name in BENT or (name in PRODUCTS and all(fact.depends for fact in inputs))):
            self.untouched[_label(calls, name)] += 1
        return Fact(depends, absolute=inputs[0] if name == "abs" else None)

    def _moved(self, eqn: Equation, fact: Fact) -> Fact:
        """A value in another shape or type, known as it was; the same each time. In its own it is itself."""
        old, new = eqn.invars[0].aval, eqn.outvars[0].aval
        if old.shape == new.shape and old.dtype == new.dtype:
            return fact
        return self.moved.setdefault((fact, eqn.primitive.name, str(eqn.params)), replace(fact))


def _label(calls: Sequence[str], name: str) -> str:
    """'leaky_relu', where a nonlinearity is a function of its own; else the primitive."""
    named = [call[4:-1] for call in calls if call.startswith("jit(")]
    named = [call for call in named if not call.startswith("_")]
    return f"{name} in {named[-1]}" if named else name


def _number(value: Any) -> float | None:
    """The one number that a constant is everywhere."""
    dtype = value.dtype if hasattr(value, "dtype") else np.result_type(value)
    known = jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)
    if isinstance(value, Tracer) or not known or jnp.issubdtype(dtype, jnp.complexfloating) or not np.size(value):
        return None
    array = np.asarray(value)
    return float(array.flat[0]) if np.all(array == array.flat[0]) else None


def _composed(eqn: Equation, inputs: list[Fact]) -> Fact | None:
    """What is known of sums and products: squares and their means, masks, zeros."""
    name = eqn.primitive.name
    depends = any(fact.depends for fact in inputs)
    if name in ("square", "integer_pow") and eqn.params.get("y", 2) == 2:
        return Fact(depends, square=True)
    if name == "mul" and inputs[0] is inputs[1]:
        return Fact(depends, square=True)
    if name == "mul" and any(fact.number == 0 for fact in inputs):
        return Fact(False, 0.0)
    if inputs and inputs[0].square and (name == "reduce_sum" or (name in ("div", "mul") and not inputs[1].depends)):
        return Fact(depends, square=True, averaged=name == "reduce_sum" or inputs[0].averaged)
    if name == "sub" and inputs[0].averaged and inputs[1].square:
        return Fact(depends, guarded=True)
    if name == "select_n" and len(inputs) == 3:
        which, off, on = inputs
        if (off.number, on.number) == (0, 1):
            return replace(which)
        if any(a.square and b.number == 0 for a, b in ((on, off), (off, on))):
            return Fact(depends, square=True)
    return None


def _comparison(name: str, a: Fact, b: Fact) -> Fact:
    greater = name in ("gt", "ge")
    if b.number == 0:
        return Fact(a.depends, above=a) if greater else Fact(a.depends, below=a)
    if a.number == 0:
        return Fact(b.depends, below=b) if greater else Fact(b.depends, above=b)
    return Fact(a.depends or b.depends)


def _rectified(name: str, inputs: list[Fact]) -> tuple[Fact | None, float]:
    """(z, ceiling) where an equation is min(max(z, 0), ceiling) in one of the forms in which that is written."""
    if name == "max":
        for a, b in (inputs, inputs[::-1]):
            if b.number == 0 and a.number is None:
                return a, math.inf
    if name == "clamp" and inputs[0].number == 0 and inputs[2].number is not None:
        return inputs[1], inputs[2].number
    if name == "select_n" and len(inputs) == 3:
        which, off, on = inputs
        if which.above is not None and off.number == 0 and on is which.above:
            return on, math.inf
        if which.below is not None and on.number == 0 and off is which.below:
            return off, math.inf
    if name == "mul":
        for a, b in (inputs, inputs[::-1]):
            if b.above is a:
                return a, math.inf
    return None, math.inf


# ---- the transformation


def with_relu_rule(f: Callable, rule: Rule, where: Callable[[Rectifier], bool] | None = None) -> Callable:
    """f with another backward rule for its ReLUs, and with nothing else changed.

        z -> max(z, 0)   forward, as before
        R -> rule(z, R)  backward: 'gradient' 1[z>0] R, 'deconvnet' max(R, 0), 'guided' 1[z>0] max(R, 0)

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x: (jnp.array([1., -1.]) * jax.nn.relu(x)).sum()
    >>> guided = with_relu_rule(f, "guided")
    >>> jax.grad(f)(jnp.array([3., 5.])), jax.grad(guided)(jnp.array([3., 5.]))
    (Array([ 1., -1.], dtype=float32), Array([1., 0.], dtype=float32))
    >>> print(guided.report(jnp.array([3., 5.])))
    ReLUs with the rule: 1, left as they are: 0
      ReLU 0: float32[2]

    f is traced when the result is called, and its program evaluated with each ReLU replaced. A ReLU is known by its
    structure: jax.nn.relu (nnx.relu and linen.relu are the same object) and relu6, max(x, 0), where(x > 0, x, 0),
    x * (x > 0) and clamp from 0, in jit, remat, cond, scan and while as well. max(mean(x^2) - mean(x)^2, 0) guards a
    variance, in LayerNorm for instance, and is left alone.

    Parameters
    ----------
    f : Callable
        Any function that JAX can trace: of a Flax NNX model (closed over, or split and merged inside), of
        `module.apply`, or your own. It is not changed. Arrays and floats among its arguments are traced; integers,
        booleans, strings and the like are settings, as they are.
    rule : str or (z, R) -> R'
        A name, or a function of what the ReLU is given and of the cotangent.
    where : Rectifier -> bool, optional
        Which ReLUs get the rule. All, by default.

    Returns
    -------
    Callable
        A function with f's arguments and results, which composes with `jax.jit`, `jax.vmap` and reverse mode. Its
        `report(*args, **kwargs)` says which ReLUs have the rule, and which other nonlinearities the program has.

    Raises
    ------
    ValueError
        A rule that does not exist; when called: no ReLU to put the rule on (the message names what else bends), a ReLU
        in a place that cannot be rewritten (a custom derivative, a kernel, the forms x + |x| and min(x, 0)), a call
        into which one cannot look.

    Static under `jax.jit`: f, rule, where. Forward mode (`jax.jvp`, `jax.jacfwd`) is refused by JAX, as for every
    custom_vjp: the rules have none.

    Source: Zeiler and Fergus 2013; Springenberg et al. 2014.
    """
    return ruled_by("with_relu_rule", f, rule, where)


def ruled_by(call: str, f: Callable, rule: Rule, where: Callable[[Rectifier], bool] | None = None) -> Callable:
    """with_relu_rule(f, rule, where), with `call` in its messages."""
    backward = rule_of(call, rule)

    def analysed(*args, **kwargs):
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = {
            k: leaf for k, leaf in enumerate(leaves) if hasattr(leaf, "dtype") or isinstance(leaf, float | complex)
        }

        def of_arrays(arrays):
            args, kwargs = tree.unflatten([arrays.get(k, leaf) for k, leaf in enumerate(leaves)])
            return f(*args, **kwargs)

        program, shape = jax.make_jaxpr(of_arrays, return_shape=True)(arrays)
        return program, list(arrays.values()), jax.tree.structure(shape), report_of(call, program, where)

    @wraps(f)
    def ruled(*args, **kwargs):
        program, arrays, tree, report = analysed(*args, **kwargs)
        return tree.unflatten(evaluate(program, arrays, replacements(program, report, backward)))

    setattr(ruled, "report", lambda *args, **kwargs: analysed(*args, **kwargs)[3])  # noqa: B010  (for pyright)
    return ruled


def rule_of(call: str, rule: Rule) -> Callable[[Array, Array], Array]:
    if callable(rule):
        return rule
    if rule not in RULES:
        raise ValueError(
            f"`{call}` got rule={rule!r}: the rules are {', '.join(map(repr, RULES))}. Pass one of them, or a function "
            "(z, R) -> R'."
        )
    return RULES[rule]


def report_of(call: str, program: Program, where: Callable[[Rectifier], bool] | None) -> Report:
    """Which ReLUs of a program get the rule; an error where there is none, or one that is out of reach."""
    analysis = _Analysis(call)
    analysis.read(program, [Fact() for _ in program.jaxpr.invars])
    chosen = [site for site in analysis.sites if where is None or where(site)]
    untouched = tuple(sorted((+analysis.untouched).items()))
    for site in chosen:
        if site.hidden:
            form = site.hidden.startswith("the form")
            why = "which may be one" if form else "which has a derivative or a kernel of its own"
            raise ValueError(
                f"`{call}` found {site}, in {site.hidden}, {why}, and cannot rewrite it. Write it as jax.nn.relu(x) in "
                "the open, or leave it alone: with_relu_rule(f, rule, where=lambda r: not r.hidden)."
            )
    if not chosen:
        others = ", ".join(f"{what} ({count})" for what, count in untouched) or "none"
        found = "no ReLU" if not analysis.sites else f"{len(analysis.sites)} ReLUs, none of them chosen by `where`,"
        raise ValueError(
            f"`{call}` found {found} in the function: the backward rules say what a ReLU does, and leave "
            f"everything else as it is. Its other nonlinearities: {others}. Use `saliency` or `integrated_gradients`, "
            "which need no ReLU."
        )
    left = tuple(site for site in analysis.sites if site not in chosen)
    return Report(tuple(chosen), left, untouched)


def replacements(program: Program, report: Report, backward: Callable[[Array, Array], Array]):
    """What stands for each ReLU that has the rule, by place."""
    rectify = jax.custom_vjp(lambda z: jnp.maximum(z, 0))
    rectify.defvjp(lambda z: (jnp.maximum(z, 0), z), lambda z, r: (backward(z, r).astype(z.dtype),))

    def stands_for(site: Rectifier):
        def outputs(inputs):
            y = rectify(inputs[site.argument])
            shape = jnp.broadcast_shapes(*(jnp.shape(v) for v in inputs))
            if site.ceiling != math.inf:
                y = jnp.where(y < site.ceiling, y, jnp.asarray(site.ceiling, y.dtype))
            return [jnp.broadcast_to(y, shape)]

        return outputs

    return {site.place: stands_for(site) for site in report.overridden}
