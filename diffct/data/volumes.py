"""A folder of CT scans becomes a training set and a held-out set of system 1.

Each scan is prepared once (`ct_preparation`). Only then are the patients divided, since what the
scans hold tells which of them are copies of each other. A `CTDataset` then maps the prepared scans
into memory, cuts, augments and scales: during an epoch no source file is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffct.data.patients import (
    check_two_patients,
    copies_note,
    join_patients,
    name_patients,
    shared_patient_note,
)
from diffct.data.splits import Split, check_patients_apart, check_split, load_split, make_split
from diffct.data.volume_cache import prepare_scans
from diffct.data.volume_dataset import (
    CTDataConfig,
    CTDataset,
    check_settings,
    read_facts,
)
from diffct.imaging.copies import find_copies
from diffct.imaging.image_folder import find_images

MAX_SPACING_RATIO = 1.5
"""Of a scan to the median of the training scans, along any axis; beyond it the scan is named."""
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class CTCohort:
    """The training set, the held-out set, and how the scans were divided.

    Attributes:
        train: Cut and augmented by chance.
        validation: Always the same.
        split: The scans of both; it names paths and is private.
        patients: The patient of each scan, copies included, for counting; private.
        notes: What a user should know: files and copies left out, doubtful patients and spacings.
            They name paths.
    """

    train: CTDataset
    validation: CTDataset
    split: Split
    patients: dict[str, str] = field(repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)

    def describe(self) -> dict[str, int | list[int] | list[float]]:
        """Sum the cohort up without any identifier.

        Returns:
            Scans and patients on each side, the median spacing in mm (depth, height, width) of the
            prepared training scans, the size in voxels and the window in HU.
        """
        config = self.train.config
        return {
            "train_scans": len(self.split.train),
            "train_patients": len({self.patients[key] for key in self.split.train}),
            "validation_scans": len(self.split.validation),
            "validation_patients": len({self.patients[key] for key in self.split.validation}),
            "median_spacing_mm": _median_spacing(self.train.files).round(4).tolist(),
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
    cohort at once. A scan that changes is prepared anew. Of scans that hold the same voxels one is
    used: the one that an earlier split names, otherwise a DICOM series, otherwise the first.

    Args:
        config: Settings; its `folder` and `cache_dir` are not looked at here.
        folder: Where the scans lie.
        cache_dir: Where the prepared scans are kept.
        workers: Scans prepared at the same time; each needs about three times its size in memory.
        seed: Seed of the split and of the augmentation, not negative.
        show_progress: Whether to show a progress bar and the cohort's notes (in the main process
            only, say).

    Returns:
        The cohort.

    Raises:
        FileNotFoundError: There is no such folder or split file.
        ValueError: A setting is wrong, a patient cannot be told, all scans are of one patient, the
            split does not fit, or scans cannot be used; then one error lists up to ten of them with
            reasons.
    """
    check_settings(config)
    folder, pattern = Path(folder), config.patient_pattern
    earlier = None if config.split_file is None else load_split(config.split_file)
    found = find_images(folder, kind="volumes", include=config.include, exclude=config.exclude)
    scans = {path.relative_to(folder).as_posix(): path for path in found.images}
    patients = name_patients(scans, pattern)
    check_two_patients(patients, pattern=pattern, folder=folder)
    doubt = shared_patient_note(patients) if pattern is None else None
    if earlier is not None:  # whether it lacks scans is known once the copies are
        check_split(earlier, {*earlier.train, *earlier.validation} & scans.keys())

    prepared = prepare_scans(
        list(scans.values()), config, Path(cache_dir), workers=workers, show_progress=show_progress
    )
    files = dict(zip(scans, prepared, strict=True))
    copies = find_copies({key: read_facts(file)["voxels"] for key, file in files.items()})
    patients = join_patients(patients, copies)
    left_out = _copies_left_out(copies, scans, earlier)
    kept = {key: name for key, name in patients.items() if key not in left_out}
    if len(set(kept.values())) == 1:
        raise ValueError(
            f"{folder}: its scans are of one patient, since some hold the same voxels under two"
            f" names, but to hold one out takes two. {copies_note(left_out)}"
        )
    if earlier is None:
        split = make_split(kept, validation_fraction=config.validation_fraction, seed=seed)
    else:
        split = earlier
        check_split(split, kept)
        check_patients_apart(split, kept)
    train, validation = (
        CTDataset([files[key] for key in keys], config, training=training, seed=seed)
        for keys, training in ((split.train, True), (split.validation, False))
    )
    notes = [*found.left_out_lines(), copies_note(left_out), _geometry_note(left_out, files), doubt]
    notes.append(_spacing_note(files, split, config))
    cohort = CTCohort(train, validation, split, patients, tuple(filter(None, notes)))
    if show_progress:
        for note in cohort.notes:
            tqdm.write(note)
    return cohort


