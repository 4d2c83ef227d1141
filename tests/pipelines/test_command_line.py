"""What the commands say, and what they refuse before any work. Without Apache Beam."""

import sys

import pytest

import llic_jax.pipelines
from llic_jax.pipelines import command_line
from llic_jax.pipelines.work import Skipped, Summary


def test_a_missing_apache_beam_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "llic_jax.pipelines.beam", raising=False)
    monkeypatch.delattr(llic_jax.pipelines, "beam", raising=False)
    assert command_line.main(["prepare", str(tmp_path), str(tmp_path / "set")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("llic_jax.pipelines: This needs Apache Beam") and "[beam]" in line
    assert not (tmp_path / "set").exists()


def test_without_a_runner_the_work_goes_to_processes_here():
    added = command_line.local_defaults(["--direct_num_workers", "3"])
    assert added[:3] == ["--direct_num_workers", "3", "--direct_running_mode=multi_processing"]
    assert not any(flag.startswith("--direct_num_workers=") for flag in added)
    assert command_line.local_defaults(["--direct_num_workers=3"])[0] == "--direct_num_workers=3"
    remote = ["--runner", "FlinkRunner", "--parallelism=9"]
    assert command_line.local_defaults(remote) == remote
    assert command_line.local_defaults(["--runner=FlinkRunner"]) == ["--runner=FlinkRunner"]


def test_the_table_has_the_whole_and_this_run():
    skipped = [Skipped(f"{i}.png", "too small", "3 x 3 pixels") for i in range(25)]
    summary = Summary(70, {"records": 40, "skipped, too small": 25}, {"shards": 3}, skipped)
    lines = command_line.table(summary, {"records": 15, "files hashed": 9}).splitlines()
    cells = [line.split("  ") for line in lines[:7]]
    rows = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in cells}
    assert rows["found"] == ["70"] and rows["records"] == ["40", "15"]
    assert rows["skipped, too small"] == ["25", "0"] and rows["files hashed"] == ["9"]
    assert rows["missing"] == ["5"]
    assert "0.png: 3 x 3 pixels" in lines and lines[-1] == "and 5 more; --json lists all"


@pytest.mark.parametrize("command", ["prepare", "compress", "evaluate"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main([command, "--help"])
    assert ended.value.code == 0 and "--json" in capsys.readouterr().out
