"""Single faults, planted in the package while it runs: what `jaxconv verify` must catch.

A fault replaces one piece of one function's source, and its code object by that of the changed
source, so that whoever holds the function runs the fault.
"""

import ast
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from jaxconv.engines import onednn
from jaxconv.identities import CATALOGUE
from jaxconv.identities.verifier import Finding, execute, runs


class Fault(NamedTuple):
    """One fault: what is wrong, where, and the identity that tells."""

    what: str
    where: str  # module:function
    right: str  # a piece of its source, which stands there once
    wrong: str
    identity: str
    dtype: str | None = None  # where the default run has not the one that is wanted


def function(where: str):
    """The plain function at module:name, whatever wraps it."""
    module, _, name = where.partition(":")
    found = functools.reduce(inspect.getattr_static, name.split("."), importlib.import_module(f"jaxconv.{module}"))
    for inner in ("fget", "func", "__wrapped__"):  # of a property, a cached property, jit and caches
        found = getattr(found, inner, found)
    return found


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The fault, for a while."""
    f = function(fault.where)
    source = textwrap.dedent(inspect.getsource(f))
    assert source.count(fault.right) == 1, f"{fault.right!r} stands {source.count(fault.right)} times in {fault.where}"
    tree = ast.parse(source.replace(fault.right, fault.wrong))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    namespace: dict = dict(f.__globals__)
    exec(compile(tree, f"<{fault.what}>", "exec"), namespace)
    right = f.__code__
    f.__code__ = namespace[definition.name].__code__
    forget()
    try:
        yield
    finally:
        f.__code__ = right
        forget()


def forget() -> None:
    """Drop what was computed with other code."""
    jax.clear_caches()
    for handler in onednn._HANDLERS:
        handler.forget()
    for name, module in list(sys.modules.items()):
        if name.startswith("jaxconv"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def failures(fault: Fault) -> Iterator[Finding]:
    """What `jaxconv verify` finds wrong with the fault's identity: in its default run, where no dtype is named."""
    wanted = None if fault.dtype is None else [fault.dtype]
    for run in runs(CATALOGUE, dtypes=wanted):
        if run.identity.name == fault.identity:
            yield from (finding for finding in execute(run) if not finding.holds)


