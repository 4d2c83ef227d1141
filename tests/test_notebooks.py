"""The notebooks of docs/notebooks: they run from top to bottom, and show what one run made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# What is shortened for the test: nobody waits for minutes to learn that a cell runs.
SHORTER = {
    "STEPS = 400": "STEPS = 3",
    "range(1, 9)": "(1, 8)",
    "(5, 8, 12, 20, 30, 45, 60, 75)": "(5, 75)",
}


def _cells(notebook: Path) -> list[dict]:
    return [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]


def test_there_are_notebooks():
    assert [notebook.stem for notebook in NOTEBOOKS] == ["own_transform", "tour"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_of_one_run_without_errors(notebook: Path):
    cells = _cells(notebook)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "display_data" in kinds and "error" not in kinds
    shown = json.dumps([cell["outputs"] for cell in cells])
    assert str(Path.home()) not in shown and notebook.stat().st_size < 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, tmp_path: Path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("skimage")
    source = "\n".join("".join(cell["source"]) for cell in _cells(notebook))
    for long, short in SHORTER.items():
        source = source.replace(long, short)
    script = tmp_path / "notebook.py"
    script.write_text(source)
    run = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({str(script)!r})"
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", run], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
