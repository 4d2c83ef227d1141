"""`model.json`: what an installed model is called, and how its files are checked.

Loads neither JAX nor NumPy. A folder that a training run was released into has no manifest: its
fingerprint is computed from its files.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llic_jax.bitstream.file import FINGERPRINT_BYTES
from llic_jax.errors import ReleaseError
from llic_jax.system.files import file_hash, whole_file
from llic_jax.zoo.registry import MANIFEST

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "I8": "int8", "I32": "int32"}


class Manifest(NamedTuple):
    """The content of `model.json`.

    Attributes:
        name: Of the model.
        fingerprint: Of the whole model, as it was released; hexadecimal digits.
        decoder_only: Whether only the decoder's half of the weights is there.
        sha256: File name to SHA-256. Only where the fingerprint cannot be computed anew.
    """

    name: str
    fingerprint: str
    decoder_only: bool = False
    sha256: Mapping[str, str] = {}


def read_manifest(folder: Path) -> Manifest | None:
    """Reads a folder's manifest; None if it has none.

    Raises:
        ReleaseError: The manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = Manifest(**json.loads(path.read_text(encoding="utf-8")))
        bytes.fromhex(manifest.fingerprint)
        if not manifest.name or (manifest.decoder_only and not manifest.sha256):
            raise ValueError("it lacks a name or the files' hashes")
    except (ValueError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged: {error}. Get the folder anew.") from error
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a folder's manifest."""
    content = {key: value for key, value in manifest._asdict().items() if value}
    with whole_file(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_content(folder: Path, manifest: Manifest) -> None:
    """Compares the files of a folder with the hashes in its manifest.

    Raises:
        ReleaseError: A file is missing or has changed.
    """
    for name, expected in manifest.sha256.items():
        path = folder / name
        if not path.is_file():
            raise ReleaseError(f"{folder} is no whole model: {name} not found. Get it anew.")
        if file_hash(path) != expected:
            raise ReleaseError(
                f"{path} is damaged: its SHA-256 is not that of {manifest.name}. Get it anew."
            )


def read_fingerprint(folder: Path) -> str:
    """Computes the fingerprint of a whole folder from its files, without loading the model.

    Returns:
        That of `zoo.folder.fingerprint`, in hexadecimal digits.

    Raises:
        ReleaseError: A file is damaged.
    """
    try:
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]
        arrays: dict[str, tuple[str, bytes]] = {}
        for name in ("weights.safetensors", "tables.safetensors"):
            arrays |= _arrays((folder / name).read_bytes())
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ReleaseError(f"{folder} is damaged: {error!r}. Get it anew.") from error
    digest = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
    for _, (description, content) in sorted(arrays.items()):
        digest.update(description.encode())
        digest.update(content)
    return digest.digest()[:FINGERPRINT_BYTES].hex()


def _arrays(data: bytes) -> dict[str, tuple[str, bytes]]:
    """Name to description ("name dtype shape") and content of each array in a safetensors file."""
    (length,) = struct.unpack_from("<Q", data)
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        shape, dtype = tuple(entry["shape"]), _DTYPES[entry["dtype"]]
        if end > len(data) or end - start < math.prod(shape):
            raise ValueError(f"array {name} ends behind the file")
        arrays[name] = (f"{name} {dtype} {shape}", data[start:end])
    return arrays
