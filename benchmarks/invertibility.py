"""How much of the distortion is the transforms' own, and how much comes from quantization.

    python benchmarks/invertibility.py --data_dir PHOTOGRAPHS

Mean squared error (of 0 .. 255) at each quality, on central crops of photographs that the training
never saw: of the latent as the analysis yields it, without any quantization; of that latent as the
encoder corrects it (`coding.back_projection`); and of the symbols that are coded. The second is
what no rate can buy back: where it is a good part of the third, the transforms, not the entropy
model, hold a high quality down.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import released_model

from llic_jax.entropy.walk import quantize
from llic_jax.system.memory import keep_freed_memory


def main() -> None:
    args = released_model.parser(__doc__.splitlines()[0]).parse_args()
    keep_freed_memory()

    _, model, params, options, _, held_back = released_model.load(args)

    def distortions(model: Any, x: Any, quality: Any) -> tuple[Any, ...]:
        def mse(y: Any) -> Any:
            return jnp.mean(jnp.square(jnp.clip(model.synthesize(y, quality), 0, 1) - x)) * 255**2

        y = model.analyze(x, quality, options)
        z_hat = jnp.round(model.hyper_analyze(y, quality))
        hyper = model.hyper_synthesize(z_hat, quality)
        y_hat, _ = quantize(model, hyper, y, options.rdoq_weight)
        return mse(model.analyze(x, quality)), mse(y), mse(y_hat)

    measure = jax.jit(
        lambda x, quality: model.apply({"params": params}, x, quality, method=distortions)
    )
    found: dict[int, list[tuple[float, ...]]] = {}
    for i in range(len(held_back)):
        image = held_back[i]
        if image is None or min(image.shape[:2]) < args.crop:
            continue
        top, left = ((side - args.crop) // 2 for side in image.shape[:2])
        x = jnp.asarray(image[None, top : top + args.crop, left : left + args.crop]) / 255
        for level in range(1, model.levels + 1):
            quality = jnp.full(1, float(level)) if model.levels > 1 else None
            found.setdefault(level, []).append(tuple(map(float, measure(x, quality))))
    print(f"{'quality':>7} {'not quantized':>14} {'corrected':>10} {'coded':>8} {'of it':>8}")
    for level, errors in found.items():
        exact, corrected, coded = np.mean(errors, axis=0)
        share = 100 * corrected / coded
        print(f"{level:7} {exact:14.2f} {corrected:10.2f} {coded:8.2f} {share:6.0f} %")


if __name__ == "__main__":
    main()
