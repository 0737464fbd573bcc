"""What photographs show: the theorem of Fourier, smoothing, probes, gradients (claims 11, 12, 13 and 16)."""

from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.signal
import skimage.data
from matplotlib.patches import Rectangle

from jaxconv.engines import ENGINES
from jaxconv.matching import find_matches, match_template
from jaxconv.ndimage import sobel
from jaxconv.padding import mode_axes
from jaxconv.problem import Problem
from jaxconv.signal import convolve, correlate
from research.claims.ledger import CONVENTION, HOLDS, check, claim, same, save, table

RNG = np.random.default_rng(0)
SMOOTHING = np.array([[1, 4, 7, 4, 1], [4, 16, 26, 16, 4], [7, 26, 41, 26, 7], [4, 16, 26, 16, 4], [1, 4, 7, 4, 1]])


@cache
def camera() -> np.ndarray:
    """skimage's photograph, 512x512, from 0 to 255."""
    return skimage.data.camera().astype(np.float32)


def allowed(engine: str, x, h, dtype: str, mode: str = "full") -> np.ndarray:
    """How far rounding may take each output of a correlation, and the largest of a convolution, by the engine's own
    analysis: u (a sum |x||h| + b norm(x) norm(h)).
    """
    a, b = ENGINES[engine].error(Problem(mode_axes("allowed", x.shape, h.shape, mode, flip=False)))
    sizes = scipy.signal.correlate(np.abs(x).astype(float), np.abs(h), mode, method="fft")
    return np.finfo(dtype).eps / 2 * (a * sizes + b * np.linalg.norm(x) * np.linalg.norm(h))


@claim(11, HOLDS)
def claim_11(out: Path):
    """Convolution in space is multiplication in frequency; correlation is multiplication with a conjugate.
    Cross-correlation maps are computed through the convolution theorem.
    """
    image = camera() / 255
    probe = image[100:164, 200:264] - image[100:164, 200:264].mean()
    full = [n + m - 1 for n, m in zip(image.shape, probe.shape, strict=True)]
    X, H = (np.fft.rfft2(a.astype(np.float64), full) for a in (image, probe))
    by_product = {
        "convolve": np.fft.irfft2(X * H, full),
        "correlate": np.roll(np.fft.irfft2(X * H.conj(), full), [m - 1 for m in probe.shape], (0, 1)),
    }
    rows = []
    with jax.enable_x64(True):
        for name, op in (("convolve", convolve), ("correlate", correlate)):
            y = op(jnp.asarray(image, float), jnp.asarray(probe, float), method="direct")
            largest = np.abs(by_product[name]).max()
            off = float(np.abs(np.asarray(y) - by_product[name]).max() / largest)
            both = sum(allowed(engine, image, probe, "float64").max() for engine in ("direct", "fft"))
            check(f"{name} is a product", off <= both / largest)
            rows.append((f"`{name}`, term by term in float64, against NumPy's FFT", f"{off:.1e}"))
    # One value of the map, the probe where it was cut: the sum itself.
    patch = image[100:164, 200:264].astype(float)
    value, by_hand = by_product["correlate"][163, 263], float((patch * probe).sum())
    check("the lag at which the probe was cut", abs(value - by_hand) <= both)
    for engine in ("direct", "fft", "overlap"):
        y = np.asarray(correlate(image, probe, method=engine), np.float64)
        off = float(np.abs(y - by_product["correlate"]).max() / largest)
        check(f"engine {engine}", off <= allowed(engine, image, probe, "float32").max() / largest)
        rows.append((f"`correlate` in float32 by the engine `{engine}`", f"{off:.1e}"))
    # Without zeros behind them the arrays wrap round: the theorem then speaks of circular convolution.
    wrapped = np.fft.irfft2(np.fft.rfft2(image) * np.fft.rfft2(probe, image.shape), image.shape)
    short, inner = by_product["convolve"][:512, :512], (slice(63, None), slice(63, None))
    near, far = (float(np.abs(wrapped - short)[part].max() / np.abs(short).max()) for part in (inner, slice(None)))
    rounding = allowed("fft", image, probe, "float32").max() / np.abs(short).max()  # of NumPy's transforms likewise
    check("inside the border the circular sum is the linear one", near <= rounding)
    check("at the border it is not", far > rounding)
    rows.append(("transforms without zeros behind the image: 63 pixels and more from the border", f"{near:.1e}"))
    rows.append(("likewise, at the border", f"{far:.2f}"))
    return [
        "skimage's `camera`, 512x512, and a probe of 64x64 cut at [100,200], its mean taken off. Both sentences "
        f"hold with zeros behind both arrays, or for circular sums. At lag [100,200] the map is {value:.6f}, the "
        f"sum {by_hand:.6f}.",
        table("what | largest difference over the largest value", *rows),
    ]


