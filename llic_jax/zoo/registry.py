"""The models that were ever released, and the folders in which models are installed.

A released model has a name with a number (`llic-elic-small-11`) and a fingerprint, and never
changes again; retrained weights get a new number. `registry.json` lists all of them, with the
commit that holds each. Loads neither JAX nor NumPy.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from llic_jax.bitstream.file import FINGERPRINT_BYTES
from llic_jax.errors import RegistryError

REGISTRY = Path(__file__).with_name("registry.json")
PACKAGED = Path(__file__).parents[1] / "released"
MANIFEST = "model.json"


class ReleasedModel(NamedTuple):
    """One entry of the registry.

    Attributes:
        name: With its number.
        fingerprint: Of config, weights and tables, in hexadecimal digits.
        commit: Of the project's repository; holds the model's folder.
        folder: Of the model in that commit.
        date: Of the release, YYYY-MM-DD.
        steps: Of training.
        parameters: Their number.
        qualities: Number of quality levels.
        kodak_bpp: Mean bits per pixel on Kodak at each level; None where it was not measured.
        bd_rate_over_vtm: BD-rate over the published VTM-17.0 on Kodak, percent; None where it was
            not measured.
    """

    name: str
    fingerprint: str
    commit: str
    folder: str
    date: str
    steps: int
    parameters: int
    qualities: int
    kodak_bpp: list[float] | None
    bd_rate_over_vtm: float | None


class Registry(NamedTuple):
    """All released models.

    Attributes:
        models: In the order of their release.
        recommended: Name of the one that files are written with.
    """

    models: tuple[ReleasedModel, ...]
    recommended: str

    def named(self, name: str) -> ReleasedModel | None:
        """The model of this name, if there is one."""
        return next((model for model in self.models if model.name == name), None)

    def with_fingerprint(self, fingerprint: str) -> ReleasedModel | None:
        """The model of this fingerprint, if there is one."""
        return next((model for model in self.models if model.fingerprint == fingerprint), None)


@functools.cache
def registry() -> Registry:
    """The package's own registry.

    Raises:
        RegistryError: As `read_registry`.
    """
    return read_registry(REGISTRY)


def read_registry(path: Path) -> Registry:
    """Reads a registry and checks every entry.

    Args:
        path: Of the JSON file.

    Raises:
        RegistryError: The file is missing or damaged; the message names the entry.
    """
    remedy = "Install llic_jax anew."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recommended, entries = content["recommended"], list(content["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(
            f"The list of released models, {path}, cannot be read: {error!r}. {remedy}"
        ) from error
    models: list[ReleasedModel] = []
    for number, entry in enumerate(entries, 1):
        if (wrong := _wrong(entry)) is not None:
            raise RegistryError(f"Entry {number} of {path} is damaged: {wrong}. {remedy}")
        model = ReleasedModel(**entry)
        for field in ("name", "fingerprint"):
            if any(getattr(model, field) == getattr(other, field) for other in models):
                raise RegistryError(
                    f"Entry {number} of {path} is damaged: its {field}, {getattr(model, field)}, "
                    f"is that of another entry. {remedy}"
                )
        models.append(model)
    found = Registry(tuple(models), recommended)
    if found.named(recommended) is None:
        raise RegistryError(
            f"{path} recommends {recommended!r}, which is none of its models. {remedy}"
        )
    return found


def _wrong(entry: Any) -> str | None:
    """What is wrong with an entry, or None."""
    if not isinstance(entry, dict) or set(entry) != set(ReleasedModel._fields):
        return f"expected an object with the fields {', '.join(ReleasedModel._fields)}"
    for field, kind in ReleasedModel.__annotations__.items():
        if kind in (str, int) and not isinstance(entry[field], kind):
            return f"its {field} is {entry[field]!r}, expected {kind.__name__}"
    for field, digits in (("fingerprint", 2 * FINGERPRINT_BYTES), ("commit", 40)):
        text = entry[field]
        if len(text) != digits or set(text) - set("0123456789abcdef"):
            return f"its {field} is {text!r}, expected {digits} hexadecimal digits"
    rates = entry["kodak_bpp"]
    if rates is not None and (not isinstance(rates, list) or len(rates) != entry["qualities"]):
        return f"its kodak_bpp is {rates!r}, expected null or {entry['qualities']} numbers"
    return None


def user_folder() -> Path:
    """Where `llic models add` puts models: the user's data folder."""
    from platformdirs import user_data_path  # which carried runs (`accelerate.py`) go without

    return user_data_path("llic_jax", appauthor=False) / "models"


def model_folders() -> list[Path]:
    """Every folder that may hold an installed model, in the order in which they are searched.

    The package's own models come first, then those of `LLIC_MODELS` (paths as in `PATH`, each a
    model or a folder of models), then those of the user's data folder.
    """
    parents = [PACKAGED]
    listed = os.environ.get("LLIC_MODELS", "").split(os.pathsep)
    parents += [Path(path).expanduser() for path in listed if path]
    parents.append(user_folder())
    folders: list[Path] = []
    for parent in parents:
        if (parent / "config.json").is_file():
            folders.append(parent)
        elif parent.is_dir():
            # A leading dot: a model that is being written.
            inside = [p for p in sorted(parent.iterdir()) if not p.name.startswith(".")]
            folders += [p for p in inside if (p / "config.json").is_file()]
    return list(dict.fromkeys(folders))


def name_of(fingerprint: str) -> str:
    """The released name that belongs to a fingerprint; empty if it is not known."""
    model = registry().with_fingerprint(fingerprint)
    return model.name if model else ""
