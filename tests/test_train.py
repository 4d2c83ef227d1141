"""train.py as a command."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_help_may_be_cut_short():
    read, write = os.pipe()
    os.close(read)  # as `| head` does
    command = [sys.executable, "train.py", "--help"]
    done = subprocess.run(
        command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert "cannot be read" not in done.stderr and "Traceback" not in done.stderr


def test_nothing_is_compiled_where_it_would_be_lost(tmp_path):
    command = [sys.executable, "train.py", "--config", "smoke", "--compile_only"]
    command += ["--config.data.source", str(tmp_path)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "--programs FOLDER" in done.stderr
