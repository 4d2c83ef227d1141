import json

import numpy as np
import pytest
from PIL import Image

from llic_jax.data import sources
from llic_jax.data.package import Encoding, write_package
from llic_jax.errors import DataError


def smooth(seed: int, width: int, height: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Training photographs, two of which validation has too, one under another name and size."""
    root = tmp_path_factory.mktemp("photographs")
    for name in ("training", "validation"):
        (root / name).mkdir()
    for i in range(5):
        smooth(i, 200 + 10 * i, 150).save(root / "training" / f"{i}.png")
    smooth(90, 60, 200).save(root / "training" / "narrow.png")
    smooth(7, 180, 160).save(root / "validation" / "seven.png")
    smooth(7, 90, 80).save(root / "training" / "seven_small.png")
    smooth(8, 180, 160).save(root / "validation" / "eight.png")
    (root / "training" / "eight.png").write_bytes((root / "validation" / "eight.png").read_bytes())
    return root


def pack(folders, folder, budget=10**6, piece=10**6, **options):
    encoding = Encoding(**{"format": "webp", "least": 64, **options})
    parts = str(folders / "training"), str(folders / "validation")
    return write_package(*parts, folder, budget, piece, encoding)


def test_a_package_holds_both_parts_and_nothing_of_one_in_the_other(folders, tmp_path):
    index = pack(folders, tmp_path / "p", quality=90, reduce=2.0, piece=30_000)
    training = sources.open_source(f"package:{tmp_path / 'p'}")
    validation = sources.open_source(f"package:{tmp_path / 'p'}:validation")
    assert {training.name(i) for i in range(len(training))} == {*"01234"}
    assert {validation.name(i) for i in range(len(validation))} == {"seven.png", "eight.png"}
    assert index["left_out"]["in validation"] == 2
    assert index["left_out"]["too small, unreadable, or without room"] == 1
    for i in range(len(training)):  # reduced to a half, and as good as the quality says
        number = int(training.name(i))
        assert training[i].shape == (75, 100 + 5 * number, 3)
        expected = smooth(number, 200 + 10 * number, 150).resize(
            (100 + 5 * number, 75), Image.Resampling.LANCZOS
        )
        assert np.mean((training[i] - np.asarray(expected, float)) ** 2) < 30
    for i in range(len(validation)):  # untouched
        original = Image.open(folders / "validation" / validation.name(i))
        np.testing.assert_array_equal(validation[i], np.asarray(original))
    files = list((tmp_path / "p").glob("photographs.*"))
    assert len(files) == len(index["files"]) > 1

    files[0].write_bytes(files[0].read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="is damaged"):
        for part in ("training", "validation"):
            sources.open_source(f"package:{tmp_path / 'p'}:{part}")
    files[0].unlink()
    with pytest.raises(DataError, match="is missing"):
        for part in ("training", "validation"):
            sources.open_source(f"package:{tmp_path / 'p'}:{part}")


def test_the_quality_is_the_best_that_fits(folders, tmp_path):
    large = pack(folders, tmp_path / "large")
    held = sum(p["bytes"] for p in large["photographs"] if p["part"] == "validation")
    used = sum(p["bytes"] for p in large["photographs"]) - held
    assert large["encoding"]["quality"] == 97
    small = pack(folders, tmp_path / "small", budget=held + used // 2)
    assert small["encoding"]["quality"] < 97
    assert sum(p["bytes"] for p in small["photographs"]) <= held + used // 2


def test_what_is_no_package_is_named(folders, tmp_path):
    with pytest.raises(DataError, match="No package of photographs"):
        sources.open_source(f"package:{tmp_path}")
    with pytest.raises(DataError, match=r"No photograph of .* fits"):
        pack(folders, tmp_path / "p", budget=10, quality=90)
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "package.json").write_text(json.dumps({"photographs": [], "files": {}}))
    with pytest.raises(DataError, match="no part 'training'"):
        sources.open_source(f"package:{tmp_path / 'q'}")
    with pytest.raises(DataError, match="is not empty"):
        pack(folders, tmp_path / "q")
