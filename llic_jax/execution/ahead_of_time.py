"""Devices that programs are compiled for on a machine that has none of them.

XLA compiles for a GPU from a description of it (`GpuTargetConfigProto`): all of its passes, code
generation and assembly run on a CPU. It cannot measure, so tiles of matrix products come from XLA's
cost model instead of autotuning, unless results of an earlier autotuning on such a GPU are at hand.
Environment and limits: docs/ahead_of_time.md.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from llic_jax.errors import ConfigError

# Results of autotuning on a GPU, a folder for each target (docs/ahead_of_time.md).
AUTOTUNE = Path(__file__).parents[2] / "benchmarks" / "autotune"


class Target(NamedTuple):
    """A kind of GPU, by its data sheet.

    Attributes:
        name: As its `device_kind` reads.
        memory: Bytes.
        bandwidth: Bytes a second.
    """

    name: str
    memory: int
    bandwidth: int


TARGETS = {
    "h100": Target("NVIDIA H100 80GB HBM3", 85_017_493_504, 3_352_320_000_000),
    "h200": Target("NVIDIA H200", 150_754_820_096, 4_800_000_000_000),
}

# Both are of compute capability 9.0 and have 132 processors; figures of the data sheets (SXM).
_DESCRIPTION = """
platform_name: "CUDA"
device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
gpu_device_info {{
  name: "{name}"
  device_vendor: "NVIDIA Corporation"
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  memory_bandwidth: {bandwidth}
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_address_bits: 64
  ecc_enabled: true
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.12.0"
}}
"""


def prepare_environment() -> None:
    """Lets JAX start without the device, with arrays on the CPU; to be called before JAX is used.

    Sets `JAX_PLATFORMS` and `JAX_SKIP_CUDA_CONSTRAINTS_CHECK` (else the plugin looks for cuDNN and
    gives up) unless they are set.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    # JAX reads the variable when it is imported; this holds afterwards too.
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


def target_device(target: str, autotune: Path | None = None) -> jax.Device:
    """A device of this kind, for compiling only.

    Args:
        target: a key of `TARGETS`.
        autotune: folder as in `compiler_options`; the GPU's own description is used if it is there.

    Raises:
        ConfigError: if this JAX cannot compile for it.
    """
    from jax.experimental import topologies

    description = _DESCRIPTION.format(**TARGETS[target]._asdict())
    if autotune is not None and (own := autotune / "target_config.txt").exists():
        description = own.read_text()
    try:
        topology = topologies.get_topology_desc(
            "", platform="cuda", target_config=description, topology="1x1x1"
        )
    except Exception as error:
        raise ConfigError(
            f"JAX {jax.__version__} cannot compile for {target} here: {error}. Use the environment "
            "of `make aot` (docs/ahead_of_time.md)."
        ) from error
    return topology.devices[0]


def compiler_options(device: jax.Device, autotune: Path | None = None) -> dict[str, bool | str]:
    """XLA's options for compiling without the device.

    Args:
        device: from `target_device`, or a device that is there (which needs none).
        autotune: a folder with `results.textproto`, what XLA's `xla_gpu_dump_autotune_results_to`
            wrote on such a GPU, and `target_config.txt`, its description: XLA finds results again
            by the description. Without that file, tiles come from XLA's cost model.
    """
    absent = device.platform == "gpu" and jax.default_backend() != "gpu"
    return absent_gpu_options(autotune) if absent else {}


def absent_gpu_options(autotune: Path | None = None) -> dict[str, bool | str]:
    """`compiler_options` of a GPU that is absent.

    Args:
        autotune: As in `compiler_options`.
    """
    options: dict[str, bool | str] = {"xla_gpu_experimental_cost_model_gemm_tiling_default": True}
    if autotune is not None and (results := autotune / "results.textproto").exists():
        options["xla_gpu_load_autotune_results_from"] = str(results)
    return options


def quickly_compiled(step: Any) -> Callable[..., Any]:
    """A jitted function whose programs are compiled without autotuning, for a GPU that is there.

    Autotuning tries some 20 tilings for each product: minutes for a training step.

    Args:
        step: The function; its programs differ by the shape of its second argument alone.
    """
    programs: dict[tuple[int, ...], Any] = {}
    options = {"xla_gpu_autotune_level": 0, **absent_gpu_options(None)}

    def run(state: Any, images: Any, *rest: Any) -> Any:
        shape = tuple(images.shape)
        if shape not in programs:
            try:
                programs[shape] = step.lower(state, images, *rest).compile(options)
            except Exception as error:  # an option that this XLA does not know
                logging.warning("compiled with autotuning, for the quick way failed: %s", error)
                programs[shape] = step
        return programs[shape](state, images, *rest)

    return run


def sharding_on(device: jax.Device) -> jax.sharding.NamedSharding:
    """Whole arrays on this one device; its mesh tells JAX what the device is."""
    mesh = jax.sharding.Mesh(np.array([device]), ("device",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
