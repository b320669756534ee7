"""A folder of CT scans becomes a training set and a held-out set of system 1.

Each scan is read, checked and brought to its final grid once, by `prepare_cohort`, and kept as
int16 HU in a cache. A `CTDataset` then only maps that file into memory, cuts, augments and scales:
during an epoch no source file is opened.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from diffct.atomic import atomic_file
from diffct.data import dicom
from diffct.data.patients import patient_in_path
from diffct.data.splits import Split, check_patients_apart, check_split, load_split, make_split
from diffct.data.transforms import (
    Augmentation,
    augment,
    clip_window,
    crop,
    crop_or_pad,
    draw_augmentation,
    resample,
    resize,
    to_model_range,
)
from diffct.data.volume import (
    Volume,
    check_hounsfield,
    find_scans,
    read_volume,
    source_files,
)

AXES = {"depth": 0, "height": 1, "width": 2}
# Raise it whenever the same settings would prepare a scan differently.
_CACHE_FORMAT = 1
_PROBLEMS_LISTED = 10


@dataclass
class CTDataConfig:
    """The `data:` section of a 3D CT experiment.

    Attributes:
        folder: Where the scans lie; None means a synthetic phantom cohort.
        phantom_scans: How many phantoms that cohort has.
        size: Voxels (depth, height, width) that the network sees.
        spacing_mm: Resample to this spacing (depth, height, width); None keeps each scan's own.
        fit: "crop" cuts or pads around the centre; "resize" maps the whole field of view onto
            `size`, as the thesis did from 512 to 256.
        window_hu: The HU that become -1 and 1.
        random_crop: Cut training boxes anywhere instead of at the centre.
        crops_per_scan: Boxes cut from each training scan in an epoch, if `random_crop`.
        validation_fraction: Share of the patients held out.
        patient_pattern: Regular expression with one group, searched in a scan's path relative to
            `folder`: the group names the patient. None: the DICOM PatientID, or each file its own.
        split_file: An earlier split to use again.
        flip_axes: Axes that training scans are mirrored along: "depth", "height", "width".
        flip_probability: How likely each of them is mirrored.
        zoom_range: Lowest and highest magnification of training scans.
        zoom_probability: How likely a training scan is magnified.
        cache_dir: Where prepared scans are kept; None means a folder in the output.
    """

    folder: str | None = None
    phantom_scans: int = 28
    size: list[int] = field(default_factory=lambda: [16, 64, 64])
    spacing_mm: list[float] | None = None
    fit: str = "crop"
    window_hu: list[float] = field(default_factory=lambda: [-1000.0, 1000.0])
    random_crop: bool = False
    crops_per_scan: int = 1
    validation_fraction: float = 0.2
    patient_pattern: str | None = None
    split_file: str | None = None
    flip_axes: list[str] = field(default_factory=lambda: ["width"])
    flip_probability: float = 0.5
    zoom_range: list[float] = field(default_factory=lambda: [0.9, 1.1])
    zoom_probability: float = 0.5
    cache_dir: str | None = None


class CTDataset(Dataset[dict[str, torch.Tensor | int]]):
    """Prepared scans as items `{"image": float32 (1, D, H, W) in [-1, 1], "index": int}`.

    Training items are cut and augmented by chance that depends on nothing but (seed, epoch, index),
    so the number of workers and a resumed run change nothing. Held-out items are always the same.

    Args:
        files: The cached scans.
        config: The settings they were prepared with.
        training: Whether to cut and augment by chance.
        seed: Seed of that chance, not negative.
    """

    def __init__(
        self, files: Sequence[Path], config: CTDataConfig, *, training: bool, seed: int
    ) -> None:
        self.files = list(files)
        self.config = config
        self.training = training
        self.seed = seed
        # Shared memory, since workers that live on after an epoch hold a copy of this object.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.files) * (self.config.crops_per_scan if self.training else 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the chance of this epoch; call it before the epoch's first batch.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch.fill_(epoch)

    def affine(self, index: int) -> np.ndarray:
        """Return where the voxels of an item lie, before flips and zoom.

        Args:
            index: Number of the item.

        Returns:
            Takes its indices (d, h, w, 1) to RAS+ millimetres, float64 with shape (4, 4).
        """
        return self._cut(index)[0].affine

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        box, augmentation = self._cut(index)
        image = to_model_range(box.array.astype(np.float32), self.config.window_hu)
        image = augment(image, augmentation, fill=-1.0)
        return {"image": torch.from_numpy(image)[None], "index": index}

    def _cut(self, index: int) -> tuple[Volume, Augmentation]:
        """Cut the item's box out of its scan, and draw what is to be done with it."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no item {index} among {len(self)}.")
        file = self.files[index % len(self.files)]
        scan = Volume(np.load(file, mmap_mode="r"), np.load(_affine_file(file)))
        room = np.subtract(scan.size, self.config.size)
        if not self.training:
            return crop(scan, (room // 2).tolist(), self.config.size), Augmentation()
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        start = rng.integers(room + 1) if self.config.random_crop else room // 2
        augmentation = draw_augmentation(
            rng,
            flip_axes=[AXES[name] for name in self.config.flip_axes],
            flip_probability=self.config.flip_probability,
            zoom_range=self.config.zoom_range,
            zoom_probability=self.config.zoom_probability,
        )
        return crop(scan, start.tolist(), self.config.size), augmentation


@dataclass(frozen=True)
class CTCohort:
    """The training set, the held-out set, and how the scans were divided.

    Attributes:
        train: Cut and augmented by chance.
        validation: Always the same.
        split: The scans of both; it names paths and is private.
        patients: The patient of each scan, for counting; private.
    """

    train: CTDataset
    validation: CTDataset
    split: Split
    patients: dict[str, str] = field(repr=False)

    def describe(self) -> dict[str, int | list[int] | list[float]]:
        """Sum the cohort up without any identifier.

        Returns:
            Scans and patients on each side, the median spacing in mm (depth, height, width) of
            the prepared scans, the size in voxels and the window in HU.
        """
        config, files = self.train.config, self.train.files + self.validation.files
        columns = np.array([np.load(_affine_file(file))[:3, :3] for file in files])
        spacings = np.linalg.norm(columns, axis=1)
        return {
            "train_scans": len(self.split.train),
            "train_patients": len({self.patients[key] for key in self.split.train}),
            "validation_scans": len(self.split.validation),
            "validation_patients": len({self.patients[key] for key in self.split.validation}),
            "median_spacing_mm": np.median(spacings, axis=0).round(4).tolist(),
            "size": [int(n) for n in config.size],
            "window_hu": [float(hu) for hu in config.window_hu],
        }


def prepare_cohort(
    config: CTDataConfig,
    *,
    folder: str | Path,
    cache_dir: str | Path,
    workers: int,
    seed: int,
    show_progress: bool = True,
) -> CTCohort:
    """Read, check and prepare every scan of a folder once, and divide the patients.

    What is in the cache already is not read again, and several processes may prepare the same
    cohort at once. A scan that changes is prepared anew.

    Args:
        config: Settings; its `folder` and `cache_dir` are not looked at here.
        folder: Where the scans lie.
        cache_dir: Where the prepared scans are kept.
        workers: Scans prepared at the same time; each needs about three times its size in memory.
        seed: Seed of the split and of the augmentation, not negative.
        show_progress: Whether to show a progress bar (in the main process only, say).

    Returns:
        The cohort.

    Raises:
        FileNotFoundError: There is no such folder or split file.
        ValueError: A setting is wrong, a patient cannot be told, the split does not fit, or scans
            cannot be used; then one error lists up to ten of them with reasons.
    """
    _check_config(config)
    folder, cache_dir = Path(folder), Path(cache_dir)
    scans = {path.relative_to(folder).as_posix(): path for path in find_scans(folder)}
    patients = {key: _patient(key, path, config.patient_pattern) for key, path in scans.items()}
    if config.split_file is None:
        split = make_split(patients, validation_fraction=config.validation_fraction, seed=seed)
    else:
        split = load_split(config.split_file)
        check_split(split, scans)
        check_patients_apart(split, patients)
    cached = _prepare_all(
        list(scans.values()), config, cache_dir, workers=workers, show_progress=show_progress
    )
    files = dict(zip(scans, cached, strict=True))
    train, validation = (
        CTDataset([files[key] for key in keys], config, training=training, seed=seed)
        for keys, training in ((split.train, True), (split.validation, False))
    )
    return CTCohort(train, validation, split, patients)


def _check_config(config: CTDataConfig) -> None:
    """Refuse settings that are wrong or contradict each other."""

    def demand(valid: bool, setting: str, accepted: str) -> None:
        if not valid:
            raise ValueError(f"data.{setting} is {getattr(config, setting)}; {accepted}.")

    def ascending(pair: Sequence[float]) -> bool:
        return len(pair) == 2 and pair[0] <= pair[1]

    demand(len(config.size) == 3 and min(config.size) >= 1, "size", "give three voxel counts")
    demand(config.fit in ("crop", "resize"), "fit", 'give "crop" or "resize"')
    low, high = config.window_hu if len(config.window_hu) == 2 else (0, 0)
    demand(-32768 <= low < high <= 32767, "window_hu", "give two HU, low before high")
    if config.spacing_mm is not None:
        positive = len(config.spacing_mm) == 3 and min(config.spacing_mm) > 0
        demand(positive, "spacing_mm", "give three lengths in mm")
        demand(config.fit == "crop", "spacing_mm", 'fit "resize" sets the spacing itself')
    demand(not config.random_crop or config.fit == "crop", "random_crop", 'it needs fit "crop"')
    demand(config.crops_per_scan >= 1, "crops_per_scan", "give 1 or more")
    demand(config.random_crop or config.crops_per_scan == 1, "crops_per_scan", "set random_crop")
    demand(set(config.flip_axes) <= set(AXES), "flip_axes", f"choose among {', '.join(AXES)}")
    demand(0 <= config.flip_probability <= 1, "flip_probability", "give 0 to 1")
    demand(0 <= config.zoom_probability <= 1, "zoom_probability", "give 0 to 1")
    zooms = ascending(config.zoom_range) and config.zoom_range[0] > 0
    demand(zooms, "zoom_range", "give two positive numbers, low before high")


def _patient(key: str, path: Path, pattern: str | None) -> str:
    """Tell whose scan it is."""
    if pattern is not None:
        return patient_in_path(key, path, pattern, setting="data.patient_pattern")
    return (dicom.patient_key(path) if path.is_dir() else None) or key


def _prepare_all(
    paths: list[Path],
    config: CTDataConfig,
    cache_dir: Path,
    *,
    workers: int,
    show_progress: bool,
) -> list[Path]:
    """Prepare the scans side by side, and report everything wrong with them at once."""
    problems: list[str] = []

    def prepare(path: Path) -> Path | None:
        file = cache_dir / f"{_cache_key(path, config)}.npy"
        if not (file.exists() and _affine_file(file).exists()):
            try:
                volume = read_volume(path)
                check_hounsfield(volume, path)
            except (ValueError, OSError) as error:
                problems.append(str(error))
                return None
            _write_cache(_fit(volume, config), file)
        return file

    pool = ThreadPoolExecutor(max(1, workers))
    try:
        prepared = pool.map(prepare, paths)
        files = list(tqdm(prepared, "Preparing scans", len(paths), disable=not show_progress))
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in sorted(problems)[:_PROBLEMS_LISTED])
        more = len(problems) - _PROBLEMS_LISTED
        raise ValueError(
            f"{len(problems)} of {len(paths)} scans cannot be used; repair or remove them:{listed}"
            + (f"\n- and {more} more" if more > 0 else "")
        )
    return files


def _fit(volume: Volume, config: CTDataConfig) -> Volume:
    """Bring a scan to the window and the grid that the network sees."""
    floor = config.window_hu[0]
    volume = clip_window(volume, config.window_hu)
    if config.spacing_mm is not None:
        volume = resample(volume, config.spacing_mm)
    if config.fit == "resize":
        return resize(volume, config.size)
    if config.random_crop:
        return crop_or_pad(volume, np.maximum(volume.size, config.size).tolist(), floor)
    return crop_or_pad(volume, config.size, floor)


def _cache_key(path: Path, config: CTDataConfig) -> str:
    """Name a prepared scan after everything that it depends on."""
    stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in source_files(path)]
    names = [file.name for file in source_files(path)]
    spacing = None if config.spacing_mm is None else [float(mm) for mm in config.spacing_mm]
    window = [float(hu) for hu in config.window_hu]
    recipe = [list(config.size), spacing, config.fit, window, config.random_crop]
    facts = [_CACHE_FORMAT, str(path.resolve()), names, stamps, recipe]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _write_cache(volume: Volume, file: Path) -> None:
    """Keep a prepared scan: its affine first, so that the HU file stands for both."""
    with atomic_file(_affine_file(file)) as partial:
        np.save(partial, volume.affine)
    with atomic_file(file) as partial:
        np.save(partial, np.rint(volume.array).astype(np.int16))


def _affine_file(file: Path) -> Path:
    """Name the file that keeps the affine of a cached scan."""
    return file.with_suffix(".affine.npy")
