"""The primitive: one bilinear operation whose derivatives are itself.

contract(problem, x, w) is y, the trilinear form with y left out. It is linear in x and
in w, so its derivatives are the form with x or with w left out, which are contractions
again: of `problem.input_pass` and of `problem.kernel_pass`. The two transpose rules
below say that, and are the theorem that the gradient of correlation is convolution:
the input pass of an axis has its D negated.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.experimental import jet
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from jaxconv.engines.base import merged
from jaxconv.literal import kept_local
from jaxconv.planner import Options, check, choose
from jaxconv.problem import Problem
from jaxconv.sharding import is_seen, under_automatic_axes


def contract(problem: Problem, x, w, options: Options = Options()):  # noqa: B008  (frozen)
    """y[n,g,m,o] = sum over c and the (i, k) that meet o of x[n,g,c,i] * w[g,m,c,k].

    `x` and `w` have the shapes, layouts and dtypes that `problem` states; so has y.
    Differentiable to any order in x and w, in forward and in reverse mode.

    >>> from jaxconv.problem import Axis, Problem
    >>> problem = Problem((Axis(I=3, K=2, O=4, D=-1),))                 # a convolution
    >>> contract(problem, jnp.array([[[[1., 2., 3.]]]]), jnp.array([[[[1., 10.]]]])).ravel()
    Array([ 1., 12., 23., 30.], dtype=float32)
    """
    return under_automatic_axes(problem, partial(contract_p.bind, problem=problem, options=options), x, w)


def _execute(x, w, *, problem: Problem, options: Options, platform: str, seen: bool):
    if problem.is_empty:
        return jnp.zeros(problem.y_shape, problem.dtypes.y)
    engine = choose(problem, options, platform, seen)
    run = partial(engine.run, problem, precision=options.precision, platform=platform)
    return kept_local(problem, run, x, w, options.precision) if options.accuracy == "elementwise" else run(x, w)


def _lowered(context, *operands, platform: str, **parameters):
    execute = partial(_execute, platform=platform, seen=is_seen(context.module_context))
    return mlir.lower_fun(execute, multiple_results=False)(context, *operands, **parameters)


_compiled = jax.jit(
    lambda x, w, problem, options: contract_p.bind(x, w, problem=problem, options=options), static_argnums=(2, 3)
)


def _evaluate(x, w, *, problem: Problem, options: Options):
    # An engine is chosen at lowering, so there is one even where jit is off. Where JAX looks for NaN, it would evaluate
    # the program again, one primitive at a time, and so come here for ever.
    with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
        y = _compiled(x, w, problem, options)
    for option, wrong in (("jax_debug_nans", jnp.isnan), ("jax_debug_infs", jnp.isinf)):
        if getattr(jax.config, option) and jnp.issubdtype(y.dtype, jnp.inexact) and wrong(y).any():
            raise FloatingPointError(f"invalid value ({option[10:-1]}) encountered in {contract_p.name}")
    return y


def _abstract(x: ShapedArray, w: ShapedArray, *, problem: Problem, options: Options) -> ShapedArray:
    for array, shape, dtype in ((x, problem.x_shape, problem.dtypes.x), (w, problem.w_shape, problem.dtypes.w)):
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"`contract(problem, x, w)` got an array {array.dtype}{list(array.shape)} where its problem states "
                f"{dtype}{list(shape)}. Make the Problem from the arrays' shapes."
            )
    check(problem, options)
    sharding = NamedSharding(x.sharding.mesh, PartitionSpec(*[None] * len(problem.y_shape)))
    return x.update(shape=problem.y_shape, dtype=jnp.dtype(problem.dtypes.y), weak_type=False, sharding=sharding)


# d/dx: the cotangent dy takes the place of the input.   dx = contract(input_pass, dy, w)
def _transpose_input(dy, x, w, *, problem: Problem, options: Options):
    return contract(problem.input_pass, dy, w, options.input_pass)


# d/dw: the cotangent dy takes the place of the kernel.  dw = contract(kernel_pass, x, dy)
def _transpose_kernel(dy, x, w, *, problem: Problem, options: Options):
    return contract(problem.kernel_pass, x, dy, options.kernel_pass)


# A batch is a letter. x and w share the letter that only one of them shares with y: copies
# of x alone are more n, copies of w alone are more m, copies of both are more groups.
def _batch(arrays, dims, *, problem: Problem, options: Options):
    (x, w), (bx, bw) = arrays, dims
    letter, size = ("m", w.shape[bw]) if bx is None else ("n" if bw is None else "g", x.shape[bx])
    folded = problem.fold(letter, size)
    x = x if bx is None else merged(x, bx, problem.layouts.x.index(letter))
    w = w if bw is None else merged(w, bw, problem.layouts.w.index(letter))
    place = problem.layouts.y.index(letter)
    shape = problem.y_shape
    return contract(folded, x, w, options).reshape(*shape[:place], size, *shape[place:]), place


# Taylor coefficients of a product are sums of products of coefficients.
def _taylor(arrays, series, *, problem: Problem, options: Options):
    x, w = ([first, *rest] for first, rest in zip(arrays, series, strict=True))
    y = [sum(contract(problem, x[j], w[k - j], options) for j in range(k + 1)) for k in range(len(x))]
    return y[0], y[1:]


contract_p = Primitive("contract")
contract_p.def_impl(_evaluate)
contract_p.def_abstract_eval(_abstract)
ad.defbilinear(contract_p, _transpose_input, _transpose_kernel)
batching.primitive_batchers[contract_p] = _batch
jet.jet_rules[contract_p] = _taylor
for _name, _platform in {"cpu": "cpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu"}.items():
    mlir.register_lowering(contract_p, partial(_lowered, platform=_platform), platform=_name)
