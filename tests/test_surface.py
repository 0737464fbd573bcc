"""The whole public surface, found by the names in every `__all__`, with every kind of array that a user may hold."""

import importlib
import pkgutil
import re
from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxconv
from jaxconv import attribution, lax, layers, matching, ndimage, signal

PACKAGES = [
    jaxconv,
    *(
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(jaxconv.__path__, "jaxconv.")
        if found.ispkg
    ),
]
PUBLIC = {
    f"{package.__name__}.{name}".removeprefix("jaxconv."): getattr(package, name)
    for package in PACKAGES
    for name in getattr(package, "__all__", ())
}

# The names that take no array, and why.
OTHERS = {
    "lax": "a module", "matching": "a module", "ndimage": "a module", "signal": "a module",
    "tune": "measures", "wisdom": "a file", "effort": "a word", "calibrate": "measures", "show_versions": "no arrays",
    "identities.CATALOGUE": "a table", "identities.THEMES": "a table", "identities.Identity": "a type",
    "identities.Report": "a type", "identities.verify": "draws its own arrays",
    "attribution.with_relu_rule": "a function of functions",
    "layers.operator_norm": "of a layer", "layers.replace_convs": "of a model",
    "layers.ImplicitKernel": "of two integers", "layers.load_safetensors": "read by the row of save_safetensors",
    "signal.correlation_lags": "of lengths", "signal.savgol_coeffs": "of lengths",
}  # fmt: skip


def scores(x):
    return jnp.stack([x.sum((1, 2)), jax.nn.relu(x - 2).sum((1, 2))], 1)


def features(x):
    return scores(checkpoint_name(x, "features"))


def chain():
    return [
        layers.Correlate(1, 2, 3, rngs=nnx.Rngs(0)),
        nnx.relu,
        lambda a: a.mean(1),
        nnx.Linear(2, 2, rngs=nnx.Rngs(0)),
    ]


def cascaded(x):
    return attribution.cascade(lambda net, x: attribution.saliency(net, x, 0), nnx.Sequential(*chain()), x, key=KEY)[1:]


def saved(x):
    layers.save_safetensors("arrays", {"x": x})
    return layers.load_safetensors("arrays")


def streamed(x, state):
    return layers.LongConvolve(2, 3, rngs=nnx.Rngs(0)).step(x, state)


KEY = jax.random.key(0)
IMAGE, BOX, LINE, TAPS = (5, 4), (3, 3), (6,), (3,)
NCH, BATCH = (1, 2, 6), (2, 4, 1)
CAM = dict(layer="features", upsample=False)

