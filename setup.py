"""Builds the optional native libraries; everything else about the package stands in setup.cfg."""

import sys

from setuptools import Extension, setup

flags = [] if sys.platform == "win32" else ["-std=c++17", "-O3", "-ffp-contract=fast"]

setup(
    ext_modules=[
        Extension(
            f"llic_jax.native.{name}",
            sources=[f"llic_jax/native/{source}"],
            depends=depends,
            extra_compile_args=flags,
            optional=True,  # without a compiler the package installs and does without
        )
        for name, source, depends in (
            (
                "_depthwise_native",
                "depthwise_native.cc",
                ["llic_jax/native/depthwise_kernels.inc"],
            ),
            ("_range_coder_native", "range_coder.cc", []),
        )
    ]
)
