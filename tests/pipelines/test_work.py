"""Shards by name, settings that must not change, notes on what was skipped."""

import json
import os

import pytest

from llic_jax.errors import DataError, OutputError, PipelineError
from llic_jax.pipelines.work import (
    Skipped,
    State,
    Summary,
    count_skipped,
    names_digest,
    read_names,
    shard_of,
)


def test_a_shard_depends_on_the_name_alone():
    # Fixed: a later version must find the shards of an earlier one.
    assert [shard_of(name, 16) for name in ("a.png", "below/b.jpg", "ü.png")] == [8, 7, 0]
    counts = [0] * 8
    for i in range(4000):
        counts[shard_of(f"{i}.jpg", 8)] += 1
    assert min(counts) > 400 and max(counts) < 600
    assert shard_of(os.fsdecode(b"\xff.png"), 8) in range(8)  # a name that is no text


def test_lists_of_names_are_told_apart():
    assert names_digest(["ab", "c"]) != names_digest(["a", "bc"])
    assert names_digest(["a", "b"]) != names_digest(["b", "a"])


def test_names_come_back(tmp_path):
    state = State.begin(tmp_path, "work", {})
    names = ["a.png", "ü.png", os.fsdecode(b"\xff.png")]
    path = state.keep_names(names)
    assert read_names(path) == names
    assert state.keep_names(names) == path and state.keep_names(names[:1]) != path
    with pytest.raises(DataError, match="every machine sees"):
        read_names(tmp_path / "nowhere.json")


def test_other_settings_are_refused(tmp_path):
    State.begin(tmp_path, "work", {"reduce": 1.5, "sizes": (1, 2)})
    State.begin(tmp_path, "work", {"reduce": 1.5, "sizes": (1, 2)})
    State.begin(tmp_path, "other", {"reduce": 2.0})
    with pytest.raises(PipelineError, match=r"reduce was 1.5 and is 2.0.*name another output"):
        State.begin(tmp_path, "work", {"reduce": 2.0, "sizes": (1, 2)})
    with pytest.raises(PipelineError, match="quality was None and is 3"):
        State.begin(tmp_path, "work", {"reduce": 1.5, "sizes": (1, 2), "quality": 3})


def test_a_damaged_plan_is_told(tmp_path):
    state = State.begin(tmp_path, "work", {})
    (state.folder / "plan.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be used"):
        State.begin(tmp_path, "work", {})


def test_failures_are_those_of_one_run(tmp_path):
    state = State.begin(tmp_path, "work", {})
    state.fail("shard", 3, "it has changed")
    assert state.failures() == ["it has changed"]
    assert State.begin(tmp_path, "work", {}).failures() == []


def test_skipped_files_are_noted_once_and_taken_back(tmp_path):
    state = State.begin(tmp_path, "work", {})
    for _ in range(2):  # a retry
        state.skip(Skipped("a.png", "cannot be read", "truncated"))
    state.skip(Skipped("b.png", "too small", "3 x 3"))
    assert count_skipped(list(state.all_skipped())) == {
        "skipped, cannot be read": 1,
        "skipped, too small": 1,
    }
    state.take_back("a.png")
    state.take_back("a.png")
    assert [one.name for one in state.all_skipped()] == ["b.png"]
    assert all(json.loads(p.read_text()) for p in state.folder.glob("skipped-*"))


def test_missing_is_what_nobody_counted():
    assert Summary(5, {"files": 3, "skipped, too small": 1}, {"bytes": 100}).missing == 1
