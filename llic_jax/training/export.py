"""A training run's weights as a released folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from llic_jax.configs.upgrade import upgrade
from llic_jax.models.build import build_model
from llic_jax.system.provenance import public_source
from llic_jax.training.log import read_metrics
from llic_jax.zoo.folder import EFFORT_FIELDS, save_release
from llic_jax.zoo.weights import load_weights, mean_params


def export_run(workdir: Path, folder: Path, step: int | None, mean: Sequence[Path] = ()) -> None:
    """Writes the moving average of a run's weights as a released folder.

    Args:
        workdir: The run.
        folder: The released folder.
        step: Of the checkpoint; None for the last one.
        mean: Released folders whose weights are averaged with the run's.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    from llic_jax.training.checkpoints import Checkpoints
    from llic_jax.training.settings import TrainSettings
    from llic_jax.training.state import create_state, unflatten

    config = json.loads((workdir / "config.json").read_text())
    model = build_model(upgrade(config)["model"])
    like, _, unravel = create_state(model, TrainSettings.of(config), 0)
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = checkpoints.restore(like, step)
    checkpoints.close()
    # No paths of this machine.
    for name in ("source", "validation"):
        if name in config["data"]:  # an old config has no data.validation
            config["data"][name] = public_source(config["data"][name])
    starts = config["train"]["start"].split(",")
    config["train"]["start"] = ",".join(Path(start).name for start in starts)
    spent = (int(state.step), *(training_effort(workdir, int(state.step)) or ()))
    before = config.pop("started_from", dict.fromkeys(EFFORT_FIELDS, 0) | {"trained_sizes": []})
    for name, value in zip(EFFORT_FIELDS, spent, strict=False):
        if name in before:  # else it is not known of the whole
            config[name] = round(before[name] + value, 2)
    config["trained_sizes"] = sorted({*before["trained_sizes"], *config["data"]["crops"]})
    if mean:
        config["mean_with"] = [path.name for path in mean]
    average = workdir, unflatten(state.ema, unravel)
    params = mean_params([average, *((path, load_weights(path)) for path in mean)])
    save_release(folder, config, params)


def training_effort(workdir: Path, steps: int) -> tuple[float, int] | None:
    """Adds up what a run took for so many steps, without validation and pauses.

    The batch may have changed on the way.

    Args:
      workdir: The run.
      steps: The number of steps.

    Returns:
      Hours and crops. None: `metrics.jsonl` does not tell of all the steps.
    """
    try:
        entries = read_metrics(workdir, "train")
    except OSError:
        return None
    entries = [entry for entry in entries if entry["step"] <= steps]
    seconds, crops, before = 0.0, 0, 0
    for entry in entries:
        done = entry["step"] - before
        seconds += done * entry["step_seconds"]
        crops += done * round(entry["images_per_second"] * entry["step_seconds"])
        before = entry["step"]
    return (round(seconds / 3600, 2), crops) if before == steps else None
