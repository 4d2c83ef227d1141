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

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import UInt8
from safetensors.flax import save
from safetensors.numpy import load_file  # the other one compiles a program for every shape

from llic_jax.card import model_card, read_summary, training_effort
from llic_jax.coding.agreement import UNITS
from llic_jax.coding.bitstream import FINGERPRINT_BYTES, BitstreamError
from llic_jax.coding.codec import MEMORY_GB, Codec
from llic_jax.coding.offsets import with_all_rows
from llic_jax.coding.tables import Tables, build_tables
from llic_jax.encoder_options import EncoderOptions
from llic_jax.errors import LlicError
from llic_jax.files import whole_file
from llic_jax.model import LLIC, build_model
from llic_jax.provenance import public_source

DEFAULT = Path(__file__).parent / "released" / "llic_elic_small"
_FILES = ("config.json", "weights.safetensors", "tables.safetensors")
# Arrays of fewer elements stay float32: gains, scales and biases, 2 % of the parameters, whose
# rounding would cost 1 % of the bits at high rates (docs/experiments.md).
_ROUNDED_FROM = 4096
# Of all others 8 bits are enough, but not of these (docs/experiments.md).
_UPSAMPLING = "g_s.up_"
_SCALE = ":scale"  # what the name of the scales of an array in 8 bits ends in
_EFFORT = ("trained_steps", "trained_hours", "trained_crops")


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


def save_release(folder: str | Path, config: Mapping[str, Any], params: Any) -> Codec:
    """Writes what a codec needs into a folder, and returns that codec.

    config: the training run's, with its `model` section. params: the weights to release; all but
    small arrays are rounded (`_stored`), and the tables are built from what is stored.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = stored_weights(params)
    options = EncoderOptions.of(config.get("coding", {}), config["model"]["levels"])
    prior = build_model(config["model"]).prior
    tables = build_tables(prior, restored_weights(weights)["prior"], options.mixture)
    arrays = {name: jnp.asarray(value) for name, value in tables.arrays().items()}
    _write(folder / "weights.safetensors", save(weights))
    _write(folder / "tables.safetensors", save(arrays))
    _write(folder / "config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    return load_codec(folder)


def complete(
    folder: str | Path, summary: Mapping[str, Any] | None = None, coder: str | None = None
) -> Codec:
    """Writes the card and the golden file of a folder that has the rest, and checks all of it.

    summary: an evaluation's figures, for the card. coder: range coder of the golden file.

    Raises:
      ReleaseError: as `check`. CardError: as `model_card`.
    """
    folder = Path(folder)
    codec = load_codec(folder, coder)
    config = json.loads((folder / "config.json").read_text())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(codec.params))
    card = model_card(config, parameters, codec.fingerprint, summary)
    _write(folder / "README.md", card.encode())
    _write(folder / "golden.llic", codec.compress(golden_image()))
    check(folder, codec)
    return codec


def check(folder: str | Path, codec: Codec) -> None:
    """Checks that the folder of this codec is complete and that its parts go together.

    Raises:
      ReleaseError: a file is missing or damaged; the tables are not those of the weights; the card
        is another model's; or the golden file cannot be decoded.
    """
    folder = Path(folder)
    again = "`python -m llic_jax.release FOLDER` makes card and golden file anew."
    for name in ("README.md", "golden.llic"):
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder} has no {name}. {again}")
    tables = build_tables(codec.model.prior, codec.params["prior"], codec.options.mixture)
    rebuilt = with_all_rows(tables).arrays()
    for name, array in codec.tables.arrays().items():
        # Another platform may round a probability the other way.
        if array.shape != rebuilt[name].shape or np.any(abs(array - rebuilt[name]) > 2):
            raise ReleaseError(f"The tables in {folder} ({name}) are not those of its weights.")
    if codec.fingerprint.hex() not in (folder / "README.md").read_text():
        raise ReleaseError(
            f"The card in {folder} does not name model {codec.fingerprint.hex()}. {again}"
        )
    try:
        image = codec.decompress((folder / "golden.llic").read_bytes())
    except BitstreamError as error:
        raise ReleaseError(f"{folder}/golden.llic cannot be decoded: {error} {again}") from error
    if image.shape != golden_image().shape:
        raise ReleaseError(f"{folder}/golden.llic holds an image {image.shape}. {again}")


def golden_image() -> UInt8[np.ndarray, "48 60 3"]:
    """The test image: slopes, an edge and texture, in integers, the same on every machine."""
    row, column = np.indices((48, 60))
    texture = (row * row * 7 + column * column * 13 + row * column * 5) // 8 % 48
    slopes = np.stack((3 * column + texture, 3 * row + texture, 200 - row - column), axis=-1)
    return np.where((row > column)[..., None], 255 - slopes, slopes).astype(np.uint8)


def load_codec(
    folder: str | Path = DEFAULT, coder: str | None = None, memory_gb: float = MEMORY_GB
) -> Codec:
    """The codec in a released folder (`coder` and `memory_gb`: see `Codec`).

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
        coding = config.get("coding", {})
        options = EncoderOptions.of(coding, model_config["levels"])
        weights = load_file(folder / "weights.safetensors")
        arrays = load_file(folder / "tables.safetensors")
        tables = Tables.from_arrays({k: np.asarray(v) for k, v in arrays.items()})
        # Coding computes in float32, whatever training did: see coding/agreement.py.
        model = build_model({**model_config, "dtype": "float32"})
    except Exception as error:  # each library has its own way to find a file unreadable
        raise ReleaseError(f"{folder} is damaged: {error}") from error
    params = restored_weights(weights)
    _check_shapes(model, params, folder)
    lmbdas = train["lmbdas"] if train.get("distortion") == "mse" else ()
    ident = fingerprint(model_config, weights, tables)
    return Codec(
        model,
        params,
        tables,
        ident,
        coder,
        units=coding.get("units", UNITS),
        memory_gb=memory_gb,
        lmbdas=lmbdas,
        options=options,
    )


