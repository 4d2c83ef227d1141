"""The evaluation: figures of real files, resumed where it stopped, in one process or several."""

import dataclasses
import json
import math
import os
import pickle
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llic_jax import evaluate
from llic_jax.codec.effort import Refinement
from llic_jax.codec.rate_control import Quality
from llic_jax.data.image_files import image_files
from llic_jax.errors import DataError, OutputError, ResultsError, TrialError
from llic_jax.evaluation import measure as evaluation
from llic_jax.evaluation.baselines import Baseline
from llic_jax.evaluation.image_sets import EMBEDDED, ImageSet, load_images
from llic_jax.evaluation.llic_system import LlicSystem, released_systems
from llic_jax.evaluation.measure import measure
from llic_jax.evaluation.output import Output
from llic_jax.evaluation.results import ResultsFile, average, averages, points, table
from llic_jax.evaluation.system import Measurement
from llic_jax.evaluation.trials import Trial
from llic_jax.evaluation.workers import run_tasks
from llic_jax.execution import program_cache
from llic_jax.images.read import read_image
from llic_jax.images.write import write_image
from llic_jax.metrics import distortion
from llic_jax.zoo.folder import save_release

JPEG = Trial(Baseline("JPEG"), (10.0, 60.0))


def _measure(trials, images, folder, workers=1, save_images=False):
    image_set = ImageSet("images", None, images)
    output = Output(folder, image_set, save_images)
    return measure(trials, image_set, output, workers, progress=False)


@pytest.fixture(scope="module")
def images(photograph):
    return [("a.png", photograph[:180, :170]), ("b.png", photograph[40:190, 30:170])]


@pytest.fixture(scope="module")
def system(tiny_release):
    return LlicSystem(tiny_release)


@pytest.fixture(scope="module")
def found(system, images, tmp_path_factory):
    """Results of the tiny model and of JPEG, and the file that holds them."""
    folder = tmp_path_factory.mktemp("evaluation")
    results = _measure([Trial(system, (1.0, 2.0)), JPEG], images, folder)
    return results, folder / "results.jsonl"


def test_figures_are_those_of_the_file(found, system, images):
    records, _ = found
    assert len(records) == 8
    for record in records[:4]:
        image = dict(images)[record.image]
        encoded = system.codec.encode([image], Quality(record.quality))[0]
        data = encoded.data
        decoded = system.codec.decompress(data)
        pixels = image.shape[0] * image.shape[1]
        assert (record.height, record.width) == image.shape[:2]
        assert record.bytes == len(data) and record.bpp == 8 * len(data) / pixels
        assert record.psnr == distortion.image_psnr(image, decoded)
        assert record.psnr_y == distortion.image_psnr_y(image, decoded)
        assert record.identical is True
        assert record.bpp_estimated == pytest.approx(encoded.bits / pixels)
        assert 0 < record.encode_network_seconds < record.encode_seconds
        assert 0 < record.decode_network_seconds < record.decode_seconds


def test_ms_ssim_is_left_out_where_an_image_is_too_small(found):
    for record in found[0]:
        assert (record.ms_ssim is None) == (record.image == "b.png")


def test_other_codecs_have_no_networks_and_their_own_memory(found):
    ours, jpeg = found[0][0], found[0][-1]
    assert jpeg.codec == "JPEG" and "4:2:0" in jpeg.setting
    assert jpeg.encode_network_seconds is None and jpeg.identical is None
    assert jpeg.peak_memory < ours.peak_memory


def test_the_file_gives_the_records_back(found):
    records, path = found
    assert list(ResultsFile(path).results.values()) == sorted(
        records, key=lambda r: (r.codec == "JPEG", r.image)
    )
    assert len(path.read_text().splitlines()) == 8


def test_a_second_run_measures_only_what_is_missing(found, system, images, monkeypatch, tmp_path):
    records, path = found
    part = tmp_path / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    # Five records, and the sixth as a run leaves it that is killed while it writes.
    part.write_text("".join(lines[:5]) + lines[5][:40])
    measured = []

    def counting(system, tasks, *more):
        measured.extend(tasks)
        return run_tasks(system, tasks, *more)

    monkeypatch.setattr(evaluation, "run_tasks", counting)
    again = _measure([Trial(system, (1.0, 2.0)), JPEG], images, tmp_path)
    assert len(measured) == 3
    figures = ("codec", "setting", "image", "bytes", "psnr", "ms_ssim")
    for first, second in zip(records, again, strict=True):
        assert all(getattr(first, name) == getattr(second, name) for name in figures)


