"""Which systems are measured, and at which qualities."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from llic_jax.evaluation import baselines
from llic_jax.evaluation.llic_system import released_systems
from llic_jax.evaluation.system import CodecUnderTest, Quality


@dataclasses.dataclass(frozen=True)
class Trial:
    """A codec and the qualities at which it is measured.

    Attributes:
      system: The codec.
      qualities: Of its own scale.
    """

    system: CodecUnderTest
    qualities: tuple[Quality, ...]


def trials(
    checkpoints: Sequence[str | Path],
    qualities: Sequence[float] | None = None,
    coder: str | None = None,
    refinements: Sequence[int] = (0,),
    codecs: Sequence[str] | None = None,
) -> list[Trial]:
    """Plans what is measured: released models, then other codecs.

    Args:
      checkpoints: Released folders.
      qualities: Of the models with several levels (default: every level).
      coder: Range coder (default: the first that is installed).
      refinements: Gradient steps; each number makes curves of its own.
      codecs: Names of the codecs to compare with (see `baselines.by_names`). None: all.

    Returns:
      The trials, those of the models first.

    Raises:
      ReleaseError: A folder is no released model.
      TrialError: Two folders cannot be told apart.
      BaselineError: A codec's name is not known, or its library is not installed.
    """
    others = baselines.by_names(list(codecs) if codecs is not None else None)
    for other in others:
        _ = other.version  # a library that is missing is named before anything is measured
    systems = released_systems(checkpoints, coder, refinements)
    planned = [Trial(system, tuple(system.qualities(qualities))) for system in systems]
    # One that is named twice counts once.
    return planned + [Trial(other, other.qualities) for other in dict.fromkeys(others)]
