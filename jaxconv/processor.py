"""The processor: its name, its class by vector instructions, its cores and its last cache, read once.

Read from where Linux states them; elsewhere, and where a container hides them, what is common stands in.
"""

import os
import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple

INFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
COMMON = 16 << 20  # bytes of a last cache


class Processor(NamedTuple):
    """name: what its maker calls it. kind: "avx512" or "avx2". cores: that this process may use. cache: bytes."""

    name: str
    kind: str
    cores: int
    cache: int

    def __str__(self) -> str:
        return f"{self.name}, {self.cores} cores"


@cache
def processor() -> Processor:
    """That of this machine."""
    stated = _info()
    kind = "avx512" if "avx512f" in stated.get("flags", "").split() else "avx2"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processor(
        stated.get("model name") or platform.processor() or platform.machine(),
        kind,
        cores,
        max(_caches(), default=COMMON),
    )


def _info() -> dict[str, str]:
    """The first core's lines."""
    try:
        core, *_ = INFO.read_text().split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in core.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _caches() -> list[int]:
    try:
        sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    except OSError:
        return []
    return [
        int(size[:-1]) << {"K": 10, "M": 20}[size[-1]] for size in sizes if size[:-1].isdigit() and size[-1] in "KM"
    ]
