"""Pictures of a training: its curves, and the kernels of its first layers."""

import os
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from research.records.metrics import Metrics

BLUE, ORANGE = "#0072b2", "#d55e00"


def curves(metrics: Metrics, path: Path) -> None:
    """Loss, accuracy and learning rate over the steps, in training and on the test set."""
    figure, frames = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    for frame, name in zip(frames, ("loss", "accuracy", "rate"), strict=True):
        frame.plot(*metrics.column(name), color=BLUE, label="training")
        frame.plot(*metrics.column(f"test_{name}"), "o-", color=ORANGE, markersize=3, label="test")
        frame.set(xlabel="step", title={"rate": "learning rate"}.get(name, name))
    if all(value > 0 for value in metrics.column("loss")[1]):
        frames[0].set_yscale("log")
    frames[1].legend()
    save(figure, path)


def kernels(layers: dict[str, np.ndarray], path: Path, most: int = 16) -> None:
    """Kernels (height, width, in, out) or, of sequences, (taps, features): one layer a row, the first input feature."""
    figure, frames = plt.subplots(
        len(layers), 1, figsize=(0.7 * most, 1.3 * len(layers)), layout="constrained", squeeze=False
    )
    for frame, (name, kernel) in zip(frames[:, 0], layers.items(), strict=True):
        kernel = np.asarray(kernel, np.float32)
        if kernel.ndim == 4:
            tiles = np.moveaxis(kernel[:, :, 0, :most], -1, 0)
            gap = np.full((tiles.shape[1], 1), np.nan, np.float32)
            row = np.hstack([part for tile in tiles for part in (tile, gap)][:-1])
            span = np.nanmax(np.abs(row)) or 1.0
            frame.imshow(row, cmap="RdBu", vmin=-span, vmax=span)
            frame.set(xticks=[], yticks=[])
        else:
            frame.plot(kernel.reshape(len(kernel), -1)[:, :4], linewidth=0.8)
        frame.set_title(f"{name} {list(kernel.shape)}", fontsize=8)
    save(figure, path)


def save(figure, path: Path) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".png.part")
    figure.savefig(part, dpi=100, format="png")
    plt.close(figure)
    os.replace(part, path)
