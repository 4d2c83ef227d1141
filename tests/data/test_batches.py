import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from llic_jax.data import sources
from llic_jax.data.augmentation import RandomCrop
from llic_jax.data.batches import training_batches
from llic_jax.data.photographs import Cached, central_crops, split_held_out
from llic_jax.errors import DataError


class Arrays:
    """Images in memory, each of one value: its index."""

    def __init__(self, count: int, size: int = 40):
        self.count, self.size, self.read = count, size, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read += 1
        return np.full((self.size, self.size + 8, 3), index, np.uint8)


def batches(images, steps, first_step=0, seed=0, **crop):
    iterator = training_batches(
        images,
        stages=[(0, RandomCrop(**{"size": 32, **crop}))],
        batch_size=4,
        seed=seed,
        first_step=first_step,
        threads=2,
    )
    return [next(iterator) for _ in range(steps)]


def test_order_depends_on_the_seed_alone_and_resumes_exactly():
    everything = batches(Arrays(10), 8)
    again = batches(Arrays(10), 8)
    later = batches(Arrays(10), 3, first_step=5)
    other = batches(Arrays(10), 8, seed=1)
    np.testing.assert_array_equal(everything, again)
    np.testing.assert_array_equal(everything[5:], later)
    assert not np.array_equal(everything, other)
    assert everything[0].shape == (4, 32, 32, 3) and everything[0].dtype == np.uint8


def test_every_image_comes_once_in_each_pass_and_passes_differ():
    values = np.concatenate(batches(Arrays(12), 9))[:, 0, 0, 0].reshape(3, 12)
    for one_pass in values:
        assert sorted(one_pass) == list(range(12))
    assert not np.array_equal(values[0], values[1])


def test_crops_are_parts_of_the_image_and_half_are_mirrored():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    places = {
        (top, left, flip): view[top : top + 16, left : left + 16].tobytes()
        for flip, view in ((False, image), (True, image[:, ::-1]))
        for top in range(5)
        for left in range(15)
    }
    by_bytes = {content: place for place, content in places.items()}
    seen = [by_bytes[RandomCrop(16)(image, rng).tobytes()] for _ in range(400)]
    assert {p[0] for p in seen} == set(range(5)) and {p[1] for p in seen} == set(range(15))
    assert 150 < sum(p[2] for p in seen) < 250
    assert not any(by_bytes[RandomCrop(16, flip=False)(image, rng).tobytes()][2] for _ in range(50))


def test_a_share_of_the_crops_are_drawings():
    """Which, and what is on them, depends on the seed and the step alone."""
    plain, some, again = (
        [
            next(iterator)
            for iterator in [
                training_batches(
                    Arrays(12),
                    stages=[(0, RandomCrop(32))],
                    batch_size=4,
                    seed=0,
                    threads=2,
                    drawings=share,
                )
            ]
            for _ in range(100)
        ]
        for share in (0.0, 0.25, 0.25)
    )
    np.testing.assert_array_equal(some, again)
    drawn = np.any(np.not_equal(plain, some), axis=(2, 3, 4)).ravel()
    assert 60 < drawn.sum() < 140
    assert np.array(some).dtype == np.uint8


def test_small_images_are_extended_by_mirroring():
    image = np.random.default_rng(0).integers(0, 256, (5, 40, 3), np.uint8)
    crop = RandomCrop(16, flip=False)(image, np.random.default_rng(1))
    assert crop.shape == (16, 16, 3)
    np.testing.assert_array_equal(crop[5:10], crop[4::-1])


def test_downsampling_reduces_but_never_below_the_crop():
    rng = np.random.default_rng(0)
    crop = RandomCrop(32, downsample=True)
    for size in ((33, 200), (100, 100)):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        shapes = {crop(image, rng).shape for _ in range(20)}
        assert shapes == {(32, 32, 3)}


def test_cache_reads_each_image_once_while_there_is_room():
    images = Arrays(6)
    cached = Cached(images, limit_gb=1.0)
    for _ in range(3):
        for i in range(6):
            assert cached[i][0, 0, 0] == i
    assert images.read == 6
    small = Arrays(6)
    limited = Cached(small, limit_gb=2.5 * small[0].nbytes / 2**30)
    small.read = 0
    for _ in range(2):
        for i in range(6):
            assert limited[i][0, 0, 0] == i
    assert small.read == 2 + 2 * 4


