"""Memory traffic, kernels and a lower bound of the time of an optimized HLO module (`hlo_text.py`).

Kernels: every instruction of the entry computation that is launched: fusions, library and custom
calls, copies. Instructions of a loop's body count as often as it runs.

Bytes: what a kernel reads and writes in the device's memory, each array once. A fusion that uses
slices of an operand reads the slices. An update in place reads and writes the update. Left out:
caches, a library's work space, and what a kernel reads twice.

Floor: a kernel takes as long as its bytes, its matrix products or its depth-wise products,
whichever is longest, at the rates of `RATES`.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hlo_text import Instruction, Module, arrays, byte_size, elements, field, in_package, short_path

LAUNCH_SECONDS = 2e-6  # from one kernel to the next, at least


class Rates(NamedTuple):
    """What a device reaches.

    memory: bytes/s of a large copy. products: FLOP/s of large matrix products by type (float32 as
    TF32). plain: FLOP/s in float32 without matrix units.
    """

    memory: float
    products: Mapping[str, float]
    plain: float


# Memory: some 90 % of the data sheet's. Products: some 80 % of it, with matrix units.
_PRODUCTS = {"f32": 400e12, "bf16": 800e12, "f16": 800e12}
RATES = {"h100": Rates(3.0e12, _PRODUCTS, 67e12), "h200": Rates(4.3e12, _PRODUCTS, 67e12)}


class Kernel(NamedTuple):
    """What is launched `runs` times. Bytes and FLOP are those of one run.

    kind: of a fusion, or the target of a call. products: FLOP of matrix products and convolutions,
    on operands of `product_type`. depthwise: FLOP of this package's depth-wise kernels.
    """

    instruction: Instruction
    kind: str
    runs: int
    bytes: float
    products: float = 0.0
    product_type: str = "f32"
    depthwise: float = 0.0

    def seconds(self, rates: Rates) -> float:
        """The floor of all runs, without launches."""
        return self.runs * max(
            self.bytes / rates.memory,
            self.products / rates.products.get(self.product_type, rates.products["f32"]),
            self.depthwise / rates.plain,
        )


_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"} | {
    "opt-barrier", "partition-id", "replica-id", "copy-done", "async-done", "async-update"
}  # fmt: skip
_SLICES = {"slice", "dynamic-slice", "gather"}
# Any element of the result may depend on all of an operand.
_MIXING = {"dot", "convolution", "scatter", "sort", "tuple", "reduce-window", "custom-call"}


def kernels(module: Module) -> list[Kernel]:
    """All that the module launches, in the order of execution."""
    return list(_kernels(module, module.entry, 1))


def _kernels(module: Module, computation: str, runs: int) -> Iterator[Kernel]:
    body = {one.name: one for one in module.computations[computation]}
    for one in body.values():
        called = _called(one)
        if one.opcode == "while":
            trips = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', one.attributes)
            yield from _kernels(module, called["body"][0], runs * int(trips[1] if trips else 1))
        elif one.opcode == "conditional":
            names = itertools.chain.from_iterable(called.values())
            branches = [list(_kernels(module, name, runs)) for name in names]
            yield from max(branches, key=lambda branch: sum(k.runs * k.bytes for k in branch))
        elif one.opcode in ("call", "async-start"):
            yield from _kernels(module, next(iter(called.values()))[0], runs)
        elif one.opcode == "fusion":
            yield _fusion(one, module.computations[called["calls"][0]], runs)
        elif one.opcode not in _FREE:
            yield _single(one, body, runs)


def _called(one: Instruction) -> dict[str, list[str]]:
    """The computations that an instruction names, by attribute, conditions left out."""
    attributes = one.attributes.partition("backend_config=")[0]
    names = r"(calls|body|to_apply|branch_computations|true_computation|false_computation)"
    found = re.findall(rf"{names}=(\{{[^}}]*\}}|%?[\w.\-]+)", attributes)
    return {name: re.findall(r"[\w.\-]+", value) for name, value in found}


def _fusion(one: Instruction, computation: Sequence[Instruction], runs: int) -> Kernel:
    body = {inner.name: inner for inner in computation}
    needed = _needed(computation, body)
    read = sum(
        byte_size(inner.type) * needed[inner.name] / elements(inner)
        for inner in computation
        if inner.opcode == "parameter" and needed[inner.name]
    )
    kind = re.search(r'"kind":"(\w+)"', one.attributes) or re.search(r"kind=k(\w+)", one.attributes)
    products = [(_product_flop(inner, body), inner) for inner in computation]
    product = max(products, key=lambda item: item[0])[1]
    return Kernel(
        one,
        kind[1].lower() if kind else "fusion",
        runs,
        read + _written(computation[-1], body),
        sum(flop for flop, _ in products),
        _operand_type(product, body),
    )


def _needed(
    computation: Sequence[Instruction], body: Mapping[str, Instruction]
) -> dict[str, float]:
    """For each instruction of a fusion, how many of its elements the result depends on: the sum
    over its slices, plus the most that any other use takes."""
    sliced: dict[str, float] = defaultdict(float)
    used: dict[str, float] = defaultdict(float)
    used[computation[-1].name] = math.inf
    needed: dict[str, float] = {}
    for one in reversed(computation):
        whole = elements(one)
        count = needed[one.name] = min(sliced[one.name] + used[one.name], whole)
        for position, name in enumerate(one.operands if count else ()):
            size = elements(body[name])
            if one.opcode in _SLICES and position == 0:
                sliced[name] += min(count, size)
            elif one.opcode == "dynamic-update-slice" and position == 0:
                continue  # written in place
            elif one.opcode in _MIXING:
                used[name] = size
            elif one.opcode == "reduce" and position == 0:
                used[name] = max(used[name], size * count / whole)
            else:
                used[name] = max(used[name], min(count, size))
    return needed


def _written(root: Instruction, body: Mapping[str, Instruction]) -> float:
    if root.opcode == "bitcast":
        return _written(body[root.operands[0]], body)
    if root.opcode == "tuple":
        return sum(_written(body[name], body) for name in root.operands)
    if root.opcode == "dynamic-update-slice":
        return byte_size(body[root.operands[1]].type)
    return byte_size(root.type)


def _single(one: Instruction, body: Mapping[str, Instruction], runs: int) -> Kernel:
    target = re.search(r'custom_call_target="([^"]+)"', one.attributes)
    operands = [byte_size(body[name].type) for name in one.operands]
    if one.opcode in _SLICES:
        moved = 2 * byte_size(one.type)
    elif one.opcode == "dynamic-update-slice":
        moved = 2 * operands[1]
    elif target:  # bytes beside the result are work space
        moved = sum(operands) + byte_size(re.sub(r"\bu8\[", "token[", one.type))
    else:
        moved = sum(operands) + byte_size(one.type)
    return Kernel(
        one,
        target[1] if target else one.opcode,
        runs,
        moved,
        _product_flop(one, body) + (_gate_flop(one, body) if target else 0.0),
        _operand_type(one, body),
        _depthwise_flop(one, body) if target and "triton" in target[1] else 0.0,
    )


def _operand_type(one: Instruction, body: Mapping[str, Instruction]) -> str:
    """Element type of an instruction's first operand."""
    found = arrays(body[one.operands[0]].type) if one.operands else []
    return found[0][0] if found else "f32"


