"""Shared by the tests of this room."""

from pathlib import Path

import pytest

from tests.pipelines.pictures import SIZE, smooth


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Eight photographs, and of each one: truncated, tiny, a duplicate, no image, transparent."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "below").mkdir()
    for i in range(8):
        smooth(i, 128 + 8 * i, SIZE).save(folder / ("below" if i % 2 else "") / f"{i}.png")
    (folder / "truncated.png").write_bytes((folder / "0.png").read_bytes()[:900])
    smooth(20, 40, 40).save(folder / "tiny.png")
    (folder / "twin.png").write_bytes((folder / "2.png").read_bytes())
    (folder / "words.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no image, and does not look like one")
    clear = smooth(21, SIZE, SIZE)
    clear.putalpha(100)
    clear.save(folder / "clear.png")
    return folder