# name -> a small call, the shapes of its arrays
ROWS = {
    "convolve": (jaxconv.convolve, LINE, TAPS),
    "correlate": (jaxconv.correlate, LINE, TAPS),
    "plan": (lambda *arrays: str(jaxconv.plan(jaxconv.correlate, *map(np.asarray, arrays))), LINE, TAPS),
    "signal.autocorrelation": (signal.autocorrelation, LINE),
    "signal.choose_conv_method": (signal.choose_conv_method, LINE, TAPS),
    "signal.convolution_matrix": (lambda a: signal.convolution_matrix(a, 3), LINE),
    "signal.convolve2d": (signal.convolve2d, IMAGE, BOX),
    "signal.correlate2d": (signal.correlate2d, IMAGE, BOX),
    "signal.deconvolve": (signal.deconvolve, LINE, TAPS),
    "signal.fftconvolve": (signal.fftconvolve, LINE, TAPS),
    "signal.oaconvolve": (signal.oaconvolve, LINE, TAPS),
    "signal.resample_poly": (lambda x, h: signal.resample_poly(x, 2, 1, window=h), LINE, TAPS),
    "signal.savgol_filter": (lambda x: signal.savgol_filter(x, 3, 1), LINE),
    "signal.sepfir2d": (signal.sepfir2d, IMAGE, TAPS, TAPS),
    "signal.upfirdn": (lambda h, x: signal.upfirdn(h, x, 2), TAPS, LINE),
    "ndimage.convolve": (ndimage.convolve, IMAGE, BOX),
    "ndimage.convolve1d": (ndimage.convolve1d, IMAGE, TAPS),
    "ndimage.correlate": (ndimage.correlate, IMAGE, BOX),
    "ndimage.correlate1d": (ndimage.correlate1d, IMAGE, TAPS),
    "ndimage.gaussian_filter": (lambda x: ndimage.gaussian_filter(x, 0.5), IMAGE),
    "ndimage.gaussian_filter1d": (lambda x: ndimage.gaussian_filter1d(x, 0.5), IMAGE),
    "ndimage.gaussian_gradient_magnitude": (lambda x: ndimage.gaussian_gradient_magnitude(x, 0.5), IMAGE),
    "ndimage.gaussian_laplace": (lambda x: ndimage.gaussian_laplace(x, 0.5), IMAGE),
    "ndimage.generic_gradient_magnitude": (lambda x: ndimage.generic_gradient_magnitude(x, ndimage.sobel), IMAGE),
    "ndimage.generic_laplace": (lambda x: ndimage.generic_laplace(x, ndimage.sobel), IMAGE),
    "ndimage.laplace": (ndimage.laplace, IMAGE),
    "ndimage.prewitt": (ndimage.prewitt, IMAGE),
    "ndimage.sobel": (ndimage.sobel, IMAGE),
    "ndimage.uniform_filter": (ndimage.uniform_filter, IMAGE),
    "ndimage.uniform_filter1d": (lambda x: ndimage.uniform_filter1d(x, 3), IMAGE),
    "lax.conv": (lambda x, w: lax.conv(x, w, (1,), "SAME"), NCH, (3, 2, 3)),
    "lax.conv_general_dilated": (lambda x, w: lax.conv_general_dilated(x, w, (1,), "SAME"), NCH, (3, 2, 3)),
    "lax.conv_general_dilated_local": (
        lambda x, w: lax.conv_general_dilated_local(x, w, (1,), "VALID", (3,)), NCH, (3, 6, 4),
    ),
    "lax.conv_general_dilated_patches": (lambda x: lax.conv_general_dilated_patches(x, (3,), (1,), "SAME"), NCH),
    "lax.conv_transpose": (lambda x, w: lax.conv_transpose(x, w, (2,), "SAME"), (1, 6, 2), (3, 2, 3)),
    "lax.conv_with_general_padding": (
        lambda x, w: lax.conv_with_general_padding(x, w, (1,), "SAME", None, None), NCH, (3, 2, 3),
    ),
    "lax.fold": (lambda y: lax.fold(y, (1, 2, 6), (3,), (1,), "SAME"), (1, 6, 6)),
    "matching.autocorrelation": (matching.autocorrelation, LINE),
    "matching.find_matches": (lambda x: matching.find_matches(x, 2), IMAGE),
    "matching.match_template": (matching.match_template, IMAGE, BOX),
    "matching.phase_cross_correlation": (lambda a, b: matching.phase_cross_correlation(a, b)[:2], IMAGE, IMAGE),
    "attribution.MaxPool": (attribution.MaxPool(2), BATCH),
    "attribution.attention": (lambda x: attribution.attention(features, x, 0, layer="features"), BATCH),
    "attribution.cascade": (cascaded, BATCH),
    "attribution.completeness": (lambda x, m: attribution.completeness(scores, x, m, 0), BATCH, BATCH),
    "attribution.contact_sheet": (
        lambda x, m: str(attribution.contact_sheet(x, {"map": m}, "sheet.png")), (1, 4, 4, 1), (1, 4, 4),
    ),
    "attribution.deconvnet": (lambda x: attribution.deconvnet(scores, x, 1), BATCH),
    "attribution.deconvnet_layers": (lambda x: attribution.deconvnet_layers(chain(), x, 0), BATCH),
    "attribution.deletion": (lambda x, m: attribution.deletion(scores, x, m, 0, steps=2), BATCH, BATCH),
    "attribution.energy_in_mask": (attribution.energy_in_mask, IMAGE, IMAGE),
    "attribution.gain_loss": (
        lambda x, masks: attribution.gain_loss(features, x, [0, 1], layer="features", masks=masks), BATCH, (2, 4),
    ),
    "attribution.grad_cam": (lambda x: attribution.grad_cam(features, x, 0, **CAM), BATCH),
    "attribution.grad_cam_plus_plus": (lambda x: attribution.grad_cam_plus_plus(features, x, 0, **CAM), BATCH),
    "attribution.guided_backprop": (lambda x: attribution.guided_backprop(scores, x, 1), BATCH),
    "attribution.guided_grad_cam": (lambda x: attribution.guided_grad_cam(features, x, 1, layer="features"), BATCH),
    "attribution.hires_cam": (lambda x: attribution.hires_cam(features, x, 0, **CAM), BATCH),
    "attribution.input_x_gradient": (lambda x: attribution.input_x_gradient(scores, x, 0), BATCH),
    "attribution.insertion": (lambda x, m: attribution.insertion(scores, x, m, 0, steps=2), BATCH, BATCH),
    "attribution.integrated_gradients": (lambda x: attribution.integrated_gradients(scores, x, 0, steps=2), BATCH),
    "attribution.layer_cam": (lambda x: attribution.layer_cam(features, x, 0, **CAM), BATCH),
    "attribution.masked": (attribution.masked, BATCH, (2, 4)),
    "attribution.max_pool": (lambda x: attribution.max_pool(x, 2), BATCH),
    "attribution.occlusion": (lambda x: attribution.occlusion(scores, x, 0, window=2), BATCH),
    "attribution.overlay": (attribution.overlay, IMAGE, IMAGE),
    "attribution.pointing_game": (attribution.pointing_game, IMAGE, IMAGE),
    "attribution.saliency": (lambda x: attribution.saliency(scores, x, 0), BATCH),
    "attribution.sensitivity": (lambda x: attribution.sensitivity(lambda x: x * x, x, key=KEY, samples=1), BATCH),
    "attribution.signed": (attribution.signed, IMAGE),
    "attribution.smoothgrad": (lambda x: attribution.smoothgrad(scores, x, 0, key=KEY, samples=1, sigma=0.0), BATCH),
    "attribution.unpool": (lambda y: attribution.unpool(y, np.full(BATCH, 5), (2, 8, 1)), BATCH),
    "layers.Convolve": (lambda x: layers.Convolve(1, 2, 3, rngs=nnx.Rngs(0))(x), BATCH),
    "layers.ConvolveTranspose": (lambda x: layers.ConvolveTranspose(1, 2, 3, rngs=nnx.Rngs(0))(x), BATCH),
    "layers.Correlate": (lambda x: layers.Correlate(1, 2, 3, rngs=nnx.Rngs(0))(x), BATCH),
    "layers.CorrelateTranspose": (lambda x: layers.CorrelateTranspose(1, 2, 3, rngs=nnx.Rngs(0))(x), BATCH),
    "layers.LongConvolve": (streamed, (2, 4, 2), (2, 2, 2)),
    "layers.Operation": (
        lambda x, w: layers.Operation()(x, w, (1,), "nearest", dimension_numbers=("NHC", "HIO", "NHC")),
        (1, 6, 2), (3, 2, 3),
    ),
    "layers.SpectralNorm": (
        lambda x: layers.SpectralNorm(layers.Correlate(1, 2, 3, padding="CIRCULAR", rngs=nnx.Rngs(0)))(x), BATCH,
    ),
    "layers.export_kernel": (lambda w: layers.export_kernel(w, "pytorch"), (3, 2, 3)),
    "layers.flip_kernels": (lambda w: layers.flip_kernels({"kernel": w}), (3, 2, 3)),
    "layers.import_kernel": (lambda w: layers.import_kernel(w, "pytorch"), (3, 2, 3)),
    "layers.save_safetensors": (saved, LINE),
}  # fmt: skip


