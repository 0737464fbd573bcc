"""The identities of convolution and correlation: a catalogue, and its verifier.

>>> from jaxconv.identities import CATALOGUE, verify
>>> print(next(i for i in CATALOGUE if i.name == "flip law"))
flip law: f ⋆ h = f * h̃ (every dtype; modes full, same, valid; every kernel, symmetric or not)
>>> verify(themes=["network"], engines=["direct"], dtypes=["int32"]).holds
True
"""

from jaxconv.identities.base import Identity
from jaxconv.identities.catalogue import CATALOGUE, THEMES
from jaxconv.identities.report import Report, verify

__all__ = ["CATALOGUE", "THEMES", "Identity", "Report", "verify"]
