"""oneDNN: its convolutions, by ctypes: what is asked of it, whether it has them, and one call of it.

The library has three primitives, of a layer with input (src), weights and output (dst): forward, backward_data and
backward_weights. Each is asked for by the sizes and strides of its arrays, in the order batch, features, spatial axes;
weights have the group before. A `Call` is such a question in integers, which is all that a compiled program knows of
it, and it is asked in parts, for one thread each. Where an array may be in a format of the library's own, it is brought
there, and a result is brought back; weights by a call before.

Source: the oneDNN developer guide, version 3.2 (oneapi-src/oneDNN; dnnl.h, dnnl_types.h).
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int64, c_size_t, c_uint, c_void_p
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from platform import machine
from threading import Lock

from jaxconv.engines.calls import (
    DATA,
    DESCRIBED,
    FORWARD,
    NAMES,
    WEIGHTS,
    Call,
    Operand,
    call_of,
    parts_of,
)
from jaxconv.engines.handler import Handler, Recipe, made
from jaxconv.processor import processor

WHEEL = "onednn-cpu-gomp"
VARIABLE, UNTESTED = "JAXCONV_ONEDNN", "JAXCONV_ONEDNN_UNTESTED"  # a library of the user's own; of any version
TESTED = ("3.2",)
# The numbers of the arrays of each primitive: of the two operands, and of the result.
ARGUMENTS = ((1, 33, 17), (145, 33, 129), (1, 145, 161))
FROM, TO, SCRATCH = 1, 17, 80  # the arrays of a reorder; scratch memory
BYTES = 4  # of a number
FLOAT32, ANY, CPU, IN_ORDER, TRAINING, DIRECT, USER, STRICT = 3, 1, 1, 1, 64, 1, 1, 0
OF_SCRATCH, OF_ARGUMENT, IMPLEMENTATION = 136, 255, 8  # what a primitive can be asked
AVX2, AVX512 = 0x7, 0x27  # the bits of instruction sets
ALIGNED = 64  # bytes
# So many products one thread does alone: to share them takes as long. Each thread has so many parts, since one may be
# late. A sum of results takes longer to share.
ALONE, EACH, ADDED = 1 << 19, 4, 4
HEAVY = 1, 1, 2  # of each kind: weights so many times are as many as
X, W, Y, SCRATCHED = range(4)  # the addresses of a call: its operands, its results
OTHERWISE = "Use another method than 'native' for it."
# What a recipe calls: oneDNN's functions, and OpenMP's for the calling thread.
CALLED = (
    *("dnnl_memory_create", "dnnl_primitive_execute", "dnnl_memory_destroy", "dnnl_stream_wait"),
    *("omp_get_max_threads", "omp_set_num_threads"),
)
FUNCTIONS = (
    *(f"dnnl_convolution_{name}_primitive_desc_create" for name in NAMES),
    *("dnnl_engine_create", "dnnl_get_effective_cpu_isa", "dnnl_memory_create", "dnnl_memory_desc_create_with_strides"),
    *("dnnl_memory_desc_create_with_tag", "dnnl_memory_desc_destroy"),
    *("dnnl_memory_desc_equal", "dnnl_memory_desc_get_size", "dnnl_memory_destroy", "dnnl_primitive_attr_create"),
    *("dnnl_primitive_attr_set_fpmath_mode", "dnnl_primitive_attr_set_scratchpad_mode", "dnnl_primitive_create"),
    *("dnnl_primitive_desc_destroy", "dnnl_primitive_desc_query", "dnnl_primitive_desc_query_md"),
    *("dnnl_primitive_destroy", "dnnl_primitive_execute", "dnnl_reorder_primitive_desc_create", "dnnl_stream_create"),
    *("dnnl_stream_wait", "dnnl_version", "omp_get_max_threads", "omp_set_num_threads"),
)


class Missing(Exception):
    """Why there is no library: a sentence."""


class Failed(Exception):
    """A call of the library that failed: its name, and the status."""

    WORDS = ("", "out of memory", "invalid arguments", "unimplemented", "last implementation", "runtime error")

    def __str__(self) -> str:
        name, status = self.args
        return f"oneDNN's {name} failed: {self.WORDS[status] if 0 < status < len(self.WORDS) else f'status {status}'}"


class Owned(c_void_p):
    """What the library has made, and `destroy` destroys."""

    destroy: Callable | None = None

    def __del__(self):
        if self.destroy and self.value:
            self.destroy(self)


class _Version(Structure):
    _fields_ = (("major", c_int), ("minor", c_int))


class Library:
    """A loaded library.

    version: its two first numbers. is_wide: whether it has AVX-512. threads: that XLA has for a call.
    """

    def __init__(self, path: Path):
        try:
            self.c = ctypes.CDLL(str(path))
        except OSError as e:
            raise Missing(
                f"{path} cannot be loaded ({e}). Install what it needs (libgomp.so.1 is in Debian's libgomp1), or use "
                "method='auto'."
            ) from e
        if lacking := [name for name in FUNCTIONS if not hasattr(self.c, name)]:
            raise Missing(
                f"{path} lacks {', '.join(lacking)}; it must be oneDNN {' or '.join(TESTED)} on OpenMP. Name another "
                f"in {VARIABLE}, or use method='auto'."
            )
        self.c.dnnl_version.restype = POINTER(_Version)
        self.c.dnnl_primitive_desc_query_md.restype = c_void_p
        self.c.dnnl_memory_desc_get_size.restype = c_size_t
        found = self.c.dnnl_version()[0]
        self.version = f"{found.major}.{found.minor}"
        if self.version not in TESTED and not os.environ.get(UNTESTED):
            raise Missing(
                f"{path} is oneDNN {self.version}, and tested is {' or '.join(TESTED)}. Set {UNTESTED}=1 to use it "
                "nevertheless, or use method='auto'."
            )
        instructions = self.c.dnnl_get_effective_cpu_isa()
        if instructions & AVX2 != AVX2:
            raise Missing("this processor has no AVX2, without which oneDNN is slow; use method='auto'.")
        self.is_wide = instructions & AVX512 == AVX512
        self.threads = threads()
        self.engine = self.made("dnnl_engine_create", CPU, c_size_t(0))
        self.stream = self.made("dnnl_stream_create", self.engine, c_uint(IN_ORDER))
        self.attributes = self.made("dnnl_primitive_attr_create")
        self.do("dnnl_primitive_attr_set_scratchpad_mode", self.attributes, USER)
        self.do("dnnl_primitive_attr_set_fpmath_mode", self.attributes, STRICT)  # a user's variable may say otherwise

    def do(self, name: str, *args) -> None:
        """Call a function; its failure is an exception."""
        if status := getattr(self.c, name)(*args):
            raise Failed(name, status)

    def made(self, name: str, *args, destroy: str = "") -> Owned:
        """What a function makes in its first argument."""
        thing = Owned()
        self.do(name, byref(thing), *args)
        if destroy:
            thing.destroy = getattr(self.c, destroy)
        return thing

    def described(self, operand: Operand, free: bool = False) -> Owned:
        """A description of memory."""
        rank = len(operand.sizes)
        sizes, strides = (c_int64 * rank)(*operand.sizes), (c_int64 * rank)(*operand.strides)
        form, last = ("tag", ANY) if free else ("strides", strides)
        create = f"dnnl_memory_desc_create_with_{form}"
        return self.made(create, rank, sizes, FLOAT32, last, destroy="dnnl_memory_desc_destroy")

    def size(self, description: c_void_p) -> int:
        """In bytes."""
        return self.c.dnnl_memory_desc_get_size(description)

    def convolution(self, name: str, *args) -> Owned:
        """The description of a primitive."""
        create = f"dnnl_convolution_{name}_primitive_desc_create"
        return self.made(create, self.engine, *args, self.attributes, destroy="dnnl_primitive_desc_destroy")

    def primitive(self, description: Owned) -> Owned:
        """A primitive, compiled."""
        return self.made("dnnl_primitive_create", description, destroy="dnnl_primitive_destroy")

    def reorder(self, start: c_void_p, end: c_void_p) -> Owned:
        """The primitive that brings an array from one format to another."""
        ends = (start, self.engine, end, self.engine, None)
        create, destroy = "dnnl_reorder_primitive_desc_create", "dnnl_primitive_desc_destroy"
        return self.primitive(self.made(create, *ends, destroy=destroy))

    def address(self, name: str) -> int | None:
        """Of a function."""
        return ctypes.cast(getattr(self.c, name), c_void_p).value

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, this thread's parallel loops have no others; what the user has set for it comes back."""
        before = self.c.omp_get_max_threads()
        self.c.omp_set_num_threads(1)
        try:
            yield
        finally:
            self.c.omp_set_num_threads(before)