F = Fault
# fmt: off
FAULTS = [
    # ---- the relation
    F("a sign: the input pass keeps D", "problem:Axis.input_pass", "-self.D", "self.D", "dot test"),
    F("a sign: the input pass keeps p", "problem:Axis.input_pass", "-self.p", "self.p", "dot test"),
    F("swapped strides: the input pass keeps L and S", "problem:Axis.input_pass", "self.S, self.L", "self.L, self.S", "each pass against the others"),
    F("swapped strides: the kernel pass keeps S and D", "problem:Axis.kernel_pass", "self.D, self.S", "self.S, self.D", "gradient of convolution in its kernel"),
    F("a sign: the kernel pass negates p", "problem:Axis.kernel_pass", "self.p)", "-self.p)", "gradient of correlation in its kernel"),
    F("off by one: a flipped kernel", "problem:Axis.kernel_flipped", "(self.K - 1)", "self.K", "commutativity"),
    F("off by one: a flipped output", "problem:Axis.output_flipped", "(self.O - 1)", "self.O", "gradient of convolution in its kernel"),
    F("a sign: both sides times -1, but for p", "problem:Axis.negated", "p=-self.p", "p=self.p", "mixed second derivative"),
    F("a flip too few: D of the wrong sign", "problem:Axis.oriented", "axis.D * kernel_sign < 0", "axis.D > 0", "commutativity"),
    F("a sign: the pads of a longer input", "problem:Axis.extended", "self.p - self.L", "self.p + self.L", "gradients through boundaries"),
    F("off by one: how far the outputs reach", "problem:Axis._overhang", "high - (self.I - 1)", "high - self.I", "gradients through boundaries"),
    F("a conjugate pair of letters: n and c kept in the kernel pass", "problem:Problem.kernel_pass", "n=self.c, g=self.g, c=self.n", "n=self.n, g=self.g, c=self.c", "each pass against the others"),
    F("a transposed letter: m not renamed in the input pass", "problem:Problem.input_pass", '_renamed(lw, "c", "m")', "lw", "each pass against the others"),
    # ---- the primitive
    F("a pass for another: the gradient in the input by the layer itself", "primitive:_transpose_input", "contract(problem.input_pass, dy, w, options.input_pass)", "contract(problem, dy, w, options)", "dot test"),
    F("the batch of the kernel put before that of the input", "primitive:_batch", "if bx is None else (\"n\"", "if bx is not None else (\"n\"", "Hessian of a quadratic form"),
    F("the batch axis at another place", "primitive:_batch", ".reshape(*shape[:place], size, *shape[place:]), place", ".reshape(size, *shape), 0", "batch"),
    F("the gradient in the kernel twice, of groups only", "primitive:_transpose_kernel", "x, dy, options", "x, dy * (1 + (problem.g > 1 and problem.c > 1)), options", "layers and their gradients"),
    F("a conj too many: the gradient in the kernel", "primitive:_transpose_kernel", "x, dy, options", "x, dy.conj(), options", "dot test", "complex64"),
    # ---- pads, modes, lags
    F("off by one: the centre of a full correlation", "padding:mode_axes", "0 if flip else m - 1", "0 if flip else m", "flip law"),
    F("off by one: the centre of 'same' in convolution", "padding:mode_axes", "((m - 1) // 2 if flip else m // 2)", "(m // 2)", "circulant matrix"),
    F("off by one: the centre of 'same' in correlation", "padding:mode_axes", "((m - 1) // 2 if flip else m // 2)", "((m - 1) // 2)", "flip law"),
    F("off by one: the centre of 'valid' in convolution", "padding:mode_axes", "min(n, m) - 1 if flip", "min(n, m) if flip", "distributivity"),
    F("'valid' with the longer kernel", "padding:mode_axes", "max(m - n, 0)", "0", "flip law"),
    F("a sign: p of a convolution", "padding:mode_axes", "p=-centre if flip", "p=centre if flip", "distributivity"),
    F("a sign: convolution for correlation", "padding:mode_axes", "D=-1 if flip else 1", "D=1 if flip else -1", "commutativity"),
    F("a sign: the origin", "padding:mode_axes", "+ shift, n", "- shift, n", "circular convolution theorem"),
    F("a sign: the first lag", "padding:lag_axes", "p=-low", "p=low", "lags"),
    F("off by one: the output of a strided layer", "padding:lax_axes", "room // s + 1", "-(-room // s) + 1", "layers and their gradients"),
    F("off by one: the low pad of a layer", "padding:lax_axes", "p=low", "p=low + 1", "channels"),
    F("the odd pad at the other end: 'SAME'", "padding:_pads", 'if form == "SAME"', 'if form != "SAME"', "padding by name"),
    F("off by one: the extent of a dilated kernel", "padding:_dilated", "dilation * (extent - 1) + 1", "dilation * extent", "im2col"),
    F("a boundary for another: 'reflect'", "boundary:extended", "boundary.numpy[0])", '"reflect" if boundary.name == "reflect" else boundary.numpy[0])', "gradients through boundaries"),
    F("a boundary for another: 'wrap'", "boundary:extended", "boundary.numpy[0])", '"edge" if boundary.name == "wrap" else boundary.numpy[0])', "circulant matrix"),
    F("a boundary for another: 'mirror'", "boundary:extended", "boundary.numpy[0])", '"symmetric" if boundary.name == "mirror" else boundary.numpy[0])', "gradients through boundaries"),
    F("low and high changed places", "padding:extend", "axis.extended(low, high)", "axis.extended(high, low)", "circulant matrix"),
    # ---- the surfaces
    F("a missing conj: correlation", "batched:convolved", "if relation.flip else", "if True else", "correlation twice"),
    F("a conj too many: convolution", "batched:convolved", "if relation.flip else", "if False else", "Leibniz's rule"),
    F("a missing conj: a known kernel", "batched:convolved", "jax.tree.map(jnp.conj, (w.astype(dtype), terms))", "(jnp.conj(w.astype(dtype)), terms)", "kernels of rank r"),
    F("the longer array taken for the kernel", "batched:convolved", "[w.shape[d] for d in along])", "[w.shape[d] for d in along[::-1]])", "shifts"),
    F("off by one: all lags", "signal.lags:autocorrelation", "(1 - n, n - 1)", "(-n, n - 2)", "autocorrelation"),
    F("swapped rates: up and down", "padding:Resampled.axes", "L=self.up, S=self.down", "L=self.down, S=self.up", "scaling by dilation"),
    F("a sign: a filter of upfirdn unflipped", "padding:Resampled.axes", "D=-1", "D=1", "up, filter, down"),
    F("off by one: the rows of a convolution matrix", "signal.polynomials:convolution_matrix", '"full": (0, N + n - 1)', '"full": (1, N + n - 2)', "Toeplitz matrix"),
    F("a missing flip: true convolution layers", "lax.base:correlated", "axis.kernel_flipped for axis in axes", "axis for axis in axes", "stride against input dilation"),
    F("a transposed group: features before groups in the kernel", "lax.base:problem_of", '("gm", "c"))', '("mg", "c"))', "batch groups"),
    F("a transposed group: features before groups in the output", "lax.base:problem_of", '_layout(dims.out_spec, "n", "gm")', '_layout(dims.out_spec, "n", "mg")', "batch groups"),
    F("a transposed group: the input's features", "lax.base:problem_of", '("n", "gc")', '("n", "cg")', "groups"),
    F("a transposed group: batch groups", "lax.base:problem_of", '("gn", "c") if', '("ng", "c") if', "batch groups"),
    F("a missing flip: transposed layers", "lax.transposed:_correlate_transpose", "axis.kernel_flipped for axis in axes", "axis for axis in axes", "transposed convolution"),
    F("off by one: the pad of a transposed layer", "lax.transposed:_transposed_pads", "else -(-total // 2)", "else total // 2", "transposed convolution"),
    F("swapped features: the kernel of a transposed layer", "lax.transposed:_correlate_transpose", "rhs_spec=(feature, out, *spatial)", "rhs_spec=(out, feature, *spatial)", "transposed convolution"),
    F("a dilation lost: patches", "lax.patches:_features_of", "axis.D * k, axis.D * k + span", "k, k + span", "fold is im2col's transpose"),
    F("the order of a patch's taps", "lax.patches:_features_of", "jnp.stack(taps, 2 + d)", "jnp.stack(taps[::-1], 2 + d)", "a kernel for each place"),
    F("low and high changed places: fold", "lax.patches:_image_of", "(-low, -high, 0)", "(-high, -low, 0)", "fold is im2col's transpose"),
    F("a dilation lost: fold", "lax.patches:_image_of", "(axis.D * k, rest - axis.D * k, axis.S - 1)", "(k, rest - k, axis.S - 1)", "fold is im2col's transpose"),
    F("a sign: the difference of Sobel and Prewitt", "ndimage.derivatives:_derivative", "[-1, 0, 1]", "[1, 0, -1]", "filters and their boundaries"),
    F("a weight: the Laplacian", "ndimage.derivatives:laplace", "[1, -2, 1]", "[1, -4, 1]", "filters and their boundaries"),
    F("a dropped term: kernels of rank r", "separable:_split", "for r in range(rank)", "for r in range(1)", "kernels of rank r"),
    F("an axis convolved twice: the chain of a separable kernel", "separable:chain", "axes = [Axis(axis.O, 1, axis.O) for axis in axes]", "pass", "kernels of rank r"),
    # ---- what engines share
    F("off by one: zeros between dilated entries", "engines.base:padded", "axis.L - 1)", "axis.L)", "commutativity"),
    F("off by one: zeros before", "engines.base:padded", "(axis.p, length - axis.p", "(axis.p - 1, length + 1 - axis.p", "commutativity"),
    F("a dropped term: the last of an odd number", "engines.base:pairwise", "range(0, len(terms), 2)", "range(0, len(terms) - len(terms) % 2 or 1, 2)", "commutativity"),
    F("a stride lost: windows", "engines.base:window", "1 if d < 0 else steps[d])", "1)", "each pass against the others"),
    F("half the mantissa: doubles summed in float32", "engines.base:accumulator", '("float64", "complex128")', '("complex128",)', "rounding"),
    F("half the mantissa: complex doubles summed in complex64", "engines.base:accumulator", '("float64", "complex128")', '("float64",)', "rounding", "complex128"),
    F("phases of the wrong step", "engines.polyphase:axis_phases", "axis.L // gcd(axis.L, axis.D)", "axis.L // gcd(axis.L, axis.S)", "layers and their gradients"),
    F("a sign: the pad of a phase", "engines.polyphase:axis_phases", "- axis.S * a - axis.D * b) // axis.L", "- axis.S * a + axis.D * b) // axis.L", "each pass against the others"),
    F("phases woven in the wrong order", "engines.polyphase:_woven", "y = jnp.stack(parts)", "y = jnp.stack(parts[::-1])", "each pass against the others"),
    F("swapped steps: strides and dilations by parts", "engines.polyphase:_by_unit", "starts = [axis.S * a + axis.D * b", "starts = [axis.D * a + axis.S * b", "layers and their gradients"),
    F("off by one: where a stride's parts begin", "engines.polyphase:_by_unit", "letter, axis.p, step * I", "letter, axis.p - 1, step * I", "layers and their gradients"),
    F("dropped outputs: the last of a block of images", "engines.polyphase:_images_features", "min(M // axis.D, axis.K)", "min(M // axis.D, axis.K) - (axis.K > 2)", "zeros in the kernel"),
    # ---- direct
    F("direct, off by one: the high pad", "engines.direct:_high", "axis.L * (axis.I - 1)", "axis.L * (axis.I - 1) - 1", "autocorrelation"),
    F("direct, low and high changed places", "engines.direct:_convolved", "(axis.p, _high(axis))", "(_high(axis), axis.p)", "layers and their gradients"),
    F("direct, swapped strides: of the axes", "engines.direct:_convolved", "[axis.S for axis in problem.axes]", "[axis.S for axis in problem.axes[::-1]]", "per-example gradients"),
    F("direct, swapped dilations: of the axes", "engines.direct:_convolved", "[axis.D for axis in problem.axes]", "[axis.D for axis in problem.axes[::-1]]", "zeros in the kernel"),
    F("direct, a transposed group", "engines.direct:_split", '"gm"', '"mg"', "groups"),
    F("direct, a flip too few", "engines.direct:run", "oriented(problem, w, +1)", "oriented(problem, w[tuple(slice(None, None, -1) if c in problem.spatial else slice(None) for c in problem.layouts.w)], +1)", "autocorrelation"),
    # ---- shifts
    F("shifts, a dropped tap", "engines.shifts:_fused", "for k in product(*(range(axis.K) for axis in problem.axes))]", "for k in list(product(*(range(axis.K) for axis in problem.axes)))[-2:]]", "mixed second derivative"),
    F("shifts, a dilation lost", "engines.shifts:_terms", "[d * j for d, j in zip(D, k, strict=True)]", "list(k)", "each pass against the others"),
    F("shifts, a dropped feature", "engines.shifts:_fused", "for c in range(problem.c):", "for c in range(max(1, problem.c - 1)):", "residual layers"),
    F("shifts, many features: a dropped tap", "engines.shifts:_over_taps", "lax.fori_loop(1, prod(K)", "lax.fori_loop(min(2, prod(K)), prod(K)", "many channels"),
    F("shifts, swapped steps: one output at a time", "engines.shifts:_over_outputs", "[s * j for s, j in zip(S, o, strict=True)], K, D)", "[s * j for s, j in zip(D, o, strict=True)], K, S)", "many channels"),
    F("shifts, a stride lost: strips", "engines.shifts:_strip_outputs", "s * a + d * b for", "a + d * b for", "each pass against the others"),
    F("shifts, a dropped tap: lanes", "engines.shifts:_along_lanes", "for t in range(length):", "for t in range(max(1, length - 1)):", "many channels"),
    # ---- gemm
    F("gemm, a dilation lost: the axis summed last", "engines.gemm:_layer", "axis.D * k, axis.D * k + axis.O", "k, k + axis.O", "zeros in the kernel"),
    F("gemm, swapped order: copies of the kernel", "engines.gemm:_kernel", "axes[d].S * (axes[d].O - 1 - o)", "axes[d].S * o", "per-example gradients"),
    F("gemm, off by one: the copies' pads", "engines.gemm:_kernel", "axes[d].S * (axes[d].O - 1) for", "axes[d].S * (axes[d].O - 1) + 1 for", "per-example gradients"),
    F("gemm, swapped steps: a single product", "engines.gemm:_product", "axis.S if taps else axis.D", "axis.D if taps else axis.S", "sampling"),
    F("gemm, a transposed group", "engines.gemm:_layer", '"STgcm", ly', '"TSgcm", ly', "groups"),
    # ---- winograd
    F("winograd, a wrong constant: a row of G", "engines.winograd:matrices", "[e / scale[i] for e in row]", "[e / abs(scale[i]) for e in row]", "depthwise"),
    F("winograd, a sign: -1 in a transform", "engines.winograd:_combined", "-part if c == -1", "part if c == -1", "depthwise"),
    F("winograd, off by one: the entries of a tile", "engines.winograd:_tiled", "i % scheme.m, place + 1", "(i + 1) % scheme.m, place + 1", "depthwise"),
    F("winograd, blocks of taps on one another", "engines.winograd:_layer_block", "start = b * offsets[d] * steps[d]", "start = 0", "noble identities"),
    F("winograd, the point at infinity at zero", "engines.winograd:matrices", "Fraction(int(j == k - 1))", "Fraction(int(j == 0))", "depthwise"),
    F("winograd, blocks of taps on one another: the kernel's form", "engines.winograd:_kernel_block", "start = b * offsets[d] * steps[d]", "start = 0", "dot test"),
    # ---- fft
    F("fft, a wrong fast length: too short by one", "engines.fft:_span", "ni + nk - 1 - a, b + 1", "ni + nk - 2 - a, b", "autocorrelation"),
    F("fft, a wrong fast length: rounded down", "engines.fft:fast_length", "c << max(0, -(-n // c) - 1).bit_length()", "c << max(0, n // c - 1).bit_length()", "autocorrelation"),
    F("fft, off by one: where the outputs begin", "engines.fft:_wanted", "-axis.p - span.x[0] - span.w[0]", "-axis.p - span.x[0]", "flip law"),
    F("fft, a flip too few", "engines.fft:_run", "oriented(problem, w, -1)", "oriented(problem, w, +1)", "autocorrelation"),
    F("fft, a lost imaginary part", "engines.fft:_run", "lengths, problem.is_complex)\n    for", "lengths, problem.is_complex).real\n    for", "autocorrelation"),
    F("fft, a dropped entry of the kernel", "engines.fft:_span", "min(last_k, last)", "min(last_k, last) - (last_k > 1)", "autocorrelation"),
    # ---- overlap
    F("overlap, a missing conj", "engines.overlap:_reversed", "array.conj()", "array", "residual layers"),
    F("overlap, a missing reversal", "engines.overlap:_reversed", "forward(array.conj(), _along(sizes), is_complex).conj()", "forward(array, _along(sizes), is_complex)", "correlation twice"),
    F("overlap, off by one: the hop of a block", "engines.overlap:_layer_group", "n - axis.K + 1", "n - axis.K + 2", "stride against input dilation"),
    F("overlap, off by one: the pad before the first window", "engines.overlap:_windows", "(axis.p, length - axis.p - axis.I, 0)", "(axis.p - 1, length + 1 - axis.p - axis.I, 0)", "correlation twice"),
    F("overlap, off by one: the kernel's blocks", "engines.overlap:_kernel_group", "n - axis.O + 1", "n - axis.O", "many channels"),
    # ---- native
    F("native, low and high pads changed places", "engines.onednn:Described.__init__", "call.low, call.high)]", "call.high, call.low)]", "layers and their gradients"),
    F("native, results that meet no input at another place", "engines.native:run", "letter, start, axis.O)", "letter, 0, axis.O)", "layers and their gradients"),
    F("native, an operand for the other", "engines.native:run", "problem.exchanged, w, x", "problem.exchanged, x, w", "per-example gradients"),
]
# fmt: on