def load_weights(folder: str | Path) -> dict[str, Any]:
    """The parameters in a released folder, float32, to go on from in training.

    Raises:
      ReleaseError: there are none.
    """
    path = Path(folder) / "weights.safetensors"
    try:
        return restored_weights(load_file(path))
    except Exception as error:  # the library has its own ways to find a file unreadable
        raise ReleaseError(
            f"No weights can be read from {path}: {error}. Name a released folder."
        ) from error


def mean_weights(*folders: str | Path) -> dict[str, Any]:
    """The mean of the parameters in released folders, float32: weights of runs with a common start
    lie in one valley, and their mean is nearer to its floor than either, since most of what is
    left of a run's steps is noise (Wortsman et al., "Model soups", ICML 2022).

    Raises:
      ReleaseError: a folder without weights, or with those of another model.
    """
    return _mean([(folder, load_weights(folder)) for folder in folders])


def _mean(of: Sequence[tuple[str | Path, dict[str, Any]]]) -> dict[str, Any]:
    """The mean of these parameters, each with the folder that it is from."""
    (first, total), *others = of
    for name, weights in others:
        if jax.tree.map(jnp.shape, weights) != jax.tree.map(jnp.shape, total):
            raise ReleaseError(
                f"The weights in {name} are of another model than those in {first}: they "
                "have no mean. Name folders of one model."
            )
        total = jax.tree.map(jnp.add, total, weights)
    return jax.tree.map(lambda p: p / len(of), total)


def effort(*folders: str | Path) -> dict[str, Any]:
    """How long the weights in a released folder were trained: `trained_steps`, `trained_hours` and
    `trained_crops`, as far as its config says, and `trained_sizes`, of the crops in pixels. Of
    several folders, that of the longest training. Empty where there is no such folder."""
    paths = [Path(folder) / "config.json" for folder in folders]
    configs = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if not configs:
        return {}
    config = max(configs, key=lambda config: config.get("trained_steps", 0))
    known = {name: config[name] for name in _EFFORT if name in config}
    return known | {"trained_sizes": config.get("trained_sizes", config["data"]["crops"])}


def stored_weights(params: Any) -> dict[str, Any]:
    """A tree of parameters as it is stored: all but small arrays are rounded."""
    weights: dict[str, Any] = {}
    for name, value in traverse_util.flatten_dict(params, sep=".").items():
        weights |= _stored(name, np.asarray(value))
    return weights


