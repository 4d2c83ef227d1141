"""The loss on photographs that are not trained on."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from llic_jax.data.photographs import Photographs
from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.ops.shapes import to_float, to_uint8
from llic_jax.training.loss import rate_distortion
from llic_jax.training.pictures import Pictures
from llic_jax.training.settings import TrainSettings

Pairs = list[UInt8[np.ndarray, "s w 3"]]  # w = 2 s


class Validation:
    """Validation of one model; owns its compiled program.

    Args:
        model: The codec's networks.
        settings: Of the run: lambdas and distortion.
        options: Of the encoder.
    """

    def __init__(self, model: LLIC, settings: TrainSettings, options: EncoderOptions = PLAIN):
        self.settings = settings
        self._apply = jax.jit(partial(model.apply, options=options))

    def measure(
        self,
        params: Any,
        images: Photographs | Sequence[np.ndarray],
        crop: int,
        pairs: int = 0,
        levels: Collection[int] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, float], Pairs]:
        """Loss, rate and PSNR of central crops, with real quantization; means, also per level.

        Args:
            params: The model's parameters.
            images: uint8 `(H, W, 3)`; smaller ones than the crop are left out.
            crop: Side, pixels.
            pairs: How many crops are returned beside their reconstruction at the middle level.
            levels: Only these, from 1; None for all.
            stopping: Is asked before each image whether to leave out the rest.

        Returns:
            The figures, and these pairs.
        """
        lmbdas = self.settings.lmbdas
        totals: dict[str, list[float]] = {}
        pictures: Pairs = []
        for i in range(len(images)):
            if stopping():
                break
            image = images[i]
            if image is None or min(image.shape[:2]) < crop:
                continue
            top, left = ((side - crop) // 2 for side in image.shape[:2])
            image = image[top : top + crop, left : left + crop]
            x = jnp.asarray(to_float(image[None]))
            for level, lmbda in enumerate(lmbdas, start=1):
                if levels is not None and level not in levels:
                    continue
                quality = jnp.full(1, float(level)) if len(lmbdas) > 1 else None
                out = self._apply({"params": params}, x, quality)
                out = out._replace(x_hat=jnp.clip(out.x_hat, 0, 1))
                distortion = self.settings.distortion
                _, figures = rate_distortion(out, x, jnp.full(1, lmbda), distortion)
                for name in ("loss", "bpp", "psnr"):
                    totals.setdefault(name, []).append(float(figures[name]))
                    if len(lmbdas) > 1:
                        totals.setdefault(f"{name}_{level}", []).append(float(figures[name]))
                if level == (len(lmbdas) + 1) // 2 and len(pictures) < pairs:
                    decoded = np.asarray(to_uint8(out.x_hat))[0]
                    pictures.append(np.concatenate([image, decoded], axis=1))
        return {name: float(np.mean(values)) for name, values in totals.items()}, pictures

    def measure_gap(
        self, params: Any, pictures: Pictures, stopping: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, float], Pairs] | None:
        """Figures of the held-out images, and the gap between them and those of training.

        The gap is the fraction by which their loss is larger. The two are different images: what
        tells of overfitting is how the gap grows.

        Args:
            params: The model's parameters.
            pictures: Of the run.
            stopping: As for `measure`.

        Returns:
            The figures, and two pairs; None without held-out images, or when it was stopped.
        """
        if not pictures.held_out:
            return None
        crop = pictures.settings.data.crops[-1]
        figures, pairs = self.measure(params, pictures.held_out, crop, 2, stopping=stopping)
        if pictures.gap:
            trained, _ = self.measure(params, pictures.gap, crop, stopping=stopping)
            if trained:
                figures |= {f"{name}_training": trained[name] for name in ("loss", "bpp", "psnr")}
                figures["gap"] = figures["loss"] / trained["loss"] - 1
        return None if stopping() else (figures, pairs)
