import importlib.util
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from llic_jax.coding.range_coders import tensorflow_core
ops = tensorflow_core.compression_ops()
assert not any(name.startswith("keras") for name in sys.modules)
handle = ops.create_range_encoder([], [-2, 0, 1, 3, 4])
handle = ops.entropy_encode_index(handle, [0, 0, 0], [1, 0, 2])
data = ops.entropy_encode_finalize(handle).numpy()
handle = ops.create_range_decoder(data, [-2, 0, 1, 3, 4])
assert ops.entropy_decode_index(handle, [0, 0, 0], [3], "int32")[1].numpy().tolist() == [1, 0, 2]
import tensorflow as tf  # the rest, when it is asked for
assert tf.reduce_sum(tf.data.Dataset.range(3).batch(3).get_single_element()).numpy() == 3
assert tf.keras.__name__ and tensorflow_core.compression_ops() is ops
"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_compression_ops") is None, reason="needs TFC"
)
def test_the_core_codes_alone_and_the_rest_can_follow():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=300)
