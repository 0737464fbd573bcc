"""Measure jaxconv on the accelerator at hand, in one command of at most eight minutes: ./scripts/accelerator

    ./scripts/accelerator --out FOLDER          all stages, in order of value
    ./scripts/accelerator --only sweep          one of them; repeatable
    ./scripts/accelerator --seconds 300         in less time than eight minutes
    ./scripts/accelerator --tiny                all of them, small, on any machine: a minute on CPU

Each stage is a process of its own with a time of its own, for a fault of CUDA spoils the process that it happens in. A
stage writes STAGE.jsonl: first a line about the machine, then one for each thing that it has measured, written through
at once, so that what a killed run has left can be read. What sweep.jsonl holds, `scripts/fit.py fit --data` fits. Where
PyTorch or CuPy are, the bench compares with them.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice, product, zip_longest
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import lax
from problems import LARGE, ROWS, by_lax, name_of, random_problem

from jaxconv.engines import ENGINES
from jaxconv.engines.base import array_bytes
from jaxconv.padding import lax_axes
from jaxconv.planner import Options, candidates
from jaxconv.primitive import contract
from jaxconv.problem import Axis, Problem, Triple
from jaxconv.rates import rates
from jaxconv.reference import reference
from jaxconv.tune import stopwatch

SECONDS = {"env": 20, "smoke": 45, "verify": 75, "sweep": 200, "bench": 90, "nets": 45}  # of each stage
HIGHEST = (lax.Precision.HIGHEST,) * 2
PRECISIONS = {"default": (lax.Precision.DEFAULT,) * 2, "highest": HIGHEST}
QUICK = ("smoke", "verify", "sweep")  # without Triton's products, of which XLA compiles dozens to choose one
THREADS = int(os.environ.get("ACCELERATOR_THREADS", min(12, os.cpu_count() or 1)))  # programs compiled at once
EXACT = dict.fromkeys(("float32", "complex64"), 1e-5) | {
    "float64": 1e-12,
    "int32": 0.0,
    "float16": 2e-3,
    "bfloat16": 0.02,
}
HOPELESS = 6  # an engine that is estimated at so many times the best is not measured
PEERS = ("jaxconv", "lax", "torch", "cupy")
LEAST = 1e-7  # seconds: what is less is lost in the noise
CLOSE = {"default": 2e-3, "highest": 1e-5}  # relative errors, by norm, that are no fault


def about() -> dict:
    """The first line of every file; `scripts/fit.py` reads it."""
    device = jax.devices()[0]
    here = dict(platform=device.platform, device=device.device_kind, jaxlib=jaxlib.__version__, engines=list(ENGINES))
    return here | {"date": time.strftime("%Y-%m-%d"), "rates": rates().seconds if device.platform == "cpu" else {}}


class Lines:
    """A file of JSON lines, each on the disk when `add` returns; and the time that its stage has."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.end, self.grace = path, time.monotonic() + 0.85 * seconds, 0.07 * seconds
        path.write_text("")
        self.add(about())

    def add(self, entry) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def late(self) -> bool:
        return time.monotonic() > self.end


def in_batches(lines: Lines, jobs: Iterable, make: Callable, size: int = THREADS) -> Iterator[tuple]:
    """(job, what `make` makes of it, or the failure): a batch is made in threads before any of it is given out.

    What compiles while another is timed would falsify the time. So when the stage's time is over what has not begun is
    left away, and where something still compiles nothing of its batch is given out.
    """
    left, pool, futures = iter(jobs), ThreadPoolExecutor(THREADS), {}
    while batch := [*islice(left, size)]:
        futures = {pool.submit(make, job): job for job in batch}
        if wait(futures, timeout=max(0.0, lines.end - time.monotonic())).not_done:
            begun = [future for future in futures if not future.cancel()]
            if compiling := len(wait(begun, timeout=lines.grace).not_done):
                lines.add({"stopped": f"its time was over, and {compiling} programs were still compiling"})
                break
        for future, job in futures.items():
            if not future.cancelled():
                yield job, future.exception() or future.result()
        if lines.late:
            lines.add({"stopped": "its time was over"})
            break
        futures.clear()  # and the arrays of these programs
    pool.shutdown(wait=False, cancel_futures=True)


