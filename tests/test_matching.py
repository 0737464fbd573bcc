"""Template matching, peaks and registration: against the formulas in float64, scikit-image, OpenCV, and real images."""

from functools import partial
from itertools import product

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.feature
import skimage.registration
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import jaxconv
from jaxconv.matching import autocorrelation, find_matches, match_template, phase_cross_correlation
from jaxconv.matching.templates import MEASURES
from jaxconv.matching.windows import moments


def by_formula(x, t, measure, w, v):
    """One window at a time, each formula as it is written."""
    out = np.zeros([n - m + 1 for n, m in zip(x.shape, t.shape, strict=True)])
    for o in product(*map(range, out.shape)):
        at = tuple(slice(i, i + m) for i, m in zip(o, t.shape, strict=True))
        a, weight = x[at], w * v[at]
        b = t
        if measure.startswith("ccoeff") and weight.sum():
            a, b = (c - (weight * c).sum() / weight.sum() for c in (a, b))
        norm = np.sqrt((weight * a * a).sum() * (weight * b * b).sum())
        if measure.startswith("sqdiff"):
            value, none = (weight * (a - b) ** 2).sum(), 1.0
        else:
            value, none = (weight * a * b).sum(), 0.0
        flat = norm <= 1e-9 * max(1, np.abs(x).max() * np.abs(t).max())
        out[o] = value if not measure.endswith("normed") else none if flat else value / norm
    return out


@st.composite
def scenes(draw):
    ndim = draw(st.integers(1, 3))
    size = draw(st.lists(st.integers(2, 7), min_size=ndim, max_size=ndim))
    window = [draw(st.integers(1, n)) for n in size]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    x, t = rng.integers(0, 5, size).astype(float), rng.integers(0, 5, window).astype(float)
    w = rng.integers(0, 3, window).astype(float) if draw(st.booleans()) else None
    v = (rng.random(size) < 0.7).astype(float) if draw(st.booleans()) else None
    return x, t, w, v


@given(scenes(), st.sampled_from(MEASURES))
def test_every_measure_is_its_formula(scene, measure):
    x, t, w, v = scene
    with jax.enable_x64(True):
        y = match_template(x, t, measure=measure, mask=w, image_mask=v)
    expected = by_formula(x, t, measure, np.ones_like(t) if w is None else w, np.ones_like(x) if v is None else v)
    # Whole numbers up to 4: the sums are exact but for the means; a root of a rounded 0 is 1e-8.
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-7 if "normed" in measure else 1e-10)


COINS, PAGE, TEXT = (getattr(skimage.data, name)() for name in ("coins", "page", "text"))
PROBES = {
    "a coin": (COINS, (170, 75), (50, 50)),
    "a letter of the page": (PAGE, (69, 104), (12, 9)),
    "a letter of the text": (TEXT, (56, 172), (20, 48)),
}


@pytest.mark.covering
@pytest.mark.parametrize("pad_input", [False, True])
@pytest.mark.parametrize("probe", PROBES)
def test_parity_with_scikit_image(probe, pad_input):
    image, (i, j), (h, w) = PROBES[probe]
    image = image.astype(float)
    template = image[i : i + h, j : j + w]
    expected = skimage.feature.match_template(image, template, pad_input, mode="reflect")
    with jax.enable_x64(True):
        found = match_template(image, template, pad_input, mode="reflect")
    # Both are float64. Errors relative to the image's norm are divided by the windows' contrast (least 0.3 of 255).
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    place = find_matches(match_template(image.astype(np.float32), template, pad_input)).positions[0]
    centre = (h // 2, w // 2) if pad_input else (0, 0)
    assert place.tolist() == [i + centre[0], j + centre[1]]


@pytest.mark.covering
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_parity_with_opencv(measure, masked):
    image, (i, j), (h, w) = PROBES["a coin"]
    image = image.astype(np.float32)
    template = image[i : i + h, j : j + w]
    mask = np.hypot(*np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]) <= 1 if masked else None
    name = getattr(cv2, "TM_" + measure.upper())
    expected = cv2.matchTemplate(image, template, name, mask=None if mask is None else mask.astype(np.float32))
    found = match_template(image, template, measure="TM_" + measure.upper(), mask=mask)
    found = jnp.minimum(found, 1) if (measure, masked) == ("sqdiff_normed", False) else found  # OpenCV's cut
    scale = 1 if measure.endswith("normed") else np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=2e-3)
    best = np.argmin if measure.startswith("sqdiff") else np.argmax
    if measure != "ccorr":
        assert np.unravel_index(best(found), found.shape) == (i, j)


