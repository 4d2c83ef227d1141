import importlib.util
import json
import re
import sys
import time

import numpy as np
import pytest
from PIL import ExifTags, Image

import llic_jax
from llic_jax.bitstream.file import LlicFile
from llic_jax.cli import common
from llic_jax.cli.main import main
from llic_jax.codec.codec import Codec
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality
from llic_jax.images.photograph import Photograph
from llic_jax.images.read import read_image, read_photograph
from llic_jax.images.write import write_image, write_photograph


@pytest.fixture
def pictures(tmp_path, photograph):
    """Two photographs, and a file that is none."""
    write_image(tmp_path / "a.png", photograph[:50, :60])
    Image.fromarray(photograph[60:110, :60]).save(tmp_path / "b.jpg")
    (tmp_path / "broken.png").write_text("no image")
    return tmp_path


def llic(*args) -> int:
    return main([str(a) for a in args])


def test_there_and_back(pictures, tiny_release, tiny_codec, capsys):
    model = ("--checkpoint", tiny_release)
    assert llic("compress", pictures / "a.png", pictures / "a.llic", "--psnr", *model) == 0
    printed = capsys.readouterr().out
    size = (pictures / "a.llic").stat().st_size
    assert (
        "60x50" in printed
        and f"{size} bytes" in printed
        and f"{8 * size / 3000:.4f} bpp" in printed
    )
    assert "PSNR" in printed and " s" in printed

    assert llic("decompress", pictures / "a.llic", pictures / "out.png", *model) == 0
    expected = tiny_codec.decompress((pictures / "a.llic").read_bytes())
    np.testing.assert_array_equal(read_image(pictures / "out.png"), expected)

    capsys.readouterr()
    assert llic("info", pictures / "a.llic") == 0
    printed = capsys.readouterr().out
    assert (
        "60 x 50" in printed
        and tiny_codec.fingerprint.hex() in printed
        and "quality     1.5" in printed
    )


def test_one_bad_file_does_not_stop_the_rest(pictures, tiny_release, capsys):
    model = ("--checkpoint", tiny_release)
    folder = pictures / "new"
    sources = [pictures / name for name in ("a.png", "broken.png", "b.jpg", "missing.png")]
    assert llic("compress", *sources, folder, "--quality", 2, *model) == 1
    captured = capsys.readouterr()
    assert sorted(p.name for p in folder.iterdir()) == ["a.llic", "b.llic"]
    assert LlicFile.from_bytes((folder / "a.llic").read_bytes()).quality == 2
    assert "2 of 4 files done" in captured.out
    assert "broken.png" in captured.err and "missing.png" in captured.err

    assert llic("decompress", folder / "a.llic", folder / "b.llic", folder, *model) == 0
    assert sorted(p.name for p in folder.glob("*.png")) == ["a.png", "b.png"]


