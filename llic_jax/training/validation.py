"""The loss on photographs that training does not see."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llic_jax.configs.config import Config
from llic_jax.data.photographs import Photographs
from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.ops.shapes import to_uint8
from llic_jax.training.loss import rate_distortion
from llic_jax.training.pictures import Pictures
from llic_jax.training.stopping import Stop


def validate(
    model: LLIC,
    params: Any,
    images: Photographs | Sequence[np.ndarray],
    train: Config,
    crop: int,
    pairs: int = 0,
    options: EncoderOptions = PLAIN,
    levels: Collection[int] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], list[np.ndarray]]:
    """Rate-distortion of central crops with real quantization, averaged; per level if several.

    options: of the encoder. levels: only these (default: all). stopping: asked before each image
    whether to leave out the rest.

    Also the first `pairs` crops beside what is decoded of them (at the middle level), uint8
    `(crop, 2 crop, 3)`.
    """
    lmbdas = tuple(train["lmbdas"])
    apply = _jitted_apply(model, options)
    totals: dict[str, list[float]] = {}
    shown: list[np.ndarray] = []
    for i in range(len(images)):
        if stopping():
            break
        image = images[i]
        if image is None or min(image.shape[:2]) < crop:
            continue
        top, left = ((side - crop) // 2 for side in image.shape[:2])
        image = image[top : top + crop, left : left + crop]
        x = jnp.asarray(image[None], jnp.float32) / 255
        for level, lmbda in enumerate(lmbdas, start=1):
            if levels is not None and level not in levels:
                continue
            quality = jnp.full(1, float(level)) if len(lmbdas) > 1 else None
            out = apply({"params": params}, x, quality)
            out = out._replace(x_hat=jnp.clip(out.x_hat, 0, 1))
            _, figures = rate_distortion(out, x, jnp.full(1, lmbda), train["distortion"])
            for name in ("loss", "bpp", "psnr"):
                totals.setdefault(name, []).append(float(figures[name]))
                if len(lmbdas) > 1:
                    totals.setdefault(f"{name}_{level}", []).append(float(figures[name]))
            if level == (len(lmbdas) + 1) // 2 and len(shown) < pairs:
                decoded = np.asarray(to_uint8(out.x_hat))[0]
                shown.append(np.concatenate([image, decoded], axis=1))
    return {name: float(np.mean(values)) for name, values in totals.items()}, shown


@lru_cache(maxsize=8)
def _jitted_apply(model: LLIC, options: EncoderOptions) -> Callable:
    return jax.jit(partial(model.apply, options=options))


def validate_held_back(
    model: LLIC,
    options: EncoderOptions,
    pictures: Pictures,
    config: Config,
    params: Any,
    stop: "Stop",
) -> tuple[dict[str, float], list[np.ndarray]] | None:
    """Figures of the images held back, and the gap between them and those of training: by how much
    their loss is larger, as a fraction. None when there are none, or when the run is to end now.

    The two are different images: what tells of overfitting is how the gap grows.
    """
    # The last stage's: what is learned from small crops may fail in the middle of a large image.
    crop = config["data"]["crops"][-1]
    train, stopping = config["train"], lambda: stop.signal is not None
    if not pictures.held_back:
        return None
    run = partial(validate, model, params, train=train, crop=crop, options=options)
    found, pairs = run(pictures.held_back, pairs=2, stopping=stopping)
    if pictures.gap:
        trained, _ = run(pictures.gap, stopping=stopping)
        if trained:
            found |= {f"{name}_training": trained[name] for name in ("loss", "bpp", "psnr")}
            found["gap"] = found["loss"] / trained["loss"] - 1
    return None if stopping() else (found, pairs)
