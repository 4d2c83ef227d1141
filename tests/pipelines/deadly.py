"""A step whose workers die, for Beam's worker processes to import."""

import dataclasses
import os
import signal


@dataclasses.dataclass(frozen=True)
class Deadly:
    """Four units; the worker that gets one of them is killed, as for lack of memory."""

    name: str = "deadly"

    def missing(self) -> list[int]:
        return [0, 1, 2, 3]

    def open(self) -> "DeadlyWorker":
        return DeadlyWorker()


class DeadlyWorker:
    def do(self, unit: int) -> dict[str, int]:
        if unit == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"units": 1}