def test_a_folder_with_folders(tmp_path, photograph, tiny_release, capsys):
    model = ("--checkpoint", tiny_release)
    photos, files, back = (tmp_path / name for name in ("photos", "files", "back"))
    (photos / "trip").mkdir(parents=True)
    for name in ("a.png", "trip/a.png", "trip/b.PNG"):
        write_image(photos / name, photograph[:40, :50])
    (photos / "notes.txt").write_text("no image")
    (photos / "trip" / "broken.jpg").write_text("no image")
    assert llic("compress", photos, files, "--workers", 3, *model) == 1
    captured = capsys.readouterr()
    made = sorted(str(p.relative_to(files)) for p in files.rglob("*.*"))
    assert made == ["a.llic", "trip/a.llic", "trip/b.llic"]
    sizes = sum(p.stat().st_size for p in files.rglob("*.llic"))
    assert f"3 of 4 files done, {sizes} bytes of .llic, {8 * sizes / 6000:.4f} bpp" in captured.out
    assert "broken.jpg" in captured.err

    before = (files / "a.llic").stat().st_mtime_ns
    (photos / "trip" / "broken.jpg").unlink()
    (files / "trip" / "b.llic").unlink()
    assert llic("compress", photos, files, *model) == 1  # outputs exist
    assert "--skip_existing" in capsys.readouterr().err
    assert llic("compress", photos, files, "--skip_existing", *model) == 0
    assert (files / "a.llic").stat().st_mtime_ns == before
    assert (files / "trip" / "b.llic").exists()

    assert llic("decompress", files, back, "--format", "webp", *model) == 0
    assert len(list(back.rglob("*.webp"))) == 3
    (tmp_path / "empty").mkdir()
    assert llic("decompress", tmp_path / "empty", back, *model) == 1
    assert "ends in .llic" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_in_batches(tmp_path, photograph, tiny_release, tiny_codec, capsys, monkeypatch):
    """Images of one padded size go together, each into a file of its own; one that fails is
    reported by itself."""
    model = ("--checkpoint", tiny_release)
    photos, files, back = (tmp_path / name for name in ("photos", "files", "back"))
    photos.mkdir()
    for i, (height, width) in enumerate([(40, 50), (64, 64), (70, 50), (30, 60)]):
        write_image(photos / f"{i}.png", photograph[:height, :width])
    turned = Image.fromarray(photograph[:60, :100])  # 60 x 100 when it stands upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(photos / "turned.jpg", exif=exif)
    (photos / "broken.png").write_text("no image")
    sizes, encode, decode = [], Codec.encode, Codec.decode_photographs

    def counted(call):
        """The call, which notes how many images go together."""

        def counting(self, items, *args, **kwargs):
            if len(items) > 1:
                sizes.append(len(items))
            return call(self, items, *args, **kwargs)

        return counting

    monkeypatch.setattr(Codec, "encode", counted(encode))
    monkeypatch.setattr(Codec, "decode_photographs", counted(decode))
    assert llic("compress", photos, files, "--batch", 2, "--workers", 1, *model) == 1
    captured = capsys.readouterr()
    assert sizes == [2, 2] and "5 of 6 files done" in captured.out and "broken.png" in captured.err
    assert captured.out.count("(2 together)") == 4

    other = Codec(tiny_codec.model._replace(fingerprint=b"another."))
    (files / "0.llic").write_bytes(other.compress(photograph[:40, :50]))  # spoils its batch
    sizes.clear()
    assert llic("decompress", files, back, "--batch", 3, *model) == 1
    captured = capsys.readouterr()
    assert 3 in sizes and "4 of 5 files done" in captured.out and "0.llic" in captured.err
    for path in back.glob("*.png"):
        expected = tiny_codec.decompress((files / path.with_suffix(".llic").name).read_bytes())
        assert np.abs(read_image(path).astype(int) - expected).max() <= 1
    assert len(list(back.glob("*.png"))) == 4

    assert llic("compress", photos, files, "--batch", 2, "--target_bpp", 1, *model) == 1
    assert "leave --batch out" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_behind(pictures, tiny_release, capsys, monkeypatch):
    target = pictures / "a.llic"
    target.write_bytes(b"precious")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    command = ("compress", pictures / "a.png", target, "--force", "--checkpoint", tiny_release)
    assert llic(*command) == 1
    assert "No space left" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert not [p for p in pictures.iterdir() if p.name.startswith(".")]


