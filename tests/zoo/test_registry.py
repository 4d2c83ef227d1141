import json

import pytest

from llic_jax.errors import RegistryError
from llic_jax.zoo.installed import describe_folder
from llic_jax.zoo.manifest import read_fingerprint
from llic_jax.zoo.registry import PACKAGED, REGISTRY, read_registry, registry


def test_released_models_are_numbered_in_order():
    models = registry().models
    assert [model.name for model in models] == [
        f"llic-elic-small-{number}" for number in range(1, len(models) + 1)
    ]
    assert [model.date for model in models] == sorted(model.date for model in models)
    assert registry().recommended == models[-1].name


def test_released_models_never_change():
    """Numbers and fingerprints that files in the world rely on; entries are only ever added."""
    assert [model.fingerprint for model in registry().models][:11] == [
        "d5158285461183ea",
        "be2c1b1bef714ead",
        "01a72492c4c33aab",
        "6b149d56051c2df0",
        "6ef6b4d08cdf9400",
        "9441e7abfd1b070a",
        "49fcf7811b226786",
        "71c21327ea25f5f5",
        "e6b402dc9011e5e2",
        "b72a36083a7aba63",
        "644e180419945087",
    ]


def test_the_packaged_models_are_in_it():
    found = {folder.name: describe_folder(folder) for folder in PACKAGED.iterdir()}
    for name, model in found.items():
        released = registry().named(name)
        assert released is not None
        assert (model.name, model.fingerprint) == (name, released.fingerprint)
        if not model.decoder_only:
            assert read_fingerprint(model.folder) == model.fingerprint
    assert not found[registry().recommended].decoder_only


def with_entry(change):
    content = json.loads(REGISTRY.read_text())
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["models"][3].pop("commit"), "Entry 4 .* expected an object with the fields"),
        (lambda c: c["models"][3].update(fingerprint="6b14"), "Entry 4 .* expected 16 hexadecimal"),
        (lambda c: c["models"][3].update(commit="z" * 40), "Entry 4 .* expected 40 hexadecimal"),
        (lambda c: c["models"][3].update(steps="many"), "Entry 4 .* expected int"),
        (lambda c: c["models"][3].update(kodak_bpp=[0.1]), "Entry 4 .* or 8 numbers"),
        (lambda c: c["models"][3].update(name="llic-elic-small-3"), "Entry 4 .* name, .* another"),
        (lambda c: c.update(recommended="llic-elic-small-99"), "recommends 'llic-elic-small-99'"),
        (lambda c: c.pop("models"), "cannot be read"),
    ],
)
def test_damaged_entries_are_named(tmp_path, change, message):
    path = tmp_path / "registry.json"
    path.write_text(json.dumps(with_entry(change)))
    with pytest.raises(RegistryError, match=message):
        read_registry(path)


def test_a_registry_that_is_not_there(tmp_path):
    with pytest.raises(RegistryError, match="cannot be read"):
        read_registry(tmp_path / "registry.json")