@claim(12, HOLDS)
def claim_12(out: Path):
    """Smoothing: the 5x5 kernel with rows [1 4 7 4 1], [4 16 26 16 4], [7 26 41 26 7], ... over 273 makes edges
    fuzzier; sharpening filters do the opposite.
    """
    check("its entries sum to 273", SMOOTHING.sum() == 273)
    x, kernel = camera() / 255, (SMOOTHING / 273).astype(np.float32)
    impulse = np.pad(np.ones((1, 1), np.float32), 2)
    bordered = partial(correlate, mode="same", boundary="reflect")
    images = {"photograph": x, "smoothed": bordered(x, kernel), "sharpened": bordered(x, 2 * impulse - kernel)}
    edges = {name: float(jnp.hypot(sobel(y, 0), sobel(y, 1)).mean() / 8) for name, y in images.items()}
    check("fuzzier", edges["smoothed"] < edges["photograph"] < edges["sharpened"])
    # In space and through the FFT, in float32: both against float64.
    with jax.enable_x64(True):
        truth = np.asarray(bordered(x.astype(np.float64), SMOOTHING / 273.0, method="shifts"))
    differences = {}
    for engine in ("shifts", "fft"):
        y = np.asarray(bordered(jnp.asarray(x), jnp.asarray(kernel), method=engine), np.float64)
        differences[engine] = float(np.abs(y - truth).max())
    # What summing costs, and a rounded kernel on numbers of at most 1 whose weights sum to 1, and a rounded sum.
    mirrored = np.pad(x, 2, mode="symmetric")
    for engine, off in differences.items():
        limit = allowed(engine, mirrored, kernel, "float32", "valid").max() + 2 * np.finfo(np.float32).eps / 2
        check(f"the engine {engine}", off <= limit)
    gain = np.abs(np.fft.fft2(SMOOTHING / 273, (64, 64)))
    check("it lets the mean pass, and little of what is fine", gain[0, 0] > 0.999999 and gain[32, 32] < 0.01)
    rows = [(name, f"{strength:.4f}") for name, strength in edges.items()]
    figure, frames = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    for frame, (name, y) in zip(frames, images.items(), strict=True):
        frame.imshow(np.asarray(y)[60:220, 160:320], cmap="gray", vmin=0, vmax=1)
        frame.set_title(name)
        frame.axis("off")
    save(figure, out / "claims-smoothing.png")
    return [
        table("skimage's `camera`, 512x512 | mean edge strength (Sobel)", *rows),
        f"The kernel's gain is 1 at frequency 0 and {gain[32, 32]:.4f} at the highest. The sharpening filter is "
        "twice the impulse less the kernel. Smoothed in space and through the FFT, in float32 on pixels from 0 to "
        f"1, the results are at most {differences['shifts']:.1e} and {differences['fft']:.1e} from float64.",
        "![smoothing](claims-smoothing.png)",
    ]


