"""Checks the contents of a source distribution and a wheel: `python .ci/check_dist.py dist`."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

LARGEST_MIB = 40
# Kept in the repository for its forge and its continuous integration only.
NOT_DISTRIBUTED = (".github/", ".gitignore")
FIELDS = (
    "Author",
    "Classifier",
    "Keywords",
    "Project-URL",
    "Provides-Extra",
    "Requires-Python",
)


def tracked_files() -> set[str]:
    """Files of the repository, as git lists them."""
    listing = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True)
    return {name for name in listing.stdout.split("\0") if name}


def check(folder: Path) -> list[str]:
    """Problems of the one source distribution and the one wheel in a folder."""
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    tracked = tracked_files()
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as wheel_file:
        in_wheel = set(wheel_file.namelist())
        (metadata_name,) = (name for name in in_wheel if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(wheel_file.read(metadata_name))
    expected_sdist = {name for name in tracked if not name.startswith(NOT_DISTRIBUTED)}
    expected_wheel = {name for name in tracked if name.startswith("llic_jax/")}
    problems = [f"not in the sdist: {name}" for name in sorted(expected_sdist - in_sdist)]
    problems += [f"not in the wheel: {name}" for name in sorted(expected_wheel - in_wheel)]
    problems += [
        f"in the wheel, and not of the package: {name}"
        for name in sorted(in_wheel)
        if not name.startswith(("llic_jax/", metadata_name.partition("/")[0]))
    ]
    problems += [f"metadata without {field}" for field in FIELDS if not metadata.get(field)]
    if not (metadata.get("License-Expression") or metadata.get("License")):
        problems.append("metadata without a license")
    text = str(metadata.get_payload())
    relative = re.findall(r"\]\((?!https?:)([^)]*)\)", text)
    problems += [f"the description has a link that leads nowhere: {link}" for link in relative]
    problems += [] if text.startswith("# ") else ["the description is not README.md"]
    problems += _tag_problems(wheel.name, any(name.endswith(".so") for name in in_wheel))
    for path in (sdist, wheel):
        mib = path.stat().st_size / 2**20
        print(f"{path.name}: {mib:.1f} MiB")
        if mib > LARGEST_MIB:
            problems.append(f"{path.name} is larger than {LARGEST_MIB} MiB")
    return problems


def _tag_problems(wheel: str, native: bool) -> list[str]:
    """What is wrong with the tag in a wheel's name, for one with or without native libraries."""
    if not native:
        expected = "py3-none-any"
    else:
        expected = "cp311-abi3-manylinux" if sys.platform == "linux" else "cp311-abi3-"
    return [] if f"-{expected}" in wheel else [f"{wheel}: expected {expected} in its name"]


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(sys.argv[1]))) or None)
