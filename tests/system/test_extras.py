"""How to install what is missing: one command for a clone, another for an installed package."""

from pathlib import Path

from llic_jax.system import extras


def test_a_clone_stays_in_use(tmp_path, monkeypatch):
    package = tmp_path / "clone" / "llic_jax" / "system"
    package.mkdir(parents=True)
    monkeypatch.setattr(extras, "__file__", str(package / "extras.py"))
    assert extras.install_command("eval") == "pip install 'llic_jax[eval]'"
    (tmp_path / "clone" / "setup.cfg").touch()
    root = Path(tmp_path / "clone")
    assert extras.install_command("data,tfc") == f"pip install -e '{root}[data,tfc]'"
