"""Preparation of any folder of frontal radiographs with a CSV table of patients and reports."""

import hashlib
from pathlib import Path, PurePosixPath

from diffct.data.manifest import SplitName
from diffct.prepare.films import Film, prepare_films
from diffct.prepare.radiology_reports import report_sentences, split_sentences
from diffct.prepare.report import PreparationReport
from diffct.prepare.tables import read_table

_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "validate": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


def prepare_radiographs(
    images: str | Path,
    table: str | Path,
    out: str | Path,
    *,
    size: int = 512,
    seed: int = 0,
    bits: int = 16,
    one_patient_per_image: bool = False,
    workers: int = 1,
    show_progress: bool = True,
) -> PreparationReport:
    """Convert any radiographs (PNG, JPEG, TIFF, DICOM) to images of one size and a manifest.

    The images are named by a hash, since file names may contain names of patients. Of several rows
    that show the same image the first is kept, and their patients count as one (`prepare_films`).

    Args:
        images: The folder of the images.
        table: CSV in UTF-8 with the columns `image` (path in the folder), `text` (a report with
            headings, of which Findings and Impression are used, or plain sentences), and optionally
            `patient`, `study` and `split` (train, validation or test). Cells such as `nan`, `N/A`
            and `None` count as empty (`is_missing`).
        out: The folder to write; see `prepare_films`.
        size: Pixels of the shorter side.
        seed: Seed of the split by patient (80, 10 and 10 %) when the table has none.
        bits: Number of bits that 16-bit PNG and TIFF files use.
        one_patient_per_image: States that no two images are of one person; the column `patient` is
            then not needed.
        workers: Number of processes.
        show_progress: Whether to show a progress bar.

    Returns:
        The counts; every row of the table is kept or dropped for one reason.

    Raises:
        FileNotFoundError: The folder or the table is missing.
        ValueError: The table is damaged, lacks a column or has a row of another length, a setting
            is wrong, `out` holds something else, or nothing is left.
        OSError: The disk is full.
    """
    images, table = Path(images), Path(table)
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: there is no such folder.")
    if not 8 <= bits <= 16:
        raise ValueError(f"bits is {bits}; 16-bit files use 8 to 16 bits.")
    rows = read_table(table, needed=("image", "text"), optional=("patient", "study", "split"))
    columns = next(iter(rows.values())).keys()
    if "patient" in columns and one_patient_per_image:
        raise ValueError(f"{table}: has a column 'patient'; leave out one_patient_per_image.")
    if "patient" not in columns and not one_patient_per_image:
        raise ValueError(
            f"{table}: lacks the column 'patient', without which one person could be in two "
            "splits. Add it; if no two images are of one person, pass --one-patient-per-image."
        )
    films = [_film(row, f"{table}, row {n}", n, images) for n, row in rows.items()]
    given = "split" in columns
    settings = {
        "data_set": "radiographs",
        "size": size,
        "split": "given" if given else "seeded",
        "seed": None if given else seed,
        "bits": bits,
        "one_patient_per_image": one_patient_per_image,
    }
    return prepare_films(
        films, Path(out), settings=settings, workers=workers, show_progress=show_progress
    )


def _film(row: dict[str, str], where: str, csv_row: int, images: Path) -> Film:
    """Convert one row of the table; rows without the needed cells are marked as dropped."""
    split = row.get("split")
    if split and split.lower() not in _SPLITS:
        raise ValueError(f"{where}: the split is {split!r}; accepted are {', '.join(_SPLITS)}.")
    # Tables written on Windows separate folders by backslashes.
    image = PurePosixPath(row["image"].replace("\\", "/"))
    name = hashlib.sha256(str(image).encode()).hexdigest()[:16]
    # A text without headings is taken as plain sentences.
    sentences = report_sentences(row["text"]) or split_sentences(row["text"])
    dropped = None
    if not row["image"]:
        dropped = "no image named"
    elif not row.get("patient", "-"):
        dropped = "no patient named"
    elif split == "":
        dropped = "no split named"
    elif not sentences:
        dropped = "no text"
    return Film(
        csv_row=csv_row,
        source=images / image,
        image=f"images/{name}.png",
        patient=row.get("patient") or name,
        study=row.get("study", ""),
        split=_SPLITS[split.lower()] if split else None,
        sentences=tuple(sentences),
        dropped=dropped,
    )
