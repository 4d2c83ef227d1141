"""The models that are installed here, by name and by fingerprint. Loads neither JAX nor NumPy."""

import os
from pathlib import Path
from typing import NamedTuple

from llic_jax.errors import RegistryError, ReleaseError, UnknownModelError
from llic_jax.zoo.manifest import read_fingerprint, read_manifest
from llic_jax.zoo.registry import model_folders, name_of, registry


class InstalledModel(NamedTuple):
    """A model in a folder.

    Attributes:
        name: Its released name; the folder's name where it was never released.
        fingerprint: Hexadecimal digits.
        folder: With config, weights and tables.
        decoder_only: Whether it can only decode.
    """

    name: str
    fingerprint: str
    folder: Path
    decoder_only: bool


def describe_folder(folder: Path) -> InstalledModel:
    """Reads name and fingerprint of the model in a folder.

    Raises:
        ReleaseError: A file is damaged.
        OSError: A file is missing or cannot be read.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return InstalledModel(manifest.name, manifest.fingerprint, folder, manifest.decoder_only)
    fingerprint = read_fingerprint(folder)
    return InstalledModel(name_of(fingerprint) or folder.name, fingerprint, folder, False)


def installed_models() -> tuple[list[InstalledModel], list[str]]:
    """Finds all installed models.

    Returns:
        The models, in the order of `model_folders`; and the errors of folders that are damaged.
    """
    models, problems = [], []
    for folder in model_folders():
        try:
            models.append(describe_folder(folder))
        except (ReleaseError, OSError) as error:
            problems.append(str(error))
    return models, problems


def folder_of(model: str | Path) -> Path:
    """The folder of a model that is given by name or by folder.

    Args:
        model: A path; or a text, which is a name if it has no slash and such a model is installed
            or was released, and a path otherwise.

    Raises:
        RegistryError: A released model that is not installed; two models of one name.
    """
    if isinstance(model, Path) or os.sep in model or "/" in model:
        return Path(model).expanduser()
    models, problems = installed_models()
    of_name = [installed for installed in models if installed.name == model]
    if len({installed.fingerprint for installed in of_name}) > 1:
        listed = "; ".join(f"{m.folder} (model {m.fingerprint})" for m in of_name)
        raise RegistryError(
            f"Two installed models are named {model}: {listed}. Remove one, or name a folder."
        )
    if of_name:
        return min(of_name, key=lambda installed: installed.decoder_only).folder
    if registry().named(model) is not None:
        raise RegistryError(f"The model {model} is not installed. {remedy(model)}")
    if Path(model).exists():
        return Path(model)
    known = ", ".join(dict.fromkeys(installed.name for installed in models))
    damaged = "".join(f" {problem}" for problem in problems)
    raise RegistryError(
        f"No model is named {model!r}, and no folder. Installed are {known}. "
        f"`llic models` lists them.{damaged}"
    )


def model_of_file(fingerprint: str) -> InstalledModel:
    """The installed model that wrote a file; a whole one rather than a decoder's half.

    Args:
        fingerprint: The file's, in hexadecimal digits.

    Raises:
        UnknownModelError: It is not installed; the message says how to get it.
    """
    models, problems = installed_models()
    fitting = [model for model in models if model.fingerprint == fingerprint]
    if fitting:
        return min(fitting, key=lambda model: model.decoder_only)
    damaged = "".join(f" {problem}" for problem in problems)
    if name := name_of(fingerprint):
        raise UnknownModelError(
            f"The file was written with the model {name} ({fingerprint}), which is not installed. "
            f"{remedy(name)}{damaged}"
        )
    raise UnknownModelError(
        f"The file was written with the model {fingerprint}, which is neither installed nor among "
        f"the {len(registry().models)} models released up to this version. Install a newer "
        "llic_jax, or get the model's folder from whoever wrote the file: `llic models add FOLDER` "
        f"installs it, --checkpoint FOLDER uses it once.{damaged}"
    )


def remedy(name: str) -> str:
    """How to get a released model back, as the end of an error.

    Args:
        name: Of the model.
    """
    return (
        f"`llic models restore {name} --from CLONE` puts it back, where CLONE is a git clone of "
        "llic_jax's repository with its history."
    )
