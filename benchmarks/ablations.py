"""Trains ablations of LLIC at small scale, the same time each, and prints the table.

    python benchmarks/ablations.py --data_dir FOLDER --workdir runs/ablations --minutes 30 \\
        --only llic static_weights no_scct

What is compared is the loss on the held-back crops, averaged over the quality levels, after equal
time (or equal steps, by `--steps`). A small model after minutes shows tendencies, no more.
Run again and training goes on.

Columns: the ablation, its parameters, MACs per pixel in thousands, steps of training, and of the
validation loss, bits per pixel and PSNR.
"""

import argparse
import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from llic_jax.data import sources
from llic_jax.data.photographs import split_held_out
from llic_jax.models.build import build_model
from llic_jax.models.cost import summarize
from llic_jax.training.loop import train
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import create_state
from llic_jax.training.validation import Validation

# Each is a list of stages, trained one after the other, each a set of overrides of the config with
# the crops of its first stage only.
ABLATIONS: dict[str, list[dict[str, Any]]] = {
    "llic": [{}],
    "kernels_5": [{"model.kernel_sizes": (5,)}],  # in every stage
    "kernels_7": [{"model.kernel_sizes": (7,)}],
    "kernels_9": [{"model.kernel_sizes": (9,)}],
    "static_weights": [{"model.style.self_conditioned": False}],
    "no_scct": [{"model.style.channel_transform": False}],
    "no_gate": [{"model.style.gate": False}],
    "no_depth_rb": [{"model.style.depth_rb": False}],
    "two_stage": [{}, {"data.crops": (256,)}],  # twice the crop of the small configs
}


def overridden(base: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """A copy of `base` with fields, named by their dotted path, set to other values. A single
    kernel size is that of every stage."""
    config = base.copy_and_resolve_references()
    config.update_from_flattened_dict(overrides)
    if len(config.model.kernel_sizes) == 1:
        config.model.kernel_sizes *= len(config.model.strides)
    return config


def run(name: str, base: ConfigDict, workdir: Path, minutes: float) -> str:
    """Trains one ablation; returns its row of the table."""
    stages = ABLATIONS[name]
    for overrides in stages:
        config = overridden(base, overrides)
        state = train(config, workdir / name, minutes / len(stages))
    model = build_model(config.model)
    settings = TrainSettings.of(config)
    _, _, unravel = create_state(model, settings, config.seed)
    images = sources.open_source(config.data.source)
    _, held_back = split_held_out(images, config.data.held_back)
    # The same crops for all, also for those that were trained on larger ones.
    params = unravel(jnp.asarray(state.ema))
    figures, _ = Validation(model, settings).measure(params, held_back, base.data.crops[0])
    costs = summarize(model, 256, 256)
    return (
        f"| {name} | {costs.total_parameters / 1e6:.2f} M | {costs.macs / costs.pixels / 1e3:.1f} "
        f"| {int(state.step)} | {figures['loss']:.4f} | {figures['bpp']:.4f} "
        f"| {figures['psnr']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="llic_elic_small", help="of configs/, to start from")
    parser.add_argument("--data_dir", required=True, help="a folder of photographs")
    parser.add_argument("--workdir", type=Path, required=True, help="one folder in it per ablation")
    parser.add_argument("--minutes", type=float, default=30, help="of training, each")
    parser.add_argument("--steps", type=int, help="end training there, if that comes earlier")
    parser.add_argument("--only", nargs="+", choices=ABLATIONS, default=list(ABLATIONS))
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)

    base = importlib.import_module(f"llic_jax.configs.{args.config}").get_config()
    base.data.source = args.data_dir
    base.data.crops, base.data.crop_boundaries = base.data.crops[:1], ()
    base.train.decoder_steps = 0
    base.train.schedule = "constant"  # a schedule would favour whoever gets to its end
    if args.steps is not None:
        base.train.steps = args.steps
    print("| ablation | parameters | kMACs/pixel | steps | loss | bpp | PSNR dB |")
    print("|---|---|---|---|---|---|---|")
    for name in args.only:
        print(run(name, base, args.workdir, args.minutes), flush=True)


if __name__ == "__main__":
    main()
