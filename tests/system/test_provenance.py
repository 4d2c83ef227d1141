"""Commits are those of this source tree; names of training data have no paths."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llic_jax.system import provenance

_GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def _git(folder, *arguments):
    command = [*_GIT, "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_of_a_repository_around_an_environment_is_not_ours(tmp_path, monkeypatch):
    package = tmp_path / "environment" / "llic_jax" / "system"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    (tmp_path / "theirs.py").touch()
    for arguments in (("init", "-q"), ("add", "theirs.py"), ("commit", "-qm", "theirs")):
        _git(tmp_path, *arguments)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() is None
    _git(tmp_path, "add", "environment")
    _git(tmp_path, "commit", "-qm", "ours")
    head = _git(tmp_path, "rev-parse", "--short", "HEAD")
    # A hook's variables name another repository.
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert provenance.git_commit() == head
    (package / "provenance.py").write_text("changed")
    assert provenance.git_commit() == f"{head}+"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/someone/photographs", "photographs"),
        ("photographs/", "photographs"),
        ("tfds:coco/2017", "tfds:coco/2017"),
        ("tfds:coco/2017:1.1.0", "tfds:coco/2017:1.1.0"),
        ("tfds:clic:train", "tfds:clic:train"),
        ("tfds:/home/someone/prepared:train", "tfds:prepared:train"),
        ("records:/d/part-*.array_record", "records:part-*.array_record"),
        ("/a/one,tfds:coco/2017,/b/two", "one,tfds:coco/2017,two"),
    ],
)
def test_training_data_is_named_without_paths(source, name):
    assert provenance.public_source(source) == name


def test_a_prepared_folder_is_told_from_a_name(tmp_path, monkeypatch):
    (Path(tmp_path) / "coco" / "2017").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert provenance.public_source("tfds:coco/2017") == "tfds:2017"
