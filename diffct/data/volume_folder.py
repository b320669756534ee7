"""The manifest of a folder of CT scans: their patients, copies and splits.

Preparation (`diffct prepare ct`) and training on a folder both use it, so that they divide the same
scans in the same way. Nothing is copied: the manifest names the scans in their folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffct.data.manifest import Manifest, ManifestRow
from diffct.data.patients import (
    PATTERN_SETTING,
    check_two_patients,
    copies_note,
    join_patients,
    name_patients,
    number_patients,
    shared_patient_note,
)
from diffct.data.splits import (
    check_patients_apart,
    check_split,
    draw_splits,
    read_split,
)
from diffct.data.volume_cache import prepare_scans
from diffct.data.volume_dataset import CTDataConfig, check_settings, in_mm, read_facts
from diffct.imaging.copies import find_copies
from diffct.imaging.image_folder import FoundImages, find_images

RUN_SCANS = "scans.jsonl"
"""The manifest that a run on a folder saves; its image paths are relative to that folder."""
EARLIER_SPLIT = "split.json"
"""The split file of older runs, which saved no manifest."""
_MAX_NAMED = 3


@dataclass(frozen=True)
class FoundScans:
    """The scans of a folder and their patients.

    Attributes:
        found: The files that are read and those that are left out.
        paths: The file or DICOM folder of each scan by its key, the path relative to the folder.
        patients: The patient of each key; private.
    """

    found: FoundImages
    paths: dict[str, Path]
    patients: dict[str, str]


def find_scans(
    folder: str | Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    patient_pattern: str | None = None,
    setting: str = PATTERN_SETTING,
) -> FoundScans:
    """Find the scans of a folder and their patients.

    Args:
        folder: The folder of the scans.
        include: Patterns of the only paths that are read; see `image_folder.find_images`.
        exclude: Patterns of paths that are not read.
        patient_pattern: See `patients.name_patients`.
        setting: The user's name of that pattern, for messages.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no scan, or the pattern finds no patient in a path.
    """
    found = find_images(folder, kind="volumes", include=include, exclude=exclude)
    paths = {path.relative_to(found.folder).as_posix(): path for path in found.images}
    return FoundScans(found, paths, name_patients(paths, patient_pattern, setting=setting))


def settle_copies(
    scans: FoundScans, voxels: Mapping[str, str], *, chosen: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Choose one of the scans with the same voxels, and merge their patients.

    Args:
        scans: The scans that were found.
        voxels: A hash of the voxels of each usable scan.
        chosen: Keys that are preferred; otherwise a DICOM series, whose header has more information
            than its conversion, or the first scan is chosen.

    Returns:
        The patient of each usable scan, and for each copy that is left out the scan that is used
        instead.
    """
    copies = find_copies(voxels)
    wanted = {*chosen}
    left_out: dict[str, str] = {}
    for group in copies:
        taken = [key for key in group if key in wanted]
        if not taken:
            taken = [min(group, key=lambda key: (not scans.paths[key].is_dir(), key))]
        left_out |= {key: taken[0] for key in group if key not in taken}
    return join_patients({key: scans.patients[key] for key in voxels}, copies), left_out


def divide_folder(
    folder: str | Path,
    config: CTDataConfig,
    *,
    cache_dir: Path,
    workers: int,
    seed: int,
    synthetic: bool = False,
    show_progress: bool = True,
) -> tuple[Manifest, list[str]]:
    """Make the manifest of a folder of scans for a run, and prepare each scan for the network.

    Args:
        folder: The folder of the scans.
        config: Which scans to read, and how they are prepared and divided.
        cache_dir: Folder of prepared scans; see `prepare_scans`.
        workers: Scans prepared at the same time.
        seed: Seed of the split, not negative.
        synthetic: Whether they are phantoms.
        show_progress: Whether to show a progress bar.

    Returns:
        The manifest, with image paths relative to `folder`; and notes for the user on files and
        copies left out and on doubtful patients. The notes name paths.

    Raises:
        FileNotFoundError: There is no such folder or split file.
        ValueError: A setting is wrong, scans cannot be used, a patient cannot be identified, all
            scans are of one patient, or the split does not fit.
    """
    check_settings(config)
    folder, pattern = Path(folder), config.patient_pattern
    earlier = None if config.split_file is None else read_split(config.split_file)
    scans = find_scans(
        folder, include=config.include, exclude=config.exclude, patient_pattern=pattern
    )
    check_two_patients(scans.patients, pattern=pattern, folder=folder)
    doubt = shared_patient_note(scans.patients) if pattern is None else None
    if earlier is not None:  # scans that it lacks may be copies, so they are checked below
        check_split(earlier, earlier.keys() & scans.paths.keys())
    prepared = prepare_scans(
        list(scans.paths.values()), config, cache_dir, workers=workers, show_progress=show_progress
    )
    files = dict(zip(scans.paths, prepared, strict=True))
    voxels = {key: read_facts(file)["voxels"] for key, file in files.items()}
    patients, left_out = settle_copies(scans, voxels, chosen=earlier or ())
    kept = {key: name for key, name in patients.items() if key not in left_out}
    if len(set(kept.values())) == 1:
        raise ValueError(
            f"{folder}: its scans are of one patient, since some have the same voxels under two"
            f" names, but holding one out needs two. {copies_note(left_out)}"
        )
    if earlier is None:
        share = config.validation_fraction
        drawn = draw_splits(kept.values(), seed=seed, validation=share, test=0, rounding="down")
        split = {key: drawn[name] for key, name in kept.items()}
    else:
        split = earlier
        check_split(split, kept)
        check_patients_apart(split, kept)
    if pattern is None:
        kept = dict(sorted(kept.items()))
        kept = number_patients(kept, keep={n for key in scans.paths for n in (key, f"./{key}")})
    facts = {"synthetic": True} if synthetic else {}
    rows = (ManifestRow(key, kept[key], split[key], facts=facts) for key in sorted(kept))
    notes = [*scans.found.left_out_lines(), copies_note(left_out), _geometry_note(left_out, files)]
    return Manifest(folder, tuple(rows)), [note for note in (*notes, doubt) if note]


def _geometry_note(left_out: Mapping[str, str], files: Mapping[str, Path]) -> str | None:
    """Return a note on copies with another spacing than the scan that is read instead."""
    apart = []
    for copy, kept in left_out.items():
        stated = [read_facts(files[key])["source_spacing_mm"] for key in (kept, copy)]
        # Axes may be in another order.
        if not np.allclose(sorted(stated[0]), sorted(stated[1]), rtol=0.01):
            apart.append(f"{kept} ({in_mm(stated[0])}) and {copy} ({in_mm(stated[1])})")
    if not apart:
        return None
    more = ", ..." if len(apart) > _MAX_NAMED else ""
    return (
        f"{len(apart)} × copy that states another spacing than the scan that is read:"
        f" {', '.join(apart[:_MAX_NAMED])}{more}; leave the wrong ones out with data.exclude."
    )
