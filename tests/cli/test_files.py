"""File names, folders, streams and links, as shells and people give them to the command line."""

import io
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from llic_jax.bitstream.file import LlicFile
from llic_jax.cli.main import main
from llic_jax.errors import CorruptError, LlicError
from llic_jax.images import folders
from llic_jax.images.photograph import SUFFIXES
from llic_jax.images.write import write_image
from llic_jax.system import files


@pytest.fixture
def pictures(tmp_path, photograph):
    """Two photographs of one size, so that little is compiled."""
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, photograph[:50, :60])
    return tmp_path


@pytest.fixture
def llic(tiny_release):
    def run(command, *args) -> int:
        model = () if command == "info" else ("--checkpoint", str(tiny_release))
        return main([command, *map(str, args), *model])

    return run


class Stream(io.TextIOWrapper):
    """Standard input or output with bytes behind it."""

    def __init__(self, data: bytes = b""):
        super().__init__(io.BytesIO(data), "utf-8")


def test_no_original_is_destroyed(pictures, llic, capsys):
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    os.link(pictures / "a.png", pictures / "hard.dat")
    os.symlink("a.png", pictures / "soft.dat")
    for output in ("a.png", "b.png", "hard.dat", "soft.dat", "new.heic"):
        command = ("compress", "--force", pictures / "a.png", "-o", pictures / output)
        assert llic(*command) == 1, output
    assert "is an input" in capsys.readouterr().err
    assert llic("compress", pictures / "a.png", pictures / "a.llic") == 0
    assert llic("decompress", "--force", pictures / "a.llic", pictures / "b.llic") == 1
    assert llic("decompress", "--force", pictures / "a.llic", pictures / "a.llic") == 1
    assert {name: (pictures / name).read_bytes() for name in before} == before
    assert not (pictures / "b.llic").exists()


def test_standard_input_and_output(pictures, llic, monkeypatch, capsys):
    assert llic("compress", pictures / "a.png", pictures / "a.llic") == 0
    expected = (pictures / "a.llic").read_bytes()
    monkeypatch.chdir(pictures)
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", Stream((pictures / "a.png").read_bytes()))
    assert llic("compress", "-", "-") == 0
    assert out.buffer.getvalue() == expected
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", Stream(expected))
    assert llic("decompress", "-", "-", "--format", "webp") == 0
    with Image.open(io.BytesIO(out.buffer.getvalue())) as decoded:
        assert decoded.format == "WEBP" and decoded.size == (60, 50)
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stdin", Stream(expected))
    assert llic("info", "-") == 0
    out.flush()
    assert b"60 x 50" in out.buffer.getvalue()
    assert "standard input -> standard output" in capsys.readouterr().err
    assert not (pictures / "-").exists()
    assert files.path_argument("./-") is not files.STANDARD
    assert llic("compress", "-", "-", pictures / "new") == 1


def test_links_streams_and_permissions(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "out.bin", tmp_path / "link.bin"
    os.symlink(target, link)

    def write(path, data: bytes) -> None:
        with files.whole_file(path) as temporary:
            temporary.write_bytes(data)

    write(link, b"through a dangling link")
    assert link.is_symlink() and target.read_bytes() == b"through a dangling link"
    target.chmod(0o600)
    write(link, b"again")
    assert link.is_symlink() and target.read_bytes() == b"again"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError, match="loop"):
        write(tmp_path / "loop", b"")
    os.mkfifo(tmp_path / "fifo")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    write(tmp_path / "fifo", b"into a FIFO")
    reader.join()
    assert received == [b"into a FIFO"] and stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    name = tmp_path / ("n" * 250 + ".llic")
    write(name, b"a name as long as names can be")
    assert name.read_bytes() == b"a name as long as names can be"
    left = sorted(path.name[:4] for path in tmp_path.iterdir())
    assert left == ["fifo", "link", "loop", "nnnn", "real"]


