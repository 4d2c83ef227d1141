"""Phases of training: which parameters learn, and which stand still."""

import enum

from llic_jax.configs.config import Config

TRANSFORMS = ("g_a", "g_s", "gain_y")  # what stands still while the entropy model trains alone
ANALYSIS = ("g_a", "h_a", "log_gain")  # what stands still while the decoder's side trains alone


class Stage(enum.Enum):
    """Who learns in a step.

    ENTROPY_MODEL: hyperprior and entropy model, from the rate alone: a third of the work, as there
        is nothing to synthesize and nothing to differentiate in the transforms.
    DECODER: entropy model, h_s, g_s and inverse gains, from the very symbols that are coded. No
        noise stands for rounding any more, so the loss is that of the files; but rounding has no
        gradient, so the analysis stays as it is (Guo et al., "Soft then Hard", ICML 2021).
    """

    ENTROPY_MODEL = enum.auto()
    ALL = enum.auto()
    DECODER = enum.auto()

    @classmethod
    def at(cls, step: int, train: Config) -> "Stage":
        """The stage that the step after `step` steps belongs to."""
        if step < train["transforms_from"]:
            return cls.ENTROPY_MODEL
        return cls.ALL if step < train["steps"] - train["decoder_steps"] else cls.DECODER
