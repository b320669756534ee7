"""Report of the preparation of CT scans: counts, and the reason of every dropped scan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffct.data.manifest import SPLITS, ManifestRow, SplitName
from diffct.prepare.report import count_reasons


@dataclass(frozen=True)
class Dropped:
    """A scan or another file that is left out.

    Attributes:
        path: Relative to the folder of the scans; may identify a patient.
        reason: Why it is left out, in words that many scans share, so that they can be counted.
        detail: Further explanation.
    """

    path: str
    reason: str
    detail: str = ""

    def line(self) -> tuple[str, str, str]:
        """Return the cells of a line; names that are not UTF-8 are escaped."""
        path, detail = (
            text.encode("utf-8", "backslashreplace").decode() for text in (self.path, self.detail)
        )
        return path, self.reason, detail


@dataclass(frozen=True)
class CTReport:
    """The counts of a preparation; they add up: scans = images + dropped.

    Attributes:
        scans: Scans found.
        images: Scans in each split of the manifest.
        patients: Patients in each split.
        median_size: Voxels (depth, height, width) of the scans in the manifest.
        median_spacing_mm: Their spacing.
        dropped: Number of scans left out by reason, the most frequent first.
        left_out: Number of other files, which are not scans to be read, by reason.
        joined_patients: Patients merged into another patient, since both have the same scan.
        notes: Further remarks for the user.
        settings: The requested settings.
    """

    scans: int
    images: dict[SplitName, int]
    patients: dict[SplitName, int]
    median_size: list[float]
    median_spacing_mm: list[float]
    dropped: dict[str, int]
    left_out: dict[str, int]
    joined_patients: int
    notes: list[str]
    settings: Mapping[str, Any]

    def format(self) -> str:
        """Write the report as a table.

        Returns:
            Lines of text, without names of patients.
        """
        lines = [f"{'split':<12}{'scans':>9}{'patients':>10}"]
        lines += [f"{name:<12}{self.images[name]:>9}{self.patients[name]:>10}" for name in SPLITS]
        kept, dropped = sum(self.images.values()), sum(self.dropped.values())
        lines += ["", f"{kept} scans kept + {dropped} dropped = {self.scans} scans"]
        lines += [f"{count:>9}  {reason}" for reason, count in self.dropped.items()]
        if self.left_out:
            lines.append(f"{sum(self.left_out.values())} other files are not scans to be read:")
            lines += [f"{count:>9}  {reason}" for reason, count in self.left_out.items()]
        if kept:
            size = "x".join(f"{n:g}" for n in self.median_size)
            spacing = "x".join(f"{mm:.3g}" for mm in self.median_spacing_mm)
            lines.append(f"Median: {size} voxels of {spacing} mm (depth, height, width).")
        if self.joined_patients:
            lines.append(
                f"{self.joined_patients} patients have the same scan as another patient and are"
                " counted as that patient."
            )
        if kept and not self.images["validation"]:
            lines.append("No scan is held out for validation, so training will keep no best model.")
        return "\n".join([*lines, *self.notes])


def summarize_scans(
    rows: Sequence[ManifestRow],
    dropped: Iterable[Dropped],
    *,
    left_out: Mapping[str, int],
    joined: int,
    notes: Sequence[str],
    settings: Mapping[str, Any],
) -> CTReport:
    """Count what was kept and what was dropped.

    Args:
        rows: The rows of the manifest.
        dropped: The scans left out.
        left_out: Number of other files by reason.
        joined: Patients merged into another patient.
        notes: Further remarks for the user.
        settings: The requested settings.
    """
    reasons = count_reasons(entry.reason for entry in dropped)
    return CTReport(
        scans=len(rows) + sum(reasons.values()),
        images={name: sum(row.split == name for row in rows) for name in SPLITS},
        patients={name: len({row.patient for row in rows if row.split == name}) for name in SPLITS},
        median_size=_median(rows, "size"),
        median_spacing_mm=_median(rows, "spacing_mm"),
        dropped=reasons,
        left_out=dict(left_out),
        joined_patients=joined,
        notes=list(notes),
        settings=settings,
    )


def _median(rows: Sequence[ManifestRow], fact: str) -> list[float]:
    """Return the median of a fact along each axis; an empty list without rows."""
    return np.median([row.facts[fact] for row in rows], axis=0).tolist() if rows else []