def test_a_bright_patch_fools_the_raw_correlation_only():
    image, (i, j), (h, w) = PROBES["a coin"]
    image = image.astype(np.float32)
    template = image[i : i + h, j : j + w]
    image[230:300, 300:380] = 255.0
    raw = find_matches(match_template(image, template, measure="ccorr")).positions[0]
    assert 230 <= raw[0] + h // 2 < 300
    assert 300 <= raw[1] + w // 2 < 380
    assert find_matches(match_template(image, template)).positions[0].tolist() == [i, j]


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_a_large_offset_changes_nothing(offset, rng):
    """In float32; the naive formula loses all digits here: squares of 1e5 leave a roundoff of 600."""
    x = np.round(rng.normal(size=(60, 70)) * 64).astype(np.float32)  # whole numbers: the offset rounds nothing
    t = x[20:31, 30:43]
    expected = by_formula(x.astype(float), t.astype(float), "ccoeff_normed", np.ones_like(t), np.ones_like(x))
    found = match_template(x + np.float32(offset), t + np.float32(offset))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_flat_windows_have_no_similarity(rng):
    x = rng.normal(size=(40, 40)).astype(np.float32)
    x[10:25, 5:30] = 1234.5
    y = match_template(x, x[:5, 30:36])
    assert not y[10:21, 5:25].any()
    assert np.isfinite(y).all()
    gradient = jax.jit(jax.grad(lambda x: match_template(x, x[:5, 30:36]).sum()))(x)
    assert np.isfinite(gradient).all()
    assert not match_template(x, np.full((5, 6), 7.0, np.float32)).any()


@pytest.mark.parametrize("method", ["auto", "shifts"])
def test_a_bright_region_hides_no_faint_texture(method, rng):
    """A contrast of 1e-2 beside 1e6: each window has the score of its own numbers.

    To first order an element by element sum of t terms is within t units of |x| |t|, and so is the score: about the
    texture's own level |x| is at most a few times its contrast.
    """
    x = rng.random((64, 64)) * 1e-2
    x[40:, 40:] = 1e6 + rng.random((24, 24)) * 1e5
    x[45:56, 2:13] = 0.1  # and of what is flat nothing
    x = x.astype(np.float32)
    t = x[5:25, 6:26]  # long enough for the FFT
    how = dict(method=method, accuracy="elementwise" if method == "shifts" else "normwise")
    y, gradient = jax.jit(
        lambda x: (match_template(x, t, **how), jax.grad(lambda x: match_template(x, t, **how)[:6, :7].sum())(x))
    )(x)
    wide = x.astype(float), t.astype(float)
    expected = by_formula(*wide, "ccoeff_normed", np.ones_like(wide[1]), np.ones_like(wide[0]))
    faint = np.s_[: 40 - len(t), : 40 - len(t)]
    assert expected[5, 6] == pytest.approx(1)
    np.testing.assert_allclose(y[faint], expected[faint], rtol=0, atol=4 * t.size * 2.0**-24)
    assert np.isfinite(y).all()
    assert np.isfinite(gradient).all()