def test_every_public_name_has_a_row():
    seen = {id(PUBLIC[name]) for name in ROWS}  # a function may be public in two places
    assert set(ROWS) | set(OTHERS) <= set(PUBLIC)
    assert not set(ROWS) & set(OTHERS)
    assert [name for name, value in PUBLIC.items() if id(value) not in seen and name not in OTHERS] == []


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def arrays_of(name):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 4, shape).astype(np.float32) for shape in ROWS[name][1:]]  # products and sums are exact


def run(name, *arrays):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(ROWS[name][0](*arrays))]


@cache
def native(name, ones=False):
    """What a row gives for float32; of zeros and ones, such as booleans are."""
    return run(name, *(a % 2 if ones else a for a in arrays_of(name)))


# The call in backticks, what came, the rule, and the remedy.
REFUSAL = re.compile(r"(`.+`|Parameter) .+[:,] .+\. [A-Z].*\.$", re.DOTALL)


def served(name, *arrays):
    """What a row gives; nothing, where it refuses the arrays by an error that says all that it must."""
    try:
        return run(name, *arrays)
    except jax.dtypes.TypePromotionError:  # Flax's own, too; it names the remedy
        assert jax.config.jax_numpy_dtype_promotion == "strict"
        return []
    except (TypeError, ValueError) as error:
        if REFUSAL.match(str(error)):
            return []
        raise