def test_figures_of_another_model_or_image_are_not_gone_on_with(found, system, images, tmp_path):
    records, _ = found
    for change, message in (
        ({"version": "model 0123"}, r"with version model 0123; this run has model [0-9a-f]{16}, "),
        ({"digest": "0123"}, "with pixels 0123"),
    ):
        folder = tmp_path / message[5:12]
        ResultsFile(folder / "results.jsonl").add(dataclasses.replace(records[0], **change))
        with pytest.raises(ResultsError, match=message):
            _measure([Trial(system, (1.0,))], images, folder)


def test_a_file_that_is_no_results_is_an_error(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"codec": "JPEG"}\n')
    with pytest.raises(ResultsError, match="line 1, is no record"):
        ResultsFile(path)
    path.write_bytes(b'{"codec": "\xff"}\n')
    with pytest.raises(ResultsError, match=r"line 1, is no JSON.*Name another --output"):
        ResultsFile(path)


def test_decoded_images_are_kept(system, images, tmp_path):
    trials = [Trial(system, (1.0,))]
    (record,) = _measure(trials, images[1:], tmp_path, save_images=True)
    (path,) = (tmp_path / "images").rglob("*.png")
    assert distortion.image_psnr(images[1][1], read_image(path)) == record.psnr
    # A record whose image is gone is measured again.
    path.unlink()
    _measure(trials, images[1:], tmp_path, save_images=True)
    assert path.is_file()


def test_every_decoded_image_has_a_file_of_its_own(tmp_path):
    names = ["a.png", "a.jpg", "a b.png", "a_b.png", "a%2Fb.png"]
    images = ImageSet("images", None, [(name, np.zeros((8, 8, 3), np.uint8)) for name in names])
    output = Output(tmp_path, images, save_images=True)
    keys = [(c, s, n) for c in ("x y", "x_y", "x/y") for s in ("1", "2") for n in names]
    assert len({output.image_path(key) for key in keys}) == len(keys)
    assert output.image_path(("x/y", "1", "a.png")).parent.parent.parent == tmp_path / "images"
    for first, second in (("a.jpg", "a.jpg.png"), ("B.png", "b.png"), ("a.png", "a")):
        pair = ImageSet("images", None, [(n, images.images[0][1]) for n in (first, second)])
        Output(tmp_path, pair)
        with pytest.raises(OutputError, match=f"{first} and {second} would be one file"):
            Output(tmp_path, pair, save_images=True)