@claim(13, CONVENTION)
def claim_13(out: Path):
    """The purpose of cross-correlation is to say how similar a probe image is to a test image."""
    image = skimage.data.coins().astype(np.float32)
    (i, j), side = (170, 75), 50
    probe = image[i : i + side, j : j + side].copy()
    image[-60:, -60:] = 255  # a bright patch without any structure
    maps = {"raw": match_template(image, probe, measure="ccorr"), "normalised": match_template(image, probe)}
    found = {name: find_matches(response, 2, min_distance=(side // 2,) * 2) for name, response in maps.items()}
    places = {name: tuple(matches.positions[0].tolist()) for name, matches in found.items()}
    check("the raw correlation is fooled", places["raw"] != (i, j) and min(places["raw"]) > 180)
    check("the normalised one is not", places["normalised"] == (i, j))
    scores = found["normalised"].scores
    check("its score is 1 there, and less elsewhere", abs(float(scores[0]) - 1) < 1e-5 and float(scores[1]) < 0.9)
    figure, frames = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
    frames[0].imshow(image, cmap="gray")
    for (name, (a, b)), colour in zip(places.items(), ("tab:red", "tab:green"), strict=True):
        frames[0].add_patch(Rectangle((b, a), side, side, fill=False, edgecolor=colour, linewidth=2))
        frames[0].text(b, a - 6, name, color=colour, fontsize=8)
    for frame, (name, response) in zip(frames[1:], maps.items(), strict=True):
        frame.imshow(response, cmap="gray" if name == "raw" else "RdBu", vmin=None if name == "raw" else -1)
        frame.set_title(f"{name} correlation")
    for frame in frames:
        frame.axis("off")
    save(figure, out / "claims-probe.png")
    rows = [(name, "[{},{}]".format(*place), f"{float(found[name].scores[0]):.4g}") for name, place in places.items()]
    return [
        "skimage's `coins`; the probe is a coin cut at [170,75]; a corner of 60x60 pixels is painted white.",
        table("correlation | its largest value stands at | and is", *rows),
        "It holds for the normalised correlation (means taken off, divided by the norms): 1 where probe and patch "
        f"agree, {float(scores[1]):.2f} at the second best place. The raw sum grows with a patch's brightness, "
        "whatever it shows.",
        "![probe](claims-probe.png)",
    ]


@claim(16, HOLDS)
def claim_16(out: Path):
    """To understand backpropagation in CNNs one needs both operations: the gradient of correlation in its input is a
    convolution with the same kernel, in its kernel a correlation of the input with the output's gradient.
    """
    # Pixels, kernel and gradient are integers: in float64 both sides are exact, and must be equal, not close.
    x, h = camera().astype(np.float64), RNG.integers(-9, 10, (7, 7)).astype(np.float64)
    r = RNG.integers(-9, 10, (506, 506)).astype(np.float64)
    with jax.enable_x64(True):
        loss = jax.grad(lambda x, h: (r * correlate(x, h, "valid", method="direct")).sum(), (0, 1))
        dx, dh = jax.jit(loss)(x, h)
        both = {"a convolution": convolve(r, h, method="direct"), "a correlation": correlate(r, h, method="direct")}
        kernel = correlate(x, r, "valid", method="direct")
        check("∂/∂x is the convolution", same(dx, both["a convolution"]))
        check("∂/∂x is not the correlation", not same(dx, both["a correlation"]))
        check("∂/∂h is the correlation of x and r", same(dh, kernel))
        # The same without autodiff or jaxconv: one entry of each, by its sum.
        windows = np.lib.stride_tricks.sliding_window_view(x, (506, 506))
        check("by NumPy, ∂/∂h", same(dh, np.einsum("klij,ij->kl", windows, r)))
        patch = np.lib.stride_tricks.sliding_window_view(np.pad(r, 6), (7, 7))
        check("by NumPy, ∂/∂x", same(dx, np.einsum("ijkl,kl->ij", patch, np.flip(h))))
    return [
        "skimage's `camera` (integers), an integer kernel of 7x7 and an integer gradient r, in float64: equal in "
        f"all {dx.size} and {dh.size} elements, to the last bit, by `jax.grad` and by sums in NumPy.",
        table(
            "gradient of L(x ⋆ h), r = dL/dy | is | elements that are equal",
            ("in x", "r * h, the convolution", f"{int((dx == both['a convolution']).sum())} of {dx.size}"),
            ("in x", "r ⋆ h, the correlation", f"{int((dx == both['a correlation']).sum())} of {dx.size}"),
            ("in h", "x ⋆ r, a correlation", f"{int((dh == kernel).sum())} of {dh.size}"),
        ),
        "In float32 and float64, with every engine, `grad` and `vmap`: `python -m research.adjoint`.",
    ]
