"""oneDNN: its convolutions, by ctypes: what is asked of it, whether it has them, and one call of it.

The library has three primitives, of a layer with input (src), weights and output (dst): forward, backward_data and
backward_weights. Each is asked for by the sizes and strides of its arrays, in the order batch, features, spatial axes;
weights have the group before. A `Call` is such a question in integers, which is all that a compiled program knows of
it. Where an array may be in a format of the library's own, it is brought there, and a result is brought back.

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
from itertools import accumulate, compress
from math import prod
from pathlib import Path
from platform import machine
from threading import Lock
from typing import Any, NamedTuple

from jaxconv.engines.handler import Handler, Recipe, made
from jaxconv.processor import processor

WHEEL = "onednn-cpu-gomp"
VARIABLE, UNTESTED = "JAXCONV_ONEDNN", "JAXCONV_ONEDNN_UNTESTED"  # a library of the user's own; of any version
TESTED = ("3.2",)
# A waiting thread of libgomp sleeps after so many turns, some ten microseconds: to wake it takes longer than many a
# call, and while it turns, XLA's threads lack a core. (By default it does not turn at all where there are more threads
# than cores, as with a team for each of XLA's threads; "active" makes that a thousand, too.)
WAITING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000"}

FORWARD, DATA, WEIGHTS = range(3)
NAMES = ("forward", "backward_data", "backward_weights")
# The numbers of the arrays of each primitive: of the two operands, and of the result.
ARGUMENTS = ((1, 33, 17), (145, 33, 129), (1, 145, 161))
# Which of (x, w, y) of a Call are the src, the weights and the dst that the primitive is described by.
DESCRIBED = ((0, 1, 2), (2, 1, 0), (0, 2, 1))
FROM, TO, SCRATCH = 1, 17, 80  # the arrays of a reorder; scratch memory
FLOAT32, ANY, CPU, IN_ORDER, TRAINING, DIRECT, USER, STRICT = 3, 1, 1, 1, 64, 1, 1, 0
OF_SCRATCH, OF_ARGUMENT, IMPLEMENTATION = 136, 255, 8  # what a primitive can be asked
AVX2 = 7  # the bits of an instruction set
ALIGNED = 64  # bytes
# So many products one thread does alone, and so many numbers it brings from one format to another: to share them takes
# as long. A product of a depthwise layer takes as long as four.
ALONE, LITTLE, DEPTHWISE = 1 << 19, 1 << 14, 4
SCRATCHED = 3  # the address of scratch memory, among those of a call: after x, w and y
OUT_OF_MEMORY = 1
OTHERWISE = "Use another method than 'native' for it."
# What a recipe calls: oneDNN's functions, and OpenMP's for the calling thread.
CALLED = (
    *("dnnl_memory_create", "dnnl_primitive_execute", "dnnl_memory_destroy", "dnnl_stream_wait"),
    *("omp_get_max_threads", "omp_set_num_threads"),
)
FUNCTIONS = (
    *(f"dnnl_convolution_{name}_primitive_desc_create" for name in NAMES),
    *("dnnl_engine_create", "dnnl_get_effective_cpu_isa", "dnnl_memory_create", "dnnl_memory_desc_create_with_strides"),
    *("dnnl_memory_desc_create_with_tag", "dnnl_memory_desc_destroy", "dnnl_memory_desc_equal"),
    *("dnnl_memory_desc_get_size", "dnnl_memory_destroy", "dnnl_primitive_attr_create"),
    *("dnnl_primitive_attr_set_fpmath_mode", "dnnl_primitive_attr_set_scratchpad_mode", "dnnl_primitive_create"),
    *("dnnl_primitive_desc_destroy", "dnnl_primitive_desc_query", "dnnl_primitive_desc_query_md"),
    *("dnnl_primitive_destroy", "dnnl_primitive_execute", "dnnl_reorder_primitive_desc_create", "dnnl_stream_create"),
    *("dnnl_stream_wait", "dnnl_version", "omp_get_max_threads", "omp_set_num_threads"),
)


class Operand(NamedTuple):
    """sizes, strides: in numbers. free: whether the library may have it in a format of its own."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    free: bool = False


class Call(NamedTuple):
    """One primitive: `kind` is FORWARD, DATA or WEIGHTS, of a layer with these strides, dilations and pads."""

    kind: int
    x: Operand
    w: Operand
    y: Operand
    strides: tuple[int, ...]
    dilations: tuple[int, ...]  # 1 where entries are neighbours
    low: tuple[int, ...]
    high: tuple[int, ...]

    def __str__(self) -> str:
        shapes = " and ".join(str(list(operand.sizes)) for operand in (self.x, self.w))
        return f"{NAMES[self.kind]} of {shapes}, strides {self.strides}, dilations {self.dilations}"

    @property
    def operands(self) -> tuple[Operand, Operand, Operand]:
        return self.x, self.w, self.y

    @property
    def elements(self) -> list[int]:
        """Of x, w and y."""
        return [prod(operand.sizes) for operand in self.operands]

    @property
    def products(self) -> int:
        """Of every kernel position with every output; of depthwise layers they count more, as their loops do."""
        _, weights, dst = self.layer
        each = prod(weights.sizes) // dst.sizes[1]
        return prod(dst.sizes) * each * (DEPTHWISE if each == prod(weights.sizes[-len(self.strides) :]) else 1)

    @property
    def layer(self) -> list[Operand]:
        """src, weights and dst."""
        return [self.operands[place] for place in DESCRIBED[self.kind]]

    def numbers(self) -> list[int]:
        """All of it, from which `call_of` makes it again."""
        numbers = [self.kind, len(self.strides)]
        for operand in self.operands:
            numbers += [len(operand.sizes), operand.free, *operand.sizes, *operand.strides]
        return [*numbers, *self.strides, *self.dilations, *self.low, *self.high]


