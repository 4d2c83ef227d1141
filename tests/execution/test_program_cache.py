import gc
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import jax
import jax.extend
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
        program_cache.cached_jit,
        "_compile",
        autospec=True,
        side_effect=program_cache.cached_jit._compile,
    ) as compile_:
        yield compile_


def negative(x):
    return -x


def scaled(canvas, x, factor):
    return canvas.mask(x) * factor


def test_a_program_is_found_again(folder, compiled):
    canvas, x = Canvas((6, 2), np.array((5, 1), np.int32)), np.ones((1, 6, 2, 3), np.float32)
    for _ in range(3):
        program = program_cache.cached_jit(scaled, "one", static_argnums=(2,))
        np.testing.assert_array_equal(program(canvas, x, 2), 2 * canvas.place(canvas.crop(x)))
    assert compiled.call_count == 1
    program(canvas, x, 3)
    program(canvas, x[..., :2], 3)
    program_cache.cached_jit(scaled, "another", static_argnums=(2,))(canvas, x, 2)
    assert compiled.call_count == 4 == len(list(folder.iterdir()))


def test_programs_used_longest_ago_make_room(folder, compiled, monkeypatch):
    x = np.arange(3.0, dtype=np.float32)
    first, second = (program_cache.cached_jit(negative, name) for name in ("first", "second"))
    first(x), second(x)
    old, used = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in (old, used):
        os.utime(path, (1, 1))
    program_cache.cached_jit(negative, "second")(x)  # found, and so used now
    assert compiled.call_count == 2
    monkeypatch.setattr(program_cache, "_MAX_BYTES", 2 * used.stat().st_size + 100)
    program_cache.cached_jit(negative, "third")(x)
    assert used in folder.iterdir() and old not in folder.iterdir()
    assert len(list(folder.iterdir())) == 2


def test_what_cannot_be_read_is_compiled_anew(folder, compiled):
    x = np.arange(3.0, dtype=np.float32)
    for content in (None, b"", b"no program"):
        for path in folder.glob("*") if content is not None else []:
            path.write_bytes(content)
        assert program_cache.cached_jit(negative, "")(x)[2] == -2
    assert compiled.call_count == 3
    folder.chmod(0o500)
    assert program_cache.cached_jit(negative, "other")(x)[2] == -2
    folder.chmod(0o700)


def test_what_is_not_to_be_kept_or_part_of_another_program_is_jitted_as_ever(folder, compiled):
    x = np.arange(3.0, dtype=np.float32)
    kept = program_cache.cached_jit(negative, "")
    assert program_cache.cached_jit(negative, None)(x)[2] == -2
    assert jax.jit(lambda x: kept(x) + 1)(x)[2] == -1
    with jax.disable_jit():
        assert kept(x)[2] == -2
    assert compiled.call_count == 0 and not folder.exists()


def test_a_codec_of_kept_programs_codes_as_any_other(folder, compiled, tiny_codec, photograph):
    expected = tiny_codec.compress(photograph)

    def codec() -> Codec:
        return Codec(tiny_codec.model, tiny_codec.options)

    first = codec()
    data = first.compress(photograph)
    image = first.decompress(data)
    programs = compiled.call_count
    assert programs > 10
    made = [
        program
        for function in first.networks.programs.values()
        for size in function._sizes.values()
        for program in size.programs.values()
    ]
    # JAX before 0.6.2 would lose it on disk.
    assert len(made) > 10 and not any(map(program_cache.has_open_loop, made))
    assert data == codec().compress(photograph) == expected
    np.testing.assert_array_equal(image, codec().decompress(data))
    np.testing.assert_array_equal(image, tiny_codec.decompress(expected))
    assert compiled.call_count == programs


@pytest.mark.slow
def test_codecs_that_choose_symbols_otherwise_share_no_program(folder, tiny_codec, photograph):
    frugal, plain = (Codec(tiny_codec.model, EncoderOptions(weight)) for weight in (2.0, 0.0))
    assert len(frugal.compress(photograph)) < len(plain.compress(photograph))


