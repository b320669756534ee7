"""Pairs of brain scans, found in BIDS trees, in BraTS folders, or by patterns.

No scan is opened here; scans that cannot be paired are listed with the reason.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffct.imaging.formats import NIFTI_ENDINGS
from diffct.prepare.brain.pairs import (
    LABELS,
    TARGET,
    UNCLEAR_LABELS,
    FoundPairs,
    ScanPair,
    check_conditions,
    check_folder,
    make_pair,
    sort_pairs,
)
from diffct.prepare.brain.wildcards import find_by_wildcards

# The files of a visit by contrast; missing contrasts are left out.
_Files = dict[str, list[Path]]

_BIDS_LABELS = "dseg"
_BRATS_CONTRASTS = {
    **{"_t1": TARGET, "_flair": "FLAIR", "_t2": "T2w", "_t1ce": "T1ce", "_seg": LABELS},
    **{"-t1n": TARGET, "-t2f": "FLAIR", "-t2w": "T2w", "-t1c": "T1ce", "-seg": LABELS},
}
# Since 2023 a case is a visit: BraTS-GLI-00005-100 is patient BraTS-GLI-00005.
_BRATS_VISIT = re.compile(r"(?P<subject>BraTS-.+)-(?P<session>\d{3})")


def find_bids(folder: str | Path, conditions: Sequence[str] = ("FLAIR",)) -> FoundPairs:
    """Find the pairs of a BIDS tree: `sub-*/[ses-*/]anat/*_T1w.nii.gz` and the like.

    Within a visit, images with the same entities are paired, otherwise those of the same run; if
    there is only one image of each contrast, they are paired regardless of entities.

    Args:
        folder: The root of the tree.
        conditions: BIDS suffixes, e.g. "FLAIR", "T2w".

    Returns:
        The pairs, one for each T1w and for each visit without one. `*_dseg` files are their labels.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no subject with a folder `anat`, or a condition's name is not valid.
    """
    folder = check_folder(folder)
    conditions = check_conditions(conditions)
    visits = {path.parent for path in folder.glob("sub-*/anat") if path.is_dir()}
    visits |= {path.parent for path in folder.glob("sub-*/ses-*/anat") if path.is_dir()}
    if not visits:
        raise ValueError(
            f"{folder}: holds no sub-*/anat and no sub-*/ses-*/anat. Give the root of a BIDS tree."
        )
    pairs = [pair for visit in visits for pair in _pairs_of_visit(visit, conditions)]
    return FoundPairs("bids", conditions, sort_pairs(pairs), _is_synthetic(folder))


def find_brats(folder: str | Path, conditions: Sequence[str] = ("FLAIR",)) -> FoundPairs:
    """Find the pairs of BraTS in a folder, at any depth.

    Args:
        folder: Holds files like `CASE_t1.nii.gz` (2018 to 2021) or `CASE-t1n.nii.gz` (since 2023).
        conditions: "FLAIR", "T2w" or "T1ce".

    Returns:
        The pairs, one for each case. `seg` files are their labels.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no such files, or BraTS has no such condition.
    """
    folder = check_folder(folder)
    conditions = check_conditions(conditions)
    known = sorted(set(_BRATS_CONTRASTS.values()) - {TARGET, LABELS})
    for name in conditions:
        if name not in known:
            raise ValueError(f"BraTS has no {name!r}; its conditions are {', '.join(known)}.")
    cases: dict[str, _Files] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            case, contrast = _read_brats_name(name)
            if contrast is not None:
                cases.setdefault(case, {}).setdefault(contrast, []).append(Path(parent, name))
    if not cases:
        raise ValueError(f"{folder}: holds no *_t1.nii.gz and no *-t1n.nii.gz, as BraTS does.")
    pairs = []
    for case, files in cases.items():
        visit = _BRATS_VISIT.fullmatch(case)
        subject, session = visit.group("subject", "session") if visit else (case, "")
        pairs.append(make_pair(subject, session, files, conditions))
    return FoundPairs("brats", conditions, sort_pairs(pairs))


def find_by_patterns(target: str, conditions: Mapping[str, str]) -> FoundPairs:
    """Find pairs by patterns, e.g. "DATA/*/T1.nii.gz" and "DATA/*/FLAIR.nii.gz".

    Files are paired if the wildcards `*`, `?` and `[...]` match the same texts in all patterns. The
    first of these texts is the subject, the others are the session.

    Args:
        target: The pattern of the T1w.
        conditions: The pattern of each condition by name, e.g. "FLAIR".

    Returns:
        The pairs.

    Raises:
        FileNotFoundError: The target's pattern finds nothing.
        ValueError: The patterns have different numbers of wildcards or none, or find the same file.
    """
    names = check_conditions(conditions)
    patterns = {TARGET: target, **conditions}
    found = {name: find_by_wildcards(pattern) for name, pattern in patterns.items()}
    for name, matches in found.items():
        if matches.wildcards != found[TARGET].wildcards:
            raise ValueError(
                f"The pattern of {name} has {matches.wildcards} wildcard(s) and that of the target "
                f"{found[TARGET].wildcards}. Files are paired by what their wildcards match, "
                "so give all patterns the same number."
            )
    if not found[TARGET].files:
        raise FileNotFoundError(f"{target}: there is no such file.")
    visits: dict[tuple[str, ...], _Files] = {}
    owners: dict[Path, str] = {}
    for name, matches in found.items():
        for texts, path in matches.files.items():
            owner = owners.setdefault(path, name)
            if owner != name:
                raise ValueError(f"{path}: is found by the patterns of both {owner} and {name}.")
            visits.setdefault(texts, {})[name] = [path]
    pairs = [
        make_pair(subject, "/".join(session), files, names)
        for (subject, *session), files in visits.items()
    ]
    return FoundPairs("patterns", names, sort_pairs(pairs))


def _pairs_of_visit(visit: Path, conditions: Sequence[str]) -> list[ScanPair]:
    """Pair the images of one BIDS subject and session."""
    in_session = visit.name.startswith("ses-")
    subject = (visit.parent if in_session else visit).name.removeprefix("sub-")
    session = visit.name.removeprefix("ses-") if in_session else ""
    files: _Files = {}
    for path in sorted((visit / "anat").iterdir()):
        stem = _without_ending(path.name)
        if stem is not None:
            files.setdefault(stem.rpartition("_")[2], []).append(path)
    files[LABELS] = files.pop(_BIDS_LABELS, [])
    targets = files.get(TARGET, [])
    if not targets:
        return [make_pair(subject, session, {}, conditions)]
    matched = {name: _match(targets, files.get(name, [])) for name in (*conditions, LABELS)}
    pairs = []
    for target in targets:
        own = {name: found[target] for name, found in matched.items()}
        scan = _scan_name(target) if len(targets) > 1 else ""
        unclear = [name for name in conditions if own[name] is None]
        if unclear:
            reason = f"not clear which {TARGET} and {unclear[0]} belong together"
            pairs.append(ScanPair(subject, session, scan, dropped=reason))
            continue
        known = {name: paths or [] for name, paths in own.items()} | {TARGET: [target]}
        pair = make_pair(subject, session, known, conditions, scan=scan)
        pairs.append(replace(pair, remarks=(UNCLEAR_LABELS,)) if own[LABELS] is None else pair)
    return pairs


def _match(targets: Sequence[Path], candidates: Sequence[Path]) -> dict[Path, list[Path] | None]:
    """Assign an image to each target of a visit: by equal entities, otherwise by equal run.

    Returns:
        For each target a list with its image, an empty list if there is none, or None if it is
        ambiguous.
    """
    if len(targets) == len(candidates) == 1:
        return {targets[0]: list(candidates)}
    matched: dict[Path, list[Path] | None] = {}
    left = list(candidates)
    for read in (_entities, _run):
        free = [target for target in targets if target not in matched]
        for target in free:
            fitting = [path for path in left if read(path) == read(target)]
            rivals = [path for path in free if read(path) == read(target)]
            # Only unambiguous images: one candidate for one target.
            if len(fitting) == len(rivals) == 1:
                matched[target] = fitting
        left = [path for path in left if [path] not in matched.values()]
    # An unpaired image could belong to any target without an image, so these are ambiguous.
    return {target: matched.get(target, None if left else []) for target in targets}


def _entities(path: Path) -> frozenset[str]:
    """Return the entities of a BIDS name, such as run-1 and acq-mprage."""
    return frozenset((_without_ending(path.name) or "").split("_")[:-1])


def _run(path: Path) -> str:
    """Return the run of a BIDS name, "" if it has none."""
    return next((entity for entity in _entities(path) if entity.startswith("run-")), "")


def _scan_name(path: Path) -> str:
    """Return the entities of a BIDS name other than subject and session."""
    return "_".join(e for e in sorted(_entities(path)) if not e.startswith(("sub-", "ses-")))


def _read_brats_name(name: str) -> tuple[str, str | None]:
    """Split the name of a BraTS file into case and contrast; None as contrast of other files."""
    stem = _without_ending(name)
    for ending, contrast in _BRATS_CONTRASTS.items():
        if stem is not None and stem.endswith(ending):
            return stem.removesuffix(ending), contrast
    return "", None


def _without_ending(name: str) -> str | None:
    """Remove .nii or .nii.gz from a name; None if it has neither or is hidden."""
    if name.startswith("."):
        return None
    return next((name[: -len(e)] for e in NIFTI_ENDINGS if name.lower().endswith(e)), None)


def _is_synthetic(folder: Path) -> bool:
    """Return whether the description of a BIDS tree marks it as synthetic, as diffct's does."""
    path = folder / "dataset_description.json"
    if not path.is_file():
        return False
    try:
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON in UTF-8. Correct it or move it away.") from error
    return isinstance(described, dict) and described.get("Synthetic") is True
