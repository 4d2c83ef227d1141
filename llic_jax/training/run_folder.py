"""The folder of a training run."""

import json
import time
from pathlib import Path

import jax

from llic_jax.configs.config import Config, as_dict
from llic_jax.errors import CheckpointError
from llic_jax.system import provenance
from llic_jax.system.files import whole_file
from llic_jax.zoo.folder import effort


def keep_config(config: Config, workdir: Path) -> None:
    """Writes the config beside the run; a run keeps the model that it was started with. How the
    model is computed may change, since parameters are float32 either way. What the weights had
    seen that a run started from stands there too, as `started_from`."""
    config, path = json.loads(json.dumps(as_dict(config))), workdir / "config.json"

    if path.exists():
        before, computed = json.loads(path.read_text()), {"dtype": None, "remat": None}
        if before["model"] | computed != config["model"] | computed:
            raise CheckpointError(
                f"{path} describes another model than this config. Use another --workdir, or the "
                "config that this run was started with."
            )
        started_from = before.get("started_from")
    else:
        started_from = effort(*config["train"]["start"].split(","))
    if started_from:
        config["started_from"] = started_from
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": provenance.versions(),
        "commit": provenance.git_commit(),
        "devices": [d.device_kind for d in jax.devices()],
        "config": config,
    }
    with (workdir / "runs.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")