@pytest.mark.slow
def test_several_processes_give_the_same_files(found, system, images, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    again = _measure([Trial(system, (1.0, 2.0))], images, tmp_path, workers=2)
    assert [(r.image, r.bytes, r.psnr) for r in again] == [
        (r.image, r.bytes, r.psnr) for r in found[0][:4]
    ]
    assert all(r.identical for r in again)


def _kept_programs() -> str:
    assert program_cache._folder is not None
    return str(program_cache._folder)


class _TellsFolder:
    """Stands in for a codec: its file's size is the length of the folder of stored programs."""

    name = version = "folder"
    separate = False

    def setting(self, quality):
        return ""

    def code(self, image, quality):
        return Measurement(len(_kept_programs()), image, 0.0, 0.0)


def test_worker_processes_keep_compiled_programs(tmp_path):
    images = [(name, np.zeros((8, 8, 3), np.uint8)) for name in "ab"]
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    try:
        results = _measure([Trial(_TellsFolder(), (None,))], images, tmp_path / "out", workers=2)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert [r.bytes for r in results] == [len(str(tmp_path / "cache" / "whole"))] * 2


def test_means_are_over_images(found):
    records, _ = found
    group = records[:2]
    means = average(group)
    assert means["images"] == 2
    assert means["psnr"] == pytest.approx((group[0].psnr + group[1].psnr) / 2)
    assert means["bpp"] == pytest.approx((group[0].bpp + group[1].bpp) / 2)
    assert means["ms_ssim"] == group[0].ms_ssim
    assert means["peak_memory"] == max(r.peak_memory for r in group)
    assert means["identical"] is True
    broken = dataclasses.replace(group[1], identical=False)
    assert average([group[0], broken])["identical"] is False
    assert "Not every decoded image" in table([group[0], broken])
    assert "Not every decoded image" not in table(records)


def test_points_are_sorted_by_rate(found):
    means = averages(found[0])
    assert [len(group) for group in means.values()] == [2, 2]
    jpeg = points(means["JPEG"][::-1])
    assert jpeg.rates == tuple(m["bpp"] for m in means["JPEG"])
    assert jpeg.quality == tuple(m["psnr"] for m in means["JPEG"])
    assert points([{**means["JPEG"][0], "ms_ssim_db": None}], "ms_ssim_db").rates == ()


@pytest.mark.slow
def test_models_of_one_rate_make_one_curve(tiny_config, tiny_release, tmp_path):
    from llic_jax.models.build import build_model, initialize

    config = tiny_config.copy_and_resolve_references()
    config.model.levels, config.coding.back_projection = 1, (0.8,)
    params = initialize(build_model(config.model))
    folders = [tmp_path / "tiny_0067", tmp_path / "tiny_0130"]
    for folder in folders:
        save_release(folder, config.to_dict(), params)
    systems = released_systems([*folders, tiny_release])
    assert [s.name for s in systems] == ["tiny", "tiny", tiny_release.name]
    assert [s.setting(None) for s in systems[:2]] == ["tiny_0067", "tiny_0130"]
    assert systems[0].qualities([1.0, 2.0]) == [None]
    assert systems[2].qualities(None) == [1.0, 2.0]
    assert systems[2].qualities([1.5, 2.0, 1.5]) == [1.5, 2.0]
    with pytest.raises(TrialError, match=r"--quality 3: .* has qualities 1 to 2"):
        systems[2].qualities([3.0])
    name = tiny_release.name
    assert [s.name for s in released_systems([tiny_release], refinements=(0, 5))] == [
        name,
        f"{name}, effort 5",
    ]


def _copy(folder, target, change=0.0):
    """The released folder elsewhere; its weights changed, or not."""
    shutil.copytree(folder, target)
    if change:
        weights = load_file(target / "weights.safetensors")
        name = next(n for n, w in weights.items() if n.startswith("g_s") and w.dtype == np.float32)
        weights[name] = weights[name] + np.float32(change)
        save_file(weights, target / "weights.safetensors")
    return target


def test_folders_of_one_name_are_told_apart(tiny_release, tmp_path):
    first = _copy(tiny_release, tmp_path / "a" / "JPEG")
    second = _copy(tiny_release, tmp_path / "b" / "JPEG", change=0.25)
    systems = released_systems([first, second, first])
    prints = [system.codec.fingerprint.hex() for system in systems]
    assert [s.name for s in systems] == [f"JPEG ({prints[0]})", f"JPEG ({prints[1]})"]
    assert len(set(prints)) == 2
    # Neither is the baseline of that name.
    assert released_systems([first])[0].name == f"JPEG ({prints[0]})"
    third = _copy(tiny_release, tmp_path / "c" / "JPEG")
    with pytest.raises(TrialError, match=r"hold the same model .* rename a folder"):
        released_systems([first, third])


def test_systems_travel_without_their_programs(system):
    assert system.codec is system.codec
    data = pickle.dumps(dataclasses.replace(system, refinement=2))
    again = pickle.loads(data)
    assert len(data) < 2000 and again.refinement == 2 and again.name == f"{system.name}, effort 2"
    assert dataclasses.replace(system, refinement=2).codec is system.codec


def test_effort_is_measured_like_any_other_system(system, photograph):
    image = photograph[:60, :50]
    coded = dataclasses.replace(system, refinement=2).code(image, 1.5)
    assert coded.bytes == len(system.codec.encode([image], Quality(1.5), Refinement(2))[0].data)
    # A file of 600 bytes: constriction's words and escapes show.
    assert coded.identical and coded.bits == pytest.approx(8 * coded.bytes, rel=0.05, abs=8 * 48)


def test_images_from_folders_files_and_the_package(images, tmp_path, capsys):
    for name, image in images:
        write_image(tmp_path / name, image)
    loaded = load_images([tmp_path])
    assert [name for name, _ in loaded.images] == ["a.png", "b.png"]
    np.testing.assert_array_equal(loaded.images[1][1], images[1][1])
    assert load_images([tmp_path / "b.png"]).images[0][0] == "b.png"
    with pytest.raises(DataError, match=r"Several files are called b\.png"):
        load_images([tmp_path, tmp_path / "b.png"])
    with pytest.raises(DataError, match=r"No file .*c\.png"):
        load_images([tmp_path / "c.png"])
    with pytest.raises(DataError, match="takes one folder; 2 are named"):
        load_images([tmp_path, tmp_path], "kodak")
    (tmp_path / "broken.png").write_bytes(b"x")
    assert len(load_images([tmp_path]).images) == 2
    assert "skipped: " in capsys.readouterr().err
    with pytest.raises(DataError, match="None of the images can be used"):
        load_images([tmp_path / "broken.png"])
    embedded = load_images()
    assert [name for name, _ in embedded.images] == list(EMBEDDED)
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for _, image in embedded.images)


