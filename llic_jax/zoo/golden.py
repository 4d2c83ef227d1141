"""The golden file of a released folder, and the check that the folder is complete."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from llic_jax.codec.codec import Codec
from llic_jax.coding.table_design import build_tables
from llic_jax.errors import BitstreamError, ReleaseError
from llic_jax.zoo.card import model_card
from llic_jax.zoo.folder import load_codec, write_whole


def complete(
    folder: str | Path, summary: Mapping[str, Any] | None = None, coder: str | None = None
) -> Codec:
    """Writes the card and the golden file of a folder that has the rest, and checks all of it.

    Args:
        folder: Of config, weights and tables.
        summary: An evaluation's figures, for the card.
        coder: Range coder of the golden file.

    Returns:
        The codec in the folder.

    Raises:
        ReleaseError: As `check`.
        CardError: As `model_card`.
    """
    folder = Path(folder)
    codec = load_codec(folder, coder)
    config = json.loads((folder / "config.json").read_text())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(codec.model.params))
    card = model_card(config, parameters, codec.fingerprint, summary)
    write_whole(folder / "README.md", card.encode())
    write_whole(folder / "golden.llic", codec.compress(golden_image(), strict_llic=True))
    check(folder, codec)
    return codec


def check(folder: str | Path, codec: Codec) -> None:
    """Checks that the folder of this codec is complete and that its parts go together.

    Raises:
        ReleaseError: A file is missing or damaged; the tables are not those of the weights; the
            card is another model's; or the golden file cannot be decoded.
    """
    folder = Path(folder)
    again = "`python -m llic_jax.release FOLDER` makes card and golden file anew."
    for name in ("README.md", "golden.llic"):
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder} has no {name}. {again}")
    tables = build_tables(codec.network.prior, codec.model.params["prior"], codec.network.mixture)
    rebuilt = tables.arrays()
    for name, array in codec.model.tables.arrays().items():
        # Another platform may round a probability the other way.
        if array.shape != rebuilt[name].shape or np.any(abs(array - rebuilt[name]) > 2):
            raise ReleaseError(f"The tables in {folder} ({name}) are not those of its weights.")
    if codec.fingerprint.hex() not in (folder / "README.md").read_text():
        raise ReleaseError(
            f"The card in {folder} does not name model {codec.fingerprint.hex()}. {again}"
        )
    check_golden(folder, codec)


def check_golden(folder: Path, codec: Codec, needed: bool = True) -> None:
    """Decodes the golden file of a folder.

    Args:
        folder: With the golden file.
        codec: In this folder.
        needed: Whether a folder without one is an error: the first two released models had none.

    Raises:
        ReleaseError: It is missing, or cannot be decoded.
    """
    again = "`python -m llic_jax.release FOLDER` makes card and golden file anew."
    path = folder / "golden.llic"
    if not needed and not path.is_file():
        return
    try:
        image = codec.decompress(path.read_bytes())
    except (BitstreamError, FileNotFoundError) as error:
        raise ReleaseError(f"{path} cannot be decoded: {error} {again}") from error
    if image.shape != golden_image().shape:
        raise ReleaseError(
            f"{path} holds an image {image.shape}, expected {golden_image().shape}. {again}"
        )


def golden_image() -> UInt8[np.ndarray, "48 60 3"]:
    """The test image: slopes, an edge and texture, in integers, the same on every machine."""
    row, column = np.indices((48, 60))
    texture = (row * row * 7 + column * column * 13 + row * column * 5) // 8 % 48
    slopes = np.stack((3 * column + texture, 3 * row + texture, 200 - row - column), axis=-1)
    return np.where((row > column)[..., None], 255 - slopes, slopes).astype(np.uint8)