def test_regions_of_different_levels_each_have_their_contrast(rng):
    """The template's mean is 0 to the last digit: what is left of it would be multiplied by a window's level.

    The products' roundoff is of the sizes of level and template, their sum's of the contrasts.
    """
    x = 10 + 1e-3 * rng.normal(size=(17, 22))
    x[8:, 11:] = 1e5 + 10 * rng.normal(size=(9, 11))
    x = x.astype(np.float32)
    t = x[:8, :4]
    found = match_template(x, t)
    for region, of_windows, ratio in (
        (np.s_[8:, 11:], np.s_[8:, 11:], 1e5 / 10),
        (np.s_[:8, :11], np.s_[:1, :8], 4),
    ):
        part, wide = x[region].astype(float), t.astype(float)
        expected = by_formula(part, wide, "ccoeff_normed", np.ones_like(wide), np.ones_like(part))
        np.testing.assert_allclose(found[of_windows], expected, rtol=0, atol=ratio * t.size * 2.0**-24)


@pytest.mark.parametrize("level", [1.0, 215.0, 2e3, 1e6])
@pytest.mark.parametrize("measure", [m for m in MEASURES if m.endswith("normed")])
def test_a_bright_corner_hides_no_match(measure, level, rng):
    """Nor by the measures that keep the mean; in a batch, too. To 1e-3, as the docstring says."""
    x = rng.random((60, 60)) * 1e-2
    x[48:, 48:] += level * rng.random((12, 12))
    x = x.astype(np.float32)
    t = x[5:35, 6:36]  # long enough for the FFT
    found = jax.jit(jax.vmap(lambda x: match_template(x, t, measure=measure)))(np.stack([x, x]))
    wide = x.astype(float), t.astype(float)
    expected = by_formula(*wide, measure, np.ones_like(wide[1]), np.ones_like(wide[0]))
    for y in np.asarray(found):
        np.testing.assert_allclose(y[:18, :18], expected[:18, :18], rtol=0, atol=1e-3)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m.endswith("normed")])
@pytest.mark.parametrize("masked", ["template", "image"])
def test_a_bright_corner_hides_no_match_of_a_mask(measure, masked, rng):
    x = rng.random((50, 50)) * 1e-2
    x[36:, 36:] += 1e4 * rng.random((14, 14))
    x = x.astype(np.float32)
    t = x[3:25, 5:27]
    w, v = (
        rng.random(a.shape) < 0.8 if masked == name else np.ones(a.shape) for name, a in (("template", t), ("image", x))
    )
    found = match_template(x, t, measure=measure, **({"mask": w} if masked == "template" else {"image_mask": v}))
    expected = by_formula(x.astype(float), t.astype(float), measure, w.astype(float), v.astype(float))
    np.testing.assert_allclose(found[:14, :14], expected[:14, :14], rtol=0, atol=1e-3)


@pytest.mark.parametrize("function", [lambda x, **how: match_template(x, x[2:7, 3:9], **how), autocorrelation])
def test_a_method_for_each_pass_is_a_method(function, rng):
    x = rng.normal(size=(16, 17)).astype(np.float32)
    np.testing.assert_array_equal(function(x, method={"forward": "shifts"}), function(x, method="shifts"))


def test_the_size_of_one_image_is_nothing_to_the_others(rng):
    x = rng.normal(size=(20, 20)).astype(np.float32)
    images = np.stack([x * np.float32(1e-22), x])
    found, lags = match_template(images, x[3:9, 4:10]), autocorrelation(images, lags=2, axes=(1, 2))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lags[0], lags[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_mask_leaves_out_what_is_not_a_number(measure, rng):
    x, t, mask = rng.normal(size=30), rng.normal(size=5), np.array([1.0, 0, 1, 1, 0])
    holes = np.where(mask, t, [0, np.nan, 0, 0, np.inf])
    found, expected = (match_template(x, a, measure=measure, mask=mask) for a in (holes, t))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, -3e-7])
