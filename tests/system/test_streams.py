"""A command finishes although nobody reads what it shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from llic_jax.errors import DataError
from llic_jax.system import streams

GOLDEN = Path(__file__).parents[2] / "llic_jax/released/llic-elic-small-10/golden.llic"

CODE = """
import sys
from llic_jax.system import streams
with streams.unbreakable():
    for i in range(20000):
        print(i)
        print(i, file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("redirection", ["| head -1", "2>&1 | head -1", "2>&- >&-", ">&-", "2>&-"])
def test_everything_is_done(redirection, tmp_path):
    command = f'"$0" -c "$1" "$2" {redirection}; echo "${{PIPESTATUS[0]}}" > "$2.status"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, CODE, str(tmp_path / "file")],
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "file").read_text() == "done"
    assert (tmp_path / "file.status").read_text() == "0\n"
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        ("| head -c 1 > {out}", 0, ""),
        ("2>&-", 0, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("> /dev/full", 1, "No space left on device"),
    ],
)
def test_the_command_line_goes_through_it(redirection, status, said, tmp_path):
    """Of `llic`; the other commands go through the same function."""
    redirection = redirection.format(out=tmp_path / "out")
    command = f'"$0" -m llic_jax info "$1" {redirection}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(GOLDEN)], capture_output=True, text=True
    )
    assert done.returncode == status and said in done.stderr, done.stderr
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr


def test_data_from_a_closed_stream_is_an_error():
    command = '"$0" -m llic_jax info - <&-'
    done = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, text=True)
    assert done.returncode == 1 and "Standard input is closed" in done.stderr


def test_data_into_a_closed_stream_is_an_error(monkeypatch, tmp_path):
    from llic_jax.system.files import STANDARD, whole_file

    monkeypatch.setattr(sys, "stdout", None)

    def work():
        with whole_file(STANDARD) as temporary:
            temporary.write_bytes(b"data")

    assert streams.run_command("test", work) == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (DataError("No images."), 1, "command: No images.\n"),
        (FileNotFoundError(2, "No such file or directory", "a"), 1, "command: a: No such file"),
        (OSError("broken"), 1, "command: broken\n"),
        (KeyboardInterrupt(), 130, "command: interrupted\n"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(error, status, said, capsys):
    def work():
        if error is not None:
            raise error

    assert streams.run_command("command", work) == status
    captured = capsys.readouterr().err
    assert captured.startswith(said) and captured.count("\n") == (1 if said else 0)


def test_every_command_goes_through_it():
    """A command of its own kind would forget one of these again."""
    package = Path(streams.__file__).parents[1]
    for path in package.rglob("*.py"):
        text = path.read_text()
        if '__name__ == "__main__"' in text:
            assert "run_command(" in text or "interrupts." in text, path