def test_a_fifo_into_which_nobody_writes_is_not_waited_for(tmp_path, llic, capsys, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    os.mkfifo(tmp_path / "fifo")
    assert llic("info", tmp_path / "fifo") == 1
    error = capsys.readouterr().err
    assert "nobody writes" in error and error.count(str(tmp_path / "fifo")) == 1
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(b"LLICx"))
    writer.start()
    assert files.read(tmp_path / "fifo") == b"LLICx"
    writer.join()


def test_a_slash_at_the_end_means_a_folder(pictures, llic):
    assert llic("compress", pictures / "a.png", f"{pictures}/new/folder/") == 0
    assert [path.name for path in (pictures / "new" / "folder").iterdir()] == ["a.llic"]


def test_names_of_all_kinds(pictures, llic, monkeypatch, capsys):
    odd = os.fsdecode(bytes(pictures) + b"/\xff\xe9.png")
    os.rename(pictures / "a.png", odd)
    monkeypatch.setenv("HOME", str(pictures))
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert llic("compress", odd, "~/b.png", "~/naïve/") == 0
    assert len(list((pictures / "naïve").iterdir())) == 2
    ascii_only.flush()
    assert b"na\\xefve" in ascii_only.buffer.getvalue()
    missing = pictures / "nowhere.png"
    assert llic("compress", missing, pictures / "x.llic") == 1
    assert capsys.readouterr().err.count(str(missing)) == 1


def test_what_a_folder_holds_is_taken_or_said(tmp_path, photograph):
    (tmp_path / "deep").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.png", "b.avif", "c.gif", "deep/d.jp2", "elsewhere/e.png"):
        Image.fromarray(photograph[:8, :8]).save(tmp_path / name)
    (tmp_path / "photo").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "raw.NEF").write_bytes(b"raw")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "notes.txt").write_text("text")
    os.symlink(tmp_path / "elsewhere", tmp_path / "deep" / "link")
    found = folders.scan(tmp_path, SUFFIXES)
    names = [str(path.relative_to(tmp_path)) for path in found.files]
    assert names == ["a.png", "b.avif", "c.gif", "deep/d.jp2", "elsewhere/e.png"]
    assert found.summary() == (
        "1 .nef files, 1 folders behind symbolic links, 1 without a suffix files"
    )


def test_a_folder_that_cannot_be_read_is_an_error(pictures, llic, monkeypatch, capsys):
    (pictures / "closed").mkdir()
    walk = os.walk

    def refusing(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(pictures / "closed")))
        return walk(folder)

    monkeypatch.setattr(os, "walk", refusing)
    assert llic("compress", pictures, pictures / "new/") == 1
    captured = capsys.readouterr()
    assert "closed: Permission denied" in captured.err and "2 of 2 files done" in captured.out
    from llic_jax.data.image_files import image_files

    with pytest.raises(LlicError, match="closed cannot be read"):
        image_files(pictures)


def test_hidden_colours_cost_nothing(tmp_path, photograph, llic, capsys):
    alpha = np.zeros((64, 64), np.uint8)
    alpha[16:48, 16:48] = 255
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name, hidden in (("noise", noise), ("black", np.zeros_like(noise))):
        rgb = np.where(alpha[..., None] > 0, photograph[:64, :64], hidden)
        Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / f"{name}.png")
    assert (
        llic("compress", tmp_path / "noise.png", tmp_path / "black.png", f"{tmp_path}/", "--psnr")
        == 0
    )
    assert (tmp_path / "noise.llic").read_bytes() == (tmp_path / "black.llic").read_bytes()
    lines = [line for line in capsys.readouterr().out.splitlines() if "PSNR" in line]
    assert len({line.split("PSNR")[1].split()[0] for line in lines}) == 1