def _product_flop(one: Instruction, body: Mapping[str, Instruction]) -> float:
    """FLOP of a matrix product or convolution: an instruction, or a call of cuBLAS or cuDNN."""
    target = re.search(r'custom_call_target="(__cublas|__cudnn\$conv)', one.attributes)
    is_product = one.opcode == "dot" or bool(target and target[1] == "__cublas")
    if not (target or one.opcode in ("dot", "convolution")) or len(one.operands) < 2:
        return 0.0
    result = arrays(one.type)[0][1]
    left, right = (arrays(body[name].type)[0][1] for name in one.operands[:2])
    if is_product:
        axes = re.search(r'lhs_contracting_dim\w*"?[:=][\[{]([\d",]*)', one.attributes)
        summed = [left[int(axis)] for axis in re.findall(r"\d+", axes[1] if axes else "")]
        return 2.0 * math.prod(result) * math.prod(summed)
    # Of the forward pass: result and kernel. cuDNN's gradients have them in other places.
    kernel = right
    if "BackwardFilter" in one.attributes:
        result, kernel = right, result
    elif "BackwardInput" in one.attributes:
        result = left
    labels = re.search(r"dim_labels=\w+?_(\w+)->", one.attributes)
    features = kernel[labels[1].index("o")] if labels else kernel[-1]
    return 2.0 * math.prod(result) * math.prod(kernel) / features


def _gate_flop(one: Instruction, body: Mapping[str, Instruction]) -> float:
    """FLOP of this package's fused kernels of the gate (layers/kernels/gate_gpu.py): forward, of x,
    matrix of 2 C^2, bias, matrix of C^2, bias, perhaps gains; backward, of x, dy, matrix, bias,
    matrix, perhaps gains, with five results."""
    sizes = [elements(body[name]) for name in one.operands]
    backward = len(arrays(one.type)) == 5
    matrices = sizes[2:5:2] if backward else sizes[1:4:2]
    if "pallas_call" not in one.attributes or len(matrices) < 2 or matrices[0] != 2 * matrices[1]:
        return 0.0
    # C inner sums for both halves, and C for each output; back, C, 2 C and 2 C beside the halves.
    passes = 5 if backward else 3
    return 2.0 * sizes[0] * passes * math.sqrt(matrices[1])