def test_held_back_images_are_never_trained_on():
    training, held_back = split_held_out(Arrays(50), 7)
    assert len(held_back) == 7 and len(training) == 43
    seen = {int(training[i][0, 0, 0]) for i in range(43)}
    held = {int(held_back[i][0, 0, 0]) for i in range(7)}
    assert not seen & held and seen | held == set(range(50))
    with pytest.raises(DataError, match="none are left"):
        split_held_out(Arrays(5), 5)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_folders_are_searched_and_odd_files_converted_or_skipped(folder, caplog):
    below = folder / "below"
    below.mkdir()
    Image.fromarray(np.full((70, 70), 7, np.uint8)).save(below / "grey.png")
    Image.new("CMYK", (70, 70)).save(below / "print.jpg")
    Image.fromarray(np.full((70, 70), 40_000, np.uint16)).save(below / "deep.png")
    Image.new("RGB", (63, 200)).save(below / "tiny.png")
    (below / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    (below / "notes.txt").write_text("no image")
    images = sources.open_source(str(folder))
    with caplog.at_level(logging.INFO):
        usable = {images.files[i].name: images[i] for i in range(len(images))}
    assert {name for name, image in usable.items() if image is None} == {
        "deep.png",
        "tiny.png",
        "broken.jpg",
    }
    assert usable["grey.png"].shape == (70, 70, 3) and (usable["grey.png"] == 7).all()
    assert usable["print.jpg"].shape == (70, 70, 3) and usable["0.png"].shape == (70, 80, 3)
    assert {Path(name).name for name in images.notes.converted} == {"grey.png", "print.jpg"}
    assert len(images.notes.unusable) == 3
    for name in ("deep.png is not used: more than 8 bits", "63 x 200 pixels", "from CMYK to RGB"):
        assert name in caplog.text
    for batch in batches(images, 6):
        assert batch.shape == (4, 32, 32, 3)


def encoded(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 72, 3), value, np.uint8)).save(file, "png")
    return file.getvalue()


def length_delimited(number: int, content: bytes) -> bytes:
    """A protocol buffer field by hand: tag, length (two 7-bit groups at most), content."""
    low, high = len(content) & 127, len(content) >> 7
    assert high < 128
    return bytes([number << 3 | 2, *((low | 128, high) if high else (low,))]) + content


def test_array_records_of_images_and_of_examples(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    def example(image: bytes) -> bytes:
        def feature(key: bytes, value: bytes) -> bytes:
            value = length_delimited(1, length_delimited(1, value))
            return length_delimited(1, length_delimited(1, key) + length_delimited(2, value))

        return length_delimited(1, feature(b"name", b"a name") + feature(b"image", image))

    for name, records in {
        "a.array_record": [encoded(1), encoded(2)],
        "b.array_record": [example(encoded(3)), example(b"no image"), b"\x08\x01"],
    }.items():
        writer = ArrayRecordWriter(str(tmp_path / name), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
    images = sources.open_source(f"records:{tmp_path}/*.array_record")
    found = [images[i] for i in range(len(images))]
    assert [None if image is None else int(image[0, 0, 0]) for image in found] == [
        1,
        2,
        3,
        None,
        None,
    ]
    assert found[0].shape == (64, 72, 3) and len(images.notes.unusable) == 2
    with pytest.raises(DataError, match="No file matches"):
        sources.open_source(f"records:{tmp_path}/*.riegeli")


@pytest.fixture(scope="module")
def tiny_builder():
    """A data set of three images, registered with TensorFlow Datasets as "tiny"."""
    pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3))
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"image": image})
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"image": np.full((70, 80, 3), i, np.uint8)}

    return Tiny


@pytest.mark.slow
def test_a_tfds_data_set_by_name_is_prepared_without_a_network(tiny_builder, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr("socket.socket.connect", refuse)
    images = sources.open_source("tfds:tiny")
    assert sorted(int(images[i][0, 0, 0]) for i in range(len(images))) == [0, 1, 2]
    assert (tmp_path / "tiny").is_dir()
    for batch in batches(images, 2):  # training
        assert batch.shape == (4, 32, 32, 3)
    crops = central_crops(images, 64, "validation")  # of validation
    assert {crop.shape for crop in crops} == {(64, 64, 3)} and len(crops) == 3
    with pytest.raises(DataError, match="'tiny'"):
        sources.open_source("tfds:tiny:validation")


@pytest.mark.slow
def test_a_prepared_tfds_folder_with_and_without_tensorflow(tiny_builder, tmp_path):
    builder = tiny_builder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    for name in (f"tfds:{builder.data_path}", f"records:{builder.data_path}/*.array_record*"):
        images = sources.open_source(name)
        found = [images[i] for i in range(len(images))]
        assert sorted(int(image[0, 0, 0]) for image in found) == [0, 1, 2]
        assert {image.shape for image in found} == {(70, 80, 3)}
    with pytest.raises(DataError, match="'nope'"):
        sources.open_source(f"tfds:{builder.data_path}:nope")
    with pytest.raises(DataError, match="no_such_set"):
        sources.open_source("tfds:no_such_set")


def test_stages_and_shares_are_parts_of_one_order():
    stages = [(0, RandomCrop(16)), (3, RandomCrop(32))]

    def take(count, **options):
        iterator = training_batches(
            Arrays(10), stages=stages, batch_size=4, seed=0, threads=1, **options
        )
        return [next(iterator) for _ in range(count)]

    whole = take(6)
    assert [batch.shape[1] for batch in whole] == [16, 16, 16, 32, 32, 32]
    for first in (2, 3, 4):
        for batch, expected in zip(take(6 - first, first_step=first), whole[first:], strict=True):
            np.testing.assert_array_equal(batch, expected)
    shares = [take(6, share=(host, 2)) for host in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), batch)
    single = [take(6, share=(host, 4)) for host in range(4)]  # one image each
    for batch, *parts in zip(whole, *single, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), batch)