@pytest.mark.slow
def test_another_process_compiles_nothing(tiny_release, tmp_path):
    """Programs that were kept are loaded before anything of the kind was traced."""
    script = (
        "import sys, numpy as np\n"
        "from llic_jax.execution import program_cache\n"
        "from llic_jax.zoo.folder import load_codec\n"
        "program_cache.enable()\n"
        "if sys.argv[2:]: program_cache.cached_jit._compile = None\n"
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


def jitted(name, **settings):
    return program_cache.cached_jit(negative, name, **settings)


def test_programs_are_stored_for_their_owner_alone_and_read_only_if_nobody_else_can_write(
    folder, compiled, caplog
):
    x = np.arange(3.0, dtype=np.float32)
    jitted("a")(x)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o022 == 0
    for mode in (0o770, 0o707, 0o777):
        folder.chmod(mode)
        program_cache._warn_of.cache_clear()
        assert jitted("a")(x)[2] == -2
        assert "others can write there" in caplog.text
    assert compiled.call_count == 4 and list(folder.iterdir()) == [path]
    folder.chmod(0o755)
    jitted("a")(x)
    assert compiled.call_count == 4


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_program_with_a_flipped_bit_is_not_unpickled(folder, compiled, at):
    x = np.arange(3.0, dtype=np.float32)
    jitted("a")(x)
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with mock.patch.object(program_cache.pickle, "loads", side_effect=AssertionError) as loads:
        assert jitted("a")(x)[2] == -2
    assert compiled.call_count == 2 and not loads.called
    jitted("a")(x)  # stored anew, and sound
    assert compiled.call_count == 2


def test_a_disk_that_is_full_leaves_nothing_behind(folder, compiled, monkeypatch):
    x = np.arange(3.0, dtype=np.float32)

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert jitted("a")(x)[2] == -2
    assert list(folder.iterdir()) == []


def test_a_cache_that_may_only_be_read_is_used(folder, compiled, monkeypatch):
    x = np.arange(3.0, dtype=np.float32)
    jitted("a")(x)

    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    for name in ("touch", "mkdir", "write_bytes", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refused if name != "mkdir" else lambda *_, **__: None)
    assert jitted("a")(x)[2] == -2
    assert compiled.call_count == 1


def test_threads_that_need_the_same_program_compile_it_once(folder, monkeypatch):
    x, started, calls = np.arange(3.0, dtype=np.float32), threading.Barrier(8), []
    before = dict(jax.config.values)
    compile_ = program_cache.cached_jit._compile

    def slow(self, *args):
        calls.append(threading.get_ident())
        time.sleep(0.2)
        program = compile_(self, *args)
        assert jax.config.values == before  # those of all threads
        return program

    monkeypatch.setattr(program_cache.cached_jit, "_compile", slow)
    programs = [jitted("a"), jitted("a"), jitted("b")]
    found = []

    def use(i):
        started.wait()
        found.append(programs[i % 3](x)[2])

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [-2.0] * 8 and len(calls) == 2
    assert dict(jax.config.values) == before


def test_what_threads_compile_is_not_in_jax_s_cache_too(folder, tmp_path, monkeypatch):
    code = (
        "import sys, numpy as np\n"
        "from llic_jax.execution import program_cache\n"
        "program_cache.enable()\n"
        "import jax\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "def negated(x): return -x\n"
        "program = program_cache.cached_jit(negated, 'a')\n"
        "assert program(np.ones(3, np.float32))[0] == -1\n"
        "assert jax.config.values['jax_persistent_cache_min_compile_time_secs'] == 0\n"
    )
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert "whole" in names and len(names) > 1 and not any("negated" in name for name in names)
    assert len(list((tmp_path / "cache" / "whole").iterdir())) == 1


def doubled(x):
    """A loop whose rounds depend on `x`."""
    return jax.lax.while_loop(lambda x: x.max() < 100, lambda x: 2 * x, x)


def doubled_thrice(x):
    return jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, x)


@pytest.mark.parametrize("loads", [True, False])
def test_loops_that_jax_would_lose_are_not_stored(folder, loads, monkeypatch):
    monkeypatch.setattr(program_cache, "_LOADS_LOOPS", (0, 0, 0) if loads else (99, 0, 0))
    x = np.ones(3, np.float32)
    assert program_cache.cached_jit(doubled_thrice, "a")(x)[0] == 8
    assert len(list(folder.iterdir())) == 1
    assert program_cache.cached_jit(doubled, "a")(x)[0] == 128
    assert len(list(folder.iterdir())) == (2 if loads else 1)


