"""Reports of a preparation: counts, and the reason of every dropped row."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffct.atomic import atomic_file
from diffct.data.manifest import SPLITS, ManifestRow, SplitName

REPORT_NAME = "prepare_report.json"
DROPPED_NAME = "dropped.csv"


@dataclass(frozen=True)
class Dropped:
    """A row that is left out.

    Args:
        csv_row: Its number in the table, where the header is row 1.
        reason: Why it is left out, in words that many rows share, so that they can be counted.
        detail: Further explanation, without identifiers.
    """

    csv_row: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class PreparationReport:
    """The counts of a preparation; they add up: rows = images + dropped.

    Args:
        rows: Rows of the data set's table.
        images: Images in each split of the manifest.
        patients: Patients in each split.
        sentences: Sentences in each split.
        dropped: Number of rows left out by reason, the most frequent first.
        enlarged: Images that were smaller than the requested size.
        joined_patients: Patients merged into another patient, since both have the same image.
        unlike_chest: Number of images whose header contradicts a frontal view of a chest, by what
            the header says.
        settings: The requested settings.
    """

    rows: int
    images: dict[SplitName, int]
    patients: dict[SplitName, int]
    sentences: dict[SplitName, int]
    dropped: dict[str, int]
    enlarged: int
    joined_patients: int
    unlike_chest: dict[str, int]
    settings: Mapping[str, Any]

    def format(self) -> str:
        """Write the report as a table.

        Returns:
            Lines of text.
        """
        lines = [f"{'split':<12}{'images':>9}{'patients':>10}{'sentences':>11}"]
        lines += [
            f"{name:<12}{self.images[name]:>9}{self.patients[name]:>10}{self.sentences[name]:>11}"
            for name in SPLITS
        ]
        kept, left_out = sum(self.images.values()), sum(self.dropped.values())
        lines += ["", f"{kept} images kept + {left_out} rows dropped = {self.rows} rows"]
        lines += [f"{count:>9}  {reason}" for reason, count in self.dropped.items()]
        if self.enlarged:
            lines.append(
                f"{self.enlarged} images were smaller than the requested size and were enlarged."
            )
        if self.joined_patients:
            lines.append(
                f"{self.joined_patients} patients have the same picture as another patient and are"
                " counted as that patient. dropped.csv names the rows."
            )
        if self.unlike_chest:
            remarks = ", ".join(f"{what} ({count})" for what, count in self.unlike_chest.items())
            lines.append(
                f"WARNING: by their headers some images are no frontal chest views: {remarks}. "
                "They are kept; 'header' in the manifest names them."
            )
        return "\n".join(lines)


def summarize(
    rows: Iterable[ManifestRow],
    dropped: Iterable[Dropped],
    *,
    enlarged: int,
    joined: int,
    settings: Mapping[str, Any],
) -> PreparationReport:
    """Count what was kept and what was dropped.

    Args:
        rows: The rows of the manifest.
        dropped: The rows left out.
        enlarged: Images that were smaller than the requested size.
        joined: Patients merged into another patient.
        settings: The requested settings.

    Returns:
        The report.
    """
    rows = list(rows)
    reasons = count_reasons(row.reason for row in dropped)
    return PreparationReport(
        rows=len(rows) + sum(reasons.values()),
        images={name: sum(row.split == name for row in rows) for name in SPLITS},
        patients={name: len({row.patient for row in rows if row.split == name}) for name in SPLITS},
        sentences={
            name: sum(len(row.sentences) for row in rows if row.split == name) for name in SPLITS
        },
        dropped=reasons,
        enlarged=enlarged,
        joined_patients=joined,
        unlike_chest=count_reasons(what for row in rows for what in row.facts.get("header", ())),
        settings=settings,
    )


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Count equal reasons, the most frequent first."""
    counts = Counter(reasons)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_report(
    counts: Mapping[str, Any],
    dropped: Iterable[tuple[str | int, ...]],
    folder: Path,
    *,
    columns: Sequence[str],
) -> None:
    """Write the counts as JSON, and everything dropped with its reason as CSV.

    Args:
        counts: The report as JSON values.
        dropped: The cells of each line; the lines are sorted.
        folder: Where `prepare_report.json` and `dropped.csv` are written.
        columns: The header of the lines.

    Raises:
        OSError: The disk is full.
    """
    with atomic_file(folder / REPORT_NAME) as partial:
        partial.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    with (
        atomic_file(folder / DROPPED_NAME) as partial,
        partial.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(sorted(dropped))
