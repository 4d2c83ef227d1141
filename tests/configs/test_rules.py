"""Every field of a config has a rule, and a value that cannot be is told in one line."""

import importlib
import json
from pathlib import Path

import pytest

from llic_jax.configs import default
from llic_jax.configs.rules import RULES, check_fields
from llic_jax.configs.upgrade import RENAMED, upgrade
from llic_jax.errors import ConfigError

ROOT = Path(__file__).parents[2]
STORED = [
    *ROOT.glob("tests/golden/models/*/config.json"),
    *ROOT.glob("llic_jax/released/*/config.json"),
]


def flat(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def changed(name, value):
    config = default.get_config().to_dict()
    *sections, field = name.split(".")
    place = config
    for section in sections:
        place = place[section]
    place[field] = value
    return config


def test_every_field_has_a_rule_and_every_rule_a_field():
    assert {name for name, _ in flat(default.get_config().to_dict())} == set(RULES)


@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "configs").glob("*.py"))])
def test_the_project_s_configs_keep_the_rules(name):
    check_fields(importlib.import_module(f"llic_jax.configs.{name}").get_config().to_dict())


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.parent.name)
def test_stored_configs_of_every_age_are_upgraded(path):
    raw = json.loads(path.read_text())
    before = json.dumps(raw)
    upgraded = upgrade(raw)
    check_fields(upgraded)
    assert json.dumps(raw) == before and upgrade(upgraded) == upgraded
    old, new = dict(flat(raw)), dict(flat(upgraded))
    assert not RENAMED.keys() & new.keys()
    for name, value in old.items():
        assert new[RENAMED.get(name, name)] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("train.eval_every", 0),
        ("train.log_every", 0),
        ("train.log_every", 2.5),
        ("train.log_every", True),
        ("train.batch_size", 0),
        ("train.keep_checkpoints", 0),
        ("train.distortion", "psnr"),
        ("train.learning_rate", float("nan")),
        ("train.learning_rate", "fast"),
        ("train.lmbdas", ()),
        ("train.lmbdas", (0.01, -1)),
        ("train.frozen", "g_a"),
        ("train.tensorboard", 1),
        ("train.start", ""),
        ("data.threads", 0),
        ("data.source", None),
        ("data.pasted", 1.5),
        ("data.device_gb", 0),
        ("coding.shift_resolution", -1),
        ("model.mixture", (0.5, 0.5)),
        ("model.dtype", "float16"),
        ("model.channels", (8, 0)),
        ("model.style.gate", "yes"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_field(name, value):
    with pytest.raises(ConfigError) as error:
        check_fields(changed(name, value))
    assert str(error.value).startswith(f"{name} is ") and "\n" not in str(error.value)


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ConfigError, match=r"train\.batchsize is no .* mean train\.batch_size\?"):
        check_fields(changed("train.batchsize", 2))
    with pytest.raises(ConfigError, match=r"level_balance is no .* it is train\.rate_weighting"):
        check_fields(changed("train.level_balance", 0.1))
    with pytest.raises(ConfigError, match=r"nonsense is no field"):
        check_fields(changed("nonsense", 2))
    config = default.get_config().to_dict()
    del config["train"]["steps"]
    with pytest.raises(ConfigError, match=r"has no train\.steps"):
        check_fields(config)
    check_fields(changed("model.own_field", 2), own_model_fields=True)
    check_fields(changed("started_from", {"trained_steps": 3}))
