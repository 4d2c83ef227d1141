"""The released folder: everything that a codec needs, and nothing of the training run.

config.json           the model's configuration (and how it was trained)
weights.safetensors   the moving average of the weights: in 8 bits with scales; small arrays in
                      float32, the decoder's upsampling in bfloat16
tables.safetensors    the range coder's integer tables, built from those weights
README.md             the model card (`card.py`)
golden.llic           a file that the codec must be able to decode
model.json            of installed models: name and fingerprint (`manifest.py`)

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
from flax import traverse_util
from safetensors.flax import save
from safetensors.numpy import load_file  # the other one compiles a program for every shape

from llic_jax.bitstream.file import FINGERPRINT_BYTES
from llic_jax.codec.codec import Codec
from llic_jax.codec.model import USUAL, CodecModel, Limits
from llic_jax.coding.tables import Tables
from llic_jax.configs.upgrade import history, upgrade
from llic_jax.errors import ReleaseError
from llic_jax.execution import program_cache
from llic_jax.models.build import build_model, parameter_shapes
from llic_jax.models.encoder_options import EncoderOptions
from llic_jax.models.llic import LLIC
from llic_jax.system.files import whole_file
from llic_jax.zoo.installed import folder_of
from llic_jax.zoo.manifest import check_content, read_manifest
from llic_jax.zoo.registry import MANIFEST, PACKAGED, name_of, registry
from llic_jax.zoo.weights import restored_weights, stored_weights

DEFAULT_FOLDER = PACKAGED / registry().recommended
FILES = ("config.json", "weights.safetensors", "tables.safetensors")

EFFORT_FIELDS = ("trained_steps", "trained_hours", "trained_crops")


def fingerprint(
    model_config: Mapping[str, Any], weights: Mapping[str, Any], tables: Tables
) -> bytes:
    """The first 8 bytes of SHA-256 over a model.

    Args:
        model_config: The config's `model` section, as it stands in the file.
        weights: As they are stored.
        tables: The range coder's.

    Returns:
        8 bytes.
    """
    digest = hashlib.sha256(json.dumps(model_config, sort_keys=True).encode())
    for name, array in sorted({**weights, **tables.arrays()}.items()):
        array = np.asarray(array)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def save_release(folder: str | Path, config: Mapping[str, Any], params: Any) -> Codec:
    """Writes a released folder, without card and golden file.

    Args:
        folder: Is made if need be.
        config: The training run's, with its `model` section.
        params: The weights to release. All but small arrays are rounded (`stored_arrays`), and the
            tables are built from the rounded weights.

    Returns:
        The codec in the folder.

    Raises:
        ReleaseError: The folder holds an installed model.
    """
    from llic_jax.coding.table_design import build_tables  # with scipy, which takes time to load

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists():
        raise ReleaseError(
            f"{folder} holds an installed model, which never changes again. Name another folder."
        )
    weights = stored_weights(params)
    network = build_model(upgrade(config)["model"])
    tables = build_tables(network.prior, restored_weights(weights)["prior"], network.mixture)
    arrays = {name: jnp.asarray(value) for name, value in tables.arrays().items()}
    write_whole(folder / "weights.safetensors", save(weights))
    write_whole(folder / "tables.safetensors", save(arrays))
    write_whole(
        folder / "config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    )
    return load_codec(folder)


def load_codec(
    model: str | Path | None = None, coder: str | None = None, limits: Limits = USUAL
) -> Codec:
    """Loads a released model, ready to code.

    Compiled programs are kept on disk from now on, unless the process has a compilation cache of
    JAX's, or JAX_COMPILATION_CACHE_DIR is empty (`program_cache.enable`).

    Args:
        model: The name of an installed model, or a released folder; the recommended model by
            default. A text without a slash that names an installed model is a name.
        coder: Name of the range coder that files are written with; the first that is installed by
            default.
        limits: Of one call (see `Codec`).

    Raises:
        ReleaseError: A file is missing or damaged, or the files do not go together.
        ConfigError: The folder's config describes no model.
        RegistryError: No model of this name is installed, or two are.
        OSError: A file cannot be read.
    """
    program_cache.enable_by_default()
    folder = DEFAULT_FOLDER if model is None else folder_of(model)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(
            f"{folder} is no released model: {', '.join(missing)} not found. "
            "`python -m llic_jax.release WORKDIR FOLDER` makes one from a training run."
        )
    manifest = read_manifest(folder)
    stored = _read_config(folder)
    config = upgrade(stored)
    # Coding computes in float32, whatever training did: see coding/row_shifts.py.
    network = build_model({**config["model"], "dtype": "float32"})
    options = EncoderOptions.of(config["coding"], network.levels)
    weights = _read_arrays(folder / "weights.safetensors")
    try:
        tables = Tables.from_arrays(_read_arrays(folder / "tables.safetensors"))
    except (KeyError, ValueError, IndexError) as error:
        raise ReleaseError(
            f"{folder / 'tables.safetensors'} is damaged: {error}. Get it anew."
        ) from error
    if manifest is not None and manifest.decoder_only:
        check_content(folder, manifest)
        own_fingerprint = bytes.fromhex(manifest.fingerprint)
    else:
        own_fingerprint = fingerprint(stored["model"], weights, tables)
        if manifest is not None and manifest.fingerprint != own_fingerprint.hex():
            raise ReleaseError(
                f"{folder} is damaged: its files make model {own_fingerprint.hex()}, expected "
                f"{manifest.fingerprint} ({manifest.name}). Get it anew."
            )
    params = restored_weights(weights)
    # The content of a released model was checked when it was released; its fingerprint tells.
    if manifest is None and not name_of(own_fingerprint.hex()):
        _check_shapes(network, params, folder)
    train = config["train"]
    lambdas = tuple(train["lmbdas"]) if train["distortion"] == "mse" else ()
    model_of_codec = CodecModel(network, params, tables, own_fingerprint, lambdas)
    return Codec(model_of_codec, options._replace(coder=coder), limits)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config["model"], dict):
            raise TypeError("its model section is no object")
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged: {error!r}. Get the folder anew.") from error
    return config


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, MemoryError):
        raise  # they say what is wrong
    except Exception as error:  # the library has its own way to find a file unreadable
        raise ReleaseError(f"{path} is damaged: {error}. Get it anew.") from error


def training_history(*folders: str | Path) -> dict[str, Any]:
    """The training history of released weights.

    Args:
        folders: Released folders; those that do not exist are passed over.

    Returns:
        Of the folder that was trained longest: `trained_steps`, `trained_hours` and
        `trained_crops`, as far as its config has them, and `trained_sizes`, of the crops in
        pixels. Empty without a folder.
    """
    paths = [Path(folder) / "config.json" for folder in folders]
    configs = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if not configs:
        return {}
    config = max(configs, key=lambda config: history(config)["trained_steps"])
    noted = history(config)
    known = {name: noted[name] for name in EFFORT_FIELDS if name in config}
    return known | {"trained_sizes": noted["trained_sizes"] or config["data"]["crops"]}


def _check_shapes(network: LLIC, params: Any, folder: Path) -> None:
    """Refuses weights that are not all of this model's, or not of its shapes."""
    expected = _flat_shapes(parameter_shapes(network))
    found = _flat_shapes(params)
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} is none of its" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} is {found[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ReleaseError(
            f"The weights in {folder} do not belong to the model of its config: {problems[0]}"
            f"{more}. Get the folder anew, or make it again from its training run."
        )


def _flat_shapes(params: Any) -> dict[str, tuple[int, ...]]:
    flat = traverse_util.flatten_dict(params, sep=".")
    return {name: tuple(value.shape) for name, value in flat.items()}


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Args:
        path: Of the file.
        content: Its bytes.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