def test_another_process_runs_every_loop(tmp_path):
    """JAX 0.5.3 runs no round of a loop in a CPU's program from disk."""
    code = (
        "import numpy as np, jax\n"
        "from llic_jax.execution import program_cache\n"
        "def doubled(x): return jax.lax.while_loop(lambda x: x.max() < 100, lambda x: 2 * x, x)\n"
        "program_cache.enable()\n"
        "x = np.ones(3, np.float32)\n"
        "if jax.config.jax_compilation_cache_dir:\n"
        "    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "print(program_cache.cached_jit(doubled, 'a')(x)[0], jax.jit(doubled)(x)[0])\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE
        )
        assert done.stdout.split() == [b"128.0", b"128.0"]


@pytest.mark.parametrize("stored", [pytest.param(False, marks=pytest.mark.slow), True])
def test_only_the_sizes_used_last_stay_in_memory(stored, request, monkeypatch):
    if stored:
        request.getfixturevalue("folder")
    else:
        monkeypatch.setattr(program_cache, "_folder", None)

    def alive() -> int:
        gc.collect()
        return len(jax.extend.backend.get_backend().live_executables())

    monkeypatch.setattr(program_cache, "_MAX_SIZES", 2)
    program = program_cache.cached_jit(lambda x, k: x * k, "a", static_argnums=(1,))
    held, before = [], alive()
    for side in range(1, program_cache._MAX_SIZES + 3):
        x = np.ones((1, side, 4, 2), np.float32)
        for k in (2, 3):
            assert np.all(np.asarray(program(x, k)) == k)
        held.append(alive() - before)
        assert program.count() == 2 * min(side, program_cache._MAX_SIZES)
    assert max(held) <= 2 * program_cache._MAX_SIZES and held[0] == 2


@pytest.mark.parametrize("home", ["no home", "read-only", "a file", "writable by others"])
def test_a_command_goes_on_without_a_cache(home, tmp_path):
    """No traceback, no word, and no partial files."""
    place = tmp_path / "home"
    place.mkdir()
    environment = {**os.environ, "XDG_CACHE_HOME": str(place)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    prelude = ""
    if home == "no home":  # as with HOME unset, and a user that the system does not know
        del environment["XDG_CACHE_HOME"]
        prelude = "import os\nos.path.expanduser = lambda path: path\n"
    elif home == "read-only":
        prelude = (
            "import os\n"
            "def refused(*_, **__): raise OSError(30, 'Read-only file system')\n"
            "os.mkdir = refused\n"
        )
    elif home == "a file":
        (place / "llic_jax").touch()
    else:
        (place / "llic_jax" / "compiled" / "whole").mkdir(parents=True)
        (place / "llic_jax" / "compiled" / "whole").chmod(0o777)
    code = prelude + (
        "import numpy as np\n"
        "from llic_jax.execution import program_cache\n"
        "program_cache.enable()\n"
        "def f(x): return -x\n"
        "assert program_cache.cached_jit(f, 'a')(np.ones(3, np.float32))[0] == -1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert ("others can write" in done.stderr) == (home == "writable by others")
    left = [path for path in place.rglob("*") if path.is_file()]
    assert left == ([place / "llic_jax"] if home == "a file" else [])


ON_TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from llic_jax.execution import placement, program_cache

def sums(x, y):
    return x + y

program_cache.enable()
first, second = jax.devices()
x = np.ones(3, np.float32)
for default in (first, second):
    with placement.computing_on(default):
        arguments = [
            (x, default, False),
            (jnp.ones(3), default, False),
            (jax.device_put(x, first), first, True),
            (jax.device_put(x, second), second, True),
        ]
        for y in (x, jnp.ones(3)):
            # One that is stored, or found on disk, and one that is not.
            for program in [program_cache.cached_jit(sums, name) for name in ("a", None)]:
                for argument, device, committed in arguments:
                    found = program(argument, y)
                    assert found.devices() == {device} and found.committed == committed
                    assert (np.asarray(found) == 2).all()
try:
    program_cache.cached_jit(sums, "a")(jax.device_put(x, first), jax.device_put(x, second))
except ValueError as error:
    assert "incompatible devices" in str(error)
else:
    raise AssertionError
with jax.default_device("cpu"):
    assert placement.default_device() == first
"""


def test_a_program_computes_where_its_arguments_are(tmp_path):
    """And its results stay there, as those of `jax.jit`."""
    count = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {count}"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path)
    for _ in range(2):
        command = [sys.executable, "-c", ON_TWO_DEVICES]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(list((tmp_path / "whole").iterdir())) == 2  # one for each device
