"""A training run in a small form, to carry it to another machine and go on there.

    python -m llic_jax.training.transfer pack RUN FOLDER --piece_mb 15
    python -m llic_jax.training.transfer unpack FOLDER RUN

The last checkpoint's arrays are rounded and cut into pieces. `manifest.json` has the run's config,
the step, what is in the pieces, and SHA-256 of every piece. The room decides how much is carried:

    full       all arrays in bfloat16: a quarter of a checkpoint's size. Rounding makes the run that
               goes on another one, though as good as equal.
    average    the moving average in bfloat16; the run goes on from it, with a fresh optimizer
    released   the moving average as a released folder stores it, mostly in 8 bits; likewise
"""

import argparse
import dataclasses
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import load, load_file, save

from llic_jax.configs.config import Config
from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import CheckpointError
from llic_jax.models.build import build_model
from llic_jax.system.arguments import above_zero
from llic_jax.system.streams import run_command
from llic_jax.training.checkpoints import Checkpoints
from llic_jax.training.settings import TrainSettings
from llic_jax.training.state import TrainState, create_state, flatten, new_state, unflatten
from llic_jax.zoo.weights import restored_weights, stored_weights

FORMS = FULL, AVERAGE, RELEASED = "full", "average", "released"
_MANIFEST = "manifest.json"
_EMA = "ema"
_HEADER = 200  # bytes that an array's name, type and shape take, at most
_HISTORY = ("metrics.jsonl", "runs.jsonl", "held_back.json")


def pack(
    run: str | Path, folder: str | Path, piece_bytes: int, limit_bytes: int | None = None
) -> list[Path]:
    """Writes the last checkpoint of a run as pieces.

    Args:
        run: Its folder.
        folder: A new or empty one.
        piece_bytes: Of a piece, at most.
        limit_bytes: Of all pieces; without it everything is carried ("full").

    Returns:
        The files.

    Raises:
        CheckpointError: There is no run, or `folder` is not empty.
    """
    run, folder = Path(run), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; name a new folder.")
    try:
        config = json.loads((run / "config.json").read_text())
    except OSError as error:
        raise CheckpointError(f"{run} is no training run: {error}") from error
    checkpoints = Checkpoints(run / "checkpoints")
    state = checkpoints.restore(_like(config))
    checkpoints.close()
    return write_pieces(run, config, state, folder, piece_bytes, limit_bytes)


def write_pieces(
    run: Path,
    config: Config,
    state: TrainState,
    folder: Path,
    piece_bytes: int,
    limit_bytes: int | None = None,
    stem: str = "state",
) -> list[Path]:
    """Writes a state of a run as `pack` does, in the form that carries most of those that fit.

    Args:
        run: The folder of the run, for its history.
        config: Of the run.
        state: Of one device, NumPy arrays.
        folder: Made if need be.
        piece_bytes: Of a piece, at most.
        limit_bytes: Of all pieces.
        stem: What the names of the pieces begin with.

    Returns:
        The files.

    Raises:
        CheckpointError: No form fits.
    """
    for form in FORMS:
        arrays = _arrays(form, config, state)
        size = sum(array.nbytes for array in arrays.values()) + _HEADER * (1 + len(arrays))
        if limit_bytes is None or size <= limit_bytes:
            break
    else:
        raise CheckpointError(
            f"The smallest form takes {size} bytes, and the limit is {limit_bytes}."
        )
    data = save(arrays)
    pieces = [data[i : i + piece_bytes] for i in range(0, len(data), piece_bytes)]
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for i, piece in enumerate(pieces):
        name = f"{stem}.{i:03d}"
        (folder / name).write_bytes(piece)
        digests[name] = hashlib.sha256(piece).hexdigest()
    manifest = {"step": int(state.step), "form": form, "pieces": digests, "config": config}
    for name in _HISTORY:  # the run's history goes with it
        if (run / name).exists():
            shutil.copy(run / name, folder / name)
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return sorted(folder.iterdir())


