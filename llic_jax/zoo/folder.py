"""The released folder: everything that a codec needs, and nothing of the training run.

config.json           the model's configuration (and how it was trained)
weights.safetensors   the moving average of the weights: in 8 bits with scales; small arrays in
                      float32, the decoder's upsampling in bfloat16
tables.safetensors    the range coder's integer tables, built from those weights
README.md             the model card (`card.py`)
golden.llic           a file that the codec must be able to decode

    python -m llic_jax.release WORKDIR FOLDER    # makes all of it from a training run
    python -m llic_jax.release FOLDER            # makes the last two anew

The same checkpoint makes the same bytes, whenever it is released by the same versions on the same
kind of machine.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.flax import save
from safetensors.numpy import load_file  # the other one compiles a program for every shape

from llic_jax.bitstream.file import FINGERPRINT_BYTES
from llic_jax.codec.codec import Codec
from llic_jax.codec.model import USUAL, CodecModel, Limits
from llic_jax.coding.table_design import build_tables
from llic_jax.coding.tables import Tables
from llic_jax.errors import ReleaseError
from llic_jax.models.build import build_model
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.system.files import whole_file
from llic_jax.zoo.weights import restored_weights, stored_weights

DEFAULT_FOLDER = Path(__file__).parents[1] / "released" / "llic_elic_small"
_FILES = ("config.json", "weights.safetensors", "tables.safetensors")

EFFORT_FIELDS = ("trained_steps", "trained_hours", "trained_crops")


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


def save_release(folder: str | Path, config: Mapping[str, Any], params: Any) -> Codec:
    """Writes what a codec needs into a folder, and returns that codec.

    config: the training run's, with its `model` section. params: the weights to release; all but
    small arrays are rounded (`stored_arrays`), and the tables are built from what is stored.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = stored_weights(params)
    options = EncoderOptions.of(config.get("coding", {}), config["model"]["levels"])
    prior = build_model(config["model"]).prior
    tables = build_tables(prior, restored_weights(weights)["prior"], options.mixture)
    arrays = {name: jnp.asarray(value) for name, value in tables.arrays().items()}
    write_whole(folder / "weights.safetensors", save(weights))
    write_whole(folder / "tables.safetensors", save(arrays))
    write_whole(
        folder / "config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    )
    return load_codec(folder)


def load_codec(
    folder: str | Path = DEFAULT_FOLDER, coder: str | None = None, limits: Limits = USUAL
) -> Codec:
    """The codec in a released folder (`coder`: see `EncoderOptions`; `limits`: see `Codec`).

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
        options = EncoderOptions.of(config.get("coding", {}), model_config["levels"])
        weights = load_file(folder / "weights.safetensors")
        arrays = load_file(folder / "tables.safetensors")
        tables = Tables.from_arrays({k: np.asarray(v) for k, v in arrays.items()})
        # Coding computes in float32, whatever training did: see coding/row_shifts.py.
        model = build_model({**model_config, "dtype": "float32"})
    except Exception as error:  # each library has its own way to find a file unreadable
        raise ReleaseError(f"{folder} is damaged: {error}") from error
    params = restored_weights(weights)
    _check_shapes(model, params, folder)
    lambdas = tuple(train["lmbdas"]) if train.get("distortion") == "mse" else ()
    own_fingerprint = fingerprint(model_config, weights, tables)
    codec_model = CodecModel(model, params, tables, own_fingerprint, lambdas)
    return Codec(codec_model, options._replace(coder=coder), limits)


def effort(*folders: str | Path) -> dict[str, Any]:
    """How long the weights in a released folder were trained: `trained_steps`, `trained_hours` and
    `trained_crops`, as far as its config says, and `trained_sizes`, of the crops in pixels. Of
    several folders, that of the longest training. Empty where there is no such folder."""
    paths = [Path(folder) / "config.json" for folder in folders]
    configs = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if not configs:
        return {}
    config = max(configs, key=lambda config: config.get("trained_steps", 0))
    known = {name: config[name] for name in EFFORT_FIELDS if name in config}
    return known | {"trained_sizes": config.get("trained_sizes", config["data"]["crops"])}


def _check_shapes(model: LLIC, params: Any, folder: Path) -> None:
    prior = params.get("prior", {}).get("matrix_0")
    if prior is None or prior.shape[0] != model.prior.channels:
        raise ReleaseError(f"The weights in {folder} do not belong to the model of its config.")


def write_whole(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
