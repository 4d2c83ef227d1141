"""What the encoder gains by back-projection (`coding.back_projection`), at each quality.

    python benchmarks/back_projection.py --data_dir PHOTOGRAPHS

The loss `R + lambda D` on central crops of photographs that the training never saw, of the symbols
that an encoder chooses whose latents are corrected by so much: how much lower than without, in
percent of the bits. A config's factors are chosen by this table.
"""

import released_model

from llic_jax.data.photographs import Cached
from llic_jax.system.memory import keep_freed_memory
from llic_jax.training.settings import TrainSettings
from llic_jax.training.validation import Validation


def main() -> None:
    parser = released_model.parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--factors", type=float, nargs="+", default=[0.15, 0.3, 0.5, 0.7, 0.85, 1.0]
    )
    args = parser.parse_args()
    keep_freed_memory()

    config, model, params, options, _, held_back = released_model.load(args)
    held_back = Cached(held_back, 2.0)

    def figures(factors: tuple[float, ...]) -> dict[str, float]:
        chosen = options._replace(back_projection=factors)
        validation = Validation(model, TrainSettings.of(config), chosen)
        return validation.measure(params, held_back, args.crop)[0]

    levels = [f"_{level}" for level in range(1, model.levels + 1)] if model.levels > 1 else [""]
    without = figures(())
    print(f"{'quality':>14}" + "".join(f"{level[1:] or 'only':>8}" for level in levels))
    print(f"{'none (bpp)':>14}" + "".join(f"{without[f'bpp{level}']:8.4f}" for level in levels))
    tried = {f"{factor:g} (%)": (factor,) * model.levels for factor in args.factors}
    for name, factors in {**tried, "released (%)": options.back_projection}.items():
        found = figures(factors)
        changes = [
            100 * (found[f"loss{level}"] - without[f"loss{level}"]) / without[f"bpp{level}"]
            for level in levels
        ]
        print(f"{name:>14}" + "".join(f"{change:+8.2f}" for change in changes), flush=True)


if __name__ == "__main__":
    main()
