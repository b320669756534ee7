"""Preparation of the films of any data set: 16-bit PNG files of one size, and a manifest.

Each finished PNG stores the size and modification time of its source, so an interrupted run
resumes, and a source that has changed is prepared again. It also stores a thumbnail, by which
copies are found: films that show the same image, under two names, in two formats or of two
patients, count as one film of one patient.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from diffct.data.manifest import MANIFEST_NAME, ManifestRow, SplitName, write_manifest
from diffct.data.patients import join_patients
from diffct.data.splits import draw_splits
from diffct.imaging.copies import find_film_copies, thumbnail
from diffct.imaging.dicom_film import UnusableFilmError, header_remarks, read_pixel_spacing_mm
from diffct.imaging.radiograph import (
    read_notes,
    read_radiograph,
    read_source_film,
    resize_shorter_side,
    write_png,
)
from diffct.prepare.report import Dropped, PreparationReport, summarize, write_report
from diffct.prepare.resumption import claim_folder, source_stamp
from diffct.prepare.worker_pool import open_results

# Increase it whenever the same settings would give other images or sentences.
_FORMAT = 2
_CHUNK_SIZE = 8


@dataclass(frozen=True)
class Film:
    """A row of a data set's table.

    Args:
        csv_row: Its number in the table as a spreadsheet counts: the header is row 1.
        source: The image file.
        image: Path of the prepared image, relative to the output folder.
        patient: Identifier of the patient.
        study: Identifier of the examination.
        split: The given split; None if it is to be drawn by seed.
        sentences: Sentences of the report.
        dropped: Why the row is left out, if that is known before the image is opened.
    """

    csv_row: int
    source: Path
    image: str
    patient: str
    study: str = ""
    split: SplitName | None = None
    sentences: tuple[str, ...] = ()
    dropped: str | None = None


@dataclass(frozen=True)
class _Outcome:
    """Result for one image: why it is dropped, or its facts and thumbnail."""

    dropped: str | None = None
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    thumbnail: bytes = b""


def prepare_films(
    films: Sequence[Film],
    out: Path,
    *,
    settings: Mapping[str, Any],
    workers: int,
    show_progress: bool = True,
) -> PreparationReport:
    """Read, check, resize and write every film, and list them in a manifest.

    Of several films that show the same image (`copies.find_film_copies`) the first is kept, and
    their patients count as one. If the given splits separate such films, all films of their
    patients are dropped.

    Args:
        films: Every row of the data set's table, including those that are already dropped.
        out: The folder to write `images/`, `manifest.jsonl`, `prepare_report.json` and
            `dropped.csv` into; an earlier run with the same settings is continued.
        settings: "size" (pixels of the shorter side), "seed" (of a split that is not given), "bits"
            (used in 16-bit files), and every other setting that changes the result.
        workers: Number of processes; with 1, no other process is started. The result does not
            depend on it.
        show_progress: Whether to show a progress bar.

    Returns:
        The counts.

    Raises:
        ValueError: A setting is wrong or differs from the earlier run's, or no film is left.
        OSError: The disk is full, or the system killed a worker.
    """
    if workers < 1 or settings["size"] < 1:
        raise ValueError(
            f"workers is {workers} and size is {settings['size']}; give 1 or more of each."
        )
    claim_folder(out, {**settings, "format": _FORMAT})
    films = _drop_contradictions(films)
    opened = [film for film in films if film.dropped is None]
    tasks = [
        (str(film.source), str(out / film.image), settings["size"], settings["bits"])
        for film in opened
    ]
    with open_results(_prepare, tasks, workers=workers, chunk_size=_CHUNK_SIZE) as results:
        bar = tqdm(results, "Preparing films", len(tasks), disable=not show_progress, unit="film")
        outcomes = dict(zip((film.csv_row for film in opened), bar, strict=True))
    listed = [(film, outcomes.get(film.csv_row) or _Outcome(film.dropped)) for film in films]
    listed, joined = _settle_copies(listed, out)
    return _finish(listed, out, settings, joined=joined)


def _settle_copies(
    listed: Sequence[tuple[Film, _Outcome]], out: Path
) -> tuple[list[tuple[Film, _Outcome]], int]:
    """Keep one of the films that show the same image, and merge their patients.

    Returns:
        The films with their patients and outcomes, and how many patients were merged into another.
    """
    kept = [film for film, outcome in listed if outcome.dropped is None]
    copies = find_film_copies(
        [outcome.thumbnail for _, outcome in listed if outcome.dropped is None],
        lambda index: read_radiograph(out / kept[index].image, smallest_side=1, dark=True),
    )
    owners = {film.csv_row: film.patient for film in kept}
    first_rows = {kept[copy].csv_row: kept[first].csv_row for copy, first in copies.items()}
    patients = join_patients(owners, [(first, copy) for copy, first in first_rows.items()])
    splits: dict[str, set[SplitName | None]] = {}
    for film in kept:
        splits.setdefault(patients[film.csv_row], set()).add(film.split)
    settled = []
    for film, outcome in listed:
        patient, first = patients.get(film.csv_row), first_rows.get(film.csv_row)
        detail = f"the picture of row {first}" if first is not None else ""
        # Keeping any film of a patient with several given splits would leak across splits.
        if patient is not None and len(splits[patient]) > 1:
            outcome = _Outcome("same picture as a patient's of another split", detail)
        elif first is not None:
            outcome = _Outcome("same picture as another row's", detail)
        settled.append((replace(film, patient=patient or film.patient), outcome))
    return settled, len(set(owners.values())) - len(set(patients.values()))


def _finish(
    settled: Sequence[tuple[Film, _Outcome]], out: Path, settings: Mapping[str, Any], *, joined: int
) -> PreparationReport:
    """Draw the splits, write manifest and report, and delete the images of dropped films."""
    rows = [
        (film, {"csv_row": film.csv_row, **outcome.facts})
        for film, outcome in settled
        if outcome.dropped is None
    ]
    dropped = [
        Dropped(film.csv_row, outcome.dropped, outcome.detail)
        for film, outcome in settled
        if outcome.dropped is not None
    ]
    # Given splits are kept; the patients of all other films are split by seed.
    drawn = draw_splits(
        {film.patient for film, _ in rows if film.split is None}, seed=settings["seed"]
    )
    listed = [
        ManifestRow(
            image=film.image,
            patient=film.patient,
            split=film.split or drawn[film.patient],
            study=film.study,
            sentences=film.sentences,
            facts=facts,
        )
        for film, facts in rows
    ]
    enlarged = sum(min(facts["original_size"]) < settings["size"] for _, facts in rows)
    report = summarize(listed, dropped, enlarged=enlarged, joined=joined, settings=settings)
    left_out = [astuple(row) for row in dropped]
    write_report(asdict(report), left_out, out, columns=("csv_row", "reason", "detail"))
    if not listed:
        raise ValueError(f"{out}: no film is left.\n{report.format()}")
    write_manifest(listed, out / MANIFEST_NAME)
    # Copies, and images of an earlier run whose rows are now dropped.
    wanted = {row.image for row in listed}
    for film, _ in settled:
        if film.dropped is None and film.image not in wanted:
            (out / film.image).unlink(missing_ok=True)
    return report


def _drop_contradictions(films: Iterable[Film]) -> list[Film]:
    """Drop patients in two splits, images of two patients, and repeated rows of an image."""
    films = list(films)
    splits: dict[str, set[SplitName]] = {}
    owners: dict[str, set[str]] = {}
    for film in films:
        if film.split is not None:
            splits.setdefault(film.patient, set()).add(film.split)
        if film.dropped is None:
            owners.setdefault(film.image, set()).add(film.patient)
    images: set[str] = set()
    checked = []
    for film in films:
        if film.dropped is None and len(splits.get(film.patient, ())) > 1:
            film = replace(film, dropped="patient in two splits")
        elif film.dropped is None and len(owners[film.image]) > 1:
            film = replace(film, dropped="image of two patients")
        elif film.dropped is None and film.image in images:
            film = replace(film, dropped="image listed twice")
        if film.dropped is None:
            images.add(film.image)
        checked.append(film)
    return checked


def _prepare(task: tuple[str, str, int, int]) -> _Outcome:
    """Prepare one image, unless a finished one exists already."""
    source, target, size, bits = Path(task[0]), Path(task[1]), task[2], task[3]
    if not source.is_file():
        return _Outcome("image file missing")
    stamp = source_stamp(source)
    notes = read_notes(target) if target.exists() else {}
    if notes.get("source") == stamp and "thumbnail" in notes:
        known, small = json.loads(notes["facts"]), bytes.fromhex(notes["thumbnail"])
        return _Outcome(facts=known, thumbnail=small)
    try:
        film = read_source_film(source, bits=bits)
    except UnusableFilmError as error:
        target.unlink(missing_ok=True)
        return _Outcome(f"image {error.reason}", error.detail)
    resized = resize_shorter_side(film, size)
    facts: dict[str, Any] = {"original_size": list(film.shape)}
    spacing = read_pixel_spacing_mm(source)
    if spacing is not None:
        # One scale per axis, since the sizes are rounded.
        scales = np.divide(film.shape, resized.shape)
        facts["pixel_spacing_mm"] = np.round(scales * spacing, 6).tolist()
    remarks = header_remarks(source)
    if remarks:
        facts["header"] = remarks
    small = thumbnail(resized)
    notes = {"source": stamp, "facts": json.dumps(facts), "thumbnail": small.hex()}
    write_png(resized, target, notes=notes)
    return _Outcome(facts=facts, thumbnail=small)
