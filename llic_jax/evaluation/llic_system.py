"""LLIC as a system that is measured like every other codec."""

import collections
import dataclasses
import functools
import json
import tempfile
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llic_jax.codec.codec import Codec
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality as AtQuality
from llic_jax.configs.upgrade import upgrade
from llic_jax.errors import TrialError
from llic_jax.evaluation import baselines
from llic_jax.evaluation.image_sets import default_name
from llic_jax.evaluation.system import Image, Measurement, Quality
from llic_jax.zoo.folder import load_codec


class ReleasedModel:
    """The codec in a released folder, loaded when it is first needed; its programs are its own.

    Pickles as its folder's name, so that every process loads it once.

    Args:
      folder: The released folder.
      coder: Range coder (default: the first that is installed).
    """

    def __init__(self, folder: Path, coder: str | None = None):
        self.folder, self.coder = folder, coder
        self._compiled: set[tuple[int, int, bool]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return ReleasedModel, (self.folder, self.coder)

    @functools.cached_property
    def codec(self) -> Codec:
        """The folder's codec, loaded once."""
        return load_codec(self.folder, self.coder)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config that was released with the weights, with every field of today."""
        return upgrade(json.loads((self.folder / "config.json").read_text()))

    def compile(self, height: int, width: int, refined: bool) -> None:
        """Codes an image of a size once, so that times are those of compiled programs.

        Args:
            height: Pixels.
            width: Pixels.
            refined: Also compiles the refinement of latents.
        """
        if (height, width, refined) not in self._compiled:
            black = np.zeros((height, width, 3), np.uint8)
            (encoded,) = self.codec.encode([black], refinement=Refinement(int(refined)))
            self.codec.decode([encoded.data])
            self._compiled.add((height, width, refined))


@dataclasses.dataclass(frozen=True)
class LlicSystem:
    """A released folder as a codec under test.

    Attributes:
      folder: The released folder.
      coder: Range coder (default: the first that is installed).
      label: Stands for the folder (default: its name).
      curve: Name of the curve (default: the label). Models of one rate each make one together.
      refinement: Gradient steps on the latents of each image (see `codec/refinement.py`).
      separate: See `system.CodecUnderTest`.
      model: The folder's codec; given where several systems share it.
    """

    folder: Path
    coder: str | None = None
    label: str | None = None
    curve: str | None = None
    refinement: int = 0
    separate: bool = False
    model: ReleasedModel = dataclasses.field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.model is None:
            object.__setattr__(self, "model", ReleasedModel(self.folder, self.coder))

    @property
    def codec(self) -> Codec:
        """The folder's codec."""
        return self.model.codec

    @property
    def name(self) -> str:
        """The name of its curve."""
        name = self.curve or self.label or default_name(self.folder)
        return f"{name}, effort {self.refinement}" if self.refinement else name

    @property
    def model_config(self) -> dict[str, Any]:
        """The model's section of the config (see llic_jax/configs/default.py)."""
        return self.model.config["model"]

    @property
    def version(self) -> str:
        """The model, the range coder and JAX's version, as one line."""
        codec = self.codec
        return f"model {codec.fingerprint.hex()}, coder {codec.coder}, jax {jax.__version__}"

    def setting(self, quality: Quality) -> str:
        """A quality in words, for results.

        Args:
            quality: None for a model of one rate.
        """
        return (
            self.label or default_name(self.folder) if quality is None else f"quality {quality:g}"
        )

    def qualities(self, chosen: Sequence[float] | None) -> list[Quality]:
        """Lists the qualities to measure.

        Args:
          chosen: Some qualities; of equal ones the first counts. None: every level.

        Returns:
          The qualities; [None] for a model of one rate.

        Raises:
          TrialError: The model has no such quality.
        """
        levels = self.codec.network.levels
        if levels == 1:
            return [None]
        for quality in chosen or ():
            if not 1 <= quality <= levels:
                raise TrialError(f"--quality {quality:g}: {self.name} has qualities 1 to {levels}.")
        qualities = map(float, chosen or range(1, levels + 1))
        return list({self.setting(quality): quality for quality in qualities}.values())

    def code(self, image: Image, quality: Quality) -> Measurement:
        """Codes an image into a real file and decodes that; see `CodecUnderTest.code`.

        Args:
            image: uint8 `(H, W, 3)`.
            quality: None for a model of one rate.
        """
        codec, (height, width) = self.codec, image.shape[:2]
        self.model.compile(height, width, refined=self.refinement > 0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.llic"
            (encoded,) = codec.encode([image], AtQuality(quality), Refinement(self.refinement))
            path.write_bytes(encoded.data)
            data = path.read_bytes()
        (decoded,) = codec.decode([data])
        return Measurement(
            bytes=len(data),
            image=decoded.image,
            encode_seconds=encoded.seconds,
            decode_seconds=decoded.seconds,
            encode_network_seconds=encoded.network_seconds,
            decode_network_seconds=decoded.network_seconds,
            bits=encoded.bits,
            identical=np.array_equal(decoded.image, codec.reconstruct(encoded)),
        )


def released_systems(
    folders: Sequence[str | Path], coder: str | None = None, refinements: Sequence[int] = (0,)
) -> list[LlicSystem]:
    """Loads released folders as codecs under test.

    Models of one rate and of equal shape make one curve together. A folder whose name another
    folder or a baseline has as well is named with its model's fingerprint.

    Args:
      folders: Released folders; one that is named twice counts once.
      coder: Range coder (default: the first that is installed).
      refinements: Gradient steps; each number makes curves of its own.

    Returns:
      The systems of the first number of steps, then those of the next.

    Raises:
      ReleaseError: A folder is no released model.
      TrialError: Two folders of one name hold the same model.
    """
    distinct = {Path(folder).resolve(): Path(folder) for folder in folders}
    systems = _labelled([LlicSystem(folder, coder) for folder in distinct.values()])
    groups: dict[str, list[LlicSystem]] = {}
    for system in systems:
        if system.codec.network.levels == 1:
            groups.setdefault(json.dumps(system.model_config), []).append(system)
    curves: dict[Path, str] = {}
    taken = {system.name for system in systems} | set(baselines.FORMATS)
    for group in groups.values():
        if len(group) > 1:
            curve = _common_name([default_name(system.folder) for system in group])
            if curve in taken:
                curve = f"{curve} ({_fingerprint(group[0])})"
            taken.add(curve)
            curves.update({system.folder: curve for system in group})
    return [
        dataclasses.replace(system, curve=curves.get(system.folder), refinement=steps)
        for steps in refinements
        for system in systems
    ]


def _labelled(systems: Sequence[LlicSystem]) -> list[LlicSystem]:
    """The systems with distinct labels: names of folders where these are."""
    names = collections.Counter([*baselines.FORMATS, *(default_name(s.folder) for s in systems)])
    labelled: dict[str, LlicSystem] = {}
    for system in systems:
        label = default_name(system.folder)
        if names[label] > 1:
            label = f"{label} ({_fingerprint(system)})"
        if label in labelled:
            raise TrialError(
                f"{labelled[label].folder} and {system.folder} hold the same model "
                f"({_fingerprint(system)}) and have the same name: their figures could not be told "
                "apart. Name one of them, or rename a folder."
            )
        labelled[label] = dataclasses.replace(system, label=label)
    return list(labelled.values())


def _fingerprint(system: LlicSystem) -> str:
    return system.codec.fingerprint.hex()


def _common_name(names: Sequence[str]) -> str:
    """What names begin with, character by character: llic_0067 and llic_0130 become llic."""
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    return "".join(column[0] for column in columns).rstrip("_-.0123456789") or "LLIC"
