"""Files of JSON lines: whole lines only, in and out."""

import os
import resource
import signal
from pathlib import Path

import pytest

from llic_jax.errors import JsonLinesError
from llic_jax.system import json_lines


def test_what_is_appended_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    entries = [{"a": 1}, {"name": "\u00fc\n", "b": None}]
    for entry in entries:
        json_lines.append(path, entry)
    assert json_lines.read(path) == entries


def test_an_unfinished_line_is_ignored_and_removed(tmp_path):
    path = tmp_path / "a.jsonl"
    json_lines.repair(path)
    assert not path.exists()
    json_lines.append(path, {"a": 1})
    whole = path.read_bytes()
    for length in range(1, 8):
        path.write_bytes(whole + b'{"a": 2}'[:length])
        assert json_lines.read(path) == [{"a": 1}]
        json_lines.repair(path)
        assert path.read_bytes() == whole
    json_lines.append(path, {"a": 3})
    assert json_lines.read(path) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[1]", b"\0\0", b""])
def test_a_damaged_whole_line_is_an_error_with_its_number(line, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(JsonLinesError, match=r"a\.jsonl, line 2, is no JSON"):
        json_lines.read(path)
    assert json_lines.read(path, skip_damaged=True) == [{"a": 1}]


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.jsonl"
    json_lines.append(path, {"a": 1})
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, limits[1]))
    try:
        with pytest.raises(OSError):
            json_lines.append(path, {"a": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == whole and os.listdir(tmp_path) == ["a.jsonl"]


def test_a_number_that_is_not_finite_is_no_json(tmp_path):
    with pytest.raises(ValueError):
        json_lines.append(tmp_path / "a.jsonl", {"a": float("inf")})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said_with_the_file_s_name():
    with pytest.raises(OSError, match="No space left") as error:
        json_lines.append("/dev/full", {"step": 1})
    assert error.value.filename == "/dev/full"