def tried(call: Callable, *arguments) -> Any:
    """What comes, or the exception: an engine that fails, or lacks memory, is to be told, and the others are to run."""
    try:
        return call(*arguments)
    except Exception as failure:
        return failure


def told(found: Any, name: str) -> dict:
    """{name: found} for a line, or what failed."""
    if isinstance(found, BaseException):
        words = f"{type(found).__name__}: {str(found)[:300]}"
        if "RESOURCE_EXHAUSTED" in words:
            words += "; too little memory: fewer programs at once, --threads, need less"
        return {f"{name} failed": words}
    if isinstance(found, float) and name != "error" and not found > LEAST:
        return {f"{name} failed": "its time is lost in the noise"}
    return {name: found}


@cache
def _normal() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1 << 20) + 7, np.float32)


def operands(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """Normal numbers, repeated where there are more than a million; cut to whole numbers for integers.

    Drawn on the host: what draws on the device would have to be compiled for each shape.
    """
    shapes = ((problem.x_shape, problem.dtypes.x), (problem.w_shape, problem.dtypes.w))
    (x, x_type), (w, w_type) = ((np.resize(3 * _normal()[i:], shape), dtype) for i, (shape, dtype) in enumerate(shapes))
    return jax.device_put(x.astype(x_type)), jax.device_put(w.astype(w_type))


def of_type(problem: Problem, dtype: str) -> Problem:
    return replace(problem, dtypes=Triple(dtype, dtype, dtype))


def passes(problem: Problem) -> dict[str, Problem]:
    return {"forward": problem, "input": problem.input_pass, "kernel": problem.kernel_pass}


def error(found, truth) -> float:
    """Relative, by norm."""
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    return float(np.linalg.norm(found - truth) / max(np.linalg.norm(truth), 1e-300))


# ---- the stages


def env(lines: Lines, tiny: bool) -> None:
    """The machine, and what it can do at most."""
    names = ("jax", "numpy", "jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
    lines.add({"versions": {n: v for n in (*names, "torch", "cupy") if (v := _version(n))}, "python": sys.version})
    for command in (["nvidia-smi"], ["nvidia-smi", "-q", "-d", "CLOCK,POWER"]):
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
        except (OSError, subprocess.TimeoutExpired) as failure:
            text = str(failure)
        lines.add({"ran": " ".join(command), "said": text[:6000]})
    numbers, side = (1 << 18, 128) if tiny else (1 << 27, 4096)
    x = jnp.ones(numbers)
    seconds = timed(lambda x, w: x + w, x, jnp.ones(()))
    lines.add({"ceiling": "copy", "bytes a second": 8 * numbers / seconds})
    for name, dtype, precision in (
        ("float32", "float32", "highest"), ("default", "float32", None), ("bfloat16", "bfloat16", None)
    ):  # fmt: skip
        x = jnp.ones((side, side), dtype)
        seconds = timed(partial(jnp.matmul, precision=precision), x, x)
        lines.add({"ceiling": f"matrix product, {name}", "products a second": side**3 / seconds})
    for side in (64, 63) if tiny else (1024, 1050, 1080, 1120, 1152):
        x = jnp.ones((side, side))
        seconds = timed(lambda x, w: jnp.fft.irfft2(jnp.fft.rfft2(x), x.shape) * w, x, jnp.ones(()))
        lines.add({"ceiling": f"transforms of {side} and back", "seconds": seconds})
    one = jax.jit(lambda x: x + 1).lower(jnp.ones(())).compile()
    lines.add({"ceiling": "a call that does nothing", "seconds": _median(partial(_seconds, one, jnp.ones(())), 20)})
    loop = jax.jit(lambda x: lax.fori_loop(0, 1000, lambda i, x: x * 1.5 + i, x)).lower(jnp.ones(())).compile()
    lines.add({"ceiling": "a trip of a loop", "seconds": _median(partial(_seconds, loop, jnp.ones(())), 3) / 1000})


def smoke(lines: Lines, tiny: bool) -> None:
    """Every engine, pass and type on small problems, beside sums in NumPy."""
    layers = {
        "image": Problem(lax_axes("smoke", [13, 11], [3, 5], [1, 1], "SAME")),
        "dense": Problem(lax_axes("smoke", [12, 12], [3, 3], [1, 1], "SAME"), n=2, c=8, m=8),
        "strided": Problem(lax_axes("smoke", [12, 12], [3, 3], [2, 2], "SAME"), n=2, c=4, m=8),
        "dilated": Problem(lax_axes("smoke", [12], [3], [1], "SAME", None, [2]), n=2, c=4, m=4),
        "transposed": Problem(lax_axes("smoke", [6, 6], [3, 3], [1, 1], [(1, 2)] * 2, [2, 2]), n=2, c=4, m=4),
        "depthwise": Problem(lax_axes("smoke", [12, 12], [3, 3], [2, 2], "SAME"), n=2, g=8),
        "grouped": Problem(lax_axes("smoke", [12], [5], [1], "SAME"), n=2, g=4, c=4, m=4),
        "volume": Problem(lax_axes("smoke", [6, 5, 4], [3, 3, 3], [1, 1, 1], "SAME"), n=1, c=4, m=4),
        "convolution": Problem((Axis(64, 17, 80, D=-1),)),
    }
    kinds = ["float32", "bfloat16"] if tiny else ["float32", "bfloat16", "float16", "float64", "complex64", "int32"]
    names = list(layers)[:3] if tiny else list(layers)

    def run(job) -> float:
        dtype, name, which, engine = job
        problem = passes(of_type(layers[name], dtype))[which]
        with jax.enable_x64(dtype == "float64"):
            x, w = operands(problem)
            truth = reference(problem, *(np.asarray(a, _exact(dtype)) for a in (x, w)))
            y = jax.jit(partial(contract, problem, options=Options(engine, precision=HIGHEST)))(x, w)
            y = np.asarray(y, _exact(dtype))
            return error(y.real, truth.real) + error(y.imag, truth.imag) * (dtype == "complex64")

    jobs = [
        (dtype, name, which, engine)
        for dtype, name in product(kinds, names)
        for which, problem in passes(of_type(layers[name], dtype)).items()
        for engine in ENGINES
        if not ENGINES[engine].refusal(problem, jax.default_backend())
    ]
    for (dtype, name, which, engine), found in in_batches(lines, jobs, run):
        lines.add({"smoke": name, "pass": which, "dtype": dtype, "engine": engine} | told(found, "error"))


def verify(lines: Lines, tiny: bool) -> None:
    """The identities at full precision; the rows' errors; where a NaN goes."""
    from jaxconv.identities.catalogue import CATALOGUE
    from jaxconv.identities.report import verify as certify

    platform = jax.default_backend()
    limits = CLOSE if platform != "cpu" else dict.fromkeys(CLOSE, CLOSE["highest"])
    rows = [p for p in ROWS if p.products < (1e6 if tiny else 3e8)]
    some = rows[:: 12 if tiny else 4]

    def run(job) -> dict:
        what, problem, engine, word = job
        if what == "identity":
            report = certify(identities=[problem], engines=["auto"], dtypes=["float32"])
            return {"holds": report.holds, "said": [str(d)[:500] for d in report.diagnoses]}
        x, w = operands(problem)
        if what == "row":
            y = jax.jit(partial(contract, problem, options=Options(engine, precision=PRECISIONS[word])))(x, w)
            found = error(y, _in_double(problem, x, w))
            return {"engine": engine, "precision": word, "error": found, "fault": not found < limits[word]}
        at = tuple(n // 2 for n in problem.x_shape)
        reached = np.asarray(by_lax(problem)(jnp.zeros_like(x).at[at].set(1), jnp.ones_like(w))) > 0.5
        options = Options(engine, accuracy="elementwise", precision=HIGHEST)
        y = jax.jit(partial(contract, problem, options=options))(x.at[at].set(jnp.nan), w)
        return {"engine": engine, "stays": bool((np.isnan(np.asarray(y)) == reached).all())}

    identities = [("identity", i, "", "") for i in CATALOGUE[:: max(1, len(CATALOGUE) // (3 if tiny else 20))]]
    local = [("not a number", p, e, "") for p in (rows[0], *[p for p in rows if p.g * p.c > 1][:2]) for e in ENGINES]
    local = [job for job in local if ENGINES[job[2]].elementwise(job[1])]
    able = [("row", p, e, word) for p, e, word in product(some, ENGINES, PRECISIONS)]
    jobs = [job for job in [*local, *identities, *able] if not job[2] or not ENGINES[job[2]].refusal(job[1], platform)]
    for (what, problem, *_), found in in_batches(lines, jobs, run):
        name = problem.name if what == "identity" else name_of(problem)
        lines.add({what: name} | (told(found, "check") if isinstance(found, BaseException) else found))


def sweep(lines: Lines, tiny: bool) -> None:
    """The times of the engines, as scripts/fit.py reads them: [seed, problem, {engine: seconds}, precision, notes]."""
    large, rows = ([(-1, p) for p in some] for some in (LARGE, ROWS))
    drawn = [(seed, random_problem(seed, scale)) for seed, scale in product(range(200), (1, 32))]
    kinds = [("float32", HIGHEST), ("bfloat16", None)]
    jobs = (
        (seed, of_type(problem, dtype), precision, engine)
        for i, (seed, problem) in enumerate([*rows[::30]] if tiny else _in_turns(large, rows[::2], drawn))
        for dtype, precision in [("float32", None), *[kinds[i % 2]] * (not tiny)]
        for engine in _able(of_type(problem, dtype), precision)
    )

    def ready(job) -> tuple[Callable[[], float], float]:
        _, problem, precision, engine = job
        start = time.monotonic()
        f = partial(contract, problem, options=Options(engine, precision=precision))
        return stopwatch(f, *operands(problem)), time.monotonic() - start

    for (seed, problem, precision, engine), found in in_batches(lines, jobs, ready, 2 * THREADS):
        notes = {}
        if not isinstance(found, BaseException):
            watch, notes["to compile"] = found
            found = tried(_median, watch, 2 if tiny else 5)
        times = told(found, engine)
        if engine not in times:
            times, notes = {}, notes | times
        lines.add([seed, repr(problem), times, precision and [p.name.lower() for p in precision], notes])


def _in_turns(*lists: list) -> list:
    return [one for some in zip_longest(*lists) for one in some if one is not None]


def _able(problem: Problem, precision) -> list[str]:
    """The engines that may be best, the likeliest first."""
    answers = candidates(problem, Options(precision=precision), jax.default_backend())
    seconds = {c.engine.name: c.seconds for c in answers if c.seconds is not None}
    return [name for name, estimate in seconds.items() if estimate <= HOPELESS * min(seconds.values())]


def bench(lines: Lines, tiny: bool) -> None:
    """The planner's choice beside lax, PyTorch and CuPy: seconds on the device."""
    kinds = [("float32", "default"), ("float32", "highest"), ("bfloat16", "default")][: 1 if tiny else 3]
    rows = ROWS[::40] if tiny else _in_turns(LARGE, ROWS)

    def options(word: str) -> Options:
        return Options(precision=HIGHEST if word == "highest" else None)

    def ready(job) -> dict[str, Callable[[], float]]:
        (dtype, word), problem = job
        problem = of_type(problem, dtype)
        x, w = operands(problem)
        calls = {"jaxconv": partial(contract, problem, options=options(word)), "lax": by_lax(problem)}
        with jax.default_matmul_precision("highest") if word == "highest" else nullcontext():
            return {name: stopwatch(f, x, w) for name, f in calls.items()}

    for ((dtype, word), problem), programs in in_batches(lines, product(kinds, rows), ready):
        problem = of_type(problem, dtype)
        entry: dict = {"row": name_of(problem), "dtype": dtype, "precision": word, "bytes": array_bytes(problem),
                       "products": problem.products,
                       "engine": candidates(problem, options(word), jax.default_backend())[0].engine.name}  # fmt: skip
        if isinstance(programs, BaseException):
            entry |= told(programs, "jaxconv or lax")
            programs = {}
        for name, watch in programs.items():
            entry |= told(tried(_median, watch, 3), name)
        for name, peer in (("torch", _by_torch), ("cupy", _by_cupy)):
            found = tried(peer, problem, word)
            entry |= {} if isinstance(found, ImportError) else told(found, name)
        lines.add(entry)


def _by_torch(problem: Problem, word: str) -> float | None:
    """Channels last, cuDNN's own search, and the same products: TF32 unless the precision is 'highest'."""
    import torch
    from problems import pass_of

    layer, which = pass_of(problem)
    d, axes = len(layer.axes), layer.axes
    pads = [(a.p, a.S * (a.O - 1) + abs(a.D) * (a.K - 1) - a.p - (a.I - 1)) for a in axes]
    if any(a.L != 1 or a.D < 0 for a in axes) or any(low != high or low < 0 for low, high in pads):
        return None
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = word != "highest"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(d)
    dtype = getattr(torch, problem.dtypes.x)

    def drawn(*shape):
        array = torch.randn(*shape, device=device, dtype=dtype)
        return array.contiguous(memory_format=last) if last else array

    x = drawn(layer.n, layer.g * layer.c, *(a.I for a in axes))
    w = drawn(layer.g * layer.m, layer.c, *(a.K for a in axes))
    dy = drawn(layer.n, layer.g * layer.m, *(a.O for a in axes))
    how = ([a.S for a in axes], [low for low, _ in pads], [a.D for a in axes])
    if which == "forward":
        call = partial((torch.conv1d, torch.conv2d, torch.conv3d)[d - 1], x, w, None, *how, layer.g)
    else:
        mask = [which == "input", which == "kernel", False]
        call = partial(torch.ops.aten.convolution_backward, dy, x, w, None, *how, False, [0] * d, layer.g, mask)
    return _of_calls(call, torch.cuda.synchronize if device == "cuda" else lambda: None)


def _by_cupy(problem: Problem, word: str) -> float | None:
    """Its direct filter for one image, or its FFT, whichever is faster."""
    import cupy
    from cupyx.scipy import ndimage, signal

    if problem.n * problem.g * problem.c * problem.m > 1 or problem.dtypes.x != "float32":
        return None
    x, w = (
        cupy.random.standard_normal([a for a in s if a > 1], dtype="float32")
        for s in (problem.x_shape, problem.w_shape)
    )
    if x.ndim != w.ndim:
        return None
    calls = [lambda: signal.fftconvolve(x, w, "same")]
    if problem.taps < 3000:
        calls.append(lambda: ndimage.convolve(x, w, mode="constant"))
    return min(_of_calls(call, cupy.cuda.Device().synchronize) for call in calls)


def nets(lines: Lines, tiny: bool) -> None:
    """A training step of a small residual network, by jaxconv, by lax and by PyTorch."""
    images, width, size, depth = (2, 8, 8, 1) if tiny else (256, 64, 32, 8)
    from jaxconv.lax import conv_general_dilated

    for dtype in ["float32"] if tiny else ["float32", "bfloat16"]:
        keys = jax.random.split(jax.random.key(0), 2 * depth + 1)
        x = jax.random.normal(keys[0], (images, size, size, width), dtype)
        kernels = [
            (jax.random.normal(k, (3, 3, width, width)) * 0.05, jax.random.normal(d, (3, 3, 1, width)) * 0.3)
            for k, d in zip(keys[1::2], keys[2::2], strict=True)
        ]

        def step(convolution, kernels, x):
            def loss(kernels, x):
                for dense, depthwise in kernels:
                    for w, groups in ((dense, 1), (depthwise, x.shape[-1])):
                        how = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)
                        y = convolution(x, w.astype(x.dtype), (1, 1), "SAME", **how)
                        x = x + jax.nn.relu(y)
                return (x.astype(jnp.float32) ** 2).mean()

            value, slopes = jax.value_and_grad(loss)(kernels, x)
            return value, jax.tree.map(lambda w, g: w - 0.1 * g, kernels, slopes)

        entry: dict = {"net": f"{depth} blocks, {width} channels", "images": images, "dtype": dtype}
        for name, convolution in (("jaxconv", conv_general_dilated), ("lax", lax.conv_general_dilated)):
            found = tried(_net_by_jax, partial(step, convolution), kernels, x)
            entry |= told(found, name) if isinstance(found, Exception) else {name + key: v for key, v in found.items()}
        found = tried(_net_by_torch, images, width, size, depth, dtype)
        if not isinstance(found, ImportError):
            entry |= told(found, "torch") if isinstance(found, Exception) else found
        lines.add(entry)


def _net_by_jax(step: Callable, kernels, x) -> dict[str, float]:
    start = time.perf_counter()
    done = jax.jit(step).lower(kernels, x).compile()
    compiling = time.perf_counter() - start
    seconds = _median(partial(_seconds, done, kernels, x), 10)
    return {"": seconds, ", compile": compiling, ", bytes between": done.memory_analysis().temp_size_in_bytes}


def _net_by_torch(images: int, width: int, size: int, depth: int, dtype: str) -> dict:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    last = dict(memory_format=torch.channels_last)
    x = torch.randn(images, width, size, size, device=device, dtype=getattr(torch, dtype)).contiguous(**last)
    kernels = []
    for _ in range(depth):
        kernels += [torch.randn(width, width, 3, 3, device=device) * 0.05, torch.randn(width, 1, 3, 3, device=device)]
    for w in kernels:
        w.requires_grad_()

    def step():
        y = x
        for w in kernels:
            groups = width // w.shape[1]
            y = y + torch.relu(torch.conv2d(y, w.to(y.dtype).contiguous(**last), None, 1, 1, 1, groups))
        (y.float() ** 2).mean().backward()
        with torch.no_grad():
            for w in kernels:
                w -= 0.1 * w.grad
                w.grad = None

    seconds = _of_calls(step, torch.cuda.synchronize if device == "cuda" else lambda: None)
    most = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"torch": seconds, "torch, bytes at most": most}


# ---- time


def timed(f: Callable, x, w) -> float:
    return _median(stopwatch(f, x, w), 3)


def _median(watch: Callable[[], float], count: int, *more: float) -> float:
    return statistics.median([*more, *(watch() for _ in range(count))])


def _seconds(call: Callable, *args) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call(*args))
    return time.perf_counter() - start


def _of_calls(call: Callable, wait: Callable[[], object]) -> float:
    """Seconds of one call of a library that does not wait for the device: the median of three times 20, if short."""

    def once(repeated: int) -> float:
        start = time.perf_counter()
        for _ in range(repeated):
            call()
        wait()
        return (time.perf_counter() - start) / repeated

    once(2)
    return _median(partial(once, max(1, min(20, int(0.1 / once(1))))), 3)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _exact(dtype: str) -> type:
    return np.complex128 if dtype == "complex64" else np.int64 if dtype == "int32" else np.float64


def _in_double(problem: Problem, x, w) -> np.ndarray:
    """lax's own sum on the processor."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        arrays = (jnp.asarray(np.asarray(a), jnp.float64) for a in (x, w))
        return np.asarray(by_lax(of_type(problem, "float64"))(*arrays))


# ---- the whole


def entries(path: Path) -> Iterator:
    """What a file holds; a last line that is not whole is left away."""
    if path.exists():
        for line in path.read_text().splitlines()[1:]:
            try:
                yield json.loads(line)
            except ValueError:
                return


def summary(out: Path) -> str:
    """What is worth reading first, of all files."""
    lines = [f"{about()['device']}, jax {jax.__version__}, {platform.node()}"]
    of = {stage: [*entries(out / f"{stage}.jsonl")] for stage in SECONDS}
    lines += [f"{stage}: {len(found)} lines" for stage, found in of.items()]
    lines += [str(e) for e in of["env"] if "ceiling" in e]
    wrong = [e for e in of["smoke"] if "stopped" not in e and not e.get("error", np.nan) <= EXACT[e["dtype"]]]
    good = {"fault": False, "holds": True, "stays": True}
    wrong += [e for e in of["verify"] if "check failed" in e or any(e.get(k, v) is not v for k, v in good.items())]
    lines += [f"WRONG {e}" for e in wrong[:20]]
    lines += [f"{stage}: nothing was wrong" for stage in ("smoke", "verify") if of[stage] and not wrong]
    lines += _compared([e for e in of["bench"] if "row" in e])
    lines += [str(e) for e in of["nets"]]
    return "\n".join(lines) + "\n"


def report(folders: list[Path]) -> str:
    """A table of what the bench of some runs measured, the last run's where there are several."""
    found, ceilings, nets = {}, {}, []
    problems = {name_of(p): p for p in (*LARGE, *ROWS)}
    for folder in folders:
        known = [e for e in entries(folder / "env.jsonl") if "ceiling" in e]
        ceilings |= {e["ceiling"]: list(e.values())[1] for e in known}
    for folder in folders:
        of = {stage: [*entries(folder / f"{stage}.jsonl")] for stage in ("bench", "nets")}
        head = json.loads((folder / "bench.jsonl").read_text().partition("\n")[0]) if of["bench"] else {}
        for e in (e for e in of["bench"] if "row" in e):
            # The first stopwatch, of files without a date, counted its trips, and a pass over the smaller operand.
            trip, rate = (ceilings.get(name, 0.0) for name in ("a trip of a loop", "copy"))
            operand = min(prod(problems[e["row"]].x_shape), prod(problems[e["row"]].w_shape)) * 4
            counted = 0.0 if "date" in head or not rate else trip + 2 * operand / rate
            times = {n: e[n] - counted * (n in PEERS[:2]) for n in PEERS if (e.get(n) or 0) > LEAST}
            known = found.setdefault((e["dtype"], e["precision"], e["row"]), {})
            known |= {name: value for name, value in e.items() if name not in PEERS} | times
        nets += of["nets"]

    def microseconds(seconds: float | None) -> str:
        return f"{1e6 * seconds:.0f}" if seconds else ""

    bound = ceilings.get("copy")
    lines = ["| problem | type | engine | jaxconv | lax | PyTorch | CuPy | bytes alone |", "| --- |" + " --- |" * 7]
    for (dtype, word, row), e in found.items():
        times = [microseconds(e.get(name)) for name in PEERS] + [microseconds(bound and e["bytes"] / bound)]
        lines.append(
            f"| {row} | {dtype}{f', {word}' * (word != 'default')} | {e.get('engine', '')} | {' | '.join(times)} |"
        )
    lines += ["", *_compared(list(found.values())), *(f"- {name}: {value:.3g}" for name, value in ceilings.items())]
    lines += [
        f"- a training step, {e['net']}, {e['images']} images, {e['dtype']}: "
        + ", ".join(f"{n} {1e3 * e[n]:.1f} ms" for n in PEERS if n in e)
        for e in nets
    ]
    return "\n".join(lines) + "\n"


def _compared(rows: list[dict]) -> Iterator[str]:
    """Of each type and precision, the times of the others as multiples of jaxconv's."""
    kinds = dict.fromkeys((e["dtype"], e["precision"]) for e in rows)
    for kind, peer in product(kinds, PEERS[1:]):
        pairs = [e for e in rows if (e["dtype"], e["precision"]) == kind]
        pairs = [e for e in pairs if (e.get(peer) or 0) > LEAST and (e.get(PEERS[0]) or 0) > LEAST]
        ratios = sorted((e[peer] / e[PEERS[0]], e["row"]) for e in pairs)
        if ratios:
            mean = float(np.exp(np.mean([np.log(r) for r, _ in ratios])))
            worst = "; ".join(f"{row} {r:.2f}" for r, row in ratios[:5])
            yield f"- {', '.join(kind)}: {mean:.2f} of {peer} over {len(ratios)} rows; least: {worst}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    new = os.environ.get("OUT", time.strftime("out/accelerator/%Y-%m-%d-%H%M%S"))
    parser.add_argument("--out", type=Path, default=Path(new), help="a new folder")
    parser.add_argument("--only", choices=SECONDS, action="append", help="a stage; repeatable")
    parser.add_argument("--tiny", action="store_true", help="small, on any machine")
    parser.add_argument("--threads", type=int, default=THREADS, help="programs compiled, and kept, at once")
    parser.add_argument("--seconds", type=float, default=480, help="for all stages together; each has its share")
    parser.add_argument(
        "--report", type=Path, nargs="+", help="print what these folders hold, for docs/accelerators.md"
    )
    parser.add_argument("--stage", choices=SECONDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.report:
        print(report(given.report), end="")
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # this process and a stage's share the memory
    stages = given.only or [given.stage] * bool(given.stage) or SECONDS
    slow = 10 if given.tiny else given.seconds / sum(SECONDS[stage] for stage in stages)  # tiny: on any processor
    seconds = {stage: slow * SECONDS[stage] for stage in stages}
    if given.stage:
        lines = Lines(given.out / f"{given.stage}.jsonl", seconds[given.stage])
        globals()[given.stage](lines, given.tiny)
        sys.stdout.flush()
        os._exit(0)  # not waiting for what still compiles
    if there := [stage for stage in stages if (given.out / f"{stage}.jsonl").exists()]:
        print(
            f"--out {given.out}: it holds {there[0]}.jsonl of another run, which stays. Name another folder.",
            file=sys.stderr,
        )
        return 2
    if not given.tiny and jax.default_backend() == "cpu":
        print(
            "scripts/accelerator: JAX sees no accelerator here, only the processor. Install jax with the plugin of the "
            "accelerator (jax[cuda13]), or see the stages run with --tiny.",
            file=sys.stderr,
        )
        return 2
    short = []
    with TemporaryDirectory() as programs:
        for stage in stages:
            variables = os.environ | {"JAX_COMPILATION_CACHE_DIR": programs, "ACCELERATOR_THREADS": str(given.threads)}
            if stage in QUICK:
                variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_triton_gemm=false"
            if stage == "verify":
                variables["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
            command = [sys.executable, __file__, "--stage", stage, "--out", given.out, "--seconds", seconds[stage]]
            command += ["--tiny"] * given.tiny
            start, why = time.monotonic(), ""
            try:
                done = subprocess.run(
                    map(str, command), env=variables, timeout=seconds[stage], capture_output=True, text=True
                )
                why = f"exit {done.returncode}: {done.stderr[-1500:]}" if done.returncode else ""
            except subprocess.TimeoutExpired:
                why = f"cut off after {seconds[stage]:.0f} s; what it had measured is kept"
            short += [stage] * bool(why)
            print(f"{stage}: {time.monotonic() - start:.0f} s {why}", flush=True)
    part = given.out / "summary.txt.part"
    part.write_text(text := summary(given.out))
    os.replace(part, given.out / "summary.txt")
    print(text)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
