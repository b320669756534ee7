"""Sets of images to be measured: read on request, all of one size and unit.

A set knows the file and the patient of each image and the meaning of its values, so that sets that
cannot be compared are refused before anything is computed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffct.data.images import cut_centre
from diffct.data.manifest import Manifest, ManifestRow, SplitName
from diffct.data.volume_cache import prepare_scans
from diffct.data.volumes import CTDataConfig, CTDataset, median_spacing_mm
from diffct.imaging.image_folder import FoundImages, find_images
from diffct.imaging.radiograph import read_radiograph
from diffct.imaging.transforms import (
    model_range_to_unit,
    to_hounsfield,
    to_model_range,
    unit_to_model_range,
)
from diffct.imaging.volume import check_hounsfield, read_volume

Unit = Literal["[0, 1]", "HU"]
SAMPLES = "samples"
"""Title of the images under test, which are judged and not refused, unlike real images."""

_LOSSY = (".jpg", ".jpeg")
_WORKERS = 2  # scans prepared at the same time


@dataclass(frozen=True)
class ImageSet:
    """Images of one kind.

    Attributes:
        title: The kind of images: `SAMPLES`, "held-out", "training".
        files: One file or folder for each image; their names may be private.
        patients: The patient of each image; private. Each sample has a name of its own.
        read: Reads a file: float32 (H, W) in [0, 1], or (D, H, W) in HU.
        unit: Unit of the values.
        preparation: What was done to the images, for the protocol.
        window_hu: The HU that become 0 and 1 where [0, 1] is needed; None for images without HU.
        spacing_mm: Voxel size of volumes; None where it is not known.
        manifest: The manifest of the images, if they are from one.
        rows: Its rows, one for each image; for translations, the rows of the true images.
        left_out: Number of files of the folder that were not read, by reason.
        notes: Sentences about defective images, for the report.
    """

    title: str
    files: tuple[Path, ...]
    patients: tuple[str, ...]
    read: Callable[[Path], np.ndarray] = field(repr=False)
    unit: Unit = "[0, 1]"
    preparation: str = "as stored"
    window_hu: tuple[float, float] | None = None
    spacing_mm: tuple[float, ...] | None = None
    manifest: Manifest | None = None
    rows: tuple[ManifestRow, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.files or len(self.files) != len(self.patients):
            raise ValueError(f"The set of {self.title} images is empty.")

    @property
    def name(self) -> str:
        """The name of the set in sentences: "samples", "held-out images"."""
        return self.title if self.title == SAMPLES else f"{self.title} images"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> np.ndarray:
        """Read an image in the set's unit, *size."""
        return self.read(self.files[place])

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels or voxels of the first image; `images` refuses others."""
        return self.read(self.files[0]).shape

    @property
    def endings(self) -> dict[str, int]:
        """Number of files of each format."""
        names = ["".join(path.suffixes[-2:]).lower() or "folder" for path in self.files]
        return {name: names.count(name) for name in sorted(set(names))}

    @property
    def lossy(self) -> bool:
        """Whether files of a lossy format are among them."""
        return any(path.suffix.lower() in _LOSSY for path in self.files)

    def pick(self, number: int | None) -> "ImageSet":
        """Return at most so many images, evenly picked; all for None."""
        if number is None or number >= len(self):
            return self
        return self.select(np.linspace(0, len(self) - 1, number).round().astype(int).tolist())

    def select(self, indices: Sequence[int]) -> "ImageSet":
        """Return some of the images."""
        return replace(
            self,
            files=tuple(self.files[index] for index in indices),
            patients=tuple(self.patients[index] for index in indices),
            rows=tuple(self.rows[index] for index in indices) if self.rows else (),
        )

    def spacing_and_window(self) -> tuple[tuple[float, ...], tuple[float, float]]:
        """Return the voxel size and the window of volumes, which always have both.

        Raises:
            ValueError: The images are pictures.
        """
        if self.spacing_mm is None or self.window_hu is None:
            raise ValueError(f"The {self.name} are pictures, not volumes in HU.")
        return self.spacing_mm, self.window_hu

    def images(self, *, progress: bool = True) -> Iterator[Tensor]:
        """Read image by image, float32 (1, *size), in the set's unit.

        Raises:
            ValueError: An image has another size than the first, or is not finite.
        """
        size = None
        for number, path in enumerate(
            tqdm(self.files, f"reading {self.title}", unit="image", disable=not progress), 1
        ):
            array = self.read(path)
            size = size or array.shape
            if array.shape != size or not np.isfinite(array).all():
                raise ValueError(
                    f"Image {number} of the {self.name} has the size {array.shape}, the first"
                    f" {size}, or holds NaN. Bring all to one size."
                )
            yield torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]

    def unit_images(self, *, progress: bool = True) -> Iterator[Tensor]:
        """Read image by image in [0, 1], (1, *size); HU are mapped by the window."""
        for image in self.images(progress=progress):
            if self.window_hu is not None:
                image = model_range_to_unit(to_model_range(image, self.window_hu))
            yield image.clamp(0, 1)

    def from_unit(self, image: Tensor) -> Tensor:
        """Map an image from [0, 1] back to the set's unit."""
        if self.window_hu is None:
            return image
        return to_hounsfield(unit_to_model_range(image), self.window_hu)

    def cut(self, size: Sequence[int]) -> "ImageSet":
        """Return the same pictures, cut to (height, width) around their centres as in training.

        Reading a smaller picture raises a ValueError.
        """
        height, width = size

        def read(path: Path) -> np.ndarray:
            picture = self.read(path)
            if picture.shape[0] < height or picture.shape[1] < width:
                raise ValueError(too_small(path, picture.shape, size))
            return cut_centre(torch.from_numpy(picture)[None], (height, width))[0].numpy()

        preparation = f"cut to {height}x{width} pixels around the centre"
        return replace(self, read=read, preparation=preparation)

    def stacked(self, *, progress: bool = True) -> Tensor:
        """Read all images in [0, 1] at once, (N, 1, *size)."""
        return torch.stack(list(self.unit_images(progress=progress)))

    def batches(self, size: int, *, progress: bool = True) -> Iterator[Tensor]:
        """Read batches in [0, 1], (at most `size`, 1, *size)."""
        batch = []
        for image in self.unit_images(progress=progress):
            batch.append(image)
            if len(batch) == size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)


