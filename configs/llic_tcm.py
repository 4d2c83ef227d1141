from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.entropy_model = "tcm"
    config.model.slices = 5
    config.model.max_support = 5
    config.model.context_widths = (224, 128)
    return config