def test_a_photograph_comes_back_with_all_that_belongs_to_it(tmp_path, photograph, tiny_release):
    model = ("--checkpoint", tiny_release)
    alpha = np.arange(2000, dtype=np.uint32).reshape(40, 50).astype(np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    whole = Photograph(photograph[:40, :50], False, alpha, b"a profile", exif.tobytes())
    write_photograph(tmp_path / "in.png", whole)
    assert llic("compress", tmp_path / "in.png", tmp_path / "x.llic", "--exif", *model) == 0
    assert llic("info", tmp_path / "x.llic") == 0
    assert llic("decompress", tmp_path / "x.llic", tmp_path / "out.png", *model) == 0
    found = read_photograph(tmp_path / "out.png")
    np.testing.assert_array_equal(found.alpha, alpha)
    assert found.icc == b"a profile" and b"a camera" in found.exif
    assert llic("decompress", tmp_path / "x.llic", tmp_path / "out.jpg", *model) == 1
    assert not (tmp_path / "out.jpg").exists()


def test_images_above_the_limit_are_refused(pictures, tiny_release, capsys):
    limit = ("--checkpoint", tiny_release, "--max_pixels", 4000)
    assert llic("compress", pictures / "a.png", pictures / "a.llic", *limit) == 1
    assert "at most 4000 are allowed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        llic("compress", pictures / "a.png", pictures / "a.llic", "--workers", 0)


def test_nothing_is_overwritten_without_force(pictures, tiny_release, capsys):
    target = pictures / "a.llic"
    target.write_bytes(b"precious")
    assert llic("compress", pictures / "a.png", target, "--checkpoint", tiny_release) == 1
    assert target.read_bytes() == b"precious" and "--force" in capsys.readouterr().err
    assert (
        llic("compress", pictures / "a.png", target, "--force", "--checkpoint", tiny_release) == 0
    )
    assert target.read_bytes() != b"precious"


def test_usage_errors_come_before_any_work(pictures, tiny_release, capsys):
    cases = [
        (
            ("compress", pictures / "a.png", pictures / "b.jpg", "-o", pictures / "a.png"),
            "is a file",
        ),
        (("compress", pictures / "a.png", pictures / "no" / "where.llic"), "does not exist"),
        (("compress", pictures / "a.png", pictures / "a.jpg", pictures / "new"), "both become"),
        (
            ("compress", pictures / "a.png", pictures / "x.llic", "--checkpoint", pictures),
            "no released model",
        ),
        (
            (
                "compress",
                pictures / "a.png",
                pictures / "x.llic",
                "--quality",
                9,
                "--checkpoint",
                tiny_release,
            ),
            "1 to 2",
        ),
        (
            (
                "compress",
                pictures / "a.png",
                pictures / "x.llic",
                "--coder",
                "zip",
                "--checkpoint",
                tiny_release,
            ),
            "known are tfc, constriction",
        ),
        (
            ("decompress", pictures / "a.png", pictures / "x.png", "--checkpoint", tiny_release),
            "Not a .llic file",
        ),
        (("decompress", pictures / "a.llic", pictures / "x.xyz"), "suffix"),
        (("info", pictures / "a.png"), "Not a .llic file"),
    ]
    for arguments, message in cases:
        assert llic(*arguments) == 1, arguments
        assert message in capsys.readouterr().err, arguments
    assert not (pictures / "x.llic").exists() and not (pictures / "x.png").exists()
    with pytest.raises(SystemExit) as exit_:
        llic("compress")
    assert exit_.value.code == 2


@pytest.mark.slow
def test_effort(pictures, tiny_release, tiny_codec, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # where progress bars are drawn
    output, model = pictures / "a.llic", ("--checkpoint", tiny_release)
    options = ("--effort", 2, "--quality", 1.5)
    assert llic("compress", pictures / "a.png", output, *options, *model) == 0
    image = read_image(pictures / "a.png")
    assert output.read_bytes() == tiny_codec.encode([image], Quality(1.5), Refinement(2))[0].data
    said = capsys.readouterr()
    assert "effort  22 %" in said.err  # the progress bar: the tries at the end take 2.5 steps
    size, before = output.stat().st_size, len(tiny_codec.compress(image, 1.5))
    assert f"effort {before} -> {size} bytes" in said.out

    options = ("--effort", 2, "--effort_seconds", 0, "--force", "--quality", 1.5)
    assert llic("compress", pictures / "a.png", output, *options, *model) == 0
    assert output.read_bytes() == tiny_codec.compress(image, 1.5)

    new, target = pictures / "new.llic", ("--effort", "0.5s", "--target_bpp", 1)
    assert llic("compress", pictures / "a.png", new, *target, *model) == 0
    assert 8 * new.stat().st_size <= image[..., 0].size


def test_without_an_output_files_lie_beside_their_inputs(pictures, tiny_release, capsys):
    a, b, new = (pictures / name for name in ("a.png", "b.jpg", "new"))

    def planned(*args) -> list[str]:
        assert llic(*args, "--dry-run") == 0
        return [line.split(" -> ")[1] for line in capsys.readouterr().out.splitlines()]

    beside = [str(pictures / name) for name in ("a.llic", "b.llic")]
    assert planned("compress", a, b) == beside
    assert planned("compress", b, "--quality", 2, "-o", pictures / "c.llic") == [
        str(pictures / "c.llic")
    ]
    assert planned("compress", a, b, "--output-dir", new) == [
        str(new / "a.llic"),
        str(new / "b.llic"),
    ]
    assert planned("compress", "-") == ["standard output"]
    assert not new.exists() and not list(pictures.glob("*.llic"))
    assert llic("compress", a, "-q", "--checkpoint", tiny_release) == 0
    assert (pictures / "a.llic").exists() and not capsys.readouterr().out
    assert llic("decompress", pictures / "a.llic") == 1
    assert "a.png exists" in capsys.readouterr().err


def test_a_line_of_json_for_each_file(pictures, tiny_release, capsys):
    files = [pictures / "a.png", pictures / "broken.png", f"{pictures}/new/"]
    options = ("--json", "--psnr", "--target-bpp=20", "--checkpoint", tiny_release)
    assert llic("compress", *files, *options) == 1
    captured = capsys.readouterr()
    done, failed = sorted(map(json.loads, captured.out.splitlines()), key=lambda said: len(said))[
        ::-1
    ]
    assert done["target"] == str(pictures / "new" / "a.llic") and done["width"] == 60
    assert done["bytes"] == (pictures / "new" / "a.llic").stat().st_size
    assert done["psnr"] > 0 and done["quality"] == 2 and "ends at quality 2" in done["notes"][0]
    assert failed["source"].endswith("broken.png") and "error" in failed
    assert "ends at quality 2" in captured.err
    assert llic("info", "--json", done["target"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bpp"] == done["bpp"] and said["quality"] == 2 and said["profile"] is None
    assert said["progressive"] is False


def test_a_preview_of_a_file_that_was_cut(pictures, tiny_release, capsys):
    model = ("--checkpoint", tiny_release)
    whole, cut = pictures / "a.llic", pictures / "cut.llic"
    assert llic("compress", *model, pictures / "a.png", whole) == 0
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert llic("decompress", *model, cut, pictures / "cut.png") == 1
    assert "llic decompress --preview" in capsys.readouterr().err
    assert llic("decompress", *model, "--preview", cut, whole, f"{pictures}/previews/") == 0
    out = capsys.readouterr().out
    share = re.search(r"cut.llic.*60x50, a preview from ([\d.]+)% of the payload", out)
    assert share and 30 < float(share[1]) < 60 and out.count("preview from") == 1
    assert llic("decompress", *model, whole, pictures / "whole.png") == 0
    images = [read_image(pictures / name) for name in ("previews/a.png", "whole.png")]
    np.testing.assert_allclose(*images, atol=1)
    assert read_image(pictures / "previews/cut.png").shape == (50, 60, 3)


def test_a_part_of_a_progressive_file_is_checked(pictures, tiny_release, tiny_codec, capsys):
    model, total = ("--checkpoint", tiny_release), 1 + len(tiny_codec.network.steps)
    rgb = read_image(pictures / "a.png")
    alpha = np.arange(3000, dtype=np.uint16).reshape(50, 60).astype(np.uint8)
    write_photograph(pictures / "a.png", Photograph(rgb, alpha=alpha, icc=b"a profile"), ".png")
    whole, cut, bad = (pictures / f"{name}.llic" for name in ("a", "cut", "bad"))
    assert llic("compress", *model, "--progressive", pictures / "a.png", whole) == 0
    data = whole.read_bytes()
    cut.write_bytes(data[:-300])
    damaged = bytearray(data[:-300])
    damaged[data.index(LlicFile.from_bytes(data).payload) + 100] ^= 1
    bad.write_bytes(damaged)
    capsys.readouterr()
    assert llic("decompress", *model, "--preview", cut, bad, whole, f"{pictures}/shown/") == 0
    said = capsys.readouterr()
    found = {
        name: int(steps)
        for name, steps in re.findall(
            rf"(\w+)\.llic -> .*, a preview from [\d.]+% of the payload, (\d) of {total} steps "
            "verified  ",
            said.out,
        )
    }
    assert found.keys() == {"cut", "bad"} and 1 <= found["bad"] < found["cut"] < total
    warning = rf"bad\.llic: step {found['bad'] + 1} of {total} does not fit its check: the file"
    assert re.search(warning, said.err) and "cut.llic" not in said.err
    for name in ("cut", "bad", "a"):
        shown = read_photograph(pictures / f"shown/{name}.png")
        np.testing.assert_array_equal(shown.alpha, alpha)
        assert shown.icc == b"a profile"

    assert llic("decompress", *model, "--json", "--preview", bad, pictures / "bad.png") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["verified"] == [found["bad"], total] and "does not fit" in line["notes"][0]
    assert llic("info", whole) == llic("info", "--json", whole) == 0
    text, _, line = capsys.readouterr().out.rstrip().rpartition("\n")
    assert "version 5, progressive, range coder tfc" in text
    assert json.loads(line)["progressive"] is True


def test_a_preview_of_a_cut_header_says_what_is_missing(pictures, tiny_release, capsys):
    model = ("--checkpoint", tiny_release)
    assert llic("compress", *model, pictures / "a.png", pictures / "a.llic") == 0
    (pictures / "a.llic").write_bytes((pictures / "a.llic").read_bytes()[:10])
    assert llic("decompress", *model, "--preview", pictures / "a.llic", pictures / "x.png") == 1
    said = capsys.readouterr().err
    assert "ends after 10 bytes; at least 20 were expected" in said and "--preview" not in said


def test_a_coder_that_writes_no_progressive_files(pictures, tiny_release, capsys):
    pytest.importorskip("constriction")
    options = ("--progressive", "--coder", "constriction", "--checkpoint", tiny_release)
    assert llic("compress", *options, pictures / "a.png", pictures / "a.llic") == 1
    assert "Take the coder tfc" in capsys.readouterr().err
    assert not (pictures / "a.llic").exists()


def test_folders_in_folders_are_left_when_told_to(pictures, capsys):
    (pictures / "deeper").mkdir()
    (pictures / "a.png").rename(pictures / "deeper" / "a.png")
    assert llic("compress", pictures, "--no-recursive", "--dry_run") == 0
    out = capsys.readouterr().out
    assert "b.llic" in out and "a.llic" not in out and "1 folders" in out


def test_names_may_stand_between_options(pictures, capsys):
    names = pictures / "a.png", "--quality", 2, pictures / "x.llic"
    assert llic("compress", *names, "--dry-run") == 0
    assert f"a.png -> {pictures / 'x.llic'}" in capsys.readouterr().out
    for unknown in (("--colour",), ("-z",)):
        with pytest.raises(SystemExit):
            llic("compress", *names, *unknown)
    assert "unrecognized arguments: -z" in capsys.readouterr().err


def test_version_and_completion(capsys):
    with pytest.raises(SystemExit) as exit_:
        llic("--version")
    assert exit_.value.code == 0 and capsys.readouterr().out == f"llic {llic_jax.__version__}\n"
    if importlib.util.find_spec("shtab") is None:
        assert llic("--print-completion", "bash") == 1
        assert "pip install shtab" in capsys.readouterr().err
        return
    with pytest.raises(SystemExit) as exit_:
        llic("--print-completion", "bash")
    assert exit_.value.code == 0 and "--target_bpp" in capsys.readouterr().out


def test_compiling_is_said_once_when_it_takes_long(capsys, monkeypatch):
    monkeypatch.setattr(common, "_PATIENCE", 0.01)
    compiling = common.Compiling("kept in a folder")
    compiling(True)
    compiling(False)  # at once: nothing is said
    for _ in range(2):
        compiling(True)
        time.sleep(0.2)
        compiling(False)
    assert capsys.readouterr().err.count("kept in a folder") == 1
