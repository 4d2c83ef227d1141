"""Devices that are absent: how they are described, and a JAX that cannot compile for them."""

import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from llic_jax.errors import ConfigError
from llic_jax.execution import ahead_of_time

plugin = [
    one.metadata["name"]
    for one in importlib.metadata.distributions()
    if (one.metadata["name"] or "").startswith(("jax-cuda", "jax_cuda"))
]


@pytest.mark.skipif(bool(plugin), reason="this JAX can compile for a GPU")
def test_a_jax_without_cuda_says_so():
    with pytest.raises(ConfigError, match=r"cannot compile for h200 here.*make aot"):
        ahead_of_time.target_device("h200")


@pytest.mark.skipif(not plugin, reason="needs JAX's plugin for CUDA")
@pytest.mark.parametrize("target", sorted(ahead_of_time.TARGETS))
def test_an_absent_gpu(target):
    device = ahead_of_time.target_device(target)
    assert (device.platform, device.compute_capability) == ("gpu", "9.0")
    assert device.device_kind == ahead_of_time.TARGETS[target].name


def test_what_is_compiled_quickly_computes_the_same(caplog):
    """Also where the compiler does not know the options."""
    step = jax.jit(lambda state, images: state + images.sum())
    quick = ahead_of_time.quickly_compiled(step)
    for size in (3, 3, 4):
        assert quick(1.0, jnp.ones(size)) == 1 + size
    refusing = SimpleNamespace(lower=lambda *_: 1 / 0)
    with pytest.raises(TypeError, match="not callable"):
        ahead_of_time.quickly_compiled(refusing)(1.0, jnp.ones(3))
    assert "the quick way failed" in caplog.text


def test_options_for_devices_that_are_there_and_absent(tmp_path):
    """Autotuning results are used where they are; a device that is there measures by itself."""
    assert ahead_of_time.compiler_options(jax.devices()[0]) == {}

    assert "xla_gpu_load_autotune_results_from" not in ahead_of_time.absent_gpu_options(tmp_path)
    (tmp_path / "results.textproto").write_text("")
    loaded = ahead_of_time.absent_gpu_options(tmp_path)["xla_gpu_load_autotune_results_from"]
    assert loaded == str(tmp_path / "results.textproto")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "h200"], "--target needs --compile_only and --programs"),
        ([], "--workdir is needed"),
    ],
)
def test_flags_of_train_that_do_not_go_together(flags, message):
    done = subprocess.run(
        [sys.executable, "train.py", "--config", "configs/smoke.py", *flags,
         *(["--workdir", "none"] if flags else [])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and message in done.stdout + done.stderr
