"""Every release has its cost in the record."""

import json
from pathlib import Path

import pytest

from llic_jax.zoo.registry import REGISTRY


def test_every_release_is_in_the_record_and_costs_more_than_the_one_before(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import cost_record

    released = [model["name"] for model in json.loads(REGISTRY.read_text())["models"]]
    rows = cost_record.rows()
    assert [row["model"] for row in rows] == released[-len(rows) :]
    for name in ("steps", "crops", "gigapixels", "pflop"):
        values = [row[name] for row in rows]
        assert values == sorted(values) and values[0] > 0
    # Six operations for each multiplication: 74,000 a pixel at first.
    assert rows[0]["pflop"] == pytest.approx(6 * 74e3 * 0.92e9 / 1e15)
