"""Random variants of training images, a pure function of the key: the same key gives the same images on a resume.

The random numbers are those of the key's generator; JAX's default, threefry, draws the same on every device, and here
also with and without 64-bit types. Each image has a key of its own, and each kind of change a key of that, so that one
kind does not alter another.
"""

import jax
import jax.numpy as jnp


def augment(
    images: jax.Array, key: jax.Array, *, shift: int = 0, flip: bool = False, contrast: float = 0.0, cutout: int = 0
) -> jax.Array:
    """Each of the images (N, H, W, C), in this order:

    shifted by dy and dx from -shift to shift, with zeros where nothing comes in; flipped left to right with
    probability 1/2; multiplied by a factor from 1 - contrast to 1 + contrast; a square of side cutout within the
    image set to 0. All draws are uniform. On standardised images, zero is the mean colour, and the factor changes the
    contrast about it. Options of 0 change nothing.

    >>> augment(jnp.ones((1, 2, 2, 1)), jax.random.key(0), cutout=2).sum()
    Array(0., dtype=float32)

    ValueError if an option is out of range: 0 <= shift < H, W; 0 <= contrast <= 1; 0 <= cutout <= H, W.
    """
    images = jnp.asarray(images)
    call = f"augment(images, key, shift={shift}, flip={flip}, contrast={contrast}, cutout={cutout})"
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"`{call}` got {images.dtype} images of shape {images.shape}; they are floating, of shape (N, H, W, C). "
            "Convert them."
        )
    side = min(images.shape[1:3])
    if not (0 <= shift < side and 0 <= contrast <= 1 and 0 <= cutout <= side):
        raise ValueError(
            f"`{call}` got images of shape {images.shape}; shift must be 0 to {side - 1}, contrast 0 to 1, cutout 0 to "
            f"{side}. Give smaller options."
        )

    def one(x: jax.Array, key: jax.Array) -> jax.Array:
        shifting, flipping, scaling, cutting = jax.random.split(key, 4)
        if shift:
            padded = jnp.pad(x, ((shift, shift), (shift, shift), (0, 0)))
            top, left = jax.random.randint(shifting, (2,), 0, 2 * shift + 1, jnp.int32)
            x = jax.lax.dynamic_slice(padded, (top, left, jnp.int32(0)), x.shape)
        if flip:
            x = jnp.where(jax.random.bernoulli(flipping, jnp.float32(0.5)), x[:, ::-1], x)
        if contrast:
            x = x * jax.random.uniform(scaling, (), x.dtype, 1 - contrast, 1 + contrast)
        if cutout:
            ends = jnp.array(x.shape[:2]) - cutout + 1
            top, left = jax.random.randint(cutting, (2,), 0, ends, jnp.int32)
            rows, columns = (jnp.arange(n) - start for n, start in zip(x.shape[:2], (top, left), strict=True))
            inside = ((rows >= 0) & (rows < cutout))[:, None] & ((columns >= 0) & (columns < cutout))
            x = jnp.where(inside[..., None], 0, x)
        return x

    if not (shift or flip or contrast or cutout):
        return images
    return jax.vmap(one)(images, jax.random.split(key, len(images)))