def test_flat_regions_of_any_value_have_no_similarity(value, rng):
    """Also of values that no short sum has exactly, and beside what is much larger or smaller."""
    x = rng.normal(size=(40, 40)).astype(np.float32)
    x[:15, :20] = value
    x[20:, 20:] *= np.float32(1e5)
    y = match_template(x, x[30:36, 5:11])
    assert not y[:10, :15].any()
    assert np.isfinite(y).all()
    assert y[30, 5] == pytest.approx(1, abs=1e-4)


@given(scenes())
def test_moments_are_those_of_each_window(scene):
    x, t, _, _ = scene
    with jax.enable_x64(True):
        _, mean, spread = jax.jit(partial(moments, lengths=t.shape))(x)
    windows = np.lib.stride_tricks.sliding_window_view(x, t.shape)
    last = tuple(range(x.ndim, 2 * x.ndim))
    np.testing.assert_allclose(mean, windows.mean(last), rtol=0, atol=1e-14)
    np.testing.assert_allclose(spread, windows.var(last) * t.size, rtol=0, atol=1e-12)


def test_the_spread_of_a_flat_window_is_exactly_zero():
    x = jnp.full((9, 9), 0.1, jnp.float32)
    every = [*product(range(1, 8), repeat=2)]
    for spread in jax.jit(lambda x: [moments(x, lengths).spread for lengths in every])(x):
        assert not spread.any()


def test_batches_of_images_and_of_probes(rng):
    images, probes = rng.normal(size=(3, 12, 14)), rng.normal(size=(2, 4, 5))
    with jax.enable_x64(True):
        both = match_template(images[:, None], probes[None], axes=(-2, -1))
        for i, p in product(range(3), range(2)):
            np.testing.assert_allclose(both[i, p], match_template(images[i], probes[p]), rtol=0, atol=1e-12)
        by_image = match_template(images, probes[0])
        by_probe = match_template(images[0], probes, axes=(-2, -1))
        mapped = jax.vmap(match_template, (None, 0))(images[0], probes)
        for i in range(3):
            np.testing.assert_allclose(by_image[i], match_template(images[i], probes[0]), rtol=0, atol=1e-12)
        for p in range(2):
            np.testing.assert_allclose(by_probe[p], match_template(images[0], probes[p]), rtol=0, atol=1e-12)
        np.testing.assert_allclose(mapped, by_probe, rtol=0, atol=1e-12)


@pytest.mark.covering
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_to_second_order(measure, masked, rng):
    with jax.enable_x64(True):
        x, t = jnp.asarray(rng.normal(size=8)), jnp.asarray(rng.normal(size=3))
        w = jnp.asarray(rng.random(3) + 0.5) if masked else None
        match = jax.jit(partial(match_template, measure=measure, mask=w))
        check_grads(match, (x, t), order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)


def test_matches_are_found_greedily(rng):
    """Against a loop that does as the docstring says."""
    response = rng.normal(size=(20, 25))
    for count, distance, threshold in [(1, 1, -9), (5, 3, -9), (40, (4, 2), 0.5)]:
        left, positions = response.copy(), []
        reach = np.broadcast_to(distance, 2)
        while len(positions) < count and left.max() >= threshold:
            place = np.unravel_index(left.argmax(), left.shape)
            positions.append(place)
            left[tuple(slice(max(0, p - r), p + r + 1) for p, r in zip(place, reach, strict=True))] = -np.inf
        found = find_matches(response, count, distance, threshold)
        assert found.positions[: len(positions)].tolist() == [list(map(int, p)) for p in positions]
        assert (found.positions[len(positions) :] == -1).all()
        assert (found.scores[len(positions) :] == -np.inf).all()
        np.testing.assert_allclose(found.scores[: len(positions)], [response[p] for p in positions], rtol=1e-6)