def _stored(name: str, value: np.ndarray) -> dict[str, Any]:
    """A parameter as it is stored: float32, bfloat16, or int8 and its scales, one for all inputs of
    a feature (of a convolution's feature at each position of the kernel)."""
    if value.size < _ROUNDED_FROM:
        return {name: jnp.asarray(value.astype(np.float32))}
    if value.ndim < 2 or name.startswith(_UPSAMPLING):
        return {name: jnp.asarray(value.astype(jnp.bfloat16))}  # NumPy's need not be compiled
    largest = np.abs(value).max(axis=-2, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return {
        name: jnp.asarray(np.rint(value / scale).astype(np.int8)),
        name + _SCALE: jnp.asarray(scale),
    }


def restored_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Stored weights to a tree of float32 parameters; the inverse of `stored_weights`, but for
    what it rounds."""
    flat = {}
    for name, value in weights.items():
        if not name.endswith(_SCALE):
            full = np.asarray(value).astype(np.float32)
            scale = weights.get(name + _SCALE)
            flat[name] = jnp.asarray(full if scale is None else full * np.asarray(scale))
    return traverse_util.unflatten_dict(flat, sep=".")


def _check_shapes(model: LLIC, params: Any, folder: Path) -> None:
    prior = params.get("prior", {}).get("matrix_0")
    if prior is None or prior.shape[0] != model.prior.channels:
        raise ReleaseError(f"The weights in {folder} do not belong to the model of its config.")


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def main(argv: list[str] | None = None) -> int:
    """A training run's last moving average to a released folder; or, without a run, the model card
    and the golden file of a released folder anew."""
    parser = argparse.ArgumentParser(prog="python -m llic_jax.release", description=main.__doc__)
    parser.add_argument("workdir", type=Path, nargs="?", help="the training run")
    parser.add_argument("folder", type=Path, help="the released model")
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the last)")
    parser.add_argument(
        "--mean", type=Path, nargs="+", default=[], help="released folders to take the mean with"
    )
    parser.add_argument("--summary", type=Path, help="eval.py's summary.json, for the card")
    parser.add_argument("--coder", help="of the golden file: one that every user will have")
    args = parser.parse_args(argv)
    try:
        if args.workdir is not None:
            _release(args.workdir, args.folder, args.step, args.mean)
        summary = read_summary(args.summary) if args.summary else None
        codec = complete(args.folder, summary, args.coder)
    except (LlicError, OSError) as error:
        print(f"llic_jax.release: {error}", file=sys.stderr)
        return 1
    print(f"{args.folder}: model {codec.fingerprint.hex()}")
    return 0


def _release(workdir: Path, folder: Path, step: int | None, mean: Sequence[Path] = ()) -> None:
    from llic_jax.checkpoint import Checkpoints
    from llic_jax.train_step import create_state

    config = json.loads((workdir / "config.json").read_text())
    model = build_model(config["model"])
    like, _, unravel = create_state(model, config["train"], 0)
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = checkpoints.restore(like, step)
    checkpoints.close()
    # No paths of this machine.
    for name in ("source", "validation"):
        config["data"][name] = public_source(config["data"].get(name, ""))
    starts = config["train"]["start"].split(",")
    config["train"]["start"] = ",".join(Path(start).name for start in starts)
    spent = (int(state.step), *(training_effort(workdir, int(state.step)) or ()))
    before = config.pop("started_from", dict.fromkeys(_EFFORT, 0) | {"trained_sizes": []})
    for name, value in zip(_EFFORT, spent, strict=False):
        if name in before:  # else it is not known of the whole
            config[name] = round(before[name] + value, 2)
    config["trained_sizes"] = sorted({*before["trained_sizes"], *config["data"]["crops"]})
    if mean:
        config["mean_with"] = [path.name for path in mean]
    own = workdir, unravel(jnp.asarray(state.ema))
    params = _mean([own, *((path, load_weights(path)) for path in mean)])
    save_release(folder, config, params)


if __name__ == "__main__":
    sys.exit(main())
