"""Pairs of scans: a T1w and the images of the same visit from which it is to be predicted."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

TARGET = "T1w"
LABELS = "labels"
UNCLEAR_LABELS = "labels left out: several files"
Layout = Literal["bids", "brats", "patterns"]


@dataclass(frozen=True)
class ScanPair:
    """The scans of one visit.

    Attributes:
        subject: Identifier of the subject.
        session: Identifier of the visit; "" if there is only one.
        scan: Name that distinguishes several pairs of a visit, e.g. "run-2"; otherwise "".
        target: The file of the T1w; None only if the pair is dropped.
        conditions: The file of each requested condition; None where there is none.
        segmentation: File with labels of the T1w's voxels, if any.
        dropped: Why the pair is left out, if that is known before its files are opened.
        remarks: Noteworthy facts of a kept pair, to be counted.
    """

    subject: str
    session: str
    scan: str = ""
    target: Path | None = None
    conditions: Mapping[str, Path | None] = field(default_factory=dict)
    segmentation: Path | None = None
    dropped: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A file name that does not identify the subject: 16 hexadecimal digits."""
        name = "/".join((self.subject, self.session, self.scan))
        return hashlib.sha256(name.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FoundPairs:
    """The pairs of a data set.

    Attributes:
        layout: How they were found.
        conditions: The contrasts besides the T1w, in the requested order.
        pairs: At least one, sorted by subject and session, including dropped ones.
        synthetic: Whether the data set is marked as showing no real patients.
    """

    layout: Layout
    conditions: tuple[str, ...]
    pairs: tuple[ScanPair, ...]
    synthetic: bool = False


def make_pair(
    subject: str,
    session: str,
    files: Mapping[str, Sequence[Path]],
    conditions: Sequence[str],
    *,
    scan: str = "",
) -> ScanPair:
    """Make a pair of a visit's files; a missing or ambiguous file marks it as dropped.

    Args:
        subject: Identifier of the subject; a pair without one is dropped.
        session: Identifier of the visit.
        files: The files of each contrast: "T1w", "labels" and the conditions.
        conditions: The contrasts of which at least one is needed.
        scan: Name that distinguishes several pairs of a visit.

    Returns:
        The pair, possibly marked as dropped.
    """
    several = [name for name in (TARGET, *conditions) if len(files.get(name, ())) > 1]
    dropped = None
    if not subject:
        dropped = "no subject named"
    elif not files.get(TARGET):
        dropped = f"{TARGET} missing"
    elif several:
        dropped = f"several {several[0]} of one visit"
    elif not any(files.get(name) for name in conditions):
        dropped = f"{' and '.join(conditions)} missing"
    if dropped is not None:
        return ScanPair(subject, session, scan, dropped=dropped)
    labels = files.get(LABELS, ())
    return ScanPair(
        subject,
        session,
        scan,
        target=files[TARGET][0],
        conditions={name: next(iter(files.get(name, ())), None) for name in conditions},
        segmentation=labels[0] if len(labels) == 1 else None,
        remarks=(UNCLEAR_LABELS,) if len(labels) > 1 else (),
    )


def sort_pairs(pairs: Iterable[ScanPair]) -> tuple[ScanPair, ...]:
    """Sort pairs into an order that does not depend on the file system."""
    return tuple(sorted(pairs, key=lambda pair: (pair.subject, pair.session, pair.scan)))


def check_folder(folder: str | Path) -> Path:
    """Return a folder as a path, or raise FileNotFoundError if it does not exist."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder.")
    return folder


def check_conditions(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of conditions after checking that they can be parts of file names.

    Args:
        names: E.g. "FLAIR".

    Returns:
        The names.

    Raises:
        ValueError: There is none, one is given twice, or one has characters other than letters and
            digits or is reserved.
    """
    names = tuple(names)
    for name in names:
        if not re.fullmatch("[A-Za-z0-9]+", name) or name in (TARGET, LABELS):
            raise ValueError(
                f"The condition {name!r} has no valid name; give letters and digits, but neither "
                f"{TARGET} nor {LABELS}."
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"The conditions are {list(names)}; give one or more, each once.")
    return names
