"""The data sets that figures of this field are stated on: Kodak, CLIC professional valid, Tecnick.

    kodak           24 photographs, 768x512             fetched once, each file's hash checked
    clic_pro_valid  41 photographs, up to 2048 a side   fetched once as an archive, hash checked
    tecnick         100 photographs, 1200x1200          put there by hand

They are for evaluation, never for training. Fetched files are kept in `$LLIC_CACHE`, or else in
`llic_jax` in the user's cache folder.
"""

import dataclasses
import urllib.request
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from llic_jax.data.image_files import image_files
from llic_jax.errors import DataError
from llic_jax.system.files import cache_folder, file_hash, whole_file

_KODAK_HASHES = Path(__file__).with_name("kodak.sha256")
_KODAK_URL = "http://r0k.us/graphics/kodak/kodak/"
# Address and hash as TensorFlow Datasets lists them (its `clic` mixes this set with another).
_CLIC_URL = "https://data.vision.ee.ethz.ch/cvl/clic/professional_valid_2020.zip"
_CLIC_HASH = "00be38092ade2ab5163b65f7f6523d46c7bca147007f559adbb02c0afc236b7d"
_SECONDS = 30  # without a byte, after which a server counts as out of reach


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of evaluation.

    Attributes:
        count: Number of images.
        size: Width and height of all images, either way round; None where they differ.
        where: What a person has to put into its folder.
    """

    count: int
    size: tuple[int, int] | None
    where: str


DATASETS = {
    "kodak": Dataset(24, (768, 512), f"kodim01.png to kodim24.png from {_KODAK_URL}"),
    "clic_pro_valid": Dataset(41, None, f"the 41 PNG files in {_CLIC_URL}"),
    "tecnick": Dataset(
        100,
        (1200, 1200),
        "the 100 PNG files of TESTIMAGES' set SAMPLING, 8 bits, RGB, 1200x1200, unshifted, from "
        "https://testimages.org",
    ),
}


def dataset_files(name: str, folder: str | Path | None = None) -> list[Path]:
    """The files of a data set, checked.

    Args:
        name: A key of `DATASETS`.
        folder: Where they are; None for the cache, into which they are fetched if need be.

    Raises:
        DataError: The name is unknown; files are missing, or are not those of the data set; a
            server is out of reach. The message says which files go where.
    """
    if name not in DATASETS:
        raise DataError(f"No data set {name!r}; known are {', '.join(DATASETS)}.")
    home = Path(folder) if folder is not None else cache_folder() / name
    if folder is None and name == "kodak":
        _fetch_kodak(home)
    if folder is None and name == "clic_pro_valid":
        _fetch_clic(home)
    if not home.is_dir():
        raise DataError(f"{name} is not in {home}: put there {DATASETS[name].where}.")
    files = image_files(home)
    _check(name, files, home)
    return files


def identify(files: Sequence[Path]) -> str | None:
    """The data set that these files are, told by their hashes alone; None for any others."""
    if len(files) != DATASETS["kodak"].count:
        return None
    known = set(kodak_hashes().values())
    return "kodak" if {file_hash(path) for path in files} == known else None


@cache
def kodak_hashes() -> dict[str, str]:
    """SHA-256 of each original, by file name."""
    lines = _KODAK_HASHES.read_text().split("\n")
    return {name: digest for digest, name in (line.split() for line in lines if line)}


def _check(name: str, files: Sequence[Path], home: Path) -> None:
    dataset = DATASETS[name]
    if len(files) != dataset.count:
        raise DataError(
            f"{home} holds {len(files)} images; {name} has {dataset.count}: {dataset.where}."
        )
    if name == "kodak":
        wrong = [p.name for p in files if file_hash(p) != kodak_hashes().get(p.name)]
        if wrong:
            raise DataError(
                f"Not Kodak's originals: {', '.join(wrong)} in {home}. Remove them and put there "
                f"{dataset.where}."
            )
    for path in files if dataset.size else ():
        with Image.open(path) as image:
            if sorted(image.size) != sorted(dataset.size or ()):
                raise DataError(
                    f"{path} is {image.width}x{image.height}; the images of {name} are "
                    f"{dataset.size}: {dataset.where}."
                )


def _fetch_kodak(home: Path) -> None:
    missing = {n: digest for n, digest in kodak_hashes().items() if not (home / n).is_file()}
    for name, digest in tqdm(
        missing.items(), "kodak", unit="file", disable=None if missing else True
    ):
        _fetch(_KODAK_URL + name, home / name, digest, "kodak", home)


def _fetch_clic(home: Path) -> None:
    if home.is_dir():
        return
    archive = home.with_suffix(".zip")
    if not archive.is_file():
        _fetch(_CLIC_URL, archive, _CLIC_HASH, "clic_pro_valid", home)
    # Unpacked beside its place and moved, so that an interrupted run leaves no half of a data set.
    part = home.with_suffix(".part")
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if member.filename.lower().endswith(".png"):
                member.filename = Path(member.filename).name
                packed.extract(member, part)
    part.replace(home)


def _fetch(url: str, target: Path, digest: str, name: str, home: Path) -> None:
    """One file, kept only if its hash is right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(target) as temporary:
            with urllib.request.urlopen(url, timeout=_SECONDS) as response:
                total = int(response.headers.get("Content-Length") or 0)
                bar = tqdm(
                    total=total,
                    desc=target.name,
                    unit="B",
                    unit_scale=True,
                    leave=False,
                    disable=None,
                )
                with bar, temporary.open("wb") as file:
                    while chunk := response.read(1 << 20):
                        file.write(chunk)
                        bar.update(len(chunk))
            found = file_hash(temporary)
            if found != digest:
                raise DataError(
                    f"{url} gave other bytes than the original's: SHA-256 {found}, expected "
                    f"{digest}. Nothing was kept; put into {home}: {DATASETS[name].where}."
                )
    except OSError as error:
        raise DataError(
            f"{url} is out of reach ({error}). Put into {home}: {DATASETS[name].where}; "
            "or say with --data_dir where they are."
        ) from error