def test_all_coins_are_found():
    """One coin finds others: places that scikit-image's own peaks are at too."""
    image, (i, j), (h, w) = PROBES["a coin"]
    response = match_template(image, image[i : i + h, j : j + w])
    found = find_matches(response, 6, min_distance=25, threshold=0.4)
    expected = skimage.feature.peak_local_max(np.asarray(response), 25, 0.4, exclude_border=False, num_peaks=6)
    assert {tuple(p) for p in found.positions.tolist()} >= {tuple(map(int, p)) for p in expected[:3]}


def test_the_score_of_a_match_has_a_gradient(rng):
    response = jnp.asarray(rng.normal(size=(6, 6)))
    found = find_matches(response, 2, 1)
    gradient = jax.grad(lambda r: find_matches(r, 2, 1).scores.sum())(response)
    expected = np.zeros((6, 6))
    expected[tuple(np.asarray(found.positions).T)] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.covering
@pytest.mark.parametrize("normalization", ["phase", None])
@pytest.mark.parametrize("factor", [1, 4, 10, 100])
def test_shifts_are_scikit_images(factor, normalization):
    image = COINS[:120, :130].astype(float)
    rows, columns = np.fft.fftfreq(120)[:, None], np.fft.fftfreq(130)
    for shift in [(3.0, -7.0), (-12.4, 3.32), (0.25, 40.71)]:
        moved = np.fft.ifftn(np.fft.fftn(image) * np.exp(2j * np.pi * (rows * shift[0] + columns * shift[1]))).real
        expected = skimage.registration.phase_cross_correlation(
            image, moved, upsample_factor=factor, normalization=normalization
        )
        with jax.enable_x64(True):
            found = phase_cross_correlation(image, moved, upsample_factor=factor, normalization=normalization)
        np.testing.assert_allclose(found.shift, expected[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.error, expected[1], rtol=0, atol=1e-7)
        np.testing.assert_allclose(found.phasediff, expected[2], rtol=0, atol=1e-7)
        assert (
            np.abs(np.asarray(found.shift) - shift).max() < 1.5 / factor
        )  # the real part of an even length's highest frequency moves it a little


@pytest.mark.covering
@pytest.mark.parametrize("normalization", ["phase", None])
@pytest.mark.parametrize("factor", [1, 10, np.inf])
def test_the_shifts_derivative_is_one(factor, normalization):
    """An image that is moved by s has the shift s: its derivative in s is the identity, at every s."""
    image = jnp.asarray(COINS[:40, :41], float)
    rows, columns = np.fft.fftfreq(40)[:, None], np.fft.fftfreq(41)
    keep = np.abs(np.fft.fftfreq(40)) < 0.5  # the highest frequency of an even length has no sign

    def found(s, image=image):
        spectrum = jnp.fft.fftn(image) * keep[:, None]
        moved = jnp.fft.ifftn(spectrum * jnp.exp(2j * jnp.pi * (rows * s[0] + columns * s[1]))).real
        return phase_cross_correlation(
            jnp.fft.ifftn(spectrum).real, moved, upsample_factor=factor, normalization=normalization
        ).shift

    with jax.enable_x64(True):
        image = jnp.asarray(np.asarray(image, float))
        s = jnp.array([2.3, -4.6])
        for derivative in jax.jacobian, jax.jacfwd:
            np.testing.assert_allclose(jax.jit(derivative(found))(s, image), np.eye(2), rtol=0, atol=1e-6)
        if factor == np.inf:
            np.testing.assert_allclose(found(s, image), s, rtol=0, atol=1e-7)


def test_registration_of_transforms_and_nan():
    image = COINS[:32, :32].astype(np.float32)
    moved = np.roll(image, (-3, 5), (0, 1))
    of_images = phase_cross_correlation(image, moved)
    of_transforms = phase_cross_correlation(np.fft.fftn(image), np.fft.fftn(moved), space="fourier")
    assert of_images.shift.tolist() == of_transforms.shift.tolist() == [3, -5]
    assert np.isnan(phase_cross_correlation(np.full((4, 4), np.nan), np.ones((4, 4))).shift).all()
    assert phase_cross_correlation(image[:1], np.roll(image[:1], 4, 1)).shift.tolist() == [0, -4]


@given(scenes())
def test_autocorrelation_is_the_coefficient_of_the_overlap(scene):
    x, _, _, _ = scene
    with jax.enable_x64(True):
        y = np.asarray(autocorrelation(x, lags=2))
    for place in product(range(5), repeat=x.ndim):
        lag = np.array(place) - 2
        first, second = (
            x[tuple(slice(max(0, s * l), max(0, n + min(0, s * l))) for n, l in zip(x.shape, lag, strict=True))]
            for s in (1, -1)
        )
        a, b = (c - c.mean() if c.size else c for c in (first, second))
        norm = np.sqrt((a * a).sum() * (b * b).sum())
        expected = (a * b).sum() / norm if norm > 1e-9 else 0
        assert abs(y[place] - expected) <= 1e-6


def test_a_texture_repeats():
    """The brick's courses: the similarity at the period is a peak, while the plain sum fades with the lag."""
    wall = skimage.data.brick()[:256, :256].astype(np.float32)
    y = np.asarray(autocorrelation(wall, lags=((0, 120), (0, 0))))[:, 0]
    plain = np.asarray(jaxconv.signal.autocorrelation(wall - wall.mean(), ((0, 120), (0, 0)), axes=None))[:, 0]
    peak = 20 + int(np.argmax(y[20:]))
    assert y[0] == pytest.approx(1)
    assert y[peak] > 0.2
    assert plain[peak] / plain[0] < y[peak]


def test_a_nan_belongs_to_its_windows_only(rng):
    x = rng.normal(size=(20, 22)).astype(np.float32)
    t = x[3:8, 4:10].copy()
    whole = match_template(x, t)
    x[15, 15] = np.nan
    holds = np.zeros(whole.shape, bool)
    holds[11:16, 10:16] = True
    for measure in MEASURES:
        np.testing.assert_array_equal(np.isnan(match_template(x, t, measure=measure)), holds)
    np.testing.assert_allclose(np.asarray(match_template(x, t))[~holds], np.asarray(whole)[~holds], rtol=0, atol=1e-5)
    left_out = np.isfinite(x).astype(np.float32)
    assert np.isfinite(match_template(x, t, image_mask=left_out)).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e9, 1e30])
