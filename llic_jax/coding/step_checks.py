"""Checks of a file's symbols, step by step, so that a part of a file can be checked (our choice).

A progressive file holds the low 16 bits of the symbols' running CRC-32 after `z` and after every
step of the walk. A wrong step passes its check once in 65,536 times.
"""

from typing import NamedTuple

import numpy as np

from llic_jax.bitstream.file import PROGRESSIVE_VERSION, LlicFile
from llic_jax.bitstream.tags import STEP_CHECKS
from llic_jax.errors import CorruptError

_CHECK = np.dtype("<u2")


class Verified(NamedTuple):
    """How far the checks of a progressive file confirm the symbols that were decoded.

    Attributes:
        steps: Steps that fit their checks, from the first one on. `z` counts as the first.
        total: All steps of the file.
        refuted: Whether the step after them does not fit. It and all that follow are left out.
    """

    steps: int
    total: int
    refuted: bool

    @property
    def warning(self) -> str:
        """That a step does not fit its check, in words; empty if none was found."""
        if not self.refuted:
            return ""
        return (
            f"step {self.steps + 1} of {self.total} does not fit its check: the file is damaged, "
            "or this platform computed other probabilities. It and all later steps are left out"
        )


def packed(crcs: list[int]) -> bytes:
    """The section's content.

    Args:
        crcs: The running CRC-32 after each step.
    """
    return (np.array(crcs, np.int64) & 0xFFFF).astype(_CHECK).tobytes()


def check_count(file: LlicFile, steps: int) -> None:
    """Refuses checks of another number of steps than the model has.

    Args:
        file: Parsed.
        steps: Of the model's walk.

    Raises:
        CorruptError: With both lengths.
    """
    content = _content(file)
    expected = (1 + steps) * _CHECK.itemsize
    if content is not None and len(content) != expected:
        raise CorruptError(
            f"Section {STEP_CHECKS} (checks of the steps) has {len(content)} bytes; expected "
            f"{expected} for `z` and {steps} steps. The file is damaged."
        )


class StepChecks:
    """Compares the symbols of one file with its checks, step by step.

    Args:
        content: Of the section.

    Attributes:
        verified: What was found so far.
    """

    def __init__(self, content: bytes):
        self._expected = np.frombuffer(content, _CHECK).tolist()
        self.verified = Verified(0, len(self._expected), False)

    @classmethod
    def of(cls, file: LlicFile) -> "StepChecks | None":
        """The checks of a file that passed `check_count`; None if it has none."""
        content = _content(file)
        return None if content is None else cls(content)

    def compare(self, crc: int) -> bool:
        """Whether the next step fits its check.

        Args:
            crc: Running CRC-32 of the symbols up to its end.
        """
        steps, total, _ = self.verified
        fits = self._expected[steps] == crc & 0xFFFF
        self.verified = Verified(steps + fits, total, not fits)
        return fits

    def refute(self) -> None:
        """Takes the next step for wrong: its symbols are none that an encoder writes."""
        self.verified = self.verified._replace(refuted=True)


def _content(file: LlicFile) -> bytes | None:
    return file.sections.get(STEP_CHECKS) if file.version == PROGRESSIVE_VERSION else None
