"""The folder that an evaluation writes into."""

from collections.abc import Sequence
from pathlib import Path

from llic_jax.data.image_files import OUTPUT_FOLDERS, RESULTS_FILE
from llic_jax.errors import OutputError
from llic_jax.evaluation.image_sets import ImageSet
from llic_jax.evaluation.results import Key, ResultsFile


class Output:
    """The folder of an evaluation: results, summary, report, figures, decoded images.

    It is made, and written to, before anything is measured.

    Args:
      folder: The folder.
      images: What is to be measured; it must not lie where pictures of the output go.
      save_images: Whether to keep decoded images, as PNGs in `images/CODEC/SETTING/`.

    Attributes:
      folder: The folder.
      save_images: As above.
      results: Its `results.jsonl`.

    Raises:
      OutputError: The folder cannot be made or written to, or has images that are to be measured
        where its own pictures go; or two decoded images would be one file.
      ResultsError: Its results cannot be continued.
    """

    def __init__(self, folder: str | Path, images: ImageSet, save_images: bool = False):
        self.folder, self.save_images = Path(folder), save_images
        own = [(self.folder / name).resolve() for name in OUTPUT_FOLDERS]
        for file in images.files:
            if any(file.resolve().is_relative_to(pictures) for pictures in own):
                raise OutputError(
                    f"{file} is to be measured, and lies where {self.folder} keeps its own "
                    "pictures. Name another --output."
                )
        if save_images:
            self._check_names([name for name, _ in images.images])
        try:
            for name in OUTPUT_FOLDERS if save_images else OUTPUT_FOLDERS[:1]:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / RESULTS_FILE).open("ab").close()
            self.results = ResultsFile(self.folder / RESULTS_FILE)
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot take the results: {error}. Name another --output."
            ) from error

    def image_path(self, key: Key) -> Path:
        """Returns where a decoded image is kept.

        Args:
          key: Of its result.
        """
        codec, setting, image = (part.replace("%", "%25").replace("/", "%2F") for part in key)
        name = image if image.lower().endswith(".png") else f"{image}.png"
        return self.folder / OUTPUT_FOLDERS[1] / codec / setting.split(",")[0] / name

    def _check_names(self, images: Sequence[str]) -> None:
        names: dict[str, str] = {}
        for image in images:
            # Many file systems do not tell capital letters from small ones.
            path = self.image_path(("codec", "setting", image)).name.lower()
            if (other := names.setdefault(path, image)) != image:
                raise OutputError(
                    f"The decoded images of {other} and {image} would be one file. Rename one of "
                    "them, or leave out --save_images."
                )