@pytest.mark.parametrize("measure", [m for m in MEASURES if m.endswith("normed")])
def test_a_scale_changes_nothing(measure, scale, rng):
    """Squares of 1e30 are no float32."""
    x = rng.normal(size=(20, 20)).astype(np.float32)
    t = x[3:8, 4:10]
    scaled = match_template(x * np.float32(scale), t * np.float32(scale), measure=measure)
    np.testing.assert_allclose(scaled, match_template(x, t, measure=measure), rtol=0, atol=1e-5)
    if not measure.startswith("sqdiff"):
        np.testing.assert_allclose(match_template(x * np.float32(scale), t, measure=measure), scaled, rtol=0, atol=1e-5)


def test_half_precision_images():
    image, (i, j), (h, w) = PROBES["a coin"]
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.asarray(image, dtype)
        y = match_template(x, x[i : i + h, j : j + w])
        assert y.dtype == dtype
        assert jnp.unravel_index(jnp.argmax(y), y.shape) == (i, j)
        assert autocorrelation(x[:64, :64], 1)[1, 1] == 1


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e5])
def test_squared_differences_with_a_large_offset(offset, rng):
    x = np.round(rng.normal(size=(30, 31)) * 64).astype(np.float32)
    t = x[10:16, 12:19]
    expected = by_formula(x.astype(float), t.astype(float), "sqdiff", np.ones_like(t), np.ones_like(x))
    found = match_template(x + np.float32(offset), t + np.float32(offset), measure="sqdiff")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.max())


