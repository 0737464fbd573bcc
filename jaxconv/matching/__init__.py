"""How similar a probe is to each place of an image, where it fits best, and how far two images are shifted."""

from jaxconv.matching.overlaps import autocorrelation
from jaxconv.matching.peaks import find_matches
from jaxconv.matching.registration import phase_cross_correlation
from jaxconv.matching.templates import match_template

__all__ = ["autocorrelation", "find_matches", "match_template", "phase_cross_correlation"]
