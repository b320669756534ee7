"""Folders of synthetic cohorts, which are never mixed with other files or made twice."""

import json
from pathlib import Path
from typing import Any

COHORT_FILE = "cohort.json"


def holds_cohort(folder: Path, parameters: dict[str, Any]) -> bool:
    """Return whether a folder holds exactly a certain cohort.

    Args:
        folder: The folder, which need not exist.
        parameters: The parameters of the cohort as JSON values; `kind` names its generator.

    Returns:
        False if the folder is missing or empty, or holds a cohort of the same kind with other
        parameters.

    Raises:
        ValueError: The folder holds other files, which must not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / COHORT_FILE).read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("kind") != parameters["kind"]:
        raise ValueError(f"{folder}: holds other files. Give a new or empty folder.")
    return found == parameters


def record_cohort(folder: Path, parameters: dict[str, Any]) -> None:
    """Write the parameters of the cohort in a folder, as the last step of making it."""
    (folder / COHORT_FILE).write_text(json.dumps(parameters, indent=2) + "\n")
