"""The released folder: everything that a codec needs, and nothing of the training run.

config.json           the model's configuration (and how it was trained)
weights.safetensors   the moving average of the weights, bfloat16
tables.safetensors    the range coder's integer tables, built from those weights
README.md             the model card

python -m llic_jax.release WORKDIR FOLDER
"""

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.flax import load_file, save_file

from llic_jax.coding.bitstream import FINGERPRINT_BYTES
from llic_jax.coding.codec import Codec
from llic_jax.coding.tables import Tables, build_tables
from llic_jax.errors import LlicError
from llic_jax.model import LLIC, build_model

DEFAULT = Path(__file__).parent / "released" / "llic_elic_small"
_FILES = ("config.json", "weights.safetensors", "tables.safetensors")


class ReleaseError(LlicError, RuntimeError):
    """A released folder is incomplete or damaged."""


def fingerprint(
    model_config: Mapping[str, Any], weights: Mapping[str, Any], tables: Tables
) -> bytes:
    """8 bytes of SHA-256 over the model's config, its stored weights and its tables."""
    digest = hashlib.sha256(json.dumps(model_config, sort_keys=True).encode())
    for name, array in sorted({**weights, **tables.arrays()}.items()):
        array = np.asarray(array)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def save_release(
    folder: str | Path, config: Mapping[str, Any], params: Any, card: str | None = None
) -> Codec:
    """Writes a released folder and returns the codec that it makes.

    config: the training run's, with its `model` section. params: the weights to release, rounded
    to bfloat16; the tables are built from the rounded ones.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        # NumPy converts without compiling a program per shape.
        name: jnp.asarray(np.asarray(value).astype(jnp.bfloat16))
        for name, value in traverse_util.flatten_dict(params, sep=".").items()
    }
    model = build_model(config["model"])
    tables = build_tables(model.prior, _as_params(weights)["prior"])
    save_file(weights, folder / "weights.safetensors")
    save_file(
        {k: jnp.asarray(v) for k, v in tables.arrays().items()}, folder / "tables.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if card is not None:
        (folder / "README.md").write_text(card)
    return load_codec(folder)


def load_codec(folder: str | Path = DEFAULT, coder: str | None = None) -> Codec:
    """The codec in a released folder.

    Raises:
      ReleaseError: a file is missing or cannot be read, or they do not go together.
    """
    folder = Path(folder)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(
            f"{folder} is no released model: {', '.join(missing)} not found. "
            "`python -m llic_jax.release WORKDIR FOLDER` makes one from a training run."
        )
    try:
        config = json.loads((folder / "config.json").read_text())
        model_config, train = config["model"], config.get("train", {})
        weights = load_file(folder / "weights.safetensors")
        arrays = load_file(folder / "tables.safetensors")
        tables = Tables.from_arrays({k: np.asarray(v) for k, v in arrays.items()})
        model = build_model(model_config)
    except Exception as error:  # each library has its own way to find a file unreadable
        raise ReleaseError(f"{folder} is damaged: {error}") from error
    params = _as_params(weights)
    _check_shapes(model, params, folder)
    lmbdas = train["lmbdas"] if train.get("distortion") == "mse" else ()
    return Codec(model, params, tables, fingerprint(model_config, weights, tables), coder, lmbdas)


def load_weights(folder: str | Path) -> dict[str, Any]:
    """The parameters in a released folder, float32, to go on from in training.

    Raises:
      ReleaseError: there are none.
    """
    path = Path(folder) / "weights.safetensors"
    try:
        return _as_params(load_file(path))
    except Exception as error:  # the library has its own ways to find a file unreadable
        raise ReleaseError(
            f"No weights can be read from {path}: {error}. Name a released folder."
        ) from error


def _as_params(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Stored weights to a tree of float32 parameters."""
    flat = {
        name: jnp.asarray(np.asarray(value).astype(np.float32)) for name, value in weights.items()
    }
    return traverse_util.unflatten_dict(flat, sep=".")


def _check_shapes(model: LLIC, params: Any, folder: Path) -> None:
    prior = params.get("prior", {}).get("matrix_0")
    if prior is None or prior.shape[0] != model.prior.channels:
        raise ReleaseError(f"The weights in {folder} do not belong to the model of its config.")


def _card(config: Mapping[str, Any]) -> str:
    """The model card: what can be said from the config alone."""
    model, data, train = config["model"], config["data"], config["train"]
    crops = "/".join(map(str, data["crops"]))
    rates = f"{model['levels']} quality levels, continuous" if model["levels"] > 1 else "one rate"
    return f"""# LLIC with the {model["entropy_model"]} entropy model

* Transforms: channels {tuple(model["channels"])}, kernels {tuple(model["kernel_sizes"])}, blocks
  {tuple(model["depths"])}; {rates}.
* Loss: {train["distortion"]}, lambda {tuple(train["lmbdas"])}.
* Trained for {config["trained_steps"]} steps, batch {train["batch_size"]} of {crops}-pixel
  crops, on `{data["source"]}`. Weights: moving average, bfloat16. Licence: Apache-2.0.
* For photographs in sRGB, 8 bits. Not for drawings, text, medical or measured data.
* Files decode for certain with the same versions of jax and jaxlib on the same kind of processor; a
  disagreement is found and reported.
"""


def main(argv: list[str] | None = None) -> None:
    """Command line: a training run's last moving average to a released folder."""
    parser = argparse.ArgumentParser(prog="python -m llic_jax.release", description=main.__doc__)
    parser.add_argument("workdir", type=Path, help="the training run")
    parser.add_argument("folder", type=Path, help="where to write the released model")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the last)")
    args = parser.parse_args(argv)

    from llic_jax.checkpoint import Checkpoints
    from llic_jax.optimization import build_optimizer
    from llic_jax.train_step import create_state

    config = json.loads((args.workdir / "config.json").read_text())
    model = build_model(config["model"])
    like, unravel = create_state(model, build_optimizer(config["train"]), 0)
    state = Checkpoints(args.workdir / "checkpoints").restore(like, args.step)
    config["data"]["source"] = Path(config["data"]["source"]).name  # no path of this machine
    config["trained_steps"] = int(state.step)
    codec = save_release(args.folder, config, unravel(jnp.asarray(state.ema)), _card(config))
    print(f"{args.folder}: step {int(state.step)}, model {codec.fingerprint.hex()}")


if __name__ == "__main__":
    main()
