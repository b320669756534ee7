"""Preparation of pairs of brain scans: slices with their position in space, and a manifest.

Names of files and folders do not identify the subject; the manifest and `dropped.csv` do, and are
as private as the scans.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from diffct.data.manifest import MANIFEST_NAME, ManifestRow, write_manifest
from diffct.data.patients import join_patients
from diffct.data.splits import draw_splits
from diffct.imaging.copies import find_copies
from diffct.imaging.planes import PLANES, Plane
from diffct.prepare.brain.pairs import TARGET, FoundPairs, ScanPair
from diffct.prepare.brain.report import BrainReport, summarize_pairs
from diffct.prepare.brain.slicing import IMAGES, SlicedPair, SliceTask, slice_image, slice_pair
from diffct.prepare.report import write_report
from diffct.prepare.resumption import claim_folder
from diffct.prepare.worker_pool import open_results

# Increase it whenever the same settings would give other slices.
_FORMAT = 1


def prepare_brain(
    found: FoundPairs,
    out: str | Path,
    *,
    plane: Plane = "axial",
    slices: int | None = 5,
    size: Sequence[int] = (224, 160),
    seed: int = 0,
    workers: int = 1,
    show_progress: bool = True,
) -> BrainReport:
    """Read, check, align, normalise and slice every pair, and list the slices in a manifest.

    Subjects who have a scan with the same voxels count as one, and of pairs with the same scans the
    first is kept.

    Args:
        found: The pairs, from `find_bids`, `find_brats` or `find_by_patterns`.
        out: The folder to write `images/`, `manifest.jsonl`, `prepare_report.json` and
            `dropped.csv` into; an earlier run with the same settings is continued, and slices of
            pairs that no longer exist are deleted.
        plane: "axial", "coronal" or "sagittal".
        slices: Number of slices, central among those that show tissue; None for all of these.
        size: Rows and columns of the window around the tissue, in voxels.
        seed: Seed of the split by subject: 80 % for training, 10 % each for validation and test.
        workers: Number of processes; with 1, no other process is started. The result does not
            depend on it.
        show_progress: Whether to show a progress bar.

    Returns:
        The counts; every pair is either kept or dropped for one reason.

    Raises:
        ValueError: A setting is wrong or differs from the earlier run's, or no pair is left.
        OSError: The disk is full, or the system killed a worker.
    """
    out = Path(out)
    _check_settings(plane, slices, size, workers)
    settings = {
        "data_set": "brain",
        "layout": found.layout,
        "conditions": list(found.conditions),
        "plane": plane,
        "slices": "all" if slices is None else slices,
        "size": list(size),
        "seed": seed,
    }
    claim_folder(out, {**settings, "format": _FORMAT})
    rows, columns = tuple(size)
    tasks = [
        SliceTask(pair, out, plane, slices, (rows, columns))
        for pair in found.pairs
        if pair.dropped is None
    ]
    with open_results(slice_pair, tasks, workers=workers) as results:
        bar = tqdm(results, "Preparing pairs", len(tasks), disable=not show_progress, unit="pair")
        outcomes = {task.pair.key: done for task, done in zip(tasks, bar, strict=True)}
    listed = [(pair, outcomes.get(pair.key) or SlicedPair(pair.dropped)) for pair in found.pairs]
    return _finish(_drop_copies(listed), out, settings, synthetic=found.synthetic)


def _check_settings(plane: Plane, slices: int | None, size: Sequence[int], workers: int) -> None:
    """Refuse impossible settings."""
    if plane not in PLANES:
        raise ValueError(f"There is no plane {plane!r}; the planes are {', '.join(PLANES)}.")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}; give rows and columns, each 1 or more.")
    if workers < 1 or (slices is not None and slices < 1):
        raise ValueError(
            f"workers is {workers} and slices is {slices}; give 1 or more of each (or all slices)."
        )


def _drop_copies(
    listed: Sequence[tuple[ScanPair, SlicedPair]],
) -> list[tuple[ScanPair, SlicedPair]]:
    """Drop pairs whose scans are all those of an earlier pair."""
    seen: set[tuple[tuple[str, str], ...]] = set()
    checked = []
    for pair, done in listed:
        scans = tuple(sorted(done.voxels.items()))
        if done.dropped is None and scans in seen:
            done = replace(done, dropped="same scans as another pair's")
        seen.add(scans)
        checked.append((pair, done))
    return checked


def _join_subjects(listed: Sequence[tuple[ScanPair, SlicedPair]]) -> dict[str, str]:
    """Merge subjects who share a scan; return the subject of each pair's key."""
    subjects = {pair.key: pair.subject for pair, done in listed if done.voxels}
    voxels = {(pair.key, name): scan for pair, done in listed for name, scan in done.voxels.items()}
    return join_patients(subjects, [[key for key, _ in group] for group in find_copies(voxels)])


def _finish(
    listed: Sequence[tuple[ScanPair, SlicedPair]],
    out: Path,
    settings: Mapping[str, Any],
    *,
    synthetic: bool,
) -> BrainReport:
    """Draw the splits, write manifest and report, and delete slices that belong to no pair."""
    kept = [(pair, done) for pair, done in listed if done.dropped is None]
    subjects = _join_subjects(listed)
    splits = draw_splits({subjects[pair.key] for pair, _ in kept}, seed=settings["seed"])
    mark = {"synthetic": True} if synthetic else {}
    rows = [
        ManifestRow(
            image=slice_image(pair, facts["slice_index"], TARGET),
            patient=subjects[pair.key],
            split=splits[subjects[pair.key]],
            study=pair.session,
            facts={**facts, **mark},
        )
        for pair, done in kept
        for facts in done.facts
    ]
    report = summarize_pairs(
        rows,
        (done.dropped for _, done in listed if done.dropped is not None),
        kept=len(kept),
        joined=len({pair.subject for pair, done in listed if done.voxels})
        - len(set(subjects.values())),
        remarks=(Counter(pair.remarks) + Counter(done.remarks) for pair, done in kept),
        settings=settings,
    )
    dropped = [
        (pair.subject, pair.session, pair.scan, done.dropped, done.detail)
        for pair, done in listed
        if done.dropped is not None
    ]
    columns = ("subject", "session", "scan", "reason", "detail")
    write_report(asdict(report), dropped, out, columns=columns)
    if not rows:
        raise ValueError(f"{out}: no pair is left.\n{report.format()}")
    write_manifest(rows, out / MANIFEST_NAME)
    # A user could not delete the slices of a withdrawn subject: folder names identify nobody.
    wanted = {pair.key for pair, _ in kept}
    for folder in (out / IMAGES).iterdir():
        if folder.is_dir() and folder.name not in wanted:
            shutil.rmtree(folder)
    return report
