"""What training minimizes: from parameters and crops to the loss and its figures."""

import dataclasses
from functools import partial
from typing import Any

import jax
from jax.tree_util import tree_map_with_path
from jaxtyping import Array, Float, Int, Key, UInt8

from llic_jax.models.encoder_options import PLAIN, EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.ops.quantization import fold_in
from llic_jax.ops.shapes import to_float
from llic_jax.training.loss import rate_distortion
from llic_jax.training.phases import TRANSFORMS, Phase, is_frozen
from llic_jax.training.quality_sampling import draw_qualities, quality_weights
from llic_jax.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a phase: a pure function that knows nothing of devices.

    Attributes:
        model: The codec's networks.
        settings: Of the run.
        phase: Which parameters learn. Gradients of the others are zero.
        options: How symbols are chosen where the quantized symbols count (`Phase.DECODER`).
    """

    model: LLIC
    settings: TrainSettings
    phase: Phase = Phase.ALL
    options: EncoderOptions = PLAIN

    def __call__(
        self,
        params: Any,
        images: UInt8[Array, "b h w 3"],
        samples: Int[Array, "b"],
        key: Key[Array, ""],
        batch_size: int | Int[Array, ""],
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss of some samples of a batch.

        Args:
            params: The model's parameters, a tree.
            images: Crops.
            samples: Their places in the whole batch, from 0. Noise and quality of a sample depend
                on its place and `key` alone, however the batch is divided.
            key: Of the step.
            batch_size: Of the whole batch.

        Returns:
            What is to be minimized, and the figures that a log shows; both means over the samples.
        """
        settings, phase, lmbdas = self.settings, self.phase, self.settings.lmbdas
        keys = jax.vmap(partial(jax.random.fold_in, key))(samples)
        quality, lmbda = draw_qualities(
            fold_in(keys, 0), samples, batch_size, lmbdas, settings.rate_sampling
        )
        noise = None if phase is Phase.DECODER else fold_in(keys, 1)
        x = to_float(images)
        apply: Any = self.model.apply
        out = apply({"params": self._with_frozen(params)}, x, quality, noise, self.options)
        weight = quality_weights(lmbda, lmbdas, settings.rate_weighting, settings.rate_sampling)
        loss, figures = rate_distortion(
            out, x, lmbda, settings.distortion, weight, settings.loss_knee
        )
        if phase is Phase.ENTROPY_MODEL:
            # Only the rate is returned, so XLA removes the synthesis as dead code.
            figures = {name: figures[name] for name in ("bpp_y", "bpp_z", "bpp")}
            loss = figures["loss"] = figures["bpp"]
        return loss, figures

    def _with_frozen(self, params: Any) -> Any:
        """The parameters, without a gradient in those that do not learn.

        These are the layers that `train.frozen` names, and the transforms while the entropy model
        trains alone. The decoder's phase needs none of that: rounding has no gradient.
        """
        stop = jax.lax.stop_gradient
        if self.settings.frozen:
            params = tree_map_with_path(
                lambda path, p: stop(p) if is_frozen(path, self.settings) else p, params
            )
        if self.phase is Phase.ENTROPY_MODEL:
            params = {name: stop(p) if name in TRANSFORMS else p for name, p in params.items()}
        return params
