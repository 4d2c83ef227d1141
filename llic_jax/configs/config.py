"""What the package takes for a configuration: a `ConfigDict`, or the same as plain dictionaries."""

from collections.abc import Mapping
from typing import Any, TypeAlias

try:
    from ml_collections import ConfigDict
except ImportError:  # a machine that has only what training needs takes plain dictionaries
    ConfigDict = dict

Config: TypeAlias = Mapping[str, Any] | ConfigDict


def as_dict(config: Config) -> dict[str, Any]:
    """A config as plain dictionaries all the way down.

    Args:
        config: A `ConfigDict`, or dictionaries.
    """
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)
