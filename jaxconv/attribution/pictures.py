"""Maps as pictures: over the image, with signs, and side by side.

Colours are perceptually uniform and safe for the colour-blind: cividis for maps that are not negative, and for signed
ones matplotlib's blue to red by way of white, symmetric about zero.
"""

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from jaxconv.arguments import as_real

MAP, SIGNED = "cividis", "RdBu_r"


def overlay(image: Any, map: Any, *, alpha: float = 0.6, colours: str = MAP) -> np.ndarray:
    """A map over its image: bright where the map is large, the image in grey where it is small.

        rgb = (1 - a) * grey(image) + a * colour(map),   a = alpha * map / max map

    >>> import numpy as np
    >>> overlay(np.zeros((4, 4, 1)), np.eye(2)).shape
    (4, 4, 3)

    Parameters
    ----------
    image : [height, width, channels] or [height, width]
        One or three channels, in any range.
    map : [height, width]
        Not negative, in any size: it is brought to the image's.
    alpha : float
        How much of the colour shows where the map is largest.
    colours : str
        A colour map of matplotlib.

    Returns
    -------
    numpy.ndarray
        [height, width, 3], between 0 and 1.

    Raises
    ------
    ValueError
        An image or a map of other axes, a map with NaN, an alpha that is no share.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: Selvaraju et al. 2016, figure 1; Nuñez, Anderton and Renslow, Optimizing colormaps (cividis), 2018.
    """
    import matplotlib

    map = as_real("overlay", "map", map)
    if np.ndim(map) != 2 or not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ValueError(
            f"`overlay` got a map of shape {np.shape(map)} and alpha={alpha!r}: a map without channels is wanted, "
            "[height, width], and a share between 0 and 1. Sum the channels' moduli, or show a map with signs by "
            "`signed`."
        )
    grey = _grey("overlay", image)
    shown = _fitted(np.maximum(_plane("overlay", map), 0), grey.shape)
    shown = shown / shown.max() if shown.max() > 0 else shown
    share = alpha * shown[..., None]
    return (1 - share) * grey[..., None] + share * matplotlib.colormaps[colours](shown)[..., :3]


def signed(map: Any, *, colours: str = SIGNED, quantile: float = 0.99) -> np.ndarray:
    """A map with signs: white is zero, and one scale serves both.

        rgb = colour(1/2 + map / (2 m)),   m the quantile of |map|

    >>> import numpy as np
    >>> signed(np.array([[-1., 0.], [0., 1.]])).shape
    (2, 2, 3)

    Parameters
    ----------
    map : [height, width] or [height, width, channels]
        Channels are summed.
    colours : str
        A diverging colour map of matplotlib.
    quantile : float
        Of the moduli: beyond it the colour is full.

    Returns
    -------
    numpy.ndarray
        [height, width, 3], between 0 and 1.

    Raises
    ------
    ValueError
        A map of other axes, or with NaN.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: Simonyan et al. 2013, for its maps; ColorBrewer, for the colours.
    """
    import matplotlib

    plane = _plane("signed", map)
    most = np.quantile(np.abs(plane), quantile) or np.abs(plane).max() or 1.0
    return matplotlib.colormaps[colours](np.clip(0.5 + plane / (2 * most), 0, 1))[..., :3]


def contact_sheet(
    images: Any,
    maps: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    titles: Sequence[str] | None = None,
    scale: float = 1.3,
) -> Path:
    """All maps side by side, in a file: a row for each image, a column for each method.

        row n: images[n], then for each method overlay(images[n], maps[n]), or signed(maps[n]) if any of it has signs

    >>> import numpy as np, tempfile
    >>> path = tempfile.mkdtemp() + "/sheet.png"
    >>> contact_sheet(np.zeros((2, 8, 8, 1)), {"saliency": np.ones((2, 8, 8))}, path).name
    'sheet.png'

    Parameters
    ----------
    images : [n, height, width, channels]
    maps : name -> [n, height, width] or [n, height, width, channels]
    path : str or PathLike
        A PNG, written whole or not at all.
    titles : sequence of str, optional
        One for each image.
    scale : float
        Inches of a picture.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        Maps or titles of another number than images; no maps; a map with NaN.

    Runs outside `jax.jit`; static under `jax.jit`: everything.

    Source: Adebayo et al. 2018, figure 1, for the arrangement.
    """
    from matplotlib.figure import Figure

    images, path = np.atleast_1d(as_real("contact_sheet", "images", images)), Path(path)
    if not isinstance(maps, Mapping):
        raise TypeError(
            f"`contact_sheet` got maps of type {type(maps).__name__}: it must be a mapping of names to maps. Pass "
            "{'name': maps}."
        )
    maps = {name: np.atleast_1d(as_real("contact_sheet", f"maps[{name!r}]", values)) for name, values in maps.items()}
    wrong = {name: len(values) for name, values in maps.items() if len(values) != len(images)}
    if titles is not None and len(titles) != len(images):
        wrong["titles"] = len(titles)
    if wrong or not maps or not len(images):
        raise ValueError(
            f"`contact_sheet` got {len(images)} images and {wrong or list(maps)}: it wants at least one image, one "
            "method, and as many maps of each (and titles) as images. Pass as many."
        )
    planes = {name: [_plane("contact_sheet", one) for one in values] for name, values in maps.items()}
    rows, columns = len(images), 1 + len(maps)
    figure = Figure(figsize=(scale * columns, scale * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, image in enumerate(images):
        axes[row, 0].imshow(_colour("contact_sheet", image))
        if titles is not None:
            axes[row, 0].set_title(titles[row], fontsize=6)
        for axis, (name, all_of_it) in zip(axes[row, 1:], planes.items(), strict=True):
            has_signs = min(plane.min() for plane in all_of_it) < 0
            axis.imshow(signed(all_of_it[row]) if has_signs else overlay(image, all_of_it[row]))
            if row == 0:
                axis.set_title(name, fontsize=7)
    part = path.with_name(path.name + ".part")
    try:
        figure.savefig(part, dpi=120, format="png")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _colour(call: str, image: Any) -> np.ndarray:
    """[height, width, 3] between 0 and 1."""
    image = np.asarray(as_real(call, "image", image), float)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        raise ValueError(
            f"`{call}` got an image of shape {image.shape}: it must be [height, width] with one channel or three, "
            "and not empty. Pass one image, its channels last."
        )
    span = image.max() - image.min()
    image = (image - image.min()) / span if span > 0 else np.clip(image, 0, 1)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _grey(call: str, image: Any) -> np.ndarray:
    return _colour(call, image) @ np.array([0.299, 0.587, 0.114])


def _plane(call: str, map: Any) -> np.ndarray:
    plane = np.asarray(as_real(call, "map", map), float)
    plane = plane.sum(-1) if plane.ndim == 3 else plane
    if plane.ndim != 2 or not plane.size:
        raise ValueError(
            f"`{call}` got a map of shape {plane.shape}: it must be [height, width], of one image, and not empty. Sum "
            "further axes first."
        )
    if not np.isfinite(plane).all():
        raise ValueError(f"`{call}` got a map with NaN or infinity: it has no picture. Look at how it was made.")
    return plane


def _fitted(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if plane.shape == shape:
        return plane
    import jax

    return np.asarray(jax.image.resize(plane, shape, "linear"))
