import json

import pytest

pytest.importorskip("matplotlib")

from llic_jax.report import learning_curve


def test_a_run_s_figures_are_drawn(tmp_path, capsys):
    entries = [
        {"kind": kind, "step": step, "loss": 3.0 / step, "bpp": 1.0, "psnr": 30.0}
        for kind, steps in (("train", (10, 20, 30)), ("validation", (15, 30)))
        for step in steps
    ]
    entries.append({**entries[1], "loss": 9.0})  # the run went back: the later entry counts
    entries[0].pop("psnr")  # rate only
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (tmp_path / "metrics.jsonl").write_text(lines)
    figure = learning_curve.learning_curve(tmp_path)
    loss, _, psnr = figure.axes
    assert list(loss.lines[0].get_xdata()) == [10, 20, 30]
    assert list(loss.lines[0].get_ydata()) == [0.3, 9.0, 0.1]
    assert list(psnr.lines[0].get_xdata()) == [20, 30]
    assert loss.get_ylim()[0] < 0.1 and loss.get_ylim()[1] > 0.2  # validation is in the picture
    assert learning_curve.main([str(tmp_path), str(tmp_path / "curve.svg")]) == 0
    assert (tmp_path / "curve.svg").read_text().count("<path") > 10
    assert learning_curve.main([str(tmp_path / "nowhere"), "x.svg"]) == 1
    assert "is no training run" in capsys.readouterr().err
