"""Released models: folders of weights, tables and a model card."""
