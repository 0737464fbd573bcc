"""What a network shows: flips, engines, and the ways to look into it (claims 3, 14, 15 and 17)."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from jaxconv.lax import conv_general_dilated
from jaxconv.signal import convolve, correlate
from research.claims.layers import Layer, layers_of, turned, worst
from research.claims.ledger import CONVENTION, HOLDS, check, claim, grid, same, save, table

TESTS = 360  # images that are kept for the test


@cache
def operation(form: str, engine: str) -> Callable:
    """A layer's operation, with the signature that nnx.Conv wants."""
    return partial(conv_general_dilated, flip_kernel=form == "convolution", method=engine)


class Net(nnx.Module):
    """Two layers of 3x3 kernels, ReLU and 2x2 max pooling between, the mean over positions, a linear read-out."""

    def __init__(self, operation: Callable, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs, conv_general_dilated=operation)
        self.second = nnx.Conv(16, 32, (3, 3), rngs=rngs, conv_general_dilated=operation)
        self.readout = nnx.Linear(32, 10, rngs=rngs)

    def before(self, x, relu=nnx.relu):
        return relu(self.second(nnx.max_pool(relu(self.first(x)), (2, 2), (2, 2))))

    @staticmethod
    @cache
    def graph(operation) -> nnx.GraphDef:
        return nnx.graphdef(nnx.eval_shape(lambda: Net(operation, nnx.Rngs(0))))

    @staticmethod
    def of(weights, operation) -> "Net":
        return nnx.merge(Net.graph(operation), weights)

    @staticmethod
    def features(weights, x, relu=nnx.relu, operation=conv_general_dilated):
        return Net.of(weights, operation).before(x, relu)

    @staticmethod
    def read(weights, features):
        return Net.of(weights, conv_general_dilated).readout(features.mean((1, 2)))

    @staticmethod
    def scores(weights, x, relu=nnx.relu, operation=conv_general_dilated):
        return Net.read(weights, Net.features(weights, x, relu, operation))


RULES: dict[str, Callable] = {
    "saliency": lambda z, r: jnp.where(z > 0, r, 0),
    "deconvnet": lambda z, r: jnp.maximum(r, 0),
    "guided": lambda z, r: jnp.where(z > 0, jnp.maximum(r, 0), 0),
}


def with_rule(rule: Callable) -> Callable:
    """ReLU with another backward rule: not linear in r, so no JVP has it."""
    relu = jax.custom_vjp(lambda z: jnp.maximum(z, 0))
    relu.defvjp(lambda z: (jnp.maximum(z, 0), z), lambda z, r: (rule(z, r),))
    return relu


@cache
def digits():
    """Training images and labels, test images and labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = ((images - images.mean()) / images.std()).reshape(-1, 8, 8, 1).astype(np.float32)[order]
    y = labels[order]
    return jnp.asarray(x[TESTS:]), jnp.asarray(y[TESTS:]), jnp.asarray(x[:TESTS]), jnp.asarray(y[:TESTS])


class Trained(NamedTuple):
    """What a training left behind."""

    losses: np.ndarray
    weights: nnx.State
    accuracy: float
    path: list[tuple]  # weights at the start of each epoch, and a few images and labels of its first step

    def flips(self, other: "Trained") -> float:
        """The largest difference between these kernels and the flips of the other's."""
        apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), self.weights, flipped(other.weights))
        return max(jax.tree.leaves(apart))


def flipped(weights):
    return jax.tree.map(lambda a: turned(a) if a.ndim == 4 else a, weights)


