from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.entropy_model = "stf"
    config.model.slices = 10
    config.model.max_support = 5
    config.model.context_widths = (224, 176, 128, 64)
    return config
