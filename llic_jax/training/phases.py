"""Phases of training: which parameters learn, and which are frozen."""

import enum
from collections.abc import Sequence
from typing import Any

from llic_jax.training.settings import TrainSettings

TRANSFORMS = ("g_a", "g_s", "gain_y")  # frozen while the entropy model trains alone
ANALYSIS = ("g_a", "h_a", "log_gain")  # frozen while the decoder's side trains alone


class Phase(enum.Enum):
    """Which parameters learn in a step.

    ENTROPY_MODEL: Hyperprior and entropy model, from the rate alone (our choice). A third of the
        work: nothing is synthesized, and nothing is differentiated in the transforms.
    ALL: All parameters, with noise in place of rounding (paper).
    DECODER: Entropy model, h_s, g_s and inverse gains, from the quantized symbols. Without noise
        the loss is that of the files; rounding has no gradient, so the analysis is frozen (Guo et
        al., "Soft then Hard", ICML 2021).
    """

    ENTROPY_MODEL = enum.auto()
    ALL = enum.auto()
    DECODER = enum.auto()

    @classmethod
    def at(cls, step: int, settings: TrainSettings) -> "Phase":
        """The phase of a step, in a run that is counted in steps.

        Args:
            step: How many steps are done before it.
            settings: Of the run.
        """
        if step < settings.transforms_from:
            return cls.ENTROPY_MODEL
        return cls.ALL if step < settings.steps - settings.decoder_steps else cls.DECODER


def is_frozen(path: Sequence[Any], settings: TrainSettings) -> bool:
    """Whether `train.frozen` names a part or layer on a parameter's path.

    Args:
        path: JAX's key path.
        settings: Of the run.
    """
    return not set(settings.frozen).isdisjoint(key.key for key in path)


def rate_factor(path: Sequence[Any], settings: TrainSettings, phase: Phase) -> float:
    """The factor of a parameter's updates.

    Args:
        path: The parameter's (JAX's key path).
        settings: Of the run.
        phase: Of the step.

    Returns:
        0 for what does not learn: Adam's averages would still move it, without a gradient.
    """
    names = [key.key for key in path]
    analysis = phase is Phase.DECODER and not set(names).isdisjoint(ANALYSIS)
    if analysis or is_frozen(path, settings):
        return 0.0
    return settings.transforms_rate if names[0] in TRANSFORMS else 1.0
