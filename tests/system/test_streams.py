"""A command finishes although nobody reads what it shows."""

import subprocess
import sys

import pytest

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
