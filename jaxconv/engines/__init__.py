"""The table of engines."""

from jaxconv.engines.base import Engine
from jaxconv.engines.direct import DIRECT
from jaxconv.engines.fft import FFT
from jaxconv.engines.shifts import SHIFTS

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (DIRECT, SHIFTS, FFT)}
