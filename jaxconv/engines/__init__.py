"""The table of engines."""

from jaxconv.engines.base import Engine
from jaxconv.engines.direct import DIRECT
from jaxconv.engines.fft import FFT
from jaxconv.engines.gemm import GEMM
from jaxconv.engines.native import NATIVE
from jaxconv.engines.overlap import OVERLAP
from jaxconv.engines.shifts import SHIFTS
from jaxconv.engines.winograd import CLOSE, WINOGRAD

ALL = (DIRECT, SHIFTS, GEMM, WINOGRAD, FFT, OVERLAP, NATIVE)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in ALL}


def engines_of(accuracy: str) -> dict[str, Engine]:
    """The table for an accuracy: for 'close' winograd has smaller tiles."""
    return ENGINES | {"winograd": CLOSE} if accuracy == "close" else ENGINES
