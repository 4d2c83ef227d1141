"""Speed of the implementations of tfc streams, and what each adds to a command's start.

    python benchmarks/range_coders.py [--file PHOTO.llic]

Prints symbols a second, the best of several runs in one process, for as many symbols as a picture
of 768 x 512 has. With a file: seconds of `llic decompress`, the best of several processes that take
turns.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import fastest, run_process

from llic_jax.coding.range_coders.tfc_streams import TFC_IMPLEMENTATIONS
from llic_jax.coding.tables import Tables
from llic_jax.entropy.gaussian import scale_table
from llic_jax.zoo.folder import load_codec

SYMBOLS = 320 * (768 // 16) * (512 // 16)


def draw(tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian symbols of mostly small scales, and their rows."""
    rng = np.random.default_rng(0)
    position = np.clip(np.rint(rng.normal(8, 10, SYMBOLS)), 0, 63).astype(np.int32)
    scales = np.asarray(scale_table())[position]
    symbols = np.rint(rng.normal(size=SYMBOLS) * scales).astype(np.int32)
    return symbols, position + np.int32(tables.hyper_rows)


def speed(name: str, tables: Tables, runs: int) -> tuple[float, float]:
    """Symbols encoded and decoded in a second."""
    way = TFC_IMPLEMENTATIONS[name]
    symbols, rows = draw(tables)

    def encode() -> bytes:
        encoder = way.encoder(tables)
        encoder.encode(symbols, rows)
        return encoder.finish()

    data = encode()

    def decode() -> None:
        decoder = way.decoder(tables, data)
        decoded = decoder.decode(rows)
        assert decoder.finish() and np.array_equal(decoded, symbols)

    seconds = fastest({"encode": encode, "decode": decode}, runs)
    return SYMBOLS / seconds["encode"], SYMBOLS / seconds["decode"]


def decompress(name: str, file: Path) -> float:
    """Seconds of the command line."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "llic_jax", "decompress", file, f"{folder}/decoded.png"]
        return run_process(command, {"LLIC_TFC": name})[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="written with the coder tfc")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    names = [name for name, way in TFC_IMPLEMENTATIONS.items() if way.installed()]
    tables = load_codec().tables
    for name in names:
        encoded, decoded = speed(name, tables, args.runs)
        print(f"{name:7} encodes {encoded / 1e6:6.2f} M/s, decodes {decoded / 1e6:6.2f} M/s")
    if args.file:
        seconds = [[decompress(name, args.file) for name in names] for _ in range(args.runs)]
        for name, best in zip(names, np.min(seconds, axis=0), strict=True):
            print(f"{name:7} {best:.2f} s of llic decompress")


if __name__ == "__main__":
    main()
