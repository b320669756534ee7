"""The patients of images: named by path or PatientID, and joined when they share images."""

import re
from collections import Counter
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from diffct.imaging import dicom
from diffct.imaging.missing_values import is_missing

Key = TypeVar("Key", bound=Hashable)

_MAX_NAMED = 3
# A few scans of one person may be follow-ups; most scans of a folder being of one person are not.
_MIN_SUSPICIOUS_SCANS = 3
_MAX_PLAUSIBLE_SHARE = 0.5
PATTERN_SETTING = "data.patient_pattern"
"""The setting of training for the pattern that names patients by their paths."""


def patient_in_path(key: str, path: Path, pattern: str, *, setting: str) -> str:
    """Return the patient in the path of an image.

    Args:
        key: The path relative to the folder, with slashes.
        path: The whole path, for the message.
        pattern: A regular expression with one group, searched in `key`.
        setting: The user's name of the pattern, for the message.

    Raises:
        ValueError: The pattern is not a regular expression with one group, or finds no patient.
    """
    try:
        match, groups = re.search(pattern, key), re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{setting} {pattern!r} is not a regular expression: {error}.") from error
    if groups != 1 or match is None or not match[1]:
        raise ValueError(
            f"{path}: {setting} {pattern!r} finds no patient in {key!r}. Give a "
            "regular expression whose one (group) matches the patient's part of every path."
        )
    return match[1]


def name_patients(
    scans: Mapping[str, Path], pattern: str | None, *, setting: str = PATTERN_SETTING
) -> dict[str, str]:
    """Name the patient of each scan.

    Args:
        scans: Paths by key; a key is the path relative to the data folder.
        pattern: Regular expression with one group, searched in the keys; None for the hashed DICOM
            PatientID, where each file without one is a patient of its own.
        setting: The user's name of the pattern, for messages.

    Returns:
        The patient of each key; the key itself for a scan that does not name its patient.

    Raises:
        ValueError: The pattern finds no patient in a path.
    """
    if pattern is None:
        names = {key: dicom.patient_key(path) or key for key, path in scans.items()}
    else:
        names = {
            key: patient_in_path(key, path, pattern, setting=setting) for key, path in scans.items()
        }
    # A folder may be called "none"; in a manifest, the word alone would mean a missing patient.
    return {key: f"./{name}" if is_missing(name) else name for key, name in names.items()}


def check_two_patients(patients: Mapping[str, str], *, pattern: str | None, folder: Path) -> None:
    """Refuse a cohort of one patient, which cannot be divided, with the reason.

    Args:
        patients: As returned by `name_patients`.
        pattern: The pattern that named them.
        folder: The folder of the scans.

    Raises:
        ValueError: All scans are of one patient.
    """
    if len(set(patients.values())) > 1:
        return
    if len(patients) == 1:
        cause, way_out = "holds 1 scan", "Add scans of other patients."
    elif pattern is not None:
        cause = f"{PATTERN_SETTING} {pattern!r} finds the same patient in {len(patients)} paths"
        way_out = "Give a regular expression whose (group) differs from patient to patient."
    else:
        cause = f"its {len(patients)} scans all have the same PatientID, as anonymisers leave it"
        way_out = _name_by_path(PATTERN_SETTING)
    raise ValueError(
        f"{folder}: {cause}, so there is one patient, but holding one out needs two. {way_out}"
    )


def shared_patient_note(
    patients: Mapping[str, str], *, setting: str = PATTERN_SETTING
) -> str | None:
    """Return a note if most scans of a folder have one PatientID, as anonymisers leave it."""
    identified = [name for key, name in patients.items() if name != key]
    if not identified:
        return None
    ((_, number),) = Counter(identified).most_common(1)
    if number < _MIN_SUSPICIOUS_SCANS or number <= _MAX_PLAUSIBLE_SHARE * len(identified):
        return None
    return (
        f"{number} of {len(identified)} scans have the same PatientID and count as one patient. "
        + _name_by_path(setting)
    )


def _name_by_path(setting: str) -> str:
    """Return a sentence on how to name patients by the paths of their scans."""
    pattern = "^([^/]+)"
    words = f'{setting} "{pattern}"' if setting.startswith("--") else f'"{setting}={pattern}"'
    return (
        f"If they are of different people, name the patients by path, e.g. {words} if each has a"
        " folder."
    )


def join_patients(patients: Mapping[Key, str], copies: Iterable[Sequence[Key]]) -> dict[Key, str]:
    """Merge the patients who share an image into one, with all their images.

    Args:
        patients: The patient of each image.
        copies: Groups of identical images.

    Returns:
        The patient of each image.
    """
    joined: dict[str, str] = {}

    def first_name(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    for group in copies:
        for key in group[1:]:
            one, other = first_name(patients[group[0]]), first_name(patients[key])
            if one != other:
                joined[other] = one
    return {key: first_name(name) for key, name in patients.items()}


def number_patients(patients: Mapping[Key, str], *, keep: Container[str]) -> dict[Key, str]:
    """Replace names that come from identifiers by numbers, so that a file may hold them.

    The hash of a PatientID can be found again by anyone with a list of identifiers.

    Args:
        patients: The patient of each image.
        keep: Names that are no identifiers, such as paths inside the data folder.

    Returns:
        The patient of each image, numbered in the order of the images.
    """
    numbers: dict[str, str] = {}
    return {
        key: name if name in keep else numbers.setdefault(name, f"patient-{len(numbers) + 1}")
        for key, name in patients.items()
    }


def copies_note(left_out: Mapping[str, str]) -> str | None:
    """Return a note on the scans that are left out as copies; None if there are none.

    Args:
        left_out: For each copy, the scan that is read instead.
    """
    if not left_out:
        return None
    named = [f"{copy} (= {kept})" for copy, kept in list(left_out.items())[:_MAX_NAMED]]
    more = ", ..." if len(left_out) > _MAX_NAMED else ""
    return (
        f"left out: {len(left_out)} × copy, the same voxels under another name, so one patient"
        f" ({', '.join(named)}{more})"
    )
