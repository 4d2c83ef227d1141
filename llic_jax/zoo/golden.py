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

    summary: an evaluation's figures, for the card. coder: range coder of the golden file.

    Raises:
      ReleaseError: as `check`. CardError: as `model_card`.
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
      ReleaseError: a file is missing or damaged; the tables are not those of the weights; the card
        is another model's; or the golden file cannot be decoded.
    """
    folder = Path(folder)
    again = "`python -m llic_jax.release FOLDER` makes card and golden file anew."
    for name in ("README.md", "golden.llic"):
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder} has no {name}. {again}")
    tables = build_tables(codec.network.prior, codec.model.params["prior"], codec.options.mixture)
    rebuilt = tables.arrays()
    for name, array in codec.model.tables.arrays().items():
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