def gradient(operation: Callable) -> Callable:
    """(weights, images, labels) -> the mean loss and its gradient in the weights."""

    def loss(weights, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(Net.scores(weights, x, operation=operation), y).mean()

    return jax.value_and_grad(loss)


OPTIMISER = optax.sgd(0.1, momentum=0.9)


@cache
def program(form: str, engine: str) -> tuple[Callable, Callable]:
    """A step of training, and the answers, compiled once for all trainings by these layers."""
    found = operation(form, engine)

    @jax.jit
    def step(weights: Any, memory, x, y):
        value, slope = gradient(found)(weights, x, y)
        updates, memory = OPTIMISER.update(slope, memory, weights)
        return optax.apply_updates(weights, updates), memory, value

    return step, jax.jit(lambda weights, x: Net.scores(weights, x, operation=found).argmax(-1))


@cache
def trained(form: str, engine: str, seed: int = 0, nudge: bool = False, epochs: int = 8, batch: int = 64) -> Trained:
    """The network trained on the digits. Convolution layers with seed 0 start from the flipped kernels; with `nudge`
    every weight starts from the next number above.
    """
    x, y, x_test, y_test = digits()
    step, answers = program(form, engine)
    weights = nnx.state(nnx.jit(lambda: Net(operation(form, engine), nnx.Rngs(seed)))())
    weights = flipped(weights) if form == "convolution" else weights
    weights = jax.tree.map(lambda a: jnp.nextafter(a, jnp.inf), weights) if nudge else weights
    rng, memory, losses, path = np.random.default_rng(0), OPTIMISER.init(weights), [], []
    for _ in range(epochs):
        batches = rng.permutation(len(x))[: len(x) // batch * batch].reshape(-1, batch)
        path.append((weights, x[batches[0][:8]], y[batches[0][:8]]))
        for rows in batches:
            weights, memory, value = step(weights, memory, x[rows], y[rows])
            losses.append(float(value))
    return Trained(np.array(losses), weights, float((answers(weights, x_test) == y_test).mean()), path)


@cache
def given() -> list[Layer]:
    """What each layer is given at the start, half way and in the last epoch of the first training."""
    layers, path = layers_of(gradient, operation("correlation", "direct")), trained("correlation", "direct").path
    return [layer for state in (path[0], path[len(path) // 2], path[-1]) for layer in layers(*state)]


@cache
def share(form: str, engine: str, integers: bool = False) -> float:
    """How far this kind of layers comes from the first training's in one step, as a share of the derived bound.

    In small integers all sums are exact whatever their order, and the bound is 0.
    """
    rng, layers = np.random.default_rng(0), given()
    if integers:
        drawn = partial(rng.integers, -3, 4, dtype=np.int32)
        whole = [[drawn(a.shape).astype(a.dtype) for a in layer[:3]] for layer in layers[:2]]
        layers = [Layer(x, w, dy, a.options) for (x, w, dy), a in zip(whole, layers, strict=False)]
    return worst(layers, operation("correlation", "direct"), operation(form, engine), form == "convolution")


# Of 360 test images 97 % are recognised, give or take 0.9 (one binomial deviation); by chance 10 % are. A network that
# has learned is above this bar by eight deviations, whatever rounding has done on the way.
LEARNED = 0.9


@claim(3, HOLDS)
def claim_3(out: Path):
    """Layers called convolutional compute cross-correlation. Trained either way, the same network reaches the same
    result with kernels flipped.
    """
    x, h = np.random.default_rng(0).integers(1, 10, (5, 5)), np.arange(1, 10).reshape(3, 3)
    layer = nnx.Conv(1, 1, (3, 3), padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    layer.kernel.set_value(jnp.asarray(h[:, :, None, None], jnp.float32))
    y = layer(jnp.asarray(x[None, :, :, None], jnp.float32))[0, :, :, 0]
    check("Flax's own nnx.Conv correlates", same(y, correlate(x, h, "valid")))
    check("and does not convolve", not same(y, convolve(x, h, "valid")))
    star, twin = trained("correlation", "direct"), trained("convolution", "direct")
    check(
        "in integers the results are the same, and the kernels' gradients flips",
        share("convolution", "direct", True) == 0,
    )
    check("one step from the same state: likewise, to rounding", share("convolution", "direct") <= 1)
    check("both have learned", min(star.accuracy, twin.accuracy) > LEARNED)
    runs = {
        "correlation layers": star,
        "convolution layers, started from the flipped kernels": twin,
        "convolution layers with a start of their own": trained("convolution", "direct", 1),
    }
    apart = ("", f"{star.flips(twin):g}", "(another network)")
    rows = [
        (name, f"{run.losses[0]:.4f}", f"{run.losses[-1]:.4f}", f"{run.accuracy:.1%}", beside)
        for (name, run), beside in zip(runs.items(), apart, strict=True)
    ]
    figure, frame = plt.subplots(figsize=(7, 3), layout="constrained")
    for (name, run), style in zip(runs.items(), ("-", "--", ":"), strict=True):
        frame.semilogy(run.losses, style, label=name)
    frame.set(xlabel="step", ylabel="training loss")
    frame.legend(fontsize=8)
    save(figure, out / "claims-training.png")
    return [
        "`nnx.Conv` as Flax has it gives `correlate(x, h, 'valid')`, in integers. Then two layers of 3x3 kernels "
        f"and a read-out, trained on scikit-learn's digits by {len(star.losses)} steps of SGD:",
        table("network | first loss | last loss | test accuracy | kernels against the flips of the first's", *rows),
        "What is checked is one step at a time, from the same state: with flipped kernels each layer has the same "
        "output and the same gradient in its input, and in its kernel the flipped one. In integers that is so to the "
        f"last bit; in float32 at the start, half way and at the end they differ by "
        f"{part(share('convolution', 'direct'))} of what the error analysis allows. Over a whole training rounding may "
        "grow; here the losses of all steps are "
        f"{'equal to the last bit' if same(star.losses, twin.losses) else f'up to {drift(star, twin):.0e} apart'}.",
        "![training](claims-training.png)",
        "Many seeds: `python -m research.twins`.",
    ]


@claim(14, HOLDS)
def claim_14(out: Path):
    """FFTs speed up convolutions on GPUs but are not part of a CNN's structure: the same network runs either way."""
    direct, fourier = trained("correlation", "direct"), trained("correlation", "fft")
    control = trained("correlation", "direct", nudge=True)
    texts = [str(jax.make_jaxpr(gradient(operation("correlation", e)))(*direct.path[0])) for e in ("direct", "fft")]
    check("one program, but for the engine that is asked for", texts[0] == texts[1].replace("'fft'", "'direct'"))
    apart = share("correlation", "fft")
    check("one step from the same state: the same to rounding", apart <= 1)
    check("both have learned", min(direct.accuracy, fourier.accuracy) > LEARNED)
    runs = {"`direct`": direct, "`fft`": fourier, "`direct`, every weight of the start moved up by one ulp": control}
    marks = (1, len(direct.losses) // 4, len(direct.losses))
    return [
        "The two steps of training are one program, but for the engine that the layers ask for. From the same state, "
        "at the start, half way and at the end of training, each layer's output and gradients by `direct` and by `fft` "
        f"differ by {part(apart)} of what both engines' error analyses allow.",
        table(
            "the network of claim 3, trained by the engine | last loss | test accuracy | losses from the first row's: "
            + " | ".join(f"{mark} steps" if mark > 1 else "1 step" for mark in marks),
            *(
                (name, f"{run.losses[-1]:.4f}", f"{run.accuracy:.1%}", *(f"{drift(direct, run, m):.0e}" for m in marks))
                for name, run in runs.items()
            ),
        ),
        "Rounding may grow on the way: the last row has the first one's engine, and only its start differs by a "
        "rounding. How far the rows drift apart depends on the processor, and nothing is judged by it. That FFTs are "
        "faster on GPUs was not measured here; on CPU they are for long kernels only ([bench.md](bench.md)).",
    ]


def part(share: float) -> str:
    return f"{share:.1%}" if share else "nothing"


def drift(one: Trained, other: Trained, steps: int | None = None) -> float:
    """How far apart the losses come in so many steps."""
    return float(np.abs(one.losses - other.losses)[:steps].max())


@claim(15, CONVENTION)
def claim_15(out: Path):
    """The only reason to flip the kernel is commutativity; it is useful for proofs, not for a network."""
    f, h = np.array([1, 2, 0]), np.array([1, -1, 2])
    impulse = np.array([0, 1, 0])
    check("flipped: commutative", same(convolve(f, h), convolve(h, f)))
    check("unflipped: not", not same(correlate(f, h), correlate(h, f)))
    check("flipped: an impulse gives the kernel", same(convolve(impulse, h, "same"), h))
    check("unflipped: the kernel backwards", same(correlate(impulse, h, "same"), h[::-1]))
    check("a network: the same", share("convolution", "direct", True) == 0 and share("convolution", "direct") <= 1)
    fh, hf = (grid([a]) for a in (correlate(f, h), correlate(h, f)))
    rows = [
        ("commutativity", f"x * h = h * x = {grid([convolve(f, h)])}", f"no: {fh} and {hf}"),
        ("an impulse gives the kernel", grid([convolve(impulse, h, "same")]), grid([correlate(impulse, h, "same")])),
        ("associativity", "yes (claim 10)", "no (claim 10)"),
        ("in frequency", "a product", "a product with a conjugate (claim 11)"),
        ("the training of a network", "the same, step by step (claim 3)", "the same"),
    ]
    return [
        table("what the flip brings | with it, x * h | without it, x ⋆ h", *rows),
        "x = 1 2 0, h = 1 -1 2. Of a network it holds. 'The only reason' holds if commutativity stands for the "
        "algebra: the flip also makes the product associative and the impulse its unit, which commutativity alone "
        "would not.",
    ]


@claim(17, HOLDS)
def claim_17(out: Path):
    """Backpropagation leads to deconvnets, these to saliency maps, guided backpropagation, Grad-CAM and Guided
    Attention Inference Networks. Every one of them runs on a Flax CNN here.
    """
    weights, (_, _, tests, answers) = trained("correlation", "direct").weights, digits()
    chosen = np.array([int(np.flatnonzero(answers == d)[0]) for d in (0, 3, 4, 6, 8)])
    x, labels = tests[chosen], answers[chosen]

    @partial(jax.jit, static_argnames="relu")
    def slope(weights, x, relu=nnx.relu):
        return jax.grad(lambda x: of_label(Net.scores(weights, x, relu=relu), labels).sum())(x)

    # One backward pass with three rules for ReLU: the maps differ in nothing else.
    relus = {name: with_rule(rule) for name, rule in RULES.items()}
    backward = {name: slope(weights, x, relu) for name, relu in relus.items()}
    whole = jax.tree.map(lambda a: jnp.round(8 * a), weights), jnp.round(x)  # so that all sums are exact
    check("the first rule is autodiff's", same(slope(*whole, relus["saliency"]), slope(*whole)))
    rng, up = np.random.default_rng(0), partial(np.maximum, 0)
    W, v = rng.integers(-3, 4, (6, 4)).astype(np.float32), rng.integers(-3, 4, 6).astype(np.float32)
    a = np.array([1, -2, 3, 1], np.float32)
    open_ = (W @ a > 0).astype(np.float32)
    by_hand = {"saliency": W.T @ (open_ * v), "deconvnet": W.T @ up(v), "guided": W.T @ (open_ * up(v))}
    for name, right in by_hand.items():
        one = jax.grad(lambda a, name=name: v @ with_rule(RULES[name])(W @ a))(a)
        check(f"{name} of one layer, by hand", same(one, right))

    cam = grad_cam(weights, x, labels)
    check("Grad-CAM is not negative, and not empty", cam.min() >= 0 and cam.max() > 0)

    # GAIN trains with the map: what it covers is taken away, and the rest shall not be recognised.
    def attention(weights, x, labels):
        return of_label(nnx.softmax(Net.scores(weights, masked(weights, x, labels))), labels).mean()

    left, slopes = jax.jit(jax.value_and_grad(attention))(weights, tests, answers)
    check("its loss has a gradient in every weight", all(bool(jnp.abs(g).max() > 0) for g in jax.tree.leaves(slopes)))
    check("at omega = 0 half of the image is left", same(masked(weights, x, labels, omega=0), x / 2))
    plain = float(of_label(nnx.softmax(Net.scores(weights, tests)), answers).mean())
    check("without what the maps cover the digits are less sure", float(left) < plain)

    columns = [("image", x), *backward.items(), ("Grad-CAM", cam), ("what GAIN leaves", masked(weights, x, labels))]
    figure, frames = plt.subplots(len(x), len(columns), figsize=(9, 7), layout="constrained")
    for column, (name, images) in enumerate(columns):
        for row, image in enumerate(np.asarray(images)[..., 0]):
            span, signed = np.abs(image).max() or 1, name in backward
            low, colours = (-span, "RdBu") if signed else (None, "gray")
            frames[row, column].imshow(image, cmap=colours, vmin=low, vmax=span)
            frames[row, column].axis("off")
        frames[0, column].set_title(name, fontsize=9)
    save(figure, out / "claims-maps.png")
    fell = f"over {TESTS} digits the probability of the answer falls from {plain:.3f} to {float(left):.3f}"
    rows = [
        ("backpropagation", "the gradient of the loss in the weights", "claim 16"),
        (
            "deconvnet (Zeiler and Fergus 2013)",
            "a score's gradient in the pixels; ReLU passes max(R, 0)",
            "Wᵀ max(v, 0)",
        ),
        ("saliency (Simonyan et al. 2013)", "ReLU passes 1[z>0] R: the gradient itself", "Wᵀ(1[z>0] v)"),
        ("guided backpropagation (Springenberg et al. 2014)", "ReLU passes 1[z>0] max(R, 0)", "Wᵀ(1[z>0] max(v, 0))"),
        (
            "Grad-CAM (Selvaraju et al. 2016)",
            "the gradient at the last features, averaged, weighs them",
            "not negative",
        ),
        ("GAIN (Li et al. 2018)", "the map masks the image, within the loss", f"{fell}; every weight has a gradient"),
    ]
    return [
        table("step | what is new in it | checked", *rows),
        "The network of claim 3. R is what arrives from above, z what the ReLU was given; the three rules are "
        "checked on one layer of integers, v the gradient above it, and equal to the last bit.",
        "![maps](claims-maps.png)",
    ]


def of_label(scores, labels):
    """Each image's score of its label."""
    return jnp.take_along_axis(scores, labels[:, None], 1)[:, 0]


@jax.jit
def grad_cam(weights, x, labels):
    """ReLU of the last features' sum, each weighted with its mean gradient: a map, in front of one channel."""
    features = Net.features(weights, x)
    gradient = jax.grad(lambda features: of_label(Net.read(weights, features), labels).sum())(features)
    share = jax.lax.stop_gradient(gradient).mean((1, 2), keepdims=True)
    return nnx.relu((share * features).sum(-1, keepdims=True))


@jax.jit
def masked(weights, x, labels, omega: float = 10):
    """I - T(A) I with T = 1/(1 + exp(-omega (A - 1/2))), A the map of Grad-CAM over its largest value."""
    cam = grad_cam(weights, x, labels)
    cam = cam / jax.lax.stop_gradient(jnp.maximum(cam.max((1, 2, 3), keepdims=True), 1e-6))
    cam = jax.image.resize(cam, x.shape, "bilinear")
    return x - nnx.sigmoid(omega * (cam - 0.5)) * x
