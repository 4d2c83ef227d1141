"""Runs that are killed, and whose disk is full or gone, end as if nothing had happened."""

import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_nothing_is_lost(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    kills = __import__("kills")
    monkeypatch.setattr(sys, "argv", ["kills", "--kills=4", "--disks=4", "--steps=20"])
    assert kills.main() == 0, capsys.readouterr().out
