"""`llic info`: what the headers of .llic files say. Loads neither JAX nor NumPy."""

import argparse
import sys

from llic_jax.errors import LlicError
from llic_jax.system import files


def info(args: argparse.Namespace) -> int:
    """Prints what the files say.

    Args:
        args: Of `llic info`.

    Returns:
        The exit status: 1 if a file cannot be read, else 0.
    """
    from llic_jax.bitstream.file import LlicFile
    from llic_jax.images import folders
    from llic_jax.zoo.registry import name_of

    failures = 0
    for path in args.file:
        name = files.name_of(path, "standard input")
        if folders.is_apple_double(path):
            continue
        try:
            data = files.read(path)
            file = LlicFile.from_bytes(data)
        except (LlicError, OSError) as error:
            print(f"llic: {files.said(path, error)}", file=sys.stderr)
            failures += 1
            continue
        where = "anywhere" if file.shift_resolution else "for certain only where it was made"
        model = f"{file.fingerprint.hex()} {name_of(file.fingerprint.hex())}".rstrip()
        quality = f"{file.quality:g}" if file.quality else "of one rate"
        print(
            f"{name}\n"
            f"  image     {file.width} x {file.height}\n"
            f"  size      {len(data)} bytes, {8 * len(data) / (file.width * file.height):.4f} bpp\n"
            f"  format    version {data[4]}, range coder {file.coder}\n"
            f"  model     {model}, quality {quality}\n"
            f"  picture   {f'as {file.other_coding}' if file.other_coding else 'by the networks'}\n"
            f"  payload   {len(file.payload)} bytes, symbols' checksum {file.symbols_crc:08x}\n"
            f"  decodes   {where}"
            + "".join(f"\n  section   {tag}, {len(s)} bytes" for tag, s in file.sections.items())
        )
    return 1 if failures else 0