def _copies_left_out(
    copies: Sequence[Sequence[str]], scans: Mapping[str, Path], split: Split | None
) -> dict[str, str]:
    """Choose one scan of each group of copies; return the others with the chosen one."""
    named = {*split.train, *split.validation} if split else set()
    left_out = {}
    for group in copies:
        chosen = [key for key in group if key in named]
        if not chosen:  # a DICOM series says more than its conversion
            chosen = [min(group, key=lambda key: (not scans[key].is_dir(), key))]
        left_out |= {key: chosen[0] for key in group if key not in chosen}
    return left_out


def _geometry_note(left_out: Mapping[str, str], files: Mapping[str, Path]) -> str | None:
    """Name the copies that state another spacing than the scan that is read in their place."""
    apart = []
    for copy, kept in left_out.items():
        stated = [read_facts(files[key])["source_spacing_mm"] for key in (kept, copy)]
        if not np.allclose(*map(sorted, stated), rtol=0.01):  # axes may be in another order
            apart.append(f"{kept} ({_in_mm(stated[0])}) and {copy} ({_in_mm(stated[1])})")
    if not apart:
        return None
    more = ", ..." if len(apart) > _NAMED_AT_MOST else ""
    return (
        f"{len(apart)} × copy that states another spacing than the scan that is read:"
        f" {', '.join(apart[:_NAMED_AT_MOST])}{more}; leave the wrong ones out with data.exclude."
    )


def _spacings(files: Sequence[Path]) -> np.ndarray:
    """Return the spacings of prepared scans in mm, (scans, 3)."""
    columns = np.array([read_facts(file)["affine"] for file in files])[:, :3, :3]
    return np.linalg.norm(columns, axis=1)


def _median_spacing(files: Sequence[Path]) -> np.ndarray:
    return np.median(_spacings(files), axis=0)


def _spacing_note(files: Mapping[str, Path], split: Split, config: CTDataConfig) -> str | None:
    """Name the scans whose spacing is far from that which the pipeline will state."""
    median = _median_spacing([files[key] for key in split.train])
    keys = [*split.train, *split.validation]
    spacings = dict(zip(keys, _spacings([files[key] for key in keys]), strict=True))
    far = [
        f"{key} ({_in_mm(spacing)})"
        for key, spacing in spacings.items()
        if np.exp(np.abs(np.log(spacing / median))).max() > MAX_SPACING_RATIO
    ]
    if not far:
        return None
    more = ", ..." if len(far) > _NAMED_AT_MOST else ""
    way_out = (
        "use data.fit=crop with data.spacing_mm, which brings all to one"
        if config.fit == "resize"
        else "set data.spacing_mm to bring all to one"
    )
    return (
        f"{len(far)} of {len(keys)} scans have a spacing more than {MAX_SPACING_RATIO:g} times"
        f" above or below {_in_mm(median)}, the training scans' median, which the pipeline states:"
        f" {', '.join(far[:_NAMED_AT_MOST])}{more}; leave them out with data.exclude, or {way_out}."
    )


def _in_mm(spacing: Sequence[float]) -> str:
    """Write a spacing (depth, height, width)."""
    return "x".join(f"{length:.3g}" for length in spacing) + " mm"
