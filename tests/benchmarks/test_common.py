"""The benchmarks' timing loop and reference product; and every benchmark starts."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
# The others are what benchmarks share.
BENCHMARKS = sorted(p.stem for p in FOLDER.glob("*.py") if "__main__" in p.read_text())


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.syspath_prepend(FOLDER)  # `common` puts the root before it; both go afterwards
    return __import__("common")


def test_calls_take_turns(common):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = common.fastest(calls, rounds=3)
    assert order == ["a", "b"] * 4  # before the first timing, each is called once
    assert seconds.keys() == calls.keys() and all(t >= 0 for t in seconds.values())


def test_the_lesser_times(common):
    assert common.least({"a": 1.0, "b": 2.0}, {"b": 1.5, "c": 3.0}) == {
        "a": 1.0,
        "b": 1.5,
        "c": 3.0,
    }


def test_a_failing_process_is_an_error(common):
    with pytest.raises(Exception, match="exit status 3"):
        common.run_process(["-c", "raise SystemExit(3)"])
    assert common.last_line(common.run_process(["-c", "print('x'); print([1])"])[0]) == [1]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_measures(common, name, monkeypatch, capsys):
    if name == "torch_transforms":
        pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out
