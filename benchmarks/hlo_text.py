"""An optimized HLO module's instructions, from its text: `compiled.as_text()` on one device.

Reading it needs nothing but Python.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple


class Instruction(NamedTuple):
    """One line of a computation. attributes: all that follows the operands."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str


class Module(NamedTuple):
    """computations: by name, in the order of execution; entry: the name of the one that is run;
    frames: for each stack frame the place in this package that it stands for."""

    computations: dict[str, list[Instruction]]
    entry: str
    frames: dict[str, str]


_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d\w*)\[([\d,]*)\]")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


def parse(text: str) -> Module:
    """Reads a module's text.

    Raises:
        ValueError: if it has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    tables: dict[str, dict[str, str]] = {name: {} for name in _TABLES}
    entry, body, table = "", None, None
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            body = computations[found[2]] = []
            entry = found[2] if found[1] else entry
        elif body is not None and (found := _INSTRUCTION.match(line)):
            body.append(_instruction(found[1], re.sub(r"/\*.*?\*/", "", found[2])))
        elif body is None and line in _TABLES:
            table = tables[line]
        elif body is None and table is not None and (found := re.match(r"(\d+) (.*)", line)):
            table[found[1]] = found[2]
    if not entry:
        raise ValueError("The text has no ENTRY computation; expected an optimized HLO module.")
    return Module(computations, entry, {i: _frame(tables, i) for i in tables["StackFrames"]})


def _instruction(name: str, text: str) -> Instruction:
    """`TYPE OPCODE(OPERANDS), ATTRIBUTES`; a tuple's type is in parentheses itself."""
    type_end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    start = text.index("(", type_end)
    end = _closing(text, start)
    opcode, inside = text[type_end:start].strip(), text[start + 1 : end]
    operands = () if opcode in ("parameter", "constant") else _operands(inside)
    return Instruction(name, text[:type_end], opcode, operands, text[end + 1 :])


def _operands(inside: str) -> tuple[str, ...]:
    """Names; some versions write an operand's type before its name."""
    return tuple(re.findall(r"%([\w.\-]+)", inside))


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"a parenthesis is not closed: {text[start : start + 60]}")


def _frame(tables: Mapping[str, Mapping[str, str]], frame: str) -> str:
    """The innermost place of this package on the stack of a frame."""
    visited: set[str] = set()
    while frame in tables["StackFrames"] and frame not in visited:
        visited.add(frame)
        row = tables["StackFrames"][frame]
        location = tables["FileLocations"][field(row, "file_location_id")]
        path = tables["FileNames"][field(location, "file_name_id")].strip('"')
        if in_package(path):
            return f"{short_path(path)}:{field(location, 'line')}"
        frame = field(row, "parent_frame_id")
    return "elsewhere"


def field(row: str, name: str) -> str:
    """A number in a table's row or an instruction's attributes, as text; "" if it is not there."""
    found = re.search(rf"\b{name}=(\d+)", row)
    return found[1] if found else ""


def in_package(path: str) -> bool:
    """Whether a source file belongs to this package."""
    return "llic_jax/" in path and "/site-packages/" not in path.rpartition("llic_jax/")[2]


def short_path(path: str) -> str:
    """A source file's path within this package."""
    return path.rpartition("llic_jax/")[2]


def arrays(type_: str) -> list[tuple[str, tuple[int, ...]]]:
    """Element type and dimensions of each array in a type; a tuple has several."""
    return [
        (kind, tuple(int(n) for n in dims.split(",") if n)) for kind, dims in _ARRAY.findall(type_)
    ]


def byte_size(type_: str) -> float:
    """Bytes of all arrays in a type."""
    return sum(_item_bytes(kind) * math.prod(dims) for kind, dims in arrays(type_))


def _item_bytes(kind: str) -> float:
    if kind in ("pred", "token"):
        return float(kind == "pred")
    bits = re.search(r"\d+", kind)
    return int(bits[0]) / 8 if bits else 0.0


def elements(instruction: Instruction) -> int:
    """Elements of all arrays of a result."""
    return sum(math.prod(dims) for _, dims in arrays(instruction.type))
