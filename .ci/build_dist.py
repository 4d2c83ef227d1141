"""Builds source distribution and wheel into a folder: `python .ci/build_dist.py dist`.

On Linux the wheel gets the manylinux tag of the oldest system that it runs on, which follows from
the C++ library of this one. A wheel without native libraries, as a machine without a compiler
builds it, is for all machines and stays as it is.
"""

import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    if wheel.stem.endswith("-none-any"):
        print(f"{wheel.name} has no native libraries: without a C++ compiler none is built.")
    elif sys.platform == "linux":
        repair = [sys.executable, "-m", "auditwheel", "repair", "-w", str(folder), str(wheel)]
        subprocess.run(repair, check=True)
        wheel.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
