"""The command that decodes suites of files; and the repository's own suites."""

import json

import numpy as np
import pytest
from PIL import Image

from llic_jax import conformance
from llic_jax.bitstream.file import PROGRESSIVE_VERSION, LlicFile
from llic_jax.conformance import SUITES, Suite, drawn_image, hash_of, run_suites, write_suite
from llic_jax.errors import LlicError


@pytest.fixture(scope="module")
def suite(tiny_release, tmp_path_factory):
    """A suite of the tiny model, which is found by the suite's own list of models."""
    folder = tmp_path_factory.mktemp("suites") / "tiny"
    assert write_suite(folder, tiny_release, sizes=[(1, 1), (50, 64)]) % 6 == 0
    content = json.loads((folder / "suite.json").read_text())
    fingerprint = LlicFile.from_bytes(next(folder.glob("*.llic")).read_bytes()).fingerprint.hex()
    content["models"] = {fingerprint: str(tiny_release)}
    (folder / "suite.json").write_text(json.dumps(content))
    return folder


def test_the_picture_is_the_same_everywhere():
    expected = "e66c6cd1b8b345cd2a7be632e287ededcd47604a90a77230162d0c00ba5cfeff"
    assert hash_of(drawn_image(256, 384)) == expected
    np.testing.assert_array_equal(drawn_image(300, 500)[:50, :70], drawn_image(50, 70))


def test_a_suite_decodes_where_it_was_written(suite, capsys):
    assert conformance.main([str(suite.parent)]) == 0
    count = len(Suite(suite).cases)
    assert f"{count} of {count} pass, {count} exactly, largest diff" in capsys.readouterr().out


@pytest.mark.parametrize(("levels", "passes"), [(1, True), (2, False)])
def test_one_grey_level_is_tolerated(suite, capsys, levels, passes):
    path = suite / "64x50_q1.png"
    before = path.read_bytes()
    try:
        image = np.asarray(Image.open(path)).astype(int)
        image[3, 4, 1] += levels if image[3, 4, 1] < 128 else -levels
        Image.fromarray(image.astype(np.uint8)).save(path)
        failed = run_suites(suite)
    finally:
        path.write_bytes(before)
    printed = capsys.readouterr().out
    assert (failed == 0) == passes and f"largest difference {levels}" in printed
    assert ("differs by 2 grey levels" in printed) != passes


def test_files_that_do_not_decode_are_counted(suite, capsys):
    path = next(iter(sorted(suite.glob("64x50*.llic"))))
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-1])
        assert conformance.main([str(suite)]) == 1
    finally:
        path.write_bytes(before)
    assert f"{path.name}: TruncatedError" in capsys.readouterr().out


def test_a_folder_without_a_suite(tmp_path, capsys):
    assert conformance.main([str(tmp_path)]) == 1
    assert "No suite.json" in capsys.readouterr().err
    (tmp_path / "suite.json").write_text("{}")
    with pytest.raises(LlicError, match="is no suite"):
        Suite(tmp_path)


def own_cases():
    suites = [Suite(path.parent) for path in sorted(SUITES.rglob("suite.json"))]
    return [(suite, case) for suite in suites for case in suite.cases]


def test_the_repository_s_suites_cover_models_coders_and_versions():
    files = [LlicFile.from_bytes((s.folder / c.file).read_bytes()) for s, c in own_cases()]
    assert {file.version for file in files} == set(range(1, PROGRESSIVE_VERSION + 1))
    assert {file.coder for file in files if file.coder} == {1, 2, 3}
    assert len({file.fingerprint for file in files}) >= 3
    size = sum(path.stat().st_size for path in SUITES.rglob("*") if path.is_file())
    assert size < 6e6


@pytest.mark.slow
def test_all_of_the_repository_s_suites_decode():
    assert run_suites(SUITES) == 0