TREES = ("layers.flip_kernels", "layers.save_safetensors")  # where a list is not an array, but holds some
HOLDS = {
    "big-endian": lambda a: a.astype(">f4"),
    "strided": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "turned": lambda a: np.flip(np.flip(a).copy()),
    "Fortran": np.asfortranarray,
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("name", ROWS)
def test_how_memory_holds_an_array_changes_nothing(name):
    for how, held in HOLDS.items():
        if how == "list" and name in TREES:
            continue
        arrays = [held(a) for a in arrays_of(name)]
        for array in arrays:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        same = run(name, *map(np.asarray, arrays)) if how == "list" else native(name)  # its numbers may be of 64 bits
        for got, want in zip(run(name, *arrays), same, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=how)


DTYPES = ("float32", "bool", "uint8", "int8", "int64", "float16", "bfloat16", "complex64", ">i2", ">c8")
PASSES = 4  # as many results of a row are rounded to the type one after the other, none larger than its largest number


@pytest.mark.covering
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_a_dtype_is_served_or_refused(name, dtype):
    """float32, too, where JAX has 64 bits: then the types of constants may differ from the arrays'."""
    ones, given = dtype == "bool", np.dtype(dtype if dtype[0] == ">" else jnp.dtype(dtype))
    arrays = [(a % 2 if ones else a).astype(given) for a in arrays_of(name)]
    with jax.enable_x64(dtype == "float32"):
        results = served(name, *arrays)
    largest = max(float(np.abs(a).max()) for a in arrays_of(name))
    for got, want in zip(results, native(name, ones), strict=bool(results)):
        if want.dtype.kind == "U":  # a plan of another dtype is another one
            continue
        if want.dtype.kind not in "fc":
            np.testing.assert_array_equal(got, want)
        elif got.dtype.kind in "biu":
            # A filter's fractions are converted toward zero, between its passes, too, where a boolean is 0 or 1.
            if (want == np.trunc(want)).all() and not (got.dtype == bool and name.startswith("ndimage")):
                exact = want != 0 if got.dtype == bool else want.astype(np.int64).astype(got.dtype)
                np.testing.assert_array_equal(got, exact)
        else:
            size = max(largest, float(np.abs(want).max(initial=0, where=np.isfinite(want))))
            types = [t for t in (given, got.dtype, want.dtype) if jnp.issubdtype(t, jnp.inexact)]
            u = max(float(jnp.finfo(t).eps) for t in types) / 2
            np.testing.assert_allclose(np.asarray(got, complex), want, rtol=0, atol=2 * PASSES * u * size)


@pytest.mark.covering
@pytest.mark.parametrize("which", ["first", "last", "every", "scalar"])
@pytest.mark.parametrize("name", ROWS)
def test_an_empty_array_or_a_number_is_served_or_refused(name, which):
    """Each axis of an array 0 in turn, or all of them; or no axes at all."""
    arrays = arrays_of(name)
    axis = {"first": slice(0, 1), "last": slice(-1, None), "every": slice(None)}.get(which)
    for place, array in enumerate(arrays):
        shape = np.array(array.shape)
        if axis is not None:
            shape[axis] = 0
        given = [*arrays]
        given[place] = 2.0 if axis is None else np.zeros(shape, np.float32)
        results = served(name, *given)
        if name.startswith("ndimage") and place == 0 and results:
            assert results[0].shape == np.shape(given[0])


CONVERTED = ["ndimage.gaussian_filter", "signal.savgol_filter", "matching.match_template", "matching.find_matches"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *product([*CONVERTED, "attribution.saliency", "attribution.integrated_gradients"], ["uint8", "float16"]),
        ("signal.deconvolve", "bool"), ("attribution.energy_in_mask", "bool"),
        ("matching.phase_cross_correlation", "complex64"),
    ],
)  # fmt: skip
def test_a_conversion_that_is_meant_is_no_promotion(name, dtype):
    """Integers to floating numbers, and half types to those they are summed in."""
    arrays = [(a % 2 if dtype == "bool" else a).astype(dtype) for a in arrays_of(name)]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = served(name, *arrays)
    assert found or (dtype == "uint8" and name.startswith("attribution"))
    for got, want in zip(found, served(name, *arrays), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_batch_of_no_images():
    y = matching.match_template(np.zeros((0, *IMAGE), np.float32), np.ones(BOX, np.float32), axes=(-2, -1))
    assert y.shape == (0, 3, 2)
