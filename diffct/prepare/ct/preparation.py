"""Preparation of a folder of CT scans: files of one format, and a manifest.

Each scan is written once, upright, as NIfTI of whole Hounsfield units, under a name that does not
identify the patient; the manifest and `dropped.csv` do, and are as private as the scans. Nothing is
cropped here: training and evaluation bring the scans of a manifest to any size and window. A record
beside each scan holds its facts and the size and modification time of its source, so an interrupted
run resumes, and a source that has changed is prepared again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from diffct.data.manifest import MANIFEST_NAME, ManifestRow, write_manifest
from diffct.data.patients import number_patients, shared_patient_note
from diffct.data.splits import HELD_OUT_SHARE, draw_splits
from diffct.data.volume_folder import FoundScans, find_scans, settle_copies
from diffct.imaging.volume import check_spacing_mm
from diffct.prepare.ct.report import CTReport, Dropped, summarize_scans
from diffct.prepare.ct.scans import IMAGES, PreparedScan, ScanTask, prepare_scan
from diffct.prepare.report import write_report
from diffct.prepare.resumption import claim_folder
from diffct.prepare.worker_pool import open_results

# Increase it whenever the same settings would give other scans.
_FORMAT = 1
PATTERN_OPTION = "--patient-pattern"


def prepare_ct(
    scans: str | Path,
    out: str | Path,
    *,
    spacing_mm: Sequence[float] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    patient_pattern: str | None = None,
    validation_share: float = HELD_OUT_SHARE,
    test_share: float = HELD_OUT_SHARE,
    seed: int = 0,
    workers: int = 1,
    show_progress: bool = True,
) -> CTReport:
    """Read, check and write every scan of a folder, and list them in a manifest.

    Of several scans with the same voxels one is kept, a DICOM series rather than its conversions,
    and their patients count as one.

    Args:
        scans: The folder; searched with all its subfolders, see `image_folder.find_images`.
        out: The folder to write `images/`, `manifest.jsonl`, `prepare_report.json` and
            `dropped.csv` into; an earlier run with the same settings is continued, and outputs
            whose scans no longer exist are deleted.
        spacing_mm: Resample to this spacing (depth, height, width); None keeps each scan's own.
        include: Patterns of paths; if given, only these are read.
        exclude: Patterns of paths that are not read.
        patient_pattern: Regular expression with one group, searched in each path relative to
            `scans`: the group is the patient. None: the DICOM PatientID; a file without one counts
            as a patient of its own.
        validation_share: Share of the patients held out for validation; 0 for none.
        test_share: Share of the patients held out for the test.
        seed: Seed of the split.
        workers: Number of processes; with 1, no other process is started. The result does not
            depend on it.
        show_progress: Whether to show a progress bar.

    Returns:
        The counts; every scan found is either kept or dropped for one reason.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A setting is wrong or differs from the earlier run's, a pattern finds no patient
            in a path, or no scan is left.
        OSError: The disk is full, or the system killed a worker.
    """
    scans, out = Path(scans), Path(out)
    draw_splits((), seed=seed, validation=validation_share, test=test_share)  # checks the shares
    if spacing_mm is not None:
        check_spacing_mm(spacing_mm, "depth, height, width")
    if workers < 1:
        raise ValueError(f"workers is {workers}; give 1 or more.")
    if scans.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(
            f"{out}: lies in {scans}, which is searched for scans. Give another folder."
        )
    spacing = None if spacing_mm is None else [float(mm) for mm in spacing_mm]
    settings = {
        "data_set": "ct",
        "spacing_mm": spacing,
        "include": list(include),
        "exclude": list(exclude),
        "patient_pattern": patient_pattern,
        "validation": validation_share,
        "test": test_share,
        "seed": seed,
    }
    found = find_scans(
        scans,
        include=include,
        exclude=exclude,
        patient_pattern=patient_pattern,
        setting=PATTERN_OPTION,
    )
    claim_folder(out, {**settings, "format": _FORMAT})
    tasks = [
        ScanTask(path, out / IMAGES / f"{_name(key)}.nii.gz", spacing)
        for key, path in found.paths.items()
    ]
    with open_results(prepare_scan, tasks, workers=workers) as results:
        bar = tqdm(results, "Preparing scans", len(tasks), disable=not show_progress, unit="scan")
        outcomes = dict(zip(found.paths, bar, strict=True))
    return _finish(found, outcomes, out, settings)


def _name(key: str) -> str:
    """Return the name of a scan's files: a hash of its path."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _list_dropped(outcomes: dict[str, PreparedScan], copies: dict[str, str]) -> list[Dropped]:
    """List the scans that cannot be used, and the copies, with the reasons."""
    dropped = [
        Dropped(key, done.dropped, done.detail)
        for key, done in outcomes.items()
        if done.dropped is not None
    ]
    return dropped + [
        Dropped(copy, "same voxels as another scan", f"those of {key}")
        for copy, key in copies.items()
    ]


def _finish(
    found: FoundScans, outcomes: dict[str, PreparedScan], out: Path, settings: dict[str, Any]
) -> CTReport:
    """Drop copies, draw the splits, write manifest and report, and delete unlisted files."""
    pattern = settings["patient_pattern"]
    doubt = shared_patient_note(found.patients, setting=PATTERN_OPTION) if pattern is None else None
    # A scan of an unknown patient has its path as patient; the path's hash is less revealing.
    own = {key for key, name in found.patients.items() if name in (key, f"./{key}")}
    named = {key: _name(key) if key in own else name for key, name in found.patients.items()}
    usable = {key: done for key, done in outcomes.items() if done.dropped is None}
    patients, copies = settle_copies(
        replace(found, patients=named), {key: done.voxels for key, done in usable.items()}
    )
    kept = {key: done for key, done in usable.items() if key not in copies}
    splits = draw_splits(
        (patients[key] for key in kept),
        seed=settings["seed"],
        validation=settings["validation"],
        test=settings["test"],
    )
    owners = {key: patients[key] for key in kept}
    if pattern is None:
        owners = number_patients(owners, keep={named[key] for key in own})
    rows = [
        ManifestRow(
            image=f"{IMAGES}/{_name(key)}.nii.gz",
            patient=owners[key],
            split=splits[patients[key]],
            facts=done.facts,
        )
        for key, done in kept.items()
    ]
    dropped = _list_dropped(outcomes, copies)
    report = summarize_scans(
        rows,
        dropped,
        left_out=found.found.reasons(),
        joined=len({named[key] for key in usable}) - len(set(patients.values())),
        notes=[*found.found.idle_patterns, *([doubt] if doubt else [])],
        settings=settings,
    )
    folder = found.found.folder
    unread = [
        Dropped(entry.path.relative_to(folder).as_posix(), entry.reason)
        for entry in found.found.left_out
    ]
    lines = [entry.line() for entry in (*dropped, *unread)]
    write_report(asdict(report), lines, out, columns=("scan", "reason", "detail"))
    if not rows:
        raise ValueError(f"{out}: no scan is left.\n{report.format()}")
    write_manifest(rows, out / MANIFEST_NAME)
    # Files of copies stay, so that a later run need not read the copies again.
    wanted = {_name(key) for key in usable}
    for file in (out / IMAGES).iterdir():
        if file.is_file() and file.name.partition(".")[0] not in wanted:
            file.unlink()
    return report