@cache
def threads() -> int:
    """As many as XLA has."""
    stated = (os.environ.get(name, "") for name in ("PJRT_NPROC", "NPROC"))
    return next((int(number) for number in stated if number.isdigit() and int(number)), processor().cores)


def _path() -> Path:
    if own := os.environ.get(VARIABLE):
        return Path(own)
    if not (sys.platform == "linux" and machine() == "x86_64"):
        raise Missing(
            f"there is no wheel of oneDNN for {sys.platform} on {machine()}. Name a library of your own, oneDNN "
            f"{' or '.join(TESTED)} on OpenMP, in the environment variable {VARIABLE}, or use method='auto'."
        )
    try:
        [found, *_] = [file for file in files(WHEEL) or () if file.name.startswith("libdnnl.so")]
    except (PackageNotFoundError, ValueError):
        raise Missing(f"{WHEEL} is not installed; install jaxconv[native], or use method='auto'.") from None
    return Path(str(found.locate()))


@cache
def _loaded() -> Library | Missing:
    try:
        found = Library(_path())
        handler()
        return found
    except Missing as e:
        return e
    except ImportError as e:
        return Missing(f"{e.name} is not installed; install jaxconv[native], or use method='auto'.")
    except (Failed, RuntimeError) as e:  # of LLVM, or of XLA's registration
        return Missing(f"{e}; use method='auto'.")