def too_small(path: Path, size: Sequence[int], cut: Sequence[int]) -> str:
    """Return the message that a picture is smaller than the size to cut."""
    return (
        f"{path}: {size[0]}x{size[1]} pixels are too few to cut out {cut[0]}x{cut[1]}, the size"
        " that the model makes; prepare the images larger."
    )


def check_comparable(first: ImageSet, second: ImageSet) -> None:
    """Refuse two sets that cannot be compared.

    Raises:
        ValueError: They differ in unit, window, size or spacing, or only one is compressed with
            loss.
    """
    names = f"the {first.name} and the {second.name}"
    if first.unit != second.unit:
        kinds = {"HU": "volumes in HU", "[0, 1]": "pictures"}
        raise ValueError(
            f"unit differs between {names}: {kinds[first.unit]} and {kinds[second.unit]}."
        )
    for what in ("window_hu", "size"):
        mine, other = getattr(first, what), getattr(second, what)
        if mine != other:
            raise ValueError(f"{what} differs between {names}: {mine} and {other}.")
    if first.spacing_mm and second.spacing_mm:
        if not np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-3):
            raise ValueError(
                f"Spacing differs between {names}: {first.spacing_mm} and {second.spacing_mm} mm."
            )
    if first.lossy != second.lossy:
        raise ValueError(
            f"Of {names}, one is JPEG and the other is not: figures would measure the compression."
        )


def images_of_folder(
    folder: Path,
    *,
    title: str,
    window_hu: Sequence[float],
    spacing_mm: Sequence[float] | None = None,
) -> ImageSet:
    """Return the volumes of a folder, or its pictures if it has no volumes; print what is left out.

    See `volumes_of_folder` and `pictures_of_folder`.
    """
    found = find_images(folder, empty=title == SAMPLES)
    for line in found.left_out_lines():
        print(f"{folder}: {line}")
    if found.kind == "pictures":
        return _pictures(found, title)
    return _volumes(found, title, window_hu=window_hu, spacing_mm=spacing_mm)


def pictures_of_folder(folder: Path, *, title: str) -> ImageSet:
    """Return the pictures of a folder, each as another patient; samples may be blank.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no picture.
    """
    found = find_images(folder, kind="pictures", empty=title == SAMPLES)
    return _pictures(found, title)