def _depthwise_flop(one: Instruction, body: Mapping[str, Instruction]) -> float:
    """FLOP of this package's Pallas kernels: (x, kernel) -> y, or (x, dy) -> parts of the kernel's
    gradient, all of them flat. The smallest array has K K C elements for each sample and part; C is
    the last dimension of x before it was flattened, and K the largest odd number up to 13 whose
    square divides the rest."""
    if len(one.operands) != 2:
        return 0.0
    x = body[one.operands[0]]
    while x.opcode == "bitcast":
        x = body[x.operands[0]]
    sizes = [elements(operand) for operand in (*(body[name] for name in one.operands), one)]
    areas = min(sizes) // arrays(x.type)[0][1][-1]
    size = next((k for k in range(13, 1, -2) if areas and areas % k**2 == 0), 0)
    return 2.0 * max(sizes) * size**2


# ---- Sums and tables


class Totals(NamedTuple):
    """Of a whole program. Times in ms; floor: see the module; launches: the floor with
    `LAUNCH_SECONDS` a kernel added."""

    gigabytes: float
    kernels: int
    product_tflop: float
    depthwise_tflop: float
    ms_bytes: float
    ms_floor: float
    ms_floor_with_launches: float


def totals(found: Sequence[Kernel], rates: Rates) -> Totals:
    moved = sum(one.runs * one.bytes for one in found)
    count = sum(one.runs for one in found)
    floor = sum(one.seconds(rates) for one in found)
    return Totals(
        moved / 1e9,
        count,
        sum(one.runs * one.products for one in found) / 1e12,
        sum(one.runs * one.depthwise for one in found) / 1e12,
        1e3 * moved / rates.memory,
        1e3 * floor,
        1e3 * (floor + LAUNCH_SECONDS * count),
    )


class Share(NamedTuple):
    """Of the kernels that go by one name."""

    gigabytes: float = 0.0
    kernels: int = 0
    ms_floor: float = 0.0


def shares(found: Sequence[Kernel], key: Callable[[Kernel], str], rates: Rates) -> dict[str, Share]:
    """The kernels' sums by what `key` calls them, the most bytes first."""
    sums: dict[str, Share] = defaultdict(Share)
    for one in found:
        moved, count, ms = sums[key(one)]
        moved += one.runs * one.bytes / 1e9
        sums[key(one)] = Share(moved, count + one.runs, ms + 1e3 * one.seconds(rates))
    return dict(sorted(sums.items(), key=lambda item: -item[1].gigabytes))


def source_line(one: Kernel, module: Module) -> str:
    """The line of this package that a kernel comes from, and the direction."""
    attributes = one.instruction.attributes
    path, line = re.search(r'source_file="([^"]*)"', attributes), field(attributes, "source_line")
    place = module.frames.get(field(attributes, "stack_frame_id"), "elsewhere")
    if path and in_package(path[1]):  # JAX up to 0.7
        place = f"{short_path(path[1])}:{line}"
    return place + _direction(one)


def _direction(one: Kernel) -> str:
    return " (backward)" if "transpose(" in _scope(one) else ""


def _scope(one: Kernel) -> str:
    found = re.search(r'op_name="([^"]*)"', one.instruction.attributes)
    return found[1] if found else ""


def model_part(one: Kernel, module: Module) -> str:
    """The part of the model, both directions together: of layers of a block their kind, as
    "block/gate"; of others network and layer."""
    names = []
    for name in _scope(one).split("/")[1:-1]:
        if not re.search(r"[()]|^LLIC(\.|$)|^cond$|^branch_|^rematted|^checkpoint", name):
            names.append(name)
    for i, name in enumerate(names):
        if re.fullmatch(r"block_\d+_\d+", name):
            return "/".join(["block", *names[i + 2 : i + 3]])
    names = [re.sub(r"\d+", "#", name) for name in names[:2]]
    return "/".join(names) or "the step itself"


def role(one: Kernel, module: Module) -> str:
    """What a kernel is for, and the direction."""
    if one.depthwise:
        return "depth-wise convolutions" + _direction(one)
    if one.products and "pallas_call" in _scope(one):
        return "fused kernels" + _direction(one)
    if one.products:
        return "products and convolutions" + _direction(one)
    part = model_part(one, module)
    return part if part == "the step itself" else "passes between products" + _direction(one)