def test_missing_and_empty_sources_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        sources.open_source(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"looked for \.png"):
        sources.open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"data\.source"):
        sources.open_source("")
    (tmp_path / "broken.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="None of the 1 images"):
        batches(sources.open_source(str(tmp_path)), 1)


def test_photographs_are_read_as_everywhere_else(tmp_path):
    """Upright, AVIF and JPEG 2000 among them; what is transparent is not learned from."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # the first column is the top row
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "opaque.png")
    hidden = Image.fromarray(pixels).convert("RGBA")
    hidden.putalpha(Image.new("L", hidden.size, 100))
    hidden.save(tmp_path / "hidden.png")
    formats = ["jp2"] * features.check("jpg_2000") + ["avif"] * features.check("avif")
    for suffix in formats:
        Image.fromarray(pixels // 8).save(tmp_path / f"other.{suffix}", quality=95)
    images = sources.open_source(str(tmp_path))
    found = {images.name(i): images[i] for i in range(len(images))}
    np.testing.assert_array_equal(found["turned.png"], np.rot90(pixels, -1))
    np.testing.assert_array_equal(found["opaque.png"], pixels)
    assert found["hidden.png"] is None
    assert "transparent" in next(iter(images.notes.unusable.values()))
    for suffix in formats:
        assert found[f"other.{suffix}"].shape == pixels.shape


def test_several_sources_are_one_after_the_other(tmp_path):
    for name, values in (("a", (1, 2)), ("b", (3,))):
        (tmp_path / name).mkdir()
        for value in values:
            picture = Image.fromarray(np.full((70, 70, 3), value, np.uint8))
            picture.save(tmp_path / name / f"{value}.png")
    images = sources.open_source(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    assert [int(images[i][0, 0, 0]) for i in range(len(images))] == [1, 2, 3]
    assert len({images.name(i) for i in range(3)}) == 3
    with pytest.raises(IndexError):
        images[3]
    with pytest.raises(DataError, match="empty part"):
        sources.open_source(f"{tmp_path / 'a'},")
    with pytest.raises(DataError, match="b2 is not a folder"):
        sources.open_source(f"{tmp_path / 'a'},{tmp_path / 'b2'}")


def test_the_images_that_a_run_holds_back_keep_their_names(folder):
    images = sources.open_source(str(folder))
    _, held = split_held_out(images, 1)
    names = [held.name(0)]
    Image.new("RGB", (70, 70)).save(folder / "-first of all.png")
    grown = sources.open_source(str(folder))
    seen, again = split_held_out(grown, 1, names)
    assert [again.name(i) for i in range(len(again))] == names and len(seen) == 3
    assert names[0] not in {seen.name(i) for i in range(len(seen))}
    assert len(split_held_out(grown, 1, ["gone.png"])[1]) == 0


def test_central_crops_leave_out_what_is_too_small_and_say_so(caplog):
    large, small = Arrays(2, size=40), Arrays(1, size=20)
    with caplog.at_level(logging.WARNING):
        found = central_crops(sources.Joined([large, small]), 32, "validation")
    assert [crop.shape for crop in found] == [(32, 32, 3)] * 2
    assert "1 of 3 validation images are not used: less than 32 pixels" in caplog.text
    with pytest.raises(
        DataError, match=r"None of the 1 held-back images has 32 pixels.*data\.crops"
    ):
        central_crops(small, 32, "held-back")
    assert central_crops(Arrays(0), 32, "held-back") == []
