"""Range coders behind one interface: symbols and the rows of their tables, to bytes and back.

A coder is a pair of an encoder and a decoder, both fed in the same order, in as many pieces as one
likes. Coders share `Tables`, but not their bytes: the file names the coder that wrote it.

A tfc stream has three implementations, which write and read the same bytes: TensorFlow
Compression's own ops, where they are installed; `native.py`; and `pure_python.py`.
`tfc_implementation` chooses.
"""

import importlib.util
from functools import partial

from llic_jax.coding.range_coders.constriction import ConstrictionDecoder, ConstrictionEncoder
from llic_jax.coding.range_coders.interface import CoderPair, Decoder, Encoder
from llic_jax.coding.range_coders.tfc_streams import tfc_implementation
from llic_jax.coding.tables import Tables


def _tfc_encoder(tables: Tables) -> Encoder:
    return tfc_implementation().encoder(tables)


def _tfc_decoder(tables: Tables, data: bytes) -> Decoder:
    return tfc_implementation().decoder(tables, data)


CODERS: dict[str, CoderPair] = {
    "tfc": CoderPair(1, None, _tfc_encoder, _tfc_decoder, in_order=True),
    "constriction": CoderPair(3, "constriction", ConstrictionEncoder, ConstrictionDecoder),
}
# Nothing is written with these any more; their files are read.
FORMER_CODERS: dict[str, CoderPair] = {
    "constriction, equal widths": CoderPair(
        2,
        "constriction",
        partial(ConstrictionEncoder, equal_widths=True),
        partial(ConstrictionDecoder, equal_widths=True),
    ),
}


def installed_coders() -> list[str]:
    """Names of the coders that can be used here, the preferred one first."""
    return [
        name
        for name, pair in CODERS.items()
        if pair.library is None or importlib.util.find_spec(pair.library) is not None
    ]


def default_coder() -> str:
    """The coder that files are written with, unless another one is asked for."""
    return installed_coders()[0]


def coder_by_id(coder_id: int) -> CoderPair | None:
    """The coder with a number in the file format, or None.

    Args:
        coder_id: As in a file's header.
    """
    pairs = [*CODERS.values(), *FORMER_CODERS.values()]
    return next((pair for pair in pairs if pair.coder_id == coder_id), None)