def test_registration_without_structure():
    """Nothing to see: no shift, rather than NaN. Stripes do not say how far they moved along themselves."""
    assert phase_cross_correlation(np.ones((6, 6)), np.ones((6, 6))).shift.tolist() == [0, 0]
    assert phase_cross_correlation(np.zeros((6, 6)), np.zeros((6, 6))).shift.tolist() == [0, 0]
    stripes = np.broadcast_to(COINS[100, :64].astype(float), (16, 64))
    for factor in (1, 4, np.inf):
        shift = phase_cross_correlation(stripes, np.roll(stripes, 3, 1), upsample_factor=factor).shift
        np.testing.assert_allclose(shift, [0, -3], rtol=0, atol=1e-3)
    image = COINS[:32, :32].astype(np.float32) * np.float32(1e12)
    assert phase_cross_correlation(image, np.roll(image, 2, 0)).shift.tolist() == [-2, 0]


@pytest.mark.covering
@pytest.mark.parametrize("factor", [1, 10])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16", ">f4"])
def test_registration_of_every_kind_of_image(dtype, factor, x64, rng):
    """Also where the types of constants differ from the images'; along one axis and along two."""
    image = (100 + 20 * rng.normal(size=(16, 16))).astype(dtype)
    for x, by in ((image, (2, 3)), (image[0], (3,))):
        shift = phase_cross_correlation(x, np.roll(x, by, range(x.ndim)), upsample_factor=factor).shift
        np.testing.assert_allclose(shift, np.negative(by), rtol=0, atol=1e-3)


def test_great_integers_are_told_apart():
    response = np.array([2**24 + 1, 2**24, 2**24 + 3, 2**24 + 2], np.int32)
    assert find_matches(response, 2, 0).positions.ravel().tolist() == [2, 3]


@pytest.mark.parametrize("scale", [1e-12, 1e10])
def test_the_overlaps_coefficient_has_no_scale(scale, rng):
    x = rng.normal(size=(12, 9)).astype(np.float32)
    np.testing.assert_allclose(autocorrelation(x * np.float32(scale)), autocorrelation(x), rtol=0, atol=1e-4)


@pytest.mark.covering
@pytest.mark.parametrize("method", ["shifts", "fft"])
@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("measure", ["ccoeff_normed", "sqdiff", "ccorr_normed", "sqdiff_normed"])
def test_an_image_mask_leaves_out_a_region(measure, offset, method, rng):
    """Also by the FFT, to which nothing is exactly 0, and far from level 0."""
    x = np.round(rng.normal(size=(60, 60)) * 64).astype(np.float32) + np.float32(offset)
    v = np.ones_like(x)
    v[:30, :30] = 0
    t = x[35:47, 38:51]
    found = np.asarray(match_template(x, t, measure=measure, image_mask=v, method=method))
    with jax.enable_x64(True):
        wide = (a.astype(float) for a in (x, t))
        expected = np.asarray(match_template(*wide, measure=measure, image_mask=v.astype(float), method="shifts"))
    best = np.argmin if measure.startswith("sqdiff") else np.argmax
    if measure == "ccoeff_normed":
        assert np.unravel_index(best(found), found.shape) == (35, 38)
        assert not found[:19, :18].any()  # windows of which nothing is left
    scale = 1 if measure.endswith("normed") else expected.max()
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=2e-3)


def test_norms_over_black_regions():
    """OpenCV's values: 1 for the squared differences of what has no size, 0 for the correlation."""
    x = np.zeros((50, 50), np.float32)
    x[30:40, 30:40] = np.arange(100).reshape(10, 10)
    t = x[28:36, 28:36]
    for measure, none in (("sqdiff_normed", 1), ("ccorr_normed", 0)):
        for method in ("shifts", "fft", "auto"):
            y = np.asarray(match_template(x, t, measure=measure, method=method))
            assert (y[:22, :22] == none).all()
            assert y.min() > -1e-5
            np.testing.assert_allclose(y[28, 28], 1 - none, atol=1e-3)
