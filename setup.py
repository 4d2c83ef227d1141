"""Builds the optional native kernel; everything else about the package stands in setup.cfg."""

import sys

from setuptools import Extension, setup

flags = [] if sys.platform == "win32" else ["-std=c++17", "-O3", "-ffp-contract=fast"]

setup(
    ext_modules=[
        Extension(
            "llic_jax.layers._depthwise_native",
            sources=["llic_jax/layers/depthwise_native.cc"],
            depends=["llic_jax/layers/depthwise_kernels.inc"],
            extra_compile_args=flags,
            optional=True,  # without a compiler the package installs and falls back to JAX
        )
    ]
)
