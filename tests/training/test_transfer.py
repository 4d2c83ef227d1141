import jax
import numpy as np
import pytest

from llic_jax.errors import CheckpointError
from llic_jax.training import transfer
from llic_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_config):
    """A run with one checkpoint, not of zeros."""
    import json

    folder = tmp_path_factory.mktemp("run")
    config = json.loads(json.dumps(tiny_config.to_dict()))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("{}\n")
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: (
            rng.standard_normal(x.shape).astype(np.float32)
            if x.dtype == np.float32
            else np.full(x.shape, 7, x.dtype)
        ),
        transfer._like(config),
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(7, state)
    checkpoints.close()
    return folder, state


def test_a_packed_run_goes_on_elsewhere(run, tmp_path, capsys):
    folder, state = run
    assert transfer.main(["pack", str(folder), str(tmp_path / "p"), "--piece_mb", "0.05"]) == 0
    pieces = sorted((tmp_path / "p").glob("state.*"))
    assert len(pieces) > 3 and all(piece.stat().st_size <= 50_000 for piece in pieces)
    assert transfer.main(["unpack", str(tmp_path / "p"), str(tmp_path / "r")]) == 0
    assert "step 7" in capsys.readouterr().out
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == "{}\n"
    found = Checkpoints(tmp_path / "r" / "checkpoints").restore(state)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2**-8)

    with pytest.raises(CheckpointError, match="holds a run already"):
        transfer.unpack(tmp_path / "p", tmp_path / "r")
    with pytest.raises(CheckpointError, match="is not empty"):
        transfer.pack(folder, tmp_path / "p", 1000)
    pieces[1].write_bytes(pieces[1].read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"state.001 is damaged"):
        transfer.unpack(tmp_path / "p", tmp_path / "s")
    pieces[1].unlink()
    assert transfer.main(["unpack", str(tmp_path / "p"), str(tmp_path / "s")]) == 1
    assert "state.001 is missing" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="is no training run"):
        transfer.pack(tmp_path, tmp_path / "p", 1000)
    with pytest.raises(CheckpointError, match="No packed run"):
        transfer.unpack(tmp_path, tmp_path / "r")


@pytest.mark.slow
@pytest.mark.parametrize("form", [transfer.AVERAGE, transfer.RELEASED])
def test_less_is_carried_where_there_is_less_room(run, form, tmp_path, monkeypatch):
    """The run goes on from its moving average, at the same step, with a fresh optimizer."""
    folder, state = run
    monkeypatch.setattr(transfer, "FORMS", (form,))
    transfer.pack(folder, tmp_path / "p", 50_000)
    assert transfer.unpack(tmp_path / "p", tmp_path / "r") == 7
    found = Checkpoints(tmp_path / "r" / "checkpoints").restore(state)
    scale = np.abs(state.ema).max()
    np.testing.assert_allclose(found.ema, state.ema, atol=scale / 127)
    np.testing.assert_array_equal(found.params, found.ema)
    with pytest.raises(CheckpointError, match="smallest form takes"):
        transfer.pack(folder, tmp_path / "q", 50_000, limit_bytes=100)
