"""Builds the optional native libraries and what depends on them; all else stands in setup.cfg."""

import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

HERE = Path(__file__).parent
PYTHON = "cp311"  # the oldest that setup.cfg allows
FLAGS = [] if sys.platform == "win32" else ["-std=c++17", "-O3", "-ffp-contract=fast"]


class Wheel(bdist_wheel):
    """One wheel for all versions of Python; for all machines, too, where no library was built."""

    def get_tag(self):
        folder = Path(self.get_finalized_command("build").build_lib, "llic_jax", "native")
        built = any(path.suffix in (".so", ".pyd") for path in folder.glob("_*"))
        return super().get_tag() if built else ("py3", "none", "any")


def description() -> str:
    """README.md, without the pictures and links that lead nowhere outside of a clone."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    cmdclass={"bdist_wheel": Wheel},
    # The libraries are loaded by ctypes and know nothing of Python.
    options={"bdist_wheel": {"py_limited_api": PYTHON}},
    ext_modules=[
        Extension(
            f"llic_jax.native.{name}",
            sources=[f"llic_jax/native/{source}"],
            depends=depends,
            extra_compile_args=FLAGS,
            py_limited_api=True,
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
    ],
)
