import subprocess
import sys

from llic_jax.bitstream.file import CODER_NAMES
from llic_jax.coding.range_coders.registry import CODERS, FORMER_CODERS
from llic_jax.zoo.folder import DEFAULT_FOLDER

READ = """
import sys
import llic_jax
header = llic_jax.read_header(open(sys.argv[1], "rb").read())
print(*header, sep=" | ")
assert not {"jax", "numpy", "PIL"} & set(sys.modules)
"""


def test_a_header_is_read_without_jax_and_numpy():
    golden = DEFAULT_FOLDER / "golden.llic"
    done = subprocess.run(
        [sys.executable, "-c", READ, str(golden)], capture_output=True, text=True, check=True
    )
    expected = f"60 | 48 | 644e180419945087 | {DEFAULT_FOLDER.name} | 4.5 | None | 3 | constriction"
    assert done.stdout.strip() == expected


def test_coders_are_called_as_in_their_registry():
    assert {pair.coder_id: name for name, pair in (CODERS | FORMER_CODERS).items()} == CODER_NAMES
