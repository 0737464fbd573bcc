"""The catalogue: the identities of all themes, in order."""

from jaxconv.identities.adjoint import adjoint
from jaxconv.identities.algebra import algebra
from jaxconv.identities.base import Identity
from jaxconv.identities.equivariance import equivariance
from jaxconv.identities.network import network
from jaxconv.identities.spectral import spectral
from jaxconv.identities.structure import structure

THEMES = {theme.name: theme for theme in (algebra, adjoint, spectral, structure, equivariance, network)}
CATALOGUE: tuple[Identity, ...] = tuple(identity for theme in THEMES.values() for identity in theme.identities)
