"""Times a training step of LLIC's transforms in stock PyTorch layers; needs PyTorch alone.

    python benchmarks/torch_transforms.py --model MODEL.json --crops 32 --side 256 --dtype bfloat16

MODEL.json holds a config's `model` section. The step is g_s(g_a(x)), the squared error, its
gradients and Adam, channels last, by `torch.compile` where there is a GPU; no entropy model, whose
part in ours makes the comparison a cautious one. Prints one line of JSON.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

dense = partial(nn.Conv2d, kernel_size=1)


class Residual(nn.Module):
    """`x + branch(x)`."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return first * second


class Generator(nn.Module):
    """Weights from the mean over all positions. width: inner features; 0: channels / 4."""

    def __init__(self, channels: int, features: int, width: int):
        super().__init__()
        width = width or channels // 4
        self.inner, self.outer = nn.Linear(channels, width), nn.Linear(width, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(F.gelu(self.inner(x.mean((2, 3)))))


class SpatialWeights(nn.Module):
    """A depth-wise convolution with one generated kernel for each sample and channel."""

    def __init__(self, channels: int, size: int, width: int):
        super().__init__()
        self.size = size
        self.generator = Generator(channels, channels * size**2, width)
        self.into, self.out = dense(channels, channels), dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        maps = batch * channels
        kernel = self.generator(x).view(maps, 1, self.size, self.size)
        h = self.into(x).reshape(1, maps, height, width)
        h = F.conv2d(h, kernel.to(h.dtype), padding=self.size // 2, groups=maps)
        return self.out(h.view(batch, channels, height, width))


class ChannelFactors(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.generator = Generator(channels, channels, width)
        self.into, self.out = dense(channels, channels), dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x) * self.generator(x).sigmoid()[:, :, None, None])


def half_block(c: int, conditioned: nn.Module) -> list[nn.Module]:
    """DepthRB, SCST or SCCT, Gate."""
    embed = nn.Sequential(
        dense(c, c),
        nn.LeakyReLU(0.01),
        nn.Conv2d(c, c, 3, padding=1, groups=c),
        nn.LeakyReLU(0.01),
        dense(c, c),
    )
    gate = nn.Sequential(dense(c, 2 * c), Gated(), dense(c, c))
    return [Residual(embed), Residual(conditioned), Residual(gate)]


def block(channels: int, size: int, width: int, inverse: bool) -> list[nn.Module]:
    spatial = half_block(channels, SpatialWeights(channels, size, width))
    channel = half_block(channels, ChannelFactors(channels, width))
    return channel + spatial if inverse else spatial + channel


def transforms(model: dict) -> nn.Module:
    """g_a and g_s of a `model` section, one after the other."""
    analysis, synthesis, before = [], [], 3
    strides, width = model["strides"], model["generator_width"]
    for channels, size, depth, stride in zip(
        model["channels"], model["kernel_sizes"], model["depths"], strides, strict=True
    ):
        # Beyond 2, patches that do not overlap.
        kernel, padding = (5, 2) if stride == 2 else (stride, 0)
        analysis.append(nn.Conv2d(before, channels, kernel, stride=stride, padding=padding))
        blocks = []
        for _ in range(depth):
            analysis += block(channels, size, width, inverse=False)
            blocks += block(channels, size, width, inverse=True)
        expand = nn.Conv2d(channels, stride**2 * before, 3, padding=1)
        synthesis = [*blocks, expand, nn.PixelShuffle(stride), *synthesis]
        before = channels
    return nn.Sequential(*analysis, *synthesis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="JSON of a model section")
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    net = transforms(json.loads(args.model.read_text())).to(
        device, memory_format=torch.channels_last
    )
    run = torch.compile(net) if cuda else net
    optimizer = torch.optim.Adam(net.parameters(), 1e-4, fused=cuda)
    x = torch.rand(args.crops, 3, args.side, args.side, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    dtype = getattr(torch, args.dtype)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=args.dtype != "float32"):
            x_hat = run(x)
        F.mse_loss(x_hat.float(), x).backward()
        optimizer.step()

    def seconds(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    found = {"torch": torch.__version__, "first_step_s": seconds(1)}
    seconds(1)
    found["ms"] = 1e3 * seconds(args.steps) / args.steps
    found["crops_per_second"] = 1e3 * args.crops / found["ms"]
    if cuda:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(found))


if __name__ == "__main__":
    main()