def call_of(numbers: Sequence[int]) -> Call:
    """The Call of its `numbers`."""
    rest = iter(numbers)

    def some(count: int) -> tuple[int, ...]:
        return tuple(next(rest) for _ in range(count))

    kind, rank = some(2)
    operands = []
    for _ in "xwy":
        length, free = some(2)
        operands.append(Operand(some(length), some(length), bool(free)))
    return Call(kind, *operands, *(some(rank) for _ in range(4)))


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

    version: its two first numbers. threads: that it has for a call.
    """

    def __init__(self, path: Path):
        ours = {} if WAITING.keys() & os.environ.keys() else WAITING  # what the user has set stays
        os.environ.update(ours)  # libgomp reads it while it is loaded
        try:
            self.c = ctypes.CDLL(str(path))
        except OSError as e:
            raise Missing(
                f"{path} cannot be loaded ({e}). Install what it needs (libgomp.so.1 is in Debian's libgomp1), or use "
                "method='auto'."
            ) from e
        finally:
            for name in ours:
                del os.environ[name]
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
        if self.c.dnnl_get_effective_cpu_isa() & AVX2 != AVX2:
            raise Missing("this processor has no AVX2, without which oneDNN is slow; use method='auto'.")
        self.threads = self.c.omp_get_max_threads() if "OMP_NUM_THREADS" in os.environ else _threads()
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
    def using(self, threads: int) -> Iterator[None]:
        """Within, this thread's parallel loops have so many threads; what the user has set for it comes back."""
        before = self.c.omp_get_max_threads()
        self.c.omp_set_num_threads(threads)
        try:
            yield
        finally:
            self.c.omp_set_num_threads(before)


def _threads() -> int:
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


class Primitive:
    """A Call, described to the library for a number of threads.

    implementation: what the library calls its loops. moved: which of x, w and y it has in a format of its own. bytes:
    the scratch memory of a run.
    """

    def __init__(self, call: Call, threads: int):
        lib = library()
        self.call, self.threads = call, threads
        src, weights, dst = (lib.described(operand, operand.free) for operand in call.layer)
        numbers = c_int64 * len(call.strides)
        window = [numbers(*n) for n in (call.strides, [d - 1 for d in call.dilations], call.low, call.high)]
        with lib.using(threads):
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
        same = [lib.c.dnnl_memory_desc_equal(*pair) for pair in zip(self.given, self.own, strict=True)]
        self.moved = [not equal for equal in same]
        self.between = [c_void_p(ask(self.description, OF_SCRATCH, 0)), *compress(self.own, self.moved)]
        sizes = [-(-lib.c.dnnl_memory_desc_get_size(one) // ALIGNED) * ALIGNED for one in self.between]
        self.places = list(accumulate(sizes, initial=0))
        self.bytes = self.places.pop()

    def recipe(self) -> Recipe:
        """The reorders of operands, the convolution, the reorder of the result: compiled, and kept by the recipe."""
        lib = library()
        given: list[tuple[Any, int, int]] = [(one, place, 0) for place, one in enumerate(self.given)]
        scratch, *between = [(one, SCRATCHED, place) for one, place in zip(self.between, self.places, strict=True)]
        own: list[tuple[Any, int, int]] = [
            between.pop(0) if moved else one for one, moved in zip(given, self.moved, strict=True)
        ]
        ends = list(zip(given, own, strict=True))
        ends[2] = own[2], given[2]
        with lib.using(self.threads):
            reorders = [
                (lib.reorder(start[0], end[0]), self.threads if size > LITTLE else 1, [(FROM, *start), (TO, *end)])
                for (start, end), size in compress(zip(ends, self.call.elements, strict=True), self.moved)
            ]
            arguments = [(number, *one) for number, one in zip(ARGUMENTS[self.call.kind], own, strict=True)]
            main = lib.primitive(self.description), self.threads, [*arguments, (SCRATCH, *scratch)]
        last = len(reorders) - self.moved[2]
        steps, functions = [*reorders[:last], main, *reorders[last:]], [lib.address(name) for name in CALLED]
        return made(steps, lib.engine, lib.stream, functions, f"in {self.call}. {OTHERWISE}", self)


@lru_cache(maxsize=4096)
def primitive(call: Call, threads: int | None = None) -> Primitive:
    """The Primitive of a Call; for all threads, where that pays, if not said otherwise."""
    return Primitive(call, threads or (library().threads if call.products > ALONE else 1))


def _recipe(numbers: Sequence[int]) -> Recipe:
    """That of a key: of the bytes of scratch memory that a program has for it, and of a Call.

    Where the program was compiled for fewer threads, it has no more here.
    """
    scratch, *rest = numbers
    call = call_of(rest)
    try:
        found = primitive(call)
        while found.bytes > scratch and found.threads > 1:
            found = primitive(call, found.threads // 2)
        if found.bytes > scratch:
            raise Failed("dnnl_primitive_create", OUT_OF_MEMORY)
        return found.recipe()
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


def _forked() -> None:
    """In a forked child there are no threads of libgomp, which would wait for them: all calls have one."""
    if _loaded.cache_info().currsize and isinstance(found := _loaded(), Library):
        found.threads = 1
        primitive.cache_clear()
        for one in _HANDLERS:
            one.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
