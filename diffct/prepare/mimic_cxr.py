"""MIMIC-CXR: frontal films of MIMIC-CXR-JPG 2.x and the sentences of their reports.

Both need a PhysioNet account with a signed data use agreement. The expected files, as downloaded:

    IMAGES/mimic-cxr-2.0.0-metadata.csv.gz        (or 2.1.0; .csv as well)
    IMAGES/mimic-cxr-2.0.0-split.csv.gz
    IMAGES/files/p10/p10000032/s50414267/*.jpg
    REPORTS: mimic-cxr-reports.zip, or its unpacked files/p10/p10000032/s50414267.txt

Source: Johnson et al., MIMIC-CXR-JPG, PhysioNet 2019 (arXiv:1901.07042).
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from tqdm.auto import tqdm

from diffct.data.manifest import SplitName
from diffct.prepare.films import Film, prepare_films
from diffct.prepare.radiology_reports import report_sentences
from diffct.prepare.report import PreparationReport
from diffct.prepare.tables import read_table

_SPLITS: dict[str, SplitName] = {"train": "train", "validate": "validation", "test": "test"}
_IDENTIFIERS = ("subject_id", "study_id", "dicom_id")

# Returns the report of a path such as "p10/p10000032/s50414267.txt"; None if there is none.
_ReadReport = Callable[[str], str | None]


def prepare_mimic_cxr(
    images: str | Path,
    reports: str | Path,
    out: str | Path,
    *,
    size: int = 512,
    split: Literal["official", "seeded"] = "official",
    seed: int = 0,
    workers: int = 1,
    show_progress: bool = True,
) -> PreparationReport:
    """Convert the PA films of MIMIC-CXR to images of one size and a manifest with sentences.

    Args:
        images: The folder of MIMIC-CXR-JPG.
        reports: `mimic-cxr-reports.zip`, or the folder it was unpacked to.
        out: The folder to write; see `prepare_films`.
        size: Pixels of the shorter side.
        split: The official split, or one drawn by `seed`: 80 % of the patients for training, 10 %
            each for validation and test.
        seed: Seed of the drawn split.
        workers: Number of processes.
        show_progress: Whether to show progress bars.

    Returns:
        The counts; every row of the metadata is kept or dropped for one reason.

    Raises:
        FileNotFoundError: A file or folder of the layout above is missing.
        ValueError: A table is damaged, `out` holds something else, or nothing is left.
        OSError: The disk is full.
    """
    images, out = Path(images), Path(out)
    if split not in ("official", "seeded"):
        raise ValueError(f"split is {split!r}; give official or seeded.")
    if not (images / "files").is_dir():
        raise FileNotFoundError(
            f"{images}: holds no folder 'files'. Give the folder of MIMIC-CXR-JPG, as downloaded."
        )
    metadata = read_table(_table(images, "metadata"), needed=(*_IDENTIFIERS, "ViewPosition"))
    splits = _official_splits(images) if split == "official" else None
    films = [_film(row, csv_row, images, splits) for csv_row, row in metadata.items()]
    # Sorted, so that which of several copies is kept does not depend on the order of the table.
    films = _with_sentences(
        sorted(films, key=lambda film: film.image), Path(reports), show_progress
    )
    settings = {
        "data_set": "mimic-cxr",
        "size": size,
        "split": split,
        "seed": seed if split == "seeded" else None,
        "bits": 16,
    }
    return prepare_films(
        films, out, settings=settings, workers=workers, show_progress=show_progress
    )


def _table(images: Path, kind: str) -> Path:
    """Return the path of a table of any minor version, the newest if there are several."""
    found = sorted(images.glob(f"mimic-cxr-2*-{kind}.csv*"))
    found = [path for path in found if path.name.endswith((".csv", ".csv.gz"))]
    if not found:
        raise FileNotFoundError(
            f"{images}: holds no mimic-cxr-2.0.0-{kind}.csv.gz. Download it to this folder."
        )
    return found[-1]


def _official_splits(images: Path) -> dict[tuple[str, ...], SplitName]:
    """Read the official split of every (patient, study, image)."""
    path = _table(images, "split")
    splits = {}
    for csv_row, row in read_table(path, needed=(*_IDENTIFIERS, "split")).items():
        if row["split"] not in _SPLITS:
            raise ValueError(
                f"{path}, row {csv_row}: the split is {row['split']!r}; accepted are "
                f"{', '.join(_SPLITS)}."
            )
        splits[tuple(row[name] for name in _IDENTIFIERS)] = _SPLITS[row["split"]]
    return splits


def _film(
    row: dict[str, str],
    csv_row: int,
    images: Path,
    splits: dict[tuple[str, ...], SplitName] | None,
) -> Film:
    """Convert one row of the metadata; unusable views and rows are marked as dropped."""
    identifiers = tuple(row[name] for name in _IDENTIFIERS)
    patient, study, image = identifiers
    folder = f"p{patient[:2]}/p{patient}/s{study}"
    dropped = None
    if not (patient.isdecimal() and study.isdecimal() and re.fullmatch(r"[\w.-]+", image)):
        dropped = "metadata row without its identifiers"
    elif row["ViewPosition"].upper() != "PA":
        dropped = "not a PA view"
    elif splits is not None and identifiers not in splits:
        dropped = "not in the split file"
    return Film(
        csv_row=csv_row,
        source=images / "files" / folder / f"{image}.jpg",
        image=f"images/{folder}/{image}.png",
        patient=patient,
        study=study,
        split=None if splits is None else splits.get(identifiers),
        dropped=dropped,
    )


def _with_sentences(films: list[Film], reports: Path, show_progress: bool) -> list[Film]:
    """Add the sentences of the reports, and drop films without any."""
    known: dict[str, tuple[str, ...] | None] = {}  # by report; None: there is no such report
    completed = []
    with _open_reports(reports) as read:
        for film in tqdm(films, "Reading reports", disable=not show_progress, unit="film"):
            if film.dropped is None:
                name = f"p{film.patient[:2]}/p{film.patient}/s{film.study}.txt"
                if name not in known:
                    text = read(name)
                    known[name] = None if text is None else tuple(report_sentences(text))
                sentences = known[name]
                if sentences:
                    film = replace(film, sentences=sentences)
                else:
                    why = "no report" if sentences is None else "no findings or impression"
                    film = replace(film, dropped=why)
            completed.append(film)
    return completed


@contextmanager
def _open_reports(path: Path) -> Iterator[_ReadReport]:
    """Open the reports, zipped or unpacked."""
    if (path / "mimic-cxr-reports.zip").is_file():
        path = path / "mimic-cxr-reports.zip"
    if path.is_dir():
        folder = path / "files" if (path / "files").is_dir() else path
        if not any(folder.glob("p[0-9][0-9]")):
            raise FileNotFoundError(
                f"{path}: holds no reports (files/p10/p10000032/s50414267.txt)."
            )

        def read_file(name: str) -> str | None:
            file = folder / name
            return _decode(file.read_bytes()) if file.is_file() else None

        yield read_file
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such folder or zip file of reports.")
    try:
        with zipfile.ZipFile(path) as archive:
            # The archive may hold the files below further folders.
            names = {"/".join(PurePosixPath(name).parts[-3:]): name for name in archive.namelist()}

            def read_member(name: str) -> str | None:
                return _decode(archive.read(names[name])) if name in names else None

            yield read_member
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: is damaged or cut off. Download it again.") from error


def _decode(content: bytes) -> str:
    """Decode UTF-8 or, as in some reports, a Western European encoding."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")
