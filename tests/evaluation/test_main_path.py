"""How far it is from the command line to the networks."""

import traceback

import numpy as np

from llic_jax import evaluate
from llic_jax.codec.networks import CompiledNetworks
from llic_jax.images.write import write_image


def test_few_frames_lie_between_eval_and_the_networks(tmp_path, tiny_release, monkeypatch):
    frames: list[list[str]] = []
    quantize = CompiledNetworks.quantize

    def counted(self, *args):
        found = traceback.extract_stack()
        frames.append([f"{f.filename}:{f.name}" for f in found if "/llic_jax/" in f.filename])
        return quantize(self, *args)

    monkeypatch.setattr(CompiledNetworks, "quantize", counted)
    write_image(tmp_path / "black.png", np.zeros((64, 64, 3), np.uint8))
    paths = ["--data_dir", str(tmp_path / "black.png"), "--output", str(tmp_path / "out")]
    model = ["--checkpoint", str(tiny_release), "--quality", "1"]
    evaluate.main([*paths, *model, "--codecs", "--no_inspection"])
    of_image = frames[-1]  # the first ones are of the black image that compiles
    assert len(of_image) + 1 <= 11, "\n".join(of_image)  # with `quantize` itself
