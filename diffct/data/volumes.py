"""The training and validation CT scans of a run.

A manifest names the patient and the split of each scan (`diffct prepare ct` writes one, and a run
on a folder makes its own, see `volume_folder`). Each scan is prepared once (`volume_cache`); a
`CTDataset` then maps the prepared scans into memory, cuts, augments and scales them: no source file
is opened during an epoch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
from tqdm import tqdm

from diffct.data.manifest import Manifest, SplitName
from diffct.data.volume_cache import prepare_scans
from diffct.data.volume_dataset import (
    CTDataConfig,
    CTDataset,
    check_settings,
    in_mm,
    read_facts,
)

__all__ = ["CTDataConfig", "CTDataset", "TrainingVolumes", "load_volumes", "median_spacing_mm"]

MAX_SPACING_RATIO = 1.5
"""Largest ratio of a scan's spacing to the median of the training scans before it is reported."""
_MAX_NAMED = 3


class CohortFacts(TypedDict):
    """The facts of the scans for a model card; see `TrainingVolumes.describe`."""

    train_scans: int
    train_patients: int
    validation_scans: int
    validation_patients: int
    median_spacing_mm: list[float]
    size: list[int]
    window_hu: list[float]


@dataclass(frozen=True)
class TrainingVolumes:
    """Prepared CT scans in two data sets.

    Attributes:
        train: Cut and augmented randomly.
        validation: The same in every epoch; empty if no scan is held out.
        manifest: The scans of both, and those of other splits; it names paths and is private.
        notes: Notes for the user on files and copies left out, and on doubtful patients and
            spacings. They name paths.
    """

    train: CTDataset
    validation: CTDataset
    manifest: Manifest = field(repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def synthetic(self) -> bool:
        """Whether all scans are known to be phantoms."""
        return all(bool(row.facts.get("synthetic")) for row in self.manifest.rows)

    def describe(self) -> CohortFacts:
        """Summarise the scans without any identifier.

        Returns:
            Numbers of scans and patients in each split, the median spacing in mm (depth, height,
            width) of the prepared training scans, the size in voxels and the window in HU.
        """
        config = self.train.config
        train, validation = self.manifest.split("train"), self.manifest.split("validation")
        return {
            "train_scans": len(train),
            "train_patients": len({row.patient for row in train}),
            "validation_scans": len(validation),
            "validation_patients": len({row.patient for row in validation}),
            "median_spacing_mm": median_spacing_mm(self.train.files),
            "size": [int(n) for n in config.size],
            "window_hu": [float(hu) for hu in config.window_hu],
        }


def load_volumes(
    manifest: Manifest,
    config: CTDataConfig,
    *,
    cache_dir: str | Path,
    workers: int,
    seed: int,
    notes: Sequence[str] = (),
    show_progress: bool = True,
) -> TrainingVolumes:
    """Read, check and prepare the training and validation scans of a manifest once.

    Scans that are in the cache are not read again, and several processes may prepare the same scans
    at once. A scan that has changed is prepared again.

    Args:
        manifest: The manifest of the scans; those for the test are not read.
        config: How they are prepared, cut and augmented.
        cache_dir: Folder of prepared scans.
        workers: Scans prepared at the same time; each needs about three times its size in memory.
        seed: Seed of the augmentation, not negative.
        notes: Notes for the user so far.
        show_progress: Whether to show a progress bar and the notes, e.g. in the main process only.

    Returns:
        The data sets.

    Raises:
        ValueError: A setting is wrong, there is no training scan, or scans cannot be used; then one
            error lists up to ten of them with reasons.
    """
    check_settings(config)
    rows = [*manifest.split("train"), *manifest.split("validation")]
    if not manifest.split("train"):
        raise ValueError(f"{manifest.folder}: no row of the manifest has the split 'train'.")
    prepared = prepare_scans(
        [manifest.path(row) for row in rows],
        config,
        Path(cache_dir),
        workers=workers,
        show_progress=show_progress,
    )
    files = dict(zip((row.image for row in rows), prepared, strict=True))

    def dataset(split: SplitName) -> CTDataset:
        chosen = [files[row.image] for row in manifest.split(split)]
        return CTDataset(chosen, config, training=split == "train", seed=seed)

    train = dataset("train")
    far = _spacing_note(files, train, config)
    volumes = TrainingVolumes(
        train, dataset("validation"), manifest, tuple(filter(None, (*notes, far)))
    )
    if show_progress:
        for note in volumes.notes:
            tqdm.write(note)
    return volumes


def median_spacing_mm(files: Sequence[Path]) -> list[float]:
    """Return the median spacing (depth, height, width) of prepared scans, to four digits."""
    return np.median(_spacings(files), axis=0).round(4).tolist()


def _spacings(files: Sequence[Path]) -> np.ndarray:
    """Return the spacings of prepared scans in mm, (scans, 3)."""
    columns = np.array([read_facts(file)["affine"] for file in files])[:, :3, :3]
    return np.linalg.norm(columns, axis=1)


def _spacing_note(files: Mapping[str, Path], train: CTDataset, config: CTDataConfig) -> str | None:
    """Return a note on scans whose spacing is far from the one that the pipeline will state."""
    median = np.median(_spacings(train.files), axis=0)
    spacings = dict(zip(files, _spacings([*files.values()]), strict=True))
    far = [
        f"{key} ({in_mm(spacing)})"
        for key, spacing in spacings.items()
        if np.exp(np.abs(np.log(spacing / median))).max() > MAX_SPACING_RATIO
    ]
    if not far:
        return None
    more = ", ..." if len(far) > _MAX_NAMED else ""
    unify = (
        "use data.fit=crop with data.spacing_mm, which gives all the same spacing"
        if config.fit == "resize"
        else "set data.spacing_mm to give all the same spacing"
    )
    way_out = f"leave them out with data.exclude, or {unify}" if config.manifest is None else unify
    return (
        f"{len(far)} of {len(files)} scans have a spacing more than {MAX_SPACING_RATIO:g} times"
        f" above or below {in_mm(median)}, the training scans' median, which the pipeline states:"
        f" {', '.join(far[:_MAX_NAMED])}{more}; {way_out}."
    )