def pictures_of_manifest(manifest: Manifest, split: SplitName, *, title: str) -> ImageSet:
    """Return the images of one split of a manifest.

    Raises:
        ValueError: The split is empty.
    """
    rows = _rows(manifest, split)
    files = tuple(manifest.path(row) for row in rows)
    patients = tuple(row.patient for row in rows)
    return ImageSet(title, files, patients, _read_picture, manifest=manifest, rows=tuple(rows))


def volumes_of_manifest(
    manifest: Manifest, split: SplitName, *, title: str, config: CTDataConfig, cache_dir: Path
) -> ImageSet:
    """Return the CT scans of one split of a manifest as a network sees them, without augmentation.

    Args:
        manifest: The scans.
        split: The split.
        title: Title of the set.
        config: The size, spacing and window to which scans are prepared.
        cache_dir: Folder for the prepared scans.

    Raises:
        ValueError: The split is empty, or scans are unusable.
    """
    rows = _rows(manifest, split)
    files = prepare_scans(
        [manifest.path(row) for row in rows],
        config,
        cache_dir,
        workers=_WORKERS,
        show_progress=True,
    )
    low, high = (float(bound) for bound in config.window_hu)

    def read(path: Path) -> np.ndarray:
        item = CTDataset([path], config, training=False, seed=0)[0]
        return to_hounsfield(torch.as_tensor(item["image"])[0].numpy(), (low, high))

    return ImageSet(
        title,
        tuple(files),
        tuple(row.patient for row in rows),
        read,
        unit="HU",
        preparation=(
            f"clipped to {low:g} ... {high:g} HU, {config.fit} to"
            f" {'x'.join(map(str, config.size))} voxels"
        ),
        window_hu=(low, high),
        spacing_mm=tuple(median_spacing_mm(files)),
        manifest=manifest,
        rows=tuple(rows),
    )


def volumes_of_folder(
    folder: Path, *, title: str, window_hu: Sequence[float], spacing_mm: Sequence[float] | None
) -> ImageSet:
    """Return the CT volumes of a folder, each as another patient; samples may have any values.

    Args:
        folder: NIfTI or NRRD files, or DICOM series.
        title: Title of the set.
        window_hu: The HU that become 0 and 1 where [0, 1] is needed; other values are clipped.
        spacing_mm: The required spacing; None for that of the first volume.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A real volume is not CT in HU, or a volume has another spacing.
    """
    found = find_images(folder, kind="volumes", empty=title == SAMPLES)
    return _volumes(found, title, window_hu=window_hu, spacing_mm=spacing_mm)


def _rows(manifest: Manifest, split: SplitName) -> list[ManifestRow]:
    """Return the rows of a split, which must not be empty."""
    rows = manifest.split(split)
    if not rows:
        raise ValueError(f"No row of the manifest has the split {split!r}.")
    return rows


def _pictures(found: FoundImages, title: str) -> ImageSet:
    return ImageSet(
        title,
        found.images,
        _numbers(found.images, title),
        _read_sample if title == SAMPLES else _read_picture,
        left_out=found.reasons(),
    )


def _volumes(
    found: FoundImages,
    title: str,
    *,
    window_hu: Sequence[float],
    spacing_mm: Sequence[float] | None,
) -> ImageSet:
    low, high = (float(bound) for bound in window_hu)
    expected = tuple(spacing_mm or read_volume(found.images[0]).spacing_mm)

    def read(path: Path) -> np.ndarray:
        volume = read_volume(path)
        if title != SAMPLES:
            check_hounsfield(volume, path)
        if not np.allclose(volume.spacing_mm, expected, rtol=1e-3):
            raise ValueError(f"{path}: the spacing is {volume.spacing_mm} mm, not {expected} mm.")
        return np.clip(volume.array.astype(np.float32), low, high)

    return ImageSet(
        title,
        found.images,
        _numbers(found.images, title),
        read,
        unit="HU",
        preparation=f"clipped to {low:g} ... {high:g} HU",
        window_hu=(low, high),
        spacing_mm=expected,
        left_out=found.reasons(),
    )


def _numbers(files: Sequence[Path], title: str) -> tuple[str, ...]:
    """Return a different patient for each image, unique to this set."""
    return tuple(f"{title} {number}" for number in range(len(files)))


def _read_picture(path: Path) -> np.ndarray:
    """Read a picture of any size."""
    return read_radiograph(path, smallest_side=1)


def _read_sample(path: Path) -> np.ndarray:
    """Read a picture of any size and brightness."""
    return read_radiograph(path, smallest_side=1, dark=True)
