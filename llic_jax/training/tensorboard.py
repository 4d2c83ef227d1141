"""TensorBoard's files of a run.

`tensorboardX.SummaryWriter` writes in a thread of its own, which an error ends: the run then waits
for ever for that thread. Here a disk that is full ends the curves, and nothing else.
"""

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np


class TensorBoard:
    """Writes scalars and pictures, each call to the end.

    Args:
        folder: Made if need be.
        first: The step that the run goes on from. What an earlier start wrote of later steps is
            left out of the curves.

    Raises:
        ImportError: The package tensorboardX is not installed.
    """

    def __init__(self, folder: Path, first: int):
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._summary, self._event = summary, Event
        self._writer: Any = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            start = SessionLog(status=SessionLog.START)
            now = time.time()
            self._writer.write_event(Event(wall_time=now, step=first + 1, session_log=start))
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def scalars(self, figures: dict[str, float], step: int) -> None:
        """Writes figures by name."""
        self._write([self._summary.scalar(name, value) for name, value in figures.items()], step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Writes a picture, uint8 `(H, W, 3)`."""
        self._write([self._summary.image(name, image, dataformats="HWC")], step)

    def close(self) -> None:
        """Closes the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._give_up(error)

    def _write(self, summaries: list[Any], step: int) -> None:
        if self._writer is None:
            return
        try:
            for summary in summaries:
                event = self._event(wall_time=time.time(), step=step, summary=summary)
                self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
        logging.warning("TensorBoard's files end here: %s", error)
