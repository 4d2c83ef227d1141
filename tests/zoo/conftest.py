import pytest


@pytest.fixture
def user_data(tmp_path, monkeypatch):
    """An empty folder in place of the user's data folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("LLIC_MODELS", raising=False)
    return tmp_path / "data"
