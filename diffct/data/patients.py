"""Whose image a file is, as a pattern finds it in the path."""

import re
from pathlib import Path


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
