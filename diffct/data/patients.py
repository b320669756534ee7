"""Who is who among images: whose each one is."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from diffct.imaging import dicom
from diffct.imaging.missing_values import is_missing

Key = TypeVar("Key", bound=Hashable)

_NAMED_AT_MOST = 3
# A few scans of one person are a course of treatment; most scans of a folder are not.
_SUSPICIOUS_SCANS = 3
_SUSPICIOUS_SHARE = 0.5
PATTERN_SETTING = "data.patient_pattern"
"""What training calls the pattern that names patients by their paths."""


def patient_in_path(key: str, path: Path, pattern: str, *, setting: str) -> str:
    """Tell a patient by the path of an image.

    Args:
        key: The path relative to the folder, with slashes.
        path: The whole path, for the message.
        pattern: A regular expression with one group, searched in `key`.
        setting: What the user calls the pattern, for the message.

    Raises:
        ValueError: The pattern is no regular expression with one group, or it finds no patient.
    """
    try:
        match, groups = re.search(pattern, key), re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{setting} {pattern!r} is no regular expression: {error}.") from error
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
        pattern: Regular expression with one group, searched in the keys; None for the DICOM
            PatientID, hashed, or for a patient of its own for each file without one.
        setting: What the user calls the pattern, for messages.

    Returns:
        The patient of each key, the key itself for a scan that does not name its patient.

    Raises:
        ValueError: The pattern finds no patient in a path.
    """
    if pattern is None:
        names = {key: dicom.patient_key(path) or key for key, path in scans.items()}
    else:
        names = {
            key: patient_in_path(key, path, pattern, setting=setting) for key, path in scans.items()
        }
    # A folder may be called "none"; in a manifest the word alone would stand for no patient.
    return {key: f"./{name}" if is_missing(name) else name for key, name in names.items()}


def check_two_patients(patients: Mapping[str, str], *, pattern: str | None, folder: Path) -> None:
    """Refuse a cohort of one patient, which cannot be divided, and say why it is one.

    Args:
        patients: As returned by `name_patients`.
        pattern: The pattern that named them.
        folder: Where the scans lie.

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
        f"{folder}: {cause}, so there is one patient, but to hold one out takes two. {way_out}"
    )


def shared_patient_note(
    patients: Mapping[str, str], *, setting: str = PATTERN_SETTING
) -> str | None:
    """Say so if one PatientID stands for most scans of a folder, as anonymisers leave it."""
    identified = [name for key, name in patients.items() if name != key]
    if not identified:
        return None
    ((_, number),) = Counter(identified).most_common(1)
    if number < _SUSPICIOUS_SCANS or number <= _SUSPICIOUS_SHARE * len(identified):
        return None
    return (
        f"{number} of {len(identified)} scans have the same PatientID and count as one patient. "
        + _name_by_path(setting)
    )


def _name_by_path(setting: str) -> str:
    """Say how patients are named by the paths of their scans."""
    pattern = "^([^/]+)"
    words = f'{setting} "{pattern}"' if setting.startswith("--") else f'"{setting}={pattern}"'
    return (
        f"If they are of different people, name these by the paths, e.g. {words} where each has a"
        " folder."
    )


def join_patients(patients: Mapping[Key, str], copies: Iterable[Sequence[Key]]) -> dict[Key, str]:
    """Make one patient of those who share an image, with all their other images.

    Args:
        patients: The patient of each image.
        copies: Groups of images that are the same.

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


def copies_note(left_out: Mapping[str, str]) -> str | None:
    """Say which scans are left out as copies.

    Args:
        left_out: For each of them, the scan that is read in its place.
    """
    if not left_out:
        return None
    named = [f"{copy} (= {kept})" for copy, kept in list(left_out.items())[:_NAMED_AT_MOST]]
    more = ", ..." if len(left_out) > _NAMED_AT_MOST else ""
    return (
        f"left out: {len(left_out)} × copy, the same voxels under another name, so one patient"
        f" ({', '.join(named)}{more})"
    )
