"""The model card: the README.md of a released folder, made from its config and measured figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llic_jax.configs.upgrade import history, upgrade
from llic_jax.errors import CardError

_DISTORTIONS = {"mse": "255^2 MSE", "ms_ssim": "(1 - MS-SSIM)"}


def model_card(
    config: Mapping[str, Any],
    parameters: int,
    fingerprint: bytes,
    summary: Mapping[str, Any] | None = None,
) -> str:
    """Writes the card.

    Args:
      config: Of the released folder.
      parameters: Their number.
      fingerprint: The model's.
      summary: An evaluation's (`summary.json`); its figures of this model become a table.

    Returns:
      Markdown.

    Raises:
      CardError: The summary has no figures of this model.
    """
    whole, noted = upgrade(config), history(config)
    model, data, train = whole["model"], whole["data"], whole["train"]
    levels = model["levels"]
    rates = f"{levels} quality levels, continuous between them" if levels > 1 else "one rate"
    crops = _several(noted["trained_sizes"] or sorted(set(data["crops"])))
    batch = train["batch_size"] * train["accumulate"]
    images = noted["trained_crops"]
    if images is None:
        images = noted["trained_steps"] * batch
    hours = noted["trained_hours"]
    mean = _mean(noted["mean_with"])
    scaled = "; the quality scales their branches" if model["branch_gains"] else ""
    strides = f",\n  strides {_several(model['strides'])}" if max(model["strides"]) > 2 else ""
    corrected = any(whole["coding"]["back_projection"])
    encoder = "\n* The encoder corrects latents by back-projection: `coding`." if corrected else ""
    figures = "" if summary is None else _figures(summary, fingerprint)
    return f"""# LLIC with the {model["entropy_model"]} entropy model

A learned codec for photographs: model `{fingerprint.hex()}`, as every file that it writes says.
{parameters / 1e6:.2f} million parameters, {rates}. Licence: Apache-2.0.

## Architecture

* Transforms: channels {_several(model["channels"])}, kernels {_several(model["kernel_sizes"])},
  blocks {_several(model["depths"])}{strides}{scaled}.
* Hyperprior of {model["hyper_channels"]} channels; all of `config.json`'s `model` section.{encoder}

## Training

* {noted["trained_steps"]} steps{f" in {hours:g} hours" if hours else ""}, on
  {images} crops of {crops} pixels in all, from the
  photographs in `{data["source"]}`, of which {data["held_back"]} were held back.
* Loss: bits per pixel + lambda {_DISTORTIONS[train["distortion"]]}, lambda
  {_several(train["lmbdas"])}{" for the quality levels in turn" if levels > 1 else ""}.
* The weights are a moving average (decay {train["ema_decay"]:g}){mean}, stored in
  8 bits with scales; small arrays in float32, the decoder's upsampling in bfloat16.
{figures}
## What it is not for

* {_unsuited(data)}
* Images of more than 8 bits a channel. Colour profiles are kept, but it was trained on sRGB.
* Evidence: at low rates the decoder invents plausible detail.

`golden.llic` is a file of a test image (60 x 48 pixels, made by code): a codec that
decodes it without an error works on that machine.
"""


def read_summary(path: Path) -> dict[str, Any]:
    """Reads an evaluation's `summary.json`.

    Args:
      path: The file.

    Returns:
      Its content (see `measure.summary`).

    Raises:
      CardError: The file is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CardError(f"{path} is no summary.json of eval.py: {error}") from error


def _mean(folders: Sequence[str]) -> str:
    others = len(folders)
    return f", in the mean with those of {others} more folder{'s' * (others > 1)}" if others else ""


def _unsuited(data: Mapping[str, Any]) -> str:
    if not data["drawings"]:
        return (
            "Drawings, text, screenshots, medical or measured data: it has only seen photographs."
        )
    return (
        "Drawings, text, screenshots: it has seen some, made at random by code, but lossless\n"
        "  formats serve most of them better. Medical or measured data: it has seen none."
    )


def _several(values: Any) -> str:
    return ", ".join(map(str, values))


def _figures(summary: Mapping[str, Any], fingerprint: bytes) -> str:
    rows = [
        f"| {m['codec']} | {'-' if m['quality'] is None else format(m['quality'], 'g')} "
        f"| {m['bpp']:.4f} | {'-' if m['psnr'] is None else format(m['psnr'], '.2f')} "
        f"| {'-' if m['ms_ssim'] is None else format(m['ms_ssim'], '.4f')} "
        f"| {m['encode_seconds']:.2f} | {m['decode_seconds']:.2f} |"
        for means in summary["codecs"].values()
        for m in means
        if f"model {fingerprint.hex()}" in m["version"]
    ]
    if not rows:
        versions = sorted({m["version"] for means in summary["codecs"].values() for m in means})
        raise CardError(
            f"The summary has no figures of model {fingerprint.hex()}; it has {versions}. "
            "Evaluate this folder first."
        )
    images, machine = summary["images"], summary["machine"]
    return f"""
## Figures

Real files, means over {images["count"]} images ({images["set"]}); seconds on
{machine["device"]}, {machine["cores"]} cores.

| codec | quality | bpp | PSNR (dB) | MS-SSIM | encode s | decode s |
| --- | --- | --- | --- | --- | --- | --- |
""" + "".join(f"{row}\n" for row in rows)
