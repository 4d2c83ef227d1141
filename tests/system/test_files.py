"""Outputs appear whole, wherever permissions cannot be set, and leave nothing behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llic_jax.system import files

KILLED = """
import os, signal, sys
from llic_jax.system.files import whole_file
with whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_refused_chmod_does_not_lose_the_file(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "a"
    path.write_text("old")
    for module, name in ((os, "chmod"), (os, "chown"), (Path, "chmod")):
        monkeypatch.setattr(module, name, refused)
    with files.whole_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "b")], check=False)
    assert len(os.listdir(tmp_path)) == 1
    living = tmp_path / f".{files._machine()}-{os.getppid()}-{'0' * 16}.part"
    elsewhere = tmp_path / f".00000000-1-{'0' * 16}.part"
    forgotten = tmp_path / f".00000000-2-{'0' * 16}.part"
    for path in (living, elsewhere, forgotten):
        path.touch()
    os.utime(forgotten, (1, 1))
    with files.whole_file(tmp_path / "a") as temporary:
        temporary.touch()
    assert sorted(os.listdir(tmp_path)) == sorted([living.name, elsewhere.name, "a"])


def test_a_write_that_fails_has_the_output_s_name(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, files.whole_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.filename == str(tmp_path / "a") and not list(tmp_path.iterdir())