def library() -> Library:
    """The library, loaded once; Missing where there is none."""
    found = _loaded()
    if isinstance(found, Missing):
        raise found
    return found


class Described:
    """A Call, described to the library for one thread.

    implementation: what the library calls its loops. given, own: descriptions of x, w and y as the Call has them, and
    as the library does. moved: which of them differ. ready: the library's format of weights, where it is settled.
    """

    def __init__(self, call: Call, ready: c_void_p | None = None):
        lib = library()
        self.call, self.ready = call, ready
        src, weights, dst = (lib.described(one if one.free else one.dense, one.free) for one in call.layer)
        weights = ready or weights
        numbers = c_int64 * len(call.strides)
        window = [numbers(*n) for n in (call.strides, [d - 1 for d in call.dilations], call.low, call.high)]
        with lib.alone():
            self.description = lib.convolution(NAMES[FORWARD], TRAINING, DIRECT, src, weights, None, dst, *window)
            if call.kind == DATA:
                ends = (src, weights, dst)
                self.description = lib.convolution(NAMES[DATA], DIRECT, *ends, *window, self.description)
            elif call.kind == WEIGHTS:
                ends = (src, weights, None, dst)
                self.description = lib.convolution(NAMES[WEIGHTS], DIRECT, *ends, *window, self.description)
        name = c_char_p()
        lib.do("dnnl_primitive_desc_query", self.description, IMPLEMENTATION, 0, byref(name))
        self.implementation = (name.value or b"").decode()
        ask = lib.c.dnnl_primitive_desc_query_md
        self.given = [lib.described(operand) for operand in call.operands]
        self.own = [c_void_p(ask(self.description, OF_ARGUMENT, number)) for number in ARGUMENTS[call.kind]]
        self.scratch = c_void_p(ask(self.description, OF_SCRATCH, 0))
        self.moved = [not lib.c.dnnl_memory_desc_equal(*pair) for pair in zip(self.given, self.own, strict=True)]

    def bytes(self, ready: bool) -> int:
        """The scratch memory of a run, to which the weights come ready or not."""
        inner = [own for i, own in enumerate(self.own) if self.moved[i] and not (i == 1 and ready)]
        return sum(_aligned(library().size(one)) for one in (*inner, self.scratch))

    def steps(self, starts: Sequence[int], ready: bool) -> list[tuple]:
        """Those of a recipe, whose arrays begin at these bytes."""
        lib, scratch = library(), 0
        before, after, slots = [], [], []
        for i, number in enumerate(ARGUMENTS[self.call.kind]):
            slot = self.given[i], (X, W, Y)[i], starts[i]
            if i == 1 and ready:
                slot = self.own[i], *slot[1:]
            elif self.moved[i]:
                inner = self.own[i], SCRATCHED, scratch
                scratch += _aligned(lib.size(self.own[i]))
                start, stop = (inner, slot) if i == 2 else (slot, inner)
                step = lib.reorder(start[0], stop[0]), [(FROM, *start), (TO, *stop)]
                (after if i == 2 else before).append(step)
                slot = inner
            slots.append((number, *slot))
        main = lib.primitive(self.description), [*slots, (SCRATCH, self.scratch, SCRATCHED, scratch)]
        return [*before, main, *after]


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


