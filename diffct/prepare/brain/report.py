"""Report of the preparation of pairs: counts, and the reasons of dropped pairs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffct.data.manifest import SPLITS, ManifestRow, SplitName
from diffct.prepare.brain.pairs import TARGET
from diffct.prepare.report import count_reasons


@dataclass(frozen=True)
class BrainReport:
    """The counts of a preparation; they add up: pairs = kept + dropped.

    Attributes:
        pairs: Pairs found, or visits in which there should be one.
        kept: Pairs with slices in the manifest.
        slices: Slices in each split of the manifest.
        subjects: Subjects in each split.
        conditions: Slices that have each condition.
        dropped: Number of pairs left out by reason, the most frequent first.
        joined_subjects: Subjects merged into another subject, since both have the same scan.
        remarks: Number of kept pairs or slices that were changed or left out, by remark.
        settings: The requested settings.
    """

    pairs: int
    kept: int
    slices: dict[SplitName, int]
    subjects: dict[SplitName, int]
    conditions: dict[str, int]
    dropped: dict[str, int]
    joined_subjects: int
    remarks: dict[str, int]
    settings: Mapping[str, Any]

    def format(self) -> str:
        """Write the report as a table.

        Returns:
            Lines of text, without names of subjects.
        """
        lines = [f"{'split':<12}{'slices':>9}{'subjects':>10}"]
        lines += [f"{name:<12}{self.slices[name]:>9}{self.subjects[name]:>10}" for name in SPLITS]
        lines += ["", *(f"{n:>9}  slices of {TARGET} with {c}" for c, n in self.conditions.items())]
        left_out = sum(self.dropped.values())
        lines += ["", f"{self.kept} pairs kept + {left_out} dropped = {self.pairs} pairs"]
        lines += [f"{count:>9}  {reason}" for reason, count in self.dropped.items()]
        if self.joined_subjects:
            lines.append(
                f"{self.joined_subjects} subjects have the same scan as another subject and are"
                " counted as that subject."
            )
        if self.remarks:
            lines += ["", "Of the pairs kept:"]
            lines += [f"{count:>9}  {remark}" for remark, count in self.remarks.items()]
        return "\n".join(lines)


def summarize_pairs(
    rows: Sequence[ManifestRow],
    dropped: Iterable[str],
    *,
    kept: int,
    joined: int,
    remarks: Iterable[Mapping[str, int]],
    settings: Mapping[str, Any],
) -> BrainReport:
    """Count what was kept and what was dropped.

    Args:
        rows: The rows of the manifest.
        dropped: The reason of every dropped pair.
        kept: Number of pairs that the rows belong to.
        joined: Subjects merged into another subject.
        remarks: The counts of every kept pair's remarks.
        settings: The requested settings, among them the names of the "conditions".

    Returns:
        The report.
    """
    reasons = count_reasons(dropped)
    counts: Counter[str] = Counter()
    for own in remarks:
        counts.update(own)
    return BrainReport(
        pairs=kept + sum(reasons.values()),
        kept=kept,
        slices={name: sum(row.split == name for row in rows) for name in SPLITS},
        subjects={name: len({row.patient for row in rows if row.split == name}) for name in SPLITS},
        conditions={
            name: sum(name in row.facts["conditions"] for row in rows)
            for name in settings["conditions"]
        },
        dropped=reasons,
        joined_subjects=joined,
        remarks=dict(sorted(counts.items())),
        settings=settings,
    )
