import os
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest

from llic_jax.codec.codec import Codec
from llic_jax.execution import program_cache
from llic_jax.execution.canvas import Canvas
from llic_jax.models.encoder_options import EncoderOptions


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(program_cache, "_folder", tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def compiled():
    """How many programs were compiled."""
    with mock.patch.object(
        program_cache.jit, "_compile", autospec=True, side_effect=program_cache.jit._compile
    ) as compile_:
        yield compile_


def negative(x):
    return -x


def scaled(canvas, x, factor):
    return canvas.keep(x) * factor


def test_a_program_is_found_again(folder, compiled):
    canvas, x = Canvas((6, 2), np.array((5, 1), np.int32)), np.ones((1, 6, 2, 3), np.float32)
    for _ in range(3):
        program = program_cache.jit(scaled, "one", static_argnums=(2,))
        np.testing.assert_array_equal(program(canvas, x, 2), 2 * canvas.put(canvas.crop(x)))
    assert compiled.call_count == 1
    program(canvas, x, 3)
    program(canvas, x[..., :2], 3)
    program_cache.jit(scaled, "another", static_argnums=(2,))(canvas, x, 2)
    assert compiled.call_count == 4 == len(list(folder.iterdir()))


def test_programs_used_longest_ago_make_room(folder, compiled, monkeypatch):
    x = np.arange(3.0, dtype=np.float32)
    first, second = (program_cache.jit(negative, name) for name in ("first", "second"))
    first(x), second(x)
    old, used = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in (old, used):
        os.utime(path, (1, 1))
    program_cache.jit(negative, "second")(x)  # found, and so used now
    assert compiled.call_count == 2
    monkeypatch.setattr(program_cache, "_MOST_BYTES", 2 * used.stat().st_size + 100)
    program_cache.jit(negative, "third")(x)
    assert used in folder.iterdir() and old not in folder.iterdir()
    assert len(list(folder.iterdir())) == 2


def test_what_cannot_be_read_is_compiled_anew(folder, compiled):
    x = np.arange(3.0, dtype=np.float32)
    for content in (None, b"", b"no program"):
        for path in folder.glob("*") if content is not None else []:
            path.write_bytes(content)
        assert program_cache.jit(negative, "")(x)[2] == -2
    assert compiled.call_count == 3
    folder.chmod(0o500)
    assert program_cache.jit(negative, "other")(x)[2] == -2
    folder.chmod(0o700)


def test_what_is_not_to_be_kept_or_part_of_another_program_is_jitted_as_ever(folder, compiled):
    x = np.arange(3.0, dtype=np.float32)
    kept = program_cache.jit(negative, "")
    assert program_cache.jit(negative, None)(x)[2] == -2
    assert jax.jit(lambda x: kept(x) + 1)(x)[2] == -1
    with jax.disable_jit():
        assert kept(x)[2] == -2
    assert compiled.call_count == 0 and not folder.exists()


def test_a_codec_of_kept_programs_codes_as_any_other(folder, compiled, tiny_codec, photograph):
    expected = tiny_codec.compress(photograph)

    def codec() -> Codec:
        return Codec(tiny_codec.model, tiny_codec.options)

    data = codec().compress(photograph)
    image = codec().decompress(data)
    programs = compiled.call_count
    assert programs > 10
    assert data == codec().compress(photograph) == expected
    np.testing.assert_array_equal(image, codec().decompress(data))
    np.testing.assert_array_equal(image, tiny_codec.decompress(expected))
    assert compiled.call_count == programs


def test_codecs_that_choose_symbols_otherwise_share_no_program(folder, tiny_codec, photograph):
    frugal, plain = (Codec(tiny_codec.model, EncoderOptions(weight)) for weight in (2.0, 0.0))
    assert len(frugal.compress(photograph)) < len(plain.compress(photograph))


def test_another_process_compiles_nothing(tiny_release, tmp_path):
    """Programs that were kept are loaded before anything of the kind was traced."""
    script = (
        "import sys, numpy as np\n"
        "from llic_jax.execution import program_cache\n"
        "from llic_jax.zoo.folder import load_codec\n"
        "program_cache.enable()\n"
        "if sys.argv[2:]: program_cache.jit._compile = None\n"
        "codec = load_codec(sys.argv[1])\n"
        "image = np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)\n"
        "data = codec.compress(image)\n"
        "print(data.hex(), int(codec.decompress(data).sum()))\n"
    )
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-c", script, str(tiny_release), *more],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        for more in ([], ["no compiling"])
    ]
    assert found[0] == found[1] != b""
