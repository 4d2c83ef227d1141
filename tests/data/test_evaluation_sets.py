"""Data sets: what is accepted, and what the errors tell people to put where. Nothing is fetched."""

import hashlib
import io
import urllib.error
import zipfile

import numpy as np
import pytest
from PIL import Image

from llic_jax.data import evaluation_sets
from llic_jax.errors import DataError
from llic_jax.system.files import file_hash


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, and a network that is not there."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(evaluation_sets.urllib.request, "urlopen", refuse)
    monkeypatch.setenv("LLIC_CACHE", str(tmp_path))
    return tmp_path


def _served(monkeypatch, content: bytes) -> list[str]:
    """A network that answers everything with `content`; returns the list of what was asked."""
    asked = []

    class Response(io.BytesIO):
        def __init__(self):
            super().__init__(content)
            self.headers = {"Content-Length": str(len(content))}

    def answer(url, timeout):
        asked.append(url)
        return Response()

    monkeypatch.setattr(evaluation_sets.urllib.request, "urlopen", answer)
    return asked


@pytest.mark.parametrize("name", ["kodak", "clic_pro_valid", "tecnick"])
def test_without_a_network_the_error_says_which_files_go_where(name, offline):
    with pytest.raises(DataError) as error:
        evaluation_sets.dataset_files(name)
    assert str(offline / name) in str(error.value)
    assert evaluation_sets.DATASETS[name].where in str(error.value)


def test_an_unknown_name_is_an_error():
    with pytest.raises(DataError, match="known are kodak, clic_pro_valid, tecnick"):
        evaluation_sets.dataset_files("imagenet")


def test_kodaks_list_is_whole():
    hashes = evaluation_sets.kodak_hashes()
    assert list(hashes) == [f"kodim{i:02d}.png" for i in range(1, 25)]
    assert len(set(hashes.values())) == 24
    assert all(len(digest) == 64 for digest in hashes.values())


def test_bytes_with_the_wrong_hash_are_not_kept(monkeypatch, offline):
    asked = _served(monkeypatch, b"not a photograph")
    with pytest.raises(DataError, match="other bytes than the original's"):
        evaluation_sets.dataset_files("kodak")
    assert asked == ["http://r0k.us/graphics/kodak/kodak/kodim01.png"]
    assert list((offline / "kodak").iterdir()) == []


def test_an_archive_is_fetched_once_checked_and_unpacked(monkeypatch, offline):
    image = io.BytesIO()
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(image, "PNG")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("valid/readme.txt", "no image")
        for index in range(41):
            archive.writestr(f"valid/../valid/{index:02d}.png", image.getvalue())
    asked = _served(monkeypatch, packed.getvalue())
    monkeypatch.setattr(
        evaluation_sets, "_CLIC_HASH", hashlib.sha256(packed.getvalue()).hexdigest()
    )
    for _ in range(2):
        files = evaluation_sets.dataset_files("clic_pro_valid")
        assert [f.name for f in files] == [f"{i:02d}.png" for i in range(41)]
    assert len(asked) == 1


def test_files_that_are_not_the_data_set_are_refused(tmp_path):
    for name in evaluation_sets.kodak_hashes():
        Image.fromarray(np.zeros((512, 768, 3), np.uint8)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"Not Kodak's originals: kodim01.png, "):
        evaluation_sets.dataset_files("kodak", tmp_path)
    (tmp_path / "kodim24.png").unlink()
    with pytest.raises(DataError, match="holds 23 images; kodak has 24"):
        evaluation_sets.dataset_files("kodak", tmp_path)


def test_tecnick_is_told_by_count_and_size(tmp_path):
    for index in range(100):
        Image.new("RGB", (1200, 1200)).save(tmp_path / f"{index:03d}.png", compress_level=1)
    assert len(evaluation_sets.dataset_files("tecnick", tmp_path)) == 100
    Image.new("RGB", (1200, 1199)).save(tmp_path / "050.png")
    with pytest.raises(DataError, match=r"050\.png is 1200x1199"):
        evaluation_sets.dataset_files("tecnick", tmp_path)


def test_kodak_is_recognized_by_its_hashes_alone(tmp_path, monkeypatch):
    files = []
    for index in range(24):
        path = tmp_path / f"{index}.png"
        path.write_bytes(bytes([index]))
        files.append(path)
    assert evaluation_sets.identify(files) is None
    known = {path.name: file_hash(path) for path in files}
    monkeypatch.setattr(evaluation_sets, "kodak_hashes", lambda: known)
    assert evaluation_sets.identify(files) == "kodak"
    assert evaluation_sets.identify(files[1:]) is None
