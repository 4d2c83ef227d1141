"""Puts models into the user's folder: from a folder, or back from the repository's history."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from safetensors.numpy import load_file, save

from llic_jax.errors import RegistryError, ReleaseError
from llic_jax.system.files import file_hash
from llic_jax.zoo.folder import FILES, load_codec
from llic_jax.zoo.golden import check_golden
from llic_jax.zoo.installed import InstalledModel, describe_folder, installed_models
from llic_jax.zoo.manifest import Manifest, write_manifest
from llic_jax.zoo.registry import name_of, registry, user_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENCODER_PARTS = ("g_a", "h_a")


def add_model(
    folder: str | Path, name: str | None = None, parent: Path | None = None
) -> InstalledModel:
    """Installs the model in a folder: checks it, then copies it whole or not at all.

    Args:
        folder: A released folder.
        name: Of a model that was never released; the folder's name by default.
        parent: Where models are installed; the user's data folder by default.

    Returns:
        The installed model. Nothing is copied if it is installed already.

    Raises:
        RegistryError: A name that cannot be, or that another model has.
        LlicError: As `load_codec`; a golden file that does not decode.
    """
    folder, parent = Path(folder), parent or user_folder()
    codec = load_codec(folder)
    model = describe_folder(folder)
    released = name_of(model.fingerprint)
    if released and name not in (None, released):
        raise RegistryError(f"This model was released as {released}; leave --name out.")
    model = model._replace(name=released or name or model.name)
    _check_name(model)
    models, _ = installed_models()
    for other in models:
        if other.fingerprint == model.fingerprint and other.decoder_only <= model.decoder_only:
            return other
    check_golden(folder, codec, needed=False)
    target = parent / model.name
    parent.mkdir(parents=True, exist_ok=True)
    # On the same file system, so that the last step is one rename.
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=parent) as work:
        copy = Path(work) / "model"
        copy.mkdir()
        for file in (*FILES, "README.md", "golden.llic"):
            if (folder / file).is_file():
                shutil.copyfile(folder / file, copy / file)
        hashes = {p.name: file_hash(p) for p in copy.iterdir()} if model.decoder_only else {}
        write_manifest(copy, Manifest(model.name, model.fingerprint, model.decoder_only, hashes))
        if target.exists():  # the decoder's half of the same model
            target.rename(Path(work) / "before")
        copy.rename(target)
    return model._replace(folder=target)


def _check_name(model: InstalledModel) -> None:
    """Refuses a name that cannot be a folder's, or that another model has."""
    if not _NAME.fullmatch(model.name):
        raise RegistryError(
            f"{model.name!r} cannot be a model's name; expected letters, digits, dots, "
            "underscores and hyphens. Give one with --name."
        )
    reserved = registry().named(model.name)
    if reserved is not None and reserved.fingerprint != model.fingerprint:
        raise RegistryError(
            f"{model.name} is the name of the released model {reserved.fingerprint}; this folder "
            f"holds {model.fingerprint}. Give another with --name."
        )
    for other in installed_models()[0]:
        if other.name == model.name and other.fingerprint != model.fingerprint:
            raise RegistryError(
                f"A model {model.name} ({other.fingerprint}) is installed in {other.folder}; this "
                f"folder holds {model.fingerprint}. Give another with --name."
            )


def restore_model(name: str, clone: str | Path, parent: Path | None = None) -> InstalledModel:
    """Puts a released model back from the history of a clone of the project's repository.

    Args:
        name: Of a released model.
        clone: A git clone that has the model's commit.
        parent: As for `add_model`.

    Raises:
        RegistryError: No model of this name was ever released.
        ReleaseError: The clone has not got the model, or what it has is another.
        LlicError: As `add_model`.
    """
    model = registry().named(name)
    if model is None:
        names = ", ".join(known.name for known in registry().models)
        raise RegistryError(f"No model {name!r} was ever released. Known are {names}.")
    with tempfile.TemporaryDirectory(prefix="llic-restore-") as work:
        folder = Path(work) / name
        folder.mkdir()
        for file in (*FILES, "README.md", "golden.llic"):
            content = _show(clone, f"{model.commit}:{model.folder}/{file}")
            if content is not None:
                (folder / file).write_bytes(content)
        if not all((folder / file).is_file() for file in FILES):
            raise ReleaseError(
                f"{clone} has no commit {model.commit[:12]} with the model {name}. It must be a "
                "git clone of llic_jax's repository with its history: `git fetch --unshallow` "
                "completes a shallow one."
            )
        found = describe_folder(folder).fingerprint
        if found != model.fingerprint:
            raise ReleaseError(
                f"{clone} holds the model {found} in commit {model.commit[:12]}, expected "
                f"{model.fingerprint}. Take another clone."
            )
        return add_model(folder, parent=parent)


def _show(clone: str | Path, what: str) -> bytes | None:
    """The content of a file in a repository's history; None if it is not there."""
    try:
        done = subprocess.run(["git", "-C", str(clone), "show", what], capture_output=True)
    except FileNotFoundError as error:
        raise ReleaseError("git is not installed; it is needed to read a clone.") from error
    return done.stdout if done.returncode == 0 else None


def write_decoder_half(folder: str | Path, target: str | Path) -> None:
    """Writes what decoding takes of a whole model; it keeps the whole model's fingerprint.

    Left out are the weights of `g_a` and `h_a`, a third of the small models'.

    Args:
        folder: Of the whole model.
        target: Is made.

    Raises:
        ReleaseError: The folder holds a decoder's half already.
        LlicError: As `load_codec`; a golden file that does not decode.
    """
    folder, target = Path(folder), Path(target)
    model = describe_folder(folder)
    if model.decoder_only:
        raise ReleaseError(f"{folder} holds a decoder's half already.")
    check_golden(folder, load_codec(folder))
    target.mkdir(parents=True)
    weights = load_file(folder / "weights.safetensors")
    kept = {k: v for k, v in weights.items() if k.split(".")[0] not in _ENCODER_PARTS}
    (target / "weights.safetensors").write_bytes(save(kept))
    for file in ("config.json", "tables.safetensors", "README.md", "golden.llic"):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, target / file)
    hashes = {path.name: file_hash(path) for path in sorted(target.iterdir())}
    write_manifest(target, Manifest(model.name, model.fingerprint, True, hashes))
    check_golden(target, load_codec(target))