class Primitive:
    """A Call in parts, described to the library.

    implementation: what the library calls its loops. moved: which of x, w and y it has in a format of its own. ready:
    the bytes of the weights in that format, if they are an operand. each: the scratch memory of a thread; bytes: of a
    run. results: how many a run has, whose sum is asked for.
    """

    def __init__(self, call: Call, features: bool, count: int):
        lib = library()
        self.call, self.how = call, (features, count)
        self.parts = parts_of(call, features, count)
        self.described, known, ready = [], {}, None
        for part in self.parts:  # equal ones once, and all with weights in one format, if they have the same
            if part.call not in known:
                known[part.call] = Described(part.call, ready)
            if call.kind != WEIGHTS and not features:
                ready = self.described[0].own[1] if self.described else known[part.call].own[1]
            self.described.append(known[part.call])
        first = self.described[0]
        self.implementation, self.moved = first.implementation, first.moved
        self.weights, self.ready = {}, 0  # where they begin, by where they begin in the whole
        if call.kind != WEIGHTS and self.moved[1]:
            for part, one in zip(self.parts, self.described, strict=True):
                if part.starts[1] not in self.weights:
                    self.weights[part.starts[1]] = self.ready
                    self.ready += _aligned(lib.size(one.own[1]))
        self.results = len(self.parts) if self.parts[0].summed else 1
        self.each = max(one.bytes(bool(self.ready)) for one in self.described)
        self.bytes = self.each * min(lib.threads, len(self.parts))

    @property
    def numbers(self) -> list[int]:
        """All of it, from which `_recipe` makes it again."""
        return [self.ready, self.bytes, *self.how, *self.call.numbers()]

    @property
    def kinds(self) -> set[str]:
        """What the library calls the loops of the parts."""
        return {one.implementation for one in self.described}

    def recipe(self, scratch: int) -> Recipe:
        """The parts, each with the reorders of its operands and of its result: compiled, and kept by the recipe.

        scratch: the bytes that there are.
        """
        tasks = []
        with library().alone():
            for i, (part, one) in enumerate(zip(self.parts, self.described, strict=True)):
                starts = [0, 0, 0]
                for place, start in zip(DESCRIBED[self.call.kind], part.starts, strict=True):
                    starts[place] = BYTES * start
                if part.summed:
                    starts[2] = BYTES * i * self.call.elements[2]
                if self.ready:
                    starts[1] = self.weights[part.starts[1]]
                tasks.append(one.steps(starts, bool(self.ready)))
        return self._made(tasks, scratch // self.each if self.each else len(tasks), self.each)

    def reorder(self) -> Recipe:
        """The weights, brought to the library's format."""
        lib, seen, tasks = library(), set(), []
        with lib.alone():
            for part, one in zip(self.parts, self.described, strict=True):
                if (start := part.starts[1]) not in seen:
                    seen.add(start)
                    ends = (FROM, one.given[1], W, BYTES * start), (TO, one.own[1], Y, self.weights[start])
                    tasks.append([(lib.reorder(one.given[1], one.own[1]), ends)])
        return self._made(tasks, len(tasks), 0)

    def _made(self, tasks: Sequence[Sequence[tuple]], workers: int, each: int) -> Recipe:
        lib = library()
        functions = [lib.address(name) for name in CALLED]
        recipe = made(tasks, lib.engine, lib.stream, functions, f"in {self.call}. {OTHERWISE}", workers, each)
        recipe.owner = self
        return recipe


primitive = lru_cache(maxsize=4096)(Primitive)


@lru_cache(maxsize=4096)
def parted(call: Call) -> Primitive:
    """The Primitive of a Call in parts as they pay."""
    whole = primitive(call, False, 1)
    for way in _ways(whole):
        try:
            found = primitive(call, *way)
        except Failed:
            continue
        if len(found.parts) > 1 and (found.kinds == whole.kinds or not any(map(is_slow, found.kinds))):
            return found
    return whole


def _ways(whole: Primitive) -> Iterator[tuple[bool, int]]:
    """How to part a Call, the best first: by features where the library's weights are more than all else."""
    call, threads = whole.call, library().threads
    if threads == 1 or (shares := call.products // ALONE) < 2:
        return
    count = min(EACH * threads, shares)
    src, weights, dst = (library().size(whole.described[0].own[place]) for place in DESCRIBED[call.kind])
    rows = count
    if call.kind == WEIGHTS:
        rows = min(shares // ADDED, max(threads, (src + dst) // (8 * weights)), count)
    images = min(rows, call.layer[0].sizes[0])  # some loops do without rows
    ways = [(False, rows), (False, images), (True, count)]
    if is_slow(whole.implementation):  # it brings all that a part meets to columns, with what other parts meet
        yield from ways[1:2] if call.kind == DATA else ways[:2]
    else:
        yield from reversed(ways) if weights * HEAVY[call.kind] > src + dst else ways


def is_slow(implementation: str) -> bool:
    """Loops that others are faster than, of another part or another library."""
    return implementation.startswith("ref") or "gemm" in implementation


def _recipe(numbers: Sequence[int]) -> Recipe:
    """That of a key: whether it is the weights' reorder; the bytes that its program has for weights and scratch memory;
    the parts; a Call."""
    reorders, ready, scratch, features, count, *rest = numbers
    call = call_of(rest)
    try:
        found = primitive(call, bool(features), count)
        if found.ready != ready or found.each > scratch:
            raise RuntimeError(
                "this program was compiled on another processor, for which oneDNN has other formats. Compile it "
                f"anew. In {call}."
            )
        return found.reorder() if reorders else found.recipe(scratch)
    except Failed as e:
        raise RuntimeError(f"{e}, in {call}. {OTHERWISE}") from e


_HANDLERS: list[Handler] = []  # one at most, which XLA keeps
_LOCK = Lock()


def handler() -> Handler:
    """The function that programs call, registered with XLA."""
    with _LOCK:
        if not _HANDLERS:
            _HANDLERS.append(Handler(_recipe))
        return _HANDLERS[0]
