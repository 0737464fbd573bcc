"""The table of engines."""

from jaxconv.engines.base import Engine
from jaxconv.engines.direct import DIRECT
from jaxconv.engines.fft import FFT
from jaxconv.engines.gemm import GEMM
from jaxconv.engines.overlap import OVERLAP
from jaxconv.engines.shifts import SHIFTS
from jaxconv.engines.winograd import WINOGRAD

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (DIRECT, SHIFTS, GEMM, WINOGRAD, FFT, OVERLAP)}
