"""A folder becomes `.llic` files that `llic decompress` takes, whatever was there before."""

import numpy as np
import pytest
from PIL import Image

import llic_jax
from llic_jax.errors import DataError, LlicError, PipelineError
from llic_jax.pipelines.compress import Coding, Compression
from tests.pipelines.pictures import content, do_all, smooth


@pytest.fixture(autouse=True)
def loaded_once(tiny_codec, monkeypatch):
    """Workers take the codec of the tests: loading it compiles anew."""
    monkeypatch.setattr("llic_jax.zoo.folder.load_codec", lambda *_, **__: tiny_codec)


@pytest.fixture
def folder(photographs, tmp_path):
    """Three photographs of one size, a truncated one and no image."""
    made = tmp_path / "photographs"
    (made / "below").mkdir(parents=True)
    for i in range(3):
        smooth(i, 64, 64).save(made / ("below" if i == 1 else "") / f"{i}.png")
    for name in ("truncated.png", "words.jpg"):
        (made / name).write_bytes((photographs / name).read_bytes())
    return made


def begin(folder, release, output, **fields):
    coding = Coding(str(release), **{"quality": 1.5, "strict_llic": True, **fields})
    return Compression.begin(folder, output, coding)


def test_files_are_those_of_compress(folder, tiny_release, tiny_codec, tmp_path):
    plan = begin(folder, tiny_release, tmp_path / "files")
    counts = do_all(plan)
    summary = plan.summary()
    assert summary.counted == {"files": 3, "skipped, cannot be read": 2}
    assert summary.found == len(content(folder)) == 5 and summary.missing == 0
    assert counts["files"] == 3 and counts["bytes"] == summary.more["bytes"]
    assert {one.name for one in summary.skipped} == {"truncated.png", "words.jpg"}
    for name in ("0", "below/1", "2"):
        data = (plan.output / f"{name}.llic").read_bytes()
        path = folder / f"{name}.png"
        alone = llic_jax.compress(path, 1.5, strict_llic=True, model=tiny_codec)
        assert data == alone and tiny_codec.decompress(data).shape == (64, 64, 3)


def test_a_second_run_does_what_is_missing(folder, tiny_release, tmp_path):
    plan = begin(folder, tiny_release, tmp_path / "files")
    do_all(plan, limit=1)
    early = plan.summary()
    assert early.counted == {"files": 1} and early.missing == 4
    (first,) = plan.output.glob("*.llic")
    before = first.stat().st_mtime_ns
    again = begin(folder, tiny_release, tmp_path / "files")
    counts = do_all(again)
    assert counts["files"] == 2 and again.summary().missing == 0
    assert first.stat().st_mtime_ns == before
    # A file that could not be read is tried again; one that is mended is skipped no longer.
    smooth(5, 64, 64).save(folder / "truncated.png")
    third = begin(folder, tiny_release, tmp_path / "files")
    assert do_all(third)["files"] == 1
    assert third.summary().counted == {"files": 4, "skipped, cannot be read": 1}
    smooth(6, 64, 64).save(folder / "new.png")  # photographs may be added
    fourth = begin(folder, tiny_release, tmp_path / "files")
    assert fourth.summary().missing == 1 and do_all(fourth)["files"] == 1


def test_a_unit_that_is_repeated_changes_nothing(folder, tiny_release, tmp_path):
    plan = begin(folder, tiny_release, tmp_path / "files")
    worker = plan.open()
    assert worker.do(0)["files"] == 1
    before = {path: path.stat().st_mtime_ns for path in plan.output.rglob("*.llic")}
    assert worker.do(0) == {"files found": 1}
    assert {path: path.stat().st_mtime_ns for path in plan.output.rglob("*.llic")} == before


def test_other_settings_are_refused(folder, tiny_release, tmp_path):
    begin(folder, tiny_release, tmp_path / "files")
    begin(folder, tiny_release, tmp_path / "files", memory_gb=2.0)  # files do not depend on it
    with pytest.raises(PipelineError, match=r"quality was 1\.5 and is 2\.0"):
        begin(folder, tiny_release, tmp_path / "files", quality=2.0)
    with pytest.raises(PipelineError, match="model was "):
        Compression.begin(folder, tmp_path / "files", Coding(None, 1.5, strict_llic=True))


def test_what_cannot_be_is_told_before_any_work(folder, tiny_release, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        begin(folder / "0.png", tiny_release, tmp_path / "files")
    with pytest.raises(FileNotFoundError):
        begin(folder, tmp_path / "no_model", tmp_path / "files")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "0.bmp")
    with pytest.raises(LlicError, match="would both become"):
        begin(folder, tiny_release, tmp_path / "files")
