"""Who is trained on and who is held out: by patient, by seed, and kept in a file.

A split holds the keys of scans (their paths relative to the data folder). Paths may name patients,
so a split file is as private as the scans.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from diffct.atomic import atomic_file

_NAMED_AT_MOST = 5


@dataclass
class Split:
    """The scans trained on and those held out.

    Attributes:
        train: Keys of the training scans, sorted.
        validation: Keys of the held-out scans, sorted.
        seed: The seed that shuffled the patients.
    """

    train: list[str]
    validation: list[str]
    seed: int


def make_split(patients: Mapping[str, str], *, validation_fraction: float, seed: int) -> Split:
    """Hold out a fraction of the patients with all their scans.

    Args:
        patients: The patient of each scan.
        validation_fraction: Share of the patients to hold out, between 0 and 1. Rounded down to
            whole patients, but at least one: 0.2 of 28 patients are 5.
        seed: The same seed and scans always give the same split.

    Returns:
        The split.

    Raises:
        ValueError: There are fewer than two patients, or nobody would be left to train on.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(
            f"validation_fraction is {validation_fraction}; give a number between 0 and 1."
        )
    names = sorted(set(patients.values()))
    if len(names) < 2:
        raise ValueError(
            f"The {len(patients)} scan(s) are of {len(names)} patient(s); a split needs at least "
            "two. Add scans, or check patient_pattern."
        )
    # 0.29 of 100 is 28.999... in binary; the small number keeps it at 29.
    held_out = max(1, int(validation_fraction * len(names) + 1e-9))
    if held_out == len(names):
        raise ValueError(f"validation_fraction {validation_fraction} leaves nobody to train on.")
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = {names[index] for index in order[:held_out]}
    return Split(
        train=sorted(key for key, name in patients.items() if name not in chosen),
        validation=sorted(key for key, name in patients.items() if name in chosen),
        seed=seed,
    )


def save_split(split: Split, path: str | Path) -> None:
    """Write a split as JSON, whole or not at all.

    Args:
        split: The split.
        path: The file to write.
    """
    with atomic_file(Path(path)) as partial:
        partial.write_text(json.dumps(asdict(split), indent=2) + "\n", encoding="utf-8")


def load_split(path: str | Path) -> Split:
    """Read a split written by `save_split`.

    Args:
        path: The JSON file.

    Returns:
        The split.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a split, or names a scan twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such split file.")
    try:
        split = Split(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: not a split ({error}). Give a file that diffct wrote."
        ) from error
    for keys in (split.train, split.validation):
        if not isinstance(keys, list) or not keys or not all(isinstance(k, str) for k in keys):
            raise ValueError(f"{path}: train and validation must be lists of scans, not empty.")
    keys = split.train + split.validation
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{path}: names scans twice: {_some(twice)}.")
    return split


def check_split(split: Split, scan_keys: Iterable[str]) -> None:
    """Make sure that a split speaks of exactly the scans at hand.

    Args:
        split: The split.
        scan_keys: Keys of the scans found.

    Raises:
        ValueError: The split names scans that are missing, or lacks some; up to five are named.
    """
    known, found = {*split.train, *split.validation}, set(scan_keys)
    problems = []
    if known - found:
        problems.append(f"missing in the folder: {_some(sorted(known - found))}")
    if found - known:
        problems.append(f"not in the split: {_some(sorted(found - known))}")
    if problems:
        raise ValueError(
            f"The split does not fit the scans; {'; '.join(problems)}. "
            "Give the folder that the split was made of, or make a new split."
        )


def check_patients_apart(split: Split, patients: Mapping[str, str]) -> None:
    """Make sure that nobody is both trained on and held out.

    Args:
        split: The split.
        patients: The patient of each of its scans.

    Raises:
        ValueError: A patient is on both sides; up to five of the held-out scans are named.
    """
    trained_on = {patients[key] for key in split.train}
    leaks = [key for key in split.validation if patients[key] in trained_on]
    if leaks:
        raise ValueError(
            f"Held-out scans are of patients that are trained on: {_some(leaks)}. Make a new split."
        )


def _some(keys: list[str]) -> str:
    """Name the first few keys and count the others."""
    more = len(keys) - _NAMED_AT_MOST
    return ", ".join(keys[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
