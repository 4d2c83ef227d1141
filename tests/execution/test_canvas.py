"""What networks make of an image on a canvas, beside what they make of it at its own size."""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llic_jax.codec.codec import Codec
from llic_jax.codec.networks import CompiledNetworks
from llic_jax.entropy.walk import Walk
from llic_jax.execution.canvas import Canvas
from llic_jax.layers.attention import SwinBlock, WindowAttention
from llic_jax.layers.chain import Chain, Local
from llic_jax.layers.convolutions import (
    Conv,
    ConvStack,
    PatchEmbedding,
    SampleConv,
    SubpixelConv,
    TransposedConv,
    Weights,
)
from llic_jax.layers.depthwise import DepthwiseConv
from llic_jax.layers.quality import BranchGain, Gain
from llic_jax.models.build import build_model, initialize
from llic_jax.transforms.blocks import (
    SCCT,
    SCST,
    BasicBlock,
    DepthRB,
    Gate,
    WeightGenerator,
)

ROOMS = ("llic_jax.layers.", "llic_jax.transforms.")

SIZES = dict(channels=(8, 8, 12, 16), kernel_sizes=(5, 5, 3, 3), hyper_channels=8)
MODELS = {
    "llic_elic": dict(groups=(4, 12), context_widths=(8,)),
    "llic_stf": dict(slices=2, max_support=1, context_widths=(8,)),
    "llic_tcm": dict(
        slices=2, max_support=1, context_widths=(8,), attention_channels=8, head_dims=(2, 4),
        window_sizes=(4, 8),
    ),
    "llic_elic_eighth": dict(
        channels=(12, 16), kernel_sizes=(5, 3), depths=(1, 1), groups=(4, 12), context_widths=(8,),
        generator_width=4, levels=1,
    ),
}  # fmt: skip


def test_few_canvases_that_are_not_much_larger_than_the_image():
    sides = {Canvas.of_size(64 * n, 1).standard_size().blocks[0] for n in range(1, 129)}
    assert len(sides) == 22
    for n in range(1, 129):
        side = Canvas.of_size(64 * n - 5, 1).standard_size().blocks[0]
        assert n <= side <= max(n + 1, 1.25 * n)
        assert side in sides
    # Common sizes of photographs and of video are their own canvases.
    for height, width in ((512, 768), (1024, 1024), (2048, 1536)):
        assert Canvas.of_size(height, width).standard_size() == Canvas.of_size(height, width)


