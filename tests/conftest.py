"""Shared by all tests: shape checks, a compilation cache, and one tiny codec.

Every public function's annotated shapes and types are checked while the tests run.
"""

import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Compiling is what takes the time here, not running.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

install_import_hook("llic_jax", "beartype.beartype")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.tree_util import tree_map_with_path  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from llic_jax.codec.codec import Codec  # noqa: E402
from llic_jax.coding.range_coders.registry import installed_coders  # noqa: E402
from llic_jax.coding.scale_offsets import ScaleOffsets  # noqa: E402
from llic_jax.configs import smoke  # noqa: E402
from llic_jax.execution import program_cache  # noqa: E402
from llic_jax.models.build import build_model, initialize  # noqa: E402
from llic_jax.models.llic import LLIC  # noqa: E402
from llic_jax.zoo.folder import load_codec, save_release  # noqa: E402

KEPT_BYTES = 2 << 30  # of programs, from one run of the tests to the next


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(pytestconfig: pytest.Config) -> Iterator[None]:
    """Programs compiled by one test serve the others, of all workers, child processes and later
    runs: `pytest --cache-clear` begins anew."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("programs")
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        _make_room(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        program_cache.enable()
        program_cache.enable_jax_cache(str(folder))  # on old versions, too: see `not_kept`
        yield


@pytest.fixture
def not_kept() -> Iterator[None]:
    """For programs with loops of unknown length, which old versions of JAX lose on disk."""
    name = "jax_persistent_cache_min_compile_time_secs"
    seconds = jax.config.values[name]
    jax.config.update(name, float("inf"))
    yield
    jax.config.update(name, seconds)


def _make_room(folder: Path) -> None:
    """Removes the oldest programs beyond `KEPT_BYTES`."""
    total = 0
    found = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    for status, path in sorted(found, key=lambda item: item[0].st_mtime, reverse=True):
        total += status.st_size
        if total > KEPT_BYTES:
            path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def few_memory_maps() -> Iterator[None]:
    """Unloads programs before Linux's limit of 65,530 memory maps ends the process."""
    started = time.monotonic()
    yield
    maps = Path("/proc/self/maps")
    compiled = time.monotonic() - started > 1  # others are not worth the look
    if compiled and maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def tiny_config() -> ConfigDict:
    """A two-level LLIC-ELIC small enough to compile in seconds."""
    config = smoke.get_config()
    config.model.channels = (8, 8, 12, 16)
    config.model.kernel_sizes = (5, 5, 3, 3)
    config.model.hyper_channels = 8
    config.model.groups = (4, 12)
    config.model.context_widths = (8, 8)
    config.model.levels, config.model.branch_gains = 2, True
    config.train.lmbdas = (0.0067, 0.0250)
    config.coding.back_projection = (0.4, 0.8)
    return config


@pytest.fixture(scope="session")
def tiny_model(tiny_config: ConfigDict) -> LLIC:
    return build_model(tiny_config.model)


@pytest.fixture(scope="session")
def tiny_params(tiny_model: LLIC) -> dict:
    """Random parameters, with latents scaled up so that there is something to code."""
    params = initialize(tiny_model, seed=1)
    params["gain_y"]["log_gain"] += 3.0
    params["gain_y"]["log_inverse"] -= 3.0
    params["gain_z"]["log_gain"] += 2.0
    params["gain_z"]["log_inverse"] -= 2.0
    rng = np.random.default_rng(2)
    return tree_map_with_path(
        lambda path, p: p + rng.normal(0, 0.1, p.shape) if "branch_gain" in str(path) else p,
        params,
    )


@pytest.fixture
def as_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that leave the scales as the networks predict them. Those of random weights are far
    off, and the offsets of an image save a third of its bits. The files cannot be decoded."""
    monkeypatch.setattr(
        ScaleOffsets,
        "write",
        lambda self, encoder, step, *_: (np.zeros(step.channels, np.int32), 0.0),
    )


@pytest.fixture(scope="session")
def tiny_release(tmp_path_factory: pytest.TempPathFactory, tiny_config, tiny_params):
    """A released folder of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny_release")
    save_release(folder, tiny_config.to_dict(), tiny_params)
    return folder


@pytest.fixture(scope="session")
def tiny_codec(tiny_release) -> Codec:
    return load_codec(tiny_release)


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A photograph of 240 x 272 pixels."""
    skimage_data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(skimage_data.astronaut()[:240, 100:372])


@pytest.fixture(params=installed_coders())
def coder(request: pytest.FixtureRequest) -> str:
    """Each range coder that is installed."""
    return request.param


CARRY = """
import json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from llic_jax.training import carried_programs
from llic_jax.models.build import build_model
from llic_jax.training.phases import Phase
from llic_jax.training.settings import RunSettings
from llic_jax.training.state import create_state

config, folder = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
settings = RunSettings.of(config)

def ordinary(state, images):
    raise AssertionError("not the carried program")

if sys.argv[3] == "save":
    compiled = carried_programs.compile_steps(settings, jax.devices())
    carried_programs.compile_steps = lambda *_: compiled
    carried_programs.save_programs(folder, config, jax.devices())
    step = compiled[0].program
else:
    step = carried_programs.CarriedPrograms(folder, settings).step(Phase.ALL, ordinary)
state, _, _ = create_state(build_model(config["model"]), settings.train, 0)
state = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)]), state)
images = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 64, 3), np.uint8)
for _ in range(2):
    state, figures = step(state, images)
leaves = [float(np.abs(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(state)]
print(json.dumps([float(figures["loss"][0]), *leaves]))
"""


@dataclasses.dataclass
class Carried:
    """A folder of carried programs, and the loss and sums of a state after two steps of theirs."""

    folder: Path
    config: dict
    expected: list[float] = dataclasses.field(default_factory=list)

    def run(self, mode: str) -> list[float]:
        """In a process of its own, whose programs do not come from JAX's cache."""
        done = subprocess.run(
            [sys.executable, "-c", CARRY, json.dumps(self.config), str(self.folder), mode],
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def carried(tiny_config: ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    """The tiny model's training step, for the devices of the tests."""
    config = tiny_config.copy_and_resolve_references()
    config.train.batch_size = 2
    folder = tmp_path_factory.mktemp("programs")
    carried = Carried(folder, json.loads(json.dumps(config.to_dict())))
    carried.expected = carried.run("save")
    return carried