def test_pictures_of_an_output_are_no_photographs(images, tmp_path):
    photos = tmp_path / "photos"
    for folder in (photos, photos / "figures", photos / "out" / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    for path in ("a.png", "figures/b.png", "out/figures/c.png"):
        write_image(photos / path, images[1][1])
    (photos / "out" / "results.jsonl").touch()
    loaded = load_images([photos])
    # A folder of that name is a user's own where no results lie beside it.
    assert [name for name, _ in loaded.images] == ["a.png", "b.png"]
    Output(photos / "out", loaded)
    with pytest.raises(OutputError, match=r"b\.png is to be measured"):
        Output(photos, loaded)
    assert not (photos / "results.jsonl").exists()
    with pytest.raises(DataError, match="an evaluation's output"):
        image_files(photos / "out")
    assert len(load_images([photos / "out" / "figures"]).images) == 1


@pytest.mark.skipif(os.fsencode("\udcff") != b"\xff", reason="names are Unicode here")
def test_names_that_are_not_unicode_become_text(images, tmp_path):
    path = tmp_path / "a.png"
    write_image(path, images[1][1])
    path.rename(tmp_path / "\udcff.png")
    assert [name for name, _ in load_images([tmp_path]).images] == ["\\xff.png"]


def test_an_output_that_cannot_be_made_is_said_at_once(tiny_release, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    (tmp_path / "file").write_text("x")
    for output in (tmp_path / "file", tmp_path / "file" / "sub", "/proc/nowhere"):
        arguments = ["--checkpoint", str(tiny_release), "--output", str(output)]
        assert evaluate.main(arguments) == 1
        captured = capsys.readouterr()
        assert "cannot take the results" in captured.err and "image/s" not in captured.err
        assert captured.err.count("\n") == 1 and not captured.out


def test_only_what_training_left_out(images, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in "abcde":
        write_image(folder / f"{name}.png", images[0][1])
    chosen = load_images([folder], held_out=2)
    assert [name for name, _ in chosen.images] == ["a.png", "e.png"]
    assert chosen.name == "2 photographs held back of photographs" and chosen.published is None
    for named in ([], [folder / "a.png"], [folder, folder]):
        with pytest.raises(DataError, match="--held_back takes one folder"):
            load_images(named, held_out=2)
    with pytest.raises(DataError, match="5 images, of which 5 are to be held back"):
        load_images([folder], held_out=5)
    with pytest.raises(DataError, match="--held_back is -1"):
        load_images([folder], held_out=-1)
    # A run's own list holds, whatever was added since.
    names = tmp_path / "held_back.json"
    names.write_text('["a.png", "e.png"]')
    write_image(folder / "a0.png", images[0][1])
    assert [name for name, _ in load_images([folder], held_out=names).images] == ["a.png", "e.png"]
    names.write_text('["a.png", "gone.png"]')
    with pytest.raises(DataError, match=r"1 of the 2 photographs .* are not in"):
        load_images([folder], held_out=names)
    names.write_text('["a.png"')
    with pytest.raises(DataError, match=r"held_back\.json cannot be read"):
        load_images([folder], held_out=names)


def test_peak_memory_sees_an_array():
    """In a process of its own: other threads of this one free memory meanwhile."""
    program = (
        "import numpy as np\n"
        "from llic_jax.system.memory import peak_memory, reset_peak_memory\n"
        "reset_peak_memory()\n"
        "before = peak_memory()\n"
        "np.ones(40 << 20, np.uint8)\n"
        "print(peak_memory() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert math.isclose(int(done.stdout), 40 << 20, rel_tol=0.1)


def test_the_script_ends_with_the_reports_path(tiny_release, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    write_image(tmp_path / "b.png", images[1][1])
    output = tmp_path / "results"
    arguments = ["--data_dir", str(tmp_path / "b.png"), "--checkpoint", str(tiny_release)]
    arguments += ["--codecs", "jpeg", "--no_inspection", "--output", str(output)]
    assert evaluate.main(arguments) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"report: {output / 'report.html'}"
    assert (output / "report.html").is_file() and (output / "report.md").is_file()
    summary = json.loads((output / "summary.json").read_text())
    assert summary["images"] == {"set": "b.png", "count": 1}
    assert set(summary["codecs"]) == {tiny_release.name, "JPEG"}


def test_the_script_names_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert evaluate.main(["--checkpoint", str(tmp_path)]) == 1
    assert "is no released model" in capsys.readouterr().err