@pytest.mark.parametrize("height", [1, 2, 16])
def test_what_is_put_on_a_canvas_can_be_cropped_again(height):
    canvas = Canvas.of_size(5 * 64, 9 * 64).standard_size()
    assert canvas.blocks == (6, 10)
    x = np.random.default_rng(0).random((1, 5 * height, 9, 2), np.float32)
    whole = canvas.place(x)
    assert whole.shape == (1, 6 * height, 10, 2) and whole.dtype == x.dtype
    np.testing.assert_array_equal(canvas.crop(whole), x)
    assert whole.sum(dtype=np.float64) == pytest.approx(x.sum(dtype=np.float64))
    np.testing.assert_array_equal(canvas.mask(jnp.asarray(1 + whole)), canvas.place(1 + x))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_an_image_on_a_canvas_is_coded_as_at_its_own_size(name):
    config = importlib.import_module(f"llic_jax.configs.{name}").get_config().model
    config.update({**SIZES, **MODELS[name]})
    model = build_model(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(  # away from their start: no bias is zero
        lambda p: p + np.float32(0.02) * rng.standard_normal(p.shape, np.float32), initialize(model)
    )
    params["g_s"]["up_0"]["expand"]["conv"]["bias"] += 0.5  # grey, not black
    networks, found = CompiledNetworks(model, params, memory_gb=4.0), []
    image = rng.random((1, 5 * 64, 64, 3), np.float32)
    for canvas in (Canvas.of_size(320, 64), Canvas((6, 2), np.array((5, 1), np.int32))):
        y, z = networks.analyze(canvas, canvas.place(image), None)
        z_hat, bits = networks.round_hyper(canvas, 20 * z)
        seen = [y, z, z_hat]
        hyper = networks.hyper_synthesize(canvas, z_hat, None)
        seen += jax.tree.leaves(hyper)
        walk = Walk(networks.entropy_model(canvas), hyper, y.shape)
        for step, mean, scale in walk:
            _, values, step_bits = networks.quantize(canvas, step, 20 * y, mean, scale, 0.0)
            walk.fill(values)
            seen += [mean, values]
            bits = bits + step_bits
        seen.append(walk.y_hat)
        for array in seen:  # nothing is ever beyond the image
            np.testing.assert_array_equal(canvas.place(np.asarray(canvas.crop(array))), array)
        x_hat = canvas.crop(networks.synthesize(canvas, walk.y_hat / 20, None))
        found.append((np.asarray(x_hat, int), bits, [canvas.crop(array) for array in seen]))
    (image, bits, arrays), (image_too, bits_too, arrays_too) = found
    assert np.std(image) > 1 and np.abs(image - image_too).max() <= 1
    np.testing.assert_allclose(bits_too, bits, rtol=1e-4)
    for exact, on_canvas in zip(arrays, arrays_too, strict=True):
        largest = np.abs(exact).max()
        assert largest > 0
        np.testing.assert_allclose(on_canvas, exact, rtol=1e-4, atol=1e-4 * largest)


CHANNELS = 8
LAYERS = [
    Conv(6, 1), Conv(6, 3), Conv(6, 5, stride=2), SampleConv(), DepthwiseConv(3), TransposedConv(6),
    SubpixelConv(6), SubpixelConv(3, 4), PatchEmbedding(6, 4), WindowAttention(4, 2, shift=2),
    DepthRB(), DepthRB(False), SCST(5), SCST(5, self_conditioned=False), SCCT(), Gate(),
    Gate(False), Gate(activation_limit=0.5),
]  # fmt: skip
# Made of layers that declare how they are confined, or of parameters that have no positions.
COMPOSED = (ConvStack, SwinBlock)
WITHOUT_POSITIONS = (Weights, WeightGenerator, BranchGain, Gain, nn.Dense)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_is_confined_as_it_declares(layer):
    """Zero beyond the image stays zero, if not by itself then masked; the image is as without."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 40, 8, CHANNELS)).astype(np.float32)
    canvas = Canvas((6, 2), np.array((5, 1), np.int32))
    arguments: tuple = ()
    if isinstance(layer, SampleConv):
        arguments = (
            jnp.asarray(rng.standard_normal((2, CHANNELS, 6)), jnp.float32), jnp.ones((2, 6))
        )  # fmt: skip
    params = jax.tree.map(  # no bias is zero
        lambda p: p + np.float32(0.1) * rng.standard_normal(p.shape, np.float32),
        layer.init(jax.random.key(0), jnp.asarray(x), *arguments),
    )
    whole = jnp.asarray(canvas.place(x))
    out = canvas.apply(lambda: layer.apply(params, whole, *arguments))
    np.testing.assert_array_equal(out, canvas.place(canvas.crop(out)))
    alone = layer.apply(params, jnp.asarray(x), *arguments)
    scale = np.abs(alone).max()
    assert scale > 0.1
    np.testing.assert_allclose(canvas.crop(out), alone, rtol=1e-4, atol=1e-5 * scale)
    locality = layer.locality
    side = -(-40 * locality.upsampling // locality.stride)
    assert alone.shape[1] == side and alone.shape[3] == (locality.features or alone.shape[3])
    if locality.leaks:
        beyond = np.asarray(layer.apply(params, whole, *arguments))
        assert np.any(beyond != canvas.place(canvas.crop(beyond))), "nothing to mask"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_the_models_declares_how_it_is_confined(name):
    config = importlib.import_module(f"llic_jax.configs.{name}").get_config().model
    config.update({**SIZES, **MODELS[name]})
    model, called = build_model(config), set()

    def note(method, args, kwargs, context):
        if context.method_name == "__call__":
            called.add(type(context.module))
        return method(*args, **kwargs)

    with nn.intercept_methods(note):
        initialize(model)
    layers = {kind for kind in called if kind.__module__.startswith(ROOMS)}
    assert len(layers) > 8
    for kind in layers - {*COMPOSED, *WITHOUT_POSITIONS}:
        assert issubclass(kind, Local | Chain), kind
        assert issubclass(kind, Chain) or kind in map(type, LAYERS), f"{kind} is not tested"
    # Flax's own: norms, which only 1x1 convolutions see.
    others = {kind for kind in called if kind.__module__.startswith("flax.")}
    assert others <= {nn.Dense, nn.LayerNorm}


def test_images_of_sizes_that_round_alike_share_all_programs(tiny_codec, photograph):
    codec = Codec(tiny_codec.model, tiny_codec.options)

    def code(height: int, width: int) -> None:
        image = photograph[:height, :width]
        encoded = codec.encode([image])[0]
        decoded = codec.decode([encoded.data])[0].image
        np.testing.assert_array_equal(decoded, codec.reconstruct(encoded))

    height, width = photograph.shape[:2]
    image = np.pad(photograph, ((0, 384 - height), (0, 384 - width), (0, 0)), mode="reflect")
    photograph = image
    code(300, 310)
    kept = [program for name, program in codec.networks.programs.items() if name != "refine"]
    assert codec.networks.programs["refine"].count() == 0  # LLIC-ELIC refines nothing
    compiled = [program.count() for program in kept]
    assert min(compiled) >= 1 and len(compiled) >= 7
    code(257, 320)
    code(290, 270)
    assert [program.count() for program in kept] == compiled
    code(200, 320)
    assert [program.count() for program in kept] > compiled


def test_a_file_written_on_a_canvas_decodes_without_one(tiny_codec, photograph):
    image = np.pad(photograph, ((0, 40), (0, 40), (0, 0)), mode="reflect")
    data = tiny_codec.compress(image)
    network = tiny_codec.network.clone(on_canvas=False)
    own = Codec(tiny_codec.model._replace(network=network), tiny_codec.options)
    difference = np.abs(own.decompress(data).astype(int) - tiny_codec.decompress(data))
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-3
    assert abs(len(own.compress(image)) - len(data)) <= 2


def test_an_accelerator_s_way_stays_within_the_image(monkeypatch):
    """Where kernels are made for each sample, biases must not leave the image either."""
    monkeypatch.setenv("LLIC_PALLAS", "0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    rng = np.random.default_rng(0)
    module, quality = BasicBlock(3, levels=2), jnp.array([1.4])
    x = jnp.asarray(rng.standard_normal((1, 20, 4, 8)), jnp.float32)
    params = jax.tree.map(
        lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        module.init(jax.random.key(0), x, quality),
    )
    canvas = Canvas((6, 2), np.array((5, 1), np.int32))
    whole = canvas.apply(lambda: module.apply(params, jnp.asarray(canvas.place(x)), quality))
    expected = module.apply(params, x, quality)
    np.testing.assert_allclose(canvas.crop(whole), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole, canvas.place(canvas.crop(whole)))