def test_16_bits_are_refused_or_converted_when_told_to(tmp_path, llic, capsys):
    deep = np.full((40, 50), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert llic("compress", tmp_path / "deep.png", tmp_path / "x.llic") == 1
    assert "--to_8bit" in capsys.readouterr().err
    assert llic("compress", tmp_path / "deep.png", tmp_path / "x.llic", "--to_8bit") == 0
    assert "16 bits a channel are converted to 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target_bpp", "nan"), "nan is no number above 0"),
        (("--target_psnr", "inf"), "inf is no number above 0"),
        (("--memory_gb", "-1"), "-1 is no number above 0"),
        (("--effort", "1", "--effort_seconds", "nan"), "nan is no time"),
        (("--effort", "-1"), "-1 is less than 0"),
        (("--effort", "nans"), "nan is no time"),
        (("--effort", "much"), "'much' is no effort; name steps, such as 60, or a time"),
        (("--effort", "s"), "'s' is no effort"),
        (("--workers", "0"), "0 is less than 1"),
    ],
)
def test_numbers_that_are_none_are_bad_usage(pictures, llic, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        llic("compress", pictures / "a.png", pictures / "x.llic", *arguments)
    assert exit_.value.code == 2 and message in capsys.readouterr().err


def test_options_that_go_nowhere_are_refused(pictures, llic, capsys):
    assert llic("decompress", pictures / "a.llic", pictures / "new/", "--format", "") == 1
    assert "--format ''" in capsys.readouterr().err
    batch = ("--effort_seconds", 3, "--batch", 2)
    assert llic("compress", pictures / "a.png", pictures / "x.llic", *batch) == 1
    assert "leave --batch out" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs signals")
def test_an_interrupt_ends_the_process_at_once(pictures):
    """A worker that cannot be told to stop: the process ends, with 130, and leaves nothing."""
    code = f"""
import pathlib, os, signal, threading, time, sys
from llic_jax.cli import batch, main
from llic_jax.system import files
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
def work(jobs):
    with files.whole_file(jobs[0].target) as temporary:
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
job = batch.FileTask(pathlib.Path("a"), pathlib.Path({str(pictures / "x.llic")!r}))
class Args:
    command = staticmethod(lambda args: batch.run(batch.FileTasks([job], [], []), work, 1))
class Parser:
    parse_known_args = staticmethod(lambda argv: (Args, []))
main._parser = Parser
sys.exit(main.main([]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=55)
    assert ended.returncode == 130, ended.stderr
    assert b"interrupted" in ended.stderr and b"Traceback" not in ended.stderr
    assert sorted(path.name for path in pictures.iterdir()) == ["a.png", "b.png"]


def test_bytes_behind_the_end_are_said(tiny_codec, photograph):
    data = tiny_codec.encode([photograph[:50, :60]], sections=[{200: b"a section"}])[0].data
    for more in (b"\0", b"\0" * 9, b"x" * 300):
        with pytest.raises(CorruptError, match=f"^{len(more)} bytes follow the end"):
            LlicFile.from_bytes(data + more)


def test_what_the_codec_takes(tiny_codec, photograph, tmp_path):
    image = photograph[:50, :60]
    data = tiny_codec.compress(image)
    assert tiny_codec.compress(Image.fromarray(image)) == data
    for kind in (bytearray, memoryview):
        decoded = tiny_codec.decompress(kind(data))
        np.testing.assert_array_equal(decoded, tiny_codec.decompress(data))
    decoded[0, 0] = 0  # an array of one's own
    for wrong in (tmp_path, "a.png", [1, 2], None):
        with pytest.raises(TypeError, match=r"expected an image.*array") as error:
            tiny_codec.compress(wrong)
        assert isinstance(error.value, LlicError)
        with pytest.raises(TypeError, match=r"expected the bytes") as error:
            tiny_codec.decompress(wrong)
        assert isinstance(error.value, LlicError)


def test_a_pattern_goes_into_the_file_another_way(tmp_path, llic, capsys):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "in.png")
    assert llic("compress", tmp_path / "in.png", tmp_path / "x.llic", "--psnr") == 0
    assert "as lossless WebP" in capsys.readouterr().out
    assert llic("info", tmp_path / "x.llic") == 0
    assert "as lossless WebP" in capsys.readouterr().out
    assert llic("decompress", tmp_path / "x.llic", tmp_path / "out.png") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), stripes)
    strict = tmp_path / "strict.llic"
    assert llic("compress", tmp_path / "in.png", strict, "--strict_llic") == 0
    capsys.readouterr()
    assert llic("info", strict) == 0
    assert "by the networks" in capsys.readouterr().out
