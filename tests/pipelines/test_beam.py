"""The three commands by Apache Beam on this machine: counters equal to the folder's content."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llic_jax.data.sources import open_source
from llic_jax.errors import PipelineError
from llic_jax.pipelines import command_line
from llic_jax.pipelines.work import State
from tests.pipelines.deadly import Deadly
from tests.pipelines.pictures import EXPECTED, content, smooth

pytest.importorskip("apache_beam")

ROOT = Path(__file__).parents[2]
# One process, this one: fast, and the workers take the codec of the tests.
HERE = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


def run(capsys, *arguments: str | Path, flags=HERE) -> dict:
    status = command_line.main([*map(str, arguments), "--json", *flags])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)


@pytest.fixture
def few(tmp_path):
    """Two photographs and no image."""
    folder = tmp_path / "few"
    folder.mkdir()
    for i in range(2):
        smooth(i, 64, 64).save(folder / f"{i}.png")
    (folder / "words.jpg").write_text("no image")
    return folder


def test_prepare(photographs, tmp_path, capsys):
    arguments = ["prepare", photographs, tmp_path / "set", "--shards=4", "--least=64"]
    printed = run(capsys, *arguments)
    assert printed["found"] == len(content(photographs)) and printed["missing"] == 0
    assert printed["counted"] == EXPECTED
    by_beam = printed["this_run"]
    assert {name: by_beam[name] for name in EXPECTED} == EXPECTED
    assert by_beam["files hashed"] == printed["found"] and by_beam["shards"] == 4
    source = open_source(f"records:{tmp_path}/set/*.array_record")
    assert len(source) == EXPECTED["records"]
    assert run(capsys, *arguments)["this_run"] == {}


def test_bundles_that_are_repeated_change_nothing(photographs, tmp_path, capsys):
    arguments = ["--shards=4", "--least=64"]
    run(capsys, "prepare", photographs, tmp_path / "once", *arguments)
    repeated = [*HERE, "--direct_runner_bundle_repeat=1"]
    printed = run(capsys, "prepare", photographs, tmp_path / "twice", *arguments, flags=repeated)
    assert printed["counted"] == EXPECTED
    once, twice = (sorted((tmp_path / name).glob("*.array_record")) for name in ("once", "twice"))
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in twice]


def test_compress(few, tiny_release, tiny_codec, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("llic_jax.zoo.folder.load_codec", lambda *_, **__: tiny_codec)
    model = f"--model={tiny_release}"
    printed = run(capsys, "compress", few, tmp_path / "files", model, "--strict_llic")
    expected = {"files": 2, "skipped, cannot be read": 1}
    assert printed["counted"] == expected and printed["missing"] == 0
    assert {name: printed["this_run"][name] for name in expected} == expected
    assert {p.name for p in (tmp_path / "files").glob("*.llic")} == {"0.llic", "1.llic"}
    again = run(capsys, "compress", few, tmp_path / "files", model, "--strict_llic")
    assert again["counted"] == expected and "files" not in again["this_run"]


def test_a_process_loads_the_model_once(
    few, tiny_release, tiny_codec, tmp_path, capsys, monkeypatch
):
    loads = []

    def load(*_, **__):
        loads.append(1)
        time.sleep(0.1)  # for the other thread to come
        return tiny_codec

    monkeypatch.setattr("llic_jax.zoo.folder.load_codec", load)
    for i in range(2, 8):
        smooth(i, 64, 64).save(few / f"{i}.png")
    threads = ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]
    arguments = ["compress", few, tmp_path / "files", f"--model={tiny_release}", "--strict_llic"]
    assert run(capsys, *arguments, flags=threads)["counted"]["files"] == 8
    assert len(loads) == 1


def test_evaluate(few, tiny_release, tiny_codec, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("llic_jax.evaluation.llic_system.load_codec", lambda *_: tiny_codec)
    arguments = ["evaluate", "--data_dir", few, "--output", tmp_path / "results", "--codecs"]
    arguments += ["--checkpoint", tiny_release, "--quality", "1", "2"]
    printed = run(capsys, *arguments)
    assert printed["counted"] == {"images": 2, "skipped, cannot be read": 1}
    assert printed["figures"] == 4 and printed["this_run"]["figures"] == 4
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 4
    run(capsys, *arguments)
    assert (tmp_path / "results" / "results.jsonl").read_text().splitlines() == lines


def test_a_misspelt_flag_is_refused_before_any_work(photographs, tmp_path, capsys):
    output = tmp_path / "set"
    assert command_line.main(["prepare", str(photographs), str(output), "--reduec", "2"]) == 1
    assert "--reduec is an option neither of" in capsys.readouterr().err
    assert not output.exists()


def test_a_unit_that_cannot_be_done_is_one_line(photographs, tmp_path, capsys):
    arguments = ["prepare", photographs, tmp_path / "set", "--shards=2", "--least=64"]
    run(capsys, *arguments)
    records = tmp_path / "set" / "photographs-00001-of-00002.array_record"
    records.unlink()
    note = tmp_path / "set" / "photographs.state" / "digest-00001.json"
    digests = json.loads(note.read_text())
    changed = digests | {"digests": dict.fromkeys(digests["digests"], "0" * 64)}
    note.write_text(json.dumps(changed))
    assert command_line.main([*map(str, arguments), *HERE]) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("llic_jax")]
    assert "has changed since" in line and not records.exists()
    note.write_text(json.dumps(digests))
    assert run(capsys, *arguments)["counted"] == EXPECTED


@pytest.mark.slow  # starts Beam's worker processes three times
def test_a_killed_run_goes_on(tmp_path):
    folder, output = tmp_path / "photographs", tmp_path / "set"
    folder.mkdir()
    for i in range(40):
        smooth(i, 700, 500).save(folder / f"{i}.png")
    (folder / "twin.png").write_bytes((folder / "3.png").read_bytes())
    (folder / "truncated.png").write_bytes((folder / "4.png").read_bytes()[:5000])
    command = [sys.executable, "-m", "llic_jax.pipelines", "prepare", str(folder), str(output)]
    command += ["--shards=20", "--json", "--direct_num_workers=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def notes() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in output.glob("photographs.state/shard-*")}

    started = subprocess.Popen(
        command, env=environment, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL
    )
    while len(notes()) < 5 and started.poll() is None:
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)  # Beam's workers, too
    started.wait()
    before = notes()
    assert 5 <= len(before) < 20
    held = [len(json.loads(p.read_text())["records"]) for p in output.glob("*.state/shard-*")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    assert printed["counted"] == {
        "records": 40,
        "skipped, cannot be read": 1,
        "skipped, duplicate": 1,
    }
    assert printed["missing"] == 0 and printed["this_run"]["shards"] == 20 - len(before)
    assert sum(held) + printed["this_run"]["records"] == 40
    assert before.items() <= notes().items()
    source = open_source(f"records:{output}/*.array_record")
    assert len({source.source[i] for i in range(len(source))}) == len(source) == 40
    assert not list(output.rglob("*.part"))


@pytest.mark.slow  # starts Beam's worker processes
def test_a_dead_worker_ends_the_run(tmp_path, monkeypatch):
    """Beam's own local runner waits for it for ever."""
    from llic_jax.pipelines import beam

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = beam.checked_options(command_line.local_defaults(["--direct_num_workers=2"]))
    with pytest.raises(PipelineError, match=r"A worker process died .* return code"):
        beam.run([Deadly()], State.begin(tmp_path, "deadly", {}), options)
