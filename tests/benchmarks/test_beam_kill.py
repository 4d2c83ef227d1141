"""Beam pipelines that are killed and started again: nothing is lost, nothing is there twice."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.pipelines.pictures import smooth


@pytest.mark.slow
def test_nothing_is_lost(tmp_path, monkeypatch, capsys):
    pytest.importorskip("apache_beam")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    beam_kill = __import__("beam_kill")
    for i in range(30):
        smooth(i, 700, 500).save(tmp_path / f"{i}.png")
    shutil.copy(tmp_path / "3.png", tmp_path / "twin.png")
    arguments = ["beam_kill", str(tmp_path), "--kills=1", "--shards=15", "--sample=5"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert beam_kill.main() == 0, capsys.readouterr().out
    assert "30 records, 30 of them different" in capsys.readouterr().out
