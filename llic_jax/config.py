"""What the package takes for a configuration: a `ConfigDict`, or the same as plain dictionaries."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from ml_collections import ConfigDict

Config: TypeAlias = Mapping[str, Any] | ConfigDict


def as_dict(config: Config) -> dict[str, Any]:
    """Plain dictionaries all the way down."""
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)
