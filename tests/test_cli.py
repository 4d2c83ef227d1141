import numpy as np
import pytest
from PIL import Image

from llic_jax import cli, images
from llic_jax.coding import bitstream, effort


@pytest.fixture(autouse=True)
def no_cache_of_ones_own(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture
def pictures(tmp_path, photograph):
    """Two photographs, and a file that is none."""
    images.write_image(tmp_path / "a.png", photograph[:50, :60])
    Image.fromarray(photograph[60:110, :60]).save(tmp_path / "b.jpg")
    (tmp_path / "broken.png").write_text("no image")
    return tmp_path


def llic(*args) -> int:
    return cli.main([str(a) for a in args])


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
    np.testing.assert_array_equal(images.read_image(pictures / "out.png"), expected)

    capsys.readouterr()
    assert llic("info", pictures / "a.llic") == 0
    printed = capsys.readouterr().out
    assert (
        "60 x 50" in printed
        and tiny_codec.fingerprint.hex() in printed
        and "quality 1.5" in printed
    )


def test_one_bad_file_does_not_stop_the_rest(pictures, tiny_release, capsys):
    model = ("--checkpoint", tiny_release)
    folder = pictures / "new"
    sources = [pictures / name for name in ("a.png", "broken.png", "b.jpg", "missing.png")]
    assert llic("compress", *sources, folder, "--quality", 2, *model) == 1
    captured = capsys.readouterr()
    assert sorted(p.name for p in folder.iterdir()) == ["a.llic", "b.llic"]
    assert bitstream.parse((folder / "a.llic").read_bytes()).quality == 2
    assert "2 of 4 files done" in captured.out
    assert "broken.png" in captured.err and "missing.png" in captured.err

    assert llic("decompress", folder / "a.llic", folder / "b.llic", folder, *model) == 0
    assert sorted(p.name for p in folder.glob("*.png")) == ["a.png", "b.png"]


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
        (("compress", pictures / "a.png", pictures / "b.jpg", pictures / "a.png"), "is a file"),
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
        llic("compress", pictures / "a.png")
    assert exit_.value.code == 2


def test_effort(pictures, tiny_release, tiny_codec, capsys):
    output, model = pictures / "a.llic", ("--checkpoint", tiny_release)
    options = ("--effort", 2, "--quality", 1.5)
    assert llic("compress", pictures / "a.png", output, *options, *model) == 0
    image = images.read_image(pictures / "a.png")
    assert output.read_bytes() == effort.encode(tiny_codec, image, 1.5, steps=2).data
    assert "1/2" in capsys.readouterr().err  # the progress bar

    options = ("--effort", 2, "--effort_seconds", 0, "--force", "--quality", 1.5)
    assert llic("compress", pictures / "a.png", output, *options, *model) == 0
    assert output.read_bytes() == tiny_codec.compress(image, 1.5)

    capsys.readouterr()
    assert (
        llic(
            "compress", pictures / "a.png", pictures / "new.llic", "--effort", 2, "--target_bpp", 1
        )
        == 1
    )
    assert "name a --quality" in capsys.readouterr().err
