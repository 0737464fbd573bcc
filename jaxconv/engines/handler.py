"""The function by which compiled programs call oneDNN, compiled by LLVM (handler.ll).

XLA calls it with a frame: addresses of operands, of results and of attributes. Its key begins with a digest, by which
it finds a recipe: tasks, each of them memories to make and primitives to run on them. So it knows nothing of
convolutions, and it needs neither Python nor its lock: a program does not wait for what Python does meanwhile, nor at
its end. Only where it has no recipe, in a program of another process, it asks Python.

The tasks are taken one by one, by the thread that calls and by those of XLA's own that are free: no threads are added,
and one that another program keeps from its core is not waited for, but for the task that it has begun.

Source: the developers' guide of XLA's foreign function interface (openxla.org/xla/custom_call).
"""

import ctypes
import hashlib
from collections.abc import Callable, Iterable, Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int64, c_size_t, c_void_p
from importlib.resources import files
from itertools import accumulate

import jax
import numpy as np

TARGET = "jaxconv.native.1"  # the name in compiled programs, and of the form of their keys
BUCKETS = 256  # of digests, as in handler.ll

SOURCE = files("jaxconv.engines") / "handler.ll"


class Slot(Structure):
    """An argument of a primitive: its number, a description of memory, and where that lies.

    which: of the addresses of a call, its operands' and then its results'; offset: in bytes from there, for the fourth,
    scratch memory, from where the thread's own begins.
    """

    _fields_ = (("number", c_int64), ("description", c_void_p), ("which", c_int64), ("offset", c_int64))


class Step(Structure):
    """A primitive, and its arguments: so many slots of the task, from the first."""

    _fields_ = (("primitive", c_void_p), ("count", c_int64), ("first", c_int64))


class Task(Structure):
    """What one thread does: make a memory for each slot, run the steps, and destroy the memories."""

    _fields_ = (
        *(("slot_count", c_int64), ("slots", POINTER(Slot))),
        *(("step_count", c_int64), ("steps", POINTER(Step))),
    )


class Recipe(Structure):
    """What a call does: its tasks, in any order.

    create, execute, destroy, wait: oneDNN's functions; get_threads, set_threads: OpenMP's, of the calling thread.
    no_memory, no_result: what is said where the first two fail. workers: the threads that there is scratch memory for;
    each: the bytes of one.
    """

    _fields_ = (
        ("task_count", c_int64), ("tasks", POINTER(Task)), ("engine", c_void_p), ("stream", c_void_p),
        ("create", c_void_p), ("execute", c_void_p), ("destroy", c_void_p), ("wait", c_void_p),
        ("get_threads", c_void_p), ("set_threads", c_void_p), ("no_memory", c_char_p), ("no_result", c_char_p),
        ("workers", c_int64), ("each", c_int64),
    )  # fmt: skip


def made(
    tasks: Sequence[Sequence[tuple]],
    engine,
    stream,
    functions: Sequence[int | None],
    where: str,
    workers: int,
    each: int,
) -> Recipe:
    """The Recipe of tasks, whose steps are (primitive, [(number, description, which, offset), ...]).

    It keeps what they are, and so does its user of what is given by an address.
    """
    array = (Task * len(tasks))(*map(_task, tasks))
    texts = (f"oneDNN's {name} failed, {where}".encode() for name in ("dnnl_memory_create", "dnnl_primitive_execute"))
    recipe = Recipe(len(tasks), array, engine, stream, *functions, *texts, workers, each)
    recipe.kept = tasks
    return recipe


def _task(steps: Sequence[tuple]) -> Task:
    slots = [Slot(*slot) for _, arguments in steps for slot in arguments]
    firsts = accumulate((len(arguments) for _, arguments in steps), initial=0)
    parts = [Step(step, len(arguments), first) for (step, arguments), first in zip(steps, firsts, strict=False)]
    return Task(len(slots), (Slot * len(slots))(*slots), len(parts), (Step * len(parts))(*parts))


class _Node(Structure):
    _fields_ = (("digest", c_int64), ("recipe", POINTER(Recipe)), ("next", c_void_p))


def key_of(numbers: Sequence[int]) -> np.ndarray:
    """The key of a call: a digest of the numbers, and they."""
    array = np.array(numbers, np.int64)
    digest = hashlib.blake2b(array.tobytes(), digest_size=8).digest()
    return np.concatenate([np.frombuffer(digest, np.int64), array])


class Handler:
    """The compiled function, registered with XLA: it stays as long as the process, since programs may call it.

    recipe: from the numbers of a key to a recipe. What it raises becomes an error of the program.
    """

    def __init__(self, recipe: Callable[[Sequence[int]], Recipe]):
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
        self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(SOURCE.read_text()), machine)
        self.engine.finalize_object()
        self.heads = (c_void_p * BUCKETS).from_address(self.engine.get_global_value_address("nodes"))
        self.why = c_char_p.from_address(self.engine.get_global_value_address("why"))
        self.recipe, self.nodes, self.known = recipe, [], set()
        self.find = CFUNCTYPE(c_void_p, POINTER(c_int64), c_size_t)(self._found)
        find = c_void_p.from_address(self.engine.get_global_value_address("find"))
        find.value = ctypes.cast(self.find, c_void_p).value
        self.capsule = jax.ffi.pycapsule(self.engine.get_function_address("handler"))
        jax.ffi.register_ffi_target(TARGET, self.capsule, platform="cpu", api_version=1)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))  # programs may still run when the interpreter ends

    def _found(self, key, count: int) -> int | None:
        try:
            return ctypes.addressof(self.add(key[:count]))
        except BaseException as e:  # none may leave it
            self.why.value = f"{type(e).__name__}: {e}".encode()
            return None

    def add(self, key: Iterable[int]) -> Recipe:
        """Keep the recipe of a key, made anew."""
        digest, *numbers = map(int, key)
        found = self.recipe(numbers)
        bucket = digest % BUCKETS
        node = _Node(digest, ctypes.pointer(found), self.heads[bucket])
        self.nodes.append(node)
        self.heads[bucket] = ctypes.addressof(node)  # the last: other threads may search meanwhile
        self.known.add(digest)
        return found

    def ready(self, key: np.ndarray) -> None:
        """Make the recipe of a key, if there is none."""
        if int(key[0]) not in self.known:
            self.add(key)

    def forget(self) -> None:
        """All recipes; they are made anew where they are asked for."""
        self.heads[:] = [None] * BUCKETS
        self.known.clear()
