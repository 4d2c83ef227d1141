"""What benchmarks of a released model on photographs share: arguments, and what these name."""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from llic_jax.configs.upgrade import upgrade
from llic_jax.data import sources
from llic_jax.data.photographs import Photographs, split_held_out
from llic_jax.models.build import build_model
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.zoo.folder import DEFAULT_FOLDER
from llic_jax.zoo.weights import load_weights


class Released(NamedTuple):
    """A released model: its config, network, parameters and encoder options; and the photographs,
    those that a training sees and those that it holds back."""

    config: dict[str, Any]
    model: LLIC
    params: Any
    options: EncoderOptions
    seen: Photographs
    held_back: Photographs


def parser(description: str | None) -> argparse.ArgumentParser:
    """Takes `--data_dir`, `--checkpoint` and `--crop`."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--data_dir", required=True, help="photographs: a folder, or as for data.source")
    add("--checkpoint", type=Path, default=DEFAULT_FOLDER, help="released folder")
    add("--crop", type=int, default=384, help="side, pixels, a multiple of 64")
    return parser


def load(args: argparse.Namespace) -> Released:
    """What the arguments of `parser` name."""
    config = upgrade(json.loads((args.checkpoint / "config.json").read_text()))
    model, params = build_model(config["model"]), load_weights(args.checkpoint)
    options = EncoderOptions.of(config["coding"], model.levels)
    photographs = sources.open_source(args.data_dir)
    seen, held_back = split_held_out(photographs, config["data"]["held_back"])
    return Released(config, model, params, options, seen, held_back)
