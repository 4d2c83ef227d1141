"""A training set is complete, in whatever order and however often its units are done."""

import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from llic_jax.data.sources import open_source
from llic_jax.errors import DataError, PipelineError
from llic_jax.pipelines.prepare import Preparation
from llic_jax.pipelines.selection import Selection
from tests.pipelines.pictures import EXPECTED, SIZE, content, do_all

SELECTION = Selection(least=64)


def begin(photographs, output, shards=4, selection=SELECTION):
    return Preparation.begin([photographs], output, "set", shards, selection)


def written(plan):
    return {p.name: p.read_bytes() for p in plan.output.glob("*.array_record")}


def decoded(plan):
    source = open_source(f"records:{plan.output}/set-*.array_record")
    return [source[i] for i in range(len(source))]


def test_every_file_is_counted_once(photographs, tmp_path):
    plan = begin(photographs, tmp_path)
    counts = do_all(plan)
    summary = plan.summary()
    assert summary.counted == EXPECTED and summary.missing == 0
    assert {name: counts[name] for name in EXPECTED} == EXPECTED
    assert summary.found == len(content(photographs)) == sum(EXPECTED.values())
    kinds = {one.name: one.kind for one in summary.skipped}
    assert kinds == {
        "clear.png": "transparent",
        "tiny.png": "too small",
        "truncated.png": "cannot be read",
        "twin.png": "duplicate",
        "words.jpg": "cannot be read",
    }


def test_the_records_are_the_photographs(photographs, tmp_path):
    plan = begin(photographs, tmp_path)
    do_all(plan)
    found = {image.shape[1]: image for image in decoded(plan)}
    assert len(found) == 8
    for name in content(photographs):
        if name.rpartition("/")[2][0].isdigit():
            image = np.asarray(Image.open(photographs / name))
            assert image.shape[0] == SIZE and np.array_equal(found[image.shape[1]], image)


def test_a_second_run_does_what_is_missing(photographs, tmp_path):
    whole = begin(photographs, tmp_path / "whole")
    do_all(whole)
    plan = begin(photographs, tmp_path / "set")
    do_all(plan, limit=2)
    part = plan.summary()
    assert part.more["shards"] == 2 and part.missing > 0
    early = {p.name: p.stat().st_mtime_ns for p in plan.output.glob("*.array_record")}
    again = begin(photographs, tmp_path / "set")
    assert again.steps[0].missing() == [] and again.steps[1].missing() == [2, 3]
    do_all(again)
    assert again.summary() == whole.summary()
    assert written(again) == written(whole)
    late = {p.name: p.stat().st_mtime_ns for p in again.output.glob("*.array_record")}
    assert early.items() <= late.items()
    assert do_all(begin(photographs, tmp_path / "set")) == {}


def test_units_that_are_repeated_change_nothing(photographs, tmp_path):
    plan = begin(photographs, tmp_path)
    do_all(plan)
    before, summary = written(plan), plan.summary()
    for step in plan.steps:
        for worker in (step.open(), step.open()):  # two processes
            for unit in range(plan.shards):
                worker.do(unit)
    assert written(plan) == before and plan.summary() == summary


def test_a_worker_may_be_made_before_the_digests_are_there(photographs, tmp_path):
    plan = begin(photographs, tmp_path)
    digests, shards = (step.open() for step in plan.steps)
    for worker in (digests, shards):
        for unit in range(plan.shards):
            worker.do(unit)
    assert plan.summary().counted == EXPECTED


def test_a_shard_without_its_note_or_its_records_is_done_again(photographs, tmp_path):
    plan = begin(photographs, tmp_path)
    do_all(plan)
    before = written(plan)
    plan.note("shard", 1).unlink()  # killed between records and note
    plan.records(2).unlink()
    plan.records(3).write_bytes(b"cut")
    assert plan.steps[1].missing() == [1, 2, 3]
    assert plan.summary().missing > 0
    do_all(plan)
    assert written(plan) == before and plan.summary().missing == 0


def test_more_shards_than_photographs(photographs, tmp_path):
    plan = begin(photographs, tmp_path, shards=40)
    do_all(plan)
    assert plan.summary().counted == EXPECTED
    assert len(decoded(plan)) == 8


def test_of_equal_files_the_first_by_name_is_taken_whatever_their_shards(photographs, tmp_path):
    for shards in (1, 3, 7):
        plan = begin(photographs, tmp_path / str(shards), shards)
        do_all(plan)
        twins = [one for one in plan.summary().skipped if one.kind == "duplicate"]
        assert [(one.name, one.message) for one in twins] == [
            ("twin.png", "the same bytes as 2.png")
        ]


def test_several_folders(photographs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(photographs / "below", other)
    plan = Preparation.begin([photographs, other], tmp_path / "set", "set", 3, SELECTION)
    do_all(plan)
    twins = {one.name for one in plan.summary().skipped if one.kind == "duplicate"}
    # By name, the first folder's come first.
    assert twins == {"0/twin.png", *(f"1/{i}.png" for i in (1, 3, 5, 7))}
    assert plan.summary().missing == 0 and len(decoded(plan)) == 8


def test_other_photographs_or_settings_are_refused(photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    begin(folder, tmp_path / "set")
    with pytest.raises(PipelineError, match=r"reduce was 1\.0 and is 2\.0"):
        begin(folder, tmp_path / "set", selection=Selection(least=64, reduce=2.0))
    with pytest.raises(PipelineError, match="shards was 4 and is 5"):
        begin(folder, tmp_path / "set", shards=5)
    shutil.copy(folder / "0.png", folder / "new.png")
    with pytest.raises(PipelineError, match=r"photographs was '13 .* and is '14 "):
        begin(folder, tmp_path / "set")


def test_a_photograph_that_changed_is_refused(photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    plan = begin(folder, tmp_path / "set", shards=1)
    plan.steps[0].open().do(0)
    shutil.copy(folder / "4.png", folder / "0.png")
    with pytest.raises(DataError, match=r"0.png has changed since .* begin anew"):
        plan.steps[1].open().do(0)
    (folder / "0.png").unlink()
    with pytest.raises(DataError, match=r"0.png was there before"):
        plan.steps[1].open().do(0)
    assert not list(plan.output.glob("*.array_record")) and not list(plan.output.glob("*.part"))


def test_the_number_of_shards_follows_the_photographs(photographs, tmp_path):
    assert begin(photographs, tmp_path, shards=None).shards == 1


def test_a_name_with_a_slash_is_refused(photographs, tmp_path):
    with pytest.raises(PipelineError, match="cannot begin the names"):
        Preparation.begin([photographs], tmp_path, "a/b", 1, SELECTION)


def test_notes_are_json(photographs, tmp_path):
    plan = begin(photographs, tmp_path)
    do_all(plan)
    names = [json.loads(plan.note("shard", i).read_text())["records"] for i in range(4)]
    assert sorted(itertools.chain(*names)) == sorted(
        name for name in content(photographs) if name.rpartition("/")[2][0].isdigit()
    )
