"""The data set of prepared CT scans, and its settings.

A prepared scan consists of two files that `volume_cache` writes: its HU as int16, mapped into
memory here, and its facts as JSON.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffct.config import FREE, PATH
from diffct.data.epoch import Epoch, Samples
from diffct.imaging.transforms import (
    Augmentation,
    augment,
    crop,
    draw_augmentation,
    to_model_range,
)
from diffct.imaging.volume import SPACING_BOUNDS_MM, Volume

AXES = {"depth": 0, "height": 1, "width": 2}
_OF_FOLDERS = ("folder", "include", "exclude", "patient_pattern", "split_file")


@dataclass
class CTDataConfig:
    """The `data:` section of a 3D CT experiment.

    Attributes:
        manifest: A manifest, or the folder that holds `manifest.jsonl`, as `diffct prepare ct`
            writes it; it names the patient and the split of each scan.
        folder: A folder of scans that are used directly, if there is no manifest. With neither,
            phantoms are made.
        include: Patterns such as "ct.nii.gz" or "*/CT": only paths that match one are read; see
            `image_folder.find_images`.
        exclude: Patterns of paths that are not read.
        phantom_scans: Number of phantoms, if there is neither manifest nor folder.
        size: Voxels (depth, height, width) that the network sees.
        spacing_mm: Resample to this spacing (depth, height, width); None keeps each scan's own.
        fit: "crop" cuts or pads around the centre; "resize" maps the whole field of view onto
            `size`, as Harmuszkiewicz 2023 (thesis) did from 512 to 256.
        window_hu: The HU that become -1 and 1.
        random_crop: Cut training boxes at random places instead of the centre; some may be all air.
        crops_per_scan: Boxes cut from each training scan in an epoch, if `random_crop`.
        validation_fraction: Share of the patients held out.
        patient_pattern: Regular expression with one group, searched in a scan's path relative to
            `folder`: the group names the patient. None uses the DICOM PatientID; each file without
            one is a patient of its own. Scans with the same voxels always count as one patient.
        split_file: An earlier split to use again: the `scans.jsonl` of a run, or a `split.json`.
        flip_axes: Axes that training scans are mirrored along: "depth", "height", "width".
        flip_probability: Probability that a scan is mirrored along each of them.
        zoom_range: Lowest and highest magnification of training scans.
        zoom_probability: Probability that a training scan is magnified.
        cache_dir: Folder of prepared scans; None means a folder in the output.
    """

    manifest: str | None = field(default=None, metadata=PATH)
    folder: str | None = field(default=None, metadata=PATH | FREE)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    phantom_scans: int = 28
    size: list[int] = field(default_factory=lambda: [16, 64, 64])
    spacing_mm: list[float] | None = None
    fit: str = "crop"
    window_hu: list[float] = field(default_factory=lambda: [-1000.0, 1000.0])
    random_crop: bool = False
    crops_per_scan: int = 1
    validation_fraction: float = 0.2
    patient_pattern: str | None = None
    split_file: str | None = field(default=None, metadata=PATH)
    flip_axes: list[str] = field(default_factory=lambda: ["width"])
    flip_probability: float = 0.5
    zoom_range: list[float] = field(default_factory=lambda: [0.9, 1.1])
    zoom_probability: float = 0.5
    cache_dir: str | None = field(default=None, metadata=PATH | FREE)


def check_settings(config: CTDataConfig) -> None:
    """Refuse settings that are wrong or contradict each other.

    Raises:
        ValueError: A setting is wrong; it is named with its value and what is accepted.
    """

    def demand(valid: bool, setting: str, accepted: str) -> None:
        if not valid:
            raise ValueError(f"data.{setting} is {getattr(config, setting)}; {accepted}.")

    def ascending(pair: Sequence[float]) -> bool:
        return len(pair) == 2 and pair[0] <= pair[1]

    if config.manifest is not None:
        for setting in _OF_FOLDERS:
            demand(not getattr(config, setting), setting, "leave it out with a manifest")
    demand(len(config.size) == 3 and min(config.size) >= 1, "size", "give three voxel counts")
    demand(config.fit in ("crop", "resize"), "fit", 'give "crop" or "resize"')
    low, high = config.window_hu if len(config.window_hu) == 2 else (0, 0)
    demand(-32768 <= low < high <= 32767, "window_hu", "give two HU, low before high")
    if config.spacing_mm is not None:
        low, high = SPACING_BOUNDS_MM
        possible = len(config.spacing_mm) == 3 and all(
            low <= mm <= high for mm in config.spacing_mm
        )
        demand(possible, "spacing_mm", f"give three lengths from {low:g} to {high:g} mm")
        demand(config.fit == "crop", "spacing_mm", 'fit "resize" sets the spacing itself')
    demand(not config.random_crop or config.fit == "crop", "random_crop", 'it needs fit "crop"')
    demand(config.crops_per_scan >= 1, "crops_per_scan", "give 1 or more")
    demand(config.random_crop or config.crops_per_scan == 1, "crops_per_scan", "set random_crop")
    demand(set(config.flip_axes) <= set(AXES), "flip_axes", f"choose among {', '.join(AXES)}")
    demand(0 <= config.flip_probability <= 1, "flip_probability", "give 0 to 1")
    demand(0 <= config.zoom_probability <= 1, "zoom_probability", "give 0 to 1")
    zooms = ascending(config.zoom_range) and 0 < config.zoom_range[0] < math.inf
    demand(zooms, "zoom_range", "give two positive numbers, low before high")
    demand(0 < config.validation_fraction < 1, "validation_fraction", "give a part between 0 and 1")


def facts_file(file: Path) -> Path:
    """Return the file with the facts of a prepared scan."""
    return file.with_suffix(".json")


def read_facts(file: Path) -> dict[str, Any]:
    """Read the facts of a prepared scan.

    Args:
        file: The prepared scan.

    Returns:
        "affine", "source_spacing_mm" before preparation, and "voxels", a hash.
    """
    return json.loads(facts_file(file).read_text(encoding="utf-8"))


def read_prepared(file: Path) -> Volume:
    """Map a prepared scan into memory."""
    return Volume(np.load(file, mmap_mode="r"), np.array(read_facts(file)["affine"]))


def in_mm(spacing: Sequence[float]) -> str:
    """Return a spacing (depth, height, width) as text."""
    return "x".join(f"{length:.3g}" for length in spacing) + " mm"


class CTDataset(Samples):
    """Prepared scans as items `{"image": float32 (1, D, H, W) in [-1, 1], "index": int}`.

    Training items are cut and augmented randomly, depending on (seed, epoch, index) alone, not on
    the number of workers or a resumption. Held-out items are always the same.

    Args:
        files: The prepared scans.
        config: The settings they were prepared with.
        training: Whether to cut and augment randomly.
        seed: Seed of the random choices, not negative.
    """

    def __init__(
        self, files: Sequence[Path], config: CTDataConfig, *, training: bool, seed: int
    ) -> None:
        self.files = list(files)
        self.config = config
        self.training = training
        self.seed = seed
        self.epoch = Epoch()

    def __len__(self) -> int:
        return len(self.files) * (self.config.crops_per_scan if self.training else 1)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the random choices; call it before the epoch's first batch.

        Args:
            epoch: Index of the epoch, from 0.
        """
        self.epoch.set(epoch)

    def affine(self, index: int) -> np.ndarray:
        """Return the affine of an item before flips and zoom.

        Args:
            index: Index of the item.

        Returns:
            The map from its indices (d, h, w, 1) to RAS+ millimetres, float64, shape (4, 4).
        """
        return self._cut(index)[0].affine

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        box, augmentation = self._cut(index)
        image = to_model_range(box.array.astype(np.float32), self.config.window_hu)
        image = augment(image, augmentation, fill=-1.0)
        return {"image": torch.from_numpy(image)[None], "index": index}

    def _cut(self, index: int) -> tuple[Volume, Augmentation]:
        """Cut the item's box out of its scan, and draw its augmentation."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no item {index} among {len(self)}.")
        file = self.files[index % len(self.files)]
        scan = read_prepared(file)
        room = np.subtract(scan.size, self.config.size)
        if not self.training:
            return crop(scan, (room // 2).tolist(), self.config.size), Augmentation()
        rng = np.random.default_rng((self.seed, int(self.epoch), index))
        start = rng.integers(room + 1) if self.config.random_crop else room // 2
        augmentation = draw_augmentation(
            rng,
            flip_axes=[AXES[name] for name in self.config.flip_axes],
            flip_probability=self.config.flip_probability,
            zoom_range=self.config.zoom_range,
            zoom_probability=self.config.zoom_probability,
        )
        return crop(scan, start.tolist(), self.config.size), augmentation
