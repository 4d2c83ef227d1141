"""The rate-distortion loss `R + lambda D` and the figures that are logged with it."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from llic_jax.metrics import distortion as metrics
from llic_jax.models.llic import ModelOutput

DISTORTIONS = ("mse", "ms_ssim")


def rate_distortion(
    out: ModelOutput,
    x: Float[Array, "b h w 3"],
    lmbda: Float[Array, "b"],
    distortion: str = "mse",
    weight: Float[Array, "b"] | float = 1.0,
    knee: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Any]]:
    """Mean over the batch of `weight (R + lambda D)` (paper: without weights).

    R is in bits per pixel. D is `255^2 MSE` of images in [0, 1], or `1 - MS-SSIM`.

    Args:
      out: Of the model.
      x: The images that it was given, in [0, 1].
      lmbda: One factor per sample.
      distortion: "mse" or "ms_ssim".
      weight: Of each sample.
      knee: Beyond it a weighted sample's loss grows as its logarithm (our choice); 0: as it is.

    Returns:
      What is to be minimized, and the plain means that a log shows.

    Raises:
      ValueError: A distortion that is not known.
    """
    if distortion not in DISTORTIONS:
        raise ValueError(f"distortion is {distortion!r}; known are {', '.join(DISTORTIONS)}.")
    pixels = x.shape[1] * x.shape[2]
    bpp_y, bpp_z = out.bits_y / pixels, out.bits_z / pixels
    mse = metrics.mse(out.x_hat, x)
    figures = {"bpp_y": bpp_y, "bpp_z": bpp_z, "bpp": bpp_y + bpp_z, "mse": mse}
    if distortion == "mse":
        weighted = lmbda * 255**2 * mse
    else:
        figures["ms_ssim"] = metrics.ms_ssim(out.x_hat, x)
        weighted = lmbda * (1 - figures["ms_ssim"])
    loss = bpp_y + bpp_z + weighted
    # An untrained network may be far outside [0, 1]; the floor only keeps a perfect image finite.
    figures["psnr"] = -10 * jnp.log10(jnp.maximum(mse, 1e-10))
    figures["loss"] = loss
    counted = weight * loss
    if knee:
        counted = jnp.minimum(counted, knee * (1 + jnp.log(jnp.maximum(counted / knee, 1))))
    return jnp.mean(counted), {name: jnp.mean(value) for name, value in figures.items()}