def unpack(folder: str | Path, run: str | Path) -> int:
    """Makes a run of what `pack` wrote.

    Args:
        folder: With the pieces.
        run: The run's folder, made if need be.

    Returns:
        The step that it goes on from.

    Raises:
        CheckpointError: A piece is missing or damaged, or `run` has checkpoints already.
    """
    folder, run = Path(folder), Path(run)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"No packed run in {folder}: {error}") from error
    if (run / "checkpoints").exists():
        raise CheckpointError(f"{run} holds a run already; name a new folder.")
    data = bytearray()
    for name, digest in manifest["pieces"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing; the packed run has {list(manifest['pieces'])}."
            )
        piece = path.read_bytes()
        if hashlib.sha256(piece).hexdigest() != digest:
            raise CheckpointError(f"{path} is damaged (its SHA-256 is another); copy it anew.")
        data += piece
    form = manifest.get("form", "full")
    arrays = _released_arrays(data) if form == RELEASED else load(bytes(data))
    state = _state(form, manifest["config"], arrays, manifest["step"])
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(manifest["config"], indent=2) + "\n")
    for name in _HISTORY:
        if (folder / name).exists():
            shutil.copy(folder / name, run / name)
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(manifest["step"], state)
    checkpoints.close()
    return manifest["step"]


def _released_arrays(data: bytes | bytearray) -> dict[str, Any]:
    """Arrays with bfloat16 among them, which safetensors reads from files alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        path.write_bytes(data)
        return load_file(path)


def _like(config: Config) -> TrainState:
    return _create(config)[0]


def _create(config: Config) -> Any:
    return create_state(build_model(upgrade(config)["model"]), TrainSettings.of(config), 0)


def _arrays(form: str, config: Config, state: TrainState) -> dict[str, np.ndarray]:
    """The arrays that a form carries of a state, by name."""
    if form == FULL:
        return {name: _narrow(leaf) for name, leaf in _named(state).items()}
    if form == AVERAGE:
        return {_EMA: _narrow(state.ema)}
    unravel = _create(config)[2]
    stored = stored_weights(unflatten(state.ema, unravel))
    return {name: np.asarray(a) for name, a in stored.items()}


def _state(form: str, config: Config, arrays: dict[str, np.ndarray], step: int) -> TrainState:
    """The state to go on from; the inverse of `_arrays`, but for what was left out there."""
    like, optimizer, _ = _create(config)
    if form == FULL:
        leaves = [_widen(arrays[name], leaf) for name, leaf in _named(like).items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)
    if form == AVERAGE:
        average = jnp.asarray(_widen(arrays[_EMA], like.ema))
    else:
        average = flatten(restored_weights(arrays))[0]
    state = new_state(average, optimizer)
    return dataclasses.replace(state, step=np.asarray(step, np.int32))


def _named(state: TrainState) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }


def _narrow(leaf: Any) -> np.ndarray:
    """float32 to the bits of bfloat16; anything else stays."""
    leaf = np.asarray(leaf)
    return leaf.astype(ml_dtypes.bfloat16).view(np.uint16) if leaf.dtype == np.float32 else leaf


def _widen(leaf: np.ndarray, like: Any) -> np.ndarray:
    """The inverse of `_narrow`."""
    narrow = np.asarray(like).dtype == np.float32
    return leaf.view(ml_dtypes.bfloat16).astype(np.float32) if narrow else leaf


def main(argv: list[str] | None = None) -> int:
    """Packs or unpacks a run.

    Args:
        argv: The command line; that of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m llic_jax.training.transfer", description="Carries a training run elsewhere."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="RUN to pieces in FOLDER")
    packing.add_argument("run", type=Path)
    packing.add_argument("folder", type=Path)
    packing.add_argument("--piece_mb", type=above_zero, default=15, help="megabytes, at most")
    packing.add_argument(
        "--limit_mb", type=above_zero, help="of all pieces; less is carried if need be"
    )
    unpacking = commands.add_parser("unpack", help="pieces in FOLDER to a new RUN")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("run", type=Path)
    args = parser.parse_args(argv)

    def work() -> None:
        if args.command == "pack":
            limit = int(args.limit_mb * 1e6) if args.limit_mb else None
            files = pack(args.run, args.folder, int(args.piece_mb * 1e6), limit)
            size = sum(file.stat().st_size for file in files) / 1e6
            print(f"{len(files)} files, {size:.1f} MB in {args.folder}")
        else:
            print(f"{args.run}: step {unpack(args.folder, args.run)}")

    return run_command("llic_jax.training.transfer", work)


if __name__ == "__main__":
    sys.exit(main())
