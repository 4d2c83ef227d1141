"""Figures that are measured in parts are those that `eval.py` finds, and measures no more."""

import dataclasses
import json

import pytest

from llic_jax.errors import DataError, ImageFileError
from llic_jax.evaluation.image_sets import load_images
from llic_jax.evaluation.llic_system import LlicSystem
from llic_jax.evaluation.measure import measure
from llic_jax.evaluation.output import Output
from llic_jax.evaluation.trials import trials
from llic_jax.pipelines.evaluate import Evaluation, EvaluationWorker, Measured
from tests.pipelines.pictures import do_all, smooth


@pytest.fixture
def folder(tmp_path):
    """Three photographs of one size, and no image."""
    made = tmp_path / "photographs"
    made.mkdir()
    for i in range(3):
        smooth(i, 64, 64).save(made / f"{i}.png")
    (made / "words.jpg").write_text("no image")
    return made


@pytest.fixture
def measured(tiny_release):
    return Measured((tiny_release,), (1.0, 2.0), codecs=())


@pytest.fixture(autouse=True)
def loaded_once(tiny_codec, monkeypatch):
    """Workers take the codec of the tests: loading it compiles anew."""
    monkeypatch.setattr("llic_jax.evaluation.llic_system.load_codec", lambda *_: tiny_codec)


def lines(output):
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def test_eval_finds_all_figures(folder, measured, tiny_release, tmp_path, monkeypatch):
    plan = Evaluation.begin([folder], None, 0, tmp_path / "results", measured)
    counts = do_all(plan)
    assert counts == {"images": 3, "figures": 6, "skipped, cannot be read": 1}
    summary = plan.summary()
    assert summary.counted == {"images": 3, "skipped, cannot be read": 1}
    assert summary.more == {"figures": 6} and summary.missing == 0
    written = lines(plan.output)
    assert len({(e["setting"], e["image"]) for e in written}) == len(written) == 6

    def code(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(LlicSystem, "code", code)
    images = load_images([folder])
    planned = trials([tiny_release], (1.0, 2.0), codecs=())
    results = measure(planned, images, Output(plan.output, images), progress=False)
    assert [r.to_json() for r in results if r.image == "0.png"] == [
        e for e in written if e["image"] == "0.png"
    ]
    assert len(results) == 6 and lines(plan.output) == written


def test_what_a_killed_run_has_measured_counts(folder, measured, tmp_path, monkeypatch):
    plan = Evaluation.begin([folder], None, 0, tmp_path / "results", measured)
    do_all(plan, limit=1)  # the run ends here, and collects nothing
    coded = []
    code = LlicSystem.code

    def once(self, image, quality):
        if quality == 2.0:
            raise KeyboardInterrupt
        coded.append(quality)
        return code(self, image, quality)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LlicSystem, "code", once)
        plan.open().do(1)
    assert coded == [1.0]  # half of an image
    assert not (plan.output / "results.jsonl").exists()
    again = Evaluation.begin([folder], None, 0, tmp_path / "results", measured)
    assert len(lines(again.output)) == 3
    early = lines(again.output)
    assert again.missing() == [1, 2, 3]
    counts = do_all(again)
    assert counts["figures"] == 3  # the other half, and an image
    assert again.summary().more == {"figures": 6} and lines(again.output)[:3] == early
    assert again.missing() == [3]  # what cannot be read is tried again


def test_a_unit_that_is_repeated_adds_nothing(folder, measured, tmp_path):
    plan = Evaluation.begin([folder], None, 0, tmp_path / "results", measured)
    for worker in (EvaluationWorker(plan), EvaluationWorker(plan)):
        worker.do(0)
    assert plan.collect() == 2 and plan.collect() == 0
    assert EvaluationWorker(plan).do(0)["figures"] == 0
    assert plan.collect() == 0 and len(lines(plan.output)) == 2


def test_more_qualities_join_in(folder, measured, tmp_path):
    few = dataclasses.replace(measured, qualities=(1.0,))
    first = Evaluation.begin([folder], None, 0, tmp_path / "results", few)
    do_all(first)
    assert first.summary().missing == 0
    second = Evaluation.begin([folder], None, 0, tmp_path / "results", measured)
    assert second.missing() == [0, 1, 2, 3]
    assert do_all(second)["figures"] == 3
    assert len(lines(second.output)) == 3  # collected at the end
    assert second.summary().more == {"figures": 6}


def test_what_cannot_be_is_told(folder, measured, tmp_path):
    with pytest.raises(DataError, match="--data_dir or --dataset"):
        Evaluation.begin([], None, 0, tmp_path / "results", measured)
    plan = Evaluation.begin([folder], None, 0, tmp_path / "results", measured)
    strict = dataclasses.replace(plan, strict=True)  # as a data set's images
    with pytest.raises(ImageFileError, match=r"words.jpg"):
        strict.open().do(3)
    (folder / "2.png").unlink()
    with pytest.raises(DataError, match="No file"):
        plan.open().do(2)
