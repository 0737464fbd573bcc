"""What a network looks at: all maps of jaxconv.attribution side by side, where it is known what they should show.

A CNN learns digits that lie at known places on photographs of brick, grass and gravel, and another one to tell faces
from other patches. Each map is judged: does its largest value lie on the digit (pointing game), how much of its weight
does, how fast does the class disappear when the pixels that it names are deleted, and does it depend on what the net
has learned (layers randomised from the top down)?
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import typer
from flax import nnx

from jaxconv.attribution import (
    cascade,
    contact_sheet,
    deconvnet,
    deletion,
    energy_in_mask,
    grad_cam,
    grad_cam_plus_plus,
    guided_backprop,
    guided_grad_cam,
    hires_cam,
    input_x_gradient,
    insertion,
    integrated_gradients,
    layer_cam,
    occlusion,
    pointing_game,
    saliency,
    smoothgrad,
)
from research.datasets import scenes
from research.models import Layers
from research.models.averaging import Averaging

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DIGITS = (0, 1, 2, 3, 4)


def covered(net: Callable, x: Any, target: Any) -> Any:
    """Occlusion by windows of 8x8, brought to the size of x."""
    return jax.image.resize(occlusion(net, x, target, window=8, stride=2, chunk=256), x.shape[:-1], "linear")


MAPS: dict[str, Callable] = {
    "saliency": saliency,
    "input x gradient": input_x_gradient,
    "SmoothGrad": partial(smoothgrad, key=jax.random.key(0), samples=25, chunk=256),
    "integrated gradients": partial(integrated_gradients, steps=25, chunk=256),
    "deconvnet": deconvnet,
    "guided backprop": guided_backprop,
    "Grad-CAM": grad_cam,
    "Grad-CAM++": grad_cam_plus_plus,
    "LayerCAM": layer_cam,
    "HiResCAM": hires_cam,
    "guided Grad-CAM": guided_grad_cam,
    "occlusion": covered,
}
QUICK: tuple[str, ...] = ("saliency", "deconvnet", "guided backprop", "Grad-CAM")


def shown(names: Iterable[str], net: Callable, x: Any, target: Any) -> dict[str, np.ndarray]:
    """method -> maps of the size of x, with channels where the method has signs."""
    return {name: np.asarray(MAPS[name](net, x, target)) for name in names}


def weight(maps: np.ndarray) -> np.ndarray:
    """How much a map says of each pixel, [n, height, width], not negative."""
    return np.abs(maps).sum(-1) if maps.ndim == 4 else np.maximum(maps, 0)


def trained(classes: int, draw: Callable[[int], tuple], steps: int, method: str) -> Averaging:
    """A CNN trained on what draw(step) gives."""
    net = nnx.jit(lambda: Averaging(1, classes, 16, Layers(nnx.Rngs(0), method=method, norm="group")))()
    graph, state = nnx.split(net)
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def step(state, memory, x, y):
        def loss(state):
            return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, state)(x), y).mean()

        gradient = jax.grad(loss)(state)
        with jax.numpy_dtype_promotion("standard"):  # on which optax relies
            updates, memory = optimiser.update(gradient, memory)
        return optax.apply_updates(state, updates), memory

    memory = optimiser.init(state)
    for number in range(steps):
        state, memory = step(state, memory, *draw(number))
    return nnx.merge(graph, state)


def accuracy(net: Averaging, x: np.ndarray, y: np.ndarray) -> float:
    return float((nnx.jit(Averaging.__call__)(net, jnp.asarray(x)).argmax(1) == y).mean())


def main(
    steps: Annotated[int, typer.Option(help="Of training.", min=1)] = 600,
    count: Annotated[int, typer.Option(help="Scenes on which the maps are judged.", min=8)] = 300,
    quick: Annotated[
        bool,
        typer.Option(
            help="120 steps, 24 scenes, four maps, two of faces and no curves; layers by 'direct', soon compiled."
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("out"),
) -> None:
    """Train both nets, judge the maps; write OUT/heatmaps.md and three pictures beside it."""
    method = "auto"
    if quick:
        steps, count, method = min(steps, 120), min(count, 24), "direct"
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def batch(_):
        found = scenes.draw(rng, 64, DIGITS, test=False)
        return found.images, found.labels

    net = trained(len(DIGITS), batch, steps, method)
    test = scenes.draw(np.random.default_rng(1), count, DIGITS, test=True)
    right = accuracy(net, test.images, test.labels)
    names = QUICK if quick else tuple(MAPS)
    maps = shown(names, net, test.images, test.labels)
    rows = [judged(name, found, net, test) for name, found in maps.items()]
    share = float(test.masks.mean())

    few = slice(0, 6)
    labels = [str(label) for label in test.labels[few]]
    contact_sheet(test.images[few], {n: m[few] for n, m in maps.items()}, out / "heatmaps.png", titles=labels)

    x, y, x_test, y_test = scenes.faces()

    def faces(number):
        part = np.random.default_rng(number).integers(len(x), size=50)
        return x[part], y[part]

    face_net = trained(2, faces, max(100, steps // 4), method)
    right_faces = accuracy(face_net, x_test, y_test)
    some = np.concatenate([np.flatnonzero(y_test == 1)[:4], np.flatnonzero(y_test == 0)[:2]])
    titles = ["face" if y_test[one] else "no face" for one in some]
    face_maps = shown(names[::3] if quick else names, face_net, x_test[some], np.ones(len(some), int))
    contact_sheet(x_test[some], face_maps, out / "heatmaps-faces.png", titles=titles)
    face_rows = []
    empty = x[y == 0][0]  # a grey image would be taken for a face: pixels are replaced by those of a patch without one
    for name, m in () if quick else face_maps.items():  # of the four faces
        curves = (
            f(face_net, x_test[some[:4]], weight(m[:4]), 1, steps=16, baseline=empty, chunk=512)
            for f in (deletion, insertion)
        )
        face_rows.append((name, *(float(curve.area.mean()) for curve in curves)))

    checks = sanity(names[1:] if quick else SANE, net, test.images[: min(count, 24)], test.labels[: min(count, 24)])
    picture(checks, out / "heatmaps-sanity.png")
    text = report(rows, face_rows, checks, right, right_faces, share, steps, count)
    typer.echo(text)
    (out / "heatmaps.md.part").write_text(text)
    os.replace(out / "heatmaps.md.part", out / "heatmaps.md")


def judged(name: str, maps: np.ndarray, net: Any, test: scenes.Scenes) -> tuple:
    """(name, pointing game, energy in the box, deletion, insertion), means over the scenes."""
    found = weight(maps)
    gone = deletion(net, test.images, found, test.labels, steps=16, chunk=512).area
    come = insertion(net, test.images, found, test.labels, steps=16, chunk=512).area
    hits = pointing_game(found, test.masks)
    values = [hits, energy_in_mask(found, test.masks), gone, come]
    return name, *(float(jnp.mean(v)) for v in values)


SANE = ("saliency", "integrated gradients", "deconvnet", "guided backprop", "Grad-CAM", "guided Grad-CAM")


def sanity(
    names: Iterable[str], net: Any, x: np.ndarray, target: np.ndarray
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """method -> (layers from the top down, mean rank correlation with the trained net's map)."""
    found = {}
    for name in names:
        method = MAPS[name]
        explain = lambda net, x, method=method: weight_of(method(net, x, target))  # noqa: E731
        result = cascade(explain, net, x, key=jax.random.key(2), layers=("readout", "last", "third", "second", "first"))
        found[name] = result.layers, np.asarray(result.similarity.mean(1))
    return found


def weight_of(maps):
    return jnp.abs(maps).sum(-1) if maps.ndim == 4 else jnp.maximum(maps, 0)


def picture(checks: dict, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for (name, (_, values)), style in zip(checks.items(), ("-o", "-s", "-^", "-D", "--o", "--s"), strict=False):
        axis.plot(range(len(values) + 1), [1.0, *values], style, label=name, markersize=4)
    layers, _ = next(iter(checks.values()))
    axis.set_xticks(range(len(layers) + 1), ["trained", *layers])
    axis.set(ylabel="rank correlation", xlabel="layers randomised, from the top down", ylim=(-0.2, 1.05))
    axis.legend(fontsize=7)
    figure.savefig(path.with_suffix(".part"), dpi=110, format="png")
    os.replace(path.with_suffix(".part"), path)
    plt.close(figure)


def report(rows, face_rows, checks, right, right_faces, share, steps, count) -> str:
    table = ["| map | pointing game | weight in the box | deletion | insertion |", "| --- |" + " --- |" * 4]
    table += [f"| {name} | {a:.2f} | {b:.2f} | {c:.2f} | {d:.2f} |" for name, a, b, c, d in rows]
    said = ["Means over the four faces shown; in place of deleted pixels stand those of a patch without a face."]
    curves = ["| map | deletion | insertion |", "| --- | --- | --- |"]
    curves += [f"| {name} | {c:.2f} | {d:.2f} |" for name, c, d in face_rows]
    layers, _ = next(iter(checks.values()))
    sane = ["| map | " + " | ".join(layers) + " |", "| --- |" + " --- |" * len(layers)]
    sane += [f"| {name} | " + " | ".join(f"{v:.2f}" for v in values) + " |" for name, (_, values) in checks.items()]
    paragraphs = [
        "# What a network looks at",
        f"A CNN of four 3x3 layers, {steps} steps on the digits 0 to 4 of scikit-learn at random places on "
        f"scikit-image's brick, grass and gravel, finds {100 * right:.1f} % of {count} digits that it has not seen, on "
        f"parts of the photographs that it has not seen. The digit's box is {share:.2f} of the image: so much of its "
        "weight a flat map has there, and so often a random pixel hits it. Deletion: low is good; insertion: high.",
        "\n".join(table),
        "![maps](heatmaps.png)",
        f"Faces: a CNN of the same kind tells {100 * right_faces:.0f} % of 50 patches of lfw_subset right. All maps "
        "are for the class 'face'.",
        *(["\n".join(curves), *said] if face_rows else []),
        "![faces](heatmaps-faces.png)",
        "Sanity check: the rank correlation of each map with that of the trained net, as its layers are randomised one "
        "after the other, from the top down. A map that stays alike does not explain what the net has learned.",
        "\n".join(sane),
        "![sanity](heatmaps-sanity.png)",
    ]
    return "\n\n".join(paragraphs) + "\n"


if __name__ == "__main__":
    typer.run(main)
