"""Splits of patients into training, validation and test.

The split drawn for the same patients and seed must never change, since existing data sets and runs
were divided by it. Real patients are drawn randomly; phantoms, of which more can always be made,
are assigned by their index (`deal_split`), so that a longer cohort keeps the splits of a shorter
one.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from diffct.data.manifest import SplitName, read_manifest

HELD_OUT_SHARE = 0.1
"""Default share of the patients for validation, and as many for the test."""

# Of every ten phantoms, the ninth is for validation and the tenth for the test.
_DEALT: tuple[SplitName, ...] = ("train",) * 8 + ("validation", "test")
_MAX_NAMED = 5


def draw_splits(
    patients: Iterable[str],
    *,
    seed: int | None,
    validation: float = HELD_OUT_SHARE,
    test: float = HELD_OUT_SHARE,
    rounding: Literal["nearest", "down"] = "nearest",
) -> dict[str, SplitName]:
    """Divide patients randomly.

    Args:
        patients: Their names, in any order and number.
        seed: The same seed and patients always give the same splits.
        validation: Share of the patients; 0 for none. A share above 0 is at least one patient.
        test: Likewise.
        rounding: How a share becomes whole patients: to the "nearest" number, as for prepared data,
            or "down", as for a run on a folder of scans: 0.2 of 28 patients are 5.

    Returns:
        The split of each patient; with fewer patients than splits, "train" for all.

    Raises:
        ValueError: A share is impossible, or no patient would be left to train on.
    """
    shares: dict[SplitName, float] = {"validation": validation, "test": test}
    for split, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"The share for {split} is {share}; give a number from 0 to below 1.")
    names = sorted(set(patients))
    asked = {split: share for split, share in shares.items() if share > 0}
    if len(names) <= len(asked):
        asked = {}
    order = np.random.default_rng(seed).permutation(len(names))
    drawn: dict[str, SplitName] = dict.fromkeys(names, "train")
    first = 0
    for split, share in asked.items():
        # 0.29 of 100 is 28.999... in binary; the small number makes it 29.
        exact = share * len(names)
        number = max(1, round(exact) if rounding == "nearest" else int(exact + 1e-9))
        drawn |= {names[index]: split for index in order[first : first + number]}
        first += number
    if asked and first >= len(names):
        raise ValueError(
            f"The shares for validation ({validation}) and the test ({test}) leave none of"
            f" {len(names)} patients to train on."
        )
    return drawn


def deal_split(index: int) -> SplitName:
    """Return the split of a phantom by its index in the cohort."""
    return _DEALT[index % len(_DEALT)]


def read_split(path: str | Path) -> dict[str, SplitName]:
    """Read the split of an earlier run.

    Args:
        path: The `scans.jsonl` of a run, which is a manifest, or the `split.json` of older runs.

    Returns:
        The split of each scan by its path relative to its folder; private, since paths may name
        patients.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a split, names a scan twice, or lacks scans to train on or to hold
            out.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such split file.")
    if path.suffix == ".jsonl":
        return {row.image: row.split for row in read_manifest(path, check_files=False).rows}
    try:
        sides = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(sides, dict) or {*sides} != {"train", "validation", "seed"}:
            raise ValueError("it has other keys than train, validation and seed")
    except ValueError as error:
        raise ValueError(
            f"{path}: not a split ({error}). Give a file that diffct wrote."
        ) from error
    split: dict[str, SplitName] = {}
    twice = []
    for side in ("train", "validation"):
        keys = sides[side]
        if not isinstance(keys, list) or not keys or not all(isinstance(k, str) for k in keys):
            raise ValueError(f"{path}: train and validation must be lists of scans, not empty.")
        for key in keys:
            if key in split:
                twice.append(key)
            split[key] = side
    if twice:
        raise ValueError(f"{path}: names scans twice: {_some(sorted(twice))}.")
    return split


def check_split(split: Mapping[str, SplitName], scan_keys: Iterable[str]) -> None:
    """Check that a split contains exactly the given scans.

    Args:
        split: As returned by `read_split`.
        scan_keys: Keys of the scans found.

    Raises:
        ValueError: The split names scans that are missing, or lacks some; up to five are named.
    """
    known, found = {*split}, {*scan_keys}
    problems = []
    if known - found:
        problems.append(f"missing in the folder: {_some(sorted(known - found))}")
    if found - known:
        problems.append(f"not in the split: {_some(sorted(found - known))}")
    if problems:
        raise ValueError(
            f"The split does not fit the scans; {'; '.join(problems)}. "
            "Give the folder that the split was made for, or make a new split."
        )


def check_patients_apart(split: Mapping[str, SplitName], patients: Mapping[str, str]) -> None:
    """Check that no patient is both trained on and held out.

    Args:
        split: The split of each scan.
        patients: The patient of each of its scans.

    Raises:
        ValueError: A patient is on both sides; up to five of the held-out scans are named.
    """
    trained_on = {patients[key] for key, side in split.items() if side == "train"}
    leaks = [key for key, side in split.items() if side != "train" and patients[key] in trained_on]
    if leaks:
        raise ValueError(
            f"Held-out scans are of patients that are trained on: {_some(sorted(leaks))}."
            " Make a new split."
        )


def _some(keys: list[str]) -> str:
    """Return the first few keys and the number of the others."""
    more = len(keys) - _MAX_NAMED
    return ", ".join(keys[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
