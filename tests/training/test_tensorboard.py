"""TensorBoard's files: every step once, and a full disk ends them alone."""

import errno

import numpy as np
import pytest

from llic_jax.training.tensorboard import TensorBoard

pytest.importorskip("tensorboardX")


@pytest.mark.parametrize("method", ["write_event", "flush"])
def test_a_full_disk_ends_the_curves_and_nothing_else(tmp_path, caplog, method):
    """The writer of tensorboardX waits for ever then, once its queue is full."""
    board = TensorBoard(tmp_path, 0)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    setattr(board._writer, method, full)
    for step in range(1, 30):
        board.scalars({"train/loss": 1.0}, step)
    board.picture("a", np.zeros((8, 8, 3), np.uint8), 30)
    board.close()
    assert caplog.text.count("TensorBoard's files end here") == 1


def test_a_folder_that_cannot_be_made_ends_them_too(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    board = TensorBoard(tmp_path / "file", 0)
    board.scalars({"train/loss": 1.0}, 1)
    board.close()
    assert "TensorBoard's files end here" in caplog.text


def test_steps_of_earlier_starts_are_purged(tmp_path, monkeypatch):
    """Also of a start that was killed before its first checkpoint."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(module).EventAccumulator
    for start, (first, last) in enumerate([(0, 3), (0, 5), (4, 6)]):
        monkeypatch.setattr("time.time", lambda start=start: 1.8e9 + 100 * start)
        board = TensorBoard(tmp_path, first)
        for step in range(first + 1, last + 1):
            board.scalars({"train/loss": float(start)}, step)
        board.close()
    events = accumulator(str(tmp_path))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0)]
