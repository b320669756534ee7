"""The manifest of a data set: its images with their patients, splits, reports and facts.

A manifest is a JSON Lines file, conventionally `manifest.jsonl` beside the folder of its images,
with one object per line: `{"image": "images/0.png", "patient": "a", "split": "train", "study": "1",
"sentences": ["No effusion."], "facts": {}}`. The first three keys are required. Names of patients
and files may be private, so messages give line numbers instead.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from diffct.atomic import atomic_file
from diffct.imaging.missing_values import is_missing, is_no_sentence

MANIFEST_NAME = "manifest.jsonl"
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

_MAX_NAMED = 5


@dataclass(frozen=True)
class ManifestRow:
    """One image.

    Args:
        image: Its path relative to the manifest's folder, with forward slashes.
        patient: Its patient, who is never in two splits.
        split: "train", "validation" or "test".
        study: The examination that it belongs to; a study may have several images.
        sentences: The sentences of its report.
        facts: Further properties of it, as JSON values.
    """

    image: str
    patient: str
    split: SplitName
    study: str = ""
    sentences: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest and the folder of its images.

    Args:
        folder: The folder that the rows' image paths are relative to.
        rows: The rows in the order of the file.
    """

    folder: Path
    rows: tuple[ManifestRow, ...]

    def split(self, name: SplitName) -> list[ManifestRow]:
        """Return the rows of one split, in the order of the file.

        Args:
            name: "train", "validation" or "test".

        Returns:
            The rows; an empty list if the split has none.

        Raises:
            ValueError: There is no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"There is no split {name!r}; the splits are {', '.join(SPLITS)}.")
        return [row for row in self.rows if row.split == name]

    def path(self, row: ManifestRow) -> Path:
        """Return the path of a row's image."""
        return self.folder / row.image


def read_manifest(
    path: str | Path, *, folder: str | Path | None = None, check_files: bool = True
) -> Manifest:
    """Read and check a manifest.

    Args:
        path: The file, or the folder that holds `manifest.jsonl`.
        folder: The folder that the image paths are relative to; None for the folder of the file.
        check_files: Whether every image must exist.

    Returns:
        The manifest, with at least one row.

    Raises:
        FileNotFoundError: There is no such manifest, or images are missing.
        ValueError: A line is not a row, an image is listed twice, a patient is in two splits, or
            there is no row.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such manifest. Make it with diffct prepare.")
    numbered: dict[int, ManifestRow] = {}
    # Only \n ends a line of JSON Lines; str.splitlines would also cut inside a sentence.
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            numbered[number] = _parse(line, f"{path}, line {number}")
    _check(numbered, path)
    manifest = Manifest(Path(folder or path.parent), tuple(numbered.values()))
    if check_files:
        absent = [n for n, row in numbered.items() if not manifest.path(row).exists()]
        if absent:
            raise FileNotFoundError(
                f"{path}: {len(absent)} of {len(numbered)} images are missing "
                f"({_lines(absent)}). Put the images beside the manifest, or prepare them again."
            )
    return manifest


def write_manifest(rows: Iterable[ManifestRow], path: str | Path) -> None:
    """Write a manifest, atomically.

    Args:
        rows: At least one.
        path: The file to write; an existing one is replaced.

    Raises:
        ValueError: An image is listed twice, a patient is in two splits, or there is no row.
        OSError: The disk is full.
    """
    path = Path(path)
    numbered = dict(enumerate(rows, 1))
    _check(numbered, path)
    lines = (
        json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) for row in numbered.values()
    )
    with atomic_file(path) as partial, partial.open("wb") as stream:
        for line in lines:
            # Bytes that are not UTF-8, as in file names of other encodings, become JSON's \udcff.
            stream.write(f"{line}\n".encode("utf-8", "backslashreplace"))


def _parse(line: bytes, where: str) -> ManifestRow:
    """Parse a line as a row."""
    try:
        values = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{where}: is not JSON in UTF-8. Prepare the data set again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{where}: is not a JSON object ({{...}}).")
    unknown = sorted(set(values) - {entry.name for entry in fields(ManifestRow)})
    if unknown:
        raise ValueError(f"{where}: has the unknown key {unknown[0]!r}. Put it into 'facts'.")
    for key in ("image", "patient", "split"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise ValueError(f"{where}: lacks the key {key!r}, or it is not a text.")
    if is_missing(values["patient"]):
        raise ValueError(
            f"{where}: the patient is {values['patient']!r}, which means no value. Name the "
            "patient, or leave the line out."
        )
    if values["split"] not in SPLITS:
        raise ValueError(
            f"{where}: the split is {values['split']!r}; it must be one of {', '.join(SPLITS)}."
        )
    sentences = values.get("sentences", [])
    if not isinstance(sentences, list) or not all(isinstance(text, str) for text in sentences):
        raise ValueError(f"{where}: 'sentences' is not a list of texts.")
    empty = [text for text in sentences if is_no_sentence(text)]
    if empty:
        raise ValueError(f"{where}: the sentence {empty[0]!r} says nothing. Leave it out.")
    if not isinstance(values.get("study", ""), str) or not isinstance(
        values.get("facts", {}), dict
    ):
        raise ValueError(f"{where}: 'study' must be a text and 'facts' an object.")
    return ManifestRow(**(values | {"sentences": tuple(sentences)}))


def _check(rows: Mapping[int, ManifestRow], path: Path) -> None:
    """Refuse rows, given by line number, that contradict each other."""
    if not rows:
        raise ValueError(f"{path}: the manifest lists no image.")
    images: dict[str, int] = {}
    patients: dict[str, int] = {}
    apart: dict[str, int] = {}
    for number, row in rows.items():
        first = images.setdefault(row.image, number)
        if first != number:
            raise ValueError(f"{path}: lines {first} and {number} name the same image.")
        if rows[patients.setdefault(row.patient, number)].split != row.split:
            apart.setdefault(row.patient, number)
    if apart:
        pairs = [f"{patients[name]} and {number}" for name, number in apart.items()]
        raise ValueError(
            f"{path}: {len(apart)} patient(s) are in two splits (lines "
            f"{'; '.join(pairs[:_MAX_NAMED])}{'; ...' if len(pairs) > _MAX_NAMED else ''}). "
            "Give all images of a patient the same split."
        )


def _lines(numbers: list[int]) -> str:
    """Name the first few lines."""
    more = ", ..." if len(numbers) > _MAX_NAMED else ""
    return "lines " + ", ".join(map(str, numbers[:_MAX_NAMED])) + more
